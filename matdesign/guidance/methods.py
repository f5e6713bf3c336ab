"""Which method serves which constraint in which family, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matdesign.constraints.base import Constraint
from matdesign.errors import DataError
from matdesign.guidance.masks import speaks
from matdesign.guidance.moves import gradients_by

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator

WHY = {
    "mask": "holds at every step, and a dead end is drawn again",
    "project": "the finished crystal is moved into the range exactly",
    "gradient": "what the model expects is moved towards it",
    "classifier_free": "the model is asked for it",
    "replace": "its coordinates are known beforehand",
    "steer": "particles are selected",
    "reject": "the baseline: draw, check, keep what holds",
}
"""What each method does for a constraint."""

METHODS = tuple(WHY)
"""The guidance methods there are."""


@dataclass(frozen=True, eq=False)
class Choice:
    """How one constraint is served.

    Args:
        constraint: a single one.
        methods: what serves it, in this order at every step.
        why: reason, as a sentence without its end.
    """

    constraint: Constraint
    methods: tuple[str, ...]
    why: str

    def __repr__(self) -> str:
        return f"{self.constraint}: {' and '.join(self.methods)} ({self.why})"


@dataclass(frozen=True, eq=False)
class Choices:
    """How every constraint of a guide is served; print it.

    Args:
        family: class of the generator.
        choices: one for each constraint.
        strict: what is drawn again: "all", or "hard" constraints only.
    """

    family: str
    choices: tuple[Choice, ...]
    strict: str

    def by(self, method: str) -> tuple[Constraint, ...]:
        """Return the constraints that a method serves."""
        return tuple(c.constraint for c in self.choices if method in c.methods)

    @property
    def methods(self) -> tuple[str, ...]:
        """All methods in use."""
        return tuple(m for m in METHODS if self.by(m))

    def __repr__(self) -> str:
        lines = [f"guidance of {self.family}:"]
        lines += [f"  {choice}" for choice in self.choices]
        again = "whatever misses a constraint"
        if self.strict == "hard":
            again = "whatever misses a hard constraint"
        return "\n".join([*lines, f"  then the strict check; {again} is drawn again"])


def refusal(
    constraint: Constraint,
    method: str,
    model: Generator,
    beside: tuple[Constraint, ...] = (),
) -> str:
    """Return why a method cannot serve a constraint in a family; "" where it can.

    Args:
        constraint: a single one.
        method: one of `METHODS`.
        model: any generator; what it can do is asked of its attributes `steerable` and
            `stepwise`.
        beside: constraints that are served before it.
    """
    family, fixed = type(model).__name__, constraint.known()
    if method == "reject":
        return ""
    if not getattr(model, "steerable", False):
        return f"{family} does not run the sampling loop"
    if method == "mask" and not (speaks(constraint) or _asked(constraint, model)):
        return "it is no matter of elements, size or symmetry that could be masked"
    if method == "project":
        if type(constraint).project is Constraint.project:
            return "it has no exact projection"
        if fixed and any(one.known() for one in beside):
            return "its sites would be taken from those of another constraint"
    if method == "classifier_free" and not property_of(constraint, model):
        known = ", ".join(model.properties) or "no property"
        return f"this model was trained with other conditions ({known})"
    if method == "replace":
        if fixed is None:
            return "it fixes no coordinates beforehand"
        if not all(fixed.fits(one.known()) for one in beside):
            return "its cell is not the one that another constraint fixes"
        if not _stepwise(model):
            return (
                f"{family} has no steps between which known coordinates can be put back"
            )
        if model.representation != "cell":
            return 'its coordinates are free only in the representation "cell"'
    if method == "gradient" and not gradients_by(constraint):
        return "its violation has no gradient"
    return ""


def serve(
    wanted: Iterable[Constraint], model: Generator, method: str | None, strict: str
) -> Choices:
    """Return how each constraint is served.

    Args:
        wanted: single constraints.
        model: any generator.
        method: one of `METHODS` for all that can have it; elements, size and symmetry are
            masked instead, which holds at every step, unless the method would be left
            without any constraint. None chooses for each.
        strict: "all" or "hard".

    Raises:
        DataError: no constraint can be served by the method; the message says why.
    """
    family, parts = type(model).__name__, tuple(wanted)
    if method is None:
        made = tuple(_default(one, model, parts[:k]) for k, one in enumerate(parts))
        return Choices(family, made, strict)
    why_not = {
        one: refusal(one, method, model, parts[:k]) for k, one in enumerate(parts)
    }
    if all(why_not.values()):
        reasons = "; ".join(f"{one}: {why}" for one, why in why_not.items())
        raise DataError(
            f"{method} cannot guide {family} here: {reasons}. Choose another method, or "
            "leave it out and let the guide choose."
        )
    masked = {one for one in parts if not refusal(one, "mask", model)}
    if method == "reject":
        masked.clear()
    elif all(one in masked or why for one, why in why_not.items()):
        masked = {one for one in masked if why_not[one]}
    chosen = []
    for one, why in why_not.items():
        if one in masked:
            chosen.append(Choice(one, ("mask",), WHY["mask"]))
        elif why:
            chosen.append(Choice(one, ("reject",), f"not {method}: {why}"))
        else:
            chosen.append(Choice(one, (method,), f"as asked: {WHY[method]}"))
    return Choices(family, tuple(chosen), strict)


def _default(
    one: Constraint, model: Generator, beside: tuple[Constraint, ...]
) -> Choice:
    """Return how a constraint is served where nobody asks for a method."""
    why_not = {method: refusal(one, method, model, beside) for method in METHODS}
    able = [method for method in METHODS if not why_not[method]]
    pulled = ["gradient"] if "gradient" in able and _stepwise(model) else []
    learned = ["classifier_free"] if "classifier_free" in able else []
    if "steer" not in able:
        return Choice(one, ("reject",), why_not["steer"])
    if "mask" in able or "replace" in able:
        methods = ["mask" if "mask" in able else "replace"]
    elif one.known() and any(other.known() for other in beside):
        return Choice(one, ("reject",), why_not["project"])
    elif "project" in able:
        methods = [*learned, *pulled, "project"]
    elif one.hard and not pulled:
        why = f"nothing cheaper is sure: {why_not['mask']}"
        return Choice(one, ("reject",), why)
    elif one.hard:
        methods = [*learned, *pulled]
    elif learned:
        methods = [*learned, "steer"]
    else:
        methods = ["steer", *(["gradient"] if "gradient" in able else [])]
    return Choice(one, tuple(methods), ", and ".join(WHY[m] for m in methods))


def _stepwise(model: Generator) -> bool:
    return bool(getattr(model, "stepwise", False))


def property_of(constraint: Constraint, model: Generator) -> str:
    """Return the property of a range that a model can be asked for; "" where none.

    A predicted property is the model's own where a network predicts it by the same name.

    Args:
        constraint: a single one; see `Range.learned`.
        model: any generator.
    """
    name = str(getattr(constraint, "learned", ""))
    return name if name in getattr(model, "properties", {}) else ""


def ranges(choices: Choices, model: Generator) -> dict[str, Any]:
    """Return the ranges of properties that classifier-free guidance asks for.

    Args:
        choices: how constraints are served.
        model: any generator.
    """
    found: dict[str, tuple[float, float]] = {}
    for one in choices.by("classifier_free"):
        low, high = found.get(property_of(one, model), (-math.inf, math.inf))
        ends = max(low, one.low), min(high, one.high)  # type: ignore[attr-defined]
        found[property_of(one, model)] = ends
    return {
        name: tuple(None if math.isinf(end) else end for end in ends)
        for name, ends in found.items()
    }


def _asked(constraint: Constraint, model: Generator) -> bool:
    """Return whether the model can be asked for exactly this constraint."""
    conditions = constraint.conditions()
    symmetric = getattr(model, "representation", "cell") == "symmetric"
    free = symmetric or not {"spacegroup", "crystal_system"} & set(conditions)
    return bool(conditions) and free
