"""Read and write crystals: CIF, POSCAR, extended XYZ, parquet, ASE atoms.

Every file is bounded and looked at before it is parsed; what cannot be read is refused
with the file's name and what to do about it.
"""

from __future__ import annotations

import difflib
import glob
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import wrap
from matdesign.crystals.io.ase_atoms import format_xyz, from_ase, parse_xyz, to_ase
from matdesign.crystals.io.checks import MAX_ATOMS
from matdesign.crystals.io.cif import parse_cif
from matdesign.crystals.io.parquet import read_parquet, write_parquet
from matdesign.crystals.io.poscar import parse_poscar
from matdesign.crystals.symmetry.find import SYMPREC
from matdesign.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["from_ase", "read", "read_parquet", "to_ase", "write", "write_parquet"]

MAX_BYTES = 20_000_000
"""Largest text file that `read` opens; 1,000 atoms in P1 take about 100 kB."""

FORMATS = {
    ".cif": "cif",
    ".mcif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".xyz": "xyz",
    ".extxyz": "xyz",
    ".parquet": "parquet",
}
"""File endings and formats; names that begin with POSCAR or CONTCAR are POSCAR."""

_PLAIN = dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE63, 0xFF0D], "-")
_PLAIN |= dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")
"""Dashes and spaces beyond ASCII, which editors and web pages put into files."""


def read(
    path: str | Path | Sequence[str | Path],
    *,
    max_atoms: int = MAX_ATOMS,
    max_bytes: int = MAX_BYTES,
) -> Crystals:
    """Return the crystals of one or more files as one batch.

    The format follows from the name. A CIF may hold several structures; each becomes a
    crystal. Ids are file names (with the data block's name where there are several).
    Nothing is guessed: what a file states about itself (symmetry, formula, Z,
    multiplicities, density) must agree with its atoms. Coordinates are wrapped into
    [0, 1); D and T are H.

    Args:
        path: a file, a pattern such as `"made/*.cif"`, or several of either.
        max_atoms: most atoms in one cell.
        max_bytes: largest text file that is opened.

    Raises:
        DataError: a file is missing, empty, binary, cut short or too large, or a
            crystal in it has partial occupancy, no volume, a coordinate that is not a
            number, an unknown element or too many atoms. The message names the file and
            the remedy.

    Example:
        >>> read("no-such-file.cif")
        Traceback (most recent call last):
        ...
        matdesign.errors.DataError: no-such-file.cif was not found. ...
    """
    given = [path] if isinstance(path, str | Path) else list(path)
    files = [file for item in given for file in _expand(item)]
    batches = [_read_one(file, max_atoms, max_bytes) for file in files]
    if not batches:
        raise DataError("no file to read: got an empty list. Name at least one.")
    whole = batches[0] if len(batches) == 1 else Crystals.cat(batches)
    return whole.replace(info={"source": [str(item) for item in given]})


def write(
    crystals: Crystals | Structure | Sequence[Structure],
    path: str | Path,
    format: str | None = None,
    *,
    symmetrize: bool = False,
) -> list[Path]:
    """Write crystals; return the files made.

    A name with a known ending is one file: CIF (one data block per crystal), extended
    XYZ and parquet hold any number, POSCAR holds one. Any other name is a folder that
    gets one file per crystal, named by id, or by number and formula.

    Args:
        crystals: a batch, a structure or several.
        path: file or folder.
        format: `"cif"`, `"poscar"`, `"xyz"` or `"parquet"`; for a folder, CIF by
            default.
        symmetrize: CIF only. Off (default): P1, every atom listed as it is. On: the
            conventional cell with its space group, atoms moved onto their symmetric
            positions within `SYMPREC`.

    Raises:
        DataError: unknown format, or a POSCAR for several crystals.

    Example:
        >>> import tempfile
        >>> from pymatgen.core import Lattice, Structure
        >>> iron = Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [file] = write(iron, Path(folder) / "iron.cif")
        ...     read(file).formulas
        ('Fe',)
    """
    from pymatgen.core import Structure

    if not isinstance(crystals, Crystals):
        many = [crystals] if isinstance(crystals, Structure) else list(crystals)
        crystals = Crystals.from_structures(many)
    batch, path = _right_handed(crystals), Path(path).expanduser()
    single = None if path.is_dir() else file_format(path, strict=False)
    kind = (format or single or "cif").lower()
    endings = {name: ending for ending, name in reversed(FORMATS.items())}
    if kind not in endings:
        raise DataError(
            f"unknown format {kind!r} for {path}; choose cif, poscar, xyz or parquet."
        )
    if single and kind == "poscar" and len(batch) != 1:
        raise DataError(
            f"a POSCAR holds one crystal; got {len(batch)} for {path}. Give a folder "
            'instead: write(crystals, "folder", "poscar").'
        )
    if single:
        parts = {path: batch}
    elif kind == "parquet":
        parts = {path / "crystals.parquet": batch}
    else:
        names = _file_names(batch)
        parts = {path / f"{x}{endings[kind]}": batch[[i]] for i, x in enumerate(names)}
    for file, part in parts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        if kind == "parquet":
            write_parquet(part, file)
        else:
            file.write_text(_format(part, kind, symmetrize), encoding="utf-8")
    return list(parts)


