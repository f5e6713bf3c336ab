"""What every generator promises: `for_data`, `loss`, `trajectory`, `sample`, `save`, `load`."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from matdesign.crystals import elements as periodic_table
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.symmetry.encoded import Encoded, Representation, encode
from matdesign.errors import DataError, ShapeError
from matdesign.generators import storage
from matdesign.generators.frames import (
    CONDITIONABLE,
    Conditions,
    Guide,
    Loss,
    State,
    States,
    Steering,
    properties_of,
)
from matdesign.generators.planning import Plan, draw_sizes, plan_cells
from matdesign.generators.request import Request, resolve
from matdesign.generators.sampling import draw_request
from matdesign.generators.steering import replanned

if TYPE_CHECKING:
    from matdesign.generators.templates import Templates

KNOWN = {
    "Autoregressive": "matdesign.generators.autoregressive",
    "CouplingFlow": "matdesign.generators.coupling_flow",
    "Diffusion": "matdesign.generators.diffusion",
    "FlowMatching": "matdesign.generators.flow_matching",
    "PropertyNetwork": "matdesign.predictors.network",
    "VAE": "matdesign.generators.vae",
}
"""Where the package's own generators live, so that `Generator.load` finds them."""


__all__ = [
    "CONDITIONABLE",
    "KNOWN",
    "Conditions",
    "Generator",
    "Guide",
    "Loss",
    "State",
    "properties_of",
]


