"""CHGNet's forward pass, rearranged so that it does less work.

A gated layer of CHGNet gathers the features of atoms, bonds and angles onto every
message and multiplies the long row by a matrix.  A matrix product commutes with
gathering, so here each kind of feature meets its block of the matrix first, once per
atom or bond instead of once per message, and only the short products are gathered and
added.  The numbers are CHGNet's own to float32 rounding, in about half the time.

Source:
    B. Deng et al. 2023, Nat. Mach. Intell. 5, 1031 (CHGNet), weights from the chgnet
    wheel; changed: order of gathering and multiplying, one shared first layer for the
    core and the gate, no last update of the angles (nothing reads it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from matdesign.loop.topology import Topology

WIDTH = 64  # features of atoms, bonds and angles in every shipped weight set


class GatedLayer:
    """silu(norm(core)) * sigmoid(norm(gate)) of several gathered inputs.

    Args:
        module: A `GatedMLP` of chgnet whose input is a row of 64-wide blocks.
    """

    def __init__(self, module: Any) -> None:
        core = [m for m in module.mlp_core.layers if hasattr(m, "weight")]
        gate = [m for m in module.mlp_gate.layers if hasattr(m, "weight")]
        first = torch.cat([core[0].weight, gate[0].weight])
        self.blocks = [b.contiguous() for b in torch.split(first, WIDTH, dim=1)]
        self.bias = torch.cat([core[0].bias, gate[0].bias])
        self.second = (core[1], gate[1]) if len(core) > 1 else None
        self.norms = (module.bn1, module.bn2)

    def __call__(self, *inputs: tuple[Tensor, Tensor | None]) -> Tensor:
        """Messages (M, 64) from (features, index onto the messages) per block."""
        total: Tensor | None = None
        for k, ((features, index), block) in enumerate(
            zip(inputs, self.blocks, strict=True)
        ):
            part = functional.linear(features, block, self.bias if k == 0 else None)
            if index is not None:
                part = part.index_select(0, index)
            total = part if total is None else total + part
        assert total is not None
        if self.second is None:
            core, gate = total[:, :WIDTH], total[:, WIDTH:]
        else:
            hidden = functional.silu(total)
            core = self.second[0](hidden[:, :WIDTH])
            gate = self.second[1](hidden[:, WIDTH:])
        gate = torch.sigmoid(self.norms[1](gate))
        return functional.silu(self.norms[0](core)) * gate


class Forward:
    """Energy and magnetic moments of a batch from its bonds and angles.

    Args:
        model: A CHGNet model with frozen parameters.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.atom_layers = [GatedLayer(m.twoBody_atom) for m in model.atom_conv_layers]
        self.bond_layers = [GatedLayer(m.twoBody_bond) for m in model.bond_conv_layers]
        self.angle_layers = [GatedLayer(m.twoBody_bond) for m in model.angle_layers]

    def __call__(
        self, graph: Topology, length: Tensor, direction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Energy per atom without the elements' own energies, and moments.

        Args:
            graph: Of the batch, B crystals with N atoms in all.
            length: (U,) length of each undirected bond, angstrom.
            direction: (E, 3) unit vector of each directed bond.

        Returns:
            (B,) eV/atom and (N,) Bohr magnetons.
        """
        model = self.model
        centre, neighbour = graph.edges[:, 0], graph.edges[:, 1]
        corner, first, second = graph.angles.unbind(1)
        radial = model.bond_basis_expansion.rbf_expansion_ag(length)
        radial_short = model.bond_basis_expansion.rbf_expansion_bg(length)
        atoms = model.atom_embedding(graph.numbers)
        bonds = model.bond_embedding(radial)
        weight = model.bond_weights_ag(radial)
        weight_short = model.bond_weights_bg(radial_short)
        bent = len(corner) > 0
        if bent:
            sides = (direction.index_select(0, k) for k in graph.angle_edges.unbind(1))
            angles = model.angle_embedding(model.angle_basis_expansion(*sides))
            one, two = (weight_short.index_select(0, k) for k in (first, second))
            weight_angle = one * two
        moments = atoms.new_zeros(len(atoms))
        last = len(self.atom_layers) - 1
        for k, layer in enumerate(self.atom_layers):
            message = layer(
                (atoms, centre), (bonds, graph.to_undirected), (atoms, neighbour)
            )
            message = message * weight.index_select(0, graph.to_undirected)
            summed = torch.zeros_like(atoms).index_add(0, centre, message)
            atoms = model.atom_conv_layers[k].mlp_out(summed) + atoms
            if k == last:
                break
            if bent:
                update = self.bond_layers[k](
                    (bonds, first), (bonds, second), (angles, None), (atoms, corner)
                )
                summed = torch.zeros_like(bonds).index_add(
                    0, first, update * weight_angle
                )
                bonds = model.bond_conv_layers[k].mlp_out(summed) + bonds
            if bent and k < last - 1:
                angles = angles + self.angle_layers[k](
                    (bonds, first), (bonds, second), (angles, None), (atoms, corner)
                )
            if k == last - 1:
                moments = model.site_wise(atoms).abs().reshape(-1)
        energy = model.mlp(model.readout_norm(atoms)).reshape(-1)
        summed = energy.new_zeros(len(graph.n_atoms)).index_add(0, graph.owner, energy)
        return summed / graph.n_atoms, moments
