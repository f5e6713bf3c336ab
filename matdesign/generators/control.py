"""What passes through the sampling loop: samples and previews, their scales, and control."""

import dataclasses
from collections import abc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import torus_difference
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.errors import DataError
from matdesign.generators.planning import Plan, take
from matdesign.generators.request import Choices

LOOSE = (0.05, 1.0)
"""Preview std of a crystal that was made at once: 0.05 of a cell edge, and that of the
standardised lattice code in the training set."""


class Scales(nn.Module):
    """Elements that may appear, and mean, spread and bounds of the lattice code.

    Equation:
        x = (k - mean) / std on the free entries of the code, 0 on the fixed ones.

    Args:
        elements: atomic numbers seen in training.
        code_mean: mean of each entry of the lattice code where it is free, 6 numbers.
        code_std: its standard deviation.
        code_low: lower bound of x.
        code_high: upper bound of x.
    """

    allowed: Tensor
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        elements: Sequence[int],
        code_mean: Sequence[float],
        code_std: Sequence[float],
        code_low: Sequence[float],
        code_high: Sequence[float],
    ) -> None:
        super().__init__()
        allowed = torch.zeros(MASK, dtype=torch.bool)
        allowed[list(elements)] = True
        self.register_buffer("allowed", allowed, persistent=False)
        for name, values in (
            ("mean", code_mean),
            ("std", code_std),
            ("low", code_low),
            ("high", code_high),
        ):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def standardize(self, code: Tensor, layout: Layout) -> Tensor:
        """Return x, shape (crystals, 6)."""
        return (code - self.mean) / self.std * layout.code_free

    def restore(self, x: Tensor) -> Tensor:
        """Return the code of x; `Layout.project` sets the fixed entries."""
        return x * self.std + self.mean

    def clamp(self, x: Tensor) -> Tensor:
        """Return x within the quantiles of the training set."""
        return torch.minimum(torch.maximum(x, self.low), self.high)

    def lattice(self, x: Tensor, layout: Layout) -> Tensor:
        """Return the primitive cells of x, rows in angstrom, in full precision."""
        with torch.autocast(x.device.type, enabled=False):
            return layout.lattice(self.restore(x))


def scales_of(train: Encoded) -> dict[str, Any]:
    """Return the constructor keywords of `Scales` for a training set.

    Means and spreads are over the crystals in which an entry of the code is free; bounds
    are the quantiles 0.001 and 0.999 with a margin of 0.1.

    Raises:
        DataError: the training set is empty.
    """
    if not len(train):
        raise DataError("the training set is empty; give at least one crystal.")
    free, code = train.layout.code_free, train.code.double()
    rows = []
    for entry in range(6):
        values = code[free[:, entry], entry]
        if not len(values):
            rows.append([0.0, 1.0, -0.1, 0.1])
            continue
        mean = values.mean()
        std = values.std(unbiased=False).clamp(min=0.02)
        x = (values - mean) / std
        low, high = x.quantile(0.001) - 0.1, x.quantile(0.999) + 0.1
        rows.append([float(mean), float(std), float(low), float(high)])
    names = ("code_mean", "code_std", "code_low", "code_high")
    columns = zip(*rows, strict=True)
    seen = train.species.unique()
    return {
        "elements": seen[seen > 0].tolist(),
        "size_histogram": train.n_atoms.bincount().tolist(),
        **{
            name: [round(value, 6) for value in column]
            for name, column in zip(names, columns, strict=True)
        },
    }


@dataclass(frozen=True, eq=False)
class Sample:
    """Crystals on their way from noise to data: what `start` makes and `step` changes.

    Families with more to carry along inherit from it.

    Args:
        plan: what is fixed beforehand.
        species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
        u: free coordinates, shape (crystals, orbits, 3).
        code: standardised lattice code, shape (crystals, 6).
    """

    plan: Plan
    species: Tensor
    u: Tensor
    code: Tensor

    @property
    def layout(self) -> Layout:
        """Where atoms may be."""
        return self.plan.layout

    def __len__(self) -> int:
        return len(self.species)


