"""A lean evaluator of the CHGNet interatomic potential.

CHGNet's own evaluator keeps the graph of the forces for training and works one
crystal at a time.  Here the parameters are frozen, the topology of a whole batch
is built with a few array operations, and one autograd call through positions and
strain gives forces and stress together.

Units: energies in eV/atom, forces in eV/angstrom, stresses in eV/angstrom^3,
magnetic moments in Bohr magnetons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from matdesign.errors import DataError
from matdesign.loop.chgnet_forward import Forward

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matdesign.crystals.batch import Crystals

WEIGHTS = ("0.3.0", "r2scan")
"""Weight sets inside the chgnet wheel: the labels, and a second opinion."""

ATOM_CUTOFF = 6.0  # angstrom, longest bond of the atom graph
BOND_CUTOFF = 3.0  # angstrom, longest bond that takes part in an angle


@dataclass(frozen=True)
class Prediction:
    """What the potential says of a batch of B crystals.

    Attributes:
        energy_per_atom: (B,) eV/atom.
        forces: B arrays (n_atoms, 3), eV/angstrom.
        stress: (B, 3, 3) eV/angstrom^3, positive under tension.
        magmoms: B arrays (n_atoms,), size of the magnetic moment, Bohr magnetons.
        isolated: (B,) whether a crystal has an atom without a neighbour within
            6 angstrom; its energy is then not to be believed.
    """

    energy_per_atom: NDArray[np.float64]
    forces: list[NDArray[np.float64]]
    stress: NDArray[np.float64]
    magmoms: list[NDArray[np.float64]]
    isolated: NDArray[np.bool_]


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
    centres, neighbours, images, lengths = [], [], [], []
    for frac, lattice, offset in zip(fracs, lattices, offsets[:-1], strict=True):
        cell = np.ascontiguousarray(lattice, dtype=float)
        cart = np.ascontiguousarray(frac @ cell, dtype=float)
        i, j, image, length = find_points_in_spheres(
            cart, cart, ATOM_CUTOFF, np.ones(3, dtype=np.int64), cell, 1e-8
        )
        keep = (i != j) | (length > 1e-8)
        centres.append(i[keep] + offset)
        neighbours.append(j[keep] + offset)
        images.append(image[keep].astype(np.int64))
        lengths.append(length[keep])
    centre = np.concatenate(centres).astype(np.int64)
    neighbour = np.concatenate(neighbours).astype(np.int64)
    image = np.concatenate(images).reshape(-1, 3)
    length = np.concatenate(lengths)

    to_undirected, to_directed = _pair_up(centre, neighbour, image, int(offsets[-1]))
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
        images=index(image.astype(np.float32)),
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
    width = 2 * reach + 1

    def encode(
        a: NDArray[np.int64], b: NDArray[np.int64], shift: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        code: NDArray[np.int64] = a * n_total + b
        for part in (shift + reach).T:
            code = code * width + part
        return code

    key = np.minimum(
        encode(centre, neighbour, image), encode(neighbour, centre, -image)
    )
    _, to_directed, to_undirected = np.unique(
        key, return_index=True, return_inverse=True
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


class Potential:
    """CHGNet with frozen parameters, evaluated in batches; it never relaxes.

    Args:
        weights: "0.3.0" (PBE/+U, the labels of the shipped data), "r2scan" (the
            second opinion, which a loop should not see).
        device: Torch device.
        batch_atoms: Largest number of atoms in one model call; 48 on a CPU, where
            small batches stay in the cache, and 4096 on a GPU unless given.
        dtype: Of the arithmetic; float64 for finite differences, at twice the time.

    Raises:
        DataError: If the weight set is unknown.
    """

    def __init__(
        self,
        weights: str = "0.3.0",
        device: str = "cpu",
        batch_atoms: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        try:
            from chgnet.model.model import CHGNet
        except ModuleNotFoundError as problem:
            raise DataError(
                f"the potential's weights come with a package that is missing: got "
                f"{problem}. Install it with `pip install 'matdesign[loop]'`."
            ) from problem

        if weights not in WEIGHTS:
            raise DataError(
                f"unknown weights for the potential: got {weights!r}; "
                f"choose one of {', '.join(WEIGHTS)}"
            )
        self.weights = weights
        self.device = device
        self.batch_atoms = batch_atoms or (48 if device == "cpu" else 4096)
        self.dtype = dtype
        model: Any = CHGNet.load(model_name=weights, use_device=device, verbose=False)
        model.eval().requires_grad_(False).to(dtype)
        self._forward = Forward(model)
        self._atom_energy = model.composition_model.fc.weight.reshape(-1).to(device)

    @property
    def version(self) -> str:
        """Name of the potential and its weights, part of every label's identity."""
        return f"chgnet-0.4.2/{self.weights}"

    def evaluate(
        self, crystals: Crystals | Sequence[Structure], *, forces: bool = True
    ) -> Prediction:
        """Energies, forces, stresses and magnetic moments as the crystals stand.

        Args:
            crystals: A batch, or pymatgen structures (ordered).
            forces: Without them (and the stress) a call costs about a third; both
                are then zero.

        Returns:
            The prediction, in the order given.

        Raises:
            DataError: If a crystal holds no atoms or numbers that are not finite.
        """
        numbers, fracs, lattices = arrays(crystals)
        return self.evaluate_arrays(numbers, fracs, lattices, forces=forces)

    def evaluate_arrays(
        self,
        numbers: Sequence[NDArray[Any]],
        fracs: Sequence[NDArray[Any]],
        lattices: NDArray[Any],
        *,
        forces: bool = True,
    ) -> Prediction:
        """Same as `evaluate` for plain arrays (the inner loop of a relaxation)."""
        energies: list[NDArray[Any]] = []
        stresses: list[NDArray[Any]] = []
        pulls: list[NDArray[Any]] = []
        moments: list[NDArray[Any]] = []
        lonely: list[NDArray[np.bool_]] = []
        for part in chunks([len(z) for z in numbers], self.batch_atoms):
            graph = topology(
                numbers[part], fracs[part], lattices[part], device=self.device
            )
            energy, force, stress, moment = self._call(
                graph, np.concatenate(fracs[part]), lattices[part], forces
            )
            lonely.append(graph.isolated)
            energies.append(energy)
            stresses.append(stress)
            cuts = np.cumsum([len(z) for z in numbers[part]])[:-1]
            pulls += np.split(force, cuts)
            moments += np.split(moment, cuts)
        if not energies:
            return Prediction(
                np.zeros(0), [], np.zeros((0, 3, 3)), [], np.zeros(0, dtype=bool)
            )
        return Prediction(
            np.concatenate(energies),
            pulls,
            np.concatenate(stresses),
            moments,
            np.concatenate(lonely),
        )

    def _call(
        self,
        graph: Topology,
        frac: NDArray[Any],
        lattices: NDArray[Any],
        forces: bool,
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """One model call: energy per atom, forces, stress and moments."""
        frac_t = torch.as_tensor(frac, dtype=self.dtype, device=self.device)
        cell0 = torch.as_tensor(lattices, dtype=self.dtype, device=self.device)
        with torch.set_grad_enabled(forces):
            strain = torch.zeros_like(cell0, requires_grad=forces)
            cell = cell0 + cell0 @ strain
            position = torch.einsum("ni,nij->nj", frac_t, cell[graph.owner])
            centre, neighbour = graph.edges.T
            images = graph.images.to(self.dtype)
            bond = (
                position[centre]
                - position[neighbour]
                - torch.einsum("ei,eij->ej", images, cell[graph.owner[centre]])
            )
            length = bond.norm(dim=1)
            direction = bond / length[:, None]
            energy, moment = self._forward(
                graph, length.index_select(0, graph.to_directed), direction
            )
            volume = torch.linalg.det(cell0).abs()
            if forces:
                gradient, strain_gradient = torch.autograd.grad(
                    (energy * graph.n_atoms).sum(), [position, strain]
                )
                force = -gradient
                stress = strain_gradient / volume[:, None, None]
            else:
                force = torch.zeros_like(position)
                stress = torch.zeros_like(cell0)
        reference = torch.zeros_like(energy).index_add_(
            0, graph.owner, self._atom_energy[graph.numbers]
        )
        energy = energy.detach() + reference / graph.n_atoms

        def plain(tensor: torch.Tensor) -> NDArray[Any]:
            return tensor.detach().cpu().numpy().astype(np.float64)

        return plain(energy), plain(force), plain(stress), plain(moment)


def chunks(sizes: Sequence[int], limit: int) -> list[slice]:
    """Cut a list of crystals into runs of at most `limit` atoms (one at least)."""
    out: list[slice] = []
    start = total = 0
    for k, size in enumerate(sizes):
        if k > start and total + size > limit:
            out.append(slice(start, k))
            start, total = k, 0
        total += size
    if start < len(sizes):
        out.append(slice(start, len(sizes)))
    return out


def arrays(
    crystals: Crystals | Sequence[Structure],
) -> tuple[list[NDArray[Any]], list[NDArray[Any]], NDArray[Any]]:
    """Atomic numbers, wrapped fractional coordinates and lattices as arrays.

    Args:
        crystals: A batch, or pymatgen structures (ordered).

    Returns:
        B arrays (n_atoms,), B arrays (n_atoms, 3) in [0, 1), and (B, 3, 3) angstrom.

    Raises:
        DataError: If a crystal is empty or holds numbers that are not finite.
    """
    structures: Sequence[Any]
    convert = getattr(crystals, "to_structures", None)
    structures = convert() if convert is not None else list(crystals)
    numbers, fracs, lattices = [], [], []
    for k, structure in enumerate(structures):
        frac = np.asarray(structure.frac_coords, dtype=float)
        lattice = np.asarray(structure.lattice.matrix, dtype=float)
        finite = np.isfinite(frac).all() and np.isfinite(lattice).all()
        if len(structure) == 0 or not finite or math.isclose(structure.volume, 0.0):
            raise DataError(
                f"crystal {k} cannot be evaluated: got {len(structure)} atoms, volume "
                f"{structure.volume:.3g} angstrom^3; give finite coordinates, a cell "
                "with a volume and one atom at least"
            )
        numbers.append(np.array([site.specie.Z for site in structure]))
        fracs.append(frac - np.floor(frac))
        lattices.append(lattice)
    return numbers, fracs, np.array(lattices).reshape(-1, 3, 3)
