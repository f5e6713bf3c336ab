"""What passes between a generator and those who use it: losses, states, conditions, guides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.encoded import Encoded
from matdesign.generators.conditions import property_scales

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator

Conditions = Mapping[str, Any]
"""What crystals are asked to be: property name -> value or (low, high), and the words
"composition", "spacegroup", "crystal_system", "n_atoms"; see `request.resolve`."""

CONDITIONABLE = (
    "formation_energy_per_atom",
    "energy_above_hull",
    "band_gap",
    "volume_per_atom",
    "density",
)
"""Properties that a generator learns to be asked for, where its training set has them."""


@dataclass(frozen=True)
class Loss:
    """What training minimises, and its parts.

    Args:
        total: scalar that is differentiated.
        terms: name -> detached scalar, each with the scale its generator documents.
    """

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class State:
    """One frame of a trajectory.

    Args:
        t: time, from 1 (noise) to 0 (data).
        step: steps taken so far.
        soft: the network's belief about the finished crystals, species undecided.
    """

    t: float
    step: int
    soft: SoftCrystals

    @property
    def preview(self) -> Crystals:
        """The belief with the most probable element on every site."""
        return self.soft.harden()


class Guide(Protocol):
    """Anything that steers sampling: it calls the model as it sees fit."""

    def sample(
        self,
        model: Generator,
        n: int,
        *,
        seed: int | torch.Generator | None,
        steps: int | None,
        n_atoms: int | Sequence[int] | Tensor | None,
        conditions: Conditions | None,
        scale: float,
        batch_size: int,
    ) -> Crystals:
        """Return n crystals."""


def properties_of(train: Encoded) -> dict[str, list[float]]:
    """Return mean and standard deviation of the properties to be asked for."""
    return property_scales(
        train.labels, [x for x in CONDITIONABLE if x in train.labels]
    )


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)
