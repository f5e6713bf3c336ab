"""CIF text to structures, with every refusal before any work is done."""

from __future__ import annotations

import math
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from matdesign.crystals import elements
from matdesign.crystals.checks import (
    check_cell,
    check_coordinates,
    too_many,
    unknown_element,
)
from matdesign.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifBlock

Block = dict[str, Any]
"""One data block: tag -> text, or a list of texts for a loop's column."""

_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
)
_GROUPS = (
    "_symmetry_space_group_name_H-M",
    "_symmetry_space_group_name_h-m",
    "_symmetry_space_group_name_Hall",
    "_space_group_name_H-M_alt",
    "_space_group_name_Hall",
    "_symmetry_Int_Tables_number",
    "_space_group_IT_number",
)
_ISOTOPES = {"D": "H", "T": "H"}
_LARGEST_POINT_GROUP = 48


def parse_cif(text: str, name: str, max_atoms: int) -> list[tuple[str, Structure]]:
    """Return all structures of a CIF, one per data block that lists atoms.

    Args:
        text: the file's text.
        name: what to call the file in messages.
        max_atoms: most atoms in one cell.

    Returns:
        (block name, structure) in the file's order. Blocks without an atom list, such
        as a journal's global block, are passed over.

    Raises:
        DataError: the text is not a CIF or is cut short, or a block has no cell, a cell
            without volume, a coordinate that is not a number, partial occupancy, an
            unknown element, too many atoms, or atoms that contradict its formula.

    Example:
        >>> parse_cif("data_x", "x.cif", 1000)
        Traceback (most recent call last):
        ...
        matdesign.errors.DataError: x.cif lists no atoms: ...
    """
    from pymatgen.io.cif import CifFile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stray text: the checks below judge it
            blocks = CifFile.from_str(text).data
    except Exception as error:
        raise DataError(
            f"{name} cannot be read as a CIF ({error}). It may be cut short or be "
            "another kind of file; fetch or export it again."
        ) from error
    found = []
    for header, block in blocks.items():
        tags = dict(block.data)
        if not any(tag.startswith("_atom_site_fract") for tag in tags):
            continue
        label = name if len(blocks) == 1 else f"{name} (data_{header})"
        found.append((header, _structure(tags, block, label, max_atoms)))
    if not found:
        raise DataError(
            f"{name} lists no atoms: no data block has `_atom_site_fract_x`. It may be "
            "cut short, or give Cartesian coordinates only; export it again with "
            "fractional coordinates."
        )
    return found


def _structure(tags: Block, block: CifBlock, name: str, max_atoms: int) -> Structure:
    """Return one block's structure after all checks."""
    from pymatgen.core import Lattice, Structure

    cell = [_number(tags, f"_cell_{part}", name) for part in _CELL]
    symbols, frac = _sites(tags, name)
    if len(symbols) > max_atoms:
        raise DataError(too_many(name, len(symbols), max_atoms))
    check_coordinates(frac, name)
    _check_occupancy(tags, symbols, name)
    if min(cell[:3]) <= 0 or not all(0 < angle < 180 for angle in cell[3:]):
        check_cell(np.zeros((3, 3)), name)
    with np.errstate(invalid="ignore"):
        lattice = Lattice.from_parameters(*cell)
    check_cell(np.asarray(lattice.matrix), name)
    if _is_p1(tags):
        made = Structure(lattice, symbols, frac)
    else:
        made = _expand(tags, block, len(symbols), name, max_atoms)
    _check_formula(tags, made, name)
    return made


def _expand(
    tags: Block, block: CifBlock, rows: int, name: str, max_atoms: int
) -> Structure:
    """Return the structure with all symmetry images, by pymatgen."""
    from pymatgen.io.cif import CifParser

    images = max((len(tags.get(tag, ())) for tag in _OPERATIONS), default=0)
    least = rows * images // _LARGEST_POINT_GROUP
    if least > max_atoms:
        raise DataError(too_many(name, least, max_atoms))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is checked here
            parser = CifParser.from_str(str(block), check_cif=False)
            (made,) = parser.parse_structures(primitive=False, on_error="raise")
    except Exception as error:
        raise DataError(
            f"{name}: its symmetry cannot be applied to its sites ({error}). Export it "
            "again, for example in P1 with all atoms listed."
        ) from error
    if any(getattr(site.specie, "oxi_state", None) is not None for site in made):
        made.remove_oxidation_states()
    return made


