"""`Guide`: one door through which constraints steer every family of generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint, listing
from matdesign.constraints.conditions import merged
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.guidance.guided_sampler import GuidedSampler
from matdesign.guidance.methods import METHODS, Choices, ranges, serve
from matdesign.guidance.rejection import Record, draw_until_met

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator

__all__ = ["METHODS", "Guide"]


class Guide:
    """Steers any generator toward crystals that meet constraints, without retraining.

    Left alone, it chooses a method for each constraint and family and says why: print
    `guide.plan(model)`. Methods: `mask` (elements, composition, charge, size, symmetry:
    nothing else can be drawn), `project` (the finished crystal is moved into the range),
    `gradient` (previews are moved), `classifier_free` (the model is asked for what it
    was trained to be asked for), `replace` (known coordinates are put back at every step),
    `steer` (particles, resampled by their rewards) and `reject` (draw, check, keep: the
    baseline). Whatever the method, every crystal is checked strictly at the end, and
    what misses is drawn again: asked n, returned n, or an error that says why not.

    Equation:
        wanted: p(x | met) = p(x) 1[x meets all] / P(met) for `reject`; for `steer`
        alone p(x) exp(scale x reward) / Z as particles grow; the others approximate.
        Which of its particles stands for a crystal is chosen more strictly than by
        these weights: see `GuidedSampler.choose`.

    Args:
        wanted: one constraint, or several joined with `&`.
        method: one of `METHODS` for every constraint that can have it, with elements,
            size and symmetry masked beside; None chooses.
        scale: strength. 0 is the unguided model bit for bit, checked but not drawn again;
            1 is the plain setting; more pushes harder. It multiplies gradients and
            rewards, and is the scale of classifier-free guidance.
        particles: for each crystal, with the method `steer`, at least 2.
        strict: "all" draws again whatever misses any constraint; "hard" lets soft ones
            (ranges, predicted properties) be missed, so that hit rates can be compared.
        draws: at most how many crystals to draw; None means 50 for each one asked.

    Raises:
        InfeasibleTarget: the constraints exclude each other; the message says which.
        DataError: the method is unknown, or a number is out of range.

    Example:
        >>> import matdesign as design
        >>> design.Guide(design.OnlyElements("Na", "Cl") & design.MinDistance(1.4))
        Guide by the best methods: only Cl and Na, and no two atoms closer than 1.4 angstrom
    """

    def __init__(
        self,
        wanted: Constraint,
        method: str | None = None,
        *,
        scale: float = 1.0,
        particles: int = 8,
        strict: Literal["all", "hard"] = "all",
        draws: int | None = None,
    ) -> None:
        if not isinstance(wanted, Constraint):
            raise DataError(
                f"a guide needs a constraint; got {wanted!r}. "
                "Build one such as MinDistance(1.4), and join several with &."
            )
        if method is not None and method not in METHODS:
            raise DataError(
                f"unknown guidance method {method!r}; choose {', '.join(METHODS)}."
            )
        if strict not in ("all", "hard"):
            raise DataError(f'strict must be "all" or "hard"; got {strict!r}.')
        for name, value, least in (("draws", draws, 1), ("particles", particles, 2)):
            if value is not None and value < least:
                raise DataError(f"{name} must be at least {least}; got {value}.")
        if not 0 <= scale < float("inf"):
            raise DataError(f"scale must be finite and >= 0; got {scale}.")
        clashes = contradictions(wanted)
        if clashes:
            raise InfeasibleTarget(
                "no crystal can meet these constraints together: "
                f"{'; '.join(clashes)}. Loosen or drop one of them."
            )
        self.wanted, self.method, self.scale = wanted, method, float(scale)
        self.particles, self.strict, self.draws = particles, strict, draws

    def __repr__(self) -> str:
        how = self.method or "the best methods"
        return f"Guide by {how}: {self.wanted}"

    def plan(self, model: Generator) -> Choices:
        """Return how each constraint is served for a model, and why; print it.

        Args:
            model: any generator.

        Raises:
            DataError: the method cannot serve any constraint in this family.
            InfeasibleTarget: an element is required that the model never makes.
        """
        config = getattr(model, "config", {})
        strangers = self.wanted.required - set(config.get("elements", range(104)))
        if strangers:
            names = listing(sorted(elements.symbols()[z] for z in strangers))
            raise InfeasibleTarget(
                f"no crystal of this {type(model).__name__} holds {names}: it was trained "
                "on crystals without. Require other elements, or train a model on crystals "
                "that have them."
            )
        return serve(self.wanted.parts, model, self.method, self.strict)

    def sample(
        self,
        model: Generator,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        n_atoms: int | Sequence[int] | Tensor | None = None,
        **settings: Any,
    ) -> Crystals:
        """Return n crystals of the model that all meet the constraints.

        Args:
            model: any generator.
            n: how many crystals, >= 0.
            seed: for the draws; None draws a fresh one, reported in `info["seed"]`.
            n_atoms: atoms per crystal, one number or one for each; None lets the model
                choose. With one for each, crystal i of the result has n_atoms[i] atoms.
            **settings: passed on to the model's `sample` (steps, batch_size, ...).

        Returns:
            Exactly n crystals. `info["guide"]` records, as plain JSON, how constraints
            were served, every step of the first batches, how many were drawn and met
            each constraint, network evaluations, predictor calls and seconds.

        Raises:
            InfeasibleTarget: an element is required that the model never makes, or the
                budget of draws was spent first; the message says how many were found and
                which constraint to loosen.
            DataError: n is negative, n_atoms does not name n sizes, or the method cannot
                serve any constraint in this family.
        """
        choices = self.plan(model)
        if self.scale == 0:
            record = Record(self.wanted, n, "all")
            made = model.sample(n, seed=seed, n_atoms=n_atoms, **settings)
            record.add(n, made)
            log = self._log(choices) | record.log()
            return made.replace(info={**made.info, "guide": log})
        random = generator(seed)
        conditions = self._conditions(model, choices, settings.pop("conditions", None))
        if n_atoms is not None and "n_atoms" in conditions:
            size, sizes = conditions.pop("n_atoms"), torch.as_tensor(n_atoms)
            if not bool((sizes == size).all()):
                raise InfeasibleTarget(
                    f"the constraints ask for {size} atoms, but n_atoms is "
                    f"{sizes.tolist()}. Leave n_atoms out."
                )
        if conditions:
            settings["conditions"] = conditions
        if choices.by("classifier_free"):
            settings["scale"] = self.scale
        how = choices, self.scale, self.particles, random, self.wanted
        sampler = GuidedSampler(*how)
        if not sampler.idle or sampler.choices is not None:
            settings["controller"] = sampler

        def draw(size: int, draw_seed: int, sizes: list[int] | None) -> Crystals:
            return model.sample(size, seed=draw_seed, n_atoms=sizes, **settings)

        calls = _predictor_calls(self.wanted)
        record = Record(self.wanted, n, self.strict, self.draws)
        made = draw_until_met(draw, record, n_atoms, random)
        log = self._log(choices) | record.log() | {"log": {"steps": sampler.steps}}
        calls += sampler.predictor_calls  # the log guides nothing
        log["predictor_calls"] = _predictor_calls(self.wanted) - calls
        info = {**record.info, "seed": random.initial_seed(), "guide": log}
        for name in info.keys() & {"network_evaluations", "seconds"}:
            info[name] = log[name]
        return made.replace(info=info)

    def _conditions(
        self, model: Generator, choices: Choices, given: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return what the model is asked for: by the constraints and by the caller."""
        masked = merged([one.conditions() for one in choices.by("mask")])
        learned = ranges(choices, model)
        theirs = {k: v for k, v in dict(given or {}).items() if v is not None}
        both = set(learned) & set(theirs)
        if both:
            raise DataError(
                f"{', '.join(sorted(both))} is asked for twice: as a constraint and "
                "among the conditions. Give it once."
            )
        return merged([masked, theirs]) | learned

    def _log(self, choices: Choices) -> dict[str, Any]:
        """Return how constraints are served, as plain JSON."""
        return {
            "method": self.method or ", ".join(choices.methods),
            "scale": self.scale,
            "particles": self.particles if choices.by("steer") else 1,
            "strict": self.strict,
            "choices": [
                {"constraint": str(c.constraint), "methods": [*c.methods], "why": c.why}
                for c in choices.choices
            ],
        }


