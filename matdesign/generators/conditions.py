"""`Condition` and `ConditionEncoder`: what was asked for, as numbers a network can read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from matdesign.crystals import elements
from matdesign.crystals.batch import generator
from matdesign.crystals.lattice_code import SYSTEMS, system_of
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.generators.layers import chemistry_code

CONDITIONABLE = (
    "formation_energy_per_atom",
    "energy_above_hull",
    "band_gap",
    "volume_per_atom",
    "density",
)
"""Properties that a generator learns to be asked for, where its training set has them."""

SPACEGROUP_LABELS = ("spacegroup", "spacegroup_0.1", "spacegroup_0.01")
"""Names under which data sets keep the space group; the first one there is is read."""


@dataclass(frozen=True, eq=False)
class Condition:
    """What each crystal of a batch shall be, with everything that was left open marked.

    Args:
        low: lower end of each property, standardised, -inf = open, shape
            (crystals, properties).
        high: upper end, +inf = open.
        given: whether anything is asked of the property, bool, same shape.
        spacegroup: number, 0 = not given, long, shape (crystals,).
        system: crystal system, 1 to 7, 0 = not given, long, shape (crystals,).
        composition: fraction of the atoms that are of each element, all zero = not given,
            shape (crystals, 104).
    """

    low: Tensor
    high: Tensor
    given: Tensor
    spacegroup: Tensor
    system: Tensor
    composition: Tensor

    @classmethod
    def nothing(
        cls, crystals: int, properties: int, device: torch.device | str = "cpu"
    ) -> Condition:
        """Return the condition that leaves everything open.

        Args:
            crystals: number of crystals.
            properties: number of properties that the model knows.
            device: where the tensors lie.
        """
        none = torch.zeros(crystals, dtype=torch.long, device=device)
        ends = torch.full((crystals, properties), torch.inf, device=device)
        return cls(
            -ends,
            ends,
            torch.zeros_like(ends, dtype=torch.bool),
            none,
            none.clone(),
            torch.zeros(crystals, elements.MAX_Z + 1, device=device),
        )

    def __len__(self) -> int:
        return len(self.spacegroup)

    @property
    def anything(self) -> Tensor:
        """Whether anything at all is asked of each crystal, shape (crystals,)."""
        named = (self.spacegroup > 0) | (self.system > 0)
        return named | self.given.any(1) | (self.composition > 0).any(1)

    def __getitem__(self, index: Tensor) -> Condition:
        """Return the conditions of some crystals."""
        return Condition(*(part[index] for part in vars(self).values()))

    def to(self, device: torch.device | str) -> Condition:
        """Return the condition on a device."""
        return Condition(*(part.to(device) for part in vars(self).values()))

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Return one condition of all crystals."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Condition(*map(torch.cat, columns))


def combine(null: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Return the guided prediction from one without and one with the condition.

    Vectors and logits combine alike; a logit that is -inf on either side stays -inf. On
    the torus the vectors are tangent vectors, so the sum is one too; take out the mean
    drift afterwards where a mean of zero is promised.

    Equation:
        guided = (1 - scale) null + scale conditional

    Args:
        null: prediction with nothing given, shape (crystals, ...).
        conditional: prediction with the condition, same shape.
        scale: 0 unconditional, 1 conditional, above 1 guided.

    Source:
        Ho and Salimans, arXiv 2207.12598, with gamma = 1 + w.

    Example:
        >>> combine(torch.tensor([1.0]), torch.tensor([2.0]), 3.0).tolist()
        [4.0]
    """
    impossible = torch.isneginf(null) | torch.isneginf(conditional)
    null = null.masked_fill(impossible, 0.0)
    mixed = torch.lerp(null, conditional.masked_fill(impossible, 0.0), float(scale))
    return mixed.masked_fill(impossible, -torch.inf)


def guided(raw: Tensor, copies: int, scale: float) -> Tensor:
    """Return one copy of logits as it is, or `combine` of the first and second of two."""
    return raw if copies == 1 else combine(raw.chunk(2)[0], raw.chunk(2)[1], scale)


def properties_of(train: Encoded) -> dict[str, list[float]]:
    """Return name -> [mean, standard deviation] of what a model may be asked for.

    These are the labels of `CONDITIONABLE` that the training set has, with at least two
    different values.

    Args:
        train: crystals with labels; NaN = unknown.
    """
    kept = {}
    for name, values in train.labels.items():
        known = values[values.isfinite()].double()
        if name in CONDITIONABLE and len(known) > 1 and float(known.std()) > 1e-9:
            kept[name] = [round(float(known.mean()), 6), round(float(known.std()), 6)]
    return kept


