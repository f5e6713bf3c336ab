"""CIF text to structures: gemmi parses, what the file states decides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import gemmi
import numpy as np

from matdesign.crystals import elements
from matdesign.crystals.io.checks import (
    check_cells,
    check_coordinates,
    check_size,
    unknown_element,
)
from matdesign.crystals.io.expand import expand
from matdesign.crystals.io.groups import groups, misfit
from matdesign.crystals.io.stated import contradiction
from matdesign.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure

Tags = dict[str, list[str]]
"""One data block: lower-case data name, dots as underscores -> its values."""

_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_NEEDED = (
    *("_cell_length", "_cell_angle", "_cell_formula", "_cell_volume", "_atom_site_"),
    *("_symmetry_", "_space_group_", "_chemical_formula_sum", "_exptl_crystal_density"),
)
"""How the data names begin whose values are read."""

_CONTACT = 0.9, 1.3
"""Distances of nearest neighbours, in sums of their covalent radii (Cordero 2008)."""


def parse_cif(text: str, name: str, max_atoms: int) -> list[tuple[str, Structure]]:
    """Return all structures of a CIF, one per data block that lists atoms.

    Args:
        text: the file's text; dashes and spaces beyond ASCII count as plain ones.
        name: what to call the file in messages.
        max_atoms: most atoms in one cell.

    Returns:
        (block name, structure) in the file's order. Blocks without an atom list, such
        as a journal's global block, are passed over.

    Raises:
        DataError: the text is not a CIF or is cut short; or a block has no cell, a
            coordinate that is not a number, partial occupancy, a label that is no
            element, or too many atoms; or its symmetry cannot be resolved; or it
            contradicts itself: symbol, operators, cell, formula, Z, multiplicities,
            density or volume.

    Example:
        >>> parse_cif("data_x", "x.cif", 1000)
        Traceback (most recent call last):
        ...
        matdesign.errors.DataError: x.cif lists no atoms: ...
    """
    # gemmi refuses such characters outside quotes; `_values` refuses them in values
    ascii_only = re.sub(r"[^\x00-\x7f]", "~", text)
    try:
        blocks = list(gemmi.cif.read_string(ascii_only, check_level=0))
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"{name} cannot be read as a CIF ({error}). It may be cut short or be "
            "another kind of file; fetch or export it again."
        ) from error
    found = []
    for block in blocks:
        header = block.name.strip()
        label = name if len(blocks) == 1 else f"{name} (data_{header})"
        tags = _values(block, label)
        if any(tag.startswith("_atom_site_fract") for tag in tags):
            found.append((header, _structure(tags, label, max_atoms)))
    if not found:
        raise DataError(
            f"{name} lists no atoms: no data block has `_atom_site_fract_x`. It may be "
            "cut short, or give Cartesian coordinates only; export it again with "
            "fractional coordinates."
        )
    return found


def _values(block: gemmi.cif.Block, name: str) -> Tags:
    """Return the values of a block; a name that is given twice is refused."""
    tags: Tags = {}
    item: Any  # the types that gemmi declares stop at `object`
    for item in block:
        columns: list[tuple[str, list[str]]] = []
        if item.pair is not None:
            columns = [(item.pair[0], [item.pair[1]])]
        elif item.loop is not None:
            width, values = item.loop.width(), item.loop.values
            columns = [(tag, values[i::width]) for i, tag in enumerate(item.loop.tags)]
        for tag, raw in columns:
            key = tag.lower().replace(".", "_")
            if key in tags:
                raise DataError(
                    f"{name} gives `{tag}` twice, so that one of the two must be "
                    "wrong. Delete it, or export the file again."
                )
            if not raw or "" in raw:
                raise DataError(
                    f"{name}: `{tag}` has no value. The file may be cut short; fetch "
                    "or export it again."
                )
            tags[key] = [gemmi.cif.as_string(value).strip() for value in raw]
            odd = [value for value in tags[key] if "~" in value]
            if odd and key.startswith(_NEEDED):
                raise DataError(
                    f"{name}: `{tag}` holds a character beyond ASCII; got {odd[0]!r}, "
                    "where ~ stands for it. Replace it by what was meant."
                )
    return tags


def _structure(tags: Tags, name: str, max_atoms: int) -> Structure:
    """Return one block's structure, of which its possible groups leave only one."""
    from pymatgen.core import Lattice, Structure

    cell = [_numbers(tags, f"_cell_{part}", name)[0] for part in _CELL]
    labels, symbols, frac = _sites(tags, name)
    check_size(np.array([len(symbols)]), lambda _: name, max_atoms)
    check_coordinates(frac[None], lambda _: name)
    _check_sites_are_whole(tags, labels, name)
    if min(cell[:3]) <= 0 or not all(0 < angle < 180 for angle in cell[3:]):
        check_cells(np.zeros((1, 3, 3)), lambda _: name)
    with np.errstate(invalid="ignore"):
        lattice = Lattice.from_parameters(*cell)
    rows = np.asarray(lattice.matrix)
    check_cells(rows[None], lambda _: name)
    possible = groups(tags, name)
    fitting = [one for one in possible if misfit(one, rows) < 0.01]
    if not fitting:
        raise DataError(
            f"{name}: its cell (a, b, c = {', '.join(f'{x:g}' for x in cell[:3])}; "
            f"angles {', '.join(f'{x:g}' for x in cell[3:])}) does not have the "
            f"symmetry of its space group {possible[0].name}. Correct the cell or the group."
        )
    torn, wrong, read = [], [], []
    for group in fitting:
        try:
            points, site = expand(group, frac, rows, labels, name, max_atoms)
        except DataError as error:
            torn.append(str(error))
            continue
        kinds = [symbols[i] for i in site]
        order = len(group.rotations)
        if said := contradiction(tags, kinds, site, order, lattice.volume):
            wrong.append(
                f"{name} contradicts itself: {said} (space group {group.name}). Atoms or "
                "operators are missing, or the file is cut short; complete it, or correct "
                "what is wrong."
            )
        else:
            read.append((group.name, Structure(lattice, kinds, points)))
    if not read:
        raise DataError([*torn, *wrong][0])
    return _one_meaning(read, torn, name)


