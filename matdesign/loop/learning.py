"""Generators that learn from rewards and stay near a frozen prior."""

from __future__ import annotations

import abc
import copy
import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.errors import DataError
from matdesign.generators.contract import Generator, Loss
from matdesign.generators.sampling import eval_mode
from matdesign.generators.trainer import fit


@dataclass(frozen=True, kw_only=True)
class Learning(abc.ABC):
    """What all learners share: what rewards must be, the record, and collapse undone.

    Args:
        diverse: multiply each reward by the `diversity` of its formula.
        watch: crystals that are drawn to see whether their formulas still differ; 0 for none.
        least_unique: a model has collapsed whose share of different formulas among them
            is below this part of the share before: it stays as it came in, and says so.
    """

    diverse: bool = True
    watch: int = 32
    least_unique: float = 0.5
    on_policy: ClassVar[bool] = False

    def learn(
        self,
        generator: Generator,
        crystals: Crystals,
        rewards: Tensor,
        *,
        seed: int = 0,
        prior: Generator | None = None,
    ) -> Generator:
        """Return a new generator that makes what was rewarded more often.

        The one that is given stays as it is. The new one's `record["learned"]` says what
        it learned from, the share of unique formulas before and after, and under
        "stopped" why it did not; `record["started_from"]` is the record of the given one.

        Args:
            generator: what shall learn.
            crystals: what it made.
            rewards: of each, in [0, 1], 1 for the best, shape (crystals,). If all are
                equal there is nothing to learn, and the model stays as it is.
            seed: of all randomness.
            prior: the frozen model that the new one must stay near; None takes
                `generator`. Who calls several times in a row gives the first one.

        Raises:
            DataError: rewards of another shape or range, no crystals, or a family that
                cannot learn in this way; the message says which can.
        """
        rewards = torch.as_tensor(rewards).detach().cpu().float()
        fits = rewards.shape == (len(crystals),) and len(crystals)
        if not (fits and bool(((rewards >= 0) & (rewards <= 1)).all())):
            raise DataError(
                "learning needs crystals and one reward in [0, 1] for each; got "
                f"{len(crystals)} crystals and rewards of shape {tuple(rewards.shape)}. "
                "Scale them, and give 0 to what failed."
            )
        model, frozen = (
            copy.deepcopy(x).eval() for x in (generator, prior or generator)
        )
        if not self.takes(model):
            raise refusal(f"{type(self).__name__} cannot teach", model)
        shaped = rewards * diversity(crystals) if self.diverse else rewards
        before = after = self._unique(model, seed)
        stopped, facts = "", dict[str, Any]()
        if shaped.max() == shaped.min():
            stopped = "all rewards are equal: nothing to learn"
        else:
            facts = self.teach(model, frozen, crystals, shaped, seed)
            model = model.eval().to(generator.device)
            after = self._unique(model, seed)
            if after < self.least_unique * before:
                model = copy.deepcopy(generator).eval()
                stopped = (
                    f"collapse: {after:.0%} of the formulas were unique, {before:.0%} "
                    "before; undone"
                )
        model.evaluations = generator.evaluations
        number = generator.record.get("learned", {}).get("number", 0) + 1
        name = str(generator.record.get("name", type(generator).__name__))
        learned = {
            "number": number,
            "from": name,
            "by": {type(self).__name__: asdict(self)},
            "crystals": len(crystals),
            "rewarded": int((shaped > 0).sum()),
            "unique_before": before,
            "unique_after": after,
            "stopped": stopped,
        }
        name = f"{name.removesuffix(f'-learned-{number - 1}')}-learned-{number}"
        model.record = {"name": name, **facts, "learned": learned}
        model.record["started_from"] = generator.record
        return model

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, words: dict[str, Any]) -> Self:
        """Return what `to_dict` described."""
        return cls(**words)

    def _unique(self, model: Generator, seed: int) -> float:
        """Return the share of different formulas among a few samples."""
        if not self.watch:
            return 1.0
        return len(set(model.sample(self.watch, seed=seed).formulas)) / self.watch

    @abc.abstractmethod
    def takes(self, model: Generator) -> bool:
        """Return whether a model can learn in this way."""

    @abc.abstractmethod
    def teach(
        self,
        model: Generator,
        prior: Generator,
        crystals: Crystals,
        rewards: Tensor,
        seed: int,
    ) -> dict[str, Any]:
        """Change the model by rewards, and return facts for its record."""


