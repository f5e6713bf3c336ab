"""Drawing again what overlaps: the others stay, plans hold, every second try is counted."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice

from matdesign.crystals import elements
from matdesign.crystals.geometry import clearance
from matdesign.crystals.lattice_code import to_code
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.contract import Generator
from matdesign.generators.control import Preview, Sample, Scales
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.planning import plan_cells
from matdesign.generators.request import resolve
from matdesign.generators.sampling import draw, overlap


class Scatter(Generator):
    """Throws the atoms of sodium crystals anywhere into a cube."""

    def __init__(self, edge: float = 5.0):
        super().__init__({"elements": [11], "edge": edge}, [0, 0, 1, 1])
        self.edge, self.calls = edge, []

    @classmethod
    def for_data(cls, train, *, seed=0, **options):
        raise NotImplementedError

    def loss(self, crystals, *, seed=None):
        raise NotImplementedError

    def start(self, plan, rng):
        self.calls.append(plan)
        shape = (*plan.species.shape, 3)
        u = torch.rand(shape, generator=rng) * plan.layout.free
        cell = self.edge * torch.eye(3).expand(len(plan), 3, 3)
        code = to_code(cell, plan.n_atoms)
        return Sample(plan, 11 * plan.layout.orbits, u, code)

    def predict(self, x, t):
        hot = torch.nn.functional.one_hot(x.species, 104).float()
        scales = Scales([11], [0] * 6, [1] * 6, [-9] * 6, [9] * 6)
        return Preview(x.layout, scales, x.species, hot, x.u, x.code)

    def step(self, x, preview, t, s, rng):
        return x


@pytest.fixture
def plan():
    sizes, known = [2, 3] * 100, torch.ones(104).bool()
    rest = {"allowed": known, "histogram": [0] * 9, "properties": {}}
    request = resolve(None, sizes, 200, **rest)
    return plan_cells(request, request.n_atoms)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_overlap_is_that_of_pymatgens_distances(plan):
    made = draw(Scatter(), plan, steps=1, rng=rng())
    bound = max(2 * 0.6 * float(elements.table("radius")[11]), 0.7)
    near = [np.min(s.distance_matrix + 99 * np.eye(len(s))) < bound for s in made]
    assert 5 < sum(near) < 195
    assert overlap(made).tolist() == near


def test_only_what_overlaps_is_drawn_again(plan):
    model = Scatter()
    raw = draw(model, plan, steps=1, rng=rng())
    assert model.redrawn == 0
    bad = overlap(raw)
    model.redraws, model.calls = 50, []
    mended = draw(model, plan, steps=1, rng=rng())
    assert not overlap(mended).any()
    assert model.redrawn == int(bad.sum())
    assert torch.equal(mended.frac[~bad], raw.frac[~bad])
    assert not torch.equal(mended.frac[bad], raw.frac[bad])
    assert torch.equal(mended.n_atoms, plan.n_atoms)
    sizes = [len(one) for one in model.calls]
    assert sizes[:2] == [200, int(bad.sum())] and sizes == sorted(sizes, reverse=True)


def test_what_cannot_be_mended_is_counted_and_returned(plan):
    model = Scatter(edge=1.0)
    model.redraws = 2
    made = draw(model, plan, steps=1, rng=rng())
    assert len(model.calls) == 3
    assert len(made) == model.redrawn == int(overlap(made).sum()) == 200


def test_samples_say_how_many_were_drawn_again():
    model = Scatter()
    model.redraws = 50
    one = {"seed": 0, "batch_size": 200}  # drawing again changes the batches after it
    made = model.sample(200, **one)
    assert made.info["overlapping"] == 0
    assert 5 < made.info["redrawn"] < 195
    assert not overlap(made).any()
    again = model.sample(200, **one)
    assert torch.equal(made.frac, again.frac)
    raw = Scatter().sample(200, **one)
    assert raw.info["redrawn"] == 0
    assert raw.info["overlapping"] == made.info["redrawn"]


def test_redrawn_crystals_keep_what_was_asked(eight):
    """An untrained network overlaps often; composition and space group hold anyhow."""
    model = Diffusion.for_data(
        eight, representation="symmetric", width=32, layers=1, heads=4
    )
    wish = {"composition": "SrTiO3", "spacegroup": 221}
    made = model.sample(4, seed=0, steps=3, conditions=wish)
    assert set(made.formulas) == {"SrTiO3"}
    assert {"redrawn", "overlapping"} <= made.info.keys()


def test_the_room_of_one_atom_is_that_of_its_pairs() -> None:
    """Against pymatgen's periodic distances; the least of all atoms is that of the crystal."""
    rng = torch.Generator().manual_seed(1)
    layout = Layout.whole_cell(torch.tensor([5, 3]))
    u = torch.rand(2, 5, 3, generator=rng)
    cell = 4 * torch.eye(3).expand(2, 3, 3)
    species = torch.where(layout.orbits, 11, 0)
    needed = 0.6 * 2 * float(elements.table("radius")[11])
    each = []
    for k in range(5):
        new = layout.orbits & (torch.arange(5) == k)
        each.append(clearance(u, species, cell, layout.mask, new))
        for row, atoms in enumerate((5, 3)):
            if k >= atoms:
                assert each[k][row].isinf()
                continue
            lattice = Lattice(cell[row].numpy())
            at = u[row, :atoms].numpy()
            far = np.delete(lattice.get_all_distances(at[k], at)[0], k)
            assert float(each[k][row]) == pytest.approx(far.min() / needed, rel=1e-4)
    whole = clearance(u, species, cell, layout.mask)
    assert torch.allclose(torch.stack(each).amin(0), whole)


class Keep:
    """Takes particles, steers nothing, and keeps the last one of each crystal."""

    particles = 2

    def begin(self, device, crystals):
        self.crystals = crystals

    def control(self, state):
        return None

    def choose(self, state):
        return torch.arange(self.crystals) * self.particles + self.particles - 1


def test_particles_of_a_crystal_stay_together_when_it_is_drawn_again():
    pairs = [(2, 3), (4, 2), (3, 4), (2, 4), (4, 3)]
    each = [size for pair in pairs for size in pair]
    rest = {"allowed": torch.ones(104).bool(), "histogram": [0] * 9, "properties": {}}
    request = resolve(None, each, len(each), **rest)
    some, model = plan_cells(request, request.n_atoms), Scatter()
    model.redraws = 50
    made = draw(model, some, steps=1, rng=rng(3), controller=Keep())
    assert made.n_atoms.tolist() == [last for _, last in pairs]
    tried = [one.n_atoms.view(-1, Keep.particles).tolist() for one in model.calls]
    assert len(tried) > 1 and {tuple(x) for one in tried for x in one} == set(pairs)
