"""Choose what to evaluate next: a surrogate, what its doubt is worth, and a gate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import DataError
from matdesign.loop.results import Results
from matdesign.loop.strategies import Chosen
from matdesign.loop.surrogate import Ensemble, GaussianProcess, Prediction, Surrogate

Acquisition = Literal[
    "expected_improvement", "upper_confidence_bound", "thompson", "mean"
]
NAMES = get_args(Acquisition)

SURROGATES: tuple[type[Any], ...] = (GaussianProcess, Ensemble)
"""Those that a selector can be written down with."""

HARMLESS = (
    "A not p.d., added jitter",  # at most 1e-6 of the variance: polymorphs look equal
    "Negative variance values",  # by rounding, where a crystal is known: 0 is right
    "qNoisyExpectedHypervolumeImprovement has known",  # no gradient is taken here
)
"""How warnings begin that say nothing about a choice among listed crystals."""

DRAWS, DRAWN = 512, 500
"""Joint draws from the posterior that a batch is chosen by, and most candidates in them."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the warnings of `HARMLESS`, and no others."""
    with warnings.catch_warnings():
        for words in HARMLESS:
            warnings.filterwarnings("ignore", words)
        yield


class Bayesian:
    """Evaluate the candidates whose predicted value or whose doubt promises most.

    Lower values are better. Until there are `start` usable results candidates are taken
    at random. What fails is not learned from: a crystal like it may be chosen again.
    The std and all draws are of a new value, noise included; BoTorch leaves the noise out.
    A batch is chosen one after the other: the second candidate counts only for what it
    adds to the first, so that a batch does not hold ten copies of one idea.

    Equation:
        expected_improvement: E max(best - f, 0); of a batch, E max over its members;
        upper_confidence_bound (of -f): -mean + sqrt(beta) std; of a batch, E max over
        its members of -mean + sqrt(beta pi / 2) |f - mean|;
        thompson: each member is the lowest candidate in one draw of f;
        mean: the lowest means, whatever the doubt (for comparison).

    Args:
        surrogate: learns the usable results anew each time; a `GaussianProcess` unless
            given.
        acquisition: the rule, one of the four above.
        gate: lowest probability, by the surrogate, of being better than the best so
            far; a candidate below it is not evaluated, even where there is room.
        beta: of the upper confidence bound.
        start: usable results before the surrogate is asked.
        objectives: columns of the results to make low together ("-column" to raise it),
            two or more, whatever the campaign's own objective is; what lacks one is not
            learned from. Each has a Gaussian process; the rule is then
            noisy expected hypervolume improvement: by how much the values that are no
            worse than some result in all columns will grow. There is no gate.

    Raises:
        DataError: no such acquisition, a number outside its range, or several objectives
            with a gate or another surrogate.

    Accuracy:
        A batch rests on 512 joint draws of the 500 candidates whose mean - 3 std is
        lowest; where these cannot tell two apart, the exact value of a single one does.

    Source:
        Expected improvement: Jones et al., J. Global Optim. 13, 455 (1998). Batches by
        joint draws and the bound: Wilson et al., arXiv 1712.00424, as in BoTorch, arXiv
        1910.06403. Hypervolume: Daulton et al., arXiv 2105.08195, by BoTorch. Thompson:
        Kandasamy et al., AISTATS 2018. Gate: arXiv 2606.28578.
        Changed: the candidates are a list, so that no optimiser is needed.

    Example:
        >>> Bayesian(acquisition="thompson", gate=0.01)
        Bayesian(GaussianProcess, thompson, gate 0.01)
    """

    def __init__(
        self,
        surrogate: Surrogate | None = None,
        acquisition: Acquisition = "expected_improvement",
        *,
        gate: float | None = None,
        beta: float = 4.0,
        start: int = 10,
        objectives: Sequence[str] = (),
    ) -> None:
        if acquisition not in NAMES:
            raise DataError(
                f"no acquisition {acquisition!r}; choose one of {', '.join(NAMES)}."
            )
        if not 0 <= (gate or 0.0) < 1 or beta < 0 or start < 2:
            raise DataError(
                "gate is a probability below 1, beta 0 or more, start 2 or more; got "
                f"gate={gate}, beta={beta}, start={start}."
            )
        self.surrogate = surrogate if surrogate is not None else GaussianProcess()
        self.objectives = list(objectives)
        self.acquisition, self.gate = acquisition, gate
        self.beta, self.start = beta, start
        plain = gate is None and isinstance(self.surrogate, GaussianProcess)
        if self.objectives and not (plain and len(self.objectives) > 1):
            raise DataError(
                "objectives are two columns or more, each with a GaussianProcess and "
                f"without a gate; got {self.objectives}, {self!r}."
            )

    @_quiet()
    def select(
        self,
        candidates: Crystals,
        results: Results,
        values: Tensor,
        room: int,
        *,
        seed: int,
    ) -> Chosen:
        """Return which candidates to evaluate, best first, and why; see `Selector`."""
        n = len(candidates)
        if self.objectives and len(results):
            sign = torch.tensor([-1 if x[0] == "-" else 1 for x in self.objectives])
            names = [x.removeprefix("-") for x in self.objectives]
            values = sign * torch.stack([getattr(results, x) for x in names], 1)
            fine = values.isfinite().all(1)
            results, values = results[fine], values[fine]
        if len(values) < self.start or not n:
            order = torch.randperm(n, generator=generator(seed))[:room].tolist()
            return Chosen(order, ["at random, to learn from"] * n)
        if self.objectives:
            return self._tradeoff(candidates, results.structures, -values, room, seed)
        found = self.surrogate.fit(results.structures, values).predict(candidates)
        best, gate = float(values.min()), self.gate or 0.0
        chance = probability_of_improvement(found, best)
        reason = [
            f"predicted {mean:.3g} ± {std:.2g}, probability of improvement {p:.2g}"
            + (f": below the gate of {gate:g}" if p < gate else "")
            for mean, std, p in zip(
                found.mean.tolist(), found.std.tolist(), chance.tolist(), strict=True
            )
        ]
        passed = (chance >= gate).nonzero().squeeze(1)
        hopeful = (found.mean - 3 * found.std)[passed].argsort(stable=True)
        passed = passed[hopeful[:DRAWN].sort().values]
        few = Prediction(found.mean[passed], found.std[passed])
        room = min(room, len(passed))
        if not room:
            order = []
        elif self.acquisition == "mean":
            order = few.mean.argsort(stable=True)[:room].tolist()
        else:
            draws = self.surrogate.draw(candidates[passed], DRAWS, seed=seed)
            order = self._batch(few, draws, best, room)
        predicted = torch.stack([found.mean, found.std], 1).tolist()
        return Chosen(passed[order].tolist(), reason, predicted)

    def _batch(
        self, found: Prediction, draws: Tensor, best: float, room: int
    ) -> list[int]:
        """Return a batch by joint draws of all candidates, shape (draws, candidates)."""
        if self.acquisition == "thompson":
            chosen: list[int] = []
            for k in range(room):
                row = draws[k % len(draws)].clone()
                row[chosen] = math.inf
                chosen.append(int(row.argmin()))
            return chosen
        if self.acquisition == "expected_improvement":
            score = expected_improvement(found, best)
            return one_by_one((best - draws).clamp(min=0.0), score, room)
        score = -found.mean + math.sqrt(self.beta) * found.std
        away = math.sqrt(self.beta * math.pi / 2) * (draws - found.mean).abs()
        return one_by_one(-found.mean + away, score, room)

    def _tradeoff(
        self,
        candidates: Crystals,
        known: Crystals,
        values: Tensor,
        room: int,
        seed: int,
    ) -> Chosen:
        """Return a batch that adds most to the hypervolume above several columns."""
        # its logarithm, made for gradients, would compile C++ when it is first used
        from botorch.acquisition.multi_objective.monte_carlo import (
            qNoisyExpectedHypervolumeImprovement,
        )
        from botorch.models.model_list_gp_regression import ModelListGP
        from botorch.sampling.normal import SobolQMCNormalSampler
        from botorch.utils.sampling import manual_seed

        assert isinstance(self.surrogate, GaussianProcess)
        features = self.surrogate.features
        fits = [GaussianProcess(features).fit(known, y) for y in values.T]
        with manual_seed(seed):  # of what is pruned, too
            rule: Any = qNoisyExpectedHypervolumeImprovement(
                ModelListGP(*(one.model for one in fits)),
                ref_point=values.amin(0),
                X_baseline=features(known).double(),
                sampler=SobolQMCNormalSampler(torch.Size([128]), seed=seed),
                prune_baseline=True,
            )
        new, chosen = features(candidates).double(), list[int]()
        with torch.no_grad():
            while len(chosen) < min(room, len(new)):
                rule.set_X_pending(new[chosen] if chosen else None)
                score = torch.cat([rule(some[:, None]) for some in new.split(100)])
                score[chosen] = -math.inf
                chosen.append(int(score.argmax()))
        reason = [""] * len(candidates)
        for name, one in zip(self.objectives, fits, strict=True):
            found = one.predict(candidates)
            for i, (mean, std) in enumerate(zip(-found.mean, found.std, strict=True)):
                reason[i] += f"{', ' * bool(reason[i])}{name} {mean:.3g} ± {std:.2g}"
        return Chosen(chosen, reason)

    def to_dict(self) -> dict[str, Any]:
        """Return what the selector was made with, as plain JSON.

        Raises:
            DataError: the surrogate is your own, or has features of your own.
        """
        kind = type(self.surrogate)
        if kind not in SURROGATES or self.surrogate.config is None:
            raise DataError(
                "a surrogate or features of your own cannot be written as JSON; got "
                f"{self.surrogate!r}. Give the selector again where it is needed."
            )
        names = ["acquisition", "gate", "beta", "start"]
        names += ["objectives"] if self.objectives else []
        made_with = {kind.__name__: self.surrogate.config}
        return {"surrogate": made_with, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_dict(cls, words: Mapping[str, Any]) -> Self:
        """Return the selector that `to_dict` wrote."""
        [(name, config)] = words["surrogate"].items()
        [kind] = [one for one in SURROGATES if one.__name__ == name]
        return cls(**{**words, "surrogate": kind(**config)})

    def __repr__(self) -> str:
        gate = "" if self.gate is None else f", gate {self.gate:g}"
        rule = f"hypervolume of {', '.join(self.objectives)}" if self.objectives else ""
        rule = rule or self.acquisition
        return f"Bayesian({type(self.surrogate).__name__}, {rule}{gate})"


def probability_of_improvement(found: Prediction, best: float) -> Tensor:
    """Return P(value < best) of every crystal; where the std is 0, 1 or 0."""
    return torch.special.ndtr((best - found.mean) / found.std.clamp(min=1e-12))


def expected_improvement(found: Prediction, best: float) -> Tensor:
    """Return E max(best - value, 0) of every crystal, in the unit of the values.

    Equation:
        std (u Phi(u) + phi(u)), u = (best - mean) / std
    """
    std = found.std.clamp(min=1e-12)
    u = (best - found.mean) / std
    density = torch.exp(-0.5 * u.square()) / math.sqrt(2 * math.pi)
    return std * (u * torch.special.ndtr(u) + density)


def one_by_one(gain: Tensor, score: Tensor, room: int) -> list[int]:
    """Return a batch: first the best alone, then whatever adds most to those chosen.

    Equation:
        next = argmax over j of mean over draws of max(gain_j, gain of those chosen)

    Args:
        gain: of every candidate in every joint draw, shape (draws, candidates).
        score: exact value of a candidate alone; decides where the draws do not.
        room: size of the batch, at most the number of candidates.
    """
    chosen = [int(score.argmax())]
    ties = score.argsort().argsort() * max(1e-12 * float(gain.abs().max()), 1e-20)
    while len(chosen) < room:
        reached = gain[:, chosen].amax(1, keepdim=True)
        added = torch.maximum(gain, reached).mean(0) + ties
        added[chosen] = -math.inf
        chosen.append(int(added.argmax()))
    return chosen
