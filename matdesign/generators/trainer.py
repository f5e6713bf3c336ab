"""`fit` trains generators and property networks, on one device or several, resumably."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import DataError
from matdesign.generators.run import Run, Step, mean_step, restore, save

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["Run", "Step", "fit", "training"]


def fit(
    model: Any,
    train: Crystals,
    *,
    steps: int = 2_000,
    progress: bool | None = None,
    log_every: int = 50,
    **options: Any,
) -> Run:
    """Train a generator or a property network in place and return the record of it.

    Args:
        model: made by `for_data(train)`; holds the averaged weights afterwards.
        train: training set.
        steps: optimiser steps.
        progress: show a bar; None shows it in a terminal only.
        log_every: steps that are averaged into one entry of the history.
        **options: as in `training`: `val`, `batch_size`, `seed`, `lr`, `checkpoint`, ...

    Raises:
        DataError: as in `training`.

    Example:
        run = design.fit(model, train, val=val, steps=2_000, seed=0); print(run)
    """
    from tqdm import tqdm

    run, window = Run(), list[Step]()
    hidden = None if progress is None else not progress
    with tqdm(total=steps, disable=hidden, unit="step") as bar:
        for step in training(model, train, steps=steps, run=run, **options):
            bar.update(step.step - bar.n)
            window.append(step)
            if step.step % log_every == 0 or step.step == steps:
                run.history.append(mean_step(window))
                bar.set_postfix(loss=f"{run.history[-1].loss:.3f}")
                window.clear()
    return run


def training(
    model: Any,
    train: Crystals,
    *,
    val: Crystals | None = None,
    steps: int = 2_000,
    batch_size: int = 128,
    seed: int = 0,
    lr: float = 1e-3,
    warmup: int = 100,
    decay: float = 0.3,
    weight_decay: float = 0.01,
    ema: float = 0.999,
    clip: float = 1.0,
    val_every: int = 500,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    accelerator: str = "auto",
    devices: int | str = 1,
    precision: str = "32-true",
    run: Run | None = None,
) -> Iterator[Step]:
    """Train a generator or a property network, one step per turn of the loop.

    The learning rate rises over `warmup` steps, stays, and falls to zero along a cosine
    over the last `decay` of all steps. A running average of the weights is what the model
    holds when the loop ends, also when you leave it early.

    Args:
        model: trained in place; any module with `prepare` and `loss` as in `Generator`.
            Where it has `members`, networks of an ensemble, each learns as if alone.
        train: training set.
        val: validation set; its loss is measured.
        steps: optimiser steps.
        batch_size: crystals in each step, over all devices.
        seed: of batches and noise; the initial weights have their own in `for_data`.
        lr: highest learning rate, of AdamW.
        warmup: steps of linear rise.
        decay: share of the steps with falling rate.
        weight_decay: of matrices.
        ema: share of the running average that stays at each step.
        clip: largest norm of the gradient.
        val_every: steps between looks at the validation set.
        checkpoint: file to save to and, where it exists, to continue from.
        checkpoint_every: steps between savings; the last step is always saved.
        accelerator: "auto", "cpu", "cuda", ... (Lightning Fabric).
        devices: number of devices; more than one trains data-parallel.
        precision: "32-true" or "bf16-mixed" (Lightning Fabric).
        run: filled with the facts of the training where given.

    Yields:
        A `Step` after each optimiser step.

    Raises:
        DataError: no crystals, or a checkpoint of another training.
    """
    from lightning.fabric import Fabric

    from matdesign import __version__

    if not len(train) or steps < 0 or batch_size < 1:
        raise DataError(
            f"nothing to train on: got {len(train)} crystals, {steps} steps of "
            f"{batch_size}. Give crystals, steps and a batch size."
        )
    setup: Any = {
        "accelerator": accelerator,
        "devices": devices,
        "precision": precision,
    }
    fabric: Fabric = Fabric(**setup)
    fabric.launch()
    record = Run() if run is None else run
    record.batch_size, record.seed, record.precision = batch_size, seed, precision
    record.crystals, record.data = len(train), fingerprint(train)
    record.parameters = sum(p.numel() for p in model.parameters())
    record.version, record.device = __version__, _device_name(fabric)

    model.to(fabric.device)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    weighted: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(weighted, lr=lr, betas=(0.9, 0.99))
    clipped = [list(one.parameters()) for one in getattr(model, "members", ())]
    clipped = clipped or [matrices + vectors]
    average = [p.detach().clone() for p in model.parameters()]
    if checkpoint is not None and Path(checkpoint).exists():
        restore(Path(checkpoint), model, optimizer, average, record)
    wrapped, tied = fabric.setup(_Objective(model), optimizer)
    world, rank = fabric.world_size, fabric.global_rank
    share = max(1, batch_size // world)
    data = model.prepare(train)
    looked_at = None if val is None else model.prepare(val)
    n_atoms = data.n_atoms.cpu()
    before, start = record.seconds, time.perf_counter()
    try:
        while record.steps < steps:
            model.train()
            rate = lr * _rate(record.steps, steps, warmup, decay)
            for group in tied.param_groups:
                group["lr"] = rate
            index = pick(len(train), share * world, record.steps, seed)[rank::world]
            rng = generator(_seed(seed, record.steps, rank), fabric.device)
            groups = by_size(n_atoms, index)
            total, terms = 0.0, dict[str, float]()
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(_seed(seed, record.steps, rank))  # what dropout reads
                for i, some in enumerate(groups):
                    batch = data[some].to(fabric.device)
                    weight = len(some) / len(index)
                    with fabric.no_backward_sync(wrapped, enabled=i + 1 < len(groups)):
                        loss, parts = wrapped(lambda batch=batch: batch, rng)
                        fabric.backward(loss * weight)
                    total += weight * float(loss.detach())
                    for name, value in parts.items():
                        terms[name] = terms.get(name, 0.0) + weight * float(value)
            for part in clipped:
                nn.utils.clip_grad_norm_(part, clip)
            tied.step()
            tied.zero_grad()
            record.steps += 1
            keep = min(ema, (1 + record.steps) / (10 + record.steps))
            weights = [p.detach() for p in model.parameters()]
            torch._foreach_lerp_(average, weights, 1 - keep)
            looked = None
            last = record.steps == steps
            if looked_at is not None and (last or record.steps % val_every == 0):
                looked = _validate(model, looked_at, average, seed)
            record.seconds = before + time.perf_counter() - start
            if not math.isfinite(total):
                raise DataError(
                    f"the loss is {total} at step {record.steps}. Lower lr (now {lr}), or "
                    "look for absurd values or cells in the training set."
                )
            yield Step(record.steps, total, terms, rate, record.seconds, looked)
            due = last or record.steps % checkpoint_every == 0
            if checkpoint is not None and due and rank == 0:
                save(Path(checkpoint), model, optimizer, average, record)
    finally:
        _swap(average, model)
        model.eval()


class _Objective(nn.Module):
    """A model's loss as a plain forward, which is what Fabric wraps.

    The batch comes as a function that returns it: Fabric turns every tensor it is given
    into half precision in mixed mode, and coordinates would lose their digits.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batch: Callable[[], Any], rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total loss and its named terms."""
        loss = self.model.loss(batch(), seed=rng)
        return loss.total, loss.terms


def _rate(step: int, steps: int, warmup: int, decay: float) -> float:
    """Return the share of the highest learning rate: rise, plateau, cosine fall."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = (step - (1 - decay) * steps) / max(1.0, decay * steps)
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, fall))))


