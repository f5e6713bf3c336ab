"""`TimeHead`: what a preview says of the finished crystal, with its time in mind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError
from matdesign.predictors.shipped import load_predictor

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator
    from matdesign.predictors.network import PropertyNetwork

ITERATIONS = 30
"""Of reweighting in the fit."""


@dataclass(frozen=True)
class Agreement:
    """How predictions on previews agree with that on the finished crystal, at one time.

    Args:
        t: time of the previews.
        n: trajectories, held out from the fit.
        plain_r: Pearson correlation of the plain prediction with the final one.
        r: the same of the head.
        plain_mae: mean absolute difference of the plain prediction from the final one.
        mae: the same of the head.
    """

    t: float
    n: int
    plain_r: float
    r: float
    plain_mae: float
    mae: float


class TimeHead:
    """Predicts the property of the finished crystal from a preview and its time.

    An early preview is a blurred mean of many crystals. A network that was trained on
    finished ones takes it for a crystal, and is wrong in a way that depends on the time.
    The head learns that way from trajectories of one generator: it trusts the network as
    far as its predictions came true, and else what the elements alone suggest. On
    finished crystals it is the network itself.

    It is what `Property` takes as a predictor, and differentiable like the network.

    Equation:
        h(x, t) = f(x) + a(t) + b(t) f(x) + c(t) l(x), with f the network and l its line
        through the composition; a, b and c are linear in t between the knots and 0 at
        t = 0. At each knot they minimise sum_i |y_i - h(x_i, t)| with y_i the prediction
        on the finished crystal of trajectory i.

    Args:
        network: the predictor.
        name: which of its properties.
        times: knots, rising, the first 0, shape (knots,).
        weights: a, b and c at each knot, shape (knots, 3).
        table: agreement on held-out trajectories, by time.
        model: name of the generator that it was fitted on.

    Accuracy:
        `table` states it. It was fitted on unguided trajectories: previews that a guide
        has moved are others.

    Source:
        Predictions on previews as in universal guidance, Bansal et al., arXiv
        2302.07121. Classifier guidance, Dhariwal and Nichol, arXiv 2105.05233, trains a
        whole predictor on noisy data instead; here three numbers for each time.
    """

    def __init__(
        self,
        network: PropertyNetwork,
        name: str | None,
        times: Tensor,
        weights: Tensor,
        table: tuple[Agreement, ...] = (),
        model: str = "",
    ) -> None:
        self.network, self.name = network, network.named(name)
        self.unit = network.units[network.properties.index(self.name)]
        self.times, self.weights = times.double(), weights.double()
        self.table, self.model = table, model

    @classmethod
    def fit(
        cls,
        model: Generator,
        predictor: str | Path | PropertyNetwork,
        *,
        name: str | None = None,
        n: int = 256,
        seed: int | None = 0,
        steps: int | None = None,
    ) -> Self:
        """Return the head that suits a generator, fitted on its own trajectories.

        The finished crystals are labelled by the network itself: no data is needed. A
        quarter of the trajectories is held out, and `table` says how well it went.

        Args:
            model: a generator with previews, `FlowMatching` or `Diffusion`.
            predictor: a network, or the name or folder of one.
            name: which property; may be left out where there is one only.
            n: trajectories, at least 16.
            seed: of the trajectories.
            steps: of the sampler; None takes the model's own number.

        Raises:
            DataError: too few trajectories, or a family whose previews have no time.
        """
        if isinstance(predictor, str | Path):
            predictor = load_predictor(predictor)
        network = predictor
        if n < 16:
            raise DataError(f"a head needs at least 16 trajectories; got n={n}.")
        plain = cls(network, name, torch.zeros(1), torch.zeros(1, 3))
        times, seen = [], []
        with torch.no_grad():
            for state in model.trajectory(n, seed=seed, steps=steps):
                times.append(state.soft.t)
                seen.append(plain.features(state.soft).cpu().double())
        if len(set(times)) < len(times) or times[-1] != 0:
            raise DataError(
                f"previews of {type(model).__name__} do not tell their time. Fit the head "
                "for FlowMatching or Diffusion."
            )
        final = seen[-1][:, 1]
        sound = torch.stack(seen).isfinite().all(0).all(1)
        held = torch.arange(n) % 4 == 3
        zero = torch.zeros(3, dtype=torch.float64)
        weights, table = [zero], []
        for t, x in zip(times[-2::-1], seen[-2::-1], strict=True):
            some, rest = sound & ~held, sound & held
            w = least_deviation(x[some], (final - x[:, 1])[some])
            weights.append(w)
            table.append(_agreement(t, x[rest], w, final[rest]))
        return cls(
            network,
            plain.name,
            torch.tensor([0.0, *times[-2::-1]]),
            torch.stack(weights),
            tuple(table),
            model.record.get("name", ""),
        )

    def features(self, soft: SoftCrystals) -> Tensor:
        """Return 1, the network's prediction and its line, shape (crystals, 3).

        Args:
            soft: crystals with species probabilities.
        """
        value = self.network.predict_soft(soft, self.name)
        line = self.network.baseline[:, self.network.properties.index(self.name)]
        share = soft.species.sum(1) / soft.mask.sum(1, keepdim=True)
        return torch.stack([torch.ones_like(value), value, share @ line.to(share)], 1)

    def at(self, t: float) -> Tensor:
        """Return a, b and c at a time, shape (3,).

        Args:
            t: from 0 to 1; beyond the last knot they stay as they are.
        """
        each = [np.interp(t, self.times, w) for w in self.weights.T]
        return torch.tensor(each, dtype=torch.float64)

    def __call__(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return what the finished crystals will be, in `unit`, shape (crystals,).

        Args:
            crystals: finished ones, for which the network alone speaks, or previews.
        """
        if not isinstance(crystals, SoftCrystals):
            return self.network.predict(crystals)[self.name].to(crystals.frac)
        if crystals.t <= 0:
            return self.network.predict_soft(crystals, self.name)
        x = self.features(crystals)
        return x[:, 1] + x @ self.at(crystals.t).to(x)

    def __repr__(self) -> str:
        network = self.network.record.get("name", "a network")
        lines = [
            f"TimeHead of {self.name} ({self.unit or 'no unit'}): {network} on previews of "
            f"{self.model or 'a generator'}",
            "  t     plain r  head r  plain MAE  head MAE   (held-out trajectories)",
        ]
        every = max(1, len(self.table) // 10)
        lines += [
            f"  {row.t:.2f}  {row.plain_r:7.3f}  {row.r:6.3f}  {row.plain_mae:9.3f}  "
            f"{row.mae:8.3f}   {row.n}"
            for row in self.table[::-1][::every]
        ]
        return "\n".join(lines)


def least_deviation(x: Tensor, y: Tensor) -> Tensor:
    """Return the weights w that minimise the sum of |y - x w|, held a little near 0.

    Equation:
        w <- (x^T D x + 1)^-1 x^T D y, D = diag(s / max(|y - x w|, s / 20)), s = mean |y|

    Args:
        x: features, shape (n, features).
        y: targets, shape (n,).

    Returns:
        Shape (features,), float64.

    Source:
        Iteratively reweighted least squares, Schlossmacher, J. Am. Stat. Assoc. 68, 857
        (1973). Changed: a ridge of 1 keeps directions that the data do not show at 0.
    """
    x, y = x.double(), y.double()
    scale = y.abs().mean().clamp(min=1e-9)
    w = torch.zeros(x.shape[1], dtype=x.dtype)
    weigh = torch.ones_like(y)
    for _ in range(ITERATIONS):
        heavy = x * weigh[:, None]
        w = torch.linalg.solve(x.T @ heavy + torch.eye(len(w)).to(x), heavy.T @ y)
        weigh = scale / (y - x @ w).abs().clamp(min=float(scale) / 20)
    return w


def _agreement(t: float, x: Tensor, w: Tensor, final: Tensor) -> Agreement:
    """Return how the plain prediction and the head agree with the final one."""
    guesses = x[:, 1], x[:, 1] + x @ w
    r = [float(torch.corrcoef(torch.stack([one, final]))[0, 1]) for one in guesses]
    mae = [float((one - final).abs().mean()) for one in guesses]
    return Agreement(t, len(final), *r, *mae)
