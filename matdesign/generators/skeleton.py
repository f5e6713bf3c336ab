"""Drawing what a crystal consists of: size, space group, then letter and element by site."""

from __future__ import annotations

import dataclasses
import warnings

import torch
from torch import Tensor

from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.errors import InfeasibleTarget
from matdesign.generators.conditions import Condition, combine
from matdesign.generators.filling import element_mask, letter_mask
from matdesign.generators.lookahead import Lookahead, can_begin, unit_of
from matdesign.generators.mixtures import choose, perturbed
from matdesign.generators.request import Choices, Request
from matdesign.generators.retries import copies, resample
from matdesign.generators.roles import (
    Roles,
    filling,
    fitting,
    some_of,
    taking,
    tell,
    wanted_roles,
)
from matdesign.generators.site_network import SiteNetwork

RESTARTS = 50
"""How often a crystal that cannot be finished is begun again."""


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

        Where the choices of elements are restricted, what leaves none is drawn again.

        Args:
            request: what is asked for.
            symmetric: space groups are free.

        Raises:
            InfeasibleTarget: no space group and size that the model knows fit the wishes.
        """
        if request.choices is None:
            return self._sizes_and_groups(request, symmetric)
        device = self.allowed.device
        n_atoms, group = torch.zeros(2, len(request), dtype=torch.long, device=device)

        def draw(rows: Tensor, attempt: int) -> None:
            made = self._sizes_and_groups(request[rows], symmetric)
            n_atoms[rows], group[rows] = made

        def ok(rows: Tensor) -> Tensor:
            return self.possible(request[rows], n_atoms[rows], group[rows])

        bad = resample(draw, ok, len(request), RESTARTS)
        if len(bad):
            raise InfeasibleTarget(
                "no size and space group that the model knows leave elements to "
                f"choose for {len(bad)} of {len(group)} crystals: "
                f"{request.choices}. Allow more elements, or drop one of the "
                "constraints on composition, charge or size."
            )
        return n_atoms, group

    def _sizes_and_groups(
        self, request: Request, symmetric: bool
    ) -> tuple[Tensor, Tensor]:
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
        group, roles = torch.zeros_like(n_atoms), wanted_roles(request, n_atoms)
        todo = torch.arange(len(group), device=group.device)
        while len(todo):
            if bool(logits[todo].isneginf().all(1).any()):
                raise InfeasibleTarget(
                    "no space group can hold the asked composition: got "
                    f"{request.asked}. Ask for more atoms, or leave the space group open."
                )
            group[todo] = choose(logits[todo], self.rng)
            left = []
            for row, drawn in zip(todo.tolist(), group[todo].tolist(), strict=True):
                wanted, _ = roles[row]
                if wanted and not filling(drawn, wanted).possible(0, wanted):
                    logits[row, drawn] = -torch.inf
                    left.append(row)
            todo = torch.tensor(left, dtype=torch.long, device=group.device)
        return n_atoms, group

    def possible(self, request: Request, n_atoms: Tensor, group: Tensor) -> Tensor:
        """Return for which sizes and groups elements can perhaps be found, (crystals,).

        Args:
            request: with choices.
            n_atoms: atoms in each primitive cell.
            group: space group of each.
        """
        assert request.choices is not None
        pairs = zip(group.tolist(), n_atoms.tolist(), strict=True)
        units = [unit_of(g, 0, n) for g, n in pairs]
        wanted = wanted_roles(request, n_atoms)
        return can_begin(request.choices, n_atoms, units, wanted, self.allowed)

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
        whole = torch.zeros_like(group, dtype=torch.bool)

        def draw(todo: Tensor, attempt: int) -> None:
            # what failed is begun several times at once, and the first whole one counts
            self.restarts += len(todo) if attempt else 0
            many = copies(attempt)
            rows = todo.repeat_interleave(many)
            part = request[rows]
            some, kinds, dead = self._attempt(part, n_atoms[rows], group[rows], forced)
            good = ~dead.view(-1, many)
            best = good.int().argmax(1) + many * torch.arange(len(todo)).to(dead.device)
            width = some.shape[1]
            letter[todo], species[todo] = NONE, 0
            letter[todo, :width], species[todo, :width] = some[best], kinds[best]
            whole[todo] = good.any(1)

        todo = resample(draw, lambda rows: whole[rows], len(group), RESTARTS)
        self.restarts += len(todo)
        if not len(todo):
            longest = int((species > 0).sum(1).max()) if len(species) else 0
            return letter[:, :longest], species[:, :longest]
        if request.choices is not None:
            warnings.warn(
                f"{len(todo)} of {len(group)} crystals could not be finished in {RESTARTS} "
                f"attempts with {request.choices}: they are drawn without it, and a guide "
                "draws again what misses. Loosen it, or ask for other sizes.",
                stacklevel=2,
            )
            bare = dataclasses.replace(request[todo], choices=None)
            rest, kinds = self.sites(bare, n_atoms[todo], group[todo], forced)
            letter[todo], species[todo] = NONE, 0  # half-grown sites would stay
            letter[todo, : rest.shape[1]], species[todo, : rest.shape[1]] = rest, kinds
            longest = int((species > 0).sum(1).max())
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
        device, b = group.device, len(group)
        twice = self.scale not in (0.0, 1.0) and bool(request.condition.anything.any())
        condition = request.condition.to(device)
        if self.scale == 0:
            condition = Condition.nothing(b, condition.low.shape[1], device)
        ask = self.network.ask(condition.doubled() if twice else condition)
        again = 2 if twice else 1
        about = self.network.about(ask, group.repeat(again), n_atoms.repeat(again))
        keys = self.network.keys(group)
        told = keys.repeat(again, 1, 1) if twice else keys
        rows = self._roles(request, n_atoms, group)
        last = torch.full((b,), NONE, device=device)
        kind, left = torch.zeros_like(last), n_atoms.clone()
        dead = torch.zeros(b, dtype=torch.bool, device=device)
        letters: list[Tensor] = []
        kinds: list[Tensor] = []
        sizes: list[Tensor] = []
        cache, step, at = None, 0, torch.arange(b, device=device)
        while bool((left > 0).any()):
            active = left > 0
            if 2 * int(active.sum()) <= len(at):  # the others are finished
                still = active[at]
                cache = cache[still.repeat(again)] if cache is not None else None
                at = at[still]
            read = torch.cat([at, at + b]) if twice else at
            tokens = self.network.skeleton_tokens(
                about[read],
                told[read],
                last[at].repeat(again)[:, None],
                kind[at].repeat(again)[:, None],
                left[at].repeat(again)[:, None],
                step,
            )
            new_hidden, cache = self.network.read(
                tokens, active[at].repeat(again)[:, None] | (step == 0), cache
            )
            self.evaluations += len(tokens)
            hidden = new_hidden.new_zeros(again * b, *new_hidden.shape[1:])
            hidden = hidden.index_copy(0, read, new_hidden)
            score = self._mixed(self.network.letter_logits(hidden, told), b)
            mask = letter_mask(self.fill, group, last, kind, left)
            if forced is not None and step < len(forced[0]):
                new = torch.where(active, forced[0][step], NONE)
                now = torch.where(active, forced[1][step], 0)
            else:
                growing = some_of(rows, active)
                self._tell(request.choices, list(growing.values()))
                if growing:
                    mask = fitting(growing, mask, last.tolist(), kind.tolist())
                dead |= active & ~mask.any(1)
                left = left.masked_fill(dead, 0)
                active = left > 0
                new = torch.full_like(last, NONE)
                score = score.masked_fill(~mask, -torch.inf) / self.temperature
                new[active] = choose(score[active], self.rng)
                grown = None
                if (asked := request.choices) is not None:
                    grown = Lookahead(asked, group, kinds, sizes, left, self.allowed)
                mask = element_mask(self.allowed, new, last, kind)
                now = self._elements(hidden, told, new, mask, active, rows, grown)
                lost = active & (now == 0)
                while bool(lost.any()):  # letters that no element can follow
                    score[lost, new[lost]] = -torch.inf
                    lost &= score.isfinite().any(1)
                    if bool(lost.any()):
                        new[lost] = choose(score[lost], self.rng)
                        mask = element_mask(self.allowed, new, last, kind)
                        now += self._elements(
                            hidden, told, new, mask, lost, rows, grown
                        )
                        lost &= now == 0
                dead |= active & (now == 0)
            letter_of, kind_of = new.tolist(), now.tolist()
            for row, roles in some_of(rows, active & ~dead).items():
                roles.place(letter_of[row], kind_of[row], self.rng)
            size = self.table.count[group, new]
            left = (left - size).masked_fill(dead, 0)
            last = torch.where(active, new, last)
            kind = torch.where(active, now, kind)
            letters.append(new)
            kinds.append(now)
            sizes.append(size)
            step += 1
        return torch.stack(letters, 1), torch.stack(kinds, 1), dead

    def _elements(
        self,
        hidden: Tensor,
        told: Tensor,
        letter: Tensor,
        mask: Tensor,
        active: Tensor,
        rows: dict[int, Roles],
        grown: Lookahead | None,
    ) -> Tensor:
        """Return drawn elements for chosen letters, 0 where none can be."""
        again = len(hidden) // len(letter)
        raw = self.network.species_logits(hidden, told, letter.repeat(again)[:, None])
        score = self._mixed(raw, len(letter))
        score = score.masked_fill(~mask, -torch.inf) / self.temperature

        now = torch.zeros_like(letter)
        plain = active & mask.any(1)
        there = plain.tolist()
        mine = [row for row in rows if there[row]]
        if mine:  # where a composition is asked for, roles know
            ranked, plain[mine] = perturbed(score[mine], self.rng), False
            some, new = [rows[row] for row in mine], letter[mine].tolist()
            now[mine] = taking(some, ranked, new)
        at = plain.nonzero().squeeze(1)
        if len(at) and grown is not None:
            now[at] = grown.draw(letter, perturbed(score[at], self.rng), at)
        elif len(at):
            now[at] = choose(score[at], self.rng)
        return now

    def _tell(self, choices: Choices | None, several: list[Roles]) -> None:
        """Tell roles without an element what they may take."""
        waiting = [roles for roles in several if 0 in roles.element]
        if choices is not None and waiting:
            tell(choices, waiting, self.allowed)

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
        asked = zip(group.tolist(), wanted_roles(request, n_atoms), strict=True)
        return {
            row: Roles(filling(g, wanted), wanted, kinds)
            for row, (g, (wanted, kinds)) in enumerate(asked)
            if wanted
        }