def _predictor_calls(wanted: Constraint) -> int:
    """Return how many crystals the predictors of constraints have judged so far."""
    return sum(int(getattr(one, "predictor_calls", 0)) for one in wanted.parts)


def contradictions(wanted: Constraint) -> list[str]:
    """Return why no crystal can meet all constraints; empty where none is found.

    Only proofs are listed, never guesses: an empty list does not promise that a crystal
    exists. Constraints are compared in pairs, by the elements that one requires and the
    other leaves out and by what each says of the other; volumes per atom all together.

    Args:
        wanted: one constraint, or several joined with `&`.

    Returns:
        One sentence per contradiction, naming the constraints that clash.
    """
    parts, names, found = wanted.parts, elements.symbols(), []
    for a, b in permutations(parts, 2):
        outside = a.required - (a.required if b.only is None else b.only)
        if outside:
            some = listing(sorted(names[z] for z in outside))
            found.append(f"{some} is required by: {a}, but excluded by: {b}")
    for a, b in combinations(parts, 2):
        if a.excludes(b) or b.excludes(a):
            found.append(f"{a} and {b} exclude each other")
    return found or _volumes(wanted)


def _volumes(wanted: Constraint) -> list[str]:
    """Return whether one constraint needs more room for an atom than another leaves."""
    masses, left = elements.table("mass"), set(range(1, elements.MAX_Z + 1))
    for one in wanted.parts:
        left &= left if one.only is None else one.only
    each = [float(masses[z]) for z in left]
    ends = [one.volumes(min(each), max(each)) for one in wanted.parts] if each else []
    for (low, _), a in zip(ends, wanted.parts, strict=False):
        for (_, high), b in zip(ends, wanted.parts, strict=False):
            if low > high * (1 + 1e-6):
                return [
                    f"{a} needs at least {low:.3g} angstrom^3 per atom, but {b} allows at "
                    f"most {high:.3g} with these elements"
                ]
    return []
