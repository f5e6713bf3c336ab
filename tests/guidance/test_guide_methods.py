"""Guides on shipped models: what is masked holds, what is moved comes nearer."""

import json
from functools import cache
from typing import Any

import pytest
import torch

import matdesign as design
from matdesign.constraints.base import Constraint
from matdesign.constraints.between import Between
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.composition import Composition
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.constraints.unfinished import Orbits
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.generators.contract import Generator
from matdesign.generators.control import State
from matdesign.generators.planning import take
from matdesign.guidance.guide import METHODS, Guide
from matdesign.guidance.guided_sampler import GuidedSampler
from matdesign.guidance.masks import Masks, speaks
from matdesign.guidance.moves import gradients_by, proximal_step
from matdesign.guidance.particles import Particles

NAMES = ("autoregressive", "coupling-flow", "diffusion", "flow-matching", "vae")
EACH = pytest.mark.parametrize("name", NAMES)
LIGHT = OnlyElements("Ca", "Sr", "Ba", "Na", "Ti", "Zr", "O", "S")


@cache
def shipped(name: str) -> Generator:
    return design.load_model(f"{name}-perovskites")


def density(low: float, high: float) -> Between:
    return Between("density", low, high, unit="g/cm^3")


class Dense(Constraint):
    """A user's constraint: nothing but the two methods that every one has."""

    unit = "g/cm^3"
    hard = False

    def violation(self, crystals: Crystals | SoftCrystals) -> torch.Tensor:
        """Return how much density is missing."""
        return (6.5 - crystals.density).clamp(min=0)

    def satisfied(self, crystals: Crystals) -> torch.Tensor:
        """Return whether the density is reached."""
        return crystals.density >= 6.5

    def sentence(self) -> str:
        """Return the constraint in words."""
        return "dense"


# ---- masks ---------------------------------------------------------------------------


@EACH
def test_elements_and_charge_hold_at_the_first_draw(name: str) -> None:
    """Masks alone, no luck: as many crystals are drawn as are asked for."""
    wanted = LIGHT & RequiredElements("O", "Ti") & ChargeNeutral()
    made = shipped(name).sample(6, seed=0, steps=2, guide=Guide(wanted))
    log = made.info["guide"]
    assert len(made) == log["drawn"] == log["met"] == 6
    assert bool(wanted.satisfied(made).all())
    assert log["method"] == "mask"


@EACH
def test_patterned_composition_and_required_elements_hold(name: str) -> None:
    wanted = Composition(pattern="ABX3") & RequiredElements("O") & ChargeNeutral()
    made = shipped(name).sample(5, seed=1, steps=2, guide=Guide(wanted))
    assert bool(wanted.satisfied(made).all())
    assert made.info["guide"]["drawn"] <= 10


def test_masks_know_what_is_asked_for_and_remember() -> None:
    class Counting(ChargeNeutral):
        rows = 0

        def allowed(self, orbits: Orbits) -> Any:
            Counting.rows += len(orbits.species)
            return super().allowed(orbits)

    masks = Masks((Counting(),))
    species = torch.tensor([[22, 104, 0]] * 50)
    counts = torch.tensor([[1, 2, 0]] * 50)
    among = torch.zeros(50, 3, 104, dtype=torch.bool)
    among[:, 0, 22] = True
    among[:, 1, [8, 9, 3]] = True
    left = masks(species, counts, None, among)
    assert left[0, 1].nonzero().flatten().tolist() == [8]  # TiO2, not TiF2
    first = Counting.rows
    assert torch.equal(masks(species, counts, None, among), left)
    assert Counting.rows == first


# ---- gradient, projection, particles -------------------------------------------------


def test_gradient_brings_a_flow_nearer_at_the_same_seed() -> None:
    model, wanted = shipped("flow-matching"), density(6.3, 6.6)
    options: dict[str, Any] = {"seed": 3, "steps": 6}
    free = model.sample(8, **options)
    guide = Guide(wanted, "gradient", strict="hard")
    made = model.sample(8, **options, guide=guide)
    before, after = (wanted.violation(one).mean() for one in (free, made))
    assert float(after) < 0.6 * float(before)
    log = made.info["guide"]
    assert json.loads(json.dumps(log)) == log
    steps = log["log"]["steps"][0]
    assert [row["step"] for row in steps] == list(range(7))
    assert steps[0]["done"] == ["moved along gradients"]
    assert set(steps[0]["violation"]) == {str(wanted)}
    assert log["network_evaluations"] == made.info["network_evaluations"] > 0


