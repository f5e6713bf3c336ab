"""`fit_property` trains a `PropertyNetwork`: fixed geometry, so a step is cheap."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators import training_state as state
from matdesign.generators.batching import fingerprint, pick
from matdesign.generators.run import Run, Step
from matdesign.predictors.network import PropertyNetwork

CLIP = 1.0
"""Largest norm of the gradient of each member."""

BETA = 0.05
"""Error below which the loss is quadratic, in units of the network's scale."""


def fit_property(
    net: PropertyNetwork,
    train: Crystals,
    *,
    val: Crystals | None = None,
    steps: int = 1_000,
    progress: bool | None = None,
    log_every: int = 50,
    **options: Any,
) -> Run:
    """Train a property network in place and return the record of it.

    Args:
        net: made by `for_data(train, properties=...)`; holds the averaged weights
            afterwards.
        train: crystals with these properties; NaN values are left out.
        val: looked at every `val_every` steps.
        steps: optimiser steps.
        progress: show a bar; None shows it in a terminal only.
        log_every: steps that are averaged into one entry of the history.
        **options: as in `property_training`.

    Raises:
        DataError: as in `property_training`.

    Example:
        net = design.PropertyNetwork.for_data(train, properties="band_gap")
        run = design.fit_property(net, train, steps=500); print(run)
    """
    from tqdm import tqdm

    run, window = Run(), list[Step]()
    turns = property_training(net, train, val=val, steps=steps, run=run, **options)
    hidden = None if progress is None else not progress
    with tqdm(total=steps, disable=hidden, unit="step") as bar:
        for step in turns:
            bar.update(step.step - bar.n)
            window.append(step)
            if step.step % log_every == 0 or step.step == steps or step.val is not None:
                run.history.append(state.mean_step(window))
                window.clear()
    return run


