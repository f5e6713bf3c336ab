"""`Plan`: what is fixed about each crystal before sampling begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from matdesign.crystals.batch import joined
from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.layout import Layout
from matdesign.errors import InfeasibleTarget
from matdesign.generators.conditions import Condition
from matdesign.generators.request import Choices, Request

REPLANS = 60
"""How often a plan that no choice of elements can finish is made anew."""


def take(batch: Any, index: Tensor) -> Any:
    """Return some crystals of a batch, one named twice counting twice; padding stays.

    Args:
        batch: a tensor with the crystals along its first dimension, or a tuple,
            list or dataclass of such; what is neither stays as it is.
        index: numbers of crystals, long.
    """
    if isinstance(batch, Tensor):
        return batch[index]
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        names = [f.name for f in dataclasses.fields(batch)]
        parts = {name: take(getattr(batch, name), index) for name in names}
        return dataclasses.replace(batch, **parts)
    if isinstance(batch, tuple | list):
        made = [take(part, index) for part in batch]
        return type(batch)(*made) if hasattr(batch, "_fields") else type(batch)(made)
    return batch


@dataclass(frozen=True, eq=False)
class Plan:
    """Layouts, and what is decided about the species, before sampling begins.

    Args:
        layout: where atoms may be.
        species: element of each orbit, 0 = open (and on padding), long, shape
            (crystals, orbits).
        role: orbits of one role carry one element and different roles different ones;
            -1 = no role, long, shape (crystals, orbits).
        condition: what the network is conditioned on.
        choices: says which elements may still be where; None forbids nothing.
        scale: of classifier-free guidance.
        noise: of stochastic (SDE) steps where a sampler has deterministic ones; 0 for none.
        latent: what a family has drawn besides, one row per crystal; along a second axis
            of orbits nothing is cut off.
    """

    layout: Layout
    species: Tensor
    role: Tensor
    condition: Condition
    choices: Choices | None = None
    scale: float = 1.0
    noise: float = 0.0
    latent: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.species)

    @property
    def n_atoms(self) -> Tensor:
        """Atoms in the primitive cell, shape (crystals,)."""
        return self.layout.n_atoms

    @property
    def open(self) -> Tensor:
        """True for orbits whose element is to be found, shape (crystals, orbits)."""
        return self.layout.orbits & (self.species == 0)

    @property
    def start(self) -> Tensor:
        """Species as the network reads them at t = 1: `MASK` where open."""
        return torch.where(self.open, MASK, self.species)

    def __getitem__(self, index: Tensor) -> Self:
        """Return some crystals, padded no wider than the largest of them."""
        layout = self.layout[index]
        orbits = layout.count.shape[1]
        return dataclasses.replace(
            self,
            layout=layout,
            species=self.species[index, :orbits],
            role=self.role[index, :orbits],
            condition=self.condition[index],
            latent=take(self.latent, index),
        )

    def to(self, device: torch.device | str) -> Self:
        """Return the plan on a device."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("layout", "species", "role", "condition")
        }
        latent = tuple(one.to(device) for one in self.latent)
        return dataclasses.replace(self, **moved, latent=latent)

    @staticmethod
    def cat(parts: Sequence[Plan]) -> Plan:
        """Return one plan of all crystals, padded to the widest."""
        latents = zip(*(part.latent for part in parts), strict=True)
        return dataclasses.replace(
            parts[0],
            layout=Layout.cat([part.layout for part in parts]),
            species=joined([part.species for part in parts]),
            role=joined([part.role + 1 for part in parts]) - 1,
            condition=Condition.cat([part.condition for part in parts]),
            latent=tuple(map(joined, latents)),
        )


def draw_sizes(
    request: Request, histogram: Sequence[int], rng: torch.Generator
) -> Tensor:
    """Return how many atoms each crystal shall have.

    Sizes that are not given are drawn from the training set's, among the multiples of
    the formula or pattern where there is one.

    Args:
        request: what was asked for.
        histogram: number of training crystals with 0, 1, 2, ... atoms.
        rng: source of randomness.

    Returns:
        Atoms per crystal, shape (crystals,), long, on the CPU.
    """
    weight = torch.tensor(histogram, dtype=torch.float64)
    cut = torch.rand(
        len(request), generator=rng, device=rng.device, dtype=torch.float64
    ).cpu()
    drawn = torch.zeros(len(request), dtype=torch.long)
    for unit in request.unit.unique().tolist():
        total = (weight * (torch.arange(len(weight)) % unit == 0)).cumsum(0)
        size = torch.searchsorted(total, cut * total[-1], right=True)
        drawn = torch.where(request.unit == unit, size, drawn)
    return torch.where(request.n_atoms > 0, request.n_atoms, drawn)