@EACH
def test_a_range_of_density_is_met_by_the_default(name: str) -> None:
    made = shipped(name).sample(4, seed=0, steps=2, guide=Guide(density(5.5, 6)))
    assert bool(density(5.5, 6).satisfied(made).all())


def test_particles_beat_single_draws_and_say_how_they_fared() -> None:
    model, wanted = shipped("coupling-flow"), Dense()
    free = model.sample(12, seed=0)
    made = model.sample(12, seed=0, guide=Guide(wanted, "steer", strict="hard"))
    assert float(wanted.violation(made).mean()) < 0.5 * float(
        wanted.violation(free).mean()
    )
    log = made.info["guide"]
    assert log["particles"] == 8 and log["network_evaluations"] >= 96
    row = log["log"]["steps"][0][0]
    assert 1 <= row["ess"] <= 8 and len(row["weights"]) == 8


def test_calls_of_a_predictor_are_counted() -> None:
    class Guess(Dense):
        predictor_calls = 0

        def violation(self, crystals: Crystals | SoftCrystals) -> torch.Tensor:
            Guess.predictor_calls += len(crystals)
            return super().violation(crystals)

    wanted = Guess()
    guide = Guide(wanted, "gradient", strict="hard")
    plan = guide.plan(shipped("coupling-flow"))
    assert plan.by("gradient") == (wanted,)
    before = Guess.predictor_calls
    made = shipped("coupling-flow").sample(3, seed=0, guide=guide)
    spent = Guess.predictor_calls - before
    assert 0 < made.info["guide"]["predictor_calls"] <= spent
    assert made.info["guide"]["predictor_calls"] % 3 == 0


def test_a_proximal_step_is_the_mode_of_preview_and_reward() -> None:
    """Density is moved to the edge of its range where the belief is wide, no farther."""
    preview = _dense()
    wide = proximal_step(preview, [density(7, 8)], 1e6, iterations=12)[0].soft().density
    free = preview.soft().density
    assert float(free.max()) < 7
    assert bool(((wide > 6.98) & (wide < 8.02)).all())
    none, logits = proximal_step(preview, [density(7, 8)], 0.0)
    assert none.u is preview.u and none.code is preview.code and logits is None
    narrow = (
        proximal_step(preview, [density(7, 8)], 0.1, iterations=1)[0].soft().density
    )
    assert bool((narrow > free).all()) and bool((narrow <= wide).all())


def _dense() -> Any:
    states = shipped("coupling-flow").trajectory(6, seed=0)
    state: State = list(states)[-1]
    dense = state.soft.density < 7
    return take(state.preview, dense.nonzero().squeeze(1))


def test_what_a_constraint_depends_on_is_found_out() -> None:
    assert gradients_by(density(1, 2)) and "frac" not in gradients_by(density(1, 2))
    assert gradients_by(density(0, 99))  # in which the crystals of the trial lie
    assert gradients_by(Dense()) and not speaks(Dense())
    assert "frac" in gradients_by(MinDistance(1.4))


class Share(Dense):
    """A share of atoms; of an element that few crystals have, nearly all meet it."""

    element = 77

    def violation(self, crystals: Crystals | SoftCrystals) -> torch.Tensor:
        """Return by how much more than a tenth of the atoms are the element."""
        assert isinstance(crystals, SoftCrystals)
        share = crystals.species[..., self.element].sum(1) / crystals.mask.sum(1)
        return (share - 0.1).clamp(min=0)


class Long(Dense):
    """The third edge is at most twice the first."""

    def violation(self, crystals: Crystals | SoftCrystals) -> torch.Tensor:
        """Return by how much it is longer."""
        edges = crystals.lattice.norm(dim=2)
        return (edges[:, 2] / edges[:, 0] - 2).clamp(min=0)


def test_a_slope_is_found_where_most_crystals_meet_the_constraint() -> None:
    assert gradients_by(Share()) and "frac" not in gradients_by(Share())
    assert gradients_by(Long()) and "frac" not in gradients_by(Long())


# ---- the front door ------------------------------------------------------------------


@EACH
def test_scale_zero_is_the_unguided_model_bit_for_bit(name: str) -> None:
    model = shipped(name)
    options: dict[str, Any] = {"seed": 5, "steps": 2}
    free = model.sample(4, **options)
    wanted = density(2, 3) & MinDistance(1.4) & ChargeNeutral()
    made = model.sample(4, **options, guide=Guide(wanted, scale=0))
    assert torch.equal(free.species, made.species)
    assert torch.equal(free.frac, made.frac)
    assert torch.equal(free.lattice, made.lattice)
    assert made.info["guide"]["met"] == int(wanted.satisfied(free).sum())


