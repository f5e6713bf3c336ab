"""`Request`: what is asked of crystals, checked, and made ready for a generator."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from matdesign.crystals import elements
from matdesign.crystals.elements import is_pattern, parse_formula, parse_pattern
from matdesign.crystals.lattice_code import SYSTEMS, system_of
from matdesign.crystals.symmetry.find import spacegroup_number
from matdesign.errors import DataError, InfeasibleTarget, ShapeError
from matdesign.generators.conditions import Condition

Conditions = Mapping[str, Any]
"""What crystals are asked to be: property name -> value or (low, high), and the names of
`STRUCTURAL`; see `resolve`."""

STRUCTURAL = ("composition", "spacegroup", "crystal_system", "n_atoms")
"""Conditions that every generator knows; all others are properties of its data."""


class Choices(Protocol):
    """Says which elements may still be where, given what is already decided."""

    @property
    def required(self) -> frozenset[int]:
        """Elements that must be there in the end, whatever else is asked."""

    def __call__(
        self, species: Tensor, counts: Tensor, role: Tensor | None, among: Tensor
    ) -> Tensor:
        """Return what each undecided orbit may become, so that all can be finished.

        Args:
            species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
            counts: atoms of each orbit, 0 on padding, shape (crystals, orbits).
            role: orbits of one role carry one element, -1 = no role; None = no roles.
            among: elements to choose from, bool, shape (crystals, orbits, 104).

        Returns:
            Bool, shape (crystals, orbits, 104), a part of `among`; nothing at all on the
            undecided orbits of a crystal that cannot be finished.
        """


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of each of n crystals, on the CPU.

    Args:
        n_atoms: atoms in the primitive cell, 0 = open, long, shape (crystals,).
        groups: space groups that are allowed, bool, shape (231,); None = any.
        formula: atoms of each element in the formula unit, all zero = open, long, shape
            (crystals, 104).
        pattern: atoms of each role in the unit of a pattern, largest first, all zero =
            none, long, shape (crystals, roles).
        condition: what the network is conditioned on.
        conditions: as they were written, for messages and records.
        choices: says which elements may still be where; None forbids nothing.
    """

    n_atoms: Tensor
    groups: Tensor | None
    formula: Tensor
    pattern: Tensor
    condition: Condition
    conditions: dict[str, Any]
    choices: Choices | None = None

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def unit(self) -> Tensor:
        """Atoms in the unit of the formula or pattern, 1 where none is given."""
        return (self.formula.sum(1) + self.pattern.sum(1)).clamp(min=1)

    def alike(self) -> list[tuple[int, Tensor]]:
        """Return one crystal of each kind of request, and all crystals that have it."""
        c = self.condition
        parts = [
            self.n_atoms[:, None],
            self.formula,
            self.pattern,
            c.given,
            c.low,
            c.high,
        ]
        kinds: dict[tuple[float, ...], list[int]] = {}
        for i, row in enumerate(torch.cat([x.float() for x in parts], 1).tolist()):
            kinds.setdefault(tuple(row), []).append(i)
        return [(rows[0], torch.tensor(rows)) for rows in kinds.values()]

    def words(self, one: int) -> str:
        """Return what is asked of one crystal, for messages."""
        parts = []
        if bool(self.formula[one].any() | self.pattern[one].any()):
            text = self.conditions.get("composition")
            shown = text if isinstance(text, str) or text is None else text[one]
            parts.append(f"the composition {shown}")
        if int(self.n_atoms[one]):
            parts.append(f"{int(self.n_atoms[one])} atoms")
        if self.groups is not None:
            for name in ("spacegroup", "crystal_system"):
                if self.conditions.get(name) is not None:
                    parts.append(f"{name} {self.conditions[name]}")
        return " and ".join(parts) or "what is asked"

    def __getitem__(self, index: Tensor) -> Request:
        """Return the requests for some crystals."""
        asked, text = dict(self.conditions), self.conditions.get("composition")
        if text is not None and not isinstance(text, str):
            asked["composition"] = [text[i] for i in torch.arange(len(self))[index]]
        return Request(
            self.n_atoms[index],
            self.groups,
            self.formula[index],
            self.pattern[index],
            self.condition[index],
            asked,
            self.choices,
        )