def property_training(
    net: PropertyNetwork,
    train: Crystals,
    *,
    val: Crystals | None = None,
    steps: int = 1_000,
    batch_size: int = 64,
    seed: int = 0,
    lr: float = 2e-3,
    warmup: int = 100,
    weight_decay: float = 0.05,
    val_every: int = 250,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 250,
    run: Run | None = None,
) -> Iterator[Step]:
    """Train a property network, one step per turn of the loop.

    The surroundings of all crystals are computed once and kept in half precision. Every
    member of the network sees the same batches, and starts from weights of its own. The
    learning rate rises over `warmup` steps and falls to zero along a cosine; the network
    ends with a running average of its weights.

    Equation:
        loss = mean huber((f - target) / scale); where the target is at its floor, a
        prediction below the floor costs nothing.

    Args:
        net: trained in place.
        train: training set.
        val: validation set.
        steps: optimiser steps.
        batch_size: crystals in each step.
        seed: of the batches; the initial weights have their own in `for_data`.
        lr: highest learning rate, of AdamW.
        warmup: steps of linear rise.
        weight_decay: of matrices.
        val_every: steps between looks at the validation set.
        checkpoint: file to save to and, where it exists, to continue from.
        checkpoint_every: steps between savings; the last step is always saved.
        run: filled with the facts of the training where given.

    Yields:
        A `Step` after each optimiser step: `terms` hold the mean absolute error of each
        property on the batch in its own unit, `val` the mean of them on the validation
        set.

    Raises:
        DataError: no crystals, properties missing, or a checkpoint of another training.
    """
    from matdesign import __version__

    target = _targets(net, train)
    if not len(train) or steps < 0 or batch_size < 1:
        raise DataError(
            f"nothing to train on: got {len(train)} crystals, {steps} steps of "
            f"{batch_size}. Give crystals, steps and a batch size."
        )
    record = Run() if run is None else run
    record.batch_size, record.seed = batch_size, seed
    record.crystals, record.data = len(train), fingerprint(train)
    record.parameters = sum(p.numel() for p in net.parameters())
    record.version = __version__
    record.device = f"{net.scale.device.type} ({torch.get_num_threads()} thread)"
    matrices = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim < 2]
    weighted: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(weighted, lr=lr, betas=(0.9, 0.99))
    average = [p.detach().clone() for p in net.parameters()]
    if checkpoint is not None and Path(checkpoint).exists():
        state.restore(Path(checkpoint), net, optimizer, average, record)
    keep = min(0.999, max(0.9, 1 - 8 / max(1, steps)))
    before, start = record.seconds, time.perf_counter()
    memory = Memory(net, train)
    try:
        while record.steps < steps:
            net.train()
            done = record.steps
            rise = min(1.0, (done + 1) / max(1, warmup))
            rate = lr * rise * 0.5 * (1 + math.cos(math.pi * done / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            species, blocks, index = memory.batch(
                pick(len(train), batch_size, done, seed)
            )
            loss, terms = _loss(net, species, blocks, target[index])
            optimizer.zero_grad()
            loss.backward()
            for member in net.members:
                nn.utils.clip_grad_norm_(member.parameters(), CLIP)
            optimizer.step()
            record.steps += 1
            now = min(keep, (1 + record.steps) / (10 + record.steps))
            state.update_average(average, net, now)
            total = float(loss.detach())
            if not math.isfinite(total):
                raise DataError(
                    f"the loss is {total} at step {record.steps}. Lower lr (now {lr}), or "
                    "look for absurd values or cells in the training set."
                )
            looked, last = None, record.steps == steps
            if val is not None and (last or record.steps % val_every == 0):
                state.swap(average, net)
                looked = _validate(net, val)
                state.swap(average, net)
            record.seconds = before + time.perf_counter() - start
            yield Step(record.steps, total, terms, rate, record.seconds, looked)
            if checkpoint is not None and (
                last or record.steps % checkpoint_every == 0
            ):
                state.save(Path(checkpoint), net, optimizer, average, record)
    finally:
        state.swap(average, net)
        net.eval()


class Memory:
    """The surroundings of a whole set, by number of atoms, in half precision.

    Args:
        net: says what the surroundings are.
        crystals: the set; about 40 kB for a crystal of ten atoms.
    """

    def __init__(self, net: PropertyNetwork, crystals: Crystals) -> None:
        self.n_atoms = crystals.n_atoms.cpu()
        self.species = crystals.species.cpu()
        self.device = net.scale.device
        self.place = torch.zeros(len(crystals), dtype=torch.long)
        parts: dict[int, list[Tensor]] = {}
        counts: dict[int, int] = {}
        with torch.no_grad():
            for chunk in torch.arange(len(crystals)).split(256):
                some = crystals[chunk].to(self.device)
                for which, block in net.surroundings(some):
                    n, mine = block.shape[1], chunk[which.cpu()]
                    first = counts.get(n, 0)
                    self.place[mine] = torch.arange(first, first + len(mine))
                    counts[n] = first + len(mine)
                    parts.setdefault(n, []).append(block.half())
        self.blocks = {n: torch.cat(some) for n, some in parts.items()}

    def batch(self, index: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return species of the sites, moments, and which crystals, in this order."""
        species, blocks, order = [], [], []
        n_atoms = self.n_atoms[index]
        for n in n_atoms.unique().tolist():
            mine = index[n_atoms == n]
            place = self.place[mine].to(self.device)
            blocks.append(self.blocks[n][place].float())
            species.append(self.species[mine, :n].flatten())
            order.append(mine)
        return torch.cat(species).to(self.device), blocks, torch.cat(order)


def _targets(net: PropertyNetwork, crystals: Crystals) -> Tensor:
    """Return the properties of a set, shape (crystals, properties)."""
    missing = [name for name in net.properties if name not in crystals.properties]
    if missing:
        raise DataError(
            f"the training set has no {', '.join(missing)}; it has "
            f"{sorted(crystals.properties)}. Build the network for one of these."
        )
    values = [crystals.properties[name].float().cpu() for name in net.properties]
    return torch.stack(values, dim=1)


def _loss(
    net: PropertyNetwork,
    species: Tensor,
    blocks: list[Tensor],
    target: Tensor,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss and the mean absolute errors of a batch."""
    found = net.standard(species, blocks)  # (members, crystals, properties)
    target = target.to(found)
    line = net.line(species, blocks)
    known = target.isfinite()
    apart = found - ((target - line) / net.scale).nan_to_num(0.0)
    lowest = torch.tensor([-torch.inf if x is None else x for x in net.floors])
    least = target <= lowest.to(target)  # the gap of a metal
    apart = torch.where(least, apart.clamp(min=0.0), apart) * known
    size = apart.abs()
    huber = torch.where(
        size < BETA, 0.5 * apart.square() / BETA, size - 0.5 * BETA
    ) / known.sum().clamp(min=1)
    with torch.no_grad():
        error = (size.mean(0) * net.scale).sum(0) / known.sum(0).clamp(min=1)
    terms = dict(zip(net.properties, error.tolist(), strict=True))
    # a sum over members: each learns as if it were alone
    return huber.sum(), terms


@torch.no_grad()
def _validate(net: PropertyNetwork, val: Crystals) -> float:
    """Return the mean absolute error, averaged over the properties."""
    net.eval()
    found, errors = net.predict(val), []
    for name, value in found.items():
        known = val.properties[name].cpu()
        error = (value - known)[known.isfinite()].abs()
        errors.append(float(error.mean()))
    return sum(errors) / len(errors)
