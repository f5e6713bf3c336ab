"""Baselines without any learning, which stand beside every model."""

import torch

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, generator

SHUFFLED = "shuffled training data"
SUBSTITUTED = "random substitution"


def baselines(known: Crystals, n: int, *, seed: int = 0) -> dict[str, Crystals]:
    """Return n crystals of each baseline by its name; none that would be empty.

    Args:
        known: training crystals.
        n: crystals of each; as many as there are where the set is smaller.
        seed: of the draws.
    """
    made = {
        SHUFFLED: shuffled(known, n, seed=seed),
        SUBSTITUTED: substituted(known, n, seed=seed),
    }
    return {name: crystals for name, crystals in made.items() if len(crystals)}


def shuffled(known: Crystals, n: int, *, seed: int = 0) -> Crystals:
    """Return cells of training crystals with the species of others of the same size.

    A baseline with the right cells, coordinates and compositions, and no sense of which
    go together.

    Args:
        known: where they come from. A crystal of a size that occurs once has no other
            to take species from, and is left out.
        n: number of crystals.
        seed: of the draw.
    """
    rng = generator(seed)
    sizes, species = known.n_atoms, known.species.clone()
    several = torch.bincount(sizes)[sizes] > 1
    order = torch.randperm(len(known), generator=rng)
    order = order[several[order]][:n]
    for i in order.tolist():
        same = (sizes == sizes[i]).nonzero().squeeze(1)
        same = same[same != i]
        other = same[torch.randint(len(same), (1,), generator=rng)].item()
        species[i] = known.species[int(other)]
    return Crystals(species[order], known.frac[order], known.lattice[order])


def substituted(
    known: Crystals, n: int, *, seed: int = 0, similar: bool = False
) -> Crystals:
    """Return training crystals with every element replaced by another at random.

    Each keeps the id of the crystal that it was made from.

    Args:
        known: where they come from; replacements are elements that occur in it.
        n: number of crystals.
        seed: of the draw.
        similar: replace by elements of the same group of the periodic table, by any
            where no other of the group is left.
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
            free = [x for x in new if x != z and x not in swap.values()]
            alike = [x for x in free if group[x] == group[z]] if similar else []
            swap[z] = (alike or free or [z])[0]
        row.copy_(torch.tensor([swap[z] for z in row.tolist()]))
    ids = tuple(known.ids[i] for i in order.tolist()) if known.ids else ()
    return Crystals(species, known.frac[order], known.lattice[order], ids=ids)
