"""`Diffusion`: coordinates, lattice and species denoised together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from matdesign.crystals import elements as periodic_table
from matdesign.crystals.batch import Crystals, SoftCrystals, generator
from matdesign.crystals.lattice_code import from_code, to_code
from matdesign.errors import DataError, ShapeError
from matdesign.generators.backbone import PairTransformer, Prediction
from matdesign.generators.contract import Generator, Loss, State
from matdesign.generators.features import MASK
from matdesign.generators.noise import (
    AbsorbingNoise,
    GaussianNoise,
    WrappedNoise,
    uniform,
)


class Diffusion(Generator):
    """Denoising diffusion of whole crystals in the primitive cell (P1).

    Three noise processes run side by side: coordinates spread around the torus, the
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
        width: size of the network's tokens.
        layers: attention layers.
        heads: attention heads.
        settled: time below which all elements are decided.
        steps: default number of sampling steps.
        corrector: size of the Langevin step after each predictor step; 0 for none.
        temperature: below 1, elements are drawn nearer to the most probable one; 1 draws
            from the model's own distribution.
        sharpness: above 1, coordinates follow the score farther in each step and end
            nearer to the modes; 1 draws from the model's own distribution.

    Source:
        DiffCSP, Jiao et al., arXiv 2309.04475, and MatterGen, Zeni et al., arXiv
        2312.03687. Changed: log-symmetric lattice code with a prior at mean density,
        absorbing species normalised over seen elements, and the network.
    """

    symmetries: ClassVar[frozenset[str]] = frozenset(
        {"permutation", "translation", "integer_shift", "rotation"}
    )
    code_mean: Tensor
    code_std: Tensor
    code_low: Tensor
    code_high: Tensor
    allowed: Tensor

    def __init__(
        self,
        *,
        elements: Sequence[int],
        size_histogram: Sequence[int],
        code_mean: Sequence[float],
        code_std: Sequence[float],
        code_low: Sequence[float],
        code_high: Sequence[float],
        width: int = 128,
        layers: int = 6,
        heads: int = 8,
        settled: float = 0.3,
        steps: int = 100,
        corrector: float = 0.2,
        temperature: float = 1.0,
        sharpness: float = 1.0,
    ) -> None:
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(config, size_histogram)
        self.default_steps = steps
        self.corrector, self.temperature = corrector, temperature
        self.sharpness = sharpness
        self.frac_noise = WrappedNoise()
        self.lattice_noise = GaussianNoise()
        self.species_noise = AbsorbingNoise(settled)
        self.network = PairTransformer(width=width, layers=layers, heads=heads)
        allowed = torch.zeros(MASK, dtype=torch.bool)
        allowed[list(elements)] = True
        self.register_buffer("allowed", allowed, persistent=False)
        for name in ("code_mean", "code_std", "code_low", "code_high"):
            self.register_buffer(name, torch.tensor(config[name]), persistent=False)

    @classmethod
    def for_data(
        cls, train: Crystals, *, seed: int | torch.Generator | None = 0, **options: Any
    ) -> Self:
        """Return an untrained model for a training set of primitive, reduced cells.

        Args:
            train: its elements, cell sizes and lattices set the model's scales.
            seed: of the initial weights.
            **options: keywords of the constructor, such as `width`.

        Raises:
            DataError: the training set is empty.
        """
        if not len(train):
            raise DataError("the training set is empty; give at least one crystal.")
        code = to_code(train.lattice.double(), train.n_atoms)
        mean, std = code.mean(0), code.std(0, unbiased=False).clamp(min=0.02)
        standard = (code - mean) / std
        scales = {
            "code_mean": mean,
            "code_std": std,
            "code_low": standard.quantile(0.001, dim=0) - 0.1,
            "code_high": standard.quantile(0.999, dim=0) + 0.1,
        }
        rounded: dict[str, Any] = {
            name: [round(x, 6) for x in value.tolist()]
            for name, value in scales.items()
        }
        model = cls(
            elements=train.species.unique()[int((train.species == 0).any()) :].tolist(),
            size_histogram=train.n_atoms.bincount().tolist(),
            **rounded,
            **options,
        )
        model.network.reset(seed)
        return model

    def encode(self, crystals: Crystals) -> Tensor:
        """Return the standardised lattice code, shape (crystals, 6)."""
        code = to_code(crystals.lattice, crystals.n_atoms)
        return (code - self.code_mean) / self.code_std

    def decode(self, code: Tensor, n_atoms: Tensor) -> Tensor:
        """Return the lattice, rows in angstrom, of a standardised code."""
        with torch.autocast(code.device.type, enabled=False):
            return from_code(code * self.code_std + self.code_mean, n_atoms)

    def predict(
        self, species: Tensor, frac: Tensor, code: Tensor, t: Tensor
    ) -> Prediction:
        """Return the network's outputs for a noisy batch at times t."""
        self.evaluations += len(species)
        lattice = self.decode(code, (species > 0).sum(1))
        output: Prediction = self.network(species, frac, lattice, code, t)
        # the network may run in half precision; noise and loss never do
        moved, shape, logits = (one.to(frac.dtype) for one in output)
        return Prediction(moved, shape, logits.masked_fill(~self.allowed, -torch.inf))

    def loss(
        self, crystals: Crystals, *, seed: int | torch.Generator | None = None
    ) -> Loss:
        """Return the loss of a batch: three terms of equal weight.

        Terms: `frac`, mean square error of the normalised score (1 for an untrained
        network); `lattice`, mean square error of v (1 for an untrained network);
        `species`, cross entropy in nats per hidden site.
        """
        rng = generator(seed, self.device)
        mask, b = crystals.mask, len(crystals)
        t = (uniform((b,), crystals.frac, rng) + torch.arange(b).to(crystals.frac)) / b
        frac, score = self.frac_noise.add(crystals.frac, mask, t, rng)
        code, v = self.lattice_noise.add(self.encode(crystals), t, rng)
        species = self.species_noise.add(crystals.species, t, rng)
        output = self.predict(species, frac, code, t)

        free = 3 * (crystals.n_atoms - 1)  # one atom's place is a choice of origin
        wrong = (output.frac - score).square().sum((1, 2)) / free.clamp(min=1)
        hidden = species == MASK
        log_p = output.species.log_softmax(-1)
        surprise = -log_p.gather(-1, crystals.species.unsqueeze(-1)).squeeze(-1)
        surprise = surprise.masked_fill(~hidden, 0.0).sum(1) / hidden.sum(1).clamp(
            min=1
        )
        terms = {
            "frac": wrong.sum() / (free > 0).sum().clamp(min=1),
            "lattice": (output.lattice - v).square().mean(),
            "species": surprise.sum() / hidden.any(1).sum().clamp(min=1),
        }
        return Loss(
            torch.stack(list(terms.values())).sum(),
            {k: x.detach() for k, x in terms.items()},
        )

    @torch.no_grad()
    def trajectory(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        steps: int | None = None,
        n_atoms: int | Sequence[int] | Tensor | None = None,
    ) -> Iterator[State]:
        """Yield states from noise to data; the last one's preview is the result.

        Each step: ask the network, move all three processes back in time by one step
        (predictor), then let the coordinates relax at the new time (corrector).
        """
        steps = self.default_steps if steps is None else steps
        if steps < 1:
            raise ShapeError(f"steps must be at least 1; got {steps}.")
        rng = generator(seed, self.device)
        size = self.sizes(n, n_atoms, rng).to(self.device)
        sites = torch.arange(int(size.max()) if n else 0, device=self.device)
        mask = sites < size[:, None]  # (n, sites)
        species = mask * MASK
        frac = uniform((*mask.shape, 3), self.code_mean, rng)
        code = torch.randn((n, 6), generator=rng, device=self.device)
        times = torch.linspace(1, 0, steps + 1, device=self.device)
        for step in range(steps):
            t, s = times[step].expand(n), times[step + 1].expand(n)
            output = self.predict(species, frac, code, t)
            clean = self._clamp(self.lattice_noise.preview(code, output.lattice, t))
            soft = self._belief(species, output.species)
            yield State(
                float(times[step]),
                step,
                SoftCrystals(
                    soft,
                    self.frac_noise.preview(frac, output.frac, t),
                    self.decode(clean, size),
                    mask,
                ),
            )
            frac = self.frac_noise.back(frac, output.frac, t, s, rng, self.sharpness)
            code = self.lattice_noise.back(code, clean, t, s, rng)
            species = self.species_noise.back(species, soft, t, s, rng)
            if self.corrector and step + 1 < steps:
                again = self.predict(species, frac, code, s)
                frac = self.frac_noise.correct(frac, again.frac, s, self.corrector, rng)
        output = self.predict(species, frac, code, times[-1].expand(n))
        frac = self.frac_noise.preview(frac, output.frac, times[-1].expand(n))
        soft = self._belief(species, output.species)
        lattice = self.decode(self._clamp(code), size)
        yield State(
            0.0, steps, SoftCrystals(soft, frac * mask[..., None], lattice, mask)
        )

    def _clamp(self, code: Tensor) -> Tensor:
        """Keep a lattice code within the quantiles of the training set."""
        return torch.minimum(torch.maximum(code, self.code_low), self.code_high)

    def _belief(self, species: Tensor, logits: Tensor) -> Tensor:
        """Return probabilities of elements; certain where decided, zero on padding."""
        open_sites = (logits / self.temperature).softmax(-1)
        decided = torch.nn.functional.one_hot(species, MASK + 1)[..., :MASK].to(logits)
        belief = torch.where((species == MASK)[..., None], open_sites, decided)
        return belief * (species > 0)[..., None]

    def describe(self) -> dict[str, str]:
        """Return lines for `repr`."""
        names = periodic_table.symbols()
        seen = [names[z] for z in self.config["elements"]]
        shown = " ".join(seen[:12]) + (" ..." if len(seen) > 12 else "")
        kept = ("width", "layers", "heads")
        return {
            "elements": f"{len(seen)}: {shown}",
            "network": ", ".join(f"{k} {self.config[k]}" for k in kept),
            "sampling": f"{self.default_steps} steps, predictor"
            + (" and corrector" if self.corrector else ""),
        }
