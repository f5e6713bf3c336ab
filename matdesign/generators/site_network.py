"""`SiteNetwork`: one transformer that reads sites and says what comes next."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import generator
from matdesign.crystals.lattice_code import system_of
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.conditions import Condition, ConditionEncoder
from matdesign.generators.control import Sample
from matdesign.generators.layers import (
    Cache,
    CausalTransformer,
    SpeciesEmbedding,
    SpeciesHead,
    redraw,
)
from matdesign.generators.mixtures import CircleMixture, LatticeMixture
from matdesign.generators.planning import Plan

HARMONICS = 6


class Reading(NamedTuple):
    """What the network remembers of crystals, read with or without a condition.

    Args:
        about: vector that every token carries, shape (crystals, width).
        keys: vectors of the letters of the space group, shape (crystals, 28, width).
        cache: keys and values of all tokens so far.
    """

    about: Tensor
    keys: Tensor
    cache: Cache


@dataclass(frozen=True, eq=False)
class SiteSample(Sample):
    """Crystals whose letters and elements are known, on their way to coordinates.

    Args:
        free: coordinates that are drawn, bool, shape (crystals, sites, 3).
        readings: without and with the condition, or one of them.
    """

    free: Tensor
    readings: tuple[Reading, ...]


class SiteNetwork(nn.Module):
    """A causal transformer with two tokens for each site: what it is, then where it is.

    A first pass of tokens chooses letter and element of every site. The token after the
    last site says the lattice, which by then knows the whole composition. A second pass
    places the sites one by one; it sees the first pass and the lattice. One token holds a
    whole site and small perceptrons decide its fields one after the other, so that a
    crystal of m sites takes 2 m + 1 tokens instead of 5 m.

    Args:
        largest: most atoms in a primitive cell.
        properties: name -> [mean, standard deviation] of what can be asked for.
        width: size of the tokens.
        layers: attention layers.
        heads: attention heads.
        dropout: share of each update that is dropped in training.
    """

    features: Tensor
    move: Tensor
    offset: Tensor
    free: Tensor

    def __init__(
        self,
        *,
        largest: int,
        properties: dict[str, list[float]],
        width: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        table = wyckoff_table()
        for name in ("features", "move", "offset", "free"):
            self.register_buffer(name, getattr(table, name), persistent=False)
        self.circle, self.lattices = CircleMixture(48), LatticeMixture(8)
        self.asked = ConditionEncoder(width, properties)
        self.group = nn.Embedding(231, width)
        self.system = nn.Embedding(8, width)
        self.size = nn.Embedding(largest + 1, width)
        self.left = nn.Embedding(largest + 1, width)
        self.species = SpeciesEmbedding(width)
        self.described = nn.Linear(self.features.shape[-1], width)
        self.letter = nn.Embedding(231 * (NONE + 1), 32)
        self.own = nn.Linear(32, width, bias=False)
        self.step = nn.Embedding(2 * largest + 2, width)
        # first pass: what the site before is
        self.before = nn.Linear(2 * width, width)
        # second pass: what this site is, what and where the one before is, the lattice
        self.this = nn.Linear(2 * width, width)
        self.placed = nn.Linear(width + 12 * HARMONICS, width)
        self.shape = nn.Linear(12, width)
        self.transformer = CausalTransformer(width, layers, heads, dropout)
        self.drop = nn.Dropout(dropout)
        self.size_head = _head(width, width, largest + 1)
        self.group_head = _head(2 * width, width, 231)
        self.query = nn.Linear(width, width)
        self.species_hidden = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Dropout(dropout)
        )
        self.species_head = SpeciesHead(width)
        self.lattice_head = _head(2 * width, width, self.lattices.size)
        self.axis_heads = nn.ModuleList(
            _head(width + 2 * HARMONICS * axis, width, self.circle.size)
            for axis in range(3)
        )
        self.reset(0)

    @torch.no_grad()
    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed; what answers conditions starts at zero."""
        rng = generator(seed)
        redraw(self, rng)
        self.asked.reset(rng)
        for head in (self.size_head, self.group_head):
            for parameter in list(head.children())[-1].parameters():
                parameter.zero_()
        last = list(self.lattice_head.children())[-1]
        assert isinstance(last, nn.Linear)
        k = self.lattices.components
        last.bias[k : 7 * k].normal_(generator=rng).mul_(0.7)
        last.bias[7 * k :] += 0.5

    # ---- before the sequence ------------------------------------------------------------

    def size_logits(self, embedding: Tensor) -> Tensor:
        """Return what a condition adds to the log prior of sizes, (crystals, sizes).

        Args:
            embedding: vector of the condition, zero where nothing is asked, (crystals, width).
        """
        logits: Tensor = self.size_head(embedding)
        return logits * embedding.any(1, keepdim=True)

    def group_logits(self, embedding: Tensor, n_atoms: Tensor) -> Tensor:
        """Return what a condition adds to the log prior of space groups, (crystals, 231)."""
        logits: Tensor = self.group_head(
            torch.cat([embedding, self.size(n_atoms)], dim=1)
        )
        return logits * embedding.any(1, keepdim=True)

    def about(self, embedding: Tensor, spacegroup: Tensor, n_atoms: Tensor) -> Tensor:
        """Return the vector that every token of a crystal carries, (crystals, width)."""
        known: Tensor = self.group(spacegroup) + self.system(system_of(spacegroup))
        return known + self.size(n_atoms) + embedding

    # ---- first pass: letters and elements -----------------------------------------------

    def keys(self, spacegroup: Tensor) -> Tensor:
        """Return vectors of all letters of each space group, (crystals, 28, width)."""
        row = spacegroup[:, None] * (NONE + 1)
        index = row + torch.arange(NONE + 1, device=row.device)
        made: Tensor = self.described(self.features[spacegroup])
        return made + self.own(self.letter(index))

    def site_tokens(
        self,
        about: Tensor,
        keys: Tensor,
        letter: Tensor,
        species: Tensor,
        left: Tensor,
        *,
        start: int = 0,
    ) -> Tensor:
        """Return tokens of the first pass, (crystals, steps, width).

        Args:
            about: of `about`.
            keys: of `keys`.
            letter: letter of the site before each step, `NONE` at the first.
            species: its element, 0 at the first.
            left: atoms still to be placed.
            start: number of the first step.
        """
        where = _pick(keys, letter)
        site = torch.cat([where, self.species(species)], dim=-1)
        steps = torch.arange(start, start + letter.shape[1], device=left.device)
        x = self.before(site) + self.left(left) + self.step(steps)
        made: Tensor = self.drop(x + about[:, None])
        return made

    def letter_logits(self, hidden: Tensor, keys: Tensor) -> Tensor:
        """Return scores of the 27 letters, (crystals, steps, 27)."""
        score = self.query(hidden) @ keys.transpose(1, 2) / math.sqrt(keys.shape[-1])
        return score[..., :NONE]

    def species_logits(self, hidden: Tensor, keys: Tensor, letter: Tensor) -> Tensor:
        """Return scores of the elements on chosen letters, (crystals, steps, 104)."""
        both = torch.cat([hidden, _pick(keys, letter)], dim=-1)
        logits: Tensor = self.species_head(self.species_hidden(both))
        return logits

    # ---- lattice, then second pass: coordinates -----------------------------------------

    def lattice_raw(self, hidden: Tensor, species: Tensor, count: Tensor) -> Tensor:
        """Return the raw lattice mixture, (crystals, 13 K).

        Args:
            hidden: of the token after the last site, (crystals, width).
            species: elements of all sites, (crystals, sites).
            count: atoms of each, 0 on padding, (crystals, sites).
        """
        share = count / count.sum(1, keepdim=True).clamp(min=1)
        mean = (self.species(species) * share[..., None]).sum(1)
        raw: Tensor = self.lattice_head(torch.cat([hidden, mean], dim=-1))
        return raw

    def placing_tokens(
        self,
        about: Tensor,
        keys: Tensor,
        spacegroup: Tensor,
        letter: Tensor,
        species: Tensor,
        before: tuple[Tensor, Tensor, Tensor],
        x: Tensor,
        code_free: Tensor,
        start: int = 0,
    ) -> Tensor:
        """Return tokens of the second pass, (crystals, steps, width).

        Args:
            about: of `about`.
            keys: of `keys`.
            spacegroup: number, (crystals,).
            letter: letter of the site to place, (crystals, steps).
            species: its element.
            before: letter, element and free coordinates of the site placed before.
            x: standardised lattice code, (crystals, 6).
            code_free: which of its entries are free.
            start: number of the first step.
        """
        where = _pick(keys, letter)
        now = self.this(torch.cat([where, self.species(species)], dim=-1))
        old_letter, old_species, u = before
        at = spacegroup[:, None].expand_as(old_letter), old_letter
        point = torch.einsum("bsi,bsij->bsj", u * self.free[at], self.move[at])
        place = torch.cat([_waves(point + self.offset[at]), _waves(u)], dim=-1)
        old = _pick(keys, old_letter) + self.species(old_species)
        old = self.placed(torch.cat([old, place], dim=-1))
        shape = self.shape(torch.cat([x, code_free.to(x)], dim=-1))
        count = self.step.num_embeddings // 2
        steps = torch.arange(start, start + letter.shape[1], device=u.device) + count
        made: Tensor = self.drop(
            now + old + self.step(steps) + (about + shape)[:, None]
        )
        return made

    def axis_raw(self, hidden: Tensor, u: Tensor, axis: int) -> Tensor:
        """Return the raw mixture of one coordinate, given those before it.

        Args:
            hidden: of the tokens, (..., width).
            u: coordinates of the sites, of which the first `axis` are read, (..., 3).
            axis: 0, 1 or 2.
        """
        seen = torch.cat([hidden, _waves(u[..., :axis])], dim=-1)
        raw: Tensor = self.axis_heads[axis](seen)
        return raw

    def log_coordinates(self, hidden: Tensor, all_u: Tensor, free: Tensor) -> Tensor:
        """Return the log density of the free coordinates, shape (crystals,).

        Equation:
            sum_i log p(x_i | ..) + log p(y_i | x_i, ..) + log p(z_i | x_i, y_i, ..),
            free coordinates only

        Args:
            hidden: vectors of the second pass, shape (crystals, sites, width).
            all_u: coordinates of the sites, shape (crystals, sites, 3).
            free: which of them count, bool, of the same shape.
        """
        total = all_u.new_zeros(len(all_u))
        for axis in range(3):
            row, site = free[..., axis].nonzero(as_tuple=True)
            u = all_u[row, site]
            raw = self.axis_raw(hidden[row, site], u, axis)
            total = total.index_add(0, row, self.circle.log_prob(raw, u[:, axis]))
        return total

    # ---- sampling, after letters and elements -------------------------------------------

    def read_sites(self, plan: Plan, condition: Condition) -> tuple[Reading, Tensor]:
        """Return what is remembered of all sites, and the raw lattice mixture.

        Args:
            plan: letters and elements of all sites, in canonical order.
            condition: what the crystals shall be.
        """
        lay, group = plan.layout, plan.layout.spacegroup
        about, keys = (
            self.about(self.asked(condition), group, lay.n_atoms),
            self.keys(group),
        )
        left = lay.n_atoms[:, None] - nn.functional.pad(lay.count.cumsum(1), (1, 0))
        tokens = self.site_tokens(about, keys, *_before(plan), left)
        length = lay.orbits.sum(1)
        valid = torch.arange(left.shape[1], device=left.device) <= length[:, None]
        hidden, cache = self.transformer(tokens, valid)
        end = hidden[torch.arange(len(length), device=length.device), length]
        return Reading(about, keys, cache), self.lattice_raw(
            end, plan.species, lay.count
        )

    def read_next(
        self, plan: Plan, u: Tensor, code: Tensor, i: int, reading: Reading
    ) -> tuple[Tensor, Reading]:
        """Return the vector from which site i is placed, (crystals, width), and the memory.

        Args:
            plan: letters and elements.
            u: free coordinates, of which those before site i are read.
            code: standardised lattice code, (crystals, 6).
            i: number of the site.
            reading: of all sites before i.
        """
        lay, here, now = plan.layout, slice(i, i + 1), slice(i + 1, i + 2)
        letter, species = _before(plan)
        old = u[:, i - 1 : i] if i else torch.zeros_like(u[:, :1])
        tokens = self.placing_tokens(
            reading.about,
            reading.keys,
            lay.spacegroup,
            letter[:, now],
            species[:, now],
            (letter[:, here], species[:, here], old),
            code,
            lay.code_free,
            i,
        )
        hidden, cache = self.transformer(tokens, lay.orbits[:, here], reading.cache)
        return hidden[:, 0], reading._replace(cache=cache)


def before(letter: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
    """Return letter and element of the site before each, shape (crystals, sites + 1)."""
    pad = nn.functional.pad
    return pad(letter, (1, 0), value=NONE), pad(species, (1, 0))


def _before(plan: Plan) -> tuple[Tensor, Tensor]:
    letter = torch.where(plan.layout.orbits, plan.layout.letter, NONE)
    return before(letter, plan.species)


def _head(size: int, width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, out))


def _pick(keys: Tensor, letter: Tensor) -> Tensor:
    """Return the vectors of letters, (crystals, steps, width)."""
    return keys.gather(1, letter[..., None].expand(-1, -1, keys.shape[-1]))


def _waves(u: Tensor) -> Tensor:
    """Return sines and cosines of coordinates, last axis 2 HARMONICS times as long."""
    rate = 2 * math.pi * torch.arange(1, HARMONICS + 1, device=u.device).to(u)
    angle = (u[..., None] * rate).flatten(-2)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
