"""What the reference network of scripts/reference_network.py costs."""

from collections.abc import Sequence
from typing import Any

import torch
from bench_cost import Effort, cost, draw_sizes, timed_steps, training_step
from reference_network import STEPS, Reference
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.generators.batching import by_size


def reference_training(
    reference: Reference, data: Crystals, effort: Effort, device: str
) -> dict[str, Any]:
    """Return the cost of a training step of the reference, on fewer crystals."""
    some = data[: effort.reference]
    groups = by_size(some.n_atoms, torch.arange(len(some)), least=8)
    batches = [(_trimmed(some, g).to(device), len(g) / len(some)) for g in groups]
    step = training_step(
        list(reference.parameters()),
        [(lambda b=b: reference.loss(b), w) for b, w in batches],
    )
    return timed_steps(step, len(some), effort, device)


def reference_sampling(
    reference: Reference, sizes: Tensor, effort: Effort, device: str
) -> dict[str, Any]:
    """Return the cost of sampling with the reference: a few levels, scaled to all."""
    groups = by_size(sizes, torch.arange(len(sizes)), least=8)
    batches = [sizes[g].to(device) for g in groups]
    for some in batches[:1]:
        reference.steps(some, 1)

    def levels() -> int:
        return sum(reference.steps(some, effort.levels) for some in batches)

    asked, took = cost(levels, device)
    scale = STEPS / effort.levels / len(sizes)
    return {
        "crystals": len(sizes),
        "levels_timed": effort.levels,
        "seconds_per_crystal": took.seconds(effort.clock) * scale,
        "evaluations_per_crystal": asked * scale,
        "memory_MiB": took.memory,
    }


def _trimmed(crystals: Crystals, index: Tensor) -> Crystals:
    some = crystals[index]
    width = int(some.n_atoms.max())
    return Crystals(some.species[:, :width], some.frac[:, :width], some.lattice)


class References:
    """The reference as published, and factored; measured once for each data set.

    Args:
        effort: how much is measured.
        device: "cpu" or "cuda".
    """

    def __init__(self, effort: Effort, device: str) -> None:
        self.effort, self.device = effort, device
        self.kinds = {
            "published": Reference(hidden=effort.hidden).to(device),
            "factored": Reference(hidden=effort.hidden, factored=True).to(device),
        }
        self.known_sampling: dict[tuple[int, ...], dict[str, dict[str, Any]]] = {}
        self.known_training: dict[str, dict[str, Any]] = {}

    @property
    def parameters(self) -> int:
        """Weights of the reference network."""
        return sum(p.numel() for p in self.kinds["published"].network.parameters())

    def sampling(self, histogram: Sequence[int]) -> dict[str, dict[str, Any]]:
        """Return the cost of sampling crystals of the sizes that a histogram has."""
        key = tuple(histogram)
        if key not in self.known_sampling:
            sizes = draw_sizes(histogram, self.effort.reference)
            self.known_sampling[key] = {
                name: reference_sampling(one, sizes, self.effort, self.device)
                for name, one in self.kinds.items()
            }
        return self.known_sampling[key]

    def training(self, data: Crystals) -> dict[str, dict[str, Any]]:
        """Return the cost of a training step; measured on the first data given."""
        if not self.known_training:
            self.known_training = {
                name: reference_training(one, data, self.effort, self.device)
                for name, one in self.kinds.items()
            }
        return self.known_training
