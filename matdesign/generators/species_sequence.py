"""Orbits as tokens, and the exact probability of which element sits on which of them."""

import math

import torch
from torch import Tensor, nn

from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.conditions import combine
from matdesign.generators.filling import element_mask
from matdesign.generators.layers import (
    Attention,
    SpeciesEmbedding,
    SpeciesHead,
    at,
    hidden,
    sinusoid,
)
from matdesign.generators.planning import Plan, allowed_elements, take


class PositionFeatures(nn.Module):
    """What the layout says about each orbit: letter, sites, freedom, place, cell size.

    Args:
        width: size of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(27, width)
        self.count = nn.Embedding(193, width)
        self.spacegroup = nn.Embedding(231, width)
        self.place = nn.Linear(3 + 9 + 6 + 32, width)

    def forward(self, layout: Layout, like: Tensor) -> Tensor:
        """Return one vector for each orbit, shape (crystals, orbits, width).

        Args:
            layout: orbits and what of them is free.
            like: a tensor whose number format the result takes.
        """
        orbits, sites = layout.count.shape[1], layout.mask.shape[1]
        before = layout.count.cumsum(1) - layout.count  # sites of orbits before each
        first = before.clamp(max=max(sites - 1, 0))  # its anchor's site
        move = layout.move.flatten(2).gather(1, first[..., None].expand(-1, -1, 9))
        shift = layout.shift.gather(1, first[..., None].expand(-1, -1, 3)).to(like)
        angle = 2 * math.pi * shift
        size = sinusoid(layout.n_atoms.to(like) / 20, 32, 100.0)
        place = torch.cat(
            [
                layout.free.to(like),
                move.to(like),
                angle.sin(),
                angle.cos(),
                size[:, None].expand(-1, orbits, -1),
            ],
            dim=-1,
        )
        made: Tensor = (
            self.place(place)
            + self.letter(layout.letter)
            + self.count(layout.count.clamp(max=192))
            + self.spacegroup(layout.spacegroup)[:, None]
        )
        return made


class OrbitEncoder(nn.Module):
    """Turns layout, species and condition into a vector for each orbit and for the whole.

    Args:
        width: size of the vectors.
        heads: attention heads.
        layers: attention layers.
    """

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.species = SpeciesEmbedding(width)
        self.position = PositionFeatures(width)
        self.layers = nn.ModuleList(
            Attention(width, heads, wide=2) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, layout: Layout, species: Tensor, condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return vectors of orbits (crystals, orbits, width) and wholes (crystals, width).

        Args:
            layout: orbits.
            species: element of each orbit, shape (crystals, orbits).
            condition: condition embedding, shape (crystals, width).
        """
        x = (
            self.species(species)
            + self.position(layout, condition)
            + condition[:, None]
        )
        bias = hidden(layout.orbits, x)
        for layer in self.layers:
            x = layer(x, bias)
        x = self.norm(x)
        share = layout.count / layout.n_atoms.clamp(min=1)[:, None]
        return x, (x * share.to(x)[..., None]).sum(1)


