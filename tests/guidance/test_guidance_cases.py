"""Guides with models, constraints and combinations that are not the package's own."""

from typing import Any

import pytest
import torch

from matdesign.constraints.base import Constraint
from matdesign.constraints.between import Between
from matdesign.constraints.checking import check_constraint
from matdesign.constraints.checks import check
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.constraints.motif import Motif
from matdesign.constraints.predicted import Property
from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.crystals.symmetry.encoded import encode
from matdesign.errors import InfeasibleTarget
from matdesign.generators.autoregressive import Autoregressive
from matdesign.generators.contract import Generator
from matdesign.generators.control import Preview, Sample, Scales, scales_of
from matdesign.generators.coupling_flow import CouplingFlow
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.flow_matching import FlowMatching
from matdesign.generators.planning import Plan, allowed_elements, decide
from matdesign.generators.vae import VAE
from matdesign.guidance.guide import Guide

SMALL: dict[type[Generator], dict[str, Any]] = {
    FlowMatching: {"width": 16, "layers": 1, "heads": 2},
    Diffusion: {"width": 16, "layers": 1, "heads": 2},
    CouplingFlow: {"width": 16, "heads": 2, "couplings": 2},
    Autoregressive: {"width": 16, "layers": 1, "heads": 2},
    VAE: {"width": 16, "layers": 1, "heads": 2},
}


@pytest.fixture(scope="module")
def layers() -> Crystals:
    """Cells of five and six atoms, large enough for a net of three and company."""
    random = torch.Generator().manual_seed(0)
    species = torch.tensor([[26, 26, 26, 50, 8, 0], [26, 26, 26, 50, 8, 8]] * 4)
    frac = torch.rand(8, 6, 3, generator=random) * (species > 0)[..., None]
    lattice = torch.eye(3) * (6 + torch.rand(8, 1, 1, generator=random))
    lattice = lattice + 0.3 * torch.randn(8, 3, 3, generator=random)
    return Crystals(species, frac, lattice)


def small(family: type[Generator], train: Crystals) -> Generator:
    options = next(v for k, v in SMALL.items() if issubclass(family, k))
    return family.for_data(train, **options).eval()


# ---- projection: species too -----------------------------------------------------------


@pytest.mark.parametrize("family", [CouplingFlow, Autoregressive, VAE])
@pytest.mark.parametrize("element", ["Fe", "Sn", None])
def test_a_net_is_projected_with_its_elements(
    family: type[Generator], element: str | None, layers: Crystals
) -> None:
    """In one pass the net's sites get their element with their coordinates."""
    model, wanted = small(family, layers), Motif("kagome", element=element)
    model.redraws = 0
    assert Guide(wanted).plan(model).choices[0].methods == ("project",)
    made = model.sample(4, seed=0, guide=Guide(wanted, "project", draws=40))
    assert bool(wanted.satisfied(made).all())
    # a stray atom of the element in the net's own layer is drawn again; no luck beside
    assert made.info["guide"]["drawn"] <= 8


@pytest.mark.parametrize("family", [FlowMatching, Diffusion])
def test_a_net_is_projected_at_the_end_of_many_steps(
    family: type[Generator], layers: Crystals
) -> None:
    model, wanted = small(family, layers), Motif("honeycomb", element="Sn")
    model.redraws = 0
    made = model.sample(4, seed=0, steps=3, guide=Guide(wanted, "project", draws=40))
    assert bool(wanted.satisfied(made).all())


# ---- two nets --------------------------------------------------------------------------


@pytest.mark.parametrize("family", [FlowMatching, Diffusion])
def test_two_nets_of_one_cell_are_both_held(
    family: type[Generator], layers: Crystals
) -> None:
    """Kagome Fe and honeycomb O, as in the CoSn structure: three sites and two."""
    wanted = Motif("kagome", element="Fe") & Motif("honeycomb", element="O")
    model = small(family, layers)
    plan = Guide(wanted).plan(model)
    assert [one.methods for one in plan.choices] == [("replace",), ("replace",)]
    made = model.sample(4, seed=0, steps=6, n_atoms=6, guide=Guide(wanted))
    assert bool(wanted.satisfied(made).all())
    assert bool((made.species[:, :5] == torch.tensor([26, 26, 26, 8, 8])).all())
    assert made.info["guide"]["drawn"] <= 16


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (Motif("square"), "its cell is not the one"),
        (Motif("kagome", element="Sn", bond=3.1), "its cell is not the one"),
    ],
    ids=["shape", "size"],
)
def test_a_net_of_another_cell_is_not_written_over_the_first(
    other: Motif, says: str, layers: Crystals
) -> None:
    first = Motif("kagome", element="Fe", bond=2.6)
    for family in (FlowMatching, CouplingFlow):
        plan = Guide(first & other).plan(small(family, layers))
        assert plan.choices[0].methods in (("replace",), ("project",))
        assert plan.choices[1].methods == ("reject",)
    model = small(FlowMatching, layers)
    guide = Guide(first & other, "replace", draws=4)
    assert says in repr(guide.plan(model))
    with pytest.raises(InfeasibleTarget, match="0 of 1 crystals found") as caught:
        model.sample(1, seed=0, steps=2, n_atoms=6, guide=guide)
    assert f"{first}: 4" in str(caught.value)  # the first stays


