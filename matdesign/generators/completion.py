"""Instruments of the autoregressive family: what comes next, and how to go on from there."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.wyckoff import LETTERS, NONE, positions, wyckoff_table
from matdesign.errors import DataError
from matdesign.generators.control import Control, State
from matdesign.generators.filling import element_mask, letter_mask
from matdesign.generators.mixtures import choose
from matdesign.generators.request import Choices
from matdesign.generators.sampling import finish
from matdesign.generators.sequence import sequences

if TYPE_CHECKING:
    from matdesign.generators.autoregressive import Autoregressive


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
        sizes: probability of each number of atoms of the whole, shape (sizes,).
    """

    partial: Partial
    stop: float
    joint: Tensor
    sizes: Tensor

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

    def __repr__(self) -> str:
        likely = [f"{k} {v:.2f}" for k, v in self.letters().items() if v >= 0.01]
        kinds = [f"{k} {v:.2f}" for k, v in list(self.elements().items())[:8]]
        return "\n".join(
            [
                f"after {self.partial}",
                f"  complete  {self.stop:.2f}",
                f"  position  {', '.join(likely) or 'none'}",
                f"  element   {', '.join(kinds) or 'none'}",
            ]
        )


def first_sites(
    model: Autoregressive, crystal: Crystals | Encoded, keep: int
) -> Partial:
    """Return the first sites of one crystal, in the order in which the model reads them.

    Args:
        model: gives representation and scales.
        crystal: a batch of one.
        keep: number of sites.

    Raises:
        DataError: not one crystal, or one with fewer sites.
    """
    batch = model.prepare(crystal)
    if len(batch) != 1:
        raise DataError(f"give one crystal; got {len(batch)}. Choose with [[i]].")
    seq = sequences(batch, model.scales, wyckoff_table())
    if not 0 <= keep <= int(seq.length[0]):
        raise DataError(
            f"this crystal has {int(seq.length[0])} sites; got keep={keep}. Keep fewer."
        )
    names = elements.symbols()
    return Partial(
        int(seq.spacegroup[0]),
        "".join(LETTERS[x] for x in seq.letter[0, :keep].tolist()),
        [names[z] for z in seq.species[0, :keep].tolist()],
        seq.u[0, :keep],
    )


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
    log_n, hidden, keys, last, kind, left = _prefix(model, partial)
    net, group = model.network, torch.full_like(left, partial.spacegroup)
    mask = letter_mask(model.fill, group, last, kind, left)
    open_ = mask.any(1)
    score = net.letter_logits(hidden, keys)[:, 0].masked_fill(~mask, -torch.inf)
    share = score.softmax(-1).nan_to_num(0.0) * open_[:, None]  # (sizes, 27)
    letters = torch.arange(NONE, device=left.device).expand(len(left), -1)
    kinds = net.species_logits(hidden.expand(-1, NONE, -1), keys, letters)
    fits = element_mask(model.scales.allowed, letters, last[:, None], kind[:, None])
    each = kinds.masked_fill(~fits, -torch.inf).softmax(-1).nan_to_num(0.0)
    weight = log_n.softmax(0)
    joint = torch.einsum("n,nl,nlz->lz", weight, share, each)
    return NextSite(partial, float(weight[left == 0].sum()), joint.cpu(), weight.cpu())


class FirstSites:
    """Holds the first sites of crystals where they are: a `Controller`.

    Args:
        u: their free coordinates, shape (crystals, sites, 3).
    """

    particles, noise = 1, 0.0
    choices: Choices | None = None

    def __init__(self, u: Tensor) -> None:
        self.u = u

    def begin(self, device: torch.device, crystals: int) -> None:
        """Nothing is to be prepared."""

    def control(self, state: State) -> Control:
        """Return the preview's coordinates with the first sites in place."""
        known = state.preview.u.clone()
        some = state.preview.layout.free[:, : self.u.shape[1]]
        known[:, : self.u.shape[1]] = self.u * some
        return Control(u=known)

    def choose(self, state: State) -> Tensor:
        """Return all crystals."""
        return torch.arange(len(state.preview.u), device=state.preview.u.device)


