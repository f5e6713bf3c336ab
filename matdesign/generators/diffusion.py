"""`Diffusion`: coordinates, lattice and species denoised together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.encoded import Encoded, Representation
from matdesign.generators.contract import Loss
from matdesign.generators.control import Preview, Sample
from matdesign.generators.noise import (
    GaussianNoise,
    WrappedNoise,
    column,
    random_times,
)
from matdesign.generators.stepwise import Stepwise


class Diffusion(Stepwise):
    """Denoising diffusion of whole crystals, in either representation.

    Three noise processes run side by side: free coordinates spread around the torus, the
    lattice code fades into a normal distribution, species disappear one by one. One
    network undoes all three. Build it with `Diffusion.for_data(train)`.

    Equation:
        loss = |u - s / sqrt(lambda)|^2 + |v - v_target|^2 + cross entropy of hidden sites

    Args:
        elements: atomic numbers that may appear.
        size_histogram: number of training crystals with 0, 1, 2, ... atoms.
        code_mean: mean of the lattice code over the training set, 6 numbers.
        code_std: its standard deviation.
        code_low: lower bound of the code, in standard deviations from the mean.
        code_high: upper bound.
        representation: "cell", every atom free; or "symmetric", space group and Wyckoff
            positions drawn from those of the training set, the rest generated.
        templates: rows and orbits of the table of templates, in "symmetric".
        properties: name -> [mean, standard deviation] of the properties that can be
            asked for; None for a model without conditions.
        width: size of the network's tokens.
        layers: attention layers.
        heads: attention heads.
        settled: time below which all elements are decided.
        reveal: share of the training crystals of which all elements are shown.
        steps: default number of sampling steps.
        corrector: size of the Langevin step after each predictor step; 0 for none.
        temperature: below 1, elements are drawn nearer to the most probable one; 1 draws
            from the model's own distribution.
        sharpness: above 1, coordinates follow the score farther in each step and end
            nearer to the modes; 1 draws from the model's own distribution.
        redraws: how often a crystal whose atoms overlap is drawn again, at most.
        share_elements: orbits share elements as in the crystal that lends a template.

    Source:
        DiffCSP, Jiao et al., arXiv 2309.04475, and MatterGen, Zeni et al., arXiv
        2312.03687; symmetry by anchors: DiffCSP++, arXiv 2402.03992. Changed:
        log-symmetric lattice code with a prior at mean density, absorbing species
        normalised over seen elements, free coordinates of the positions instead of
        projected ones, and the network.
    """

    def __init__(
        self,
        *,
        elements: Sequence[int],
        size_histogram: Sequence[int],
        code_mean: Sequence[float],
        code_std: Sequence[float],
        code_low: Sequence[float],
        code_high: Sequence[float],
        representation: Representation = "cell",
        templates: Sequence[int] | None = None,
        properties: dict[str, list[float]] | None = None,
        width: int = 128,
        layers: int = 6,
        heads: int = 8,
        settled: float = 0.3,
        reveal: float = 0.3,
        steps: int = 100,
        corrector: float = 0.2,
        temperature: float = 1.0,
        sharpness: float = 1.0,
        redraws: int = 5,
        share_elements: bool = False,
    ) -> None:
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(config)
        self.corrector, self.sharpness = corrector, sharpness
        self.frac_noise = WrappedNoise()
        self.lattice_noise = GaussianNoise()

    def loss(
        self,
        crystals: Crystals | Encoded,
        *,
        seed: int | torch.Generator | None = None,
    ) -> Loss:
        """Return the loss of a batch: three terms of equal weight.

        Terms: `frac`, mean square error of the normalised score (1 for an untrained
        network); `lattice`, mean square error of v (1 for an untrained network);
        `species`, cross entropy in nats per hidden site.
        """
        rng = generator(seed, self.device)
        data = self.prepare(crystals)
        lay = data.layout
        t = random_times(len(data), data.u, rng)
        u, score = self.frac_noise.add(data.u, lay, t, rng)
        code = self.scales.standardize(data.code, lay)
        x, v = self.lattice_noise.add(code, t, rng)
        species = self.species_noise.add(data.species, t, rng, self.reveal)
        condition = None
        if self.network.asked is not None:
            condition = self.network.asked.training_condition(data, rng)
        x = x * lay.code_free
        out = self.prediction(lay, species, u, x, t, condition, 1.0)

        free = lay.free.sum((1, 2)) - 3 * (lay.spacegroup == 1)  # P1: any origin
        wrong = (out.frac - score).square().sum((1, 2)) / free.clamp(min=1)
        off = ((out.lattice - v) * lay.code_free).square().sum(1)
        hidden = species == MASK
        terms = {
            "frac": (wrong * (free > 0)).sum() / (free > 0).sum().clamp(min=1),
            "lattice": (off / lay.code_free.sum(1)).mean(),
            "species": self.species_noise.cross_entropy(
                data.species, hidden, out.species
            ),
        }
        return Loss(
            torch.stack(list(terms.values())).sum(),
            {k: x.detach() for k, x in terms.items()},
        )

    def predict(self, x: Sample, t: float) -> Preview:
        """Return the denoised crystals, by Tweedie's formula and x_0 = a x_t - s v."""
        out, time = self.output(x, t), x.code.new_full((len(x),), t)
        u = self.frac_noise.preview(x.u, out.frac, time) * x.layout.free
        code = self.scales.clamp(self.lattice_noise.preview(x.code, out.lattice, time))
        p = self.species_probabilities(x, out.species)
        return self.preview(x, t, p, u, code * x.layout.code_free)

    def step(
        self, x: Sample, preview: Preview, t: float, s: float, rng: torch.Generator
    ) -> Sample:
        """Return x at the earlier time s: all three processes back towards the preview.

        Then the coordinates relax at the new time (corrector). What a control holds
        follows the exact bridge, whatever the sharpness, and does not relax.
        """
        lay, known = x.layout, preview.known
        now, then = (x.code.new_full((len(x),), time) for time in (t, s))
        sharpness = self.sharpness if known is None else 1.0
        u = self.frac_noise.back(x.u, preview.u, now, then, rng, sharpness) * lay.free
        code = self.lattice_noise.back(x.code, preview.code, now, then, rng)
        species = self.decide_species(x, preview, t, s, rng)
        x = Sample(x.plan, species, u, code * lay.code_free)
        if not self.corrector or s == 0:
            return x
        clean = self.frac_noise.preview(u, self.output(x, s).frac, then)
        if preview.shift is not None:  # the same addition to the score
            less = (self.frac_noise.sigma(then) / self.frac_noise.sigma(now)).square()
            clean = wrap(clean + column(less, u) * preview.shift)
        moved = self.frac_noise.correct(u, clean, then, self.corrector, rng) * lay.free
        u = moved if known is None else torch.where(known, u, moved)
        return dataclasses.replace(x, u=u)

    @torch.no_grad()
    def score(self, crystals: Crystals | Encoded, t: float) -> Tensor:
        """Return the learned score of the coordinates at a noise level.

        Equation:
            s = d log p_t(f) / d f, all species shown, lattice as it is.

        Args:
            crystals: where to ask.
            t: time in (0, 1].

        Returns:
            Per unit of fractional coordinate, shape (crystals, orbits, 3).
        """
        data = self.prepare(crystals).to(self.device)
        now = torch.full((len(data),), float(t), device=self.device)
        x = self.scales.standardize(data.code, data.layout)
        out = self.prediction(data.layout, data.species, data.u, x, now, None, 0.0)
        return out.frac * self.frac_noise.scale(now)[:, None, None]

    def preview_std(self, t: float) -> tuple[float, float]:
        """Return how uncertain noise alone makes a preview: coordinates, lattice code.

        Equation:
            of u: sigma(t), at most that of the uniform density, 1 / sqrt(12);
            of x: sin(pi t / 2), that of N(0, 1) data given x_t.
        """
        sigma = self.frac_noise.low ** (1 - t) * self.frac_noise.high**t
        return min(sigma, 12**-0.5), math.sin(0.5 * math.pi * t)

    def describe(self) -> dict[str, str]:
        """Return lines for `repr`."""
        lines = super().describe()
        how = "predictor and corrector" if self.corrector else "predictor"
        return {**lines, "sampling": f"{lines['sampling']}, {how}"}
