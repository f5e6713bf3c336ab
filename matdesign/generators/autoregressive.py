"""`Autoregressive`: a crystal as a sequence of sites, each drawn given those before it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import clearance
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.wyckoff import wyckoff_table
from matdesign.errors import DataError
from matdesign.generators.conditions import Condition, combine
from matdesign.generators.contract import Loss
from matdesign.generators.control import LOOSE, Preview
from matdesign.generators.filling import fills
from matdesign.generators.layers import at
from matdesign.generators.planning import Plan, plan_cells, resample
from matdesign.generators.request import Request
from matdesign.generators.sampling import eval_mode
from matdesign.generators.sequence import (
    WyckoffSampler,
    log_sites,
    sequences,
)
from matdesign.generators.site_mask import layout_of
from matdesign.generators.site_network import SiteNetwork, SiteSample, before

IMPOSSIBLE = 1_000.0
"""Nats that `loss` counts for a part of a crystal that the model cannot make."""


class Autoregressive(WyckoffSampler):
    """Letters, elements, lattice and coordinates of a crystal, one after the other.

    Every crystal is one sequence of sites in a canonical order, and a network says how
    likely each next field is. The masks are exact: letters of the space
    group only, in order, and never a choice after which the cell cannot be filled; so
    there is no stop token, for the sequence ends when all atoms are placed. In the
    representation "cell" the space group is P1 and nothing else changes; there a
    translation of all atoms changes nothing either. In "symmetric" it may: most space
    groups have several origins that are as good.

    Equation:
        p(C) = p(n) p(g | n) prod_i p(W_i | ..) p(A_i | W_i, ..) p(k | W, A)
               prod_i p(x_i | W, A, k, ..) p(y_i | x_i, ..) p(z_i | x_i, y_i, ..)

    Args:
        width: size of the network's tokens.
        layers: attention layers.
        heads: attention heads.
        dropout: share of each update that is dropped in training.
        temperature: of letters and elements; below 1 the likelier ones more often.
        **data: what a training set gives; see `Family`.

    Source:
        CrystalFormer, Cao et al., arXiv 2403.15734. Changed: the lattice comes before the
        coordinates and is one joint mixture; two tokens for a site instead of five; a
        memory of keys and values; masks that know the number of atoms; wrapped normals.
    """

    likelihood = "exact"
    usual = "symmetric"
    bucketing = "orbits"
    default_batch_size = (128, 512)
    symmetries: ClassVar[frozenset[str]] = frozenset(
        {"permutation", "integer_shift", "rotation"}
    )
    renamed: ClassVar[dict[str, Any]] = {
        "circle": 48, "lattices": 8, "rare": 0.01, "tries": 8,
        "coordinate_temperature": 1.0, "templates": "", "lattice_temperature": "",
    }  # fmt: skip
    """Keywords of older files: the value that is left, "" for what had no effect."""

    tries = 8
    """Draws of lattice or coordinates while atoms overlap; 1 takes the first."""

    coordinate_temperature = 1.0
    """Below 1 likelier coordinates more often."""

    def __init__(
        self,
        *,
        width: int = 192,
        layers: int = 4,
        heads: int = 8,
        dropout: float = 0.1,
        temperature: float = 1.0,
        **data: Any,
    ) -> None:
        super().__init__(locals(), **data)
        largest = len(self.size_histogram) - 1
        self.default_steps = largest  # at most: one step for each site
        self.temperature = temperature
        self.network = SiteNetwork(
            largest=largest,
            properties=self.properties,
            width=width,
            layers=layers,
            heads=heads,
            dropout=dropout,
        )
        self.register_buffer("fill", fills(largest), persistent=False)
        self.register_buffer("seen", torch.zeros(231, largest + 1))

    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed."""
        self.network.reset(seed)

    # ---- likelihood ---------------------------------------------------------------------

    def loss(
        self, crystals: Crystals | Encoded, *, seed: int | torch.Generator | None = None
    ) -> Loss:
        """Return minus the log probability of a batch, in nats per crystal.

        Terms: `size`, `spacegroup`, `letter`, `species`, `lattice` (over standardised
        free entries of the code), `coordinates` (over free coordinates in [0, 1)). In
        training a random part of what is true of each crystal is given as a condition;
        in evaluation mode `each` is minus `log_prob`, and can be differentiated.
        """
        batch = self.prepare(crystals)
        if self.training:
            rng = generator(seed, self.device)
            condition = self.network.asked.training_condition(batch, rng)
        else:
            condition = self.nothing(len(batch))
        terms = self.log_terms(batch, condition)
        terms = {k: v.clamp(min=-IMPOSSIBLE) for k, v in terms.items()}
        each = -torch.stack(list(terms.values())).sum(0)
        return Loss(
            each.mean(), {k: -v.detach().mean() for k, v in terms.items()}, each
        )

    @torch.no_grad()
    def log_prob(self, crystals: Crystals | Encoded) -> Tensor:
        """Return the exact log probability of crystals, in nats, shape (crystals,).

        Measure: counting on size, space group, letters and elements; length on every
        free coordinate in [0, 1) and on every free entry of the standardised lattice
        code. Minus infinity for elements that training never showed. It is that of the
        canonical sequence: over all sequences it sums to one, so that over crystals it
        falls short by what the model gives to sites out of order.
        """
        batch = self.prepare(crystals)
        with eval_mode(self):
            terms = self.log_terms(batch, self.nothing(len(batch)))
        total = torch.stack(list(terms.values())).sum(0)
        return total.masked_fill(total < -1e8, -torch.inf)

    def log_terms(self, batch: Encoded, condition: Condition) -> dict[str, Tensor]:
        """Return the log probability of each part of each crystal, in nats.

        All sites of all crystals are read at once; the mask of the transformer keeps every
        token from seeing what it shall predict.

        Args:
            batch: in this model's representation.
            condition: what the network is conditioned on.

        Returns:
            `size`, `spacegroup`, `letter`, `species`, `lattice`, `coordinates`, each of
            shape (crystals,).

        Raises:
            DataError: a crystal with more atoms than this model can place.
        """
        largest = len(self.size_histogram) - 1
        if len(batch) and int(batch.n_atoms.max()) > largest:
            raise DataError(
                f"this model places at most {largest} atoms; got a crystal of "
                f"{int(batch.n_atoms.max())}. Leave it out, or train on larger ones."
            )
        self.evaluations += len(batch)
        net, seq = self.network, sequences(batch, self.scales)
        b, m = seq.letter.shape
        table = wyckoff_table(str(seq.letter.device))
        vector, prior = net.asked(condition), self.log_prior
        size = (prior.logsumexp(0) + net.size_logits(vector)).log_softmax(-1)
        group = prior.T[seq.n_atoms] + net.group_logits(vector, seq.n_atoms)
        group = group.log_softmax(-1)

        # the tokens of both passes; each knows the site before it
        about = net.about(vector, seq.spacegroup, seq.n_atoms)
        keys, left = net.keys(seq.spacegroup), seq.left()
        last, kind = before(seq.letter, seq.species)  # (b, m + 1)
        u = torch.nn.functional.pad(seq.u, (0, 0, 1, 0))
        first = net.site_tokens(about, keys, last, kind, left)
        second = net.placing_tokens(
            about,
            keys,
            seq.spacegroup,
            seq.letter,
            seq.species,
            (last[:, :m], kind[:, :m], u[:, :m]),
            seq.x,
            seq.code_free,
        )
        steps = torch.arange(m + 1, device=last.device)
        valid = torch.cat([steps <= seq.length[:, None], seq.exists], dim=1)
        hidden, _ = net.transformer(torch.cat([first, second], dim=1), valid)
        first, second = hidden[:, : m + 1], hidden[:, m + 1 :]

        letter, species = log_sites(
            net,
            first[:, :m],
            keys,
            seq.spacegroup,
            (seq.letter, seq.species, left[:, :m]),
            self.fill,
            self.scales.allowed,
        )
        # the token after the last site
        end = first[torch.arange(b, device=last.device), seq.length]
        count = table.count[seq.spacegroup[:, None], seq.letter]
        raw = net.lattice_raw(end, seq.species, count)
        return {
            "size": at(size, seq.n_atoms),
            "spacegroup": at(group, seq.spacegroup),
            "letter": (letter * seq.exists).sum(1),
            "species": (species * seq.exists).sum(1),
            "lattice": net.lattices.log_prob(raw, seq.x, seq.code_free),
            "coordinates": net.log_coordinates(second, seq.u, seq.free),
        }

    # ---- sampling -----------------------------------------------------------------------

    @torch.no_grad()
    def plan(
        self,
        request: Request,
        rng: torch.Generator,
        scale: float = 1.0,
        steps: int | None = None,
    ) -> Plan:
        """Return size, space group, letters and elements of new crystals.

        This is the first pass of the network: what is left for the sampling loop is the
        lattice and the coordinates.
        """
        if not len(request):
            return plan_cells(request, request.n_atoms)
        parts = []
        with eval_mode(self):
            for rows in torch.arange(len(request)).split(512):
                some = request[rows]
                drawn = self.draw_sequences(some, rng, scale)
                parts.append(self.plan_of(*drawn, some.condition))
        return Plan.cat(parts)

    def plan_of(
        self, group: Tensor, letter: Tensor, species: Tensor, condition: Condition
    ) -> Plan:
        """Return a plan, on the CPU, for drawn space groups, letters and elements."""
        species = species.cpu()
        layout = layout_of(group, letter, cells=self.representation == "cell")
        species = species[:, : layout.count.shape[1]]
        return Plan(layout, species, torch.full_like(species, -1), condition)

    def times(self, steps: int, plan: Plan) -> list[float]:
        """Return the times of all states: one step for each site."""
        return super().times(plan.species.shape[1], plan)

    def start(self, plan: Plan, rng: torch.Generator) -> SiteSample:
        """Return crystals with a lattice, drawn given letters and elements; no site placed.

        Lattices are drawn again while atoms without free coordinates overlap.
        """
        net, lay = self.network, plan.layout
        conditions = [plan.condition] if plan.scale else [self.nothing(len(plan))]
        if plan.scale not in (0.0, 1.0) and bool(plan.condition.anything.any()):
            conditions = [self.nothing(len(plan)), plan.condition]
        readings, each = zip(*(net.read_sites(plan, one) for one in conditions))
        self.evaluations += len(plan) * len(conditions)
        raw = _combined(each, net.lattices.components, plan.scale)
        u = torch.zeros_like(lay.free, dtype=raw.dtype)
        code, fixed = raw.new_zeros(len(plan), 6), lay.orbits & ~lay.free.any(-1)
        best = raw.new_full((len(plan),), -1.0)

        def draw(rows: Tensor, attempt: int) -> None:
            drawn = net.lattices.sample(raw[rows], rng)
            drawn = self.scales.clamp(drawn) * lay.code_free[rows]
            room = self._room(plan, rows, u[rows], drawn, fixed)
            code[rows] = torch.where((room > best[rows])[:, None], drawn, code[rows])
            best[rows] = torch.maximum(best[rows], room)

        resample(draw, lambda rows: best[rows] >= 1, len(plan), self.tries)
        moves = lay.free.clone()
        moves[:, 0] &= ~wyckoff_table(str(self.device)).polar[lay.spacegroup]
        return SiteSample(plan, plan.species, u, code, moves, readings)

    def predict(self, x: SiteSample, t: float) -> Preview:
        """Return the crystals as they are: elements and cell of the whole, some sites."""
        sites = x.species.shape[1]
        placed = torch.arange(sites, device=x.u.device) < round((1 - t) * sites)
        p = torch.nn.functional.one_hot(x.species, MASK).to(x.u)
        std = LOOSE if t == 0 else (0.0, LOOSE[1])
        about = x.layout, self.scales, x.species, p, x.u, x.code, std
        return Preview(*about, placed=None if t == 0 else placed.expand_as(x.species))

    def step(
        self, x: SiteSample, preview: Preview, t: float, s: float, rng: torch.Generator
    ) -> SiteSample:
        """Return x with one more site placed, drawn again while atoms overlap.

        Of draws that all overlap, the one with the most room stands.
        """
        net, lay, sites = self.network, x.layout, x.species.shape[1]
        i = round((1 - t) * sites)
        x = dataclasses.replace(x, u=preview.u, code=preview.code)
        hidden, readings = zip(
            *(net.read_next(x.plan, x.u, x.code, i, one) for one in x.readings)
        )
        self.evaluations += len(x) * len(readings)
        number = torch.arange(sites, device=x.u.device)
        there, new = lay.orbits & (number <= i), lay.orbits & (number == i)

        some, u = x.free[:, i].any(-1).nonzero().squeeze(1), x.u.clone()
        best = u.new_full((len(u),), -1.0)

        def draw(numbers: Tensor, attempt: int) -> None:
            rows = some[numbers]
            point = x.u.new_zeros(len(rows), 3)
            for axis in range(3):
                each = [net.axis_raw(one[rows], point, axis) for one in hidden]
                raw = _combined(each, net.circle.components, x.plan.scale)
                drawn = net.circle.sample(raw, rng, self.coordinate_temperature)
                point[:, axis] = drawn * x.free[rows, i, axis]
            tried = u[rows]
            tried[:, i] = point
            room = self._room(x.plan, rows, tried, x.code[rows], there, new)
            u[rows, i] = torch.where((room > best[rows])[:, None], point, u[rows, i])
            best[rows] = torch.maximum(best[rows], room)

        resample(draw, lambda numbers: best[some[numbers]] >= 1, len(some), self.tries)
        return dataclasses.replace(x, u=u, readings=readings)

    def _room(
        self,
        plan: Plan,
        rows: Tensor,
        u: Tensor,
        code: Tensor,
        orbits: Tensor,
        new: Tensor | None = None,
    ) -> Tensor:
        """Return the `clearance` of some crystals, atoms of some orbits counted, (rows,).

        With `new`, an atom of these orbits at least is in each pair that counts.
        """
        lay = plan.layout[rows]
        m = lay.count.shape[1]
        return clearance(
            lay.expand(u[:, :m]),
            lay.expand_species(plan.species[rows, :m]),
            self.scales.lattice(code, lay),
            lay.mask & orbits[rows, :m].gather(1, lay.orbit),
            None if new is None else new[rows, :m].gather(1, lay.orbit),
        )


def _combined(raw: Sequence[Tensor], weights: int, scale: float) -> Tensor:
    """Return the only raw mixture, or that with the condition, its weights guided."""
    if len(raw) == 1:
        return raw[0]
    null, wanted = raw
    mixed = combine(null[..., :weights], wanted[..., :weights], scale)
    return torch.cat([mixed, wanted[..., weights:]], dim=-1)
