"""What a training leaves behind: its steps, a record that prints, checkpoints."""

from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from matdesign.errors import DataError
from matdesign.generators import storage


@dataclass(frozen=True)
class Step:
    """What one training step did, or several in a row on average.

    Args:
        step: steps taken so far.
        loss: total training loss.
        terms: its parts by name.
        lr: learning rate.
        seconds: since the training began, those before a resume included.
        val: validation loss with averaged weights, where it was due; else None.
    """

    step: int
    loss: float
    terms: dict[str, float]
    lr: float
    seconds: float
    val: float | None = None


@dataclass
class Run:
    """The record of one training; print it, or plot it.

    Args:
        history: losses over the training, averaged over a few steps each.
        steps: steps taken.
        batch_size: crystals in each step, over all devices.
        crystals: size of the training set.
        parameters: weights of the model.
        seconds: time it took.
        seed: of batches and noise.
        device: where it ran.
        precision: number format of the network.
        version: of this package.
        data: checksum of the training set.
        resumed: how often it was continued from a checkpoint.
    """

    history: list[Step] = field(default_factory=list)
    steps: int = 0
    batch_size: int = 0
    crystals: int = 0
    parameters: int = 0
    seconds: float = 0.0
    seed: int = 0
    device: str = ""
    precision: str = "32-true"
    version: str = ""
    data: str = ""
    resumed: int = 0

    @property
    def validation(self) -> list[tuple[int, float]]:
        """Steps and losses at which the validation set was looked at."""
        return [(s.step, s.val) for s in self.history if s.val is not None]

    def facts(self) -> dict[str, Any]:
        """Return plain JSON values that describe the training, without its history."""
        keep = {k: v for k, v in vars(self).items() if k != "history"}
        last = self.history[-1] if self.history else None
        if last is not None:
            keep["loss"] = round(last.loss, 4)
            keep["terms"] = {k: round(v, 4) for k, v in last.terms.items()}
        if self.validation:
            keep["val_loss"] = round(self.validation[-1][1], 4)
        return keep

    def plot(self) -> Any:
        """Return a figure of all loss terms against steps."""
        if not self.history:
            return None
        # by name, when called: drawing stands above generators in the order of parts
        plots = import_module("matdesign.display.plots")
        names = list(self.history[0].terms)
        curves = {name: [s.terms[name] for s in self.history] for name in names}
        return plots.plot_losses(curves, [s.step for s in self.history])

    def __repr__(self) -> str:
        speed = self.steps / self.seconds if self.seconds else 0.0
        lines = [
            f"Run: {self.steps:,} steps of {self.batch_size} crystals in "
            f"{self.seconds:.0f} s ({speed:.1f} steps/s)",
            f"  data      {self.crystals:,} crystals, checksum {self.data[:12]}",
            f"  device    {self.device}, {self.precision}, {self.parameters:,} parameters",
            f"  seed      {self.seed}, version {self.version}",
        ]
        if self.resumed:
            lines.append(f"  resumed   {self.resumed} times")
        if self.history:
            first, last = self.history[0], self.history[-1]
            for name, value in last.terms.items():
                lines.append(f"  {name:<9} {first.terms[name]:.4f} -> {value:.4f}")
        for step, value in self.validation[-1:]:
            lines.append(f"  val       {value:.4f} at step {step:,}")
        return "\n".join(lines)


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
    model.load_state_dict(storage.renamed(type(model), weights))
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    record.steps, record.seconds = facts["steps"], facts["seconds"]
    record.resumed = facts["resumed"] + 1
    record.history = [Step(**step) for step in facts["history"]]
