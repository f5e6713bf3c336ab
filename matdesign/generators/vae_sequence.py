"""The Wyckoff sequence of a crystal from its latent: space group, letters, elements."""

import torch
from torch import Tensor, nn

from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.conditions import guided
from matdesign.generators.filling import element_mask, fillable, fills, letter_mask
from matdesign.generators.layers import SpeciesEmbedding, SpeciesHead, at
from matdesign.generators.request import Request
from matdesign.generators.sampling import choose
from matdesign.generators.site_mask import Scores, SiteMask, layout_of, wanted_amounts

FORGET = 0.1
"""Share of the orbits so far that is hidden in training, so that the decoder reads z."""


class SequenceDecoder(nn.Module):
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
        cells: the representation is "cell": P1, and the number of atoms is given.
    """

    def __init__(self, *, width: int, latent: int, largest: int, cells: bool) -> None:
        super().__init__()
        self.largest, self.cells = largest, cells
        self.group = nn.Sequential(
            nn.Linear(latent + width, width), nn.SiLU(), nn.Linear(width, 231)
        )
        self.spacegroup = nn.Embedding(231, width)
        self.context = nn.Sequential(
            nn.Linear(latent + 2 * width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.start = nn.Linear(width, width)
        self.letter = nn.Embedding(NONE + 1, width)
        self.species = SpeciesEmbedding(width)
        self.room = nn.Linear(2, width)
        self.memory = nn.GRU(width, width, batch_first=True)
        self.next_letter = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, NONE + 1)
        )
        self.hidden = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU())
        self.element = SpeciesHead(width)

    def _context(self, z: Tensor, condition: Tensor, group: Tensor) -> Tensor:
        made: Tensor = self.context(
            torch.cat([z, condition, self.spacegroup(group)], 1)
        )
        return made

    def _inputs(
        self,
        context: Tensor,
        letter: Tensor,
        species: Tensor,
        left: Tensor,
        *,
        first: int = 0,
    ) -> Tensor:
        """Return what the memory reads: the orbit before and the room that is left."""
        step = first + torch.arange(letter.shape[1], device=letter.device)
        room = torch.stack([left / 20, (step / 10).expand_as(left)], -1)
        made = self.letter(letter) + self.species(species) + self.room(room.to(context))
        return torch.as_tensor(made + context[:, None])

    def groups(self, atoms: Tensor, exact: bool) -> Tensor:
        """Return which space groups hold so many atoms, or at most so many, (n, 231)."""
        fill = fills(max(80, 4 * self.largest), str(atoms.device))
        if self.cells:
            return torch.arange(231, device=atoms.device).expand(len(atoms), -1) == 1
        holds = fill[:, 0, 1:] if exact else fill[:, 0, 1:].cumsum(1) > 0
        return holds.T[atoms.clamp(max=holds.shape[1]) - 1]

    def letters(self, group: Tensor, last: Tensor, left: Tensor, exact: bool) -> Tensor:
        """Return which letters may come next, and whether the crystal may end, (..., 28).

        Args:
            group: space groups, shape (...).
            last: letter before, `NONE` at the start.
            left: atoms for which there is room.
            exact: the room must be filled exactly.
        """
        fill = fills(max(80, 4 * self.largest), str(group.device))
        if not exact:
            fill = torch.ones_like(fill)
        begun = last < NONE
        left = left.clamp(max=fill.shape[2] - 1)
        may = letter_mask(fill, group, last, begun.long(), left)
        end = begun & (left == 0) if exact else begun
        return torch.cat([may, end[..., None]], -1)

    def log_prob(
        self,
        z: Tensor,
        condition: Tensor,
        batch: Encoded,
        allowed: Tensor,
        *,
        hide: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return log p of spacegroup, letters and species in nats, each (crystals,).

        Args:
            z: latent of the crystals.
            condition: condition embedding.
            batch: the crystals.
            allowed: elements that the model knows, bool, shape (104,).
            hide: hides orbits at random, for training; None hides nothing.
        """
        group, (letter, species) = batch.layout.spacegroup, ordered(batch)
        limit = batch.n_atoms
        if not self.cells:
            limit = limit.clamp(min=self.largest)
        used = wyckoff_table(str(z.device)).count[group[:, None], letter]
        left = limit[:, None] - (used.cumsum(1) - used)
        before = nn.functional.pad(letter[:, :-1], (1, 0), value=NONE)
        earlier = nn.functional.pad(species[:, :-1], (1, 0))
        context = self._context(z, condition, group)
        shown, seen = before, earlier
        if hide is not None:
            chance = torch.rand(letter.shape, generator=hide, device=hide.device)
            gone = (chance < FORGET).to(z.device)
            shown, seen = shown.masked_fill(gone, NONE), seen.masked_fill(gone, 0)
        read = self._inputs(context, shown, seen, left)
        state = self.memory(read, self.start(context).tanh()[None])[0]
        wide = torch.cat([state, context[:, None].expand_as(state)], -1)
        real = letter < NONE
        live = torch.cat([real[:, :1], before[:, 1:] < NONE], 1)
        may = self.letters(group[:, None].expand_as(before), before, left, self.cells)
        scores = self.next_letter(wide).masked_fill(~may, -torch.inf)
        letters = (
            at(scores.masked_fill(~live[..., None], 0.0).log_softmax(-1), letter) * live
        )
        head = self._elements(wide, letter)
        may = element_mask(allowed, letter, before, earlier)
        head = head.masked_fill(~may, -torch.inf).masked_fill(~real[..., None], 0.0)
        groups = self.group(torch.cat([z, condition], 1))
        groups = groups.masked_fill(~self.groups(limit, self.cells), -torch.inf)
        return {
            "spacegroup": at(groups.log_softmax(-1), group),
            "letters": letters.sum(1),
            "species": (at(head.log_softmax(-1), species) * real).sum(1),
        }

    @torch.no_grad()
    def draw(
        self,
        z: Tensor,
        condition: Tensor,
        request: Request,
        n_atoms: Tensor,
        allowed: Tensor,
        rng: torch.Generator,
        *,
        scale: float = 1.0,
        temperature: float = 1.0,
    ) -> tuple[Layout, Tensor, Tensor]:
        """Return layouts and elements of the crystals that met the request, and which.

        Args:
            z: latent of the crystals.
            condition: condition embedding.
            request: what they must be.
            n_atoms: atoms of each, of no effect where the request leaves them open.
            allowed: elements that the model knows, bool, shape (104,).
            rng: source of randomness.
            scale: of classifier-free guidance, on all logits.
            temperature: 1 draws from the model, 0 takes the most probable.

        Returns:
            Layout and species, shape (met, orbits), of some crystals; which these are,
            bool, shape (crystals,).
        """
        device = z.device
        given = (request.n_atoms, request.formula, request.pattern)
        exact = self.cells or request.choices is not None or any(x.any() for x in given)
        left = n_atoms if exact else torch.full_like(n_atoms, self.largest)
        left = left.to(device)
        may = self.groups(left, exact)
        if request.groups is not None and not self.cells:
            may = may & request.groups.to(device)
        copies = 1
        if scale not in (0.0, 1.0) and bool(condition.any()):
            copies, condition = 2, torch.cat([torch.zeros_like(condition), condition])
        z = z.repeat(copies, 1)
        scores = guided(self.group(torch.cat([z, condition], 1)), copies, scale)
        met = may.any(1)
        may[:, 1] |= ~met
        group = choose(scores.masked_fill(~may, -torch.inf), rng, temperature)
        wanted = wanted_amounts(request, n_atoms)
        holds = [fillable(g, 0, many) for g, (many, _) in zip(group.tolist(), wanted)]
        met &= torch.tensor(holds, dtype=torch.bool, device=device)
        context = self._context(z, condition, group.repeat(copies))
        state = self.start(context).tanh()[None]

        def read(step: int, active: Tensor, *before: Tensor) -> Scores:
            nonlocal state
            inputs = self._inputs(context, *before, first=step)
            out, state = self.memory(inputs, state)
            wide = torch.cat([out[:, 0], context], 1)
            return self.next_letter(wide), lambda on: self._elements(wide, on[:, 0])

        def follow(last: Tensor, species: Tensor, left: Tensor) -> Tensor:
            return self.letters(group, last, left, exact)

        sites = SiteMask(group, wanted, request.choices, allowed, ordered=False)
        letter, species, left = sites.sequences(
            read,
            follow,
            left,
            met,
            rng,
            copies=copies,
            scale=scale,
            temperature=temperature,
        )
        met &= left == 0 if exact else left < self.largest
        layout = layout_of(group[met], letter[met], cells=self.cells).to(device)
        return layout, species[met, : layout.count.shape[1]], met

    def _elements(self, wide: Tensor, letter: Tensor) -> Tensor:
        both = torch.cat([wide, self.letter(letter)], -1)
        return torch.as_tensor(self.element(self.hidden(both)))


def ordered(batch: Encoded) -> tuple[Tensor, Tensor]:
    """Return letters (`NONE` after the last) and species (0) in the decoder's order.

    Returns:
        Two of shape (crystals, orbits + 1).
    """
    lay = batch.layout
    end = 128 * 128
    key = (lay.letter * 128 + batch.species).masked_fill(~lay.orbits, end)
    key = nn.functional.pad(key.sort(1).values, (0, 1), value=end)
    real = key < end
    return torch.where(real, key // 128, NONE), torch.where(real, key % 128, 0)
