"""Crystals as sequences of sites in canonical order: their log probability, and draws."""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.errors import InfeasibleTarget
from matdesign.generators.conditions import Condition
from matdesign.generators.control import Scales
from matdesign.generators.family import Family
from matdesign.generators.filling import element_mask, fillable, letter_mask
from matdesign.generators.layers import at
from matdesign.generators.planning import resample
from matdesign.generators.request import Request
from matdesign.generators.sampling import choose
from matdesign.generators.site_mask import Scores, SiteMask, wanted_amounts
from matdesign.generators.site_network import SiteNetwork, before

SAME = 1e-4
"""Coordinates nearer than this to a whole cell are 0, and nearer to each other equal."""

RESTARTS = 50
"""How often a crystal that cannot be finished is begun again."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Crystals with their sites in order: by letter, then element, then coordinates.

    Args:
        spacegroup: number, shape (crystals,).
        n_atoms: atoms in the primitive cell, shape (crystals,).
        letter: index of the Wyckoff letter, `NONE` on padding, shape (crystals, sites).
        species: atomic number, 0 on padding, same shape.
        u: free coordinates, shape (crystals, sites, 3).
        free: which of them are left to the model, bool, same shape; those that only fix
            the origin are not.
        x: standardised lattice code, shape (crystals, 6).
        code_free: which of its entries are free, bool, same shape.
    """

    spacegroup: Tensor
    n_atoms: Tensor
    letter: Tensor
    species: Tensor
    u: Tensor
    free: Tensor
    x: Tensor
    code_free: Tensor

    def __len__(self) -> int:
        return len(self.spacegroup)

    @property
    def exists(self) -> Tensor:
        """True where there is a site, shape (crystals, sites)."""
        return self.species > 0

    @property
    def length(self) -> Tensor:
        """Sites of each crystal, shape (crystals,)."""
        return self.exists.sum(1)

    def left(self) -> Tensor:
        """Return atoms still to be placed before each site and after the last.

        Returns:
            Long, shape (crystals, sites + 1); 0 from the end of the sequence on.
        """
        table = wyckoff_table(str(self.letter.device))
        count = table.count[self.spacegroup[:, None], self.letter]  # 0 on padding
        placed = torch.nn.functional.pad(count.cumsum(1), (1, 0))
        return self.n_atoms[:, None] - placed


def sequences(batch: Encoded, scales: Scales) -> Sequences:
    """Return crystals as sequences; the order of their orbits does not matter.

    Where a space group leaves the origin free along some axes (all three in P1), the
    origin is put on a site of the first letter and element: of several such sites, on
    that which makes the sorted coordinates smallest.

    Args:
        batch: crystals in either representation.
        scales: of the lattice code.
    """
    layout = batch.layout
    letter = torch.where(layout.orbits, layout.letter, NONE)
    u = wrap(batch.u).masked_fill(~layout.free, 0.0)
    u = torch.where(u > 1 - SAME, 0.0, u)
    polar = wyckoff_table(str(letter.device)).polar[layout.spacegroup]  # (b, 3)
    order = _order(letter, batch.species, u)
    letter, species = letter.gather(1, order), batch.species.gather(1, order)
    u = _take(u, order)
    free = _take(layout.free, order)
    rows = polar.any(1).nonzero().squeeze(1)
    if len(rows):
        u = u.clone()
        u[rows] = _pin(letter[rows], species[rows], u[rows], polar[rows])
    free = free.clone()
    free[:, 0] &= ~polar
    return Sequences(
        layout.spacegroup,
        layout.n_atoms,
        letter,
        species,
        u,
        free,
        scales.standardize(batch.code, layout),
        layout.code_free,
    )