def _number(tags: Block, tag: str, name: str) -> float:
    """Return one number of a block; a bracketed uncertainty is dropped."""
    value = tags.get(tag)
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        raise DataError(
            f"{name} has no `{tag}`. It may be cut short; fetch or export it again."
        )
    return _float(value)


def _float(value: str) -> float:
    """Return a CIF number; NaN for anything that is not one."""
    try:
        return float(re.sub(r"\(.*\)?$", "", value.strip()))
    except ValueError:
        return math.nan


def _sites(tags: Block, name: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return element symbols and fractional coordinates of the listed sites."""
    columns = []
    for axis in "xyz":
        column = tags.get(f"_atom_site_fract_{axis}")
        if column is None:
            raise DataError(
                f"{name} has no `_atom_site_fract_{axis}`. It may be cut short; export "
                "it again with fractional coordinates."
            )
        columns.append(column if isinstance(column, list) else [column])
    kinds = tags.get("_atom_site_type_symbol", tags.get("_atom_site_label"))
    if kinds is None:
        raise DataError(
            f"{name} names no elements: it has neither `_atom_site_type_symbol` nor "
            "`_atom_site_label`. Export it again with one of them."
        )
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if len({len(kinds), *map(len, columns)}) != 1 or not kinds:
        raise DataError(
            f"{name}: its list of atoms is incomplete: got {len(kinds)} elements and "
            f"{', '.join(str(len(c)) for c in columns)} coordinates. The file is cut "
            "short; fetch or export it again."
        )
    symbols = [_symbol(kind, name) for kind in kinds]
    return symbols, np.array([[_float(v) for v in column] for column in columns]).T


def _symbol(kind: str, name: str) -> str:
    """Return the element that a type symbol or label such as `Fe3+` or `O12` begins."""
    letters = re.match(r"[A-Za-z]*", kind)
    word = letters.group() if letters else ""
    for length in (2, 1):
        guess = _ISOTOPES.get(word[:length].title(), word[:length].title())
        if len(word) >= length and guess in elements.symbols()[1:]:
            return guess
    raise DataError(unknown_element(name, kind))


def _check_occupancy(tags: Block, symbols: list[str], name: str) -> None:
    """Refuse a site that is not full."""
    column = tags.get("_atom_site_occupancy", [])
    for i, value in enumerate(column if isinstance(column, list) else [column]):
        share = 1.0 if value.strip() in (".", "?") else _float(value)
        if not abs(share - 1) < 1e-3:
            raise DataError(
                f"{name} has partial occupancy: site {i} ({symbols[i]}) is {value} "
                "full. Choose an ordered model first, for example with pymatgen's "
                "OrderDisorderedStructureTransformation."
            )


def _is_p1(tags: Block) -> bool:
    """Return whether the listed sites are all sites."""
    for tag in _OPERATIONS:
        if tag in tags:
            given = tags[tag] if isinstance(tags[tag], list) else [tags[tag]]
            return {"".join(one.lower().split()) for one in given} == {"x,y,z"}
    groups = [str(tags[tag]).replace(" ", "") for tag in _GROUPS if tag in tags]
    return all(group in ("P1", "1", "?", ".") for group in groups)


def _check_formula(tags: Block, made: Structure, name: str) -> None:
    """Refuse atoms that contradict the block's own formula: some are missing."""
    from pymatgen.core import Composition

    said = tags.get("_chemical_formula_sum")
    if not isinstance(said, str) or not re.fullmatch(r"[A-Za-z0-9. ]+", said.strip()):
        return
    try:
        stated = Composition(re.sub(r"\bD(?=\d|\b)", "H", said)).fractional_composition
    except (ValueError, KeyError):
        return
    got = made.composition.element_composition.fractional_composition
    if not stated.almost_equals(got, rtol=0.02, atol=0.005):
        raise DataError(
            f"{name}: its atoms make {made.composition.reduced_formula}, but its "
            f"formula is {said.strip()}. Atoms are missing, or the file is cut short; "
            "complete it, or correct `_chemical_formula_sum`."
        )