@dataclass(frozen=True, kw_only=True)
class FineTuning(Learning):
    """What `RewardWeighted` and `PolicyGradient` share: all weights follow an objective.

    Args:
        steps: optimiser steps of one call.
        batch_size: crystals in each.
        lr: learning rate of Adam, without warmup or decay.
        penalty: weight of the prior.
    """

    steps: int = 20
    batch_size: int = 64
    lr: float = 1e-4
    penalty: float = 0.1
    needs: ClassVar[str]

    def takes(self, model: Generator) -> bool:
        """Return whether the loss of a model tells what is needed, tried on one atom."""
        species = model.known_elements.nonzero()[:1]
        one = Crystals(species, torch.zeros(1, 1, 3), 4 * torch.eye(3)[None])
        return getattr(_loss(model, model.prepare(one)), self.needs) is not None

    def teach(
        self,
        model: Generator,
        prior: Generator,
        crystals: Crystals,
        rewards: Tensor,
        seed: int,
    ) -> dict[str, Any]:
        """Take the optimiser's steps, and return facts of the run."""
        data = model.prepare(crystals)
        labels = data.labels | self.labels(model, prior, data, rewards)
        data = dataclasses.replace(data, labels=labels)
        run = fit(
            _Objective(model, prior, data, self.objective),
            crystals.replace(properties={"reward": rewards}, units={}),
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            seed=seed,
            weight_decay=0.0,
            warmup=0,
            decay=0.0,
            ema=0.0,
        )
        return run.facts()

    def labels(
        self, model: Generator, prior: Generator, data: Encoded, rewards: Tensor
    ) -> dict[str, Tensor]:
        """Return what `objective` must know of each crystal, before anything moves."""
        return {"_reward": rewards}

    @abc.abstractmethod
    def objective(
        self, model: Generator, prior: Generator, batch: Encoded, rng: torch.Generator
    ) -> Loss:
        """Return what a step makes smaller."""