def resolve(
    conditions: Mapping[str, Any] | None,
    n_atoms: int | Sequence[int] | Tensor | None,
    n: int,
    *,
    allowed: Tensor,
    histogram: Sequence[int],
    properties: Mapping[str, Sequence[float]],
) -> Request:
    """Return a checked request for n crystals.

    Conditions: the name of a property with a value, or a range (low, high) whose open
    ends are None, in the units of the data; `spacegroup`, a number or symbol, or several
    of which any will do; `crystal_system`, a name or several; `composition`, a formula such as
    "SrTiO3" or a pattern such as "ABX3" whose letters stand for any different elements,
    or one of these for each crystal; `n_atoms`.

    Args:
        conditions: name -> value; None = nothing.
        n_atoms: atoms in the primitive cell, one number or one for each crystal.
        n: number of crystals.
        allowed: elements that the model knows, bool, shape (104,).
        histogram: number of training crystals with 0, 1, 2, ... atoms.
        properties: name -> [mean, standard deviation] of what the model knows.

    Raises:
        DataError: a condition that cannot be read: an unknown name, formula, space group ...
        ShapeError: numbers of atoms that are not one, or one for each crystal.
        InfeasibleTarget: conditions that contradict each other or the model's data.

    Example:
        >>> request = resolve({"composition": "SrTiO3"}, None, 2,
        ...     allowed=torch.ones(104, dtype=torch.bool), histogram=[0] * 10 + [1],
        ...     properties={})
        >>> request.unit.tolist()
        [5, 5]
    """
    given = dict(conditions or {})
    known = (*STRUCTURAL, *properties)
    for name in given:
        if name not in known:
            raise DataError(
                f"unknown condition {name!r}.{_hint(name, known)} This model knows "
                f"{', '.join(known)}."
            )
    if given.get("n_atoms") is not None and n_atoms is not None:
        raise DataError(
            f"n_atoms is given twice: got {n_atoms} and {given['n_atoms']} among the "
            "conditions. Give it once."
        )
    size = _sizes(
        given.get("n_atoms") if n_atoms is None else n_atoms, n, len(histogram) - 1
    )
    groups = _groups(given.get("spacegroup"), given.get("crystal_system"))
    formula, pattern = _compositions(given.get("composition"), n, allowed)
    _fits(size, formula, pattern, histogram, given.get("composition"))
    condition = Condition.nothing(n, len(properties))
    for i, (name, (mean, std)) in enumerate(properties.items()):
        if given.get(name) is not None:
            low, high = _range(name, given[name], n)
            condition.low[:, i] = (low - mean) / std
            condition.high[:, i] = (high - mean) / std
            condition.given[:, i] = low.isfinite() | high.isfinite()
    if groups is not None:  # the one group and the one system that are left, if any
        listed = groups.nonzero().squeeze(1)
        for named, target in (
            (listed, condition.spacegroup),
            (system_of(listed).unique(), condition.system),
        ):
            target.fill_(named[0] if len(named) == 1 else 0)
    total = formula.sum(1, keepdim=True).clamp(min=1)
    condition.composition.copy_(formula / total)
    return Request(size, groups, formula, pattern, condition, given)


