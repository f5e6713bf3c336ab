"""`Stepwise`: what `FlowMatching` and `Diffusion` share, such as how elements are found."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import generator
from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.backbone import PairTransformer, Prediction
from matdesign.generators.conditions import Condition, ConditionEncoder, combine
from matdesign.generators.control import Preview, Sample, Scales
from matdesign.generators.layers import at
from matdesign.generators.planning import Plan, allowed_elements, decide
from matdesign.generators.sampling import uniform
from matdesign.generators.templates import Templated


class Stepwise(Templated):
    """A generator whose one network predicts coordinates, cell and species at every step.

    Subclasses say how coordinates and cell come back from noise (`loss`, `predict`,
    `step`) and how uncertain a preview is (`preview_std`). Species are hidden and found
    one by one in all of them.

    Args:
        width: size of the network's tokens.
        layers: attention layers.
        heads: attention heads.
        settled: time below which all elements are decided.
        reveal: share of the training crystals of which all elements are shown.
        steps: default number of sampling steps.
        temperature: below 1, elements are drawn nearer to the most probable one; 1 draws
            from the model's own distribution.
        redraws: how often a crystal whose atoms overlap is drawn again, at most.
        share_elements: orbits share elements as in the crystal that lends a template.
        **data: what a training set gives; see `Family`.
    """

    symmetries: ClassVar[frozenset[str]] = frozenset(
        {"permutation", "translation", "integer_shift", "rotation"}
    )
    stepwise: ClassVar[bool] = True
    network: Denoiser

    def __init__(
        self,
        *,
        width: int = 128,
        layers: int = 6,
        heads: int = 8,
        settled: float = 0.3,
        reveal: float = 0.3,
        steps: int = 100,
        temperature: float = 1.0,
        redraws: int = 5,
        share_elements: bool = False,
        **data: Any,
    ) -> None:
        super().__init__(locals(), **data)
        self.default_steps, self.reveal = steps, reveal
        self.temperature, self.redraws = temperature, redraws
        self.share_elements = share_elements
        self.species_noise = AbsorbingNoise(settled)
        self.network = Denoiser(
            properties=self.config["properties"],
            positions=self.representation == "symmetric",
            width=width,
            layers=layers,
            heads=heads,
        )

    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed."""
        self.network.reset(seed)

    def prediction(
        self,
        layout: Layout,
        species: Tensor,
        u: Tensor,
        code: Tensor,
        t: Tensor,
        condition: Condition | None,
        scale: float,
    ) -> Prediction:
        """Return what the network says, guided where scale is neither 0 nor 1.

        In P1, where the origin is free, the vectors of the coordinates have no mean.

        Equation:
            (1 - scale) unconditional + scale conditional, for vectors and for logits.

        Source:
            Ho and Salimans, arXiv 2207.12598. On the torus the vectors are tangent, so
            that their linear combination is one again.
        """
        about = layout, self.scales, species, u, code, t
        if self.network.asked is None or not scale:
            condition = None
        out, passes = self.network.about(*about, condition), 1
        if condition is not None and scale != 1:
            free, passes = self.network.about(*about), 2
            out = Prediction(*map(combine, free, out, 3 * [scale]))
        self.evaluations += passes * len(species)
        return out._replace(frac=centred(out.frac, layout))

    def training_condition(
        self, data: Encoded, rng: torch.Generator
    ) -> Condition | None:
        """Return a random part of what is true of each crystal, as training gives it."""
        asked = self.network.asked
        return None if asked is None else asked.training_condition(data, rng)

    def output(self, x: Sample, t: float) -> Prediction:
        """Return the network's output for samples at time t."""
        time, plan = x.code.new_full((len(x),), t), x.plan
        about = x.layout, x.species, x.u, x.code
        return self.prediction(*about, time, plan.condition, plan.scale)

    def start(self, plan: Plan, rng: torch.Generator) -> Sample:
        """Return noise: no element decided, uniform coordinates, a normal lattice code."""
        lay = plan.layout
        u = uniform(tuple(lay.free.shape), self.scales.mean, rng) * lay.free
        code = torch.randn((len(plan), 6), generator=rng, device=self.device)
        return Sample(plan, plan.start, u, code * lay.code_free)

    def species_probabilities(self, x: Sample, logits: Tensor) -> Tensor:
        """Return probabilities of elements that the plan allows, with temperature.

        Certain where decided, zero on padding.

        Args:
            x: samples.
            logits: of the network, shape (crystals, orbits, 104).
        """
        allowed = allowed_elements(x.plan, x.species, self.scales.allowed)
        undecided = (x.species == MASK)[..., None]
        logits = (logits / self.temperature).masked_fill(
            undecided & ~allowed, -torch.inf
        )
        decided = nn.functional.one_hot(x.species, MASK + 1)[..., :MASK].to(logits)
        found = torch.where(undecided, logits.softmax(-1), decided)
        return found * (x.species > 0)[..., None]

    def decide_species(
        self, x: Sample, preview: Preview, t: float, s: float, rng: torch.Generator
    ) -> Tensor:
        """Return species at an earlier time, roles and choices of the plan kept."""
        now, then = (x.code.new_full((len(x),), time) for time in (t, s))
        new = self.species_noise.newly_decided(x.species, now, then, rng)
        p, allowed = preview.probabilities, self.scales.allowed
        return decide(x.plan, x.species, new, p, allowed, rng)

    @abc.abstractmethod
    def preview_std(self, t: float) -> tuple[float, float]:
        """Return how uncertain noise alone makes a preview: coordinates, lattice code."""

    def preview(
        self, x: Sample, t: float, probabilities: Tensor, u: Tensor, code: Tensor
    ) -> Preview:
        """Return what is expected of the finished crystals, and how uncertain it is."""
        std = self.preview_std(t)
        return Preview(x.layout, self.scales, x.species, probabilities, u, code, std, t)


