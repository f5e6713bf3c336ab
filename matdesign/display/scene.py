"""What a crystal looks like: atoms, boundary images, bonds, cell, colours and words.

Nothing here needs a notebook or a browser. `view.py` turns these plain dictionaries into
live and static viewers, `picture.py` into drawings.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from matdesign.crystals.lattice_code import SYSTEMS, system_of
from matdesign.crystals.symmetry.find import SYMPREC
from matdesign.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure

Images = Literal["boundary", "none"]

REACH = 1.15
"""Two atoms are bonded up to this multiple of the sum of their covalent radii."""

BOUNDARY = 0.05
"""An atom this near to a face of the cell (angstrom) is drawn on the opposite face too."""

TOO_CLOSE = 0.5
"""Atoms nearer than this (angstrom) overlap; they are drawn without a bond."""

MAX_DRAWN = 20_000
"""Most atoms that one frame may draw."""


class Bonds(NamedTuple):
    """Every bond of a crystal, each in both directions.

    Attributes:
        first: site index, shape (bonds,).
        second: site index of the partner, shape (bonds,).
        image: cell that the partner sits in, integers, shape (bonds, 3).
        distance: length in angstrom, shape (bonds,).
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    image: NDArray[np.int64]
    distance: NDArray[np.float64]


def bonds(structure: "Structure") -> Bonds:
    """Return the bonds of a crystal, found through the periodic boundary.

    Two rules, nothing fitted:

    1. atoms are bonded when they are not farther apart than 1.15 times the sum of
       their covalent radii (Cordero 2008), and not closer than 0.5 angstrom;
    2. in a crystal that also holds a nonmetal, two metal atoms are not bonded: their
       contact in an oxide or a halide is size, not chemistry.

    The picture is a reading aid. Metals show their first shells, long weak contacts
    (hydrogen bonds, layers held by dispersion) stay open.

    Args:
        structure: an ordered crystal.

    Source:
        Cordero et al., Dalton Trans. 2008, 2832 (radii, through ASE); the neighbour
        search is pymatgen's.
    """
    from ase.data import covalent_radii
    from pymatgen.core import Element

    numbers = structure.atomic_numbers
    radius = covalent_radii[list(numbers)]
    metal = np.array([Element.from_Z(z).is_metal for z in numbers])
    first, second, image, distance = structure.get_neighbor_list(
        r=2 * REACH * float(radius.max()), exclude_self=True
    )
    keep = (distance <= REACH * (radius[first] + radius[second])) & (
        distance > TOO_CLOSE
    )
    if not metal.all():
        keep &= ~(metal[first] & metal[second])
    return Bonds(
        first[keep], second[keep], image[keep].round().astype(np.int64), distance[keep]
    )


def species_table(symbols: Sequence[str]) -> list[dict[str, Any]]:
    """Return symbol, name, colour, sphere radius (angstrom) and label colour of elements."""
    from ase.data import covalent_radii
    from ase.data.colors import jmol_colors
    from pymatgen.core import Element

    rows = []
    for element in map(Element, symbols):
        red, green, blue = (round(255 * float(x)) for x in jmol_colors[element.Z])
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
        rows.append(
            {
                "symbol": element.symbol,
                "name": element.long_name,
                "color": f"#{red:02x}{green:02x}{blue:02x}",
                "ink": "#000000" if light else "#ffffff",
                "radius": round(0.2 + 0.2 * float(covalent_radii[element.Z]), 3),
            }
        )
    return rows


