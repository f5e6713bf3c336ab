"""What the commands of the shell share: files, records, plain errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer.core

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.crystals.io import files
from matdesign.errors import DataError, MatdesignError

Reference = Annotated[
    str | None,
    typer.Option(help="Known crystals: a data set, see `datasets`, or a file."),
]


class PlainErrors(typer.core.TyperGroup):
    """Commands whose errors of our own are one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except MatdesignError as error:
            typer.echo(f"matdesign: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None


def read(paths: list[Path]) -> Crystals:
    """Return the crystals of one or more files as one batch."""
    crystals = files.read(paths)
    info = _record(paths[0]).get("info", {}) if len(paths) == 1 else {}
    return crystals.replace(info={**crystals.info, **info})


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
        known = [one for one in inside if files.file_format(one, strict=False)]
        found += known if path.is_dir() else [path]
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


def write(
    crystals: Crystals,
    path: Path,
    symmetrize: bool = False,
    results: design.Results | None = None,
) -> None:
    """Write crystals by the ending of the name, their record beside, and say so."""
    if not len(crystals):
        raise DataError(f"nothing to write to {path}: no crystal is left.")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = files.write(crystals, path, symmetrize=symmetrize)
    record: dict[str, Any] = {"info": crystals.info} if crystals.info else {}
    record |= {"results": results.to_dict()} if results is not None else {}
    text = json.dumps(record, indent=1, allow_nan=False)
    record_path(path).write_text(text + "\n", encoding="utf-8")
    more = f" and {len(written) - 1} more" if len(written) > 1 else ""
    typer.echo(f"wrote {written[0]}{more} ({len(crystals)} crystals)")


def reference(name: str | None) -> Crystals | None:
    """Return known crystals: the training part of a data set, or those of a file."""
    if name is None:
        return None
    path = Path(name)
    return read([path]) if path.exists() else design.load(name, split="train")


def record_path(path: Path) -> Path:
    """Return where seed, model, seconds and results of a file's crystals are kept."""
    return path.with_suffix(".record.json")


def read_results(path: Path) -> design.Results | None:
    """Return what an oracle said of the crystals of a file; None where none was asked.

    Raises:
        DataError: the record does not fit.
    """
    words = _record(path).get("results")
    try:
        return words and design.Results.from_dict(read([path]), words)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None


def _record(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record_path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{record_path(path)} does not belong to {path.name} ({error}); make both again."
    )
