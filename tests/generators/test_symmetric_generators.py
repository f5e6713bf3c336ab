"""Diffusion and flow in the representation "symmetric": space groups hold by construction."""

import math

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.encoded import encode
from matdesign.crystals.symmetry.find import spacegroup
from matdesign.crystals.symmetry.wyckoff import operations
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.generators.contract import Generator
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.flow_matching import FlowMatching
from matdesign.generators.trainer import fit

SMALL = {"width": 32, "layers": 2, "heads": 4}
BOTH = pytest.mark.parametrize("family", [Diffusion, FlowMatching])


@pytest.fixture(scope="module")
def some() -> Crystals:
    """Crystals of the shipped set with many different space groups."""
    import matdesign as design

    val = design.load("prototypes", split="val")
    groups = encode(val, "symmetric").layout.spacegroup
    first = {int(g): i for i, g in enumerate(groups.tolist())}
    return val[torch.tensor(sorted(first.values()))]


def holds(made: Crystals, groups: torch.Tensor) -> list[bool]:
    """Whether each crystal has at least as many operations per atom as its group asks.

    Atoms may happen to lie on a position of higher symmetry, which only adds operations.
    """
    found = spacegroup(made, symprec=0.01)

    def order(group: int) -> int:
        return len(operations(group)[0]) if group else 0

    return [
        int(f) == int(g) or order(int(f)) > order(int(g)) // 4
        for f, g in zip(found, groups, strict=True)
    ]


@BOTH
def test_untrained_models_keep_every_space_group(family, some):
    """Noise in the free coordinates alone: the group asked for is the group found."""
    model = family.for_data(some, representation="symmetric", **SMALL)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=rng))
    assert len(some) > 40
    plan = model.plan(model.request(len(some)), torch.Generator().manual_seed(1))
    states = list(model.states(plan, 3, torch.Generator().manual_seed(2)))
    made = states[-1].crystals
    found = spacegroup(made, symprec=0.01)
    apart = [
        (int(f), int(g))
        for f, g in zip(found, plan.layout.spacegroup, strict=True)
        if int(f) != int(g)
    ]
    # the rest collapsed or gained symmetry by chance (few sites, high symmetry)
    assert len(apart) < 0.2 * len(some), apart
    # P1 noise has no symmetry at all
    free = family.for_data(some, **SMALL).sample(20, seed=0, steps=2)
    assert (spacegroup(free, symprec=0.01) == 1).float().mean() > 0.7


@BOTH
def test_it_is_asked_for_a_space_group(family, some):
    model = family.for_data(some, representation="symmetric", **SMALL)
    made = model.sample(6, seed=0, steps=2, conditions={"crystal_system": "cubic"})
    found = spacegroup(made, symprec=0.01)
    assert ((found >= 195) | (found == 0)).all()
    plan = model.plan(
        model.request(5, conditions={"spacegroup": 225}), torch.Generator()
    )
    assert (plan.layout.spacegroup == 225).all()
    with pytest.raises((DataError, InfeasibleTarget)):
        model.sample(2, conditions={"spacegroup": 300})


@BOTH
def test_loss_of_an_untrained_symmetric_model(family, some):
    model = family.for_data(some, representation="symmetric", **SMALL)
    terms = model.loss(Crystals.cat([some] * 6), seed=0).terms
    assert float(terms["frac"]) == pytest.approx(1.0, abs=0.12)
    seen = len(some.species.unique()) - 1
    assert float(terms["species"]) == pytest.approx(math.log(seen), abs=1e-3)


@BOTH
def test_it_learns_and_saves(family, eight, tmp_path):
    model = family.for_data(
        eight, representation="symmetric", width=48, layers=2, heads=4
    )
    fit(model, eight, steps=120, batch_size=48, lr=2e-3, warmup=10, ema=0.95)
    known = set(eight.formulas)
    made = model.sample(40, seed=0, steps=12)
    assert sum(f in known for f in made.formulas) > 20
    again = Generator.load(model.save(tmp_path / "m"))
    other = again.sample(40, seed=0, steps=12)
    assert torch.equal(made.species, other.species)
    assert torch.equal(made.frac, other.frac)


def test_structure_prediction_takes_a_template(eight):
    model = FlowMatching.for_data(eight, representation="symmetric", **SMALL)
    with pytest.raises(InfeasibleTarget, match="K"):
        model.sample(4, conditions={"composition": "KCl"})
    made = model.sample(4, seed=0, steps=4, conditions={"composition": "CsBr"})
    assert set(made.formulas) == {"CsBr"}
    assert (spacegroup(made, 0.01) > 194).all()