@EACH
def test_the_plan_names_a_method_and_a_reason_for_each(name: str) -> None:
    wanted = LIGHT & density(4, 5) & MinDistance(1.4) & Dense()
    plan = Guide(wanted).plan(shipped(name))
    assert len(plan.choices) == 4
    assert all(one.why and set(one.methods) <= set(METHODS) for one in plan.choices)
    assert plan.choices[0].methods == ("mask",)
    for one in wanted.parts:
        assert str(one) in repr(plan)


@pytest.mark.parametrize(
    ("wanted", "method", "says"),
    [
        (density(4, 5), "mask", "no matter of elements"),
        (MinDistance(1.4), "project", "no exact projection"),
        (Dense(), "classifier_free", "trained with other conditions"),
        (Dense(), "replace", "fixes no coordinates"),
    ],
    ids=["mask", "project", "classifier_free", "replace"],
)
def test_a_pair_that_does_not_exist_is_refused_before_sampling(
    wanted: Constraint, method: str, says: str
) -> None:
    model = shipped("coupling-flow")
    before = model.evaluations
    with pytest.raises(DataError, match="cannot guide CouplingFlow") as caught:
        model.sample(2, guide=Guide(wanted, method))
    assert says in str(caught.value)
    assert model.evaluations == before


def test_elements_that_no_cell_can_hold_are_refused() -> None:
    """21 elements in cells of at most 20 atoms: no plan leaves a choice."""
    model = shipped("coupling-flow")
    names = [design.crystals.elements.symbols()[z] for z in model.config["elements"]]
    with pytest.raises(InfeasibleTarget, match="leaves elements to choose"):
        model.sample(2, guide=Guide(RequiredElements(*names[:21])), seed=0)


