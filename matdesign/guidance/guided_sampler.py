"""`GuidedSampler`: looks at every state of a sampling loop, says what shall change, logs it."""

from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.generators.control import Control, Preview, State
from matdesign.generators.planning import take
from matdesign.generators.sampling import overlap
from matdesign.guidance.masks import Masks, speaks
from matdesign.guidance.methods import Choices
from matdesign.guidance.moves import Replacement, gradients_by, project, proximal_step
from matdesign.guidance.particles import WORST, Particles

ITERATIONS = 8
"""How often a finished crystal of a family without steps is moved."""

SURE = 0.02
"""Previews more certain than this are not moved any more."""

NOISE = 0.17
"""Size of the noise of the stochastic (SDE) steps that a deterministic sampler takes with
particles, so that copies of one part."""

BATCHES = 4
"""Batches of which every step is written down."""

EACH = 16
"""Crystals of the first batch whose violations are written down one by one."""

SEEN = 128
"""Steps of the first batch of which the first crystal's preview is written down."""


class GuidedSampler:
    """Applies the chosen methods between the steps of any sampler.

    In this order: particles are weighed by their rewards and resampled, where the reward
    of a preview at time t counts 1 - t of that of the finished crystal; the preview is
    moved along gradients; on the last state it is projected; known coordinates are put
    back. Elements are masked by `choices`, which the sampler asks itself.

    Args:
        choices: how each constraint is served.
        scale: strength of gradients, and exponent of the rewards that weigh particles.
        particles: particles for each crystal; of use only with the method `steer`.
        rng: source of randomness for resampling.
        wanted: all constraints, for choosing among finished particles.

    Attributes:
        steps: the log: for each of the first batches its steps, one dict each: `t`,
            `step`, mean and largest `violation` by constraint, what was `done`, and with
            particles the mean effective sample size `ess`, how many populations were
            `resampled` and the `weights` of the first. In the first batch also `each`,
            the violation of the first crystals (particles after particles), and the
            `preview` of the first: `species`, `frac` and `lattice`.
        predictor_calls: crystals that predictors judged for the log alone.
    """

    def __init__(
        self,
        choices: Choices,
        scale: float,
        particles: int,
        rng: torch.Generator,
        wanted: Constraint,
    ) -> None:
        self.scale, self.rng, self.wanted = scale, rng, wanted
        self.steered, self.pulled = choices.by("steer"), choices.by("gradient")
        self.projected = choices.by("project")
        self.particles = particles if self.steered else 1
        self.noise = NOISE if self.steered else 0.0
        self.replaced: tuple[Replacement, ...] = ()
        for one in choices.by("replace"):
            first = self.replaced[-1].end if self.replaced else 0
            self.replaced += (Replacement(one, first),)
        masked = tuple(one for one in choices.by("mask") if speaks(one))
        known = tuple(one.known for one in self.replaced)
        self.choices = Masks(masked, known) if masked or known else None
        served = {*self.steered, *self.pulled}
        self.blind = {c for c in served if "frac" not in (gradients_by(c) or {"frac"})}
        served |= {*self.projected, *choices.by("replace")}
        self.logged = tuple(one for one in wanted.parts if one in served)
        self.idle = not served
        """Whether there is nothing to do between steps."""
        self.crowd: Particles | None = None
        self.steps: list[list[dict[str, Any]]] = []
        self.begun = self.predictor_calls = 0

    def begin(self, device: torch.device, crystals: int) -> None:
        """Start a batch of so many crystals, times particles."""
        self.begun += 1
        if self.begun <= BATCHES:
            self.steps.append([])
        if self.steered:
            random = self.rng
            if device.type != random.device.type:
                first = torch.randint(2**62, (1,), generator=random)
                random = torch.Generator(device).manual_seed(int(first))
            self.crowd = Particles(crystals, self.particles, random)

    def control(self, state: State) -> Control | None:
        """Return what shall change before the next step; None for nothing.

        Args:
            state: of the sampling loop.
        """
        if self.idle:
            return None
        preview, last = state.preview, state.t < 1e-6
        located = bool(last or preview.std[0] or self.replaced)
        done: list[str] = []
        seen: dict[Constraint, Tensor] = {}
        keep, populations = None, dict[str, Any]()
        if self.crowd is not None and not last:
            trust = 1 - float(state.t)  # early previews say little of where atoms end
            keep = self.crowd.move(trust * self._reward(preview, located, seen))
            populations = self.crowd.record()
            if keep is not None:
                preview = take(preview, keep)
                done.append("resampled")
        moved, logits = preview, None
        pulled = [one for one in self.pulled if located or one in self.blind]
        if pulled and max(preview.std) > SURE:
            # a finished crystal is moved once and for all, and forgets no small move;
            # others are moved at every step
            often, least = (ITERATIONS, 0.0) if last else (1, 1.0)
            before = seen if keep is None else {}
            moved, logits = proximal_step(
                moved, pulled, self.scale, often, before, least
            )
            done.append("moved along gradients")
        parts = [one for one in self.projected if last or one not in self.pulled]
        if parts:
            moved = project(moved, parts)
            done.append("projected")
        known = None
        for one in self.replaced:
            moved, some = one.put_back(moved)
            known = some if known is None else known | some
            done.append("known coordinates put back")
        self._log(state, done, seen, located, populations)
        changed = bool(pulled or parts or self.replaced)
        return Control(
            keep=keep,
            u=moved.u if changed and located else None,
            code=moved.code if changed else None,
            logits=logits,
            known=known,
            probabilities=moved.probabilities if last and parts else None,
        )

    def choose(self, state: State) -> Tensor:
        """Return the particle that stands for each crystal.

        Args:
            state: the last one. Where some particles meet all constraints, one of them
                is taken; where some of these have no overlapping atoms, for which they
                would be drawn again, of these.
        """
        if self.crowd is None:
            u = state.preview.u
            return torch.arange(len(u), device=u.device)
        made = state.crystals
        with torch.no_grad():
            good = self.wanted.satisfied(made).view(-1, self.particles)
            both = good & ~overlap(made).view_as(good)
            good = torch.where(both.any(1, keepdim=True), both, good).flatten()
        return self.crowd.choose(self._reward(state.preview, True, {}), good)

    @torch.no_grad()
    def _reward(
        self, preview: Preview, located: bool, seen: dict[Constraint, Tensor]
    ) -> Tensor:
        """Return the reward of previews; coordinates count where the sampler knows them.

        Finite, so that a share of 0 of it counts nothing.
        """
        soft = preview.soft()
        total = torch.zeros(len(soft), device=soft.frac.device)
        for one in self.steered:
            if located or one in self.blind:
                seen[one] = one.violation(soft)
                total = total - self.scale / one.scale * seen[one].to(total)
        return total.nan_to_num(WORST, neginf=WORST).clamp(min=WORST)

    @torch.no_grad()
    def _log(
        self,
        state: State,
        done: list[str],
        seen: dict[Constraint, Tensor],
        located: bool,
        populations: dict[str, Any],
    ) -> None:
        """Write down one step, with the violations that are known already."""
        if self.begun > BATCHES or not self.steps:
            return
        found: dict[str, dict[str, Any]] = {}
        for one in self.logged:
            if one not in seen:
                if not located:
                    continue
                before = getattr(one, "predictor_calls", 0)
                seen[one] = one.violation(state.soft)
                self.predictor_calls += getattr(one, "predictor_calls", 0) - before
            v = seen[one].nan_to_num(nan=1e9, posinf=1e9)
            if len(v):
                mean, largest = round(float(v.mean()), 5), round(float(v.max()), 5)
                found[str(one)] = {"mean": mean, "largest": largest}
                if self.begun == 1:
                    found[str(one)]["each"] = _rounded(v[:EACH], 4)
        row = {"t": round(state.t, 5), "step": state.step, "violation": found}
        row |= {"done": done, **populations}
        if self.begun == 1 and len(self.steps[-1]) < SEEN and len(state.soft):
            soft, there = state.soft, state.soft.mask[0]
            row["preview"] = {
                "species": soft.species[0, there].argmax(-1).tolist(),
                "frac": [_rounded(x, 3) for x in soft.frac[0, there]],
                "lattice": [_rounded(x, 3) for x in soft.lattice[0]],
            }
        self.steps[-1].append(row)


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(x, digits) for x in values.tolist()]
