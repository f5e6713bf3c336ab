"""Which atoms of a batch are neighbours: the graph that CHGNet works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ATOM_CUTOFF = 6.0  # angstrom, longest bond of the atom graph
BOND_CUTOFF = 3.0  # angstrom, longest bond that takes part in an angle


@dataclass(frozen=True)
class Topology:
    """Which atoms of a batch are neighbours; nothing here depends on the strain.

    Attributes:
        numbers: (N,) atomic numbers less one (hydrogen is 0).
        owner: (N,) crystal of each atom.
        n_atoms: (B,) atoms per crystal.
        edges: (E, 2) centre and neighbour of each directed bond.
        images: (E, 3) lattice translations of the neighbour.
        to_undirected: (E,) undirected bond of each directed bond.
        to_directed: (U,) one directed bond of each undirected bond.
        angles: (A, 3) centre, first and second undirected bond.
        angle_edges: (A, 2) the two directed bonds of an angle.
        isolated: (B,) whether a crystal has an atom without any neighbour.
    """

    numbers: torch.Tensor
    owner: torch.Tensor
    n_atoms: torch.Tensor
    edges: torch.Tensor
    images: torch.Tensor
    to_undirected: torch.Tensor
    to_directed: torch.Tensor
    angles: torch.Tensor
    angle_edges: torch.Tensor
    isolated: NDArray[np.bool_]


def topology(
    numbers: Sequence[NDArray[Any]],
    fracs: Sequence[NDArray[Any]],
    lattices: NDArray[Any],
    device: str | torch.device = "cpu",
) -> Topology:
    """Build the neighbour lists of a batch.

    Args:
        numbers: B arrays (n_atoms,) of atomic numbers.
        fracs: B arrays (n_atoms, 3) of fractional coordinates.
        lattices: (B, 3, 3), rows are lattice vectors in angstrom.
        device: Where the index tensors go.

    Returns:
        The batched topology, bonds to 6 angstrom and angles to 3 angstrom.

    Source:
        Same graph as CHGNet's converter (Deng et al. 2023, Nat. Mach. Intell. 5,
        1031); its Python objects are replaced by sorting and array arithmetic.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    n_atoms = np.array([len(z) for z in numbers])
    offsets = np.concatenate([[0], np.cumsum(n_atoms)])
    found = []
    for frac, lattice, offset in zip(fracs, lattices, offsets[:-1], strict=True):
        cell = np.ascontiguousarray(lattice, dtype=float)
        cart = np.ascontiguousarray(frac @ cell, dtype=float)
        i, j, image, length = find_points_in_spheres(
            cart, cart, ATOM_CUTOFF, np.ones(3, dtype=np.int64), cell, 1e-8
        )
        keep = (i != j) | (length > 1e-8)
        found.append((i[keep] + offset, j[keep] + offset, image[keep], length[keep]))
    centre, neighbour, image, length = map(np.concatenate, zip(*found, strict=True))
    shift = image.astype(np.int64)

    to_undirected, to_directed = _pair_up(centre, neighbour, shift, int(offsets[-1]))
    first, second = _angles(centre, length)
    lonely = np.bincount(centre, minlength=int(offsets[-1])) == 0
    isolated = np.array([lonely[a:b].any() for a, b in pairwise(offsets)])

    def index(array: NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=device)

    return Topology(
        numbers=index(np.concatenate(numbers).astype(np.int64) - 1),
        owner=index(np.repeat(np.arange(len(n_atoms)), n_atoms)),
        n_atoms=index(n_atoms),
        edges=index(np.stack([centre, neighbour], 1)),
        images=index(shift.astype(np.float32)),
        to_undirected=index(to_undirected),
        to_directed=index(to_directed),
        angles=index(
            np.stack([centre[first], to_undirected[first], to_undirected[second]], 1)
        ),
        angle_edges=index(np.stack([first, second], 1)),
        isolated=isolated,
    )


def _pair_up(
    centre: NDArray[np.int64],
    neighbour: NDArray[np.int64],
    image: NDArray[np.int64],
    n_total: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join each directed bond i->j (image) with its reverse j->i (-image)."""
    reach = int(np.abs(image).max()) if len(image) else 0
    shape = (n_total, n_total, *[2 * reach + 1] * 3)
    there = np.ravel_multi_index((centre, neighbour, *(reach + image).T), shape)
    back = np.ravel_multi_index((neighbour, centre, *(reach - image).T), shape)
    _, to_directed, to_undirected = np.unique(
        np.minimum(there, back), return_index=True, return_inverse=True
    )
    return to_undirected.reshape(-1), to_directed


def _angles(
    centre: NDArray[np.int64], length: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All ordered pairs of two different short bonds with one centre."""
    short = np.flatnonzero(length < BOND_CUTOFF)
    short = short[np.argsort(centre[short], kind="stable")]
    _, start, count = np.unique(centre[short], return_index=True, return_counts=True)
    per_bond = np.repeat(count, count)  # partners of each short bond, itself included
    first = np.repeat(np.arange(len(short)), per_bond)
    begin = np.repeat(np.repeat(start, count), per_bond)
    rank = np.arange(len(first)) - np.repeat(np.cumsum(per_bond) - per_bond, per_bond)
    second = begin + rank
    keep = first != second
    return short[first[keep]], short[second[keep]]