class Generator(nn.Module, abc.ABC):
    """Base of all generative models of crystals.

    A subclass gives `for_data`, `loss` and `_states`, sets `symmetries` and
    `default_steps`, and stores its constructor's keywords in `config`; planning what is
    fixed beforehand, sampling in batches, provenance, saving and loading are done here.

    Attributes:
        config: keywords that rebuild the model, `type(model)(**model.config)`.
        record: plain JSON facts about the training of these weights, empty before.
        symmetries: which changes of its input leave the generator's density alone, of
            "permutation", "translation", "integer_shift", "rotation", "supercell".
        likelihood: what `log_prob` gives: "exact", "a bound", ... or "none".
        representation: "cell" or "symmetric".
        properties: name -> [mean, standard deviation] of what it can be asked for.
        templates: space groups, positions and species of the training set, from which a
            "symmetric" model may take its layouts; None where it makes its own.
        steerable: whether a guide may look at the states of sampling and move them.
        stepwise: whether every state previews the finished crystal, so that what is moved
            early is made good by the later steps.
        deterministic: whether copies of a crystal go the same way unless a steer gives
            them noise.
        default_steps: sampling steps where none are asked for.
        by_orbits: whether sampling takes as many steps as a batch's largest number of
            orbits: then batches are of crystals with about as many orbits, and else with
            about as many atoms.
        at_once: crystals (or particles) that are made together on a CPU, whose caches hold
            no more, and elsewhere.
        redraws: how often a crystal whose atoms overlap is drawn again; see `drawing`.
        redrawn: crystals so far that were drawn more than once.
        share_elements: whether orbits that share an element in the training crystal that
            lends its template share one in the new crystal too.
        size_histogram: number of training crystals with 0, 1, 2, ... atoms.
    """

    symmetries: ClassVar[frozenset[str]] = frozenset()
    likelihood: ClassVar[str] = "none"
    steerable: ClassVar[bool] = True
    stepwise: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False
    by_orbits: ClassVar[bool] = False
    at_once: ClassVar[tuple[int, int]] = (64, 256)
    default_steps: int = 100
    evaluations: int = 0
    redrawn: int = 0
    templates: Templates | None

    def __init__(self, config: dict[str, Any], size_histogram: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.record: dict[str, Any] = {}
        self.templates = None
        self.size_histogram = tuple(size_histogram)
        self.representation: Representation = config.get("representation", "cell")
        self.properties: dict[str, list[float]] = config.get("properties") or {}
        self.redraws: int = config.get("redraws", 0)
        self.share_elements: bool = config.get("share_elements", False)

    # ---- what a subclass gives ----------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def for_data(
        cls, train: Crystals, *, seed: int | torch.Generator | None = 0, **options: Any
    ) -> Self:
        """Return an untrained model whose sizes and scales fit a training set."""

    @abc.abstractmethod
    def loss(
        self,
        crystals: Crystals | Encoded,
        *,
        seed: int | torch.Generator | None = None,
    ) -> Loss:
        """Return the training loss of a batch, a mean over its crystals."""

    @abc.abstractmethod
    def _states(
        self, plan: Plan, *, steps: int, scale: float, rng: torch.Generator
    ) -> States:
        """Yield states from noise to data for crystals of which the plan fixes a part.

        After each but the last it may be sent a `Steer`; sent None, or iterated over, it
        goes its own way.
        """

    # ---- shared -------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Device that holds the weights."""
        held = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if held is None else held.device

    @property
    def known_elements(self) -> Tensor:
        """Elements that the model can make, bool, shape (104,), on the CPU."""
        known = torch.zeros(periodic_table.MAX_Z + 1, dtype=torch.bool)
        known[list(self.config["elements"])] = True
        return known

    def prepare(self, crystals: Crystals | Encoded) -> Encoded:
        """Return crystals in this model's representation, as `loss` reads them."""
        if isinstance(crystals, Encoded):
            return crystals
        return encode(crystals, self.representation)

    def request(
        self,
        n: int,
        n_atoms: int | Sequence[int] | Tensor | None = None,
        conditions: Conditions | None = None,
    ) -> Request:
        """Return checked wishes for n crystals.

        Raises:
            ShapeError: numbers that no sampling can have.
            DataError: a condition that this model does not know or that cannot be met.
        """
        return resolve(
            conditions,
            n_atoms,
            n,
            allowed=self.known_elements,
            histogram=self.size_histogram,
            properties=self.properties,
        )

    def plan(
        self,
        request: Request,
        rng: torch.Generator,
        scale: float = 1.0,
        steps: int | None = None,
    ) -> Plan:
        """Return what is fixed before sampling: sizes, layouts, asked species.

        Args:
            request: what is asked for.
            rng: source of randomness, on the model's device.
            scale: of classifier-free guidance, for families whose network draws layouts.
            steps: sampling steps, for families that look ahead; None takes the model's.
        """
        at_home = generator(
            int(torch.randint(2**62, (1,), generator=rng, device=rng.device))
        )

        def planned(some: Request) -> Plan:
            if self.templates is not None:
                return self.templates.choose(some, at_home, shared=self.share_elements)
            sizes = draw_sizes(some, len(some), self.size_histogram, at_home)
            return plan_cells(some, sizes, len(self.properties), at_home)

        plan = planned(request)
        if request.choices is None or not len(request):
            return plan
        return replanned(
            dataclasses.replace(plan, choices=request.choices),
            self.known_elements,
            lambda bad: planned(request[bad]),
            str(request.choices),
        )

    def trajectory(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        steps: int | None = None,
        n_atoms: int | Sequence[int] | Tensor | None = None,
        conditions: Conditions | None = None,
        scale: float = 1.0,
    ) -> Iterator[State]:
        """Yield states from noise to data; the last one's preview is the result.

        Args:
            n: number of crystals.
            seed: of all randomness.
            steps: sampling steps; None takes the model's own number.
            n_atoms: atoms per cell, one number or one for each.
            conditions: what the crystals are asked to be; see `sample`.
            scale: of classifier-free guidance; see `sample`.

        Raises:
            ShapeError: numbers that no sampling can have.
            DataError: a condition that this model does not know.
        """
        steps = self._steps(steps)
        if n < 1:
            raise ShapeError(f"a trajectory is that of at least 1 crystal; got {n}.")
        rng = generator(seed, self.device)
        plan = self.plan(self.request(n, n_atoms, conditions), rng, scale, steps)
        yield from self._states(plan.to(self.device), steps=steps, scale=scale, rng=rng)

    def sample(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        steps: int | None = None,
        guide: Guide | None = None,
        n_atoms: int | Sequence[int] | Tensor | None = None,
        conditions: Conditions | None = None,
        scale: float = 1.0,
        batch_size: int | None = None,
        steering: Steering | None = None,
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
            conditions: what the crystals are asked to be, any subset of: a property's
                value or range (low, high) with None for an open end; "composition", a
                formula (structure prediction) or a pattern such as "ABX3"; "spacegroup";
                "crystal_system"; "n_atoms". Composition and size hold exactly; in
                "symmetric" models so do space group and crystal system; the rest holds
                as well as the model learned it.
            scale: of classifier-free guidance: 0 ignores the learned conditions, 1 is the
                conditional model, more pushes further.
            batch_size: crystals (or particles) made at once; None takes `at_once`.
            steering: what a guide gives to look at every state and move it; not for use
                together with `guide`.

        Raises:
            ShapeError: numbers that no sampling can have.
            DataError: a condition that this model does not know.
            InfeasibleTarget: no crystal can be so.
        """
        if guide is not None:
            return guide.sample(
                self,
                n,
                seed=seed,
                steps=steps,
                n_atoms=n_atoms,
                conditions=conditions,
                scale=scale,
                batch_size=batch_size,
            )
        return draw_request(
            self,
            self.request(n, n_atoms, conditions),
            seed=seed,
            steps=self._steps(steps),
            scale=scale,
            batch_size=batch_size,
            steering=steering,
        )

    def _steps(self, steps: int | None) -> int:
        """Return the number of sampling steps, checked."""
        steps = self.default_steps if steps is None else steps
        if steps < 1:
            raise ShapeError(f"steps must be at least 1; got {steps}.")
        return steps

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
