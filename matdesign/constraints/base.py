"""The interface of a constraint, and how constraints combine."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import cycle
from typing import Any, Self

import torch
from torch import Tensor

from matdesign.constraints.conditions import merged
from matdesign.constraints.known import Known
from matdesign.constraints.unfinished import Orbits
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError


class Constraint(ABC):
    """Something that a crystal must be.

    A constraint answers twice. `satisfied` is the strict check on a finished crystal:
    yes or no. `violation` is how far away a crystal still is, in the constraint's own
    unit; it also reads the undecided crystals that a sampler previews and is
    differentiable wherever the mathematics allows it. A new constraint is these two
    methods, a unit and a sentence; `satisfied` alone is enough for one that is met or
    not, which a guide then serves by drawing again, or with particles.

    What else a constraint may offer has a default that says "nothing": `allowed` (a mask
    over elements), `conditions` (what a generator can be asked for), `project` (an exact
    projection), `known` (sites that are fixed beforehand), `excludes` (what it rules out).

    Example:
        >>> from matdesign.constraints.elements import OnlyElements
        >>> from matdesign.constraints.distance import MinDistance
        >>> OnlyElements("Ti", "O") & MinDistance(1.4)
        only O and Ti, and no two atoms closer than 1.4 angstrom
    """

    unit: str = "1 if missed"
    """Unit of `violation`."""

    hard: bool = True
    """Whether a crystal is either right or wrong (elements, a space group), so that a
    guide must never return one that misses it; False where nearer is better and a hit
    rate is what counts (density, a predicted property)."""

    scale: float = 1.0
    """Violation, in `unit`, that costs one nat: a crystal that misses by so much weighs
    exp(-1) of one that meets the constraint, where particles are weighed."""

    required: frozenset[int] = frozenset()
    """Atomic numbers that every crystal that meets this constraint holds."""

    only: frozenset[int] | None = None
    """Atomic numbers of which all its atoms are; None = any."""

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return how far each crystal is from meeting the constraint.

        Here: 0 where it is met and 1 where it is missed, by undecided crystals with the
        most probable element on every site. Such a violation has no gradient.

        Args:
            crystals: finished or undecided crystals.

        Returns:
            Values >= 0 in `unit`, shape (crystals,); 0 where the constraint is met.
        """
        if isinstance(crystals, SoftCrystals):
            crystals = crystals.harden()
        return (~self.satisfied(crystals)).to(crystals.frac.dtype)

    @abstractmethod
    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether each finished crystal meets the constraint, strictly.

        Args:
            crystals: finished crystals.

        Returns:
            Booleans of shape (crystals,).
        """

    def sentence(self) -> str:
        """Return the constraint in words, as `repr` prints it; here its class name."""
        return type(self).__name__

    def allowed(self, orbits: Orbits) -> Tensor | None:
        """Return which elements each orbit may still become, or None: no say.

        Decided orbits allow the element they have where the constraint can still be met,
        and none where it cannot; padding allows none. An element is allowed on an open
        orbit when the constraint can still be met after it is put there, or when that
        cannot be told; what ends nowhere is drawn again.

        Args:
            orbits: of half-decided crystals; the answer lies within `orbits.within`.

        Returns:
            Bool, shape (crystals, orbits, 104), or None.
        """
        return None

    def conditions(self) -> dict[str, Any]:
        """Return what of the constraint a generator can be asked for, exactly.

        Returns:
            Values for `conditions` of a generator's `sample`, with keys among
            "composition", "spacegroup", "crystal_system" and "n_atoms"; empty where the
            constraint cannot be said in these words.
        """
        return {}

    def project(self, soft: SoftCrystals) -> SoftCrystals | None:
        """Return the crystals moved the shortest way onto the constraint, or None.

        Args:
            soft: undecided crystals.

        Returns:
            Crystals of zero violation, or None where there is no exact projection. What
            is not finite stays as it is.
        """
        return None

    def known(self) -> Known | None:
        """Return coordinates and cell that are fixed before sampling begins, or None."""
        return None

    def excludes(self, other: "Constraint") -> bool:
        """Return whether it is sure that no crystal meets this one and another.

        Elements need no word here: see `required` and `only`.

        Args:
            other: a single one.
        """
        return False

    def volumes(self, light: float, heavy: float) -> tuple[float, float]:
        """Return the least and the most volume per atom that is left, angstrom^3.

        Args:
            light: mass of the lightest element that may be there, u.
            heavy: that of the heaviest.
        """
        return 0.0, float("inf")

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    @property
    def parts(self) -> "tuple[Constraint, ...]":
        """The constraints this one is made of; itself when it is not a combination."""
        return (self,)

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        """Keep what the constraint is made with, for `to_dict`."""
        made = super().__new__(cls)
        made._made_with = args, settings
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the class and what the constraint was made with, as plain JSON.

        Raises:
            DataError: it is not of this package, or was made with something that is no
                plain number or word, such as a crystal or a function.
        """
        if not type(self).__module__.startswith("matdesign."):
            raise DataError(
                f"only this package's constraints can be written as JSON; got {self!r}. "
                "Make it again where it is needed."
            )
        args, settings = self._made_with
        words = {"class": type(self).__name__, "args": args, "settings": settings}
        plain: dict[str, Any] = json.loads(json.dumps(words, default=_plain))
        return plain

    @staticmethod
    def from_dict(words: Mapping[str, Any]) -> "Constraint":
        """Return the constraint that `to_dict` wrote.

        Raises:
            DataError: no such constraint is in this package, or it takes other settings.
        """
        import matdesign

        name = words["class"]
        kind = All if name == "All" else getattr(matdesign, str(name), None)
        if not (isinstance(kind, type) and issubclass(kind, Constraint)):
            raise DataError(
                f"no constraint of this package is called {name!r}; update the package, or "
                "make the constraint again."
            )
        settings = {key: _read(value) for key, value in words["settings"].items()}
        try:
            return kind(*_read(words["args"]), **settings)
        except TypeError as wrong:
            raise DataError(f"another version wrote {name}: make it again.") from wrong

    def __repr__(self) -> str:
        return self.sentence()

    def __and__(self, other: "Constraint") -> "All":
        if not isinstance(other, Constraint):
            return NotImplemented
        return All(self, other)


