"""Write down what a campaign consists of, and make it again from that.

Only what this package ships is made again, from plain numbers and words: known
constraints, the default oracle, and generators from their saved weights.  Anything of
the user's own is given to `Campaign.resume` once more.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import All, Constraint
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.guidance.guide import Guide
from matdesign.guidance.methods import refusal
from matdesign.loop.oracle import Oracle
from matdesign.loop.results import ENERGIES, UNITS, Results, check_names
from matdesign.loop.store import Proposal, Store

Words = dict[str, Any]

Objective = str | Callable[[Results], Tensor]


@dataclass(frozen=True)
class Parts:
    """What a campaign is made of, or what of it is given again: None elsewhere."""

    generator: Any = None
    constraints: Any = None
    oracle: Any = None
    objective: Any = None
    guide: Any = None
    select: Any = None
    learn: Any = None


@contextmanager
def opened(store: str | Path | Store) -> Iterator[Store]:
    """Give the store; close it where what is done with it fails."""
    held = store if isinstance(store, Store) else Store(store)
    try:
        yield held
    except BaseException:
        held.close()
        raise


def check_new(parts: Parts, numbers: Words) -> None:
    """Raise where numbers, the objective or names of columns make no campaign."""
    columns = getattr(parts.oracle, "columns", ENERGIES)
    check_names(columns, "parent", "iteration", "objective")
    for one in (parts.objective, *getattr(parts.select, "objectives", ())):
        check_objective(parts.oracle, one)
    counts = ("batch", "propose", "learn_every")
    if numbers["budget"] < 0 or min(numbers[name] for name in counts) < 1:
        raise DataError(
            f"budget must be 0 or more, {', '.join(counts)} 1 or more; got "
            + ", ".join(f"{name}={numbers[name]}" for name in ("budget", *counts))
        )


def begin(store: Store, parts: Parts, numbers: Words) -> None:
    """Write down a new campaign, and save its generator beside the store.

    Raises:
        DataError: the store holds one already, or the generator cannot learn.
    """
    if store.settings() is not None:
        raise DataError(
            f"{store.name} holds a campaign already. Continue it with "
            f"Campaign.resume({store.name!r}), in a shell with `matdesign campaign resume "
            f"{store.name}`, or choose another store."
        )
    check_learner(parts)
    folder = _folder(store) if hasattr(parts.generator, "save") else None
    if folder is not None:
        parts.generator.save(folder)
    words = {
        "generator": folder.name if folder else describe(parts.generator),
        "oracle": describe(parts.oracle),
        "constraints": describe(parts.constraints),
        "select": describe(parts.select),
        "learn": describe(parts.learn),
        "objectives": list(getattr(parts.select, "objectives", ())),
        "pool": len({*getattr(parts.generator, "candidate_keys", ())}),
        "unread": getattr(parts.generator, "problems", ""),
    }
    store.write_settings({**numbers, **words, **_labels(parts)})


def reopen(store: Store, given: Parts, budget: int | None) -> Parts:
    """Return the parts given, and the others made again; let the budget grow.

    Raises:
        DataError: there is no campaign, a part cannot be made again and is not given, or
            is another one than the campaign was begun with, or the budget is smaller.
    """
    settings = store.settings()
    if settings is None:
        raise DataError(
            f"{store.name} holds no campaign. Give the store of one, or start it with "
            f"Campaign(..., store={store.name!r}) or `matdesign campaign run FILE.toml`."
        )
    given = replace(given, constraints=joined(given.constraints))
    missing = [what for what, part in vars(given).items() if part is None]
    made = {what: _again(what, settings.get(what), store) for what in missing}
    parts = replace(given, **made)
    if store.read_only:
        return parts
    for key, now in _labels(parts).items():
        now = json.loads(json.dumps(now))
        if now != (then := settings.get(key, now)):
            what = {"wanted": "constraints"}.get(key, key.removesuffix("_name"))
            raise DataError(
                f"{store.name} was made with other {what}: got {now!r}, it has "
                f"{then!r}. Give the same, or start a new campaign in a new store."
            )
    check_objective(parts.oracle, parts.objective)
    if budget is not None and budget < settings["budget"]:
        raise DataError(
            f"a budget can only grow: got {budget}, it was {settings['budget']}. "
            "Leave it out, or stop iterating."
        )
    if budget is not None:
        store.write_settings({**settings, "budget": int(budget)})
    return parts


def _labels(parts: Parts) -> dict[str, Any]:
    """Return what must be the same after a resume, by its key in the settings."""
    return {
        "objective": parts.objective if isinstance(parts.objective, str) else None,
        "guide": describe(parts.guide),
        "oracle_name": parts.oracle.name,
        "wanted": repr(parts.constraints) if parts.constraints else "",
        "select_name": _kind(parts.select),
        "learn_name": _kind(parts.learn),
    }


def _kind(part: Any) -> str:
    kind = "" if part is None else type(part).__name__
    return json.dumps(words) if (words := describe(part)) else kind


GUIDE = ("method", "scale", "particles", "strict", "draws")
"""What a guide is made with, beside what is wanted."""


def describe(part: Any) -> Words | None:
    """Return class and settings of a part of a campaign as plain words and numbers.

    Returns:
        {} for no part; None for what cannot be made again from words: a class that is
        not of this package, or one that holds more than words and numbers.
    """
    import matdesign

    name, settings = type(part).__name__, None
    if part is None:
        return {}
    try:
        if isinstance(part, Constraint):
            return part.to_dict()
        if type(part) is Guide:
            settings = {key: getattr(part, key) for key in GUIDE}
            settings["wanted"] = part.wanted.to_dict()
        elif getattr(matdesign, name, None) is type(part) and hasattr(part, "to_dict"):
            settings = part.to_dict()
    except DataError:
        return None
    return None if settings is None else {"class": name, "settings": settings}


def _again(what: str, words: Any, store: Store) -> Any:
    """Return the part of `describe`; what is a name, or a folder, is a text.

    Of a store that is only looked at, what needs weights or is unknown is left out.
    """
    import matdesign

    if store.read_only and what in ("generator", "guide"):
        return None
    if store.read_only and words is None and what != "objective":
        name = (store.settings() or {})["oracle_name"]
        return SimpleNamespace(name=name) if what == "oracle" else None
    if words is None:
        raise DataError(
            f"{store.name} does not hold the campaign's {what}, which cannot be made again "
            "from plain words and numbers. Resume with "
            f"`Campaign.resume({store.name!r}, {what}=...)`."
        )
    if isinstance(words, str):
        folder = Path(store.where).absolute().parent / words
        return Generator.load(folder) if what == "generator" else words
    if not words:
        return None
    if what == "constraints":
        return Constraint.from_dict(words)
    made, settings = getattr(matdesign, words["class"]), words["settings"]
    if made is Guide:
        wanted = Constraint.from_dict(settings["wanted"])
        return Guide(wanted, **{key: settings[key] for key in GUIDE})
    return made.from_dict(settings)


def _folder(store: Store, version: int = 0) -> Path | None:
    """Return where a version of the generator is kept; a URL has no place for weights."""
    if "://" in store.where:
        return None
    suffix = f".generator-{version}" if version else ".generator"
    return Path(store.where).absolute().with_suffix(suffix)


def keep_version(generator: Any, store: Store, version: int) -> Any:
    """Save a version of the generator beside the store and return it as saved.

    One that cannot be saved is returned as it is, and learns again after a resume.
    """
    folder = _folder(store, version)
    if folder is None or not hasattr(generator, "save"):
        return generator
    generator.save(folder)
    store.write_settings({**(store.settings() or {}), "version": version})
    return load_version(store, version, generator)


def load_version(store: Store, version: int, last: Any) -> Any:
    """Return a version of the generator, None where this campaign has not saved it.

    It is on the device of the one before.
    """
    saved, folder = (store.settings() or {}).get("version", 0), _folder(store, version)
    if folder is None or version > saved:
        return None
    return Generator.load(folder).to(getattr(last, "device", "cpu"))


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
    if not isinstance(objective, str) or objective.removeprefix("-") in columns:
        return
    hull = "Give it a hull (`hull=`) by the same method, or choose"
    hull = hull if objective in UNITS else "Choose"
    raise DataError(
        f"the oracle {oracle.name} does not compute the objective: got {objective!r}, it "
        f"computes {', '.join(columns)}. {hull} another column, or give a function of "
        "Results where lower is better."
    )


def check_learner(parts: Parts) -> None:
    """Raise where a learner of this package cannot teach the generator."""
    from matdesign.loop.learning import refusal

    takes, model = getattr(parts.learn, "takes", None), parts.generator
    if takes and not (hasattr(model, "loss") and takes(model)):
        raise refusal(f"{type(parts.learn).__name__} cannot teach", model)


def made_by(generator: Any, guide: Any) -> dict[str, Any]:
    """Return name and checksum of what proposes, and its guide, as words."""
    name = getattr(generator, "record", {}).get("name", type(generator).__name__)
    if hasattr(generator, "state_dict"):
        weights = generator.state_dict().values()
        content = b"".join(one.detach().cpu().numpy().tobytes() for one in weights)
        name = f"{name} {hashlib.sha256(content).hexdigest()[:8]}"
    return {"model": name, "guide": "" if guide is None else repr(guide)}


def state(generator: Any, guide: Any) -> bytes:
    """Return all that draws, to see an edit; nothing where it cannot be drawn ahead."""
    with suppress(Exception):  # whatever a class of the user's own makes of it
        return pickle.dumps((generator, guide)) if generator.ahead else b""
    return b""


def undone(generator: Any) -> str:
    """Return why the last fine-tuning of a generator was undone; "" where it holds."""
    return str(getattr(generator, "record", {}).get("learned", {}).get("stopped", ""))


def check_results(
    results: Results, waiting: Mapping[str, Proposal], oracle: Oracle, history: Any
) -> None:
    """Raise where results do not belong to the crystals that wait for one."""
    ids = results.structures.ids or ("",) * len(results)
    for name, unit in {**history.units, **getattr(oracle, "columns", ENERGIES)}.items():
        if name in results.columns and (got := results.columns[name].unit) != unit:
            raise DataError(
                f"{name} is told in {got!r}; {oracle.name} has it in {unit!r}. Convert "
                "the values, and give that unit."
            )
    told = results.structures
    sizes = told.n_atoms.tolist()
    for name, formula, n in zip(ids, told.formulas, sizes, strict=True):
        if name not in waiting or ids.count(name) > 1:
            raise DataError(
                f"no result of {name!r} is waited for, or it is told twice; those that "
                f"wait are {', '.join(waiting) or 'none'}. See `ask()`."
            )
        asked = waiting[name].crystal
        known = asked.formulas[0], int(asked.n_atoms[0])
        if (formula, n) != known:
            raise DataError(
                f"{name} is {known[0]} with {known[1]} atoms in its cell; got a result of "
                f"{formula} with {n}. Give the same cell, as it was asked or relaxed."
            )


def check_row(
    i: int, row: Results, proposals: Sequence[Proposal], oracle: Oracle, history: Any
) -> None:
    """Raise where an oracle's row does not belong to the crystal in that place."""
    waiting = {one.key: one for one in proposals[i : i + 1]}
    named = row.structures.replace(ids=(*waiting, "")[:1])
    check_results(replace(row, structures=named), waiting, oracle, history)