class Denoiser(PairTransformer):
    """A `PairTransformer` for either representation, with conditions.

    A layout writes the orbits out as sites; the network looks at the sites; what it says
    about them is averaged back onto the orbits, where only free directions count. In the
    representation "cell" every orbit is one site and nothing is averaged.

    Args:
        properties: name -> (mean, standard deviation) of what may be asked for; None
            builds no encoder of conditions.
        positions: give every site the features of its Wyckoff position.
        **sizes: of `PairTransformer`: `width`, `layers`, `heads`, ...
    """

    def __init__(
        self,
        *,
        properties: dict[str, list[float]] | None = None,
        positions: bool = False,
        **sizes: int,
    ) -> None:
        super().__init__(**sizes)
        width = len(self.whole)
        self.asked = None if properties is None else ConditionEncoder(width, properties)
        self.position = nn.Linear(5, width) if positions else None
        self.reset(0)

    @torch.no_grad()
    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed; output and gate layers start at zero."""
        rng = generator(seed)
        super().reset(rng)
        if self.asked is not None:
            self.asked.reset(rng)

    def about(
        self,
        layout: Layout,
        scales: Scales,
        species: Tensor,
        u: Tensor,
        x: Tensor,
        t: Tensor,
        condition: Condition | None = None,
    ) -> Prediction:
        """Return what the network says about the orbits of noisy crystals.

        Args:
            layout: orbits and what of them is free.
            scales: elements that may appear, and the scale of x.
            species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
            u: free coordinates, shape (crystals, orbits, 3).
            x: standardised lattice code, shape (crystals, 6).
            t: time in [0, 1], shape (crystals,).
            condition: what the crystals are asked to be; None asks for nothing.

        Returns:
            Vectors for u (zero where not free), for x (zero where not free), and logits
            of species, minus infinity for elements that may not appear.
        """
        whole = each = None
        if self.asked is not None and condition is not None:
            whole = self.asked(condition)
        if self.position is not None:
            each = self.position(_position(layout, u))
        out = self(
            layout.expand_species(species),
            layout.expand(u),
            scales.lattice(x, layout),
            x,
            t,
            whole=whole,
            each=each,
        )
        # the network may run in half precision; noise and loss never do
        moved, shape, logits = (one.to(u.dtype) for one in out)
        if self.position is not None:
            moved = layout.pull_back(moved)
            logits = layout.mean_over_orbit(logits)
        return Prediction(
            moved,
            shape * layout.code_free,
            logits.masked_fill(~scales.allowed, -torch.inf),
        )


def _position(layout: Layout, like: Tensor) -> Tensor:
    """Return features of the Wyckoff position of every site, (crystals, sites, 5).

    One-hot number of free coordinates (0 to 3), and the share of the crystal's atoms that
    belong to the orbit.
    """
    freedom = nn.functional.one_hot(layout.free.sum(-1), 4)  # (b, orbits, 4)
    share = layout.count / layout.n_atoms.clamp(min=1)[:, None]
    orbit = torch.cat([freedom, share[..., None]], dim=-1).to(like)
    of_sites = layout.orbit[..., None].expand(-1, -1, 5)
    return orbit.gather(1, of_sites) * layout.mask[..., None]


class AbsorbingNoise:
    """Species: every site is undecided with probability m(t), else its true element.

    Equation:
        m(t) = clip((t - settled) / (1 - settled), 0, 1);
        back from t to s an undecided site is decided with probability 1 - m(s) / m(t),
        its element drawn from the preview's probabilities (`planning.decide`); decided
        sites stay.

    With `settled` > 0 all elements are decided before the coordinates are sharp, so the
    last part of a trajectory fits positions to a composition that no longer changes.

    Args:
        settled: time below which every element is decided.

    Source:
        Absorbing D3PM, Austin et al., arXiv 2107.03006, in continuous time. Changed: the
        probabilities are normalised over the elements seen in training (never "undecided"), and
        nothing is left undecided at t = 0.
    """

    def __init__(self, settled: float = 0.0) -> None:
        self.settled = settled

    def undecided(self, t: Tensor) -> Tensor:
        """Return m(t), the probability that a site is undecided."""
        return ((t - self.settled) / (1 - self.settled)).clamp(0.0, 1.0)

    def add(
        self, species: Tensor, t: Tensor, rng: torch.Generator, reveal: float = 0.0
    ) -> Tensor:
        """Return species with sites hidden, shape (crystals, sites).

        Args:
            species: elements, 0 on padding, shape (crystals, sites).
            t: time, shape (crystals,).
            rng: source of randomness.
            reveal: share of the crystals in which nothing is hidden, so that the network
                also learns to find the structure of a given composition.
        """
        chance = uniform(tuple(species.shape), t, rng)
        hide = (chance < self.undecided(t)[:, None]) & (species > 0)
        if reveal:
            hide &= uniform((len(species), 1), t, rng) >= reveal
        return species.masked_fill(hide, MASK)

    @staticmethod
    def cross_entropy(species: Tensor, hidden: Tensor, logits: Tensor) -> Tensor:
        """Return the cross entropy of each crystal in nats per hidden site, (crystals,).

        Args:
            species: true elements, shape (crystals, sites).
            hidden: which of them the network did not see, bool, of the same shape.
            logits: what it predicts, shape (crystals, sites, 104).
        """
        each = -at(logits.log_softmax(-1), species)
        return each.masked_fill(~hidden, 0.0).sum(1) / hidden.sum(1).clamp(min=1)

    def newly_decided(
        self, species: Tensor, t: Tensor, s: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Return which sites are decided between t and s, bool, (crystals, sites).

        Args:
            species: with undecided sites, shape (crystals, sites).
            t: time now, shape (crystals,).
            s: earlier time, shape (crystals,).
            rng: source of randomness.
        """
        now, then = self.undecided(t), self.undecided(s)
        keep = torch.where(now > 0, then / now.clamp(min=1e-12), torch.zeros_like(now))
        chance = uniform(tuple(species.shape), t, rng)
        return (chance >= keep[:, None]) & (species == MASK)


