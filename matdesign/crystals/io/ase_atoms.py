"""ASE atoms and extended XYZ, to structures and back."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.checks import MAX_ATOMS, check_cells, check_size, packed
from matdesign.errors import DataError

if TYPE_CHECKING:
    import ase


_SAFE = " ,.:;=+-_()[]/"
"""Signs that words may keep in extended XYZ; ASE loses a backslash, for example."""


def from_ase(
    atoms: Iterable[ase.Atoms], names: Sequence[str] = (), max_atoms: int = MAX_ATOMS
) -> Crystals:
    """Return a batch from ASE atoms.

    Numbers in `atoms.info`, and results of a calculator such as the energy, become
    properties (NaN where an atoms object has none), words become labels, `id` the ids.

    Raises:
        DataError: atoms that are not periodic in all three directions, or that are not
            a crystal for another reason; named by `names` or by number.

    Example:
        >>> from ase.build import bulk
        >>> from_ase([bulk("Cu")]).formulas
        ('Cu',)
    """
    rows = list(atoms)
    label = [names[i] if i < len(names) else f"atoms {i}" for i in range(len(rows))]
    for one, name in zip(rows, label):
        if not one.pbc.all():
            raise DataError(
                f"{name} is periodic in {int(one.pbc.sum())} of 3 directions, so it is "
                "no crystal. Set atoms.pbc = True with a full cell, or leave it out."
            )
        check_cells(one.cell.array[None], lambda _, name=name: name)  # type: ignore[misc]
    said = [_said(one) for one in rows]
    named = bool(names) or any("id" in one for one in said)
    ids = tuple(str(one.pop("id", name)) for one, name in zip(said, label))
    units = {k: v for one in said for k, v in dict(one.pop("units", {})).items()}
    properties, labels = {}, {}
    for key in dict.fromkeys(key for one in said for key in one):
        values = [one.get(key) for one in said]
        if any(isinstance(value, str) for value in values):
            labels[key] = tuple("" if v is None else str(v) for v in values)
        else:
            numbers = [math.nan if v is None else float(v) for v in values]
            properties[key] = torch.tensor(numbers)
    return Crystals(
        **packed(
            [len(one) for one in rows],
            [z for one in rows for z in one.numbers],
            [one.positions @ np.linalg.inv(one.cell.array) for one in rows],
            [one.cell.array for one in rows],
            label.__getitem__,
            max_atoms,
        ),
        properties=properties,
        units={k: v for k, v in units.items() if k in properties},
        labels=labels,
        ids=ids if named else (),
    )


def to_ase(crystals: Crystals) -> list[ase.Atoms]:
    """Return every crystal as ASE atoms; properties and labels go to `atoms.info`."""
    made = []
    for one in crystals:
        atoms = one.to_ase_atoms(msonable=False)
        atoms.info.update(one.properties)
        if crystals.units:
            atoms.info["units"] = dict(crystals.units)
        made.append(atoms)
    return made


def format_xyz(crystals: Crystals) -> str:
    """Return the extended XYZ text of a batch, by ASE.

    Properties are plain keys. Ids and labels are one JSON entry, `labels`: as plain keys
    ASE would read the id "0012" as a number, and lose an empty label. Quotes and other
    signs in them are written as in a web address, %22.

    Raises:
        DataError: the name of a property that the format cannot hold.
    """
    import ase.io

    frames = to_ase(crystals)
    for atoms in frames:
        words = [key for key, value in atoms.info.items() if isinstance(value, str)]
        labels = {key: quote(atoms.info.pop(key), safe=_SAFE) for key in words}
        for key in atoms.info:
            if not key.isidentifier() or key in ("stress", "virial"):
                raise DataError(
                    f"a property of extended XYZ cannot be called {key!r}. Rename it, "
                    "or write parquet."
                )
        if labels:
            atoms.info["labels"] = labels
    stream = io.StringIO()
    ase.io.write(stream, frames, format="extxyz")
    return stream.getvalue()


def parse_xyz(text: str, name: str, max_atoms: int) -> list[ase.Atoms]:
    """Return all frames of an extended XYZ file, by ASE.

    Blank lines between frames are passed over; D and T are read as H.

    Raises:
        DataError: the text is malformed or cut short, or holds no frame.
    """
    import ase.io

    lines, at = text.splitlines(), 0
    frames: list[str] = []
    while at < len(lines):
        word = lines[at].strip()
        if not word:
            at += 1
            continue
        if not re.fullmatch("[0-9]{1,18}", word) or int(word) < 1:
            raise DataError(
                f"{name}: line {at + 1} must be a number of atoms; got {word[:40]!r}. "
                "The file is malformed or cut short; export it again."
            )
        check_size(np.array([int(word)]), lambda _: name, max_atoms)
        end = at + int(word) + 2
        # deuterium and tritium, which ASE does not know, are hydrogen
        sites = [re.sub(r"^\s*[DT](?=\s)", "H", line) for line in lines[at + 2 : end]]
        if end > len(lines) or not "".join(sites).isascii():
            raise DataError(
                f"{name} is cut short, or a site holds a character beyond ASCII: frame "
                f"{len(frames) + 1} announces {word} atoms. Fetch or export it again."
            )
        frames.append("\n".join([word, lines[at + 1], *sites, ""]))
        at = end
    try:
        read: list[Any] = [
            ase.io.read(io.StringIO(one), format="extxyz") for one in frames
        ]
    except Exception as error:
        raise DataError(
            f"{name} cannot be read as extended XYZ ({error!r}). Export it again with "
            "ase.io.write(..., format='extxyz')."
        ) from error
    if not read:
        raise DataError(f"{name} holds no frame. Fetch or export it again.")
    return read


def _said(atoms: ase.Atoms) -> dict[str, Any]:
    """Return the numbers and words that ASE atoms carry, by name."""
    info = {**(atoms.calc.results if atoms.calc else {}), **atoms.info}
    plain = str | bool | int | float | np.number | np.bool_
    kept: dict[str, Any] = {k: v for k, v in info.items() if isinstance(v, plain)}
    if isinstance(labels := info.get("labels"), dict):
        kept |= {key: unquote(str(word)) for key, word in labels.items()}
    if isinstance(units := info.get("units"), dict):
        kept["units"] = units
    return kept