def told(
    results: Results, waiting: Mapping[str, Proposal], oracle: Oracle, history: Any
) -> Results:
    """Return checked results; a row without a value of the objective has failed."""
    aim: Objective = history.objective
    if isinstance(aim, str) and aim.removeprefix("-") not in results.columns:
        raise DataError(
            f"the objective {aim!r} is not among what is told: got "
            f"{', '.join(results.columns) or 'no column'}. Give it, NaN where unknown."
        )
    check_results(results, waiting, oracle, history)
    rows = [results[[i]] for i in range(len(results))]
    missing = "the objective is not a number"
    why = [x.reason[0] or missing * math.isnan(value(aim, x)) for x in rows]
    return replace(results, reason=tuple(why), oracle=oracle.name)


def steering(parts: Parts) -> Any:
    """Return the guide that is given, or one by the masks of the constraints."""
    wanted = parts.constraints
    if parts.guide is not None or wanted is None:
        return parts.guide
    masked = [one for one in wanted.parts if not refusal(one, "mask", parts.generator)]
    return Guide(All(*masked), "mask") if masked else None


def value(objective: Objective, result: Results) -> float:
    """Return the objective of the first crystal; NaN where it failed or is infinite."""
    if result.reason[0]:
        return math.nan
    if isinstance(objective, str):
        column = result.columns.get(objective.removeprefix("-"))
        worth = math.nan if column is None else float(column.values[0])
        worth = -worth if objective.startswith("-") else worth
    else:
        worth = float(torch.as_tensor(objective(result)).reshape(-1)[0])
    return worth if math.isfinite(worth) else math.nan