class SpeciesSequence(nn.Module):
    """Elements drawn one orbit after the other by a causal transformer.

    The order is canonical: orbits by Wyckoff letter, those of one letter by atomic number,
    which can only rise among them. A set of elements on equal orbits then has one sequence
    and one probability, shared equally among its arrangements. With the flag `any_order`
    the same weights draw in any order, for compositions of which a part is given.

    Equation:
        ln p(A | layout) = sum_i ln p(a_i | a_<i, layout) - ln(arrangements)

    Args:
        width: size of the tokens.
        heads: attention heads.
        layers: attention layers.
    """

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.position = PositionFeatures(width)
        self.species = SpeciesEmbedding(width)
        self.last_position = nn.Linear(width, width, bias=False)
        self.any_order = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(
            Attention(width, heads, wide=2) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = SpeciesHead(width)

    def context(self, layout: Layout, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors of orbits (crystals, orbits, width) and wholes (crystals, width)."""
        position = self.position(layout, condition)
        share = (layout.count / layout.n_atoms.clamp(min=1)[:, None]).to(position)
        return position, condition + (position * share[..., None]).sum(1)

    def forward(
        self,
        context: tuple[Tensor, Tensor],
        species: Tensor,
        order: Tensor,
        any_order: Tensor,
    ) -> Tensor:
        """Return logits of all elements for each step of the sequence.

        Args:
            context: from `context`.
            species: element of each orbit; that of the last step is not looked at,
                shape (crystals, orbits).
            order: orbits in the order of drawing, padding last, shape (crystals, steps).
            any_order: the order is not the canonical one, bool, shape (crystals,).

        Returns:
            Shape (crystals, steps, 104); step i depends on steps before it alone.
        """
        position, whole = context
        position = position.gather(
            1, order[..., None].expand(-1, -1, position.shape[-1])
        )
        drawn = species.gather(1, order)
        before = self.species(drawn) + self.last_position(position)
        before = nn.functional.pad(before[:, :-1], (0, 0, 1, 0))
        flag = self.any_order * any_order[:, None].to(whole)
        x = position + before + (whole + flag)[:, None]
        steps = order.shape[1]
        later = torch.ones(steps, steps, device=x.device).triu(1).bool()
        bias = later.to(x.dtype)[None, None] * -1e9
        for layer in self.layers:
            x = layer(x, bias)
        out: Tensor = self.head(self.norm(x))
        return out

    def log_prob(
        self,
        layout: Layout,
        species: Tensor,
        condition: Tensor,
        allowed: Tensor,
        order: Tensor,
        any_order: Tensor,
    ) -> Tensor:
        """Return the log probability of the sequence in a given order, (crystals,).

        Args:
            layout: orbits.
            species: element of each orbit, shape (crystals, orbits).
            condition: vector of the condition, shape (crystals, width).
            allowed: elements that the model knows, bool, shape (104,).
            order: orbits in the order of drawing, shape (crystals, orbits).
            any_order: the order is not the canonical one, bool, shape (crystals,).
        """
        logits = self(self.context(layout, condition), species, order, any_order)
        drawn = species.gather(1, order)
        letter, pad = layout.letter.gather(1, order), nn.functional.pad
        last, before = pad(letter, (1, -1), value=-1), pad(drawn, (1, -1))
        may = element_mask(allowed, letter, last, before)
        may = may | (allowed & any_order[:, None, None])
        log_p = logits.masked_fill(~may, -torch.inf).log_softmax(-1)
        return at(log_p, drawn).masked_fill(drawn == 0, 0.0).sum(1)

    def training_order(
        self, layout: Layout, species: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return orders to learn from, and which of them are not the canonical one.

        A quarter of the crystals are read in random order.

        Args:
            layout: orbits.
            species: element of each orbit, shape (crystals, orbits).
            rng: source of randomness.
        """
        b, orbits = species.shape
        chance = torch.rand(b, orbits + 1, generator=rng, device=species.device)
        any_order = chance[:, 0] < 0.25
        shuffled = torch.where(layout.orbits, chance[:, 1:], 2.0).argsort(1)
        canonical = canonical_order(layout, species)
        return torch.where(any_order[:, None], shuffled, canonical), any_order

    def draw(
        self,
        plan: Plan,
        condition: Tensor,
        allowed: Tensor,
        rng: torch.Generator,
        *,
        scale: float = 1.0,
        temperature: float = 1.0,
    ) -> Tensor:
        """Return the element of each orbit, drawn one after the other.

        Crystals of which nothing is given are drawn in the canonical order; for the
        others, and where choices are restricted, given orbits come first and the order
        is free.

        Args:
            plan: layouts, and elements and roles that are given.
            condition: vector of the condition, shape (crystals, width).
            allowed: elements that the model knows, bool, shape (104,).
            rng: source of randomness.
            scale: of classifier-free guidance, on the logits.
            temperature: below 1, elements are drawn nearer to the most probable one.

        Returns:
            Long, shape (crystals, orbits), 0 on padding.
        """
        lay, species = plan.layout, plan.start
        given = ((plan.species > 0) | (plan.role >= 0)).any(1)
        given = given | (plan.choices is not None)  # their masks know no order
        key = torch.where(lay.orbits, lay.letter + 1, 99)
        order = torch.where(plan.species > 0, 0, key).argsort(dim=1, stable=True)
        letter = lay.letter.gather(1, order)
        known = self.context(lay, condition)
        blank = self.context(lay, torch.zeros_like(condition))
        for step in range(order.shape[1]):
            orbit, upto = order[:, step], order[:, : step + 1]
            drawn = species.gather(1, upto)
            waits = drawn[:, -1] == MASK
            if not bool(waits.any()):
                continue
            logits = self(known, species, upto, given)[:, -1]
            if scale != 1:
                logits = combine(
                    self(blank, species, upto, given)[:, -1], logits, scale
                )
            last = letter[:, step - 1].masked_fill(given, -1)
            before = drawn[:, -2] if step else torch.zeros_like(orbit)
            in_order = element_mask(allowed, letter[:, step], last, before)
            chance = logits.masked_fill(~in_order, -torch.inf) / temperature
            rows = waits.nonzero().squeeze(1)
            here = rows, orbit[rows]
            may = allowed_elements(take(plan, rows), species[rows], allowed)
            may = may[torch.arange(len(rows), device=rows.device), orbit[rows]]
            chance = chance[rows].masked_fill(~may, -torch.inf).softmax(-1)
            found = torch.multinomial(chance, 1, generator=rng).squeeze(1)
            species = species.index_put(here, found)
        return species


def canonical_order(layout: Layout, species: Tensor) -> Tensor:
    """Return orbits by letter, then by atomic number, padding last."""
    key = torch.where(layout.orbits, layout.letter * 128 + species, 10**6)
    return key.argsort(dim=1, stable=True)


def log_arrangements(layout: Layout, species: Tensor) -> Tensor:
    """Return the log number of ways to put the same elements on equal orbits, (crystals,).

    Equation:
        sum over letters of ln(g!) - sum over elements on that letter of ln(m!)
    """
    key = torch.where(layout.orbits, layout.letter + 1, 0)
    both = torch.where(layout.orbits, key * 128 + species, 0)
    total = torch.zeros(len(key), dtype=torch.float64, device=key.device)
    for sign, label in ((1, key), (-1, both)):
        # the factorial as a product of ranks within each class of equal labels
        rank = (label[:, None] == label[:, :, None]).tril().sum(-1).double()
        total = total + sign * (rank.log() * (label > 0)).sum(1)
    return total
