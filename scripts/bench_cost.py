"""What the benchmark of generators measures with: seconds, memory, training steps, sizes."""

import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals, generator

MP20_SIZES = (9, 38, 59, 320, 212, 319, 99, 349, 188, 451,
              114, 512, 74, 259, 49, 338, 69, 278, 45, 564)  # fmt: skip
"""Crystals with 1, 2, ... 20 atoms among 4,346 of MP-20's training split."""


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        samples: crystals of a sampling.
        batch: crystals of a training step.
        train: crystals of the training set of fresh models.
        repeat: training steps timed; the median counts.
        reference: crystals given to the reference.
        levels: of its noise levels, timed.
        crystals: batch sizes for the growth with crystals.
        sites: sizes for the growth with sites.
        steps: sampling steps of the growth curves, where the model takes that many.
        cold: processes of a cold start.
        thousand: crystals of the last figure.
        hidden: size of the reference; 512 is the published one.
        own_steps: sampling steps, None for each model's own number.
        clock: "wall" for seconds on the clock, "cpu" for processor seconds, which a busy
            machine changes less; with one thread both are the same on an idle one.
    """

    samples: int = 128
    batch: int = 128
    train: int = 2_000
    repeat: int = 3
    reference: int = 32
    levels: int = 3
    crystals: tuple[int, ...] = (16, 64, 256, 512)
    sites: tuple[int, ...] = (4, 8, 12, 20, 28, 40)
    steps: int = 5
    cold: int = 3
    thousand: int = 1_000
    hidden: int = 512
    own_steps: int | None = None
    clock: str = "wall"


QUICK = Effort(4, 8, 64, 1, 2, 1, (2, 4), (2, 4), 1, 0, 4, hidden=32, own_steps=2)
"""For a test of the script; the figures say nothing."""


@dataclass
class Cost:
    """What one call took.

    Args:
        wall: seconds on the clock.
        cpu: processor seconds of all threads.
        memory: growth to the highest point, MiB; None where it cannot be told.
    """

    wall: float
    cpu: float
    memory: float | None

    def seconds(self, clock: str) -> float:
        """Return seconds by a clock, "wall" or "cpu"."""
        return self.wall if clock == "wall" else self.cpu


def cost(call: Callable[[], Any], device: str) -> tuple[Any, Cost]:
    """Return what a call returns, and what it took."""
    gc.collect()
    before = _reset_peak(device)
    wall, cpu = time.perf_counter(), time.process_time()
    out = call()
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = _peak(device)
    grown = None if before is None or after is None else max(0.0, after - before)
    return out, Cost(wall, cpu, grown)


def _reset_peak(device: str) -> float | None:
    """Forget the highest memory use so far; return the present one, MiB."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def _peak(device: str) -> float | None:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return _status("VmHWM")


def _status(name: str) -> float | None:
    path = Path("/proc/self/status")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith(name):
            return float(line.split()[1]) / 1024
    return None


def exponent(times: dict[int, float]) -> float | None:
    """Return the slope of log(seconds) against log(size), None below three sizes.

    Example:
        >>> round(exponent({4: 1.0, 8: 4.0, 16: 16.0}), 6)
        2.0
    """
    if len(times) < 3:
        return None
    x = [math.log(size) for size in times]
    y = [math.log(max(t, 1e-9)) for t in times.values()]
    return statistics.linear_regression(x, y).slope


def training_step(
    parameters: list[Tensor], losses: Sequence[tuple[Callable[[], Tensor], float]]
) -> Callable[[], None]:
    """Return one step as a call: forward and backward of all groups, clip, AdamW."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)

    def step() -> None:
        for loss, weight in losses:
            (loss() * weight).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed_steps(
    step: Callable[[], None], crystals: int, effort: Effort, device: str
) -> dict[str, Any]:
    """Return crystals a second (median of several steps), and the first step's memory."""
    _, first = cost(step, device)
    took = [cost(step, device)[1] for _ in range(effort.repeat)]
    middle = statistics.median(one.seconds(effort.clock) for one in took)
    return {
        "crystals": crystals,
        "seconds": middle,
        "crystals_per_second": crystals / middle,
        "memory_MiB": first.memory,
    }


def draw_sizes(histogram: Sequence[int], n: int) -> Tensor:
    """Return n cell sizes; `histogram` counts crystals with 0, 1, 2, ... atoms."""
    weights = torch.tensor(histogram, dtype=torch.float64)
    return torch.multinomial(weights, n, replacement=True, generator=generator(0))


def like_mp20(crystals: Crystals, n: int) -> Crystals:
    """Return n crystals drawn so that their sizes are distributed as in MP-20.

    A size that does not occur among them is replaced by the next larger one that does.
    """
    sizes = crystals.n_atoms
    there = sizes.bincount(minlength=21)[:21].double()
    wanted, left = torch.zeros(21, dtype=torch.float64), 0
    for size, count in enumerate(MP20_SIZES, start=1):
        left += count
        if there[size]:
            wanted[size], left = left, 0
    weight = wanted / there.clamp(min=1)
    chance = weight[sizes.clamp(max=20)] * (sizes <= 20)
    drawn = torch.multinomial(chance, n, replacement=True, generator=generator(0))
    return crystals[drawn]
