"""Surrogates: predict what an oracle would say, and how far off that may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import DataError
from matdesign.predictors.network import PropertyNetwork

TABLES = ("mass", "electronegativity", "radius", "group", "row", "block", "metal")
"""Properties of the elements that `composition_features` takes statistics of."""

LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
"""Nominal levels at which `interval_coverage` counts."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a surrogate expects of the oracle, a normal distribution for each crystal.

    Args:
        mean: in the unit of the values learned, shape (crystals,).
        std: standard deviation of a new value around it, not only of the mean, same unit.
    """

    mean: Tensor
    std: Tensor


class Surrogate(Protocol):
    """What every surrogate has; `fit` forgets what was learned before.

    Attributes:
        config: the plain keywords that make it again; None where it has parts of your own.
    """

    config: dict[str, Any] | None

    def fit(self, crystals: Crystals, values: Tensor) -> Self:
        """Learn the values of crystals, shape (crystals,), and return itself."""

    def predict(self, crystals: Crystals) -> Prediction:
        """Return mean and standard deviation of every value."""

    def draw(self, crystals: Crystals, n: int, *, seed: int) -> Tensor:
        """Return n joint draws of all values from the posterior, (n, crystals)."""


def composition_features(crystals: Crystals) -> Tensor:
    """Return a composition as numbers in [0, 1]; polymorphs have the same.

    Mean, mean absolute deviation, least and largest of seven properties of the elements,
    each scaled to its range over the periodic table, and the fraction of every element.

    Returns:
        float64, shape (crystals, 131), on the CPU.

    Source:
        The statistics of Ward et al., npj Comput. Mater. 2, 16028 (2016), with fewer
        properties and without the range and the mode.
    """
    table = torch.stack([elements.table(name) for name in TABLES], dim=1).double()
    table = table.nan_to_num(0.0)
    low, high = table[1:].amin(0), table[1:].amax(0)
    species = crystals.species.cpu()
    site, mask = ((table - low) / (high - low))[species], (species > 0)[..., None]
    count = mask.sum(1).clamp(min=1)
    mean = (site * mask).sum(1) / count
    away = ((site - mean[:, None]).abs() * mask).sum(1) / count
    least = site.masked_fill(~mask, 1.0).amin(1)
    most = site.masked_fill(~mask, 0.0).amax(1)
    hot = nn.functional.one_hot(species, elements.MASK)[..., 1:] * mask
    return torch.cat([mean, away, least, most, hot.sum(1) / count], dim=1)


class GaussianProcess:
    """A Gaussian process on numbers that describe a crystal, fitted in a second.

    Kernel and priors are BoTorch's defaults, with one length scale for all features: a
    scale for each took ten times as long on the shipped prototypes and was no better.
    The std is that of a new value, noise included, and so are the draws; BoTorch's
    default leaves the noise out.

    Equation:
        mean = k (K + s^2 I)^-1 y, std^2 = k(x, x) - k (K + s^2 I)^-1 k + s^2, with
        k(x, x') = exp(-|x - x'|^2 / 2 l^2) of standardised values y; l and s are where
        the marginal likelihood times the priors is largest.

    Args:
        features: of crystals, shape (crystals, d): `composition_features`, or a function
            of your own, such as a network's site vectors averaged; scaled to [0, 1].

    Source:
        SingleTaskGP of BoTorch, Balandat et al., arXiv 1910.06403; prior of the length
        scale: Hvarfner et al., arXiv 2402.02229. Changed: one length scale.
    """

    def __init__(
        self, features: Callable[[Crystals], Tensor] = composition_features
    ) -> None:
        own = features is not composition_features
        self.features = features
        self.model: Any = None
        self.config: dict[str, Any] | None = None if own else {}

    def fit(self, crystals: Crystals, values: Tensor) -> Self:
        """Learn the values of crystals, and return itself.

        Raises:
            DataError: fewer than two crystals, or a value or a feature is not finite.
        """
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Normalize
        from botorch.models.utils.gpytorch_modules import (
            get_covar_module_with_dim_scaled_prior as default_kernel,
        )
        from gpytorch.kernels import RBFKernel
        from gpytorch.mlls import ExactMarginalLogLikelihood

        check_values(crystals, values)
        x, y = self._features(crystals), values.detach().double().cpu()[:, None]
        scale = default_kernel(x.shape[1])
        kernel = RBFKernel(
            lengthscale_prior=scale.lengthscale_prior,
            lengthscale_constraint=scale.raw_lengthscale_constraint,
        )
        to_unit = Normalize(x.shape[1]) if self.config is None else None
        model = SingleTaskGP(x, y, covar_module=kernel, input_transform=to_unit)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a second try draws from the priors
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        self.model = model
        return self

    @torch.no_grad()
    def predict(self, crystals: Crystals) -> Prediction:
        """Return mean and standard deviation of every value, float64.

        Raises:
            DataError: nothing was learned yet.
        """
        found = self._posterior(crystals)
        return Prediction(found.mean[:, 0], found.variance[:, 0].sqrt())

    @torch.no_grad()
    def draw(self, crystals: Crystals, n: int, *, seed: int) -> Tensor:
        """Return n joint draws of all values from the posterior, (n, crystals)."""
        from botorch.utils.sampling import manual_seed

        with manual_seed(seed):
            return self._posterior(crystals).rsample(torch.Size([n]))[..., 0]

    def _posterior(self, crystals: Crystals) -> Any:
        if self.model is None:
            raise DataError("the Gaussian process has learned nothing. Call fit first.")
        return self.model.posterior(self._features(crystals), observation_noise=True)

    def _features(self, crystals: Crystals) -> Tensor:
        found = self.features(crystals).detach().double().cpu()
        if found.shape[:1] != (len(crystals),) or not bool(found.isfinite().all()):
            raise DataError(
                "features must be finite numbers, one row for each crystal: got shape "
                f"{tuple(found.shape)} for {len(crystals)} crystals. Mend `features`."
            )
        return found


class Ensemble:
    """Small property networks that see the structure too; how far they differ is doubt.

    A fifth of the crystals is held out: the standard deviation is the members' own plus
    what makes the mean square of the held-out residuals come out right.

    Args:
        members: networks, two or more, each with initial weights of its own.
        steps: optimiser steps of `fit`; 200 take about 15 s on one core.
        seed: of weights, batches and the held-out part.
        **options: of `PropertyNetwork`, such as `width`.

    Raises:
        DataError: fewer than two members.

    Source:
        Deep ensembles, Lakshminarayanan et al., arXiv 1612.01474. Changed: no variance
        is predicted; one constant is measured on the held-out part.
    """

    def __init__(
        self, members: int = 4, *, steps: int = 200, seed: int = 0, **options: Any
    ) -> None:
        if members < 2:
            raise DataError(
                f"one network has no doubt: got members={members}. Give two."
            )
        options = {"members": members, "width": 48, "layers": 2} | options
        self.config = {"steps": steps, "seed": seed, **options}
        self.network: PropertyNetwork | None = None
        self.rest = 0.0

    def fit(self, crystals: Crystals, values: Tensor) -> Self:
        """Learn the values of crystals, and return itself.

        Raises:
            DataError: fewer than ten crystals, or a value is not finite.
        """
        from matdesign.generators.trainer import fit

        check_values(crystals, values, least=10)
        known = replace(crystals, properties={"value": values}, units={}).to("cpu")
        options = dict(self.config)
        steps, seed = options.pop("steps"), options["seed"]
        order = torch.randperm(len(known), generator=generator(seed))
        held, train = known[order[::5]], known[order[torch.arange(len(order)) % 5 > 0]]
        network = PropertyNetwork.for_data(train, properties="value", **options)
        numbers = {"steps": steps, "seed": seed, "batch_size": 32, "ema": 0.99}
        fit(network, train, progress=False, **numbers)
        self.network, self.rest = network, 0.0
        found = self.predict(held)
        wrong = (held.properties["value"] - found.mean).square() - found.std.square()
        self.rest = float(wrong.mean().clamp(min=0.0).sqrt())
        return self

    def predict(self, crystals: Crystals) -> Prediction:
        """Return mean and standard deviation of every value.

        Raises:
            DataError: nothing was learned yet.
        """
        found = self._members(crystals)
        std = (found.var(0) + self.rest**2).sqrt()
        return Prediction(found.mean(0), std)

    def draw(self, crystals: Crystals, n: int, *, seed: int) -> Tensor:
        """Return n joint draws: members differ together, the rest independently."""
        found, rng = self._members(crystals), generator(seed)
        apart = (found - found.mean(0)) / math.sqrt(max(1, len(found) - 1))
        along = torch.randn(n, len(found), generator=rng).double() @ apart
        rest = self.rest * torch.randn(n, len(crystals), generator=rng)
        return found.mean(0) + along + rest

    def _members(self, crystals: Crystals) -> Tensor:
        if self.network is None:
            raise DataError("the ensemble has learned nothing. Call fit first.")
        return self.network.predict_members(crystals)["value"].double()


@dataclass(frozen=True, eq=False)
class Coverage:
    """How often values lay within their nominal intervals.

    Args:
        levels: nominal, shape (levels,).
        coverage: share of values inside the central interval of each level.
        area: mean distance of the two over the levels; 0 where every interval holds.
        n: values.
    """

    levels: Tensor
    coverage: Tensor
    area: float
    n: int

    def __repr__(self) -> str:
        inside = float(self.coverage[self.levels.sub(0.9).abs().argmin()])
        return (
            f"Coverage: 90 % intervals hold {inside:.0%} of {self.n} values; "
            f"miscalibration area {self.area:.3f}"
        )


def interval_coverage(prediction: Prediction, values: Tensor) -> Coverage:
    """Return the coverage of nominal intervals by values that were not learned.

    Equation:
        coverage(p) = share of |value - mean| <= std * z_p, z_p the normal quantile of
        (1 + p) / 2; area = mean over p of |coverage(p) - p|

    Raises:
        DataError: there are no values, or as many as predictions there are not.

    Source:
        Kuleshov et al., arXiv 1807.00263; miscalibration area as in Tran et al.,
        arXiv 1912.10066.
    """
    if not len(values) or len(values) != len(prediction.mean):
        raise DataError(
            f"calibration needs a value for each prediction: got {len(values)} values "
            f"for {len(prediction.mean)} predictions. Give what the oracle said of them."
        )
    off = ((values.to(prediction.mean) - prediction.mean) / prediction.std).abs()
    reach = torch.special.ndtri((1 + LEVELS) / 2)
    coverage = (off[:, None].double() <= reach).double().mean(0)
    area = float((coverage - LEVELS).abs().mean())
    return Coverage(LEVELS, coverage, area, len(values))


def conformal_width(residuals: Tensor, level: float = 0.9) -> float:
    """Return the half width that holds a new residual with a given probability.

    It holds whatever the distribution is, as long as the new crystal is drawn like the
    held-out ones: not for crystals that were chosen because they look good.

    Equation:
        the k-th smallest |residual| of n, k = ceil((n + 1) level); infinite for k > n

    Args:
        residuals: value minus prediction of crystals that were not learned; divide them
            by their std, and multiply the result by that of a new one, for widths that
            follow the surrogate's doubt.
        level: probability, in (0, 1).

    Raises:
        DataError: a level outside (0, 1).

    Source:
        Split conformal prediction, Lei et al., arXiv 1604.04173, algorithm 2.
    """
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1; got {level}. Try 0.9.")
    k = math.ceil((len(residuals) + 1) * level)
    size = residuals.abs().sort().values
    return float(size[k - 1]) if k <= len(size) else math.inf


def check_values(crystals: Crystals, values: Tensor, least: int = 2) -> None:
    """Raise where there is no finite value for every crystal, or too few."""
    if len(values) != len(crystals) or len(values) < least:
        raise DataError(
            f"a surrogate learns from {least} crystals or more, a value each: got "
            f"{len(crystals)} crystals and {len(values)} values. Evaluate more first."
        )
    if not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).sum())
        raise DataError(
            f"values must be finite: got {bad} of {len(values)} that are not. Leave "
            "failed evaluations out: results[results.ok]."
        )