def frame(
    structure: "Structure",
    kinds: dict[str, int],
    *,
    images: Images = "boundary",
    with_bonds: bool = True,
) -> dict[str, Any]:
    """Return one crystal as the numbers that a viewer draws.

    Args:
        structure: the crystal.
        kinds: element symbol -> row of the species table.
        images: which periodic copies to draw besides the cell's own atoms: those on its
            `"boundary"`, or `"none"`.
        with_bonds: draw bonds.

    Returns:
        `xyz` (flat, angstrom), `kind`, `site` (index in the structure), `bonds` (flat
        pairs of drawn atoms) and `cell` (9 numbers, rows a, b, c).
    """
    if not (
        np.isfinite(structure.frac_coords).all()
        and np.isfinite(structure.lattice.matrix).all()
    ):
        raise DataError(
            f"{structure.composition.reduced_formula} has a coordinate that is not a "
            "number; drop it before drawing."
        )
    drawn = _drawn(structure, images)
    if len(drawn) > MAX_DRAWN:
        raise DataError(
            f"too many atoms to draw: got {len(drawn)}, at most {MAX_DRAWN}. "
            "Use a smaller supercell."
        )
    where = {key: n for n, key in enumerate(drawn)}
    home = _home(structure)
    fractional = np.array([home[site] + cell for site, *cell in drawn])
    pairs = bonds(structure) if with_bonds else None
    joined = _joined(drawn, where, pairs, structure, home) if pairs else []
    return {
        "xyz": np.round(fractional @ structure.lattice.matrix, 3).ravel().tolist(),
        "kind": [kinds[structure[site].specie.symbol] for site, *_ in drawn],
        "site": [site for site, *_ in drawn],
        "bonds": joined,
        "cell": np.round(structure.lattice.matrix, 3).ravel().tolist(),
    }


def space_group(structure: "Structure") -> tuple[str, int]:
    """Return the space group's symbol and number; ("P1", 1) where none can be found."""
    try:
        symbol, number = structure.get_space_group_info(symprec=SYMPREC)
    except Exception:  # spglib refuses overlapping atoms in several ways
        return "P1", 1
    return str(symbol), int(number)


def describe(structure: "Structure") -> str:
    """Return one sentence for people who do not see the picture.

    Formula, crystal system, cell, number of atoms and space group, all computed.
    """
    symbol, number = space_group(structure)
    system = SYSTEMS[int(system_of(torch.tensor(number))) - 1]
    n = len(structure)
    return (
        f"Crystal structure of {structure.composition.reduced_formula}: {system}, "
        f"space group {symbol} (number {number}), {n} atom{'s' * (n != 1)} in a cell of "
        f"{cell_text(structure)}."
    )


def cell_text(structure: "Structure") -> str:
    """Return lengths and angles in words, each equal group named once."""
    (a, b, c), angles = structure.lattice.abc, structure.lattice.angles
    if max(a, b, c) - min(a, b, c) < 0.005:
        lengths = f"a = b = c = {a:.2f} Å"
    elif abs(a - b) < 0.005:
        lengths = f"a = b = {a:.2f} Å, c = {c:.2f} Å"
    else:
        lengths = f"a = {a:.2f} Å, b = {b:.2f} Å, c = {c:.2f} Å"
    if max(angles) - min(angles) < 0.05:
        return f"{lengths}, all angles {angles[0]:.1f}°"
    return f"{lengths}, angles " + ", ".join(f"{x:.1f}°" for x in angles)


def shapes(
    frame: dict[str, Any], species: list[dict[str, Any]], *, extent: float = 0.0
) -> list[Any]:
    """Return a frame as spheres and cylinders, in the lists that nglview takes.

    Args:
        frame: what `frame` gave.
        species: what `species_table` gave.
        extent: half width (angstrom) of what a viewer shall fit; two specks mark it, so
            that a player fits its widest frame whichever it shows first.

    Returns:
        Shapes around the middle of the cell.
    """
    cell = np.array(frame["cell"]).reshape(3, 3)
    middle = cell.sum(0) / 2
    at = (np.array(frame["xyz"]).reshape(-1, 3) - middle).round(3).tolist()
    kinds = [species[k] for k in frame["kind"]]
    made: list[Any] = []
    for p, kind, site in zip(at, kinds, frame["site"], strict=True):
        name = f"{kind['symbol']}, site {site}"
        made.append(("sphere", p, _rgb(kind["color"]), kind["radius"], name))
    for i, j in zip(frame["bonds"][::2], frame["bonds"][1::2], strict=True):
        half = [(x + y) / 2 for x, y in zip(at[i], at[j], strict=True)]
        for end in (i, j):
            made.append(("cylinder", at[end], half, _rgb(kinds[end]["color"]), 0.09))
    corner = np.array(list(itertools.product((0, 1), repeat=3))) @ cell - middle
    corner = corner.round(3).tolist()
    thick = max(0.035, 0.008 * float(np.linalg.norm(middle)))  # seen from afar, too
    for p, q in itertools.combinations(range(8), 2):
        if (p ^ q).bit_count() == 1:
            made.append(("cylinder", corner[p], corner[q], [0.35, 0.35, 0.4], thick))
    for side in (-extent, extent) if extent else ():
        made.append(("sphere", [side / 3**0.5] * 3, [1, 1, 1], 1e-4, ""))
    return made


