"""Drawing what a crystal consists of: size, space group, then letter and element by site."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from matdesign.errors import InfeasibleTarget
from matdesign.generators.conditions import Condition, combine
from matdesign.generators.filling import Counts, Filling, element_mask, letter_mask
from matdesign.generators.mixtures import choose
from matdesign.generators.request import Request
from matdesign.generators.site_network import SiteNetwork
from matdesign.generators.wyckoff_table import NONE, wyckoff_table

RESTARTS = 50
"""How often a crystal that cannot be finished is begun again."""


@dataclass
class Roles:
    """Elements (or roles of a pattern) of one crystal, and how many atoms each still needs.

    Args:
        filling: what the letters of its space group can hold.
        left: atoms of each role still to be placed.
        element: atomic number of each role, 0 = not chosen yet.
    """

    filling: Filling
    left: Counts
    element: list[int]
    _choices: dict[int, list[int]] = field(default_factory=dict)

    def letters(self, allowed: list[int], last: int, species: int) -> list[int]:
        """Return the letters that still lead to a whole crystal.

        Args:
            allowed: letters to choose from.
            last: letter of the site before.
            species: its element.
        """
        self._choices = {}
        for letter in allowed:
            lowest = species if letter == last else 0
            fit = [
                k
                for k, z in enumerate(self.element)
                if (not z or z >= lowest)
                and self._fits(letter, k, z if z or letter != last else species + 1)
            ]
            if fit:
                self._choices[letter] = fit
        return list(self._choices)

    def elements(self, letter: int, fresh: Tensor) -> Tensor:
        """Return which elements may stand on a chosen letter, bool, shape (104,).

        Args:
            letter: one of `letters`.
            fresh: elements that a role without one may take.
        """
        mask = torch.zeros_like(fresh)
        for role in self._choices[letter]:
            if self.element[role]:
                mask[self.element[role]] = True
                continue
            known: dict[frozenset[int], bool] = {}
            for z in fresh.nonzero().squeeze(1).tolist():
                again = self._again(z)
                if z not in self.element and again not in known:
                    known[again] = self._fits(letter, role, z)
                mask[z] |= z not in self.element and known[again]
        return mask

    def place(self, letter: int, species: int, rng: torch.Generator) -> None:
        """Take one orbit off what is left."""
        if species in self.element:
            role = self.element.index(species)
        else:
            open_roles = [
                k
                for k in self._choices[letter]
                if not self.element[k] and self._fits(letter, k, species)
            ]
            draw = torch.randint(
                len(open_roles), (1,), generator=rng, device=rng.device
            )
            role = open_roles[int(draw)]
            self.element[role] = species
        size = self.filling.count[letter]
        self.left = tuple(n - size if k == role else n for k, n in enumerate(self.left))

    def _fits(self, letter: int, role: int, z: int) -> bool:
        """Return whether a role may take element z on a letter."""
        after = self.filling.after(letter, role, self.left, self._again(z))
        return after is not None

    def _again(self, z: int) -> frozenset[int]:
        """Return the roles that may follow element z on the same letter."""
        return frozenset(
            k for k, other in enumerate(self.element) if not other or other >= z
        )


@lru_cache(maxsize=4096)
def filling(spacegroup: int, wanted: Counts) -> Filling:
    """Return what the letters of a space group can hold of several roles."""
    table = wyckoff_table()
    return Filling(
        table.count[spacegroup, :NONE].tolist(),
        table.freedom[spacegroup, :NONE].tolist(),
        wanted,
    )


def wanted_roles(request: Request, row: int, n_atoms: int) -> tuple[Counts, list[int]]:
    """Return atoms and element (0 = open) of each role asked for; empty without any."""
    times = n_atoms // int(request.unit[row])
    formula = request.formula[row]
    if bool(formula.any()):
        kinds = formula.nonzero().squeeze(1).tolist()
        return tuple(int(formula[z]) * times for z in kinds), kinds
    counts = [k for k in request.pattern[row].tolist() if k]
    return tuple(k * times for k in counts), [0] * len(counts)


class SkeletonSampler:
    """Draws size, space group, letters and elements of many crystals at once.

    Args:
        network: what comes next.
        prior: log share of each space group and size in training, shape (231, sizes).
        fill: of `fill_table`.
        allowed: elements seen in training, bool, shape (104,).
        temperature: of letters and elements.
        scale: of classifier-free guidance.
        rng: source of randomness.
    """

    def __init__(
        self,
        network: SiteNetwork,
        prior: Tensor,
        fill: Tensor,
        allowed: Tensor,
        temperature: float,
        scale: float,
        rng: torch.Generator,
    ) -> None:
        self.network, self.prior, self.fill, self.allowed = (
            network,
            prior,
            fill,
            allowed,
        )
        self.temperature, self.scale, self.rng = temperature, scale, rng
        self.table = wyckoff_table(str(allowed.device))
        self.evaluations = 0
        self.restarts = 0

    def sizes_and_groups(
        self, request: Request, symmetric: bool
    ) -> tuple[Tensor, Tensor]:
        """Return drawn sizes and space groups, shape (crystals,) each.

        Raises:
            InfeasibleTarget: no space group and size that the model knows fit the wishes.
        """
        prior = self.prior.to(self.allowed.device)
        if request.groups is not None and symmetric:
            prior = prior.masked_fill(
                ~request.groups.to(prior.device)[:, None], -torch.inf
            )
        asked = self.network.ask(request.condition.to(prior.device))
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
                f"{request.asked}, n_atoms {int(request.n_atoms[row]) or 'open'}. Ask for "
                "fewer atoms, another space group or another composition."
            )
        n_atoms = choose(base + self.scale * self.network.size_logits(asked), self.rng)
        logits = prior.T[n_atoms] + self.scale * self.network.group_logits(
            asked, n_atoms
        )
        group = torch.zeros_like(n_atoms)
        todo = torch.arange(len(group), device=group.device)
        while len(todo):
            if bool(logits[todo].isneginf().all(1).any()):
                raise InfeasibleTarget(
                    "no space group can hold the asked composition: got "
                    f"{request.asked}. Ask for more atoms, or leave the space group open."
                )
            group[todo] = choose(logits[todo], self.rng)
            left = []
            for row in todo.tolist():
                wanted, _ = wanted_roles(request, row, int(n_atoms[row]))
                if wanted and not filling(int(group[row]), wanted).possible(0, wanted):
                    logits[row, group[row]] = -torch.inf
                    left.append(row)
            todo = torch.tensor(left, dtype=torch.long, device=group.device)
        return n_atoms, group

    def sites(
        self,
        request: Request,
        n_atoms: Tensor,
        group: Tensor,
        forced: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return letters and elements, `NONE` and 0 on padding, (crystals, sites).

        Args:
            request: what is asked for, one wish for each crystal.
            n_atoms: atoms in each primitive cell.
            group: space group of each.
            forced: letters and elements of the first sites, the same for all crystals.

        Raises:
            InfeasibleTarget: a crystal could not be finished in `RESTARTS` attempts.
        """
        letter = torch.full((len(group), self.fill.shape[2]), NONE, device=group.device)
        species = torch.zeros_like(letter)
        todo = torch.arange(len(group), device=group.device)
        for _ in range(RESTARTS):
            part = request[todo.cpu()]
            some, kinds, dead = self._attempt(part, n_atoms[todo], group[todo], forced)
            width = some.shape[1]
            letter[todo], species[todo] = NONE, 0
            letter[todo, :width], species[todo, :width] = some, kinds
            todo = todo[dead]
            self.restarts += len(todo)
            if not len(todo):
                longest = int((species > 0).sum(1).max()) if len(species) else 0
                return letter[:, :longest], species[:, :longest]
        raise InfeasibleTarget(
            f"{len(todo)} crystals could not be finished as asked: got {request.asked}. "
            "Ask for more atoms or fewer different elements."
        )

    def _attempt(
        self,
        request: Request,
        n_atoms: Tensor,
        group: Tensor,
        forced: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return letters, elements, and which crystals came to a dead end."""
        at, b = group.device, len(group)
        twice = self.scale not in (0.0, 1.0) and bool(request.condition.anything.any())
        condition = request.condition.to(at)
        if self.scale == 0:
            condition = Condition.nothing(b, condition.low.shape[1], at)
        ask = self.network.ask(condition.doubled() if twice else condition)
        again = 2 if twice else 1
        about = self.network.about(ask, group.repeat(again), n_atoms.repeat(again))
        keys = self.network.keys(group)
        rows = self._roles(request, n_atoms, group)
        last = torch.full((b,), NONE, device=at)
        kind, left = torch.zeros_like(last), n_atoms.clone()
        dead = torch.zeros(b, dtype=torch.bool, device=at)
        letters, kinds, cache, step = [], [], None, 0
        while bool((left > 0).any()):
            active = left > 0
            tokens = self.network.skeleton_tokens(
                about,
                keys.repeat(again, 1, 1),
                last.repeat(again)[:, None],
                kind.repeat(again)[:, None],
                left.repeat(again)[:, None],
                step,
            )
            hidden, cache = self.network.read(
                tokens, active.repeat(again)[:, None] | (step == 0), cache
            )
            self.evaluations += len(tokens)
            score = self._mixed(
                self.network.letter_logits(hidden, keys.repeat(again, 1, 1)), b
            )
            mask = letter_mask(self.fill, group, last, kind, left)
            if forced is not None and step < len(forced[0]):
                new = torch.where(active, forced[0][step], NONE)
                now = torch.where(active, forced[1][step], 0)
            else:
                for row, roles in rows.items():
                    if active[row]:
                        some = mask[row].nonzero().squeeze(1).tolist()
                        fit = roles.letters(some, int(last[row]), int(kind[row]))
                        mask[row] = False
                        mask[row, fit] = True
                dead |= active & ~mask.any(1)
                left = left.masked_fill(dead, 0)
                active = left > 0
                new = torch.full_like(last, NONE)
                score = score.masked_fill(~mask, -torch.inf) / self.temperature
                new[active] = choose(score[active], self.rng)
                now = self._elements(hidden, keys, new, last, kind, rows, active)
                dead |= active & (now == 0)
            for row, roles in rows.items():
                if active[row] and not dead[row]:
                    roles.place(int(new[row]), int(now[row]), self.rng)
            left = (left - self.table.count[group, new]).masked_fill(dead, 0)
            last = torch.where(active, new, last)
            kind = torch.where(active, now, kind)
            letters.append(new)
            kinds.append(now)
            step += 1
        return torch.stack(letters, 1), torch.stack(kinds, 1), dead

    def _elements(
        self,
        hidden: Tensor,
        keys: Tensor,
        letter: Tensor,
        last: Tensor,
        before: Tensor,
        rows: dict[int, Roles],
        active: Tensor,
    ) -> Tensor:
        """Return drawn elements for chosen letters, 0 where none can be."""
        again = len(hidden) // len(keys)
        score = self._mixed(
            self.network.species_logits(
                hidden, keys.repeat(again, 1, 1), letter.repeat(again)[:, None]
            ),
            len(keys),
        )
        mask = element_mask(self.allowed, letter, last, before)
        for row, roles in rows.items():
            if active[row]:
                mask[row] = (
                    roles.elements(int(letter[row]), mask[row].clone()) & mask[row]
                )
        can = active & mask.any(1)
        now = torch.zeros_like(letter)
        score = score.masked_fill(~mask, -torch.inf) / self.temperature
        if can.any():
            now[can] = choose(score[can], self.rng)
        return now

    def _mixed(self, raw: Tensor, crystals: int) -> Tensor:
        """Return guided scores of one step, (crystals, choices)."""
        raw = raw[:, 0]
        if len(raw) == crystals:
            return raw
        null, wanted = raw.chunk(2)
        return combine(null, wanted, self.scale)

    def _roles(
        self, request: Request, n_atoms: Tensor, group: Tensor
    ) -> dict[int, Roles]:
        """Return the roles of the crystals of which a composition is asked."""
        made = {}
        for row in range(len(group)):
            wanted, kinds = wanted_roles(request, row, int(n_atoms[row]))
            if wanted:
                made[row] = Roles(filling(int(group[row]), wanted), wanted, list(kinds))
        return made
