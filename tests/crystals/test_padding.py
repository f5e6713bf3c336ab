"""Padding comes last, and nothing is read that is not there."""

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.encoded import encode
from matdesign.errors import ShapeError
from matdesign.generators.conditions import _true_groups
from matdesign.generators.vae import VAE


def crystals(species: list[list[int]]) -> Crystals:
    kinds = torch.tensor(species)
    rng = torch.Generator().manual_seed(0)
    frac = torch.rand(*kinds.shape, 3, generator=rng) * (kinds > 0)[..., None]
    return Crystals(kinds, frac, 4 * torch.eye(3).repeat(len(kinds), 1, 1))


@pytest.mark.parametrize("row", [[0, 11], [11, 0, 17], [0, 0, 11], [11, 0, 0, 17]])
def test_an_atom_after_padding_is_refused(row: list[int]) -> None:
    with pytest.raises(ShapeError, match="comes last in every crystal"):
        crystals([row, [11] * len(row)])
    for width in (1, 2, 3):
        kept = crystals([[11] * width + [0] * (3 - width), [11, 17, 8]])
        assert encode(kept).n_atoms.tolist() == [width, 3]


def test_p1_crystals_in_the_symmetric_representation_are_p1() -> None:
    """Their layout says so; a label of another group is not read in its place."""
    some = crystals([[11, 17, 8], [20, 8, 9]])
    labelled = some.replace(properties={"spacegroup": torch.tensor([225.0, 221.0])})
    free, found = (encode(labelled, kind) for kind in ("cell", "symmetric"))
    assert found.layout.spacegroup.tolist() == [1, 1]
    assert _true_groups(found).tolist() == [1, 1]
    assert _true_groups(free).tolist() == [225, 221]


def test_a_crystal_larger_than_any_in_training_has_no_probability() -> None:
    train = crystals([[11, 17, 0], [12, 8, 0], [11, 17, 8]])
    model = VAE.for_data(train, width=16, layers=1, heads=2).eval()
    rng = torch.Generator().manual_seed(1)
    large = Crystals(
        torch.tensor([[11, 17, 8, 8]]),
        torch.rand(1, 4, 3, generator=rng),
        5 * torch.eye(3)[None],
    )
    assert float(model.log_prob(large, samples=2, seed=0)[0]) == -torch.inf
    assert bool(model.log_prob(train, samples=2, seed=0).isfinite().all())