def plan_cells(request: Request, sizes: Tensor) -> Plan:
    """Return plans in the representation "cell": all atoms free, in P1.

    Args:
        request: what was asked for, for as many crystals as there are sizes.
        sizes: atoms per crystal, shape (crystals,), as `draw_sizes` gives them.

    Returns:
        The plan, on the CPU: species sorted by atomic number where a formula is given,
        roles where a pattern is.
    """
    layout = Layout.whole_cell(sizes.cpu())
    n, width = layout.count.shape
    species = torch.zeros(n, width, dtype=torch.long)
    role = torch.full((n, width), -1)
    times = layout.n_atoms // request.unit  # formula units per cell
    site = torch.arange(width).expand(n, width).contiguous()
    for counts, target, blank in (
        (request.formula, species, 0),
        (request.pattern, role, -1),
    ):
        given = counts.sum(1) > 0
        if given.any():
            ends = (counts * times[:, None]).cumsum(1)
            kind = torch.searchsorted(ends, site, right=True)
            kind = torch.where(layout.mask & given[:, None], kind, blank)
            target.copy_(kind)
    return Plan(layout, species, role, request.condition)


def allowed_elements(plan: Plan, species: Tensor, allowed: Tensor) -> Tensor:
    """Return which elements each orbit may still become.

    Decided orbits allow the element they have. An open orbit with a role allows the
    element that the role has, or, while it has none, those that no other role has.

    Args:
        plan: roles and layouts.
        species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
        allowed: elements that the model knows, bool, shape (104,).

    Returns:
        Bool, shape (crystals, orbits, 104); all False on padding.
    """
    undecided = species == MASK
    element = torch.where(undecided, 0, species)
    fresh = allowed.expand(*species.shape, MASK)
    if bool((plan.role >= 0).any()):
        roles = int(plan.role.max()) + 1
        of_role = element.new_zeros(len(species), roles)  # 0 where none yet
        at, held = plan.role.clamp(min=0), torch.where(plan.role >= 0, element, 0)
        of_role = of_role.scatter_reduce(1, at, held, "amax")
        used = torch.zeros(len(species), MASK, dtype=torch.bool, device=species.device)
        used.scatter_(1, of_role, True)
        has = of_role.gather(1, at) * (plan.role >= 0)
        element = torch.where(undecided, has, element)
        fresh = allowed & ~(used[:, None] & (plan.role >= 0)[..., None])
    may = options(torch.where(undecided & (element == 0), MASK, element), fresh)
    rows = undecided.any(1).nonzero().squeeze(1)
    if plan.choices is None or not len(rows):
        return may
    role = plan.role[rows] if bool((plan.role[rows] >= 0).any()) else None
    left = plan.choices(species[rows], plan.layout.count[rows], role, may[rows])
    # a crystal that cannot be finished goes on; the strict check will find it
    some = undecided[rows]
    lost = (some & ~left.any(-1)).any(1)
    may[rows] = torch.where(some[..., None] & ~lost[:, None, None], left, may[rows])
    return may


def options(species: Tensor, known: Tensor) -> Tensor:
    """Return what each orbit may be: what it is, or any known element while it is open.

    Args:
        species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
        known: elements, bool, shape (104,), or each orbit's own.

    Returns:
        Bool, shape (crystals, orbits, 104); padding may be nothing.
    """
    number = torch.arange(MASK, device=species.device)
    one = (species[..., None] == number) & (number > 0)
    return torch.where((species == MASK)[..., None], known, one)