@dataclass(frozen=True, eq=False)
class Preview:
    """What a model expects of the finished crystals, in numbers that can be moved.

    Args:
        layout: where atoms may be.
        scales: of the lattice code.
        species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
        probabilities: of each element, shape (crystals, orbits, 104).
        u: free coordinates, shape (crystals, orbits, 3).
        code: standardised lattice code, shape (crystals, 6).
        std: preview std of u and of code, were the data as broad as the noise's scale
            says: 0 where all is decided, and for coordinates that say nothing yet.
        t: time, from 1 (noise) to 0 (data), where the family tells it.
        placed: orbits whose coordinates are drawn, bool, shape (crystals, orbits); None
            = all.
        shift: what a control moved u by, shape (crystals, orbits, 3).
        known: coordinates that a control holds, bool, shape (crystals, orbits, 3).
    """

    layout: Layout
    scales: Scales
    species: Tensor
    probabilities: Tensor
    u: Tensor
    code: Tensor
    std: tuple[float, float] = LOOSE
    t: float = 0.0
    placed: Tensor | None = None
    shift: Tensor | None = None
    known: Tensor | None = None

    def soft(
        self,
        u: Tensor | None = None,
        code: Tensor | None = None,
        probabilities: Tensor | None = None,
    ) -> SoftCrystals:
        """Return the crystals with some numbers replaced; gradients flow through all.

        Args:
            u: free coordinates; None keeps them.
            code: standardised lattice code; None keeps it.
            probabilities: of each element of each orbit; None keeps them.
        """
        layout = self.layout
        each = self.probabilities if probabilities is None else probabilities
        index = layout.orbit[..., None].expand(-1, -1, each.shape[-1])
        return SoftCrystals(
            each.gather(1, index) * layout.mask[..., None],
            layout.expand(self.u if u is None else u),
            self.scales.lattice(self.code if code is None else code, layout),
            layout.mask,
            self.t,
        )


@dataclass(frozen=True, eq=False)
class Control:
    """What shall change between two steps; every part may be left out.

    Args:
        keep: go on with these crystals, long, shape (crystals,); one named twice goes on
            twice. The other parts are for the crystals that are kept, in this order.
        u: free coordinates that the preview shall have, shape (crystals, orbits, 3).
        code: standardised lattice code that it shall have, shape (crystals, 6).
        logits: added to the log-probabilities of the elements of undecided orbits,
            -inf forbids, shape (crystals, orbits, 104).
        known: coordinates that are known: they follow `u` alone, bool, like `u`.
        probabilities: of the elements of the finished crystals, shape (crystals, orbits,
            104).
    """

    keep: Tensor | None = None
    u: Tensor | None = None
    code: Tensor | None = None
    logits: Tensor | None = None
    known: Tensor | None = None
    probabilities: Tensor | None = None

    def apply(self, x: Any, preview: Preview) -> tuple[Any, Preview]:
        """Return the samples to go on with, and the preview to go on towards.

        Args:
            x: samples, in whatever form their family keeps them; see `take`.
            preview: of the same crystals.
        """
        if self.keep is not None:
            x, preview = take(x, self.keep), take(preview, self.keep)
        changes: dict[str, Any] = {}
        if self.u is not None:
            shift = torus_difference(preview.u, self.u) * preview.layout.free
            changes |= {"u": self.u, "shift": shift, "known": self.known}
        if self.code is not None:
            changes["code"] = self.code
        if self.logits is not None:
            open_ = (preview.species == MASK)[..., None]
            moved = (preview.probabilities.log() + self.logits).softmax(-1)
            changes["probabilities"] = torch.where(open_, moved, preview.probabilities)
        if self.probabilities is not None:
            changes["probabilities"] = self.probabilities
        return x, dataclasses.replace(preview, **changes)


@dataclass(frozen=True)
class State:
    """One moment of the sampling loop.

    Args:
        t: time, from 1 (noise) to 0 (data).
        step: steps taken so far.
        preview: what the model expects of the finished crystals.
    """

    t: float
    step: int
    preview: Preview

    @cached_property
    def soft(self) -> SoftCrystals:
        """The previewed crystals, species undecided, with the orbits that are placed."""
        soft, placed = self.preview.soft(), self.preview.placed
        if placed is None:
            return soft
        mask = soft.mask & placed.gather(1, self.preview.layout.orbit)
        there = mask[..., None]
        return SoftCrystals(
            soft.species * there, soft.frac * there, soft.lattice, mask, soft.t
        )

    @property
    def crystals(self) -> Crystals:
        """The preview with the most probable element on every site."""
        return self.soft.harden()


States = abc.Generator[State, "Control | None", Preview]
"""The sampling loop: yields states, may be sent a control after each, returns the end."""


class Controller(Protocol):
    """Anything that looks at every state of the sampling loop and may change it.

    Attributes:
        particles: crystals that are made for each one that is asked for.
        choices: which elements may be where; None forbids nothing.
        noise: of stochastic (SDE) steps where a sampler has deterministic ones; 0 for none.
    """

    particles: int
    choices: Choices | None
    noise: float

    def begin(self, device: torch.device, crystals: int) -> None:
        """Hear that a batch of so many crystals (times particles) starts."""

    def control(self, state: State) -> Control | None:
        """Return what shall change; None lets the sampler go on."""

    def choose(self, state: State) -> Tensor:
        """Return which crystal of the last state stands for each one asked for."""
