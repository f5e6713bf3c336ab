"""Write down what a campaign consists of, and make it again from that.

Only what this package ships is made again, from plain numbers and words: known
constraints, the default oracle, and generators from their saved weights.  Anything of
the user's own is given to `Campaign.resume` once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import All, Constraint
from matdesign.errors import DataError
from matdesign.guidance.guide import Guide
from matdesign.guidance.methods import refusal
from matdesign.loop.oracle import Oracle
from matdesign.loop.results import ENERGIES, UNITS, Results
from matdesign.loop.store import Store

Words = dict[str, Any]

Objective = str | Callable[[Results], Tensor]


@dataclass(frozen=True)
class Parts:
    """What a campaign is made of, or what of it is given again: None elsewhere."""

    generator: Any
    constraints: Constraint | None
    oracle: Any
    objective: Any
    guide: Any
    select: Any
    learn: Any


@contextmanager
def opened(store: str | Path | Store) -> Iterator[Store]:
    """Give the store; close it where what is done with it fails."""
    held = store if isinstance(store, Store) else Store(store)
    try:
        yield held
    except BaseException:
        held.close()
        raise


def describe(parts: Parts, store: str) -> Words:
    """Return plain words about the parts, and save the generator beside the store."""
    aim, wanted = parts.objective, parts.constraints
    saved = save_generator(parts.generator, store)
    return {
        "objective": aim if isinstance(aim, str) else None,
        "oracle_name": parts.oracle.name,
        "oracle": describe_part(parts.oracle),
        "wanted": repr(wanted) if wanted else "",
        "constraints": describe_constraint(wanted),
        "guided": parts.guide is not None,
        "generator": saved,
        "proposer": None if saved else describe_part(parts.generator),
        "select": describe_part(parts.select),
        "learn": describe_part(parts.learn),
    }


def begin(store: Store, parts: Parts, numbers: Words) -> None:
    """Write down a new campaign.

    Raises:
        DataError: the store holds one already.
    """
    if store.settings() is not None:
        raise DataError(
            f"{store.name} holds a campaign already. Continue it with "
            f"Campaign.resume({store.name!r}), or choose another store."
        )
    store.write_settings({**numbers, **describe(parts, store.where)})


def reopen(store: Store, given: Parts, budget: int | None) -> Parts:
    """Return the parts of the campaign of a store, and let its budget grow.

    Raises:
        DataError: there is none, the budget is smaller, or see `make`.
    """
    settings = store.settings()
    if settings is None:
        raise DataError(
            f"{store.name} holds no campaign. Start one with "
            f"Campaign(..., store={store.name!r})."
        )
    parts = make(given, settings, store.where, store.name)
    if budget is not None and budget < settings["budget"]:
        raise DataError(
            f"a budget can only grow: got {budget}, it was {settings['budget']}. "
            "Leave it out, or stop iterating."
        )
    if budget is not None:
        store.write_settings({**settings, "budget": int(budget)})
    return parts


def make(given: Parts, settings: Words, store: str, name: str) -> Parts:
    """Return the parts given, and the others made again from the settings.

    Raises:
        DataError: a part cannot be made again and is not given, or is another one than
            the campaign was begun with.
    """
    generator, wanted, oracle = given.generator, given.constraints, given.oracle
    if generator is None and settings["generator"]:
        generator = load_generator(settings["generator"], store)
    elif generator is None:
        generator = make_part("generator", settings.get("proposer") or {}, name)
    if wanted is None:
        if not isinstance(settings["constraints"], dict):
            raise needed("constraints", name)
        wanted = make_constraint(settings["constraints"])
    if oracle is None:
        oracle = make_part("oracle", settings["oracle"] or {}, name)
    objective = given.objective or settings["objective"]
    if objective is None:
        raise needed("objective", name)
    if settings["guided"] and given.guide is None:
        raise needed("guide", name)
    strategies = {}
    for what in ("select", "learn"):
        part, words = getattr(given, what), settings.get(what)
        made = make_part(what, words, name) if words and part is None else part
        strategies[what] = made, json.dumps(describe_part(made)), json.dumps(words)
    for what, now, then in (
        ("oracle", oracle.name, settings["oracle_name"]),
        ("constraints", repr(wanted) if wanted else "", settings["wanted"]),
        *((what, now, then) for what, (_, now, then) in strategies.items()),
    ):
        if now != then:
            raise DataError(
                f"{name} was made with other {what}: got {now!r}, it has {then!r}. "
                "Give the same, or start a new campaign in a new store."
            )
    check_objective(oracle, objective)
    select, learn = strategies["select"][0], strategies["learn"][0]
    return Parts(generator, wanted, oracle, objective, given.guide, select, learn)


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


def describe_part(part: Any) -> Words | None:
    """Return class and settings of an oracle, a proposer, a selector or a learner.

    The settings are None for what cannot be made from them: a class that is not of this
    package, or one that holds more than plain words and numbers.
    """
    import matdesign

    if part is None:
        return None
    name, settings = type(part).__name__, None
    if getattr(matdesign, name, None) is type(part) and hasattr(part, "to_dict"):
        try:
            settings = part.to_dict()
        except DataError:
            pass
    return {"class": name, "settings": settings}


def make_part(what: str, words: Words, store: str) -> Any:
    """Return the part of `describe_part`.

    Raises:
        DataError: it cannot be made from words; the message says what to give.
    """
    import matdesign

    if "weights" in words:  # a store of an earlier version
        words = {"class": "PotentialOracle", "settings": words}
    if words.get("settings") is None:
        raise needed(what, store)
    return getattr(matdesign, words["class"]).from_dict(words["settings"])


def save_generator(generator: Any, store: str) -> str | None:
    """Save a generator beside the store; return the folder's name, or None.

    A store at a URL has no place for weights.
    """
    if "://" in store or not hasattr(generator, "save"):
        return None
    folder = _folder(store, 0)
    generator.save(folder)
    return folder.name


def _folder(store: str, version: int) -> Path:
    suffix = f".generator-{version}" if version else ".generator"
    return Path(store).absolute().with_suffix(suffix)


def keep_version(generator: Any, store: Store, version: int) -> Any:
    """Save a version of the generator beside the store and return it as saved.

    One that cannot be saved is returned as it is, and learns again after a resume.
    """
    if "://" in store.where or not hasattr(generator, "save"):
        return generator
    generator.save(_folder(store.where, version))
    store.write_settings({**(store.settings() or {}), "version": version})
    return load_version(store, version)


def load_version(store: Store, version: int) -> Any:
    """Return a version of the generator, None where this campaign has not saved it."""
    if version > (store.settings() or {}).get("version", 0):
        return None
    return load_generator(_folder(store.where, version).name, store.where)


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
    columns = getattr(oracle, "columns", ENERGIES)
    if not isinstance(objective, str) or objective in columns:
        return
    hull = (
        "Give it a hull (`hull=`) by the same method, or choose"
        if (objective in UNITS)
        else "Choose"
    )
    raise DataError(
        f"the oracle {oracle.name} does not compute the objective: got {objective!r}, it "
        f"computes {', '.join(columns)}. {hull} another column, or give a function of "
        "Results where lower is better."
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
    if result.reason[0]:
        return float("nan")
    if isinstance(objective, str):
        return float(getattr(result, objective)[0])
    return float(torch.as_tensor(objective(result)).reshape(-1)[0])
