"""`Generator`: what every family writes, and the one sampling loop that all of them share."""

from __future__ import annotations

import abc
import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from matdesign.crystals import elements as periodic_table
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.symmetry.encoded import Encoded, Representation, encode
from matdesign.errors import ShapeError
from matdesign.generators import storage
from matdesign.generators.control import Controller, Preview, State, States
from matdesign.generators.planning import Plan, draw_sizes, feasible_plan, plan_cells
from matdesign.generators.request import Conditions, Request, resolve
from matdesign.generators.sampling import draw_request, eval_mode


@dataclass(frozen=True)
class Loss:
    """What training minimises, and its parts.

    Args:
        total: scalar that is differentiated.
        terms: name -> detached scalar, each with the scale its generator documents.
        each: the loss of every crystal, shape (crystals,), where a family tells it. One of
            which nothing is hidden or free counts 0 in that term, so that the mean over
            crystals is not `total`.
        prediction: what the network predicts of each, shape (crystals, numbers), likewise.
    """

    total: Tensor
    terms: dict[str, Tensor]
    each: Tensor | None = None
    prediction: Tensor | None = None

    @classmethod
    def of(cls, terms: dict[str, Tensor], *rest: Tensor) -> Self:
        """Return the sum of terms of equal weight, `rest` as in the constructor."""
        parts = {name: term.detach() for name, term in terms.items()}
        return cls(torch.stack(list(terms.values())).sum(), parts, *rest)


class Guide(Protocol):
    """Anything that guides sampling: it calls the model as it sees fit."""

    def sample(self, model: Generator, n: int, **settings: Any) -> Crystals:
        """Return n crystals; settings are those of `Generator.sample`."""


