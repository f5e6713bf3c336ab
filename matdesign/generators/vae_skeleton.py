"""The discrete part of a crystal from its latent: space group, Wyckoff letters, species."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.generators.choices import Choices
from matdesign.generators.conditions import combine
from matdesign.generators.features import SpeciesEmbedding, SpeciesHead
from matdesign.generators.filling import Counts, fillable
from matdesign.generators.mixtures import perturbed
from matdesign.generators.site_mask import SiteMask
from matdesign.generators.vae_latent import LETTERS
from matdesign.generators.vae_tables import (
    REACH,
    STOP,
    Skeleton,
    Wishes,
    WyckoffTables,
    letter_mask,
    species_mask,
    wyckoff_tables,
)


class SkeletonDecoder(nn.Module):
    """p(space group, letters, species | z), one orbit after the other.

    Orbits come in the order of their letters, those of one letter in the order of their
    elements, so that a set of orbits has one probability. What cannot be (letters that
    the group lacks, a point used twice, too many atoms) has probability zero. In the
    representation "cell" there is one group and one letter, and only elements are drawn.

    Equation:
        p = p(g | z) prod_k p(w_k | w_<k, a_<k, g, z) p(a_k | w_<=k, a_<k, g, z)

    Args:
        width: size of the hidden state.
        latent: size of z.
        largest: atoms in the largest crystal.
        forget: share of the orbits so far that is hidden in training, so that the decoder
            must read z.
    """

    def __init__(
        self, *, width: int, latent: int, largest: int, forget: float = 0.1
    ) -> None:
        super().__init__()
        self.largest, self.forget = largest, forget
        self.group = nn.Sequential(
            nn.Linear(latent + width, width), nn.SiLU(), nn.Linear(width, 231)
        )
        self.spacegroup = nn.Embedding(231, width)
        self.context = nn.Sequential(
            nn.Linear(latent + 2 * width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.start = nn.Linear(width, width)
        self.letter = nn.Embedding(LETTERS + 1, width)
        self.species = SpeciesEmbedding(width)
        self.room = nn.Linear(2, width)
        self.memory = nn.GRU(width, width, batch_first=True)
        self.next_letter = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, LETTERS + 1)
        )
        self.hidden = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU())
        self.element = SpeciesHead(width)

    def _context(self, z: Tensor, asked: Tensor, group: Tensor) -> Tensor:
        made: Tensor = self.context(torch.cat([z, asked, self.spacegroup(group)], 1))
        return made

    def _inputs(
        self, context: Tensor, letter: Tensor, species: Tensor, left: Tensor, first: int
    ) -> Tensor:
        """Return what the memory reads: the orbit before and the room that is left."""
        step = first + torch.arange(letter.shape[1], device=letter.device)
        room = torch.stack([left / 20, (step / 10).expand_as(left)], -1)
        made = self.letter(letter) + self.species(species) + self.room(room.to(context))
        return torch.as_tensor(made + context[:, None])

    def log_prob(
        self,
        z: Tensor,
        asked: Tensor,
        batch: Encoded,
        allowed: Tensor,
        *,
        exact: bool,
        rng: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return log p of spacegroup, letters and species in nats, each (crystals,).

        Args:
            z: latent of the crystals.
            asked: what is known of them, as a vector.
            batch: the crystals.
            allowed: elements that the model knows, bool, shape (104,).
            exact: the number of atoms is given beforehand ("cell").
            rng: hides orbits at random, for training; None hides nothing.
        """
        tables = wyckoff_tables().to(z.device)
        group, (letter, species) = batch.layout.spacegroup, ordered(batch)
        b, steps = letter.shape
        n_atoms = batch.n_atoms
        limit = n_atoms if exact else n_atoms.clamp(min=self.largest)
        used = torch.where(letter < STOP, _sites_of(tables, group, letter), 0)
        left = limit[:, None] - (used.cumsum(1) - used)
        before = torch.cat([torch.full_like(letter[:, :1], STOP), letter[:, :-1]], 1)
        earlier = torch.cat([torch.zeros_like(species[:, :1]), species[:, :-1]], 1)
        context = self._context(z, asked, group)
        shown, seen = before, earlier
        if rng is not None and self.forget:
            hide = torch.rand(letter.shape, generator=rng, device=rng.device)
            hide = (hide < self.forget).to(z.device)
            shown, seen = shown.masked_fill(hide, STOP), seen.masked_fill(hide, 0)
        read = self._inputs(context, shown, seen, left, 0)
        state = self.memory(read, self.start(context).tanh()[None])[0]
        wide = torch.cat([state, context[:, None].expand_as(state)], -1)
        may = letter_mask(
            tables,
            group.repeat_interleave(steps),
            before.flatten(),
            left.flatten(),
            exact=torch.full((b * steps,), exact, device=z.device),
        ).view(b, steps, -1)
        real = letter < STOP
        live = torch.cat([real[:, :1], before[:, 1:] < STOP], 1)
        scores = self.next_letter(wide).masked_fill(~may, -torch.inf)
        letters = _pick(scores.masked_fill(~live[..., None], 0.0), letter) * live
        head = self.element(self.hidden(torch.cat([wide, self.letter(letter)], -1)))
        may = species_mask(allowed, before, earlier, letter)
        head = head.masked_fill(~may, -torch.inf).masked_fill(~real[..., None], 0.0)
        kinds = _pick(head, species) * real
        groups = self.group(torch.cat([z, asked], 1))
        groups = groups.masked_fill(~_fitting(tables, limit, exact), -torch.inf)
        return {
            "spacegroup": _pick(groups, group),
            "letters": letters.sum(1),
            "species": kinds.sum(1),
        }

    @torch.no_grad()
    def draw(
        self,
        z: Tensor,
        asked: Tensor,
        wishes: Wishes,
        allowed: Tensor,
        rng: torch.Generator,
        *,
        scale: float = 1.0,
        temperature: float = 1.0,
        choices: Choices | None = None,
    ) -> Skeleton:
        """Return one skeleton for every crystal that meets the wishes where `met`.

        Args:
            z: latent of the crystals.
            asked: what is asked of them, as a vector.
            wishes: what must hold.
            allowed: elements that the model knows, bool, shape (104,).
            rng: source of randomness.
            scale: of classifier-free guidance, on all logits.
            temperature: 1 draws from the model, 0 takes the most probable.
            choices: says which elements may be where, given what may follow; for cells of
                given size.
        """
        tables = wyckoff_tables().to(z.device)
        guided = scale not in (0.0, 1.0) and bool(asked.any())
        asked = torch.zeros_like(asked) if scale == 0.0 else asked
        if guided:
            z, asked = torch.cat([z, z]), torch.cat([torch.zeros_like(asked), asked])

        def mix(logits: Tensor) -> Tensor:
            if not guided:
                return logits
            null, bound = logits.chunk(2)
            return combine(null, bound, scale)

        def draw(scores: Tensor) -> Tensor:
            return _choose(scores, temperature, rng)

        def twice(value: Tensor) -> Tensor:
            return torch.cat([value, value]) if guided else value

        exact = wishes.n_atoms > 0
        left = torch.where(exact, wishes.n_atoms, self.largest)
        fits = tables.fills[:, 0].T[left.clamp(max=REACH)]
        fits = torch.where(exact[:, None], fits, _fitting(tables, left, False))
        may = wishes.groups & fits
        met = may.any(1)
        may[~met, 1] = True
        scores = mix(self.group(torch.cat([z, asked], 1)))
        group = _choose(scores.masked_fill(~may, -torch.inf), temperature, rng)
        wanted = _asked(wishes)
        bad = _misfits(wanted, torch.arange(len(group)), group, met)
        while len(bad):  # groups whose letters cannot hold the formula or pattern
            may[bad, group[bad]] = False
            met = met & may.any(1)
            may[~met, 1] = True
            group[bad] = _choose(
                scores[bad].masked_fill(~may[bad], -torch.inf), temperature, rng
            )
            bad = _misfits(wanted, bad, group, met)
        asks = SiteMask(group, wanted, choices, allowed, ordered=False)
        context = self._context(z, asked, twice(group))
        state = self.start(context).tanh()[None]
        letter, species = torch.full_like(group, STOP), torch.zeros_like(group)
        letters: list[Tensor] = []
        kinds: list[Tensor] = []
        live = met.clone()
        for step in range(int(left.max()) if len(left) else 0):
            last, kind, room = (
                twice(value)[:, None] for value in (letter, species, left)
            )
            read = self._inputs(context, last, kind, room, step)
            out, state = self.memory(read, state)
            wide = torch.cat([out[:, 0], context], 1)
            may = letter_mask(tables, group, letter, left, exact=exact)
            may[:, :LETTERS] = asks.letters(may[:, :LETTERS], live, letter, species)
            met, live = _still(met, live, may)
            may[:, STOP] |= ~live
            scores = mix(self.next_letter(wide)).masked_fill(~may, -torch.inf)
            new = draw(scores)
            live = live & (new < STOP)
            if not bool(live.any()):
                break
            floor = torch.where(asks.given, 0, species)  # roles come in any order
            may = species_mask(allowed, letter, floor, new)
            may = asks.elements(may, live, new, left)
            met, live = _still(met, live, may)
            hidden = torch.cat([wide, self.letter(twice(new))], 1)
            score = mix(self.element(self.hidden(hidden)))
            species = asks.draw(draw, score, may, live, new, left)
            met, live = met & ~(live & (species == 0)), live & (species > 0)
            letter = torch.where(live, new, STOP)
            left = left - asks.place(live, letter, species, rng)
            letters.append(letter)
            kinds.append(species)
        met = met & torch.where(exact, left == 0, left < self.largest)
        if not letters:
            letters, kinds = [torch.full_like(group, STOP)], [torch.zeros_like(group)]
        return Skeleton(group, torch.stack(letters, 1), torch.stack(kinds, 1), met)


