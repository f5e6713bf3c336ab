"""The second pass of `Autoregressive`: a lattice for known sites, then place after place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.conditions import Condition, combine
from matdesign.generators.frames import LOOSE, Frame, Steer
from matdesign.generators.overlap import clearance
from matdesign.generators.planning import Plan
from matdesign.generators.scales import Scales
from matdesign.generators.site_network import SiteNetwork


@dataclass(frozen=True)
class Draws:
    """How lattices and coordinates are drawn.

    Args:
        coordinates: temperature of coordinates.
        lattice: temperature of lattices.
        tries: draws while atoms overlap; 1 takes the first.
        scale: of classifier-free guidance.
    """

    coordinates: float = 1.0
    lattice: float = 1.0
    tries: int = 8
    scale: float = 1.0


class Placement:
    """Crystals whose letters and elements are known, on their way to coordinates.

    Guidance combines the weights of the mixtures; means and widths are those that the
    condition gives.

    Args:
        network: what comes next.
        scales: of the lattice code.
        plan: letters and elements of all sites, in canonical order.
        draws: temperatures, tries and scale.
        rng: source of randomness.

    Attributes:
        u: coordinates placed so far, shape (crystals, sites, 3).
        cell: primitive cells, rows in angstrom, shape (crystals, 3, 3).
        crowded: crystals in which all tries left atoms nearer than they may be, bool,
            shape (crystals,).
        evaluations: crystals read by the network so far, one for each step.
    """

    def __init__(
        self,
        network: SiteNetwork,
        scales: Scales,
        plan: Plan,
        draws: Draws,
        rng: torch.Generator,
    ) -> None:
        self.network, self.scales, self.plan = network, scales, plan
        self.draws, self.rng = draws, rng
        net, layout, at = network, plan.layout, plan.species.device
        asked = plan.condition
        if draws.scale == 0:
            asked = Condition.nothing(len(plan), asked.low.shape[1], at)
        guided = draws.scale not in (0.0, 1.0) and bool(asked.anything.any())
        self.again = 2 if guided else 1
        b, m = plan.species.shape
        self.letter = torch.where(layout.orbits, layout.letter, NONE)
        self.length = layout.orbits.sum(1)
        self.group = self._again(layout.spacegroup)
        ask = net.ask(asked.doubled() if guided else asked)
        self.about = net.about(ask, self.group, self._again(layout.n_atoms))
        self.keys = net.keys(self.group)
        # letter and element of the site before, one column late
        self.last = torch.nn.functional.pad(self.letter, (1, 0), value=NONE)
        self.before = torch.nn.functional.pad(plan.species, (1, 0))
        self.u = torch.zeros(b, m, 3, device=at)
        self.crowded = torch.zeros(b, dtype=torch.bool, device=at)
        self.free = layout.free.clone()
        self.free[:, 0] &= ~wyckoff_table(str(at)).polar[layout.spacegroup]
        placed = torch.nn.functional.pad(layout.count.cumsum(1), (1, 0))
        tokens = net.skeleton_tokens(
            self.about,
            self.keys,
            self._again(self.last),
            self._again(self.before),
            self._again(layout.n_atoms[:, None] - placed),
        )
        valid = torch.arange(m + 1, device=at) <= self.length[:, None]
        hidden, self.cache = net.read(tokens, self._again(valid))
        self.evaluations = len(hidden)
        end = hidden[torch.arange(len(hidden), device=at), self._again(self.length)]
        raw = net.lattice_raw(end, self._again(plan.species), self._again(layout.count))
        self.x = self._lattice(self._guided(raw, net.lattices.components))
        self.cell = scales.lattice(self.x, layout)

    def step(self, i: int, known: Tensor | None = None) -> None:
        """Place site i.

        Args:
            i: number of the site, from 0, each once and in order.
            known: its coordinates where they are not to be drawn, shape (crystals, 3).
        """
        here = slice(i, i + 1)
        old = self.u[:, i - 1 : i] if i else torch.zeros_like(self.u[:, :1])
        tokens = self.network.placing_tokens(
            self.about,
            self.keys,
            self.group,
            self._again(self.letter[:, here]),
            self._again(self.plan.species[:, here]),
            (
                self._again(self.last[:, here]),
                self._again(self.before[:, here]),
                self._again(old),
            ),
            self._again(self.x),
            self._again(self.plan.layout.code_free),
            i,
        )
        valid = self._again(i < self.length)[:, None]
        hidden, self.cache = self.network.read(tokens, valid, self.cache)
        self.evaluations += len(hidden)
        if known is None:
            self._place(hidden[:, 0], i)
        else:
            self.u[:, i] = known * self.plan.layout.free[:, i]

    def frame(self, i: int) -> Frame:
        """Return the numbers of the crystals as they are with sites up to i placed.

        Elements and cell are those of the whole crystal; coordinates that are not placed
        yet are zero. Only the finished crystals' coordinates may be moved.
        """
        plan, last = self.plan, i + 1 == self.u.shape[1]
        belief = torch.nn.functional.one_hot(plan.species, MASK).to(self.x)
        spread = LOOSE[0] if last else 0.0, LOOSE[1]
        lay, species = plan.layout, plan.species
        return Frame(lay, self.scales, species, belief, self.u.clone(), self.x, spread)

    def steer(self, steer: Steer | None) -> None:
        """Go on with other crystals, or with moved coordinates and cells."""
        if steer is None:
            return
        if steer.keep is not None:
            keep, b = steer.keep, len(self.u)
            both = torch.cat([keep + k * b for k in range(self.again)])
            for name in ("letter", "length", "last", "before", "u", "crowded"):
                setattr(self, name, getattr(self, name)[keep])
            self.plan, self.free = self.plan.rows(keep), self.free[keep]
            self.x, self.cell = self.x[keep], self.cell[keep]
            for name in ("group", "about", "keys", "cache"):
                setattr(self, name, getattr(self, name)[both])
        if steer.u is not None:
            self.u = steer.u.clone()
        if steer.code is not None:
            self.x = steer.code
            self.cell = self.scales.lattice(self.x, self.plan.layout)

    def _lattice(self, raw: Tensor) -> Tensor:
        """Return standardised codes, drawn again where atoms without freedom overlap."""
        layout = self.plan.layout
        held = layout.orbits & ~layout.free.any(-1)
        x = raw.new_zeros(len(raw), 6)
        best = x.new_full((len(raw),), -1.0)
        rows = torch.arange(len(raw), device=x.device)
        for _ in range(self.draws.tries):
            if not len(rows):
                break
            part = layout[rows]
            m = part.count.shape[1]
            drawn = self.network.lattices.sample(
                raw[rows], self.rng, self.draws.lattice
            )
            drawn = self.scales.clamp(drawn) * part.code_free
            cell = self.scales.lattice(drawn, part)
            kinds, u = self.plan.species[rows, :m], self.u[rows, :m]
            room = clearance(part, kinds, u, cell, held[rows, :m])
            better = room > best[rows]
            x[rows] = torch.where(better[:, None], drawn, x[rows])
            best[rows] = torch.maximum(best[rows], room)
            rows = rows[best[rows] < 1]
        self.crowded[rows] = True
        return x

    def _place(self, hidden: Tensor, i: int) -> None:
        """Draw the coordinates of site i, again where it overlaps with those before."""
        net, layout, b = self.network, self.plan.layout, len(self.u)
        rows = self.free[:, i].any(-1).nonzero().squeeze(1)
        number = torch.arange(layout.count.shape[1], device=rows.device)
        best = self.cell.new_full((b,), -1.0)
        chosen = self.u[:, i].clone()
        for _ in range(self.draws.tries):
            if not len(rows):
                break
            point = torch.zeros(len(rows), 3, device=rows.device)
            both = torch.cat([rows + k * b for k in range(self.again)])
            for axis in range(3):
                raw = net.axis_raw(hidden[both], self._again(point), axis)
                raw = self._guided(raw, net.circle.components)
                drawn = net.circle.sample(raw, self.rng, self.draws.coordinates)
                point[:, axis] = drawn * self.free[rows, i, axis]
            self.u[rows, i] = point
            part = layout[rows]
            m = part.count.shape[1]
            room = clearance(
                part,
                self.plan.species[rows, :m],
                self.u[rows, :m],
                self.cell[rows],
                part.orbits & (number <= i)[:m],
                part.orbits & (number == i)[:m],
            )
            better = room > best[rows]
            chosen[rows] = torch.where(better[:, None], point, chosen[rows])
            best[rows] = torch.maximum(best[rows], room)
            rows = rows[room < 1]
        self.crowded[rows] = True
        self.u[:, i] = chosen

    def _again(self, value: Tensor) -> Tensor:
        """Return a batch once more behind itself where the network is asked twice."""
        return value if self.again == 1 else torch.cat([value, value])

    def _guided(self, raw: Tensor, weights: int) -> Tensor:
        """Return one mixture from those without and with the condition."""
        if self.again == 1:
            return raw
        null, wanted = raw.chunk(2)
        mixed = combine(null[..., :weights], wanted[..., :weights], self.draws.scale)
        return torch.cat([mixed, wanted[..., weights:]], dim=-1)
