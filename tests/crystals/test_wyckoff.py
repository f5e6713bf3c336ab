"""The table of Wyckoff positions against the operations, the tables and real crystals."""

import re

import numpy as np
import pytest
import torch

from matdesign.crystals.lattice_code import family
from matdesign.crystals.symmetry.wyckoff import (
    LETTERS,
    Position,
    operations,
    positions,
    primitive_cell,
)
from matdesign.errors import DataError

GROUPS = range(1, 231)

GRID = np.array(np.meshgrid(*[range(-2, 3)] * 3)).reshape(3, -1).T

# number: conventional multiplicities in the order of the letters, from the Tables
KNOWN = {
    1: [1],
    2: [1] * 8 + [2],
    12: [2, 2, 2, 2, 4, 4, 4, 4, 4, 8],
    14: [2, 2, 2, 2, 4],
    62: [4, 4, 4, 8],
    166: [3, 3, 6, 9, 9, 18, 18, 18, 36],
    186: [2, 2, 6, 12],
    194: [2, 2, 2, 2, 4, 4, 6, 6, 12, 12, 12, 24],
    221: [1, 1, 3, 3, 6, 6, 8, 12, 12, 12, 24, 24, 24, 48],
    225: [4, 4, 8, 24, 24, 32, 48, 48, 48, 96, 96, 192],
    227: [8, 8, 16, 16, 32, 48, 96, 96, 192],
}


def centring(number: int) -> np.ndarray:
    rotations, translations = operations(number)
    return translations[np.abs(rotations - np.eye(3)).sum((1, 2)) == 0]


def images(place: Position, number: int, free: np.ndarray) -> np.ndarray:
    """Distinct atoms of the orbit in the conventional cell."""
    rotations, translations = operations(number)
    point = free @ place.map + np.array(place.offset)
    every = rotations @ point + translations
    apart = every[:, None] - every[None]
    same = np.abs(apart - np.round(apart)).max(-1) < 1e-6
    return every[same.argmax(1) == np.arange(len(every))]


def test_all_1731_positions_in_letter_order() -> None:
    assert sum(len(positions(n)) for n in GROUPS) == 1731
    for number in GROUPS:
        found = positions(number)
        assert [p.letter for p in found] == list(LETTERS[: len(found)])
        assert [p.index for p in found] == list(range(len(found)))
        assert found[-1].free == 3
        assert found[-1].multiplicity == len(operations(number)[0])


@pytest.mark.parametrize("number", KNOWN)
def test_known_multiplicities(number: int) -> None:
    assert [p.multiplicity for p in positions(number)] == KNOWN[number]


def test_every_orbit_has_its_multiplicity_and_no_two_positions_are_one() -> None:
    # a generic point has the multiplicity and its stabiliser the dimension of its position
    rng = np.random.default_rng(0)
    for number in GROUPS:
        rotations, translations = operations(number)
        seen = set()
        for place in positions(number):
            point = rng.random(3) @ place.map + np.array(place.offset)
            apart = rotations @ point + translations - point
            fixing = np.abs(apart - np.round(apart)).max(1) < 1e-9
            order = len(rotations) // place.multiplicity
            assert fixing.sum() == order
            projector = rotations[fixing].mean(0)
            assert np.trace(projector) == pytest.approx(place.free)
            assert np.allclose(place.map @ projector.T, place.map)
            move = place.map @ rotations.transpose(0, 2, 1)
            shift = np.array(place.offset) @ rotations.transpose(0, 2, 1) + translations
            seen.add(frozenset(_flats(move, shift)))
        assert len(seen) == len(positions(number))


def _flats(move: np.ndarray, shift: np.ndarray) -> set[str]:
    """The places an orbit may be in, each the same text for the same points."""
    rows = np.concatenate([move.reshape(-1, 9), np.round(shift % 1 * 24) % 24], axis=1)
    _, first = np.unique(rows.round().astype(int), axis=0, return_index=True)
    return {_flat(move[at], shift[at]) for at in first}


def _flat(move: np.ndarray, shift: np.ndarray) -> str:
    """Whole-number equations n . x = n . c modulo 1 of a flat, small n in order."""
    across = GRID[np.abs(GRID @ move.T).max(1) < 1e-9]
    values = np.round((across @ shift) % 1 * 24).astype(int) % 24
    return f"{across.tolist()} {values.tolist()}"


def test_free_coordinates_are_whole_and_have_period_one() -> None:
    for number in GROUPS:
        for place in positions(number):
            basis = place.map[list(place.axes)]
            assert np.array_equal(basis, np.round(basis))
            assert np.array_equal(basis[:, list(place.axes)], np.eye(place.free))
            assert np.allclose(np.array(place.offset)[list(place.axes)], 0)
            letters = set(re.findall("[xyz]", place.text))
            assert letters == {"xyz"[axis] for axis in place.axes}


def test_texts_of_the_tables() -> None:
    assert [p.text for p in positions(164)][8:] == ["x, -x, z", "x, y, z"]
    assert positions(194)[10].text == "x, 2x, z" and positions(194)[10].letter == "k"
    assert (
        positions(225)[5].text == "x, x, x" and positions(225)[5].site_symmetry == ".3m"
    )
    assert positions(47)[26].letter == "A"


@pytest.mark.parametrize("number", [0, 231])
def test_no_such_group(number: int) -> None:
    with pytest.raises(DataError, match="between 1 and 230"):
        positions(number)


def test_primitive_cells_hold_one_lattice_point() -> None:
    counts = set()
    for number in GROUPS:
        cell, points = primitive_cell(number), centring(number)
        counts.add(len(points))
        assert np.linalg.det(cell) == pytest.approx(1 / len(points))
        steps = points @ np.linalg.inv(cell)
        assert np.allclose(steps, np.round(steps))
        # the conventional vectors are whole sums of the primitive ones, too
        whole = np.linalg.inv(cell)
        assert np.allclose(whole, np.round(whole))
    assert counts == {1, 2, 3, 4}


def test_rhombohedral_cell_is_obverse_with_three_equal_edges() -> None:
    rows = np.array([[1, 0, 0], [-0.5, 3**0.5 / 2, 0], [0, 0, 1.6]])
    for number in (146, 148, 155, 160, 161, 166, 167):
        edges = primitive_cell(number) @ rows
        gram = edges @ edges.T
        assert np.allclose(np.diag(gram), gram[0, 0])
        assert np.allclose(gram[np.triu_indices(3, 1)], gram[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("number", [5, 12, 47, 69, 139, 166, 203, 227, 230])
def test_the_table_is_what_its_script_writes(number: int) -> None:
    import build_wyckoff

    rows = build_wyckoff.positions_of(number)
    assert [row.split(" ", 2)[2] for row in rows] == [
        p.text.replace(" ", "") for p in positions(number)
    ]
    assert [int(row.split()[0]) for row in rows] == [
        p.multiplicity for p in positions(number)
    ]


def test_families_and_free_lattice_entries_cover_all_groups() -> None:
    names = [family(number) for number in GROUPS]
    assert len(set(names)) == 6 and torch.tensor(
        [names.count("cubic"), names.count("hexagonal")]
    ).tolist() == [36, 52]
