"""Constraints as words, and a campaign as a TOML file of a dozen lines."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matdesign as design
from matdesign.errors import DataError
from matdesign.loop.learning import refusal
from matdesign.loop.rebuild import joined

WANTS = (
    "harmless  neutral  only=Ca,Ti,O  without=Pb,Cd  require=O  formula=SrTiO3  "
    "pattern=ABX3  min-distance=1.4  density=2:5 (g/cm^3)  volume-per-atom=8:30 (angstrom^3)"
)
"""What `constraint` understands, as the help of the commands shows it."""

KEYS: dict[str, tuple[Any, str]] = {
    "generator": (str, "name of a shipped model, or a folder of one"),
    "pool": (str, "instead of it: a folder of crystals, or a CSV of formulas or files"),
    "want": (list, f"any of {WANTS}"),
    "guide": (bool, "true steers toward all of them, not only by what can be masked"),
    "oracle": (str, '"potential", or "experiment" with columns'),
    "columns": (dict, 'of an experiment: {capacity = "mAh/g"}'),
    "objective": (str, 'column that is lowered; with a minus, "-capacity", raised'),
    "select": (str, "acquisition, such as expected_improvement; first come without"),
    "gate": ((int, float), "lowest probability of improvement that is evaluated"),
    "learn": (int, "iterations between two fine-tunings of the generator"),
    "budget": (int, "oracle calls in all"),
    "batch": (int, "oracle calls in an iteration"),
    "propose": (int, "crystals drawn in an iteration"),
    "seed": (int, "of everything that is drawn"),
    "store": (str, "file ending in .db, or database URL; else named as the TOML file"),
}
"""What a file may say: key -> type and meaning."""


def constraint(words: Sequence[str]) -> design.Constraint | None:
    """Return the constraints that are given as words, or None for no words.

    Args:
        words: such as "neutral", "only=Ca,Ti,O" or "density=2:5"; see `WANTS`. An end
            of a range may be left out.

    Raises:
        DataError: a word is not understood.

    Example:
        >>> constraint(["neutral", "density=2:"])
        charge-neutral with common oxidation states, and density of at least 2 g/cm^3
    """
    return joined([_constraint(word) for word in words])


def _constraint(word: str) -> design.Constraint:
    name, _, value = word.partition("=")
    symbols = value.replace(",", " ").split()
    makers: dict[str, Callable[[], design.Constraint]] = {
        "neutral": design.ChargeNeutral,
        "harmless": design.OnlyElements.harmless,
        "only": lambda: design.OnlyElements(*symbols),
        "without": lambda: design.OnlyElements.without(*symbols),
        "require": lambda: design.RequiredElements(*symbols),
        "formula": lambda: design.Composition(value),
        "pattern": lambda: design.Composition(pattern=value),
        "min-distance": lambda: design.MinDistance(number(value)),
        "density": lambda: design.Density(*_ends(value)),
        "volume-per-atom": lambda: design.VolumePerAtom(*_ends(value)),
    }
    if name not in makers or bool(value) == (name in ("neutral", "harmless")):
        raise DataError(f"unknown constraint {word!r}; write one of: {WANTS}.")
    return makers[name]()


def _ends(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    if not colon:
        raise DataError(
            f"a range is written LOW:HIGH, as in 2:5 or 2: or :5; got {text!r}."
        )
    return number(low or "-inf"), number(high or "inf")


def number(text: str) -> float:
    """Return the number that a text says.

    Raises:
        DataError: it says none.
    """
    try:
        return float(text)
    except ValueError:
        raise DataError(f"not a number: got {text!r}; write it as 1.4.") from None


def read_campaign(file: Path) -> design.Campaign:
    """Return the new campaign that a TOML file describes; see `KEYS`.

    Args:
        file: its other paths are taken from the current folder.

    Raises:
        DataError: not TOML, an unknown key, a value of another type, or one that
            `Campaign` refuses.
    """
    try:
        said: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as TOML: {error}. Give a text file of a campaign; what "
            "is begun already goes on with `matdesign campaign resume STORE`."
        ) from None
    for key, value in said.items():
        if key not in KEYS:
            known = "; ".join(f"{name}: {what}" for name, (_, what) in KEYS.items())
            raise DataError(f"{file} cannot say {key} = {value!r}. Known are {known}.")
        if not isinstance(value, KEYS[key][0]):
            what = KEYS[key][1]
            raise DataError(f"{file} cannot say {key} = {value!r}. It is the {what}.")
    words = {"oracle": "potential", "store": str(file.with_suffix(".db"))} | said
    names = ("generator", "pool", "oracle", "columns", "select", "gate", "learn")
    model, pool, kind, columns, rule, gate, every = (words.pop(x, None) for x in names)
    needs = {
        "either a generator or a pool": (model is None) != (pool is None),
        'oracle = "potential" or "experiment"': kind in ("potential", "experiment"),
        "columns, for an experiment only": (kind == "experiment") == bool(columns),
        "units of columns as text": all(
            isinstance(x, str) for x in (columns or {}).values()
        ),
        "a generator where there is a guide": model or not words.get("guide"),
        "select where there is a gate": gate is None or rule,
    }
    for need, met in needs.items():
        if not met:
            raise DataError(f"{file} needs {need}; got {', '.join(said) or 'nothing'}.")
    generator: Any = design.load_model(model) if model else design.Pool(pool)
    wanted = constraint(words.pop("want", []))
    if words.pop("guide", False) and wanted is not None:
        words["guide"] = design.Guide(wanted)
    if rule:
        first = max(2, min(10, words.get("batch", 10)))  # results to learn from
        words["select"] = design.Bayesian(acquisition=rule, gate=gate, start=first)
    if every:
        ways = (design.PolicyGradient(), design.RewardWeighted(), design.LatentSearch())
        fit = [one for one in ways if model and one.takes(generator)]
        if not fit:
            raise refusal(f"{file} cannot say learn: no learner can teach", generator)
        words |= {"learn": fit[0], "learn_every": every}
    oracle: Any = design.PotentialOracle()
    if columns:
        oracle = design.Experiment(columns, name=file.stem)
    return design.Campaign(generator, wanted, oracle, **words)