def decide(
    plan: Plan,
    species: Tensor,
    chosen: Tensor,
    probabilities: Tensor,
    allowed: Tensor,
    rng: torch.Generator,
) -> Tensor:
    """Return species with some orbits decided.

    With roles or choices this is done one after the other within a crystal: each is drawn
    among what the ones before it leave possible, so that what holds of all elements
    together (charges that cancel, elements that must be there) can still hold when
    several orbits are decided at once. A role is decided as a whole, by the
    probabilities of its orbits taken together.

    Equation:
        p(e) ~ prod over orbits o of the role of p_o(e)^(1 / orbits), e possible

    Args:
        plan: roles, layouts and choices.
        species: 104 where undecided, shape (crystals, orbits).
        chosen: orbits to decide now, bool, shape (crystals, orbits).
        probabilities: probability of each element, shape (crystals, orbits, 104).
        allowed: elements that the model knows, bool, shape (104,).
        rng: source of randomness.
    """
    species, log_p = species.clone(), probabilities.clamp(min=1e-30).log()
    if plan.choices is None and not bool((plan.role >= 0).any()):
        chosen = chosen & (species == MASK)
        if bool(chosen.any()):
            drawn = torch.multinomial(probabilities[chosen], 1, generator=rng)
            species[chosen] = drawn.squeeze(1)
        return species
    for orbit in range(species.shape[1]):
        here = chosen[:, orbit] & (species[:, orbit] == MASK)
        rows = here.nonzero().squeeze(1)
        if not len(rows):
            continue
        may = allowed_elements(take(plan, rows), species[rows], allowed)[:, orbit]
        role = plan.role[rows]
        alike = (role == role[:, orbit, None]) & (role >= 0)
        alike[:, orbit] = True
        weight = alike.to(log_p) / alike.sum(1, keepdim=True)
        pooled = torch.einsum("bo,boe->be", weight, log_p[rows])
        pooled = pooled.masked_fill(~may, -torch.inf)
        drawn = torch.multinomial(pooled.softmax(-1), 1, generator=rng)
        species[rows] = torch.where(alike, drawn, species[rows])
    return species


def feasible_plan(
    request: Request, make: Callable[[Request], Plan], allowed: Tensor
) -> Plan:
    """Return a plan of which every crystal can be finished with what is asked of it.

    Args:
        request: what is asked for.
        make: makes plans for a request.
        allowed: elements that the model knows, bool, shape (104,).

    Raises:
        InfeasibleTarget: no plan was found for some crystal in `REPLANS` attempts.
    """
    found, choices = make(request), request.choices
    if choices is None or not len(request):
        return found

    def draw(rows: Tensor, attempt: int) -> None:
        nonlocal found
        if attempt:
            order = torch.arange(len(found))
            order[rows] = len(found) + torch.arange(len(rows))
            found = Plan.cat([found, make(request[rows])])[order]

    def ok(rows: Tensor) -> Tensor:
        some = found[rows]
        may = allowed_elements(some, some.start, allowed)
        role = some.role if bool((some.role >= 0).any()) else None
        left = choices(some.start, some.layout.count, role, may).any(-1)
        return (left | (some.start != MASK)).all(1)

    bad = resample(draw, ok, len(request), REPLANS)
    if not len(bad):
        return dataclasses.replace(found, choices=choices)
    raise InfeasibleTarget(
        f"no arrangement of atoms that the model knows leaves elements to choose for "
        f"{len(bad)} of {len(request)} crystals: {choices}. Allow more elements, or drop "
        "one of the constraints on composition, charge or size."
    )


def resample(
    draw: Callable[[Tensor, int], None],
    ok: Callable[[Tensor], Tensor],
    n: int,
    tries: int,
) -> Tensor:
    """Draw rows, and draw again those that are not as they must be.

    Args:
        draw: draws the rows of the given numbers and keeps them; is given the attempt too,
            from 0.
        ok: says which of the rows of the given numbers are as they must be, bool.
        n: number of rows.
        tries: how often a row is drawn at most.

    Returns:
        The rows that never were, long.

    Example:
        >>> kept = torch.zeros(3)
        >>> def draw(rows, attempt):
        ...     kept[rows] = rows + float(attempt)
        >>> resample(draw, lambda rows: kept[rows] > 1, 3, tries=2), kept
        (tensor([0]), tensor([1., 2., 2.]))
    """
    left = torch.arange(n)
    for attempt in range(tries):
        if not len(left):
            break
        draw(left, attempt)
        left = left[~ok(left).to(left.device)]
    return left