def file_format(path: str | Path, strict: bool = True) -> str | None:
    """Return the format that a file's name says, or None.

    Raises:
        DataError: with `strict`, the name says none; lists the endings.

    Example:
        >>> file_format("CONTCAR"), file_format("a/b.extxyz")
        ('poscar', 'xyz')
    """
    path = Path(path)
    if path.name.startswith(("POSCAR", "CONTCAR")):
        return "poscar"
    found = FORMATS.get(path.suffix.lower())
    if found is None and strict:
        raise DataError(
            f"{path}: no reader for the ending {path.suffix!r}. Use one of "
            f"{', '.join(FORMATS)}, or a name that begins with POSCAR or CONTCAR."
        )
    return found


# ---- reading -------------------------------------------------------------------------


def _expand(item: str | Path) -> list[Path]:
    """Return the existing files that a name or pattern stands for."""
    path = Path(item).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise DataError(
            f"{item} is a folder. Say which files in it, for example "
            f'read("{path}/*.cif").'
        )
    if any(sign in str(item) for sign in "*?["):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        if found:
            return [file for file in found if file.is_file()]
    folder = path.parent if path.parent.is_dir() else Path()
    near = difflib.get_close_matches(path.name, [p.name for p in folder.iterdir()], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise DataError(
        f"{item} was not found.{hint} Check the path; it is read from {Path.cwd()}."
    )


def _read_one(path: Path, max_atoms: int, max_bytes: int) -> Crystals:
    """Return all crystals of one file."""
    kind, name = file_format(path), str(path)
    if kind == "parquet":
        return read_parquet(path, max_atoms=max_atoms)
    text = _text(path, max_bytes)
    if kind == "xyz":
        frames = parse_xyz(text, name, max_atoms)
        for i, atoms in enumerate(frames):
            atoms.info.setdefault("id", f"{path.stem}-{i}" if frames[1:] else path.stem)
        names = [f"{name} (frame {i})" for i in range(len(frames))]
        return from_ase(frames, names, max_atoms)
    if kind == "poscar":
        found = [(path.name, parse_poscar(text, name, max_atoms))]
    else:
        found = parse_cif(text, name, max_atoms)
        if len(found) == 1:
            found = [(path.stem, found[0][1])]
    ids = _distinct([header for header, _ in found])
    structures = [one for _, one in found]
    return Crystals.from_structures(structures, ids=ids, max_atoms=max_atoms)


def _text(path: Path, max_bytes: int) -> str:
    """Return a file's text after bounding its size and refusing binary data."""
    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(
            f"{path} is too large: {size:,} bytes, over the limit of {max_bytes:,}. "
            f"Split it, or raise the limit with read(..., max_bytes={size})."
        )
    data = path.read_bytes()
    if not data.strip():
        raise DataError(f"{path} is empty. Fetch or export it again.")
    try:
        text, odd = data.decode("utf-8-sig"), 0
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
        odd = 100 * len(re.findall(rb"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]", data))
    if odd > len(data) or b"\x00" in data:
        raise DataError(
            f"{path} is a binary file, not text. If it is compressed, unpack it first; "
            "otherwise export the crystal again as CIF."
        )
    return text.translate(_PLAIN)


# ---- writing -------------------------------------------------------------------------


def _file_names(batch: Crystals) -> list[str]:
    """Return one safe, unique file name per crystal, without its ending."""
    raw = batch.ids or [f"{i:04d}-{f}" for i, f in enumerate(batch.formulas)]
    return _distinct(
        [re.sub(r"[^\w.+-]+", "_", one).strip("._")[:80] or "crystal" for one in raw]
    )


def _distinct(names: list[str]) -> list[str]:
    """Return names with a number behind those that came before, case aside."""
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name.lower()] += 1
        again = seen[name.lower()]
        made.append(name if again == 1 else f"{name}-{again}")
    return made


def _right_handed(batch: Crystals) -> Crystals:
    """Return the same crystals with a, b, c right-handed: left-handed axes reversed.

    A CIF gives lengths and angles only, so that a left-handed cell would come back as
    the mirror image of its crystal.
    """
    left = torch.linalg.det(batch.lattice) < 0
    sign = torch.where(left, -1.0, 1.0).to(batch.lattice)[:, None, None]
    frac = torch.where(left[:, None, None], wrap(-batch.frac), batch.frac)
    return batch.replace(lattice=sign * batch.lattice, frac=frac)


def _format(batch: Crystals, kind: str, symmetrize: bool) -> str:
    """Return the text of a file."""
    if kind == "xyz":
        return format_xyz(batch)
    if kind == "poscar":
        from pymatgen.io.vasp import Poscar

        one, kinds = batch[0], list(batch[0].composition)
        grouped = one.get_sorted_structure(key=lambda site: kinds.index(site.specie))
        comment = " ".join(" ".join([*batch.ids, *batch.formulas]).split())
        return Poscar(grouped, comment[:80]).get_str(significant_figures=10)
    from pymatgen.io.cif import CifWriter

    blocks = []
    for name, one in zip(_file_names(batch), batch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            text = _symmetrized(one, name) if symmetrize else str(CifWriter(one))
        blocks.append(re.sub(r"^data_.*$", f"data_{name}", text, count=1, flags=re.M))
    return "\n".join(blocks)


def _symmetrized(one: Structure, name: str) -> str:
    """Return the CIF of the refined cell with its operators, as `read` accepts it."""
    from pymatgen.io.cif import CifWriter
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        # at a wide tolerance spglib's operators are as rough as the atoms: refine first
        refined = SpacegroupAnalyzer(one, SYMPREC).get_refined_structure()
        text = str(CifWriter(refined, symprec=1e-3))
        parse_cif(text, name, 4 * MAX_ATOMS)
    except Exception as error:
        raise DataError(
            f"{name}: no symmetry was found within {SYMPREC:g} angstrom that can be "
            f"written ({error}). Write it in P1."
        ) from error
    return text
