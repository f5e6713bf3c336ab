"""How much room the atoms of half-finished crystals have."""

from __future__ import annotations

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.crystals.symmetry.layout import Layout

SHARE = 0.6
"""Least distance of two atoms, in sums of their atomic radii."""

LEAST = 0.7
"""Least distance of any two atoms, angstrom."""


def clearance(
    layout: Layout,
    species: Tensor,
    u: Tensor,
    cell: Tensor,
    orbits: Tensor,
    new: Tensor | None = None,
) -> Tensor:
    """Return the smallest distance of two atoms over the smallest that they may have.

    Equation:
        min_ij d_ij / max(SHARE (r_i + r_j), LEAST)

    Args:
        layout: where atoms may be.
        species: element of each orbit, shape (crystals, orbits).
        u: free coordinates, shape (crystals, orbits, 3).
        cell: primitive cells, rows in angstrom, shape (crystals, 3, 3).
        orbits: those that count, bool, shape (crystals, orbits).
        new: orbits of which one atom at least is in each pair, same shape; None = any.

    Returns:
        Shape (crystals,); below 1 two atoms overlap; infinite for fewer than two atoms.

    Accuracy:
        The nearest image is sought among the 27 around the wrapped difference: exact for
        reduced cells, an upper bound for very skewed ones.
    """
    counts = layout.mask & orbits.gather(1, layout.orbit)
    if not counts.shape[1]:
        return cell.new_full((len(cell),), torch.inf)
    atom = torch.arange(counts.shape[1], device=cell.device)
    mine, one = counts, atom.expand_as(counts)
    if new is not None:  # those atoms first, no more of the others than there must be
        mine = counts & new.gather(1, layout.orbit)
        mine, one = mine.byte().topk(max(int(mine.sum(1).amax()), 1), dim=1)
    frac, kinds = layout.expand(u), layout.expand_species(species)
    delta = frac[:, None] - frac.gather(1, one[..., None].expand(-1, -1, 3))[:, :, None]
    delta = delta - torch.round(delta)  # (b, i, j, 3)
    step = torch.tensor([-1.0, 0.0, 1.0], device=cell.device, dtype=cell.dtype)
    images = torch.cartesian_prod(step, step, step)
    metric = cell @ cell.transpose(1, 2)
    own = ((images @ metric) * images).sum(-1)  # (b, 27)
    along = torch.einsum("bijx,bxy->bijy", delta, metric)
    square = (along * delta).sum(-1, keepdim=True) + 2 * along @ images.T
    distance = (square + own[:, None, None]).amin(-1).clamp(min=0).sqrt()
    radius = elements.table("radius").to(cell)[kinds]
    sums = radius[:, None] + radius.gather(1, one)[:, :, None]
    both = mine.bool()[:, :, None] & counts[:, None] & (one[:, :, None] != atom)
    ratio = distance / (SHARE * sums).clamp(min=LEAST)
    return ratio.masked_fill(~both, torch.inf).flatten(1).amin(1)