@torch.no_grad()
def complete(
    model: Autoregressive,
    partial: Partial,
    n: int,
    *,
    n_atoms: int | None = None,
    seed: int | torch.Generator | None = None,
    scale: float = 1.0,
) -> Crystals:
    """Return crystals that begin with the given sites; the rest and the lattice are drawn.

    Args:
        model: any model of the family.
        partial: sites that every crystal has.
        n: number of crystals.
        n_atoms: atoms in the primitive cell; None draws it given the sites.
        seed: of the draws.
        scale: of classifier-free guidance.

    Raises:
        DataError: sites that the model cannot start from.
        InfeasibleTarget: no crystal of so many atoms has these sites.
    """
    rng = generator(seed, model.device)
    log_n, *_ = _prefix(model, partial)
    request = model.request(n, n_atoms, {"spacegroup": partial.spacegroup})
    if n_atoms is None:
        sizes = choose(log_n.expand(n, -1), rng)
    else:
        sizes = torch.full((n,), n_atoms, device=model.device)
        if not 0 < n_atoms < len(log_n) or bool(log_n[n_atoms].isneginf()):
            raise DataError(
                f"{partial} cannot become a crystal of {n_atoms} atoms: sizes that can "
                f"be are {log_n.isfinite().nonzero().squeeze(1).tolist()}."
            )
    group = torch.full_like(sizes, partial.spacegroup)
    forced = partial._index.to(sizes.device), partial._kinds.to(sizes.device)
    known = torch.zeros(len(forced[0]), 3) if partial.u is None else partial.u
    was = model.training
    model.eval()
    try:
        sampler = model.skeletons(rng, scale)
        letter, species = sampler.sites(request, sizes, group, forced)
        plan = model.plan_of(group, letter, species, request.condition)
        plan = dataclasses.replace(plan, scale=scale).to(model.device)
        first = known.to(model.device).expand(n, -1, -1)
        return finish(model.states(plan, 1, rng), FirstSites(first), plan)
    finally:
        model.train(was)


def _prefix(
    model: Autoregressive, partial: Partial
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the log weight of every size, and where the sequence of each stands."""
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
    k = letter.shape[1]
    last = torch.nn.functional.pad(letter, (1, 0), value=NONE)
    before = torch.nn.functional.pad(kinds, (1, 0))
    count = wyckoff_table(str(at)).count[group[:, None], letter]
    placed = torch.nn.functional.pad(count.cumsum(1), (1, 0))
    left = sizes[:, None] - placed  # (sizes, k + 1)
    was = model.training
    model.eval()
    ask = net.ask(model.nothing(len(sizes)))
    about, keys = net.about(ask, group, sizes), net.keys(group)
    tokens = net.skeleton_tokens(about, keys, last, before, left.clamp(min=0))
    hidden, _ = net.read(tokens, torch.ones_like(last, dtype=torch.bool))
    log_n = model.log_prior[partial.spacegroup].clone()
    for i in range(k):
        mask = letter_mask(
            model.fill, group, last[:, i], before[:, i], left[:, i].clamp(min=0)
        )
        here, z = slice(i, i + 1), kinds[:, i]
        score = net.letter_logits(hidden[:, here], keys)[:, 0]
        log_p = score.masked_fill(~mask, -torch.inf).log_softmax(-1)
        log_n = log_n + log_p.gather(1, letter[:, here]).squeeze(1).nan_to_num(
            -torch.inf, neginf=-torch.inf
        )
        fits = element_mask(
            model.scales.allowed, letter[:, i], last[:, i], before[:, i]
        )
        score = net.species_logits(hidden[:, here], keys, letter[:, here])[:, 0]
        log_p = score.masked_fill(~fits, -torch.inf).log_softmax(-1)
        log_n = log_n + log_p.gather(1, z[:, None]).squeeze(1)
    model.train(was)
    log_n = log_n.masked_fill(left[:, -1] < 0, -torch.inf)
    if bool(log_n.isneginf().all()):
        raise DataError(f"no crystal that this model can make begins with {partial}.")
    return (
        log_n,
        hidden[:, -1:],
        keys,
        last[:, -1],
        before[:, -1],
        left[:, -1].clamp(min=0),
    )