class ConditionEncoder(nn.Module):
    """Turns a condition into a vector that is added to the network's own.

    A crystal of which nothing is asked gets exactly zero, so the same weights are the
    unconditional model too; and the last layer starts at zero, so an untrained encoder
    changes nothing.

    Args:
        width: size of the vector.
        properties: name -> [mean, standard deviation] of each property; their order is
            that of the columns of `Condition.low`.
    """

    code: Tensor
    span = 4.0
    """Ends of a range are kept within this many standard deviations of the mean."""

    def __init__(self, width: int, properties: Mapping[str, Sequence[float]]) -> None:
        super().__init__()
        self.properties = {name: list(pair) for name, pair in properties.items()}
        self.register_buffer(
            "code", chemistry_code()[: elements.MAX_Z + 1], persistent=False
        )
        self.ranges = nn.Parameter(torch.empty(6 * len(self.properties), width))
        self.spacegroup = nn.Embedding(231, width)
        self.system = nn.Embedding(len(SYSTEMS) + 1, width)
        self.element = nn.Embedding(elements.MAX_Z + 1, width)
        self.chemistry = nn.Linear(2 * self.code.shape[1], width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.reset(0)

    @torch.no_grad()
    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed; the last layer starts at zero."""
        rng = generator(seed)
        self.ranges.uniform_(-0.5, 0.5, generator=rng)
        for part in (self.chemistry, self.hidden):
            bound = part.in_features**-0.5
            part.weight.uniform_(-bound, bound, generator=rng)
        for table in (self.spacegroup, self.system, self.element):
            table.weight.normal_(generator=rng).mul_(0.3)
        for zero in (self.hidden.bias, self.output.bias, self.output.weight):
            zero.zero_()

    def forward(self, condition: Condition) -> Tensor:
        """Return one vector for each crystal, shape (crystals, width)."""
        x = self._range_features(condition) @ self.ranges
        system = torch.where(
            condition.system > 0, condition.system, system_of(condition.spacegroup)
        )
        x = x + self.spacegroup(condition.spacegroup) + self.system(system)
        share = condition.composition.to(x)  # (b, 104)
        spread = (share @ self.code.square() - (share @ self.code).square()).clamp(
            min=0
        )
        chemistry = torch.cat([share @ self.code, spread], dim=1)
        x = x + share @ self.element.weight + self.chemistry(chemistry)
        made: Tensor = self.output(nn.functional.silu(self.hidden(x)))
        return made * condition.anything[:, None]

    def _range_features(self, condition: Condition) -> Tensor:
        """Return six numbers for each property, zero where it is not given."""
        low, high = (
            end.clamp(-self.span, self.span) for end in (condition.low, condition.high)
        )
        low_open, high_open = condition.low.isneginf(), condition.high.isposinf()
        width = high - low
        features = torch.stack(
            [
                torch.ones_like(low),
                low_open.to(low),
                high_open.to(low),
                low.masked_fill(low_open, 0.0),
                high.masked_fill(high_open, 0.0),
                (-width / 0.3).exp(),  # 1 for a value, 0 for a wide range
            ],
            dim=-1,
        )
        return (features * condition.given[..., None]).flatten(1).to(self.ranges)

    def training_condition(
        self,
        batch: Encoded,
        rng: torch.Generator,
        *,
        drop: float = 0.5,
        drop_all: float = 0.1,
    ) -> Condition:
        """Return true things about each crystal, many of them left out at random.

        Each field is left out on its own with probability `drop`, so that every subset
        is seen, and all of them together with probability `drop_all`. A property that
        is kept becomes its value, a two-sided range that holds it, or a range with one
        open end, each for a third of the crystals.

        Args:
            batch: crystals with their labels; NaN labels count as left out.
            rng: source of randomness, on the batch's device.
            drop: chance that one field is left out.
            drop_all: chance that everything is.
        """
        b, at = len(batch), batch.code.device

        def chance(*shape: int) -> Tensor:
            return torch.rand(shape, generator=rng, device=rng.device).to(at)

        p = len(self.properties)
        whole = chance(b) >= drop_all
        kept = (chance(b, p + 3) >= drop) & whole[:, None]
        low, high, given = self._training_ranges(batch, chance)
        given = given & kept[:, :p]
        group = _true_groups(batch)
        counts = batch.layout.count.float()  # (b, orbits)
        share = torch.zeros(b, elements.MAX_Z + 1, device=at)
        share.scatter_add_(1, batch.species, counts)
        share = share / counts.sum(1, keepdim=True).clamp(min=1)
        return Condition(
            low.masked_fill(~given, -torch.inf),
            high.masked_fill(~given, torch.inf),
            given,
            group * kept[:, p],
            system_of(group) * kept[:, p + 1],
            share * kept[:, p + 2, None],
        )

    def _training_ranges(
        self, batch: Encoded, chance: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ends around the true values, and which values are known."""
        b, p, at = len(batch), len(self.properties), batch.code.device
        true = torch.full((b, p), torch.nan, device=at)
        for i, (name, (mean, std)) in enumerate(self.properties.items()):
            if name in batch.labels:
                true[:, i] = (batch.labels[name].to(at, torch.float32) - mean) / std
        # widths from 0.05 to 3 standard deviations, each size as likely as the next
        low_gap, high_gap = (
            torch.exp(math.log(0.05) + math.log(60.0) * chance(b, p)) for _ in range(2)
        )
        kind, side = chance(b, p), chance(b, p) < 0.5
        exact, one_sided = kind < 1 / 3, kind >= 2 / 3
        low = true - low_gap.masked_fill(exact, 0.0)
        high = true + high_gap.masked_fill(exact, 0.0)
        low = low.masked_fill(one_sided & side, -torch.inf)
        high = high.masked_fill(one_sided & ~side, torch.inf)
        return low, high, true.isfinite()


def _true_groups(batch: Encoded) -> Tensor:
    """Return the space group of each crystal, 0 where it is not known."""
    group = batch.layout.spacegroup
    if batch.representation == "symmetric" or bool((group > 1).any()):
        return group
    for name in SPACEGROUP_LABELS:
        if name in batch.labels:
            known = batch.labels[name].nan_to_num(0.0).round().long()
            return torch.where((known >= 1) & (known <= 230), known, 0).to(group.device)
    return torch.zeros_like(group)