def _asked(wishes: Wishes) -> list[tuple[Counts, list[int]]]:
    """Return atoms and element (0 = open) of each role that is asked of each crystal."""
    found: list[tuple[Counts, list[int]]] = []
    both = wishes.formula.tolist(), wishes.pattern.tolist()
    for formula, pattern in zip(*both, strict=True):
        kinds = [z for z, k in enumerate(formula) if k]
        counts = tuple(k for k in formula if k) or tuple(k for k in pattern if k)
        found.append((counts, kinds or [0] * len(counts)))
    return found


def _misfits(
    wanted: list[tuple[Counts, list[int]]], rows: Tensor, group: Tensor, met: Tensor
) -> Tensor:
    """Return those of some crystals whose space group cannot hold what is asked."""
    some = rows.to(group.device)
    fits = [
        fillable(number, 0, wanted[row][0])
        for row, number in zip(rows.tolist(), group[some].tolist(), strict=True)
    ]
    return some[met[some] & ~torch.tensor(fits, dtype=torch.bool, device=some.device)]


def _still(met: Tensor, live: Tensor, may: Tensor) -> tuple[Tensor, Tensor]:
    """Return which crystals can still meet their wishes, and which still grow."""
    stuck = live & ~may.any(1)
    return met & ~stuck, live & ~stuck