# ---- models of one's own ---------------------------------------------------------------


@pytest.mark.parametrize("family", list(SMALL), ids=lambda f: f.__name__)
def test_a_subclass_is_guided_like_its_family(
    family: type[Generator], layers: Crystals
) -> None:
    own = type("Own", (family,), {})
    model, plain = small(own, layers), small(family, layers)
    wanted = OnlyElements("Fe", "O") & Between("density", 4, 6, unit="g/cm^3")
    mine, theirs = (Guide(wanted).plan(one).choices for one in (model, plain))
    assert [one.methods for one in mine] == [one.methods for one in theirs]
    assert mine[0].methods == ("mask",) and "reject" not in mine[1].methods
    for method in ("mask", "gradient", "steer"):
        options: dict[str, Any] = {"seed": 0, "steps": 2}
        a, b = (
            one.sample(3, guide=Guide(wanted, method, strict="hard"), **options)
            for one in (model, plain)
        )
        assert torch.equal(a.species, b.species) and torch.equal(a.lattice, b.lattice)
        assert a.info["guide"]["drawn"] == 3


class Own(Generator):
    """A generator of one's own: atoms stay where they fall, cells shrink to the mean."""

    stepwise = True

    def __init__(self, **config: Any) -> None:
        super().__init__(config, config["size_histogram"])
        means = (config[f"code_{of}"] for of in ("mean", "std", "low", "high"))
        self.scales = Scales(config["elements"], *means)

    @classmethod
    def for_data(cls, train: Any, *, seed: Any = 0, **options: Any) -> Any:
        return cls(**scales_of(encode(train, "cell")))

    def loss(self, crystals: Any, *, seed: Any = None) -> Any:
        raise NotImplementedError

    def start(self, plan: Plan, rng: torch.Generator) -> Sample:
        u = torch.rand(plan.layout.free.shape, generator=rng)
        code = torch.randn((len(plan), 6), generator=rng)
        return Sample(plan, plan.start, u * plan.layout.free, code)

    def predict(self, x: Sample, t: float) -> Preview:
        may = allowed_elements(x.plan, x.species, self.scales.allowed).float()
        p = may / may.sum(-1, keepdim=True).clamp(min=1)
        std = 0.3 * t, 0.5 * t
        return Preview(x.layout, self.scales, x.species, p, x.u, 0.5 * x.code, std, t)

    def step(
        self, x: Sample, preview: Preview, t: float, s: float, rng: torch.Generator
    ) -> Sample:
        share = (t - s) / t
        u = wrap(x.u + share * torus_difference(x.u, preview.u))
        code = x.code + share * (preview.code - x.code)
        new = torch.rand(x.species.shape, generator=rng) < share
        allowed, p = self.scales.allowed, preview.probabilities
        return Sample(x.plan, decide(x.plan, x.species, new, p, allowed, rng), u, code)


def test_a_generator_of_ones_own_is_guided_by_every_method(layers: Crystals) -> None:
    model = Own.for_data(layers)
    density = Between("density", 3, 5, unit="g/cm^3")
    options: dict[str, Any] = {"seed": 0, "steps": 4}
    free = model.sample(12, **options)
    miss = float(density.violation(free).mean())
    assert miss > 0
    only = OnlyElements("Fe", "O") & RequiredElements("Fe", "O")
    assert not bool(only.satisfied(free).all())
    masked = model.sample(12, guide=Guide(only), **options)
    assert bool(only.satisfied(masked).all()) and masked.info["guide"]["drawn"] == 12
    for method in ("gradient", "steer"):
        guide = Guide(density, method, strict="hard")
        made = model.sample(12, guide=guide, **options)
        assert made.info["guide"]["method"] == method
        assert float(density.violation(made).mean()) < 0.6 * miss
    kept = model.sample(3, guide=Guide(density, "reject"), **options)
    assert bool(density.satisfied(kept).all())
    served = [one.methods for one in Guide(only & density).plan(model).choices]
    assert served == [("mask",), ("mask",), ("gradient", "project")]