def _hint(name: Any, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _sizes(
    n_atoms: int | Sequence[int] | Tensor | None, n: int, largest: int
) -> Tensor:
    """Return atoms per crystal, 0 where open."""
    if n < 0:
        raise ShapeError(f"cannot make {n} crystals; ask for none or more.")
    if n_atoms is None:
        return torch.zeros(n, dtype=torch.long)
    asked = torch.as_tensor(n_atoms, dtype=torch.long).cpu()
    if asked.ndim > 1 or (asked.ndim == 1 and len(asked) != n):
        raise ShapeError(
            f"n_atoms must be one number or one for each of {n} crystals; got shape "
            f"{tuple(asked.shape)}."
        )
    if n and (int(asked.min()) < 1 or int(asked.max()) > 4 * largest):
        raise ShapeError(
            f"n_atoms must lie between 1 and {4 * largest}, four times the largest "
            f"crystal of the training set; got {asked.tolist()}."
        )
    return asked.expand(n).clone()


def _range(name: str, value: Any, n: int) -> tuple[Tensor, Tensor]:
    """Return both ends of a property for each crystal, open ones infinite."""
    if isinstance(value, Tensor):
        if value.ndim > 1 or (value.ndim and len(value) != n):
            raise ShapeError(
                f"{name} as a tensor is one value for each of {n} crystals; got shape "
                f"{tuple(value.shape)}. Write a range as a pair (low, high)."
            )
        low = high = value.detach().cpu().float().expand(n)
    else:
        pair = (value, value) if isinstance(value, numbers.Real) else value
        try:
            if isinstance(pair, str) or not isinstance(pair, Sequence):
                raise TypeError
            first, last = pair
            low = torch.full((n,), -math.inf if first is None else float(first))
            high = torch.full((n,), math.inf if last is None else float(last))
        except (TypeError, ValueError):
            raise DataError(
                f"{name} must be a number or a range (low, high) with None for an open "
                f"end; got {value!r}."
            ) from None
    if bool((low.isnan() | high.isnan()).any()):
        raise DataError(f"{name} must not be NaN; got {value!r}. Leave it out instead.")
    if bool(((low > high) | low.isposinf() | high.isneginf()).any()):
        raise InfeasibleTarget(
            f"the range of {name} is empty: got {value!r}. Write (low, high) with low "
            "not above high."
        )
    return low, high


def _groups(spacegroup: Any, system: Any) -> Tensor | None:
    """Return which space groups are allowed, or None where nothing is asked."""
    if spacegroup is None and system is None:
        return None
    every = torch.arange(231)
    allowed = every > 0
    if spacegroup is not None:
        asked = [spacegroup_number(group) for group in _several(spacegroup)]
        allowed &= torch.isin(every, torch.tensor(asked))
    if system is not None:
        names = _several(system)
        for name in names:
            if name not in SYSTEMS:
                raise DataError(
                    f"unknown crystal system {name!r}.{_hint(name, SYSTEMS)} Choose from "
                    f"{', '.join(SYSTEMS)}."
                )
        asked = [1 + SYSTEMS.index(name) for name in names]
        allowed &= torch.isin(system_of(every), torch.tensor(asked))
    if not allowed.any():
        raise InfeasibleTarget(
            f"no space group is left: spacegroup {spacegroup!r} contradicts "
            f"crystal_system {system!r}. Leave one of them out."
        )
    return allowed


def _several(value: Any) -> list[Any]:
    if isinstance(value, Tensor):
        value = value.flatten().tolist()
    alone = isinstance(value, str) or not isinstance(value, Iterable)
    listed = [value] if alone else list(value)
    if not listed:
        raise DataError("got an empty list; name at least one, or leave it out.")
    return listed


def _compositions(value: Any, n: int, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Return formulas (n, 104) and patterns (n, roles), zero where none is asked."""
    formula = torch.zeros(n, elements.MAX_Z + 1, dtype=torch.long)
    if value is None:
        return formula, torch.zeros(n, 1, dtype=torch.long)
    listed = [value] * n if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not all(isinstance(w, str) for w in listed):
        raise DataError(
            f"composition must be a formula or a pattern, as text; got {value!r}."
        )
    if len(listed) != n:
        raise ShapeError(
            f"composition must be one text, or one for each of {n} crystals; got "
            f"{len(listed)}."
        )
    names, known = elements.symbols(), allowed.nonzero().squeeze(1).tolist()
    roles: list[tuple[int, ...]] = []
    for i, text in enumerate(listed):
        roles.append(parse_pattern(text) if is_pattern(text) else (0,))
        if len(roles[-1]) > len(known):
            raise InfeasibleTarget(
                f"the pattern {text!r} needs {len(roles[-1])} different elements, "
                f"but the model knows {len(known)}. Ask for a smaller one."
            )
        for z, count in {} if roles[-1][0] else parse_formula(text).items():
            if z not in known:
                raise InfeasibleTarget(
                    f"{names[z]} in {text!r} is no element that this model was trained on: "
                    f"it knows {' '.join(names[k] for k in known)}. Ask for another, or "
                    "train on data with it."
                )
            formula[i, z] = count
    listed_roles = [torch.tensor(counts) for counts in roles or [(0,)]]
    return formula, pad_sequence(listed_roles, batch_first=True)[:n]


def _fits(
    size: Tensor, formula: Tensor, pattern: Tensor, histogram: Sequence[int], value: Any
) -> None:
    """Raise where a number of atoms is no multiple of the formula, or none can be."""
    sizes = [k for k, count in enumerate(histogram) if count]
    units = (formula.sum(1) + pattern.sum(1)).clamp(min=1).tolist()
    seen = set()
    for i, pair in enumerate(zip(size.tolist(), units, strict=True)):
        (atoms, unit), text = pair, value if isinstance(value, str) else None
        if pair in seen:
            continue
        seen.add(pair)
        if atoms % unit:
            raise InfeasibleTarget(
                f"{atoms} atoms do not make whole formula units of {text or value[i]!r}, "
                f"which has {unit}. Ask for a multiple of {unit}."
            )
        if not atoms and unit > 1 and not any(k % unit == 0 for k in sizes):
            raise InfeasibleTarget(
                f"no crystal of the training set has a multiple of the {unit} atoms of "
                f"{text or value[i]!r}; their sizes are {sizes}. Give n_atoms to ask for "
                "it all the same, or choose another composition."
            )
