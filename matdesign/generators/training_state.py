"""What a training keeps between steps: averaged weights, checkpoints, mean steps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from matdesign.errors import DataError
from matdesign.generators import storage
from matdesign.generators.run import Run, Step


@torch.no_grad()
def update_average(average: list[Tensor], model: nn.Module, keep: float) -> None:
    """Move a running average of the weights towards the weights by 1 - keep."""
    torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - keep)


@torch.no_grad()
def swap(average: list[Tensor], model: nn.Module) -> None:
    """Exchange the model's weights and their running average."""
    for mean, weight in zip(average, model.parameters(), strict=True):
        held = weight.detach().clone()
        weight.copy_(mean)
        mean.copy_(held)


def mean_step(window: list[Step]) -> Step:
    """Return the average of several steps, dated at the last."""
    last, count = window[-1], len(window)
    looks = [s.val for s in window if s.val is not None]
    return Step(
        step=last.step,
        loss=sum(s.loss for s in window) / count,
        terms={k: sum(s.terms[k] for s in window) / count for k in last.terms},
        lr=last.lr,
        seconds=last.seconds,
        val=looks[-1] if looks else None,
    )


def save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    record: Run,
) -> None:
    """Write everything that the next step depends on, in one atomic file."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{i}": v for i, v in enumerate(average)}
    for i, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in slots.items()}
    history = [asdict(step) for step in record.history]
    storage.write_checkpoint(path, tensors, {**record.facts(), "history": history})


def restore(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    record: Run,
) -> None:
    """Set model, optimiser, average and record to where a checkpoint left them.

    Raises:
        DataError: the file cannot be read, or belongs to another training.
    """
    tensors, facts = storage.read_checkpoint(path)
    for name in ("seed", "batch_size", "data", "parameters"):
        mine, theirs = getattr(record, name), facts.get(name)
        if mine != theirs:
            raise DataError(
                f"{path} belongs to another training: its {name} is {theirs!r}, this one's "
                f"{mine!r}. Give another checkpoint file, or delete this one."
            )
    slots: dict[int, dict[str, Tensor]] = {}
    weights = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            weights[rest] = tensor
        elif kind == "average":
            average[int(rest)].copy_(tensor)
        else:
            i, _, slot = rest.partition(".")
            slots.setdefault(int(i), {})[slot] = tensor
    model.load_state_dict(weights)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    record.steps, record.seconds = facts["steps"], facts["seconds"]
    record.resumed = facts["resumed"] + 1
    record.history = [Step(**step) for step in facts["history"]]