def column(value: Tensor, like: Tensor) -> Tensor:
    """Return per-crystal numbers (crystals,) shaped to multiply a tensor of a batch."""
    return value.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def flattened(out: Prediction, layout: Layout, hidden: Tensor) -> Tensor:
    """Return what a network says of coordinates, cell and hidden species, one row each."""
    species = out.species.softmax(-1) * hidden[..., None]
    parts = out.frac * layout.free, out.lattice * layout.code_free, species
    return torch.cat([x.flatten(1) for x in parts], dim=1)


def random_times(n: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """Return a time in [0, 1) for each crystal of a batch, shape (n,).

    One time falls into each of n equal parts of [0, 1), which makes losses less noisy;
    which crystal gets which part is drawn. (Parts that follow the order of the batch tie
    time to whatever the batch is sorted by, such as the size of the crystals.)

    Equation:
        t_i = (pi(i) + e_i) / n, pi a random permutation of 0 .. n - 1, e_i ~ U(0, 1)
    """
    part = torch.randperm(n, generator=rng, device=like.device)
    return (part + uniform((n,), like, rng)) / n


def centred(vector: Tensor, layout: Layout) -> Tensor:
    """Return displacements of orbits without their mean, in crystals without symmetry.

    Moving all atoms together changes nothing, so that the mean of a random displacement
    cannot be learned. Where symmetry elements hold the origin, nothing is taken off.

    Args:
        vector: shape (crystals, orbits, 3).
        layout: which coordinates are free.
    """
    vector = vector * layout.free
    n_atoms = column(layout.n_atoms.clamp(min=1), vector)
    mean = (
        vector.sum(1, keepdim=True) / n_atoms * column(layout.spacegroup == 1, vector)
    )
    return (vector - mean) * layout.free
