"""`Stepwise`: what `FlowMatching` and `Diffusion` share, which go from noise to data."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from matdesign.crystals import elements as periodic_table
from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.encoded import Encoded, Representation, encode
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.backbone import Prediction
from matdesign.generators.conditions import Condition
from matdesign.generators.contract import Generator, properties_of
from matdesign.generators.denoiser import Denoiser
from matdesign.generators.frames import Frame
from matdesign.generators.noise import AbsorbingNoise, centred
from matdesign.generators.planning import (
    Plan,
    allowed_elements,
    decide,
    settle_roles,
)
from matdesign.generators.scales import Scales, scales_of
from matdesign.generators.templates import Templates


class Stepwise(Generator):
    """A generator that asks one network at every step for coordinates, cell and species.

    Subclasses say how coordinates and cell come back from noise (`loss`, `_states`) and
    how wide the belief about the end is (`_spread`). Species are hidden and found one by
    one in all of them.

    Args:
        config: keywords of the subclass, as it was called: of `FlowMatching`, say.
    """

    symmetries: ClassVar[frozenset[str]] = frozenset(
        {"permutation", "translation", "integer_shift", "rotation"}
    )
    stepwise: ClassVar[bool] = True
    network: Denoiser

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config, config["size_histogram"])
        self.default_steps, self.reveal = config["steps"], config["reveal"]
        self.temperature = config["temperature"]
        self.species_noise = AbsorbingNoise(config["settled"])
        means = (config[f"code_{of}"] for of in ("mean", "std", "low", "high"))
        self.scales = Scales(config["elements"], *means)
        shape: Sequence[int] | None = config["templates"]
        self.templates = None if shape is None else Templates(*shape)
        self.network = Denoiser(
            properties=config["properties"],
            positions=config["representation"] == "symmetric",
            width=config["width"],
            layers=config["layers"],
            heads=config["heads"],
        )

    @classmethod
    def for_data(
        cls,
        train: Crystals | Encoded,
        *,
        representation: Representation = "cell",
        seed: int | torch.Generator | None = 0,
        **options: Any,
    ) -> Self:
        """Return an untrained model for a training set of primitive, reduced cells.

        Args:
            train: its elements, cell sizes, lattices, templates and properties set what
                the model knows.
            representation: "cell" or "symmetric"; of no effect where `train` is encoded.
            seed: of the initial weights.
            **options: keywords of the constructor, such as `width`.

        Raises:
            DataError: the training set is empty.
        """
        data = train if isinstance(train, Encoded) else encode(train, representation)
        facts = scales_of(data)
        asked = options.get("properties", properties_of(data))
        table = None
        if data.representation == "symmetric":
            table = Templates.of(data, asked)
        shape = None if table is None else table.shape
        kind = {"representation": data.representation, "templates": shape}
        model = cls(**{"properties": asked, **kind, **facts, **options})
        model.templates = table
        model.network.reset(seed)
        return model

    def _ask(
        self,
        layout: Layout,
        species: Tensor,
        u: Tensor,
        x: Tensor,
        t: Tensor,
        condition: Condition | None,
        scale: float,
    ) -> Prediction:
        """Return the network's answer; in P1 that for the coordinates has no mean."""
        self.evaluations += len(species) * self.network.passes(condition, scale)
        said = self.network.guided(
            layout, self.scales, species, u, x, t, condition, scale
        )
        return said._replace(frac=centred(said.frac, layout))

    def _belief(self, plan: Plan, species: Tensor, logits: Tensor) -> Tensor:
        """Return probabilities of elements, with temperature and the plan's roles."""
        may_be = allowed_elements(plan, species, self.scales.allowed)
        return self.species_noise.belief(species, logits / self.temperature, may_be)

    def _decided(
        self,
        plan: Plan,
        species: Tensor,
        belief: Tensor,
        t: Tensor,
        s: Tensor,
        rng: torch.Generator,
    ) -> Tensor:
        """Return species at an earlier time, roles and choices of the plan kept."""
        allowed = self.scales.allowed
        if plan.choices is not None:
            turned = self.species_noise.turned(species, t, s, rng)
            return decide(plan, species, turned, belief, allowed, rng)
        drawn = self.species_noise.back(species, belief, t, s, rng)
        return settle_roles(plan, species, drawn, belief, allowed, rng)

    @abc.abstractmethod
    def _spread(self, t: float) -> tuple[float, float]:
        """Return how uncertain noise alone makes a preview: coordinates, lattice code."""

    def _frame(
        self,
        t: float,
        layout: Layout,
        species: Tensor,
        belief: Tensor,
        u: Tensor,
        x: Tensor,
    ) -> Frame:
        """Return the numbers behind a preview, and how uncertain they are."""
        return Frame(layout, self.scales, species, belief, u, x, self._spread(t), t)

    def describe(self) -> dict[str, str]:
        """Return lines for `repr`."""
        names = periodic_table.symbols()
        seen = [names[z] for z in self.config["elements"]]
        shown = " ".join(seen[:12]) + (" ..." if len(seen) > 12 else "")
        kept = ("representation", "width", "layers", "heads")
        return {
            "elements": f"{len(seen)}: {shown}",
            "network": ", ".join(f"{k} {self.config[k]}" for k in kept),
            "sampling": f"{self.default_steps} steps",
        }
