"""`GuidedSampler`: looks at every state of a sampling loop, and says what shall change."""

from __future__ import annotations

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.generators.control import Control, Preview, State
from matdesign.generators.planning import take
from matdesign.generators.sampling import overlap
from matdesign.guidance.gradients import project, proximal_step, sees_coordinates
from matdesign.guidance.log import GuidanceLog
from matdesign.guidance.masks import Masks, speaks
from matdesign.guidance.methods import Choices
from matdesign.guidance.particles import WORST, Particles
from matdesign.guidance.replacement import Replacement

ROUNDS = 8
"""How often a finished crystal of a family without steps is moved."""

SURE = 0.02
"""Previews more certain than this are not moved any more."""

NOISE = 0.17
"""Size of the noise of stochastic (SDE) steps where a sampler has deterministic ones."""


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
        noise: size of the noise for deterministic samplers with particles.
        rng: source of randomness for resampling.
        wanted: all constraints, for choosing among finished particles.
    """

    def __init__(
        self,
        choices: Choices,
        scale: float,
        particles: int,
        noise: float,
        rng: torch.Generator,
        wanted: Constraint,
    ) -> None:
        self.scale, self.rng, self.wanted = scale, rng, wanted
        self.steered = choices.by("steer")
        self.particles = particles if self.steered else 1
        self.noise = noise if self.steered else 0.0
        masked = tuple(one for one in choices.by("mask") if speaks(one))
        self.replaced: tuple[Replacement, ...] = ()
        for one in choices.by("replace"):
            first = self.replaced[-1].end if self.replaced else 0
            self.replaced += (Replacement(one, first),)
        known = tuple(one.known for one in self.replaced)
        self.choices = Masks(masked, known) if masked or known else None
        self.pulled, self.projected = choices.by("gradient"), choices.by("project")
        alone = {one for one in self.projected if one not in self.pulled}
        self.at_each_step = tuple(one for one in self.projected if one in alone)
        served = {*self.steered, *self.pulled}
        self.blind = {one for one in served if not sees_coordinates(one)}
        looked_at = (set(self.steered) | set(self.pulled) | set(self.projected)) | set(
            choices.by("replace")
        )
        self.log = GuidanceLog(tuple(one for one in wanted.parts if one in looked_at))
        self.crowd: Particles | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do between steps."""
        return not (self.steered or self.pulled or self.projected or self.replaced)

    def begin(self, device: torch.device, crystals: int) -> None:
        """Start a batch of so many crystals, times particles."""
        self.log.begin()
        self.crowd = None
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
        blind = not last and not preview.std[0] and not self.replaced
        done: list[str] = []
        seen: dict[Constraint, Tensor] = {}
        keep = ess = weights = None
        resampled = 0
        if self.crowd is not None and not last:
            trust = 1 - float(state.t)  # early previews say little of where atoms end
            keep = self.crowd.move(trust * self._reward(preview, blind, seen))
            ess = self.crowd.ess_before
            weights = self.crowd.log_weight[0].softmax(0)
            if keep is not None:
                groups = keep.view(-1, self.particles)
                here = torch.arange(len(keep), device=keep.device).view_as(groups)
                resampled = int((groups != here).any(1).sum())
                preview = take(preview, keep)
                done.append("resampled")
        moved, logits = preview, None
        pulled = [one for one in self.pulled if not blind or one in self.blind]
        if pulled and max(preview.std) > SURE:
            # a finished crystal is moved once and for all, and forgets no small move;
            # others are moved at every step
            rounds, least = (ROUNDS, 0.0) if last else (1, 1.0)
            notes = seen if keep is None else {}
            moved, logits = proximal_step(
                moved, pulled, self.scale, rounds, notes, least
            )
            done.append("moved along gradients")
        parts = self.projected if last else self.at_each_step
        if parts:
            moved = project(moved, parts)
            done.append("projected")
        known = None
        for one in self.replaced:
            moved, some = one.put_back(moved)
            known = some if known is None else known | some
            done.append("known coordinates put back")
        self.log.step(state, done, seen, blind, weights, ess, resampled)
        changed = bool(pulled or parts or self.replaced)
        located = preview.std[0] or self.replaced or last
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
        return self.crowd.choose(self._reward(state.preview, False, {}), good)

    def _reward(
        self, preview: Preview, blind: bool, seen: dict[Constraint, Tensor]
    ) -> Tensor:
        """Return the reward of previews; coordinates count where the sampler knows them.

        Finite, so that a share of 0 of it counts nothing.
        """
        with torch.no_grad():
            soft = preview.soft()
            total = torch.zeros(len(soft), device=soft.frac.device)
            for one in self.steered:
                if not blind or one in self.blind:
                    seen[one] = one.violation(soft)
                    total = total - self.scale / one.scale * seen[one].to(total)
        return total.nan_to_num(WORST, neginf=WORST).clamp(min=WORST)