def _seed(seed: int, step: int, rank: int) -> int:
    """Return a seed of its own for every step and device."""
    return (seed * 1_000_003 + step * 1_009 + rank + 1) % 2**62


@torch.no_grad()
def _swap(average: list[Tensor], model: nn.Module) -> None:
    """Exchange the model's weights and their running average."""
    for mean, weight in zip(average, model.parameters(), strict=True):
        held = weight.detach().clone()
        weight.copy_(mean)
        mean.copy_(held)


@torch.no_grad()
def _validate(model: Any, val: Any, average: list[Tensor], seed: int) -> float:
    """Return the loss of the averaged weights on a validation set, same noise each time."""
    _swap(average, model)
    model.eval()
    total, n_atoms = 0.0, val.n_atoms.cpu()
    device = average[0].device
    rng = generator(_seed(seed, -1, 0), device)
    for index in torch.randperm(len(val), generator=generator(seed)).split(128):
        for some in by_size(n_atoms, index):  # as in training
            batch = val[some].to(device)
            total += float(model.loss(batch, seed=rng).total) * len(some)
    _swap(average, model)
    return total / max(1, len(val))


def _device_name(fabric: Fabric) -> str:
    device = fabric.device
    threads = torch.get_num_threads()
    name = f"{threads} thread{'s' if threads > 1 else ''}"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    many = f", {fabric.world_size} processes" if fabric.world_size > 1 else ""
    return f"{device.type} ({name}{many})"


def pick(size: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Return the crystals of one training step.

    The training set is shuffled anew for every pass and read in order; a batch larger
    than the set spans several passes. Depends on nothing but its arguments, so a resumed
    training sees exactly what an uninterrupted one would have seen.

    Args:
        size: crystals in the training set.
        batch_size: crystals in a step.
        step: number of the step, from 0.
        seed: of the shuffles.

    Returns:
        Indices, shape (batch_size,).
    """
    first, last = step * batch_size, (step + 1) * batch_size
    parts = []
    for epoch in range(first // size, (last - 1) // size + 1):
        order = torch.randperm(size, generator=generator(seed + 7_919 * (epoch + 1)))
        parts.append(order[max(first - epoch * size, 0) : last - epoch * size])
    return torch.cat(parts)


def by_size(n_atoms: Tensor, index: Tensor) -> list[Tensor]:
    """Split a batch into groups of crystals of nearly equal size.

    Args:
        n_atoms: atoms of all crystals of the set.
        index: crystals of the batch.

    Returns:
        Groups of indices that together are the batch, of 16 crystals or more while there
        are as many; the largest has at most 1.35 times the atoms of the smallest.
    """
    index = index[torch.argsort(n_atoms[index], stable=True)]
    sizes = n_atoms[index].tolist()
    groups, start = [], 0
    for i in range(1, len(sizes)):
        wide = sizes[i] > max(sizes[start] * 1.35, sizes[start] + 1)
        if wide and min(i - start, len(sizes) - i) >= 16:
            groups.append(index[start:i])
            start = i
    groups.append(index[start:])
    return groups


def fingerprint(crystals: Crystals) -> str:
    """Return a checksum of the sites, cells and properties of a set, to tell sets apart."""
    seal = hashlib.sha256(repr(sorted(crystals.properties)).encode())
    labels = [crystals.properties[name] for name in sorted(crystals.properties)]
    for tensor in (crystals.species, crystals.frac, crystals.lattice, *labels):
        seal.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return seal.hexdigest()
