"""What passes between a generator and those who use it: losses, states, steers, guides."""

from __future__ import annotations

import dataclasses
from collections import abc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.conditions import property_scales
from matdesign.generators.scales import Scales

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


LOOSE = (0.05, 1.0)
"""Spread of the free coordinates and of the standardised lattice code of a crystal that
was made at once: 0.05 of a cell edge, and that of the training set."""


@dataclass(frozen=True)
class Loss:
    """What training minimises, and its parts.

    Args:
        total: scalar that is differentiated.
        terms: name -> detached scalar, each with the scale its generator documents.
    """

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Steer:
    """What a sampler is told between two steps; every part may be left out.

    Args:
        keep: go on with these crystals, long, shape (crystals,); one named twice goes on
            twice. The other parts are for the crystals that are kept, in this order.
        u: what the preview's free coordinates shall be, shape (crystals, orbits, 3).
        code: what its standardised lattice code shall be, shape (crystals, 6).
        logits: added to the log-probabilities of the elements of undecided orbits,
            -inf forbids, shape (crystals, orbits, 104).
        held: coordinates that are known: they follow `u` alone, bool, like `u`.
        belief: what the probabilities of the elements of the last state shall be, shape
            (crystals, orbits, 104).
        noise: size a of the noise of a deterministic sampler's stochastic twin.
    """

    keep: Tensor | None = None
    u: Tensor | None = None
    code: Tensor | None = None
    logits: Tensor | None = None
    held: Tensor | None = None
    belief: Tensor | None = None
    noise: float = 0.0


@dataclass(frozen=True, eq=False)
class Frame:
    """The free numbers behind a preview, so that it can be moved.

    Args:
        layout: where atoms may be.
        scales: of the lattice code.
        species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
        belief: probability of each element, shape (crystals, orbits, 104).
        u: free coordinates, shape (crystals, orbits, 3).
        code: standardised lattice code, shape (crystals, 6).
        spread: how far the truth may be from u and from code, a standard deviation each,
            were the data as broad as the noise's scale says: 0 where all is decided.
        t: time of the state, from 1 (noise) to 0 (data), where its family tells it.
    """

    layout: Layout
    scales: Scales
    species: Tensor
    belief: Tensor
    u: Tensor
    code: Tensor
    spread: tuple[float, float]
    t: float = 0.0

    def soft(
        self,
        u: Tensor | None = None,
        code: Tensor | None = None,
        belief: Tensor | None = None,
    ) -> SoftCrystals:
        """Return the preview with some numbers replaced; gradients flow through all.

        Args:
            u: free coordinates; None keeps them.
            code: standardised lattice code; None keeps it.
            belief: probability of each element of each orbit; None keeps it.
        """
        return written(
            self.scales,
            self.layout,
            self.belief if belief is None else belief,
            self.u if u is None else u,
            self.code if code is None else code,
            self.t,
        )

    def rows(self, keep: Tensor) -> Frame:
        """Return the frame of some crystals, one named twice counting twice."""
        tensors = (self.species, self.belief, self.u, self.code)
        species, belief, u, code = (one[keep] for one in tensors)
        layout = self.layout.rows(keep)
        return dataclasses.replace(
            self, layout=layout, species=species, belief=belief, u=u, code=code
        )


@dataclass(frozen=True)
class State:
    """One frame of a trajectory.

    Args:
        t: time, from 1 (noise) to 0 (data).
        step: steps taken so far.
        soft: the network's belief about the finished crystals, species undecided.
        frame: the free numbers behind it; None where a generator does not say.
    """

    t: float
    step: int
    soft: SoftCrystals
    frame: Frame | None = None

    @property
    def preview(self) -> Crystals:
        """The belief with the most probable element on every site."""
        return self.soft.harden()

    def steered(self, steer: Steer) -> State:
        """Return this state as a steer wants it: how the last one of all is moved."""
        if self.frame is None:
            return self
        frame = self.frame if steer.keep is None else self.frame.rows(steer.keep)
        u = frame.u if steer.u is None else steer.u
        code = frame.code if steer.code is None else steer.code
        belief = frame.belief if steer.belief is None else steer.belief
        frame = dataclasses.replace(frame, u=u, code=code, belief=belief)
        return dataclasses.replace(self, soft=frame.soft(), frame=frame)


States = abc.Generator[State, "Steer | None", None]
"""What a sampler is: it yields states, and may be told something after each."""


class Steering(Protocol):
    """Anything that looks at every state of a sampler and may tell it something.

    Attributes:
        particles: crystals that are made for each one that is asked for.
        choices: which elements may be where; None forbids nothing.
    """

    particles: int
    choices: Choices | None

    def begin(self, model: Generator, crystals: int) -> None:
        """Hear that a batch of so many crystals (times particles) starts."""

    def steer(self, state: State) -> Steer | None:
        """Return what the sampler shall do; None lets it go on."""

    def choose(self, state: State) -> Tensor:
        """Return which crystal of the last state stands for each one asked for."""


class Choices(Protocol):
    """Says which elements may still be where, given what is already decided."""

    @property
    def required(self) -> frozenset[int]:
        """Elements that must be there in the end, whatever else is asked."""

    def __call__(
        self, species: Tensor, counts: Tensor, role: Tensor | None, among: Tensor
    ) -> Tensor:
        """Return what each undecided orbit may become, so that all can be finished.

        Args:
            species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
            counts: atoms of each orbit, 0 on padding, shape (crystals, orbits).
            role: orbits of one role carry one element, -1 = no role; None = no roles.
            among: elements to choose from, bool, shape (crystals, orbits, 104).

        Returns:
            Bool, shape (crystals, orbits, 104), a part of `among`; nothing at all on the
            undecided orbits of a crystal that cannot be finished.
        """


def written(
    scales: Scales,
    layout: Layout,
    belief: Tensor,
    u: Tensor,
    code: Tensor,
    t: float = 0.0,
) -> SoftCrystals:
    """Return orbits written out as atoms.

    Args:
        scales: of the lattice code.
        layout: where atoms may be.
        belief: probability of each element, shape (crystals, orbits, 104).
        u: free coordinates, shape (crystals, orbits, 3).
        code: standardised lattice code, shape (crystals, 6).
        t: time of the state, from 1 (noise) to 0 (data).
    """
    index = layout.orbit[..., None].expand(-1, -1, belief.shape[-1])
    return SoftCrystals(
        belief.gather(1, index) * layout.mask[..., None],
        layout.expand(u),
        scales.lattice(code, layout),
        layout.mask,
        t,
    )


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
        batch_size: int | None,
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
