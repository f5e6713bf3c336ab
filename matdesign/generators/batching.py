"""Which crystals a training step sees, and how they are grouped so that nothing is padded."""

import hashlib

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals, generator


def pick(size: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Return the crystals of one training step.

    The training set is shuffled anew for every pass and read in order; a batch larger
    than the set spans several passes. Depends on nothing but its arguments, so a resumed
    training sees exactly what an uninterrupted one would have seen.

    Args:
        size: crystals in the training set.
        batch_size: crystals in a step.
        step: number of the step, from 0.
        seed: of the shuffles.

    Returns:
        Indices, shape (batch_size,).
    """
    first, last = step * batch_size, (step + 1) * batch_size
    parts = []
    for turn in range(first // size, (last - 1) // size + 1):
        order = torch.randperm(size, generator=generator(seed + 7_919 * (turn + 1)))
        parts.append(order[max(first - turn * size, 0) : last - turn * size])
    return torch.cat(parts)


def by_size(
    n_atoms: Tensor, index: Tensor, *, ratio: float = 1.35, least: int = 16
) -> list[Tensor]:
    """Split a batch into groups of crystals of nearly equal size.

    Args:
        n_atoms: atoms of all crystals of the set.
        index: crystals of the batch.
        ratio: largest over smallest size in a group.
        least: crystals in a group, unless none are left.

    Returns:
        Groups of indices that together are the batch.
    """
    index = index[torch.argsort(n_atoms[index], stable=True)]
    sizes = n_atoms[index].tolist()
    groups, start = [], 0
    for i in range(1, len(sizes)):
        wide = sizes[i] > max(sizes[start] * ratio, sizes[start] + 1)
        if wide and i - start >= least and len(sizes) - i >= least:
            groups.append(index[start:i])
            start = i
    groups.append(index[start:])
    return groups


def fingerprint(crystals: Crystals) -> str:
    """Return a checksum of the sites, cells and properties of a set, to tell sets apart."""
    seal = hashlib.sha256(repr(sorted(crystals.properties)).encode())
    labels = [crystals.properties[name] for name in sorted(crystals.properties)]
    for tensor in (crystals.species, crystals.frac, crystals.lattice, *labels):
        seal.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return seal.hexdigest()
