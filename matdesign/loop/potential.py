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
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from matdesign.errors import DataError
from matdesign.loop.chgnet_forward import Forward
from matdesign.loop.topology import Topology, topology

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matdesign.crystals.batch import Crystals

WEIGHTS = ("0.3.0", "r2scan")
"""Weight sets inside the chgnet wheel: the labels, and a second opinion."""


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

        check_weights(weights)
        self.weights = weights
        self.device = device
        self.batch_atoms = batch_atoms or (48 if device == "cpu" else 4096)
        self.dtype = dtype
        model: Any = CHGNet.load(model_name=weights, use_device=device, verbose=False)
        model.eval().requires_grad_(False).to(dtype)
        self._forward = Forward(model)
        self._atom_energy = model.composition_model.fc.weight.reshape(-1).to(device)

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
        energies: list[NDArray[Any]] = [np.zeros(0)]
        stresses: list[NDArray[Any]] = [np.zeros((0, 3, 3))]
        pulls: list[NDArray[Any]] = []
        moments: list[NDArray[Any]] = []
        lonely: list[NDArray[np.bool_]] = [np.zeros(0, dtype=bool)]
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


def check_weights(weights: str) -> None:
    """Raise where there is no such weight set."""
    if weights not in WEIGHTS:
        raise DataError(
            f"unknown weights for the potential: got {weights!r}; choose one of "
            f"{', '.join(WEIGHTS)}."
        )


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
    numbers, fracs, lattices = [], [], []
    for k, structure in enumerate(crystals):
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
