"""Write down what a campaign consists of, and make it again from that.

Only what this package ships is made again, from plain numbers and words: known
constraints, the default oracle, and generators from their saved weights.  Anything of
the user's own is given to `Campaign.resume` once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from matdesign.constraints.base import All, Constraint
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.guidance.guide import Guide
from matdesign.guidance.methods import refusal
from matdesign.loop.oracle import Oracle
from matdesign.loop.results import Results
from matdesign.loop.store import NUMBERS

Words = dict[str, Any]

Objective = str | Callable[[Results], Tensor]


class Proposer(Protocol):
    """What proposes crystals: any generator of this package, or anything with this."""

    def sample(self, n: int, *, seed: int) -> Crystals:
        """Return n crystals, the same ones for the same seed."""


@dataclass(frozen=True)
class Parts:
    """What a campaign is made of; None where it must be made again."""

    generator: Proposer | None
    constraints: Constraint | None
    oracle: Oracle | None
    objective: Objective | None
    guide: Any


def describe(parts: Parts, store: str) -> Words:
    """Return plain words about the parts, and save the generator beside the store."""
    aim, wanted = parts.objective, parts.constraints
    return {
        "objective": aim if isinstance(aim, str) else None,
        "oracle_name": parts.oracle.name if parts.oracle else "",
        "oracle": describe_oracle(parts.oracle),
        "wanted": repr(wanted) if wanted else "",
        "constraints": describe_constraint(wanted),
        "guided": parts.guide is not None,
        "generator": save_generator(parts.generator, store),
    }


def make(given: Parts, settings: Words, store: str, name: str) -> Parts:
    """Return the parts given, and the others made again from the settings.

    Raises:
        DataError: a part cannot be made again and is not given, or is another one than
            the campaign was begun with.
    """
    generator, wanted, oracle = given.generator, given.constraints, given.oracle
    if generator is None:
        if not settings["generator"]:
            raise needed("generator", name)
        generator = load_generator(settings["generator"], store)
    if wanted is None:
        if not isinstance(settings["constraints"], dict):
            raise needed("constraints", name)
        wanted = make_constraint(settings["constraints"])
    if oracle is None:
        if settings["oracle"] is None:
            raise needed("oracle", name)
        oracle = make_oracle(settings["oracle"])
    objective = given.objective or settings["objective"]
    if objective is None:
        raise needed("objective", name)
    if settings["guided"] and given.guide is None:
        raise needed("guide", name)
    for what, now, then in (
        ("oracle", oracle.name, settings["oracle_name"]),
        ("constraints", repr(wanted) if wanted else "", settings["wanted"]),
    ):
        if now != then:
            raise DataError(
                f"{name} was made with other {what}: got {now!r}, it has {then!r}. "
                "Give the same, or start a new campaign in a new store."
            )
    return Parts(generator, wanted, oracle, objective, given.guide)


def describe_constraint(constraint: Constraint | None) -> Words | None:
    """Return a constraint as plain words, {} for none; None if it has no such form."""
    if constraint is None:
        return {}
    try:
        return constraint.to_dict()
    except DataError:
        return None


def make_constraint(words: Words) -> Constraint | None:
    """Return the constraint of `describe_constraint`, or None for no constraint."""
    return Constraint.from_dict(words) if words else None


def describe_oracle(oracle: Any) -> Words | None:
    """Return the oracle's keywords; None for one that cannot be made from them."""
    from matdesign.loop.oracle import PotentialOracle

    return oracle.config if type(oracle) is PotentialOracle else None


def make_oracle(words: Words) -> Any:
    """Return the oracle of `describe_oracle`."""
    from matdesign.loop.guards import Guards
    from matdesign.loop.oracle import PotentialOracle

    bounds: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one
        for name, one in words.get("guards", {}).items()
    }
    return PotentialOracle(**{**words, "guards": Guards(**bounds)})


def save_generator(generator: Any, store: str) -> str | None:
    """Save a generator beside the store; return the folder's name, or None.

    A store at a URL has no place for weights.
    """
    if "://" in store or not hasattr(generator, "save"):
        return None
    folder = Path(store).with_suffix(".generator")
    generator.save(folder)
    return folder.name


def load_generator(folder: str, store: str) -> Any:
    """Return the generator of `save_generator`."""
    from matdesign.generators.contract import Generator

    return Generator.load(Path(store).absolute().parent / folder)


def needed(what: str, store: str) -> DataError:
    """Return the error that a part of the campaign must be given again."""
    return DataError(
        f"{store} does not hold the campaign's {what}, which cannot be made again from "
        f"plain words and numbers. Resume with `Campaign.resume({store!r}, {what}=...)`."
    )


def joined(
    constraints: Constraint | Sequence[Constraint] | None,
) -> Constraint | None:
    """Return several constraints as one."""
    if constraints is None or isinstance(constraints, Constraint):
        return constraints
    return All(*constraints) if constraints else None


def check_objective(oracle: Oracle, objective: Objective) -> None:
    """Raise where an oracle says what it computes, and the objective is not among it."""
    if isinstance(objective, str) and objective not in NUMBERS:
        raise DataError(
            f"unknown objective: got {objective!r}; choose {', '.join(NUMBERS)}, "
            "or give a function of Results where lower is better."
        )
    columns = getattr(oracle, "columns", NUMBERS)
    if isinstance(objective, str) and objective not in columns:
        raise DataError(
            f"the oracle {oracle.name} does not compute the objective: got "
            f"{objective!r}, it computes {', '.join(columns)}. Give the oracle a hull "
            "(`hull=`) by the same method, or choose another objective."
        )


def steering(parts: Parts) -> Any:
    """Return the guide that is given, or one by the masks of the constraints."""
    wanted, model = parts.constraints, parts.generator
    if parts.guide is not None or wanted is None:
        return parts.guide
    clear: Any = model
    masked = [one for one in wanted.parts if not refusal(one, "mask", clear)]
    return Guide(All(*masked), "mask") if masked else None


def value(objective: Objective, result: Results) -> float:
    """Return the objective of the first crystal of a result; NaN where it failed."""
    if not result.ok[0]:
        return float("nan")
    if isinstance(objective, str):
        return float(getattr(result, objective)[0])
    return float(torch.as_tensor(objective(result)).reshape(-1)[0])
