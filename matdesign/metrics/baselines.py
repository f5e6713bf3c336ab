"""Baselines without any learning, which stand beside every model."""

import torch

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, generator

SHUFFLED = "shuffled training data"
SUBSTITUTED = "random substitution"


def baselines(known: Crystals, n: int, *, seed: int = 0) -> dict[str, Crystals]:
    """Return n crystals of each baseline by its name.

    Args:
        known: training crystals.
        n: crystals of each; as many as there are where the set is smaller.
        seed: of the draws.
    """
    return {
        SHUFFLED: shuffled(known, n, seed=seed),
        SUBSTITUTED: substituted(known, n, seed=seed),
    }


def shuffled(known: Crystals, n: int, *, seed: int = 0) -> Crystals:
    """Return cells of training crystals with the species of others of the same size.

    A baseline with the right cells, coordinates and compositions, and no sense of which
    go together.

    Args:
        known: where they come from.
        n: number of crystals.
        seed: of the draw.
    """
    rng = generator(seed)
    order = torch.randperm(len(known), generator=rng)[:n]
    sizes, species = known.n_atoms, known.species.clone()
    for i in order.tolist():
        same = (sizes == sizes[i]).nonzero().squeeze(1)
        other = same[torch.randint(len(same), (1,), generator=rng)].item()
        species[i] = known.species[int(other)]
    return Crystals(species[order], known.frac[order], known.lattice[order])


def substituted(
    known: Crystals, n: int, *, seed: int = 0, similar: bool = False
) -> Crystals:
    """Return training crystals with every element replaced by another at random.

    Args:
        known: where they come from; replacements are elements that occur in it.
        n: number of crystals.
        seed: of the draw.
        similar: replace by elements of the same group of the periodic table only.
    """
    rng = generator(seed)
    order = torch.randperm(len(known), generator=rng)[:n]
    pool = known.species.unique()
    pool = pool[pool > 0]
    group = elements.table("group")
    species = known.species[order].clone()
    for row in species:
        swap: dict[int, int] = {0: 0}
        for z in row[row > 0].unique().tolist():
            new = pool[torch.randperm(len(pool), generator=rng)].tolist()
            swap[z] = next(
                x
                for x in new
                if x not in swap.values() and (not similar or group[x] == group[z])
            )
        row.copy_(torch.tensor([swap[z] for z in row.tolist()]))
    return Crystals(species, known.frac[order], known.lattice[order])
