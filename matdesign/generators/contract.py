"""What every generator promises: `for_data`, `loss`, `trajectory`, `sample`, `save`, `load`."""

from __future__ import annotations

import abc
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, SoftCrystals, generator
from matdesign.errors import DataError, ShapeError
from matdesign.generators import storage

KNOWN = {"Diffusion": "matdesign.generators.diffusion"}
"""Where the package's own generators live, so that `Generator.load` finds them."""


@dataclass(frozen=True)
class Loss:
    """What training minimises, and its parts.

    Args:
        total: scalar that is differentiated.
        terms: name -> detached scalar, each with the scale its generator documents.
    """

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class State:
    """One frame of a trajectory.

    Args:
        t: time, from 1 (noise) to 0 (data).
        step: steps taken so far.
        soft: the network's belief about the finished crystals, species undecided.
    """

    t: float
    step: int
    soft: SoftCrystals

    @property
    def preview(self) -> Crystals:
        """The belief with the most probable element on every site."""
        return self.soft.harden()


class Guide(Protocol):
    """Anything that steers sampling: it calls the model as it sees fit."""

    def sample(
        self,
        model: Generator,
        n: int,
        *,
        seed: int | torch.Generator | None,
        steps: int | None,
        n_atoms: int | Sequence[int] | Tensor | None,
        batch_size: int,
    ) -> Crystals:
        """Return n crystals."""


