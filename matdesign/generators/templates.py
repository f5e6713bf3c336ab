"""`Templates`: which arrangements the training set has, and which one to fill next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.orbits import symmetric_layouts
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.generators import substitution
from matdesign.generators.planning import Plan, plan_cells
from matdesign.generators.request import Request
from matdesign.generators.template_index import ABSENT, Index, build, pick


class Templates(nn.Module):
    """The space group, Wyckoff letters and species of every training crystal.

    A template is a space group and a Wyckoff letter for each orbit. Generators that do
    not make templates draw one here and fill it. For a composition that is to be built
    (structure prediction), a template is drawn with its species: crystals with the same
    numbers of atoms of each element vote for their own template, with their elements
    replaced by the asked ones, and those with similar elements count most.

    Equation:
        p(template, places | composition) ~
            (sum over rows r and ways b that give it of exp(-d(r, b) / tau))^(1 / T),
        d(r, b) = mean over elements e of r of |code(e) - code(b(e))|.

    Args:
        rows: number of training crystals.
        orbits: most orbits of one of them.
        properties: number of properties whose values are kept for each row.

    Source:
        Substitution by similar elements: Hautier et al., Inorg. Chem. 50, 656 (2011);
        training templates for a diffusion model: DiffCSP++, Jiao et al., arXiv
        2402.03992. Changed: the similarity is a distance of chemistry codes, all rows
        vote, and the template is drawn, not the best taken.
    """

    spacegroup: Tensor
    letters: Tensor
    species: Tensor
    count: Tensor
    labels: Tensor

    def __init__(self, rows: int, orbits: int, properties: int = 0) -> None:
        super().__init__()
        self.register_buffer("spacegroup", torch.ones(rows, dtype=torch.uint8))
        blank = torch.zeros(rows, orbits, dtype=torch.uint8)
        self.register_buffer("letters", blank + ABSENT)
        self.register_buffer("species", blank)
        self.register_buffer("count", blank.clone())
        self.register_buffer("labels", torch.full((rows, properties), torch.nan))
        self.fallbacks = 0
        """Crystals so far that got a P1 cell because no template can hold them."""
        self._index: Index | None = None
        after_loading: Any = self.register_load_state_dict_post_hook
        after_loading(_forget)

    @classmethod
    def of(
        cls, encoded: Encoded, properties: Mapping[str, Sequence[float]] | None = None
    ) -> Templates:
        """Return the templates of a training set.

        Args:
            encoded: training crystals in the representation "symmetric".
            properties: name -> [mean, standard deviation], those of the model; rows in
                or near an asked range of one of these are preferred.

        Raises:
            DataError: the training set is empty.
        """
        if not len(encoded):
            raise DataError("the training set is empty; give at least one crystal.")
        layout, scales = encoded.layout, dict(properties or {})
        there = layout.orbits
        made = cls(len(encoded), there.shape[1], len(scales))
        made.spacegroup.copy_(layout.spacegroup)
        made.letters.copy_(layout.letter.masked_fill(~there, ABSENT))
        made.species.copy_(encoded.species * there)
        made.count.copy_(layout.count)
        for i, (name, (mean, std)) in enumerate(scales.items()):
            if name in encoded.labels:
                made.labels[:, i] = (encoded.labels[name].float() - mean) / std
        return made

    def __len__(self) -> int:
        return len(self.spacegroup)

    @property
    def shape(self) -> list[int]:
        """Rows, orbits and properties: `Templates(*shape)` holds as much."""
        return [len(self), self.letters.shape[1], self.labels.shape[1]]

    @property
    def index(self) -> Index:
        """The look-up tables, built at the first use."""
        if self._index is None:
            group, letters, species, count = (
                part.cpu().long()
                for part in (self.spacegroup, self.letters, self.species, self.count)
            )
            labels = self.labels.cpu().float()
            self._index = build(group, letters, species, count, labels)
        return self._index

    def choose(
        self,
        request: Request,
        rng: torch.Generator,
        *,
        tau: float = 0.2,
        temperature: float = 0.25,
        fallback: bool = True,
        shared: bool = False,
    ) -> Plan:
        """Return a plan for each crystal of a request.

        Without a composition, a training row is drawn and its template taken. Property
        ranges make rows within them, or near, more likely.

        Args:
            request: what is asked for.
            rng: source of randomness.
            tau: width of the similarity of elements, for a given composition.
            temperature: below 1, the template with most votes is drawn more often; 1
                draws by the votes.
            fallback: a composition that no template can hold gets a P1 cell, counted in
                `fallbacks`; False raises instead.
            shared: without a composition, take from the drawn row also which orbits
                share an element, as roles.

        Returns:
            The plan, on the CPU.

        Raises:
            InfeasibleTarget: no template fits.
        """
        n, index = len(request), self.index
        template = torch.zeros(n, dtype=torch.long)
        species = torch.zeros(n, index.slot.shape[1], dtype=torch.long)
        role = torch.full_like(species, -1)
        cells: dict[int, int] = {}
        for one, members in request.alike():
            drawn: substitution.Drawn | None
            if request.formula[one].any():
                drawn = substitution.vote(
                    index,
                    request,
                    one,
                    len(members),
                    rng,
                    tau=tau,
                    temperature=temperature,
                )
                target = species
            elif request.pattern[one].any():
                drawn = substitution.roles(index, request, one, len(members), rng)
                target = role
            else:
                rows = index.serving(request, one)
                weight = index.nearness(request, one, rows)
                picked = rows[pick(weight, len(members), rng)]
                template[members] = index.template[picked]
                if shared:
                    role[members] = index.slot[picked]
                continue
            if drawn is None:
                size = self._without_template(request, one, fallback, rng)
                cells |= dict.fromkeys(members.tolist(), size)
            else:
                template[members], target[members] = drawn
        return self._assemble(request, template, species, role, cells, rng)

    def _without_template(
        self, request: Request, one: int, fallback: bool, rng: torch.Generator
    ) -> int:
        """Return the size of a P1 cell for a composition that no template can hold."""
        if not fallback or (request.groups is not None and not request.groups[1]):
            raise InfeasibleTarget(
                f"no template of the training set can hold {request.words(one)}. Ask "
                "for another number of atoms or space group, or use the representation "
                '"cell" or the autoregressive model.'
            )
        unit, sizes = int(request.unit[one]), self.index.n_atoms
        if int(request.n_atoms[one]):
            return int(request.n_atoms[one])
        fitting = sizes[sizes % unit == 0]
        if not len(fitting):
            return unit
        return int(fitting[pick(torch.ones(len(fitting)), 1, rng)])

    def _assemble(
        self,
        request: Request,
        template: Tensor,
        species: Tensor,
        role: Tensor,
        cells: dict[int, int],
        rng: torch.Generator,
    ) -> Plan:
        """Return the plan from templates, save for crystals that get a P1 cell."""
        n, p = len(request), request.condition.low.shape[1]
        if not n:
            return plan_cells(None, torch.zeros(0, dtype=torch.long), p, rng)
        used, which = template.unique(return_inverse=True)
        first = self.index.first[used]
        layout = symmetric_layouts(
            self.index.spacegroup[first].tolist(),
            [
                [k for k in row if k != ABSENT]
                for row in self.index.letters[first].tolist()
            ],
        )[which]
        width = layout.count.shape[1]
        plan = Plan(layout, species[:, :width], role[:, :width], request.condition)
        if not cells:
            return plan
        self.fallbacks += len(cells)
        at = torch.tensor(sorted(cells))
        sizes = torch.tensor([cells[i] for i in at.tolist()])
        alone = plan_cells(request[at], sizes, p, rng)
        rest = torch.tensor([i for i in range(n) if i not in cells], dtype=torch.long)
        both = Plan.cat([plan[rest], alone])
        return both[torch.cat([rest, at]).argsort()]


def _forget(module: Templates, _: object) -> None:
    """Drop the look-up tables of what the buffers held before loading."""
    module._index = None
