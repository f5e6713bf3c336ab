"""Read and write crystals: CIF, POSCAR, extended XYZ, parquet, ASE atoms.

Every file is bounded and looked at before it is parsed; what cannot be read is refused
with the file's name and what to do about it.
"""

from __future__ import annotations

import difflib
import glob
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matdesign.crystals.io.ase_atoms import from_ase, to_ase
from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.checks import MAX_ATOMS
from matdesign.crystals.io.parquet import read_parquet, write_parquet
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

_ENDINGS = {"cif": ".cif", "poscar": ".vasp", "xyz": ".xyz"}


def read(
    path: str | Path | Sequence[str | Path],
    *,
    max_atoms: int = MAX_ATOMS,
    max_bytes: int = MAX_BYTES,
) -> Crystals:
    """Return the crystals of one or more files as one batch.

    The format follows from the name. A CIF may hold several structures; each becomes a
    crystal. Ids are file names (with the data block's name where there are several).
    Nothing is repaired: coordinates are wrapped into [0, 1), all else stays.

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
    batches: list[Crystals] = []
    loose: list[tuple[str, Structure]] = []
    for one in (file for item in given for file in _expand(item)):
        if file_format(one) == "parquet":
            if loose:
                batches.append(_batch(loose, max_atoms))
                loose = []
            batches.append(read_parquet(one, max_atoms=max_atoms))
        else:
            loose += _structures(one, max_atoms, max_bytes)
    if loose or not batches:
        batches.append(_batch(loose, max_atoms))
    whole = batches[0] if len(batches) == 1 else Crystals.cat(batches)
    return whole.replace(info={"source": [str(item) for item in given]})


def write(
    crystals: Crystals | Structure | Sequence[Structure],
    path: str | Path,
    format: str | None = None,
    *,
    symmetrize: bool = False,
    symprec: float = 0.1,
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
            positions within `symprec`.
        symprec: how far an atom may be from its symmetric position, angstrom.

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
    batch = crystals if isinstance(crystals, Crystals) else _from_structures(crystals)
    path = Path(path).expanduser()
    single = None if path.is_dir() else file_format(path, strict=False)
    kind = (format or single or "cif").lower()
    if kind not in set(FORMATS.values()):
        raise DataError(
            f"unknown format {kind!r} for {path}; choose cif, poscar, xyz or parquet."
        )
    if kind == "parquet":
        return [write_parquet(batch, path if single else path / "crystals.io.parquet")]
    if single is None:
        path.mkdir(parents=True, exist_ok=True)
        names = _file_names(batch)
        made = [path / f"{name}{_ENDINGS[kind]}" for name in names]
        for i, file in enumerate(made):
            _write_text(file, _format(batch[[i]], kind, symmetrize, symprec))
        return made
    if kind == "poscar" and len(batch) != 1:
        raise DataError(
            f"a POSCAR holds one crystal; got {len(batch)} for {path}. Give a folder "
            'instead: write(crystals, "folder", "poscar").'
        )
    _write_text(path, _format(batch, kind, symmetrize, symprec))
    return [path]


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


def _structures(
    path: Path, max_atoms: int, max_bytes: int
) -> list[tuple[str, Structure]]:
    """Return (id, structure) for all crystals of one text file."""
    from matdesign.crystals.io.ase_atoms import parse_xyz
    from matdesign.crystals.io.cif import parse_cif
    from matdesign.crystals.io.poscar import parse_poscar

    text = _text(path, max_bytes)
    kind = file_format(path)
    if kind == "cif":
        found = parse_cif(text, str(path), max_atoms)
        if len(found) == 1:
            return [(path.stem, found[0][1])]
        return [(header, one) for header, one in found]
    if kind == "poscar":
        return [(path.name, parse_poscar(text, str(path), max_atoms))]
    return parse_xyz(text, path, max_atoms)


def _text(path: Path, max_bytes: int) -> str:
    """Return a file's text after bounding its size and refusing binary data."""
    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(
            f"{path} is too large: {size:,} bytes, over the limit of {max_bytes:,}. "
            f"Split it, or raise the limit with read(..., max_bytes={size})."
        )
    data = path.read_bytes()
    if b"\x00" in data:
        raise DataError(
            f"{path} is a binary file, not text. If it is compressed, unpack it first; "
            "otherwise export the crystal again as CIF."
        )
    if not data.strip():
        raise DataError(f"{path} is empty. Fetch or export it again.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    text = data.decode("latin-1")
    odd = len(re.findall(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]", text))
    if odd > 0.01 * len(text):
        raise DataError(
            f"{path} is a binary file, not text. If it is compressed, unpack it first; "
            "otherwise export the crystal again as CIF."
        )
    return text


def _batch(named: list[tuple[str, Structure]], max_atoms: int) -> Crystals:
    names = [name for name, _ in named]
    structures = [one for _, one in named]
    return Crystals.from_structures(structures, ids=names, max_atoms=max_atoms)


def _from_structures(given: Structure | Sequence[Structure]) -> Crystals:
    from pymatgen.core import Structure

    many = [given] if isinstance(given, Structure) else list(given)
    return Crystals.from_structures(many)


# ---- writing -------------------------------------------------------------------------


def _file_names(batch: Crystals) -> list[str]:
    """Return one safe, unique file name per crystal, without its ending."""
    raw = batch.ids or [f"{i:04d}-{f}" for i, f in enumerate(batch.formulas)]
    names: list[str] = []
    seen: dict[str, int] = {}
    for one in raw:
        safe = re.sub(r"[^\w.+-]+", "_", one).strip("._")[:80] or "crystal"
        seen[safe.lower()] = seen.get(safe.lower(), 0) + 1
        again = seen[safe.lower()]
        names.append(safe if again == 1 else f"{safe}-{again}")
    return names


def _format(batch: Crystals, kind: str, symmetrize: bool, symprec: float) -> str:
    """Return the text of a file."""
    import io

    if kind == "xyz":
        import ase.io

        stream = io.StringIO()
        ase.io.write(stream, to_ase(batch), format="extxyz")
        return stream.getvalue()
    if kind == "poscar":
        from matdesign.crystals.io.poscar import format_poscar

        comment = f"{batch.ids[0] if batch.ids else ''} {batch.formulas[0]}"
        return format_poscar(batch[0], comment)
    from pymatgen.io.cif import CifWriter

    blocks = []
    for name, one in zip(_file_names(batch), batch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            text = str(CifWriter(one, symprec=symprec if symmetrize else None))
        blocks.append(re.sub(r"^data_.*$", f"data_{name}", text, count=1, flags=re.M))
    return "\n".join(blocks)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