@dataclass(frozen=True, kw_only=True)
class RewardWeighted(FineTuning):
    """Denoise what was rewarded, and elsewhere predict what the prior predicts.

    For diffusion and flow matching: any family whose loss tells the loss and the
    prediction of every crystal. Crystals may come from anywhere: give the best of earlier
    iterations again beside the new ones (replay).

    Equation:
        loss = mean of r l(x) + w (1.1 - r) |v_theta(x_t) - v_prior(x_t)|^2,
        l the denoising loss and v the network's prediction, at the same noise; l is
        `Loss.each`: a crystal of which nothing is hidden or free counts 0 in that term,
        so that the mean of l is not the training loss

    Args:
        steps: optimiser steps of one call.
        lr: learning rate of Adam.
        penalty: w.

    Source:
        MatInvent, arXiv 2511.03112. Changed: predictions in place of scores, and
        probabilities of species among them.
    """

    steps: int = 60
    lr: float = 3e-4
    penalty: float = 0.025
    needs: ClassVar[str] = "prediction"

    def objective(
        self, model: Generator, prior: Generator, batch: Encoded, rng: torch.Generator
    ) -> Loss:
        """Return the weighted loss; terms `rewarded` and `prior`."""
        r, state = batch.labels["_reward"], rng.get_state()
        mine = model.loss(batch, seed=rng)
        rng.set_state(state)  # the same noise
        with torch.no_grad():
            theirs = prior.loss(batch, seed=rng)
        error = cast(Tensor, mine.prediction) - cast(Tensor, theirs.prediction)
        rewarded = (r * cast(Tensor, mine.each)).mean()
        near = self.penalty * ((1.1 - r) * error.square().sum(1)).mean()
        return Loss(
            rewarded + near, {"rewarded": rewarded.detach(), "prior": near.detach()}
        )


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(FineTuning):
    """Raise the probability of what was rewarded, by the exact likelihood of the model.

    For the autoregressive family: any whose likelihood is exact and whose loss, in
    evaluation mode, is minus its logarithm. The crystals must be the model's own, not those
    of an earlier version: a campaign gives those of the iterations since the last fine-tuning.

    Equation:
        g = r - beta (ln p - ln p_prior) - b;  q = p / p_old
        loss = -mean of min(q g, clip(q, 1 - c, 1 + c) g)

    The optimum of E[r] - beta KL(p, p_prior) is p_prior exp(r / beta) / Z: there g is the
    same for all crystals, and nothing moves.

    Args:
        penalty: beta, the reward that one nat away from the prior costs.
        clip: c; how far a probability moves in one call before it is left alone.

    Accuracy:
        Unbiased for crystals drawn from p in the first step only: then p has moved, and the
        clip leaves out what moved far. What `sample` does besides is not in p:
        temperatures other than 1, masks of a guide, and drawing again where atoms overlap;
        nor what a campaign rejects or passes over before it evaluates.

    Source:
        REINFORCE, Williams (1992); the clip: PPO, Schulman et al., arXiv 1707.06347; the
        penalty in the reward: Ziegler et al., arXiv 1909.08593. Changed: b is the mean
        over all crystals of the call; no value network.
    """

    clip: float = 0.2
    needs: ClassVar[str] = "each"
    on_policy: ClassVar[bool] = True

    def takes(self, model: Generator) -> bool:
        """Return whether its likelihood is exact, and told for every crystal."""
        return model.likelihood == "exact" and super().takes(model)

    def labels(
        self, model: Generator, prior: Generator, data: Encoded, rewards: Tensor
    ) -> dict[str, Tensor]:
        """Return r - b, and the log probabilities before anything moves."""
        parts = torch.arange(len(data)).split(256)
        old, there = (
            -torch.cat(
                [cast(Tensor, _loss(x, data[rows]).each).cpu() for rows in parts]
            )
            for x in (model, prior)
        )
        b = (rewards - self.penalty * (old - there)).mean()
        return {"_reward": rewards - b, "_old": old, "_prior": there}

    def objective(
        self, model: Generator, prior: Generator, batch: Encoded, rng: torch.Generator
    ) -> Loss:
        """Return the clipped gain; terms `gain` and `away`, ln p - ln p_prior."""
        r, old, there = (batch.labels[name] for name in ("_reward", "_old", "_prior"))
        log_p = -cast(Tensor, model.eval().loss(batch, seed=rng).each)
        away = log_p.detach() - there
        g, q = r - self.penalty * away, (log_p - old).exp()
        clipped = q.clamp(1 - self.clip, 1 + self.clip)
        total = -torch.minimum(q * g, clipped * g).mean()
        return Loss(total, {"gain": -total.detach(), "away": away.mean()})


def refusal(words: str, model: Any) -> DataError:
    """Return what is raised where "a learner cannot teach", or none can, a model."""
    return DataError(
        f"{words} a {type(model).__name__}: RewardWeighted takes families "
        "whose loss tells the prediction of every crystal (Diffusion, FlowMatching), "
        "PolicyGradient those with an exact likelihood whose loss tells that of every "
        "crystal (Autoregressive), LatentSearch a VAE. Give such a generator, or leave "
        "`learn` out."
    )


def diversity(crystals: Crystals) -> Tensor:
    """Return a factor for each crystal by how often its formula occurs, (crystals,).

    Three may be alike; where six are, nothing is left of the reward.

    Equation:
        clip((6 - n) / 3, 0, 1), n crystals with the same reduced formula

    Source:
        MatInvent, arXiv 2511.03112.
    """
    count = Counter(crystals.formulas)
    n = torch.tensor([float(count[name]) for name in crystals.formulas])
    return ((6 - n) / 3).clamp(0, 1)


class _Objective(nn.Module):
    """A model with another objective than its own, as `fit` takes it."""

    def __init__(
        self,
        model: Generator,
        prior: Generator,
        data: Encoded,
        objective: Callable[..., Loss],
    ) -> None:
        super().__init__()
        self.model, self.data, self.objective = model, data, objective
        self.frozen = [prior]  # in a list: its weights are none of this module's

    def prepare(self, crystals: Crystals) -> Encoded:
        """Return the crystals as the model reads them, with labels."""
        return self.data

    def loss(self, batch: Encoded, *, seed: torch.Generator) -> Loss:
        """Return the objective of a batch."""
        return self.objective(self.model, self.frozen[0].to(seed.device), batch, seed)


@torch.no_grad()
def _loss(model: Generator, data: Encoded) -> Loss:
    """Return the loss of some crystals in evaluation mode."""
    with eval_mode(model):
        return model.loss(data.to(model.device), seed=0)