def _fitting(tables: WyckoffTables, limit: Tensor, exact: bool) -> Tensor:
    """Return which space groups hold a crystal of the allowed size, (crystals, 231)."""
    if exact:  # the representation "cell": P1 and nothing else
        return torch.arange(231, device=limit.device).expand(len(limit), -1) == 1
    smallest = tables.sites.masked_fill(tables.sites == 0, 999).amin(1)
    return smallest[None] <= limit[:, None]


def ordered(batch: Encoded) -> tuple[Tensor, Tensor]:
    """Return letters (`STOP` after the last) and species (0) in the decoder's order.

    Returns:
        Two of shape (crystals, orbits + 1).
    """
    lay = batch.layout
    end = 128 * 128
    key = (lay.letter * 128 + batch.species).masked_fill(~lay.orbits, end)
    key = nn.functional.pad(key.sort(1).values, (0, 1), value=end)
    real = key < end
    return torch.where(real, key // 128, STOP), torch.where(real, key % 128, 0)


def _sites_of(tables: WyckoffTables, group: Tensor, letter: Tensor) -> Tensor:
    return tables.sites[group[:, None], letter.clamp(max=LETTERS - 1)]


def _pick(logits: Tensor, index: Tensor) -> Tensor:
    """Return the log probability of an index."""
    return logits.log_softmax(-1).gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _choose(logits: Tensor, temperature: float, rng: torch.Generator) -> Tensor:
    """Return an index drawn from logits, or the largest at temperature 0."""
    return perturbed(logits, rng, temperature).argmax(-1)