class All(Constraint):
    """Several constraints at once; what `a & b` gives.

    `violation` adds the parts as plain numbers, each in its own unit, so it is zero
    exactly where every part is zero; read the parts for quantities with a unit.

    Args:
        *constraints: what must hold; nested combinations are flattened.

    Raises:
        DataError: no constraint is given.
    """

    unit = "sum over parts, each in its own unit"

    def __init__(self, *constraints: Constraint) -> None:
        self._parts = tuple(part for one in constraints for part in one.parts)
        if not self._parts:
            raise DataError("All() got no constraint; give at least one.")
        self.hard = all(one.hard for one in self._parts)
        self.required = frozenset().union(*(one.required for one in self._parts))

    @property
    def parts(self) -> tuple[Constraint, ...]:
        """The single constraints, in the order they were given."""
        return self._parts

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the sum of the parts' violations, shape (crystals,)."""
        return torch.stack([one.violation(crystals) for one in self.parts]).sum(dim=0)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether every part holds, shape (crystals,)."""
        return torch.stack([one.satisfied(crystals) for one in self.parts]).all(dim=0)

    def allowed(self, orbits: Orbits) -> Tensor | None:
        """Return what every part allows; None where no part has a say.

        Parts are asked in turn, each within what the others leave, until none takes
        anything from what another left; what one says is its own last word.
        Jointly exact for elements that are allowed or required with one that reckons
        with both (charge); of other combinations it rules out what one part rules out.
        """
        orbits = replace(orbits, required=orbits.required | self.required)
        found: Tensor | None = None
        size, agreed = -1, 0
        for one in cycle(self.parts):
            answer = one.allowed(orbits)
            if answer is not None and orbits.within is not None:
                answer = answer & orbits.within  # also of one that forgets the others
            left = size if answer is None else int(answer.count_nonzero())
            agreed = agreed + 1 if left == size else 1
            if answer is not None:
                found, size, orbits = answer, left, replace(orbits, within=answer)
            if agreed == len(self.parts):
                break
        return found

    def conditions(self) -> dict[str, Any]:
        """Return what the parts can be asked for together.

        Raises:
            InfeasibleTarget: two parts ask for what excludes each other.
        """
        return merged([one.conditions() for one in self.parts])

    def project(self, soft: SoftCrystals) -> SoftCrystals | None:
        """Return the crystals projected onto one part after the other, in their order.

        A later projection may undo an earlier one; repeat it, or read `violation`. None
        where no part has a projection.
        """
        moved: SoftCrystals | None = None
        for one in self.parts:
            answer = one.project(soft if moved is None else moved)
            moved = moved if answer is None else answer
        return moved

    def known(self) -> Known | None:
        """Return what the first part that knows coordinates knows; None where none does."""
        found = (one.known() for one in self.parts)
        return next((one for one in found if one is not None), None)

    def sentence(self) -> str:
        """Return the parts' sentences, joined."""
        return ", and ".join(one.sentence() for one in self.parts)


def _plain(value: Any) -> dict[str, Any]:
    """Return the dict of a constraint, for JSON."""
    if isinstance(value, Constraint):
        return value.to_dict()
    raise DataError(
        f"a constraint was made with {type(value).__name__}, which cannot be written as "
        "JSON. Make it again where it is needed."
    )


def _read(value: Any) -> Any:
    """Return a value as it was before JSON; lists as tuples."""
    if isinstance(value, Mapping):
        return Constraint.from_dict(value)
    return tuple(_read(one) for one in value) if isinstance(value, list) else value


def listing(names: Iterable[str]) -> str:
    """Return names in one phrase: "Ca, O and Ti"."""
    words = list(names)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
