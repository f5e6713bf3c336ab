"""How a steered sampler goes on: running it, keeping crystals, noise for straight paths."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.errors import InfeasibleTarget
from matdesign.generators.frames import State, States, Steering
from matdesign.generators.noise import normal
from matdesign.generators.planning import Plan, allowed_elements
from matdesign.generators.retries import resample

if TYPE_CHECKING:
    from collections.abc import Callable

REPLANS = 60
"""How often a plan that no choice of elements can finish is made anew."""


def run(states: States, steering: Steering | None) -> tuple[State, Tensor | None]:
    """Return the last state of a sampler, and which of its crystals stand.

    Args:
        states: a sampler.
        steering: looks at every state; None lets all pass.

    Returns:
        The last state, moved as the steering wants it, and the chosen crystals, long,
        one for each that was asked for; None without steering.
    """
    state = next(states)
    while True:
        steer = None if steering is None else steering.steer(state)
        try:
            state = states.send(steer)
        except StopIteration:
            break
    if steering is None:
        return state, None
    if steer is not None:
        state = state.steered(steer)
    return state, steering.choose(state)


def kept(keep: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    """Return some crystals of several tensors."""
    return tuple(part[keep] for part in parts)


def feasible(plan: Plan, allowed: Tensor) -> Tensor:
    """Return for which crystals elements can be found at all, bool, shape (crystals,).

    Args:
        plan: layouts, given species, roles and choices.
        allowed: elements that the model knows, bool, shape (104,).
    """
    if plan.choices is None:
        return torch.ones(len(plan), dtype=torch.bool)
    bare = dataclasses.replace(plan, choices=None)
    may = allowed_elements(bare, plan.start, allowed)
    role = plan.role if bool((plan.role >= 0).any()) else None
    left = plan.choices(plan.start, plan.layout.count, role, may).any(-1)
    return (left | (plan.start != MASK)).all(1)


def replanned(
    plan: Plan, allowed: Tensor, again: Callable[[Tensor], Plan], words: str
) -> Plan:
    """Return a plan of which every crystal can be finished.

    Args:
        plan: with choices.
        allowed: elements that the model knows, bool, shape (104,).
        again: makes new plans for crystals that are named by their numbers.
        words: what was asked for, for the message.

    Raises:
        InfeasibleTarget: no plan was found for some crystal in `REPLANS` attempts.
    """
    found = plan

    def draw(rows: Tensor, attempt: int) -> None:
        nonlocal found
        if attempt:
            fresh = dataclasses.replace(again(rows), choices=plan.choices)
            place = torch.arange(len(found))
            place[rows] = len(found) + torch.arange(len(rows))
            found = Plan.cat([found, fresh])[place]

    def ok(rows: Tensor) -> Tensor:
        return feasible(found[rows], allowed)

    bad = resample(draw, ok, len(plan), REPLANS)
    if not len(bad):
        return found
    raise InfeasibleTarget(
        f"no arrangement of atoms that the model knows leaves elements to choose for "
        f"{len(bad)} of {len(plan)} crystals: {words}. Allow more elements, or drop "
        "one of the constraints on composition, charge or size."
    )


def straight_noise(
    there: Tensor,
    v: Tensor,
    reach: float,
    kick: float,
    rng: torch.Generator,
) -> Tensor:
    """Return coordinates of which the way to their end was turned a little.

    The stochastic twin of a straight path on the torus. A uniform displacement that is
    moved by any noise and reflected at +-1/2 stays uniform, so that all marginals of the
    path stay what they are.

    Equation:
        f_s = wrap(f_0 + s d'), d' = reflect(v + e), e ~ N(0, (kick / s)^2)

    Args:
        there: preview f_0, shape (crystals, orbits, 3).
        v: velocity, from data to noise, same shape.
        reach: s, how much of the displacement is left.
        kick: standard deviation of the noise on the coordinates.
        rng: source of randomness.
    """
    if reach <= 0:
        return wrap(there)
    moved = v + min(kick / reach, 0.5) * normal(v, rng)
    folded = moved - 2 * torch.floor((moved + 0.5) / 2)  # period 2, from -1/2 to 3/2
    folded = torch.where(folded > 0.5, 1 - folded, folded)
    return wrap(there + reach * folded)


def line_noise(
    x: Tensor,
    clean: Tensor,
    t: float,
    s: float,
    kick: float,
    rng: torch.Generator,
) -> Tensor:
    """Return a point of the straight path x_t = (1 - t) x_0 + t e with fresh noise.

    Equation:
        x_s = (1 - s) x_0 + sqrt(s^2 - c^2) e + c z,  e = (x_t - (1 - t) x_0) / t

    Every marginal is that of the path for any c up to s; c = 0 is the path itself.

    Args:
        x: x_t, shape (crystals, numbers).
        clean: what the network takes x_0 for.
        t: time now.
        s: earlier time.
        kick: c, at most s.
        rng: source of randomness.
    """
    c = min(kick, s)
    old = (x - (1 - t) * clean) / t
    return (1 - s) * clean + math.sqrt(s * s - c * c) * old + c * normal(x, rng)


def twin_kick(a: float, t: float, h: float) -> float:
    """Return the noise of one step of the stochastic twin of a straight path.

    Equation:
        c^2 = sigma(t)^2 h,  sigma(t) = a sqrt(t / (1 - t)), with 1 - t at least h

    Source:
        The schedule of OMatG-IRL, Hoellmer et al., with time turned around: much noise
        near t = 1, none near the data.
    """
    return a * math.sqrt(t / max(1 - t, h) * h)


def toward(start: Tensor, end: Tensor, t: float) -> Tensor:
    """Return the velocity with which coordinates come from `start` in time t."""
    return torus_difference(start, end) / t
