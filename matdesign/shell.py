"""What the commands of the shell share: constraints, files, plain errors."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
import typer

from matdesign.constraints.base import All, Constraint
from matdesign.constraints.between import Between
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.composition import Composition
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.crystals.batch import Crystals
from matdesign.crystals.data.sets import load
from matdesign.crystals.io import files
from matdesign.errors import DataError, MatdesignError
from matdesign.loop.results import Results

P = ParamSpec("P")
T = TypeVar("T")


def plain_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Return the command with our own errors as one line on stderr and exit code 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except MatdesignError as error:
            words = " ".join(str(error).split())
            typer.echo(f"matdesign: {words}", err=True)
            raise typer.Exit(2) from None

    return run


WANTS = (
    "harmless  neutral  only=Ca,Ti,O  without=Pb,Cd  require=O  formula=SrTiO3  "
    "pattern=ABX3  min-distance=1.4  density=2:5 (g/cm^3)  volume-per-atom=8:30 (angstrom^3)"
)
"""What `constraint` understands, as the help of the commands shows it."""


def constraint(words: Sequence[str]) -> Constraint | None:
    """Return the constraints that a command was given as words, or None for no words.

    Args:
        words: such as "neutral", "only=Ca,Ti,O" or "density=2:5"; see `WANTS`. An end
            of a range may be left out.

    Raises:
        DataError: a word is not understood.

    Example:
        >>> constraint(["neutral", "density=2:"])
        charge-neutral with common oxidation states, and density of at least 2 g/cm^3
    """
    parts = [_constraint(word) for word in words]
    return All(*parts) if parts else None


def _constraint(word: str) -> Constraint:
    name, _, value = word.partition("=")
    symbols = value.replace(",", " ").split()
    makers: dict[str, Callable[[str], Constraint]] = {
        "only": lambda _: OnlyElements(*symbols),
        "without": lambda _: OnlyElements.without(*symbols),
        "require": lambda _: RequiredElements(*symbols),
        "formula": Composition,
        "pattern": lambda text: Composition(pattern=text),
        "min-distance": lambda text: MinDistance(_number(text)),
        "density": lambda text: Between("density", *_ends(text), unit="g/cm^3"),
        "volume-per-atom": lambda text: Between(
            "volume_per_atom", *_ends(text), unit="angstrom^3"
        ),
    }
    alone: dict[str, Callable[[], Constraint]] = {
        "neutral": ChargeNeutral,
        "harmless": OnlyElements.harmless,
    }
    if word in alone:
        return alone[word]()
    if name not in makers or not value:
        raise DataError(f"unknown constraint {word!r}; write one of: {WANTS}.")
    return makers[name](value)


def read(paths: list[Path]) -> Crystals:
    """Return the crystals of one or more files as one batch."""
    for path in paths:
        if not path.exists():
            raise DataError(f"no such file: {path}. Check the name and the folder.")
    crystals = files.read(paths[0] if len(paths) == 1 else paths)
    beside = info_path(paths[0])
    if len(paths) == 1 and beside.exists():
        try:
            info = dict(json.loads(beside.read_text(encoding="utf-8")))
        except ValueError:
            message = f"{beside} is not JSON; delete it, or sample again."
            raise DataError(message) from None
        crystals = crystals.replace(info={**crystals.info, **info})
    return crystals


def read_each(paths: list[Path]) -> tuple[Crystals, dict[str, str]]:
    """Return the crystals of all files that can be read, and why the others cannot.

    Args:
        paths: files, and folders of which every file with a known ending is read.

    Returns:
        One batch, and file -> reason.

    Raises:
        DataError: a path does not exist, or no file can be read.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        found += [one for one in inside if files.file_format(one, strict=False)]
        found += [] if path.is_dir() else [path]
    if len(found) < 2:
        return read(found or paths), {}
    batches, failed = [], {}
    for path in found:
        try:
            batches.append(read([path]))
        except DataError as error:
            failed[str(path)] = " ".join(str(error).split())
    if not batches:
        raise DataError(
            f"none of {len(found)} files can be read. The first: {failed[str(found[0])]}"
        )
    return Crystals.cat(batches), failed


def add_failed(crystals: Crystals, failed: dict[str, str]) -> Crystals:
    """Return the batch with one crystal without atoms for every file not read."""
    n = len(failed)
    empty = Crystals(
        torch.zeros(n, 1, dtype=torch.long),
        torch.zeros(n, 1, 3),
        torch.eye(3).repeat(n, 1, 1),
        ids=tuple(failed),
    )
    return Crystals.cat([crystals, empty]) if n else crystals


def say_failed(failed: dict[str, str]) -> None:
    """Say on stderr which files could not be read; end with exit code 1 if any."""
    for reason in failed.values():
        typer.echo(f"matdesign: {reason}", err=True)
    if failed:
        typer.echo(f"matdesign: files that could not be read: {len(failed)}", err=True)
        raise typer.Exit(1)


def write(crystals: Crystals, path: Path, symmetrize: bool = False) -> None:
    """Write crystals by the ending of the name, their record beside, and say so."""
    if not len(crystals):
        raise DataError(f"nothing to write to {path}: no crystal is left.")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = files.write(crystals, path, symmetrize=symmetrize)
    if crystals.info:
        info_path(path).write_text(json.dumps(crystals.info, indent=1) + "\n")
    more = f" and {len(written) - 1} more" if len(written) > 1 else ""
    typer.echo(f"wrote {written[0]}{more} ({len(crystals)} crystals)")


def reference(name: str) -> Crystals:
    """Return known crystals: the training part of a data set, or those of a file."""
    path = Path(name)
    if path.exists():
        return read([path])
    return load(name, split="train")


def info_path(path: Path) -> Path:
    """Return where the record of a batch is kept: seed, model, seconds."""
    return path.with_suffix(".info.json")


def record_path(path: Path) -> Path:
    """Return where the results of the crystals of a file are kept."""
    return path.with_suffix(".results.json")


def write_results(results: Results, path: Path, symmetrize: bool = False) -> None:
    """Write relaxed crystals, and what the oracle said beside them as JSON."""
    write(results.structures.replace(properties={}, units={}), path, symmetrize)
    text = json.dumps(results.to_dict(), indent=1, allow_nan=False)
    record_path(path).write_text(text + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Return what `write_results` wrote.

    Args:
        path: file of the relaxed crystals; the record lies beside it.

    Raises:
        DataError: there is no record beside the file, or it does not fit.
    """
    crystals = read([path])
    beside = record_path(path)
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
        return Results.from_dict(crystals, record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{beside} is missing or does not belong to {path.name} "
            f"({type(error).__name__}: {error}). Make both with `matdesign relax`."
        ) from None


def _ends(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    if not colon:
        raise DataError(
            f"a range is written LOW:HIGH, as in 2:5 or 2: or :5; got {text!r}."
        )
    return _number(low or "-inf"), _number(high or "inf")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"not a number: got {text!r}; write it as 1.4.") from None
