"""`CouplingFlow`: crystals as an invertible map of noise, with their exact density."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.conditions import Condition, ConditionEncoder
from matdesign.generators.contract import Loss
from matdesign.generators.control import LOOSE, Preview, Sample
from matdesign.generators.layers import redraw
from matdesign.generators.planning import Plan
from matdesign.generators.sampling import normal, uniform
from matdesign.generators.species_sequence import (
    OrbitEncoder,
    SpeciesSequence,
    canonical_order,
    log_arrangements,
)
from matdesign.generators.templates import Templated
from matdesign.generators.torus_flow import (
    Coupling,
    Latents,
    LatticeFlow,
    Setting,
    TorusFlow,
    hold,
    log_mean,
    rarest,
)


@dataclass(frozen=True, eq=False)
class FlowSample(Sample):
    """Crystals on their way through the coupling layers.

    Args:
        about: what the layers are told, but for the lattice code, which may be moved.
    """

    about: Setting


class CouplingFlow(Templated):
    """A normalizing flow: every step has an inverse, so every crystal has a density.

    Given its layout a crystal is made in three exact steps: elements one orbit after the
    other, the lattice code entry by entry through splines of a normal number, and the
    free coordinates through coupling layers that bend uniform noise on the torus.

    Equation:
        ln p = ln p(A) + ln p(k | A) + sum over layers of ln |det d u_(l+1) / d u_l|

    Where the group leaves the origin free (everywhere in "cell", along z in many polar
    groups) one orbit of the rarest kind is held there; all such orbits are equally likely
    to be the one, and `log_prob` takes their mean. Order of atoms and choice of origin
    then leave the density alone.

    Args:
        width: size of all tokens.
        heads: attention heads.
        couplings: coupling layers; five kinds of split take turns.
        bins: of each spline.
        frequencies: harmonics of the coordinates that a layer reads.
        blur: spread of the noise on training coordinates, in fractions of a cell edge;
            2.5 times that on the standardised lattice code. Without it the density of
            crystals on exact places has no bound.
        temperature: below 1, elements are drawn nearer to the most probable one.
        **data: what a training set gives; see `Family`.

    Source:
        Wirnsberger et al., arXiv 2111.08696 (axis splits, circular splines, atomic
        solids). Changed: variable composition and cell, either representation, splits by
        kind of orbit beside those by axis, and a mean over choices of the fixed atom.
    """

    likelihood = "exact"
    bucketing = "orbits"
    default_batch_size = (128, 512)
    redraws = 5
    renamed: ClassVar[dict[str, Any]] = {"depth": 1, "redraws": 5}
    """Keywords of older files and the value that is left."""

    symmetries: ClassVar[frozenset[str]] = frozenset(
        {"permutation", "translation", "integer_shift", "rotation"}
    )

    def __init__(
        self,
        *,
        width: int = 96,
        heads: int = 4,
        couplings: int = 10,
        bins: int = 8,
        frequencies: int = 6,
        blur: float = 0.004,
        temperature: float = 1.0,
        **data: Any,
    ) -> None:
        super().__init__(locals(), **data)
        self.default_steps = couplings
        self.blur, self.temperature = blur, temperature
        self.asked = ConditionEncoder(width, self.properties)
        self.sequence = SpeciesSequence(width, heads, 3)
        self.encoder = OrbitEncoder(width, heads, 2)
        self.lattice_flow = LatticeFlow(width, bins)
        self.torus_flow = TorusFlow(couplings, width, heads, bins, frequencies)
        self.reset(0)

    @torch.no_grad()
    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed; every coupling starts as the identity."""
        rng = generator(seed)
        redraw(self, rng)
        last: list[nn.Module] = list(self.lattice_flow.numbers)
        for layer in self.torus_flow.modules():
            if isinstance(layer, Coupling):
                layer.pair.normal_(generator=rng).mul_(0.1)
                last.append(layer.numbers)
        self.sequence.any_order.zero_()
        last += [self.sequence.head.learned, self.sequence.head.chemistry]
        for zero in last:
            for parameter in zero.parameters():
                parameter.zero_()
        self.asked.reset(rng)

    def loss(
        self, crystals: Crystals | Encoded, *, seed: int | torch.Generator | None = None
    ) -> Loss:
        """Return minus the log density of a batch, each part per free number.

        Terms: `species`, nats per orbit, a quarter of the crystals in random order;
        `lattice`, nats per free entry of the standardised code; `coordinates`, nats per
        free coordinate, 0 for an untrained model. They are added with equal weights.
        """
        rng = generator(seed, self.device)
        data = self.prepare(crystals)
        lay, species = data.layout, data.species
        vector = self.asked(self.asked.training_condition(data, rng))

        allowed = self.scales.allowed
        order, free_order = self.sequence.training_order(lay, species, rng)
        log_species = self.sequence.log_prob(
            lay, species, vector, allowed, order, free_order
        )
        x = self.scales.standardize(data.code, lay)
        x = (x + 2.5 * self.blur * normal(x, rng)) * lay.code_free
        u = wrap(data.u + self.blur * normal(data.u, rng)) * lay.free
        chance = uniform(tuple(species.shape), u, rng)
        held = torch.where(rarest(lay, species), chance, -1.0).argmax(1)
        free, u = hold(lay, u, held)
        each, whole = self.encoder(lay, species, vector)
        _, log_lattice = self.lattice_flow(x, whole, lay.code_free)
        about = Setting(lay, species, free, each, x)
        change = self.torus_flow(u, about)[1].sum(0)
        terms = {
            "species": -log_species.sum() / lay.orbits.sum(),
            "lattice": -log_lattice.sum() / lay.code_free.sum(),
            "coordinates": -change.sum() / free.sum().clamp(min=1),
        }
        return Loss.of(terms)

    @torch.no_grad()
    def log_prob(self, crystals: Crystals | Encoded) -> Tensor:
        """Return the exact log density of crystals given their layout, (crystals,).

        The sum of `log_prob_parts`, in nats; minus infinity where an element was never
        seen in training.
        """
        return torch.stack(list(self.log_prob_parts(crystals).values())).sum(0)

    @torch.no_grad()
    def log_prob_parts(self, crystals: Crystals | Encoded) -> dict[str, Tensor]:
        """Return the parts of the log density, in nats, each of shape (crystals,).

        The layout is given: how often it occurs (number of atoms in "cell", template in
        "symmetric") is no part. Orbits count as numbered. The measure is a count for
        elements, the free entries of the standardised lattice code, and free coordinates
        in [0, 1); a free origin is uniform, which takes nothing away.
        """
        data = self.prepare(crystals).to(self.device)
        lay, species, b = data.layout, data.species, len(data)
        vector = self.embedding(b, None)
        order, allowed = canonical_order(lay, species), self.scales.allowed
        canonical = torch.zeros(b, dtype=torch.bool, device=self.device)
        log_species = self.sequence.log_prob(
            lay, species, vector, allowed, order, canonical
        )
        log_species = log_species - log_arrangements(lay, species).to(log_species)
        x = self.scales.standardize(data.code, lay)
        each, whole = self.encoder(lay, species, vector)
        _, log_lattice = self.lattice_flow(x, whole, lay.code_free)
        row, atom = rarest(lay, species).nonzero().unbind(1)  # all choices
        free, u = hold(lay[row], data.u[row], atom)
        about = Setting(lay[row], species[row], free, each[row], x[row])
        _, changes = self.torus_flow(u, about)
        return {
            "species": log_species,
            "lattice": log_lattice,
            "coordinates": log_mean(changes.sum(0), row, b),
        }

    @torch.no_grad()
    def inverse(self, crystals: Crystals | Encoded) -> Latents:
        """Return the noise from which this model would make the same crystals.

        Args:
            crystals: any crystals; in P1 the first atom of the rarest element is held at
                the origin.
        """
        data = self.prepare(crystals).to(self.device)
        lay, species = data.layout, data.species
        each, whole = self.encoder(lay, species, self.embedding(len(data), None))
        x = self.scales.standardize(data.code, lay)
        z, _ = self.lattice_flow(x, whole, lay.code_free)
        free, u = self.hold_first(lay, species, data.u)
        about = Setting(lay, species, free, each, x)
        u, changes = self.torus_flow(u, about)
        return Latents(lay, species, u, z, changes)

    def times(self, steps: int, plan: Plan) -> list[float]:
        """Return the times of all states: one step for each coupling layer."""
        return super().times(self.default_steps, plan)

    def start(self, plan: Plan, rng: torch.Generator) -> FlowSample:
        """Return elements and lattices as they stay, and uniform coordinates.

        Guidance combines the logits of the elements; an invertible map has no logits to
        combine, so that lattice and coordinates follow the condition with scale 1, or
        none with scale 0.
        """
        lay, allowed = plan.layout, self.scales.allowed
        self.evaluations += len(plan)
        vector = self.embedding(len(plan), plan.condition if plan.scale else None)
        sharp = {"scale": plan.scale or 1.0, "temperature": self.temperature}
        species = self.sequence.draw(plan, vector, allowed, rng, **sharp)
        each, whole = self.encoder(lay, species, vector)
        z = normal(torch.zeros_like(lay.code_fixed).to(each), rng)
        code = self.lattice_flow.generate(z * lay.code_free, whole, lay.code_free)
        free, _ = self.hold_first(lay, species, torch.zeros_like(lay.free).to(code))
        u = uniform(tuple(free.shape), code, rng) * free
        return FlowSample(
            plan, species, u, code, Setting(lay, species, free, each, code)
        )

    def predict(self, x: FlowSample, t: float) -> Preview:
        """Return the crystals as they are: coordinates are none before the last layer."""
        p = nn.functional.one_hot(x.species, MASK).to(x.u)
        std = LOOSE if t == 0 else (0.0, LOOSE[1])
        return Preview(x.layout, self.scales, x.species, p, x.u, x.code, std)

    def step(
        self, x: FlowSample, preview: Preview, t: float, s: float, rng: torch.Generator
    ) -> FlowSample:
        """Return x with coordinates bent by the layer between t and s."""
        couplings = self.torus_flow.couplings(x.about)
        layer, moved = couplings[round(s * len(couplings))]
        u, _ = layer(x.u, moved, x.about._replace(code=preview.code), inverse=True)
        return dataclasses.replace(x, u=u, code=preview.code)

    def embedding(self, n: int, condition: Condition | None) -> Tensor:
        """Return the vector of a condition, (crystals, width); zero for none."""
        if condition is None:
            return self.scales.mean.new_zeros(n, int(self.config["width"]))
        made: Tensor = self.asked(condition)
        return made

    def hold_first(
        self, layout: Layout, species: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what is free, and u, with the first orbit held that may be."""
        return hold(layout, u, rarest(layout, species).long().argmax(1))
