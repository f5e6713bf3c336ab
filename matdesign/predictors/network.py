"""`PropertyNetwork`: a small predictor of scalar properties that can guide and judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, SoftCrystals, generator
from matdesign.crystals.elements import MASK
from matdesign.errors import DataError
from matdesign.generators import storage
from matdesign.generators.contract import Loss
from matdesign.predictors.features import Moments, Surroundings, TrainingSet
from matdesign.predictors.layers import MomentNetwork, crystal_mean

_RIDGE = 1.0
"""Strength that holds the baseline of rare elements near the mean of the set."""

_BETA = 0.05
"""Error below which the loss is quadratic, in units of the network's scale."""


class PropertyNetwork(nn.Module):
    """Predicts properties such as formation energy and band gap from a crystal.

    A line through the composition gives the coarse value; the mean of a few small
    networks, which see every site's neighbours with their species, distances and angles,
    adds the rest. How far the networks disagree says where not to trust them. Build it
    with `PropertyNetwork.for_data(train, properties=[...])`, train it with `fit`.

    The prediction does not change when atoms are reordered, shifted together or rotated,
    when another cell of the same lattice is chosen, or when the cell is doubled. It is
    smooth in coordinates, lattice and species probabilities, so a sampler can follow its
    gradient.

    Equation:
        value = sum_z c_z w_z + scale * mean_members f(M, species), c_z the fraction of z

    Args:
        properties: names of what is predicted.
        units: unit of each property.
        floors: lowest value of each, None where there is none: a gap is never negative.
        members: networks whose mean is the prediction.
        width: size of the site vectors.
        layers: how often sites look at their neighbours.
        channels: size of what a site sends to its neighbours.
        mixed: angular features for each degree.
        **moments: of `Moments`: `radius`, `radial`, `near`, `coarse`, `degree`.

    Source:
        Linear moments of Shapeev, arXiv 1512.06054, weighed with learned species as in
        SchNet, arXiv 1706.08566; gates of GLU Variants, arXiv 2002.05202. Changed: all
        invariants enter one gated update per layer with the mean of the crystal.
    """

    members: Any
    baseline: Tensor
    scale: Tensor
    moment_scale: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        properties: Sequence[str],
        units: Sequence[str] = (),
        floors: Sequence[float | None] = (),
        members: int = 2,
        width: int = 96,
        layers: int = 3,
        channels: int = 24,
        mixed: int = 32,
        **moments: Any,
    ) -> None:
        config = {
            k: v
            for k, v in locals().items()
            if k not in ("self", "__class__", "moments")
        }
        super().__init__()
        self.config: dict[str, Any] = config | moments
        self.record: dict[str, Any] = {}
        self.properties = tuple(properties)
        count = len(self.properties)
        self.units = tuple(units) or ("",) * count
        self.floors = tuple(floors) or (None,) * count
        self.lowest = torch.tensor(
            [-torch.inf if x is None else x for x in self.floors]
        )
        self.moments = Moments(**moments)
        self.members = nn.ModuleList(
            MomentNetwork(
                self.moments,
                count=count,
                width=width,
                layers=layers,
                channels=channels,
                mixed=mixed,
            )
            for _ in range(members)
        )
        self.register_buffer("baseline", torch.zeros(MASK, count))
        self.register_buffer("scale", torch.ones(count))
        self.register_buffer("moment_scale", torch.ones(self.moments.size))
        self.register_buffer("seen", torch.zeros(MASK, dtype=torch.bool))

    @classmethod
    def for_data(
        cls,
        train: Crystals,
        *,
        properties: Sequence[str] | str,
        floors: Mapping[str, float] | None = None,
        seed: int | torch.Generator | None = 0,
        **options: Any,
    ) -> Self:
        """Return an untrained network whose baseline and scales fit a training set.

        Args:
            train: crystals with these properties; NaN where unknown.
            properties: names in `train.properties`.
            floors: name -> lowest value that the property can take.
            seed: of the initial weights.
            **options: keywords of the constructor, such as `width`.

        Raises:
            DataError: the set is empty, or does not have a property.
        """
        names = [properties] if isinstance(properties, str) else list(properties)
        lowest = dict(floors or {})
        for name in (*names, *lowest):
            known = train.properties.get(name)
            if known is None or name not in names or not bool(known.isfinite().any()):
                raise DataError(
                    f"no values of {name!r} to learn from among {len(train)} crystals; "
                    f"their properties are {sorted(train.properties)}. Choose of these."
                )
        net = cls(
            properties=names,
            units=[train.units.get(name, "") for name in names],
            floors=[lowest.get(name) for name in names],
            **options,
        )
        fraction = _fractions(train)
        net.seen |= (fraction > 0).any(0).cpu()
        for k, name in enumerate(names):
            value = train.properties[name].to(fraction)
            known = value.isfinite()
            x, y = fraction[known], value[known]
            weight = torch.eye(MASK).to(x) * _RIDGE + x.T @ x
            slope = torch.linalg.solve(weight, x.T @ (y - y.mean())) + y.mean()
            net.baseline[:, k] = slope.cpu()
            rest = (y - x @ slope).square().mean().sqrt()
            net.scale[k] = rest.clamp(min=1e-3).cpu()
        some = train[torch.linspace(0, len(train) - 1, min(len(train), 512)).long()]
        square, sites = torch.zeros(net.moments.size), 0
        for _, block in net.moments(some):
            total = block.sum(-1).float().cpu()  # (c, n, size)
            square += total.square().sum((0, 1))
            sites += total.shape[0] * total.shape[1]
        rms = net.moments.share(square / max(1, sites)).sqrt()
        net.moment_scale.copy_(rms.clamp(min=1e-3 * float(rms.max().clamp(min=1e-3))))
        rng = generator(seed)
        for member in net.members:
            member.reset(rng, net.seen)
        return net

    # ---- training -----------------------------------------------------------------------

    def prepare(self, crystals: Crystals) -> TrainingSet:
        """Return what `loss` reads of a set: the surroundings of all sites, found once.

        Raises:
            DataError: the set lacks a property.
        """
        missing = [name for name in self.properties if name not in crystals.properties]
        if missing:
            raise DataError(
                f"the training set has no {', '.join(missing)}; it has "
                f"{sorted(crystals.properties)}. Build the network for one of these."
            )
        device = self.scale.device
        return TrainingSet(self.surroundings, crystals, self.properties, device)

    def loss(
        self, batch: Surroundings, *, seed: int | torch.Generator | None = None
    ) -> Loss:
        """Return the loss of a batch, a sum over members: each learns as if alone.

        Terms: the mean absolute error of each property, in its own unit.

        Equation:
            loss = mean huber((f - target) / scale); where the target is at its floor, a
            prediction below the floor costs nothing.

        Args:
            batch: part of what `prepare` returned.
            seed: not used; nothing here is random.
        """
        found = self.standard(batch.species, batch.blocks)  # (members, crystals, p)
        target = batch.target.to(found)
        line = self.line(batch.species, batch.blocks)
        known = target.isfinite()
        apart = found - ((target - line) / self.scale).nan_to_num(0.0)
        apart = torch.where(
            target <= self.lowest.to(target), apart.clamp(min=0.0), apart
        )
        size = (apart * known).abs()
        huber = torch.where(
            size < _BETA, 0.5 * size.square() / _BETA, size - 0.5 * _BETA
        ) / known.sum().clamp(min=1)
        error = (size.mean(0) * self.scale).sum(0) / known.sum(0).clamp(min=1)
        terms = dict(zip(self.properties, error.detach(), strict=True))
        return Loss(huber.sum(), terms)

    # ---- prediction ---------------------------------------------------------------------

    def surroundings(
        self, crystals: Crystals | SoftCrystals
    ) -> list[tuple[Tensor, Tensor]]:
        """Return `Moments` of a batch, each divided by its size in the training set."""
        return [
            (which, block / self.moment_scale[:, None])
            for which, block in self.moments(crystals)
        ]

    def standard(self, species: Tensor, blocks: list[Tensor]) -> Tensor:
        """Return what the members add to the baseline, in units of `scale`.

        Args:
            species: as in `MomentNetwork.forward`.
            blocks: as in `MomentNetwork.forward`.

        Returns:
            Shape (members, crystals, properties), crystals in the order of the blocks.
        """
        return torch.stack([member(species, blocks) for member in self.members])

    def line(self, species: Tensor, blocks: list[Tensor]) -> Tensor:
        """Return the baseline of each crystal, shape (crystals, properties)."""
        if species.ndim == 1:
            return crystal_mean(self.baseline[species], blocks)
        return crystal_mean(species @ self.baseline, blocks)

    def _values(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return values before floors, shape (members, crystals, properties)."""
        mask, groups = crystals.mask, self.surroundings(crystals)
        out = crystals.frac.new_full(
            (len(self.members), len(mask), len(self.properties)), torch.nan
        )
        if not groups:
            return out
        blocks = [block for _, block in groups]
        # crystal after crystal, padding left out
        species = torch.cat([crystals.species[w][mask[w]] for w, _ in groups])
        index = torch.cat([which for which, _ in groups])
        found = self.standard(species, blocks) * self.scale
        found = found + self.line(species, blocks)
        # a NaN anywhere in a crystal is a NaN in what is said about it
        sites = (crystals.frac * mask[..., None]).sum((1, 2))
        sound = 0.0 * (sites + crystals.lattice.sum((1, 2)))[index, None]
        found = found + sound
        return out.index_copy(1, index, found.to(out))

    @torch.no_grad()
    def predict_members(self, crystals: Crystals) -> dict[str, Tensor]:
        """Return what every member predicts; their spread is a sign of doubt.

        Args:
            crystals: hard crystals, on any device.

        Returns:
            Name -> values in the unit of the property, shape (members, crystals); NaN for
            a crystal without atoms, or with a NaN in it.
        """
        order = crystals.n_atoms.argsort(stable=True)
        out = torch.full(
            (len(self.members), len(crystals), len(self.properties)), torch.nan
        )
        for chunk in order.split(128) if len(crystals) else ():
            some = crystals[chunk].to(self.scale.device)
            out[:, chunk.cpu()] = self._values(some).float().cpu()
        out = self._floored(out)
        return {name: out[..., k] for k, name in enumerate(self.properties)}

    def predict(self, crystals: Crystals) -> dict[str, Tensor]:
        """Return the predicted properties of crystals.

        Args:
            crystals: hard crystals, on any device.

        Returns:
            Name -> values in the unit of the property, shape (crystals,), on the CPU; NaN
            for a crystal without atoms. Crystals with elements that the training set
            lacks are judged by their chemistry code alone: a guess.

        Example:
            net.predict(crystals)["band_gap"]  # eV
        """
        members = self.predict_members(crystals)
        return {name: values.mean(0) for name, values in members.items()}

    def predict_soft(self, soft: SoftCrystals, name: str | None = None) -> Tensor:
        """Return one predicted property of soft crystals, differentiable in all of them.

        The gradient reaches the species probabilities, the coordinates and the lattice.
        Neighbours are found anew from the geometry. Where a member predicts less than the
        floor of the property, its value is the floor but its gradient is that of the
        value before the floor, so that a guide finds a way up: a metal has no gap, and
        yet a direction in which one opens.

        Args:
            soft: crystals with species probabilities.
            name: one of `properties`; may be left out where there is one only.

        Returns:
            Values in the unit of the property, shape (crystals,). On one-hot species
            they are those of `predict`.

        Raises:
            DataError: no such property, or several to choose from.
        """
        number = self.properties.index(self.named(name))
        raw = self._values(soft)
        floored = raw + (self._floored(raw) - raw).detach()
        return floored[..., number].mean(0)

    def named(self, name: str | None) -> str:
        """Return which property is meant: the only one, where there is no name.

        Raises:
            DataError: no such property, or several to choose from.
        """
        if name is None and len(self.properties) == 1:
            name = self.properties[0]
        if name not in self.properties:
            raise DataError(
                f"this network predicts {', '.join(self.properties)}; got {name!r}. "
                "Name one of them."
            )
        return name

    def _floored(self, values: Tensor) -> Tensor:
        return torch.maximum(values, self.lowest.to(values))

    # ---- files --------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `config.json` into a folder and return it."""
        return storage.save_model(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the network that `save` wrote, in evaluation mode, on the CPU.

        Raises:
            DataError: a file is missing, truncated, altered or of something else.
        """
        return storage.load_model(cls, folder)

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.parameters())
        device = self.scale.device
        lines = [
            f"PropertyNetwork: {len(self.members)} networks, {weights:,} parameters on {device}"
        ]
        for name, unit, floor in zip(
            self.properties, self.units, self.floors, strict=True
        ):
            least = "" if floor is None else f", at least {floor:g}"
            lines.append(f"  predicts  {name} ({unit or 'no unit'}{least})")
        facts = self.record.items()
        shown = [f"{k} {v}" for k, v in facts if isinstance(v, str | int | float)]
        lines += [
            f"  elements  {int(self.seen.sum())} seen in training",
            f"  training  {', '.join(shown[:6]) or 'not trained yet'}",
        ]
        return "\n".join(lines)


def _fractions(crystals: Crystals) -> Tensor:
    """Return the fraction of every element in each crystal, (crystals, 104), float64."""
    hot = nn.functional.one_hot(crystals.species, MASK).double()
    hot = hot * crystals.mask.unsqueeze(-1)
    total: Tensor = hot.sum(1) / crystals.n_atoms.clamp(min=1)[:, None]
    return total
