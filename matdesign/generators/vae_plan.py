"""What a VAE's decoder must meet, and skeletons that meet it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from matdesign.crystals.symmetry.layout import Layout
from matdesign.errors import InfeasibleTarget
from matdesign.generators.choices import Choices
from matdesign.generators.drawing import copies
from matdesign.generators.planning import REPLANS, Plan, draw_sizes
from matdesign.generators.request import Request
from matdesign.generators.retries import resample
from matdesign.generators.site_mask import SiteMask, wanted_amounts
from matdesign.generators.vae_latent import Latent, Prior
from matdesign.generators.vae_skeleton import SkeletonDecoder
from matdesign.generators.vae_tables import STOP, Skeleton, Wishes

TRIES = 11
"""How often skeletons are drawn for crystals of which none met the wishes yet."""


@dataclasses.dataclass(frozen=True, eq=False)
class LatentPlan(Plan):
    """A plan with the latents that its layouts and elements were drawn from.

    Args:
        latent: of crystals and orbits; the geometry will be drawn from it too.
    """

    latent: Latent = dataclasses.field(kw_only=True)

    def __getitem__(self, index: Tensor) -> Self:
        """Return some crystals, padded no wider than the largest of them."""
        plan = super().__getitem__(index)
        own = self.latent.orbits[index, : plan.species.shape[1]]
        return dataclasses.replace(plan, latent=Latent(self.latent.whole[index], own))

    def to(self, device: torch.device | str) -> Self:
        """Return the plan on a device."""
        there = Latent(*(part.to(device) for part in self.latent))
        return dataclasses.replace(super().to(device), latent=there)


def with_latent(plan: Plan, latent: Latent) -> LatentPlan:
    """Return a plan that knows its latents."""
    parts = {f.name: getattr(plan, f.name) for f in dataclasses.fields(Plan)}
    return LatentPlan(**parts, latent=latent)


def wishes_of(
    request: Request,
    histogram: Sequence[int],
    rng: torch.Generator,
    *,
    cells: bool,
    allowed: Tensor,
) -> Wishes:
    """Return what of a request must hold, for the decoder.

    Sizes that are left to the model are drawn among those in which its choices of
    elements can be met at all: no crystal of one atom holds two elements.

    Args:
        request: what was asked for.
        histogram: number of training crystals with 0, 1, 2, ... atoms.
        rng: source of randomness, for sizes that were not asked for.
        cells: the representation is "cell": P1, and the size is always given.
        allowed: elements that the model knows, bool, shape (104,).

    Raises:
        InfeasibleTarget: no size leaves elements to choose.
    """
    n = len(request)
    groups = torch.arange(231) == 1 if cells else torch.arange(231) > 0
    if request.groups is not None and not cells:
        groups = groups & request.groups
    sizes = torch.zeros(n, dtype=torch.long)

    def draw(rows: Tensor, attempt: int) -> None:
        sizes[rows] = draw_sizes(request[rows], len(rows), histogram, rng)

    def ok(rows: Tensor) -> Tensor:
        some, n_atoms = request[rows], sizes[rows]
        wanted = wanted_amounts(some, n_atoms)
        asks = SiteMask(torch.ones_like(n_atoms), wanted, some.choices, allowed)
        return asks.begins(n_atoms)

    bad = resample(draw, ok, n, REPLANS)
    if len(bad):
        raise InfeasibleTarget(
            f"no number of atoms leaves elements to choose for {len(bad)} of {n} "
            f"crystals: {request.choices}. Allow more elements, or drop one of the "
            "constraints on composition, charge, symmetry or size."
        )
    # what the elements may be can only be judged in a cell of known size
    fixed = (request.n_atoms > 0) | (request.unit > 1) | cells
    fixed = fixed | (request.choices is not None)
    times = (sizes // request.unit)[:, None]
    return Wishes(
        torch.where(fixed, sizes, 0),
        groups.expand(n, -1).clone(),
        request.formula * times,
        request.pattern * times,
    )


def draw_skeletons(
    decoder: SkeletonDecoder,
    prior: Prior,
    asked: Tensor,
    wishes: Wishes,
    allowed: Tensor,
    rng: torch.Generator,
    *,
    scale: float,
    temperature: float,
    choices: Choices | None = None,
) -> tuple[Tensor, Skeleton]:
    """Return latents and skeletons that meet the wishes.

    What breaks a wish is drawn again, latent and all. After `TRIES` turns P1 is the
    only group, in which every formula fits, unless a space group is asked for too.

    Args:
        decoder: draws skeletons.
        prior: draws latents.
        asked: what is asked of the crystals, as a vector.
        wishes: what must hold.
        allowed: elements that the model knows, bool, shape (104,).
        rng: source of randomness.
        scale: of classifier-free guidance.
        temperature: of letters and species.
        choices: says which elements may be where; None forbids nothing.

    Raises:
        InfeasibleTarget: no skeleton was found for some crystal.
    """
    n = len(asked)
    most = max([decoder.largest, 1, *wishes.n_atoms.tolist()])
    z = asked.new_zeros(n, prior.size)
    group = torch.ones(n, dtype=torch.long, device=z.device)
    letter = torch.full((n, most), STOP, device=z.device)
    species = torch.zeros_like(letter)
    met = torch.zeros_like(group, dtype=torch.bool)

    def draw(left: Tensor, attempt: int) -> None:
        many = copies(attempt)
        rows = left.repeat_interleave(many)
        some = wishes[rows] if attempt < TRIES else _in_p1(wishes[rows])
        told = asked[rows]
        new = prior.draw(told, rng)
        made = decoder.draw(
            new,
            told,
            some,
            allowed,
            rng,
            scale=scale,
            temperature=temperature,
            choices=choices,
        )
        whole = made.met.view(-1, many)
        best = whole.int().argmax(1) + many * torch.arange(len(left)).to(z.device)
        wide = made.letter.shape[1]
        met[left], z[left], group[left] = whole.any(1), new[best], made.spacegroup[best]
        letter[left], species[left] = STOP, 0
        letter[left, :wide] = made.letter[best]
        species[left, :wide] = made.species[best]

    left = resample(draw, lambda rows: met[rows], n, TRIES + 1)
    if not len(left):
        return z, Skeleton(group, letter, species, met)
    raise InfeasibleTarget(
        f"found no arrangement of atoms that meets the wishes for {len(left)} of {n} "
        f"crystals in {TRIES} turns. Leave out the space group, or ask for another number "
        "of atoms."
    )


def _in_p1(wishes: Wishes) -> Wishes:
    """Return wishes with P1 as the only group, where it is allowed."""
    p1 = torch.arange(231, device=wishes.groups.device) == 1
    may = wishes.groups[:, 1:2]
    return dataclasses.replace(wishes, groups=torch.where(may, p1, wishes.groups))


def layout_of(drawn: Skeleton, *, cells: bool) -> tuple[Layout, Tensor]:
    """Return the layout of skeletons, and the species of its orbits.

    Args:
        drawn: skeletons.
        cells: the representation is "cell".
    """
    if cells:
        layout = Layout.whole_cell((drawn.letter < STOP).sum(1))
    else:
        from matdesign.crystals.symmetry.orbits import symmetric_layouts

        rows = [[w for w in row if w < STOP] for row in drawn.letter.tolist()]
        groups = drawn.spacegroup.tolist()
        layout = symmetric_layouts(groups, rows).to(drawn.species.device)
    return layout, drawn.species[:, : layout.count.shape[1]]
