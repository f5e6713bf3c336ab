"""Proposers beside the generators: a pool of one's own, and element substitution."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import torch

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import parse_formula
from matdesign.crystals.io.files import file_format, read
from matdesign.errors import DataError, MatdesignError
from matdesign.loop.store import crystal_keys
from matdesign.metrics.baselines import substituted

SPACING = 3.0
"""Distance in angstrom between the atoms of a formula that has no structure."""


class Pool:
    """Proposes from a list of candidates: every call draws some at random.

    In a campaign each is proposed once before those that were passed over come again.

    Args:
        source: crystals; a folder of files that `read` knows; or a CSV file with a column
            `file` (names beside the CSV) or `formula`. Its other columns become
            properties where they are mostly numbers, NaN where blank: descriptors for a
            selector that is called directly. A campaign keeps the crystals only.

    A formula says nothing of a structure. Its atoms stand on a grid, 3 angstrom apart:
    enough for a surrogate of compositions and an oracle that is a furnace, not for one
    that computes energies.

    Attributes:
        crystals: what could be read.
        unread: file, row or cell -> why it could not be read; such a cell counts as blank.

    Raises:
        DataError: there is no such folder or file, the CSV has neither column, or
            nothing in it can be read.
    """

    def __init__(self, source: Crystals | str | Path) -> None:
        self.unread: dict[str, str] = {}
        self.source = source
        if isinstance(source, Crystals):
            self.crystals = source
            return
        path = Path(source).expanduser()
        found = []
        for name, one in _folder(path) if path.is_dir() else _table(path):
            if isinstance(one, MatdesignError):
                self.unread[name] = str(one)
            else:
                found.append(one)
        if not found:
            why = "; ".join(self.unread.values()) or "it holds no file of a crystal"
            raise DataError(f"nothing can be read from {path}: {why}")
        self.crystals = Crystals.cat(found)

    def sample(self, n: int, *, seed: int, known: Decided | None = None) -> Crystals:
        """Return n different candidates at random, all of them where n is larger.

        Those `known` to a campaign, key -> decision, come last where they were "passed
        over", and else not at all; of repeated ones it is given one.
        """
        order = torch.randperm(len(self.crystals), generator=generator(seed)).tolist()
        if known is not None:
            keys = self.candidate_keys
            order = [*{keys[i]: i for i in order}.values()]
            said = [known.get(key, "") for key in keys]
            order = [i for i in order if said[i] in ("", "passed over")]
            order.sort(key=lambda i: said[i])  # what is new first, else at random
        return self.crystals[order[:n]]

    @cached_property
    def candidate_keys(self) -> list[str]:
        """`crystal_keys` of each candidate; a campaign gives `known` to what has these."""
        return crystal_keys(self.crystals)

    def to_dict(self) -> dict[str, str] | None:
        """Return where the pool was read and what it held; None for one from crystals."""
        if isinstance(self.source, Crystals):
            return None
        keys = " ".join(self.candidate_keys).encode()
        digest = hashlib.sha256(keys).hexdigest()[:16]
        return {"source": str(Path(self.source).absolute()), "digest": digest}

    @classmethod
    def from_dict(cls, words: dict[str, str]) -> Pool:
        """Return the pool of `to_dict`.

        Raises:
            DataError: it cannot be read any more, or holds other crystals.
        """
        made = cls(words["source"])
        if made.to_dict() != words:
            raise DataError(
                f"the pool {words['source']} holds other crystals than it did."
            )
        return made

    @property
    def problems(self) -> str:
        """How much could not be read, with the first reasons; "" where all could."""
        lines = [f"{name}: {why}" for name, why in self.unread.items()]
        head = f"{len(lines)} could not be read in the pool, first of all:"
        return "\n  ".join([head, *lines[:5]]) if lines else ""

    def __repr__(self) -> str:
        return f"Pool of {self.crystals!r}" + (f"\n{self.problems}" * bool(self.unread))


class Substitution:
    """Proposes known crystals with every element replaced by one of the same group.

    The classic way to new compounds, and the baseline that a generator must beat.

    Args:
        crystals: known ones; replacements are elements that occur in them.
    """

    def __init__(self, crystals: Crystals) -> None:
        self.crystals = crystals

    def sample(self, n: int, *, seed: int) -> Crystals:
        """Return n substituted crystals, each of another known one while there are any."""
        return substituted(self.crystals, n, seed=seed, similar=True)


Decided = Mapping[str, str]
Found = Iterator[tuple[str, Crystals | MatdesignError]]


def _folder(path: Path) -> Found:
    """Yield every file of a folder whose name says that it holds crystals."""
    for file in sorted(path.iterdir()):
        if file.is_file() and file_format(file, strict=False):
            try:
                yield file.name, read(file)
            except MatdesignError as error:
                yield file.name, error


def _table(path: Path) -> Found:
    """Yield every row of a CSV file, and cells with a text in a column of numbers."""
    import pandas

    if not path.is_file() or path.suffix.lower() != ".csv":
        raise DataError(f"a pool is a folder or a CSV file; {path} is neither.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows = [(reader.line_num, row) for row in reader]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from None
    head = rows[0][1] if rows else {"file": ""}
    if not {"file", "formula"} & set(head):
        raise DataError(
            f"{path} needs a column `file` or `formula`; it has {', '.join(filter(None, head))}."
        )
    table = pandas.DataFrame([row for _, row in rows])
    numbers: dict[str, list[float]] = {}
    for name in (x for x in table if x not in ("file", "formula", None)):
        text = table[name].str.strip().str.lower()
        column = pandas.to_numeric(text, errors="coerce").astype(float)
        column = column.where(column.abs() < math.inf)
        wrong = column.isna() & ~text.isin(["", "na", "nan"])
        if column.notna().sum() > wrong.sum():
            numbers[name] = column.tolist()
            for i, cell in table[name][wrong].items():
                yield f"line {rows[i][0]}, {name}", DataError(f"{cell!r} is no number")
    for i, (line, row) in enumerate(rows):
        file_name, formula = row.get("file"), row.get("formula")
        name = f"line {line}, {file_name or formula}"
        try:
            if None in row:
                raise DataError("it has more cells than the head; quote commas")
            one = read(path.parent / file_name) if file_name else on_grid(formula or "")
            found = {k: torch.full((len(one),), x[i]) for k, x in numbers.items()}
            yield name, one.replace(properties=found, units={})
        except MatdesignError as error:
            yield name, error


def on_grid(formula: str) -> Crystals:
    """Return one formula unit on a cubic grid: its composition, and no structure.

    Raises:
        DataError: not a formula of known elements in whole amounts.
    """
    species = [z for z, count in parse_formula(formula).items() for _ in range(count)]
    edge = math.ceil(len(species) ** (1 / 3))
    steps = torch.arange(edge) / edge
    frac = torch.cartesian_prod(steps, steps, steps)[None, : len(species)]
    lattice = SPACING * edge * torch.eye(3)[None]
    return Crystals(torch.tensor([species]), frac, lattice, ids=(formula,))