def reach(frame: dict[str, Any]) -> float:
    """Return the distance (angstrom) of the farthest atom from the cell's middle."""
    middle = np.array(frame["cell"]).reshape(3, 3).sum(0) / 2
    away = np.array(frame["xyz"]).reshape(-1, 3) - middle
    return float(np.linalg.norm(away, axis=1).max())


def label(one: "Structure", n: int, total: int) -> str:
    """Return a short line that names crystal n of several."""
    symbol, _ = space_group(one)
    name = str(one.properties.get("id", ""))
    text = f"{one.composition.reduced_formula}, {symbol}" + (
        f" ({name})" if name else ""
    )
    return text if total == 1 else f"{n + 1}/{total}  {text}"


# ---- what is drawn --------------------------------------------------------------------


def _home(structure: "Structure") -> NDArray[np.float64]:
    """Fractional coordinates in the cell; what touches the upper face goes to the lower."""
    fractional = structure.frac_coords - np.floor(structure.frac_coords)
    fractional[fractional > 1 - BOUNDARY / _heights(structure)] -= 1
    return np.asarray(fractional)


def _heights(structure: "Structure") -> NDArray[np.float64]:
    """Distance between opposite faces in angstrom, shape (1, 3), to compare with sites."""
    inverse = np.linalg.inv(structure.lattice.matrix)
    tall = 1 / np.linalg.norm(inverse, axis=0)
    return np.broadcast_to(tall, (len(structure), 3))


def _drawn(structure: "Structure", images: Images) -> list[tuple[int, int, int, int]]:
    """Drawn atoms as (site, cell): the cell's own first, then the asked-for copies."""
    home = _home(structure)
    low = np.abs(home) < BOUNDARY / _heights(structure)
    drawn = [(i, 0, 0, 0) for i in range(len(structure))]
    if images == "none":
        return drawn
    for i, touches in enumerate(low):
        for cell in itertools.product(*((0, 1) if x else (0,) for x in touches)):
            if any(cell):
                drawn.append((i, cell[0], cell[1], cell[2]))
    return drawn


def _joined(
    drawn: list[tuple[int, int, int, int]],
    where: dict[tuple[int, int, int, int], int],
    pairs: Bonds,
    structure: "Structure",
    home: NDArray[np.float64],
) -> list[int]:
    """Flat pairs of drawn atoms that are bonded, each pair once."""
    moved = np.round(home - structure.frac_coords).astype(int)
    shift = pairs.image - moved[pairs.second] + moved[pairs.first]
    partners: dict[int, list[tuple[int, list[int]]]] = {}
    for i, j, cell in zip(
        pairs.first.tolist(), pairs.second.tolist(), shift.tolist(), strict=True
    ):
        partners.setdefault(i, []).append((j, cell))
    flat: list[int] = []
    for n, (i, *at) in enumerate(drawn):
        for j, cell in partners.get(i, ()):
            m = where.get((j, at[0] + cell[0], at[1] + cell[1], at[2] + cell[2]))
            if m is not None and n < m:
                flat += [n, m]
    return flat


def _rgb(color: str) -> list[float]:
    return [round(int(color[n : n + 2], 16) / 255, 3) for n in (1, 3, 5)]