def test_one_range_may_not_be_asked_for_twice() -> None:
    with pytest.raises(DataError, match="asked for twice"):
        shipped("coupling-flow").sample(
            1,
            guide=Guide(density(4, 5), "classifier_free"),
            conditions={"density": (3, 4)},
        )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scale": -1}, "scale must be finite"),
        ({"scale": float("nan")}, "scale must be finite"),
        ({"particles": 1}, "at least 2"),
        ({"strict": "soft"}, "strict must be"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Guide(Dense(), **options)


def test_elements_are_masked_beside_a_constraint_that_has_the_method() -> None:
    """A hard constraint is not left to particles where a mask is free; alone it may be."""
    model = shipped("coupling-flow")
    both = Guide(RequiredElements("O") & density(5, 6), "steer").plan(model)
    assert [one.methods for one in both.choices] == [("mask",), ("steer",)]
    alone = Guide(RequiredElements("O"), "steer").plan(model)
    assert [one.methods for one in alone.choices] == [("steer",)]


def test_sizes_that_cannot_hold_what_is_required_are_not_drawn() -> None:
    """A cell of one atom holds no two elements, whatever the autoencoder would like."""
    model = design.load_model("vae-prototypes")
    wanted = RequiredElements("O", "Ti")
    made = model.sample(150, seed=1, steps=1, guide=Guide(wanted))
    assert made.info["guide"]["drawn"] == 150
    assert bool(wanted.satisfied(made).all())


@EACH
def test_an_element_that_no_crystal_holds_is_refused_before_sampling(name: str) -> None:
    model = shipped(name)
    assert 54 not in model.config["elements"]
    with pytest.raises(InfeasibleTarget, match="holds Xe: it was trained on"):
        model.sample(2, guide=Guide(RequiredElements("Xe", "O")))
    with pytest.raises(InfeasibleTarget, match="holds Kr and Xe"):
        Guide(RequiredElements("Xe", "Kr"), "reject").plan(model)


@pytest.mark.parametrize(
    ("name", "wanted"), [("flow-matching", {1.0}), ("coupling-flow", {0.0, 1.0})]
)
def test_a_finished_crystal_is_moved_no_further_than_its_reward_says(
    name: str, wanted: set[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Previews are pushed by a least step, which the next one half forgets; ends are not."""
    seen: set[float] = set()

    def spy(preview: Any, parts: Any, strength: float, *rest: Any) -> Any:
        seen.add(rest[2])
        return proximal_step(preview, parts, strength, *rest)

    monkeypatch.setattr("matdesign.guidance.guided_sampler.proximal_step", spy)
    guide = Guide(density(6.3, 6.6), "gradient", strict="hard")
    shipped(name).sample(4, seed=0, steps=3, guide=guide)
    assert seen == wanted


def test_a_predicted_property_is_asked_of_a_model_that_was_trained_with_it() -> None:
    """The name of a network's property is the model's own; that of a function is not."""
    energy = "formation_energy_per_atom"
    wanted = design.Property("energy-prototypes", high=-1.5, name=energy)
    model = design.load_model("flow-matching-prototypes")
    assert energy in model.properties
    (choice,) = Guide(wanted).plan(model).choices
    assert choice.methods == ("classifier_free", "steer")
    (one,) = Guide(wanted).plan(design.load_model("vae-prototypes")).choices
    assert one.methods == ("classifier_free", "steer")
    loose = design.Property(lambda c: c.density, high=-1.5, name=energy)
    (other,) = Guide(loose).plan(model).choices
    assert other.methods == ("steer", "gradient")
    made = model.sample(4, seed=0, steps=2, guide=Guide(wanted, strict="hard"))
    assert made.info["guide"]["method"] == "classifier_free, steer"


@pytest.mark.parametrize("name", ["flow-matching", "diffusion"])
def test_a_soft_wish_takes_particles_and_a_hard_one_or_a_range_does_not(
    name: str,
) -> None:
    model = shipped(name)
    octahedra = design.Coordination("Ti", "O", 6, cutoff=2.4)
    wanted = octahedra & density(6, 6.5) & design.MinDistance(1.5)
    served = [one.methods for one in Guide(wanted).plan(model).choices]
    assert served[0] == ("steer", "gradient")
    assert served[1][-1] == "project"
    assert not any("steer" in methods for methods in served[1:])


def test_a_reward_counts_in_full_only_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Early previews say little; what the last weights amount to stays the reward."""
    told: list[tuple[float, Any]] = []
    full: list[Any] = []
    plain = GuidedSampler._reward

    def reward(self: GuidedSampler, *rest: Any) -> Any:
        full.append(plain(self, *rest))
        return full[-1]

    def move(self: Particles, given: Any) -> None:
        told.append((float(given.sum() / full[-1].sum()), given))

    def choose(self: Particles, given: Any, good: Any) -> Any:
        assert given is full[-1]
        return torch.arange(self.groups) * self.size

    monkeypatch.setattr(GuidedSampler, "_reward", reward)
    monkeypatch.setattr(Particles, "move", move)
    monkeypatch.setattr(Particles, "choose", choose)
    guide = Guide(density(19, 20), "steer", particles=2, strict="hard")
    shipped("flow-matching").sample(2, seed=0, steps=4, guide=guide)
    shares = [share for share, _ in told]
    assert shares == pytest.approx([k / 4 for k in range(len(shares))], abs=1e-5)
    assert len(shares) == 4


def test_of_particles_that_meet_a_wish_one_without_overlaps_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As all crystals are drawn again whose atoms overlap; nothing else is preferred."""
    apart = [(0, 1), (1, 0), (1, 1), (0, 0)]
    told: list[Any] = []
    plain = Particles.choose

    def choose(self: Particles, reward: Any, good: Any) -> Any:
        told.append((good, plain(self, reward, good)))
        return told[-1][1]

    def overlapping(crystals: Crystals) -> torch.Tensor:
        return torch.tensor(apart).flatten() == 0

    monkeypatch.setattr(Particles, "choose", choose)
    monkeypatch.setattr("matdesign.guidance.guided_sampler.overlap", overlapping)
    model = shipped("coupling-flow")
    monkeypatch.setattr(model, "redraws", 0)
    model.sample(
        4, seed=0, guide=Guide(density(0, 100), "steer", particles=2, strict="hard")
    )
    good, taken = told[0]
    assert good.view(-1, 2).int().tolist() == [[0, 1], [1, 0], [1, 1], [1, 1]]
    assert taken.tolist()[:2] == [1, 2]


def test_steering_towards_what_all_meet_prefers_nothing() -> None:
    """The share of neutral crystals is that of the model: within four standard errors."""
    model, options = shipped("autoregressive"), {"seed": 0, "n_atoms": 5}
    wish, neutral = density(0, 100), ChargeNeutral("smact14", alloys=True)
    plain = model.sample(400, **options)
    guide = Guide(wish, "steer", particles=4, strict="hard")
    steered = model.sample(150, guide=guide, **options)
    p, q = (float(neutral.satisfied(made).float().mean()) for made in (plain, steered))
    error = (p * (1 - p) * (1 / 400 + 1 / 150)) ** 0.5
    assert 0 < p < 1 and abs(p - q) < 4 * error