class Still(CouplingFlow):
    """One that does its own sampling and lets nobody in."""

    steerable = False


def test_what_cannot_be_steered_is_drawn_again(layers: Crystals) -> None:
    plan = Guide(OnlyElements("Fe", "O")).plan(small(Still, layers))
    assert plan.choices[0].methods == ("reject",)
    assert "Still does not run the sampling loop" in repr(plan)


# ---- constraints of one's own ----------------------------------------------------------


class Even(Constraint):
    """The crystal has an even number of atoms: a rule on finished crystals only."""

    def satisfied(self, crystals: Crystals) -> torch.Tensor:
        """Return whether the number of atoms is even."""
        return crystals.n_atoms % 2 == 0


class Dense(Constraint):
    """Met or not, and a crystal may miss it."""

    hard = False
    scale = 0.1

    def satisfied(self, crystals: Crystals) -> torch.Tensor:
        """Return whether the density is above 4."""
        return crystals.density > 4


@pytest.mark.parametrize("family", list(SMALL), ids=lambda f: f.__name__)
def test_satisfied_alone_is_a_constraint(
    family: type[Generator], layers: Crystals
) -> None:
    model = small(family, layers)
    made = model.sample(4, seed=0, steps=2, guide=Guide(Even() & MinDistance(0.1)))
    assert bool((made.n_atoms % 2 == 0).all())
    guide = Guide(Dense(), particles=4, strict="hard")
    assert guide.plan(model).choices[0].methods == ("steer",)
    assert len(model.sample(2, seed=0, steps=2, guide=guide)) == 2


def test_satisfied_alone_is_checked_and_printed(layers: Crystals) -> None:
    found = check_constraint(Even(), layers)
    assert found, found
    table = check(layers, Even() & Dense())
    assert table.violation[:, 0].tolist() == [1, 0] * 4
    assert repr(Even()) == "Even" and "[1 if missed]" in repr(table)


# ---- what a guide says of itself -------------------------------------------------------


def test_sizes_that_never_come_are_named_where_all_constraints_may_be_missed(
    layers: Crystals,
) -> None:
    class Five:
        """Draws crystals of five atoms, whatever is asked."""

        def sample(self, n: int, **_: Any) -> Crystals:
            return layers[[0] * n]

    guide: Any = Guide(Dense(), strict="hard", draws=20)
    with pytest.raises(InfeasibleTarget, match="ask for other sizes"):
        guide.sample(Five(), 2, seed=0, n_atoms=6)


def test_an_infinite_violation_counts_nothing_at_the_start(layers: Crystals) -> None:
    """At t = 1 a preview has no say: all particles have equal weights."""

    class Never(Dense):
        def violation(self, crystals: Any) -> torch.Tensor:
            return torch.full((len(crystals),), torch.inf)

    model = small(FlowMatching, layers)
    guide = Guide(Never(), "steer", particles=4, strict="hard")
    made = model.sample(2, seed=0, steps=3, guide=guide)
    first = made.info["guide"]["log"]["steps"][0][0]
    assert first["t"] == 1 and first["weights"] == [0.25] * 4 and first["ess"] == 4


def test_records_are_of_all_rounds(layers: Crystals) -> None:
    """What was drawn more than once, and what overlaps, is added up."""
    seen: list[Crystals] = []

    class Counting(Autoregressive):
        def sample(self, n: int, **options: Any) -> Crystals:
            made = super().sample(n, **options)
            if "guide" not in options:
                seen.append(made)
            return made

    model = Counting.for_data(layers, width=16, layers=1, heads=2).eval()
    model.tries = 1
    made = model.sample(6, seed=0, guide=Guide(MinDistance(1.6), draws=3000))
    assert len(seen) > 1
    for name in ("redrawn", "overlapping"):
        assert made.info[name] == sum(one.info[name] for one in seen)
    assert made.info["overlapping"] > seen[0].info["overlapping"]


def test_what_the_log_alone_looks_at_is_no_call_of_the_predictor(
    layers: Crystals,
) -> None:
    """One gradient at each of two steps and one strict check; the log adds a fourth."""
    wanted = Property(lambda c: c.density, 0, 1, name="density", unit="g/cm^3")
    model = small(FlowMatching, layers)
    model.redraws = 0
    guide = Guide(wanted, "gradient", strict="hard")
    before = wanted.predictor_calls
    log = model.sample(4, seed=0, steps=2, guide=guide).info["guide"]
    assert log["predictor_calls"] == 4 * 3 < wanted.predictor_calls - before
