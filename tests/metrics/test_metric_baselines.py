"""Baselines: what they keep of the training crystals, and how the ledger enters them."""

from collections import Counter

import pytest
import torch

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals
from matdesign.metrics import baselines


def crystal(species, volume_per_atom=15.0, seed=0):
    """One cubic crystal whose atoms sit far apart on a line of the cell's diagonal."""
    n = len(species)
    edge = (volume_per_atom * n) ** (1 / 3)
    place = (torch.arange(n) / n)[:, None].expand(n, 3)
    return Crystals(torch.tensor([species]), place[None], edge * torch.eye(3)[None])


def batch(*crystals):
    return Crystals.cat(list(crystals))


@pytest.fixture
def train():
    kinds = [
        [11, 17], [19, 17], [12, 8], [38, 22, 8, 8, 8], [56, 22, 8, 8, 8],
        [11, 12, 9, 9, 9], [26, 26, 8, 8, 8], [3, 3, 8],
    ]  # fmt: skip
    return batch(*(crystal(k, 10.0 + i) for i, k in enumerate(kinds)))


def counts(row):
    return Counter(row[row > 0].tolist())


def test_shuffled_keeps_cells_and_takes_species_of_the_same_size(train):
    made = baselines.shuffled(train, 8, seed=3)
    # the only crystal of three atoms has no other to take species from
    assert sorted(made.n_atoms.tolist()) == [2, 2, 2, 5, 5, 5, 5]
    sources = {(int(n), *row) for n, row in zip(train.n_atoms, train.species.tolist())}
    changed = 0
    for i in range(len(made)):
        at = int((train.lattice == made.lattice[i]).all(-1).all(-1).nonzero()[0])
        assert torch.equal(made.frac[i], train.frac[at])
        assert int(made.n_atoms[i]) == int(train.n_atoms[at])
        assert (int(made.n_atoms[i]), *made.species[i].tolist()) in sources
        changed += not torch.equal(made.species[i], train.species[at])
    assert changed


def test_substituted_keeps_counts_and_places(train):
    made = baselines.substituted(train, 8, seed=3)
    known = set(train.species[train.species > 0].tolist())
    for i in range(len(made)):
        at = int((train.lattice == made.lattice[i]).all(-1).all(-1).nonzero()[0])
        assert torch.equal(made.frac[i], train.frac[at])
        old, new = counts(train.species[at]), counts(made.species[i])
        assert sorted(old.values()) == sorted(new.values())
        assert set(new) <= known
        n = int(train.n_atoms[at])
        assert (made.species[i] != train.species[at])[:n].all()  # none is kept


@pytest.mark.parametrize("baseline", [baselines.shuffled, baselines.substituted])
def test_baselines_repeat_with_their_seed_and_leave_the_data_alone(train, baseline):
    before = train.species.clone()
    first, again, other = (baseline(train, 5, seed=s) for s in (0, 0, 1))
    assert len(first) == 5
    assert torch.equal(first.species, again.species)
    assert torch.equal(first.lattice, again.lattice)
    assert not torch.equal(first.species, other.species)
    assert torch.equal(train.species, before)


def test_similar_elements_are_of_the_same_group(train):
    made = baselines.substituted(train, 8, seed=3, similar=True)
    group = elements.table("group")
    alone = torch.tensor([8, 22, 26])  # of their groups in this set
    for i in range(len(made)):
        at = int((train.lattice == made.lattice[i]).all(-1).all(-1).nonzero()[0])
        n = int(made.n_atoms[i])
        old, new = train.species[at, :n], made.species[i, :n]
        assert (old != new).all()
        same = group[old] == group[new]
        assert torch.equal(same, ~torch.isin(old, alone))