def log_sites(
    net: SiteNetwork,
    hidden: Tensor,
    keys: Tensor,
    spacegroup: Tensor,
    sites: tuple[Tensor, Tensor, Tensor],
    fill: Tensor,
    allowed: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the log probability of letter and element of each site, (crystals, sites).

    Args:
        net: what comes next.
        hidden: vectors of the first pass, shape (crystals, sites, width).
        keys: of `SiteNetwork.keys`.
        spacegroup: of each crystal.
        sites: letter and element of each site, and atoms that are left before it.
        fill: of `fill_table`.
        allowed: elements seen in training, bool, shape (104,).
    """
    letter, species, left = sites
    last, kind = (one[:, :-1] for one in before(letter, species))
    group = spacegroup[:, None].expand_as(letter)
    mask = letter_mask(fill, group, last, kind, left.clamp(min=0))
    fits = element_mask(allowed, letter, last, kind)
    log_letter = _log_softmax(net.letter_logits(hidden, keys), mask)
    log_species = _log_softmax(net.species_logits(hidden, keys, letter), fits)
    return at(log_letter, letter.clamp(max=NONE - 1)), at(log_species, species)


class WyckoffSampler(Family):
    """A family that draws size and space group, then letter and element site by site.

    Attributes:
        network: what comes next.
        seen: crystals of each space group and size in training, shape (231, sizes).
        fill: of `fill_table`.
        temperature: of letters and elements.
    """

    network: SiteNetwork
    seen: Tensor
    fill: Tensor
    temperature: float
    rare = 0.01
    """Weight of a space group or size that training never showed, in crystals."""

    def count(self, data: Encoded) -> None:
        """Take how often each space group and size occur in a training set."""
        pair = data.layout.spacegroup, data.n_atoms
        self.seen.index_put_(pair, torch.ones(len(data)), accumulate=True)

    @property
    def log_prior(self) -> Tensor:
        """Log share of each space group and size in training, shape (231, sizes).

        What training never showed keeps a little weight, `rare` crystals, except that in
        the representation "cell" there is only P1.
        """
        only = self.representation == "cell"
        group, size = self.seen.sum(1), self.seen.sum(0)
        exists = torch.arange(231, device=group.device) >= 1
        p_group = group + self.rare * exists * (not only)
        p_size = size + self.rare
        joint = self.seen + self.rare * p_group[:, None] * p_size / p_size.sum()
        joint = joint * self.fill[:, 0] * (p_group > 0)[:, None]
        joint[:, 0] = 0.0
        return (joint / joint.sum()).log()

    def draw_sequences(
        self, request: Request, rng: torch.Generator, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return space groups, letters and elements; `NONE` and 0 on padding.

        A crystal that comes to a dead end is begun again, size and all; after `RESTARTS`
        of them it is drawn without what constraints say of its elements, with a warning.

        Args:
            request: what is asked for.
            rng: source of randomness, on the model's device.
            scale: of classifier-free guidance.

        Raises:
            InfeasibleTarget: no space group, size or element fits what is asked.
        """
        n, device = len(request), self.device
        group = torch.ones(n, dtype=torch.long, device=device)
        letter = torch.full((n, self.fill.shape[2]), NONE, device=device)
        species = torch.zeros_like(letter)
        dead = torch.ones_like(group, dtype=torch.bool)
        begun = torch.zeros_like(dead)

        def draw(rows: Tensor, attempt: int) -> None:
            some = request[rows]
            if attempt == RESTARTS:
                never = int((~begun[rows]).sum())
                if never or request.choices is None:
                    raise InfeasibleTarget(
                        "no size, space group and letters leave elements to choose for "
                        f"{never or len(rows)} of {n} crystals: "
                        f"{request.choices or request.conditions}. Allow more elements, or "
                        "drop one of the constraints on composition, charge or size."
                    )
                warnings.warn(
                    f"{len(rows)} of {n} crystals could not be finished in {RESTARTS} "
                    f"attempts with {request.choices}: they are drawn without it, and a "
                    "guide draws again what misses. Loosen it, or ask for other sizes.",
                    stacklevel=2,
                )
                some = dataclasses.replace(some, choices=None)
            n_atoms, group[rows] = self.sizes_and_groups(some, rng, scale)
            found, kinds, dead[rows] = self.sites(
                some, n_atoms, group[rows], rng, scale
            )
            begun[rows] |= (kinds > 0).any(1)
            letter[rows], species[rows] = NONE, 0  # sites of attempts before would stay
            letter[rows, : found.shape[1]] = found
            species[rows, : found.shape[1]] = kinds

        resample(draw, lambda rows: ~dead[rows], n, RESTARTS + 1)
        longest = int((species > 0).sum(1).max()) if n else 0
        return group, letter[:, :longest], species[:, :longest]

    def sizes_and_groups(
        self, request: Request, rng: torch.Generator, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return drawn sizes and space groups, shape (crystals,) each; as `draw_sequences`.

        Raises:
            InfeasibleTarget: no space group and size that the model knows fit the request.
        """
        prior = self.log_prior
        if request.groups is not None and self.representation == "symmetric":
            other = ~request.groups.to(prior.device)[:, None]
            prior = prior.masked_fill(other, -torch.inf)
        embedding = self.network.asked(request.condition.to(prior.device))
        sizes = torch.arange(prior.shape[1])
        fits = (request.n_atoms[:, None] == 0) | (request.n_atoms[:, None] == sizes)
        fits &= sizes % request.unit[:, None] == 0
        base = prior.logsumexp(0).expand(len(request), -1)
        base = base.masked_fill(~fits.to(prior.device), -torch.inf)
        lost = base.isneginf().all(1)
        if lost.any():
            row = int(lost.int().argmax())
            raise InfeasibleTarget(
                f"no crystal of at most {len(sizes) - 1} atoms can be as asked: got "
                f"{request.conditions}, n_atoms {int(request.n_atoms[row]) or 'open'}. Ask for "
                "fewer atoms, another space group or another composition."
            )
        n_atoms = choose(base + scale * self.network.size_logits(embedding), rng)
        logits = prior.T[n_atoms] + scale * self.network.group_logits(
            embedding, n_atoms
        )
        group, wanted = torch.zeros_like(n_atoms), wanted_amounts(request, n_atoms)

        def draw(rows: Tensor, attempt: int) -> None:
            if bool(logits[rows].isneginf().all(1).any()):
                raise InfeasibleTarget(
                    "no space group can hold the asked composition: got "
                    f"{request.conditions}. Ask for more atoms, or leave the space group open."
                )
            group[rows] = choose(logits[rows], rng)

        def holds(rows: Tensor) -> Tensor:
            drawn = zip(rows.tolist(), group[rows].tolist(), strict=True)
            fits = torch.tensor([fillable(g, 0, wanted[row][0]) for row, g in drawn])
            logits[rows[~fits], group[rows[~fits]]] = -torch.inf
            return fits

        resample(draw, holds, len(group), 231)
        return n_atoms, group

    def sites(
        self,
        request: Request,
        n_atoms: Tensor,
        group: Tensor,
        rng: torch.Generator,
        scale: float,
        first: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return letters and elements, (crystals, sites), and which came to a dead end.

        Args:
            request: what is asked of each crystal.
            n_atoms: atoms in each primitive cell.
            group: space group of each.
            rng: source of randomness, on the model's device.
            scale: of classifier-free guidance.
            first: letter and element of the first sites, the same for all crystals.
        """
        net, asked, copies = self.network, request.condition.to(group.device), 1
        if scale == 0:
            asked = self.nothing(len(group))
        elif scale != 1 and bool(asked.anything.any()):
            asked, copies = Condition.cat([self.nothing(len(group)), asked]), 2
        wide, sizes = group.repeat(copies), n_atoms.repeat(copies)
        about = net.about(net.asked(asked), wide, sizes)
        keys = net.keys(group).repeat(copies, 1, 1)
        cache = None

        def read(step: int, active: Tensor, *before: Tensor) -> Scores:
            nonlocal cache
            tokens = net.site_tokens(about, keys, *before, start=step)
            hidden, cache = net.transformer(tokens, active, cache)
            self.evaluations += int(active.sum())
            return net.letter_logits(hidden, keys)[:, 0], (
                lambda on: net.species_logits(hidden, keys, on)[:, 0]
            )

        wanted = wanted_amounts(request, n_atoms)
        letters, kinds, left = SiteMask(
            group, wanted, request.choices, self.scales.allowed
        ).sequences(
            read,
            partial(letter_mask, self.fill, group),
            n_atoms,
            n_atoms > 0,
            rng,
            first=first,
            copies=copies,
            scale=scale,
            temperature=self.temperature,
        )
        return letters, kinds, left > 0


def _log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Return log probabilities among the allowed choices; others are very unlikely."""
    return logits.masked_fill(~mask, -1e9).log_softmax(-1)


def _pin(letter: Tensor, species: Tensor, u: Tensor, polar: Tensor) -> Tensor:
    """Return sorted coordinates with the origin of the polar axes on one site."""
    first = (letter == letter[:, :1]) & (species == species[:, :1])  # sites to try
    exists = (species > 0)[..., None] & polar[:, None]
    best: Tensor | None = None
    for k in range(int(first.sum(1).max())):
        moved = wrap(u - u[:, k : k + 1] * exists)
        moved = torch.where(moved > 1 - SAME, 0.0, moved)
        moved = _take(moved, _order(letter, species, moved))
        if best is None:
            best = moved
            continue
        change = ((moved - best) / SAME / 10).round().flatten(1)
        differs = change != 0
        lead = change.gather(1, differs.int().argmax(1, keepdim=True)).squeeze(1)
        better = first[:, k] & (lead < 0)
        best = torch.where(better[:, None, None], moved, best)
    assert best is not None
    return best


def _order(letter: Tensor, species: Tensor, u: Tensor) -> Tensor:
    """Return the order of the sites: by letter, element, then coordinates."""
    order = torch.arange(letter.shape[1], device=letter.device).expand_as(letter)
    coarse = (u / SAME / 10).round()
    for key in (*reversed(coarse.unbind(-1)), species, letter):
        step = torch.argsort(key.gather(1, order), dim=1, stable=True)
        order = order.gather(1, step)
    return order


def _take(value: Tensor, order: Tensor) -> Tensor:
    return value.gather(1, order[..., None].expand_as(value))
