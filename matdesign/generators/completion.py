"""What comes next in a crystal of `Autoregressive`, and how to go on from there."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.symmetry.wyckoff import LETTERS, NONE, positions, wyckoff_table
from matdesign.errors import DataError
from matdesign.generators.autoregressive import Autoregressive
from matdesign.generators.control import Control, State
from matdesign.generators.filling import element_mask, letter_mask
from matdesign.generators.sampling import choose, eval_mode
from matdesign.generators.sequence import log_sites
from matdesign.generators.site_network import before


@dataclass(frozen=True, eq=False)
class Partial:
    """The first sites of a crystal, in canonical order: by letter, then element.

    Args:
        spacegroup: 1 to 230.
        letters: Wyckoff letters such as "ab", one for each site.
        species: element of each site, by symbol.
        u: free coordinates of each site, shape (sites, 3); None = all zero.

    Raises:
        DataError: sites that this space group does not have, or out of order.

    Example:
        >>> salt = Partial(225, "a", ["Na"])
        >>> salt.n_atoms
        1
    """

    spacegroup: int
    letters: str = ""
    species: Sequence[str] = ()
    u: Tensor | None = None

    def __post_init__(self) -> None:
        names = [one.letter for one in positions(self.spacegroup)]
        wrong = [x for x in self.letters if x not in names]
        if wrong or len(self.letters) != len(self.species):
            raise DataError(
                f"a site is a letter of space group {self.spacegroup} "
                f"({names[0]} to {names[-1]}) and an element; got letters "
                f"{self.letters!r} and elements {list(self.species)}."
            )
        sites = list(zip(self._index.tolist(), self._kinds.tolist()))
        freedom = wyckoff_table().freedom[self.spacegroup]
        for old, new in itertools.pairwise(sites):
            if new < old or (new[0] == old[0] and not freedom[new[0]]):
                raise DataError(
                    "sites come in the order of letter and atomic number, and a letter "
                    f"without free coordinates once; got {self.letters!r} with "
                    f"{list(self.species)}. Sort them."
                )

    @property
    def n_atoms(self) -> int:
        """Atoms of these sites in the primitive cell."""
        return int(wyckoff_table().count[self.spacegroup, self._index].sum())

    @property
    def _index(self) -> Tensor:
        return torch.tensor([LETTERS.index(x) for x in self.letters], dtype=torch.long)

    @property
    def _kinds(self) -> Tensor:
        found = [elements.atomic_number(name) for name in self.species]
        return torch.tensor(found, dtype=torch.long)

    def __repr__(self) -> str:
        sites = ", ".join(f"{z} on {x}" for x, z in zip(self.letters, self.species))
        return f"Partial(space group {self.spacegroup}: {sites or 'no site yet'})"


@dataclass(frozen=True, eq=False)
class NextSite:
    """What a model expects after the sites that are there.

    Args:
        partial: those sites.
        stop: probability that the crystal is complete.
        joint: probability of each letter and element, shape (27, 104); with `stop` it
            sums to one.
    """

    partial: Partial
    stop: float
    joint: Tensor

    def letters(self) -> dict[str, float]:
        """Return position -> probability, such as "1b" -> 0.8, in order of letters."""
        names = positions(self.partial.spacegroup)
        share = self.joint.sum(1).tolist()
        return {f"{p.multiplicity}{p.letter}": share[p.index] for p in names}

    def elements(self, letter: str | None = None) -> dict[str, float]:
        """Return element -> probability, the likeliest first.

        Args:
            letter: on this position only, given that it comes next; None = on any.
        """
        share = self.joint.sum(0)
        if letter is not None:
            row = self.joint[LETTERS.index(letter)]
            share = row / row.sum().clamp(min=1e-12)
        names = elements.symbols()
        order = torch.argsort(share, descending=True).tolist()
        return {names[z]: float(share[z]) for z in order if z and share[z] > 0}


@torch.no_grad()
def next_site(model: Autoregressive, partial: Partial) -> NextSite:
    """Return the exact distribution of what comes after some sites.

    The number of atoms of the whole is not known yet, so the answer is the mean over it,
    weighed by Bayes' rule with what is already there.

    Equation:
        p(n | sites) ~ p(n, g) prod_i p(W_i, A_i | sites before, n, g)

    Args:
        model: any model of the family.
        partial: sites so far.

    Raises:
        DataError: more atoms than the model places, or elements that it does not know.
    """
    net = model.network
    with eval_mode(model):
        log_n, hidden, left = _prefix(model, partial)
        group = torch.full_like(left, partial.spacegroup)
        last, kind = torch.full_like(left, NONE), torch.zeros_like(left)
        if partial.letters:
            last.fill_(partial._index[-1]), kind.fill_(partial._kinds[-1])
        mask, keys = letter_mask(model.fill, group, last, kind, left), net.keys(group)
        score = net.letter_logits(hidden, keys)[:, 0].masked_fill(~mask, -torch.inf)
        share = score.softmax(-1).nan_to_num(0.0)  # (sizes, 27), 0 where none fits
        letters = torch.arange(NONE, device=left.device).expand(len(left), -1)
        kinds = net.species_logits(hidden.expand(-1, NONE, -1), keys, letters)
        fits = element_mask(model.scales.allowed, letters, last[:, None], kind[:, None])
        each = kinds.masked_fill(~fits, -torch.inf).softmax(-1).nan_to_num(0.0)
    weight = log_n.softmax(0)
    joint = torch.einsum("n,nl,nlz->lz", weight, share, each)
    return NextSite(partial, float(weight[left == 0].sum()), joint.cpu())


@torch.no_grad()
def complete(
    model: Autoregressive,
    partial: Partial,
    n: int,
    *,
    n_atoms: int | None = None,
    seed: int | torch.Generator | None = None,
) -> Crystals:
    """Return crystals that begin with the given sites; the rest and the lattice are drawn.

    Args:
        model: any model of the family.
        partial: sites that every crystal has.
        n: number of crystals.
        n_atoms: atoms in the primitive cell; None draws it given the sites.
        seed: of the draws.

    Raises:
        DataError: sites that the model cannot start from.
        InfeasibleTarget: no crystal of so many atoms has these sites.
    """
    rng = generator(seed, model.device)
    request = model.request(n, n_atoms, {"spacegroup": partial.spacegroup})
    known = torch.zeros(len(partial.letters), 3) if partial.u is None else partial.u
    held = slice(0, len(known))
    with eval_mode(model):
        log_n, *_ = _prefix(model, partial)
        if n_atoms is None:
            sizes = choose(log_n.expand(n, -1), rng)
        else:
            sizes = torch.full((n,), n_atoms, device=model.device)
            if not 0 < n_atoms < len(log_n) or bool(log_n[n_atoms].isneginf()):
                possible = log_n.isfinite().nonzero().squeeze(1).tolist()
                raise DataError(
                    f"{partial} cannot become a crystal of {n_atoms} atoms: sizes that "
                    f"can be are {possible}."
                )
        group = torch.full_like(sizes, partial.spacegroup)
        first = list(zip(partial._index.to(group), partial._kinds.to(group)))
        about = request, sizes, group, rng, 1.0, first
        letter, species, _ = model.sites(*about)
        plan = model.plan_of(group, letter, species, request.condition)
        plan = plan.to(model.device)
        states = model.states(plan, 1, rng)
        state = next(states)
        try:
            while True:
                u = state.preview.u.clone()
                u[:, held] = known.to(u) * plan.layout.free[:, held]
                state = states.send(Control(u=u))
        except StopIteration as end:
            return State(0.0, state.step, end.value).crystals


def _prefix(model: Autoregressive, partial: Partial) -> tuple[Tensor, Tensor, Tensor]:
    """Return of every size its log weight, the vector after the sites, and atoms left."""
    if bool((~model.known_elements[partial._kinds]).any()):
        raise DataError(f"{partial} has an element that this model was not trained on.")
    if partial.n_atoms >= model.fill.shape[2]:
        raise DataError(
            f"{partial} has {partial.n_atoms} atoms; this model places at most "
            f"{model.fill.shape[2] - 1}."
        )
    net, at = model.network, model.device
    sizes = torch.arange(model.fill.shape[2], device=at)
    group = torch.full_like(sizes, partial.spacegroup)
    letter = partial._index.to(at).expand(len(sizes), -1)
    kinds = partial._kinds.to(at).expand(len(sizes), -1)
    last, kind = before(letter, kinds)
    count = wyckoff_table(str(at)).count[group[:, None], last]
    left = sizes[:, None] - count.cumsum(1)  # (sizes, sites + 1)
    about, keys = (
        net.about(net.asked(model.nothing(len(sizes))), group, sizes),
        net.keys(group),
    )
    tokens = net.site_tokens(about, keys, last, kind, left.clamp(min=0))
    hidden, _ = net.transformer(tokens, torch.ones_like(last, dtype=torch.bool))
    sites = letter, kinds, left[:, :-1]
    log_letter, log_species = log_sites(
        net, hidden[:, :-1], keys, group, sites, model.fill, model.scales.allowed
    )
    log_n = model.log_prior[partial.spacegroup] + (log_letter + log_species).sum(1)
    log_n = log_n.masked_fill((left[:, -1] < 0) | (log_n < -1e8), -torch.inf)
    if bool(log_n.isneginf().all()):
        raise DataError(f"no crystal that this model can make begins with {partial}.")
    return log_n, hidden[:, -1:], left[:, -1].clamp(min=0)
