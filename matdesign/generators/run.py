"""What a training leaves behind: its steps, and a record that prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


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