class Generator(nn.Module, abc.ABC):
    """Base of all generative models of crystals.

    A subclass gives `for_data`, `loss` and `trajectory`, sets `symmetries` and
    `default_steps`, and stores its constructor's keywords in `config`; sampling in
    batches, provenance, saving and loading are done here.

    Attributes:
        config: keywords that rebuild the model, `type(model)(**model.config)`.
        record: plain JSON facts about the training of these weights, empty before.
        symmetries: which changes of its input leave the generator's density alone, of
            "permutation", "translation", "integer_shift", "rotation", "supercell".
        default_steps: sampling steps where none are asked for.
        size_histogram: number of training crystals with 0, 1, 2, ... atoms.
    """

    symmetries: ClassVar[frozenset[str]] = frozenset()
    default_steps: int = 100
    evaluations: int = 0

    def __init__(self, config: dict[str, Any], size_histogram: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.record: dict[str, Any] = {}
        self.size_histogram = tuple(size_histogram)

    # ---- what a subclass gives ----------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def for_data(
        cls, train: Crystals, *, seed: int | torch.Generator | None = 0, **options: Any
    ) -> Self:
        """Return an untrained model whose sizes and scales fit a training set."""

    @abc.abstractmethod
    def loss(
        self, crystals: Crystals, *, seed: int | torch.Generator | None = None
    ) -> Loss:
        """Return the training loss of a batch, a mean over its crystals."""

    @abc.abstractmethod
    def trajectory(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        steps: int | None = None,
        n_atoms: int | Sequence[int] | Tensor | None = None,
    ) -> Iterator[State]:
        """Yield states from noise to data; the last one's preview is the result."""

    # ---- shared -------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Device that holds the weights."""
        held = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if held is None else held.device

    def sizes(
        self, n: int, n_atoms: int | Sequence[int] | Tensor | None, rng: torch.Generator
    ) -> Tensor:
        """Return how many atoms each of n crystals shall have.

        Args:
            n: number of crystals.
            n_atoms: one number for all, one for each, or None to draw from the sizes of
                the training set.
            rng: source of randomness.

        Returns:
            Atoms per crystal, shape (n,), int64, on the CPU.

        Raises:
            ShapeError: a number of crystals or atoms that no crystal has.
        """
        if n < 0:
            raise ShapeError(f"cannot make {n} crystals; ask for none or more.")
        if n_atoms is None:
            weights = torch.tensor(self.size_histogram, dtype=torch.float64)
            cut = torch.rand(
                n, generator=rng, device=rng.device, dtype=torch.float64
            ).cpu()
            total = weights.cumsum(0)
            return torch.searchsorted(total, cut * total[-1], right=True)
        asked = torch.as_tensor(n_atoms, dtype=torch.long).cpu()
        largest = len(self.size_histogram) - 1
        if asked.ndim > 1 or (asked.ndim == 1 and len(asked) != n):
            raise ShapeError(
                f"n_atoms must be one number or one for each of {n} crystals; got shape "
                f"{tuple(asked.shape)}."
            )
        if n and (int(asked.min()) < 1 or int(asked.max()) > 4 * largest):
            raise ShapeError(
                f"n_atoms must lie between 1 and {4 * largest}, four times the largest "
                f"crystal of the training set; got {asked.tolist()}."
            )
        return asked.expand(n).clone()

    def sample(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        steps: int | None = None,
        guide: Guide | None = None,
        n_atoms: int | Sequence[int] | Tensor | None = None,
        batch_size: int = 256,
    ) -> Crystals:
        """Return n new crystals.

        Crystals of similar size are made together, so little is wasted on padding; the
        result is in random order of size all the same.

        Args:
            n: number of crystals.
            seed: same seed, device, version, n and batch_size: the same crystals. None
                draws a fresh one and reports it in `result.info["seed"]`.
            steps: sampling steps; more is slower and usually better.
            guide: steers the sampling towards constraints.
            n_atoms: atoms per cell, one number or one for each; None draws them from the
                sizes of the training set.
            batch_size: crystals made at once.

        Raises:
            ShapeError: numbers that no sampling can have.
        """
        if guide is not None:
            return guide.sample(
                self, n, seed=seed, steps=steps, n_atoms=n_atoms, batch_size=batch_size
            )
        if batch_size < 1:
            raise ShapeError(f"batch_size must be at least 1; got {batch_size}.")
        start, before = time.perf_counter(), self.evaluations
        rng = generator(seed, self.device)
        first = rng.initial_seed()
        sizes = self.sizes(n, n_atoms, rng)
        order = torch.argsort(sizes, stable=True)
        parts = []
        with _one_thread(n <= 64 and self.device.type == "cpu"):
            for chunk in order.split(batch_size) if n else ():
                states = self.trajectory(
                    len(chunk), seed=rng, steps=steps, n_atoms=sizes[chunk]
                )
                parts.append(deque(states, maxlen=1)[0].preview)
        made = Crystals.cat(parts)[torch.argsort(order)] if parts else _nothing()
        return made.replace(info=self._provenance(first, steps, start, before))

    def _provenance(
        self, seed: int, steps: int | None, start: float, before: int
    ) -> dict[str, Any]:
        """Return the record that travels with a batch of samples."""
        from matdesign import __version__

        return {
            "generator": type(self).__name__,
            "model": self.record.get("name", ""),
            "seed": seed,
            "steps": self.default_steps if steps is None else steps,
            "seconds": round(time.perf_counter() - start, 3),
            "network_evaluations": self.evaluations - before,
            "device": str(self.device),
            "version": __version__,
        }

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `config.json` into a folder and return it."""
        from matdesign import __version__

        facts = {
            "class": type(self).__name__,
            "version": __version__,
            "config": self.config,
            "record": self.record,
        }
        return storage.write(folder, self.state_dict(), facts)

    @classmethod
    def load(cls, folder: str | Path) -> Generator:
        """Return the model that `save` wrote, in evaluation mode, on the CPU.

        Raises:
            DataError: a file is missing, truncated, altered or of another generator; the
                message names it.
        """
        tensors, facts = storage.read(folder)
        path = Path(folder) / storage.FACTS
        kind = facts.get("class")
        if cls.__name__ == kind:
            maker: Any = cls
        elif kind in KNOWN:
            maker = getattr(import_module(KNOWN[kind]), kind)
        else:
            raise DataError(
                f"{path} names a generator that is not known here: got {kind!r}. "
                f"Load it with its own class, as in {kind}.load(folder)."
            )
        if not issubclass(maker, cls):
            raise DataError(
                f"{path} holds a {kind}, not a {cls.__name__}. Use {kind}.load(folder)."
            )
        try:
            model: Generator = maker(**facts["config"])
            model.load_state_dict(tensors)
        except (TypeError, KeyError, ValueError, RuntimeError) as wrong:
            raise DataError(
                f"{path} does not fit its weights or this version: {wrong}. "
                "Train the model again, or install the version that wrote it."
            ) from wrong
        model.record = dict(facts.get("record", {}))
        return model.eval()

    def __repr__(self) -> str:
        counts = self.size_histogram
        present = [n for n, count in enumerate(counts) if count]
        weights = sum(p.numel() for p in self.parameters())
        lines = [f"{type(self).__name__}: {weights:,} parameters on {self.device}"]
        if present:
            lines.append(
                f"  data      {sum(counts):,} crystals of {present[0]}-{present[-1]} atoms"
            )
        lines += [f"  {name:<9} {text}" for name, text in self.describe().items()]
        lines.append(
            f"  holds     {', '.join(sorted(self.symmetries)) or 'no symmetry'}"
        )
        shown = {
            k: v for k, v in self.record.items() if isinstance(v, str | int | float)
        }
        trained = ", ".join(f"{k} {v}" for k, v in list(shown.items())[:6])
        lines.append(f"  training  {trained or 'not trained yet'}")
        return "\n".join(lines)

    def describe(self) -> dict[str, str]:
        """Return further lines for `repr`: a short label and what to say."""
        return {}


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Let torch use one thread for a while.

    For a few crystals handing out the work costs more than it saves, and on a machine
    that is busy with other things threads that wait for each other cost very much more.
    """
    before = torch.get_num_threads()
    if not wanted or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _nothing() -> Crystals:
    return Crystals(
        torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, 0, 3), torch.zeros(0, 3, 3)
    )