def _one_meaning(
    read: list[tuple[str, Structure]], torn: list[str], name: str
) -> Structure:
    """Return the crystal that settings agree in, or the only one whose atoms touch.

    `torn` says why in other settings atoms would lie on each other: one of them may be
    the one that was meant. Where neither decides, as `F d -3 m` without a choice of
    origin may not, the file is refused.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    same = StructureMatcher(
        ltol=0.01, stol=0.01, angle_tol=0.1, primitive_cell=False, scale=False
    )
    first = read[0][1]
    found = [read[0], *(one for one in read[1:] if not same.fit(first, one[1]))]
    if len(found) == 1 and not torn:
        return first
    sound = [one for _, one in found if _atoms_touch(one)]
    if len(sound) == 1:
        return sound[0]
    several = " and ".join(f"{one.formula} ({setting})" for setting, one in found)
    raise DataError(
        f"{torn[0] if torn else name + ' may mean several crystals.'} The symmetry that it "
        f"states fits {several}. Name the setting in the symbol (as in 'F d -3 m :2'), "
        "list the operators, or state `_cell_formula_units_Z`."
    )


def _atoms_touch(one: Structure) -> bool:
    """Return whether each atom is as far from its nearest as bonded atoms are."""
    from ase.data import covalent_radii

    radii = covalent_radii[list(one.atomic_numbers)]
    pairs = one.distance_matrix / (radii[:, None] + radii[None, :])
    np.fill_diagonal(pairs, np.inf)
    nearest = pairs.min(1)
    return bool((nearest > _CONTACT[0]).all() and (nearest < _CONTACT[1]).all())


def _numbers(tags: Tags, tag: str, name: str) -> list[float]:
    """Return the numbers of one data name; bracketed uncertainties are dropped."""
    if tag not in tags:
        raise DataError(
            f"{name} has no `{tag}`. It may be cut short; fetch or export it again, with "
            "its cell and fractional coordinates."
        )
    return [gemmi.cif.as_number(value) for value in tags[tag]]


def _sites(tags: Tags, name: str) -> tuple[list[str], list[str], np.ndarray[Any, Any]]:
    """Return labels, element symbols and coordinates of the listed sites."""
    columns = [_numbers(tags, f"_atom_site_fract_{axis}", name) for axis in "xyz"]
    types, labels = tags.get("_atom_site_type_symbol"), tags.get("_atom_site_label")
    kinds = types or labels
    if kinds is None:
        raise DataError(
            f"{name} names no elements: it has neither `_atom_site_type_symbol` nor "
            "`_atom_site_label`. Export it again with one of them."
        )
    if len({len(kinds), len(labels or kinds), *map(len, columns)}) != 1:
        raise DataError(
            f"{name}: its list of atoms is incomplete: got {len(kinds)} elements and "
            f"{', '.join(str(len(c)) for c in columns)} coordinates. The file is cut "
            "short; fetch or export it again."
        )
    labels = labels or kinds
    symbols = [
        _of_label(label, name)
        if types is None or kind in "?."
        else _of_type(kind, name)
        for kind, label in zip(kinds, labels)
    ]
    return labels, symbols, np.array(columns).T


def _of_type(kind: str, name: str) -> str:
    """Return the element of a type symbol such as `Fe3+`, `O2-` or `FE`."""
    found = re.fullmatch(r"([A-Za-z]{1,2})(?:[\d.]*[+-]?|[+-]\d*)", kind)
    word = found[1] if found else ""
    # FE can only be iron, but CO might be carbon and oxygen
    two = len(word) == 2 and set(word.upper()) <= set(elements.symbols())
    word = elements.element(word if two else word.title())
    if word and word in elements.symbols():
        return word
    raise unknown_element(name, kind)


def _of_label(label: str, name: str) -> str:
    """Return the element of a label such as `Fe1` or `O2A`: its first letters."""
    letters = re.match(r"[A-Za-z]*", label)
    word = elements.element(letters.group() if letters else "")
    if word and word in elements.symbols():
        return word
    raise DataError(
        f"{name}: the label {label!r} does not say which element it is: its letters "
        "are no element's symbol. Add a column `_atom_site_type_symbol`."
    )


def _check_sites_are_whole(tags: Tags, labels: list[str], name: str) -> None:
    """Refuse sites that are not full, or stand for more atoms than themselves."""
    for i, value in enumerate(tags.get("_atom_site_occupancy", [])):
        share = 1.0 if value in (".", "?") else gemmi.cif.as_number(value)
        if not abs(share - 1) < 1e-3:
            raise DataError(
                f"{name} has partial occupancy: site {i} ({labels[i]}) is {value} "
                "full. Choose an ordered model first, for example with pymatgen's "
                "OrderDisorderedStructureTransformation."
            )
    for value, label in zip(tags.get("_atom_site_attached_hydrogens", []), labels):
        if value not in ("0", ".", "?"):
            raise DataError(
                f"{name}: site {label} has {value} hydrogen atoms that are not listed "
                "(`_atom_site_attached_hydrogens`). List them with coordinates."
            )