class Generator(nn.Module, abc.ABC):
    """Base of all generative models of crystals.

    A subclass gives `for_data`, `loss`, `start`, `predict` and `step`, sets `symmetries`
    and `default_steps`, and stores its constructor's keywords in `config`; planning what
    is fixed beforehand, the sampling loop, batches, provenance, saving and loading are
    done here. Whatever is written so is guided like the package's own families.

    Attributes:
        config: keywords that rebuild the model, `type(model)(**model.config)`.
        record: plain JSON facts about the training of these weights, empty before.
        symmetries: which changes of its input leave the generator's density alone, of
            "permutation", "translation", "integer_shift", "rotation", "supercell".
        likelihood: what `log_prob` gives: "exact", "a bound", ... or "none".
        representation: "cell" or "symmetric".
        properties: name -> [mean, standard deviation] of what it can be asked for.
        ahead: whether a campaign may draw in a thread of its own; see `Proposer`.
        steerable: whether `sample` runs the loop, so that a guide can move its states.
        stepwise: whether every state previews the finished crystal, so that what is moved
            early is made good by the later steps.
        deterministic: whether copies of a crystal go the same way unless their plan has
            noise for them.
        default_steps: sampling steps where none are asked for.
        bucketing: crystals with about as many of these make a batch, "atoms" or "orbits".
        default_batch_size: crystals (or particles) that are made together on a CPU, and
            elsewhere.
        redraws: how often a crystal whose atoms overlap is drawn again; see `sampling`.
        redrawn: crystals so far that were drawn more than once.
        size_histogram: number of training crystals with 0, 1, 2, ... atoms.
    """

    symmetries: ClassVar[frozenset[str]] = frozenset()
    likelihood: ClassVar[str] = "none"
    ahead: bool = True
    steerable: ClassVar[bool] = True
    stepwise: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False
    bucketing: ClassVar[Literal["atoms", "orbits"]] = "atoms"
    default_batch_size: ClassVar[tuple[int, int]] = (64, 256)
    default_steps: int = 100
    evaluations: int = 0
    redraws: int = 0
    redrawn: int = 0

    def __init__(self, config: dict[str, Any], size_histogram: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.record: dict[str, Any] = {}
        self.size_histogram = tuple(size_histogram)
        self.representation: Representation = config.get("representation", "cell")
        self.properties: dict[str, list[float]] = config.get("properties") or {}

    # ---- what a subclass gives ----------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def for_data(
        cls, train: Crystals, *, seed: int | torch.Generator | None = 0, **options: Any
    ) -> Self:
        """Return an untrained model whose sizes and scales fit a training set."""

    @abc.abstractmethod
    def loss(
        self, crystals: Crystals | Encoded, *, seed: int | torch.Generator | None = None
    ) -> Loss:
        """Return the training loss of a batch, a mean over its crystals."""

    @abc.abstractmethod
    def start(self, plan: Plan, rng: torch.Generator) -> Any:
        """Return noise for the crystals of a plan, at t = 1.

        What is returned is the family's own: a `Sample` as a rule, or any dataclass,
        tuple or tensor of which `planning.take` can take some crystals.
        """

    @abc.abstractmethod
    def predict(self, x: Any, t: float) -> Preview:
        """Return what the finished crystals will be, seen from x at time t.

        At t = 0 the preview is the finished crystals.
        """

    @abc.abstractmethod
    def step(
        self, x: Any, preview: Preview, t: float, s: float, rng: torch.Generator
    ) -> Any:
        """Return x at the earlier time s < t, on the way to the preview.

        Elements are decided with `planning.decide`, which keeps what is asked of them.
        """

    def times(self, steps: int, plan: Plan) -> list[float]:
        """Return the times of all states, from 1 to 0: as many steps as asked for."""
        made: list[float] = torch.linspace(1, 0, steps + 1).tolist()
        return made

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
        """Return the checked conditions of n crystals.

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
        make = partial(self.layouts, rng=at_home)
        return feasible_plan(request, make, self.known_elements)

    def layouts(self, request: Request, rng: torch.Generator) -> Plan:
        """Return sizes, layouts and given species: all atoms free in P1, as a rule.

        Args:
            request: what is asked for.
            rng: source of randomness, on the CPU.
        """
        return plan_cells(request, draw_sizes(request, self.size_histogram, rng))

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
        plan = dataclasses.replace(plan, scale=scale)
        yield from self.states(plan.to(self.device), steps, rng)

    @torch.no_grad()
    def states(self, plan: Plan, steps: int, rng: torch.Generator) -> States:
        """Yield states from noise to data: the sampling loop of every family.

        Args:
            plan: what is fixed beforehand, on the model's device.
            steps: sampling steps, for families that take as many as they are given.
            rng: source of randomness, on the model's device.

        Returns:
            The finished crystals, as the last control wants them.
        """
        with eval_mode(self):
            x = self.start(plan, rng)
            times = self.times(steps, plan)
            for number, (t, s) in enumerate(pairwise(times)):
                preview = self.predict(x, t)
                control = yield State(t, number, preview)
                if control is not None:
                    x, preview = control.apply(x, preview)
                x = self.step(x, preview, t, s, rng)
            preview = self.predict(x, 0.0)
            control = yield State(0.0, len(times) - 1, preview)
            return preview if control is None else control.apply(x, preview)[1]

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
        controller: Controller | None = None,
    ) -> Crystals:
        """Return n new crystals.

        Crystals of similar size are made together, so little is wasted on padding; the
        result is in random order of size all the same.

        Args:
            n: number of crystals.
            seed: same seed, device, version, n and batch_size: the same crystals. None
                draws a fresh one and reports it in `result.info["seed"]`.
            steps: sampling steps; more is slower and usually better.
            guide: moves the sampling towards constraints.
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
            batch_size: crystals (or particles) made at once; None takes
                `default_batch_size`.
            controller: what a guide gives to look at every state and change it; not for
                use together with `guide`.

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
            controller=controller,
        )

    def _steps(self, steps: int | None) -> int:
        """Return the number of sampling steps, checked."""
        steps = self.default_steps if steps is None else steps
        if steps < 1:
            raise ShapeError(f"steps must be at least 1; got {steps}.")
        return steps

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `config.json` into a folder and return it."""
        return storage.save_model(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the model that `save` wrote, in evaluation mode, on the CPU.

        Raises:
            DataError: a file is missing, truncated, altered or of another generator; the
                message names it.
        """
        return storage.load_model(cls, folder)

    def __repr__(self) -> str:
        def listed(facts: dict[str, Any], most: int) -> str:
            plain = [x for x in facts.items() if isinstance(x[1], str | int | float)]
            return ", ".join(f"{name} {value}" for name, value in plain[:most])

        present = [n for n, count in enumerate(self.size_histogram) if count] or [0]
        names, known = periodic_table.symbols(), self.config.get("elements", [])
        more = " ..." if len(known) > 12 else ""
        weights = sum(p.numel() for p in self.parameters())
        lines = {
            "data": f"{sum(self.size_histogram):,} crystals of {present[0]}-{present[-1]} "
            f"atoms, {len(known)} elements: {' '.join(names[z] for z in known[:12])}{more}",
            "options": listed(self.config, 24),
            "holds": ", ".join(sorted(self.symmetries)) or "no symmetry",
            "training": listed(self.record, 6) or "not trained yet",
        }
        head = f"{type(self).__name__}: {weights:,} parameters on {self.device}"
        wide = [
            textwrap.fill(f"  {k:<9} {v}", 88, subsequent_indent=12 * " ")
            for k, v in lines.items()
        ]
        return "\n".join([head, *wide])
