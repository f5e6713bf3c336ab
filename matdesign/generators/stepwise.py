"""`Stepwise`: what `FlowMatching` and `Diffusion` share, which go from noise to data."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor

from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.backbone import Prediction
from matdesign.generators.conditions import Condition
from matdesign.generators.control import Preview, Sample
from matdesign.generators.denoiser import Denoiser
from matdesign.generators.family import Family
from matdesign.generators.noise import AbsorbingNoise, centred, uniform
from matdesign.generators.planning import Plan, allowed_elements, decide


class Stepwise(Family):
    """A generator whose one network predicts coordinates, cell and species at every step.

    Subclasses say how coordinates and cell come back from noise (`loss`, `predict`,
    `step`) and how uncertain a preview is (`preview_std`). Species are hidden and found
    one by one in all of them.

    Args:
        config: keywords of the subclass, as it was called: of `FlowMatching`, say.
    """

    symmetries: ClassVar[frozenset[str]] = frozenset(
        {"permutation", "translation", "integer_shift", "rotation"}
    )
    stepwise: ClassVar[bool] = True
    templated: ClassVar[bool] = True
    network: Denoiser

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.default_steps, self.reveal = config["steps"], config["reveal"]
        self.temperature = config["temperature"]
        self.species_noise = AbsorbingNoise(config["settled"])
        self.network = Denoiser(
            properties=config["properties"],
            positions=config["representation"] == "symmetric",
            width=config["width"],
            layers=config["layers"],
            heads=config["heads"],
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
        """Return the network's output; in P1 that for the coordinates has no mean."""
        self.evaluations += len(species) * self.network.passes(condition, scale)
        out = self.network.guided(
            layout, self.scales, species, u, code, t, condition, scale
        )
        return out._replace(frac=centred(out.frac, layout))

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
        """Return probabilities of elements, with temperature and the plan's roles."""
        allowed = allowed_elements(x.plan, x.species, self.scales.allowed)
        logits = logits / self.temperature
        return self.species_noise.probabilities(x.species, logits, allowed)

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

    def describe(self) -> dict[str, str]:
        """Return lines for `repr`."""
        return {**super().describe(), "sampling": f"{self.default_steps} steps"}
