"""The constraint that the more electronegative elements are the anions."""

from collections.abc import Iterable
from functools import cache, lru_cache

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.constraints.charge import STATES, oxidation_states
from matdesign.constraints.neutrality import Neutrality
from matdesign.constraints.unfinished import amounts_of, feasibility_mask, possible
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError


class ElectronegativityOrder(Constraint):
    """Some neutral choice of charges has every anion above every cation.

    Above means: more electronegative on Pauling's scale. All atoms of an element carry
    one oxidation state, and one without charge stands anywhere in the order. An element
    without an electronegativity (He, Ne, Ar, ...) or without a state is never part of
    such a compound. A crystal of a single element meets it.

    Equation:
        for a cut c the elements below it may only have states >= 0, the others <= 0;
        violation = min over cuts of min |S|, the smallest total charge, in elementary
        charges, with S as in `ChargeNeutral`. For undecided crystals: min over cuts of
        max(0, sum_i E[q_min], -sum_i E[q_max]), a differentiable lower bound.

    Args:
        states: "common" or "smact14"; see `ChargeNeutral`.

    Raises:
        DataError: there is no list of states of that name.

    Source:
        Pauling 1932, J. Am. Chem. Soc. 54, 3570 (the scale); the test is that of smact
        (Davies et al., J. Open Source Softw. 4, 1361, 2019). Changed: one pass per cut in
        place of a product over choices.

    Example:
        >>> ElectronegativityOrder()
        neutral with the more electronegative elements as anions
    """

    unit = "e"

    def __init__(self, states: str = "common") -> None:
        if states not in STATES:
            raise DataError(
                f"no list of oxidation states {states!r}; choose {' or '.join(STATES)}."
            )
        self.states = states

    def sentence(self) -> str:
        """Return "neutral with the more electronegative elements as anions"."""
        return "neutral with the more electronegative elements as anions" + (
            f" ({self.states} states)" if self.states != "common" else ""
        )

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the smallest ordered total charge (soft: a lower bound), (crystals,)."""
        if isinstance(crystals, SoftCrystals):
            low, high = (t.to(crystals.species) for t in _ends(self.states))
            amounts = crystals.species.sum(dim=1)  # (crystals, 104)
            beyond = torch.maximum(amounts @ low.T, -amounts @ high.T)
            return beyond.amin(dim=1).clamp(min=0)
        left = [self.residual(amounts_of(row)) for row in crystals.species.tolist()]
        return torch.tensor(left, device=crystals.device, dtype=crystals.frac.dtype)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether such a choice exists, shape (crystals,)."""
        return self.violation(crystals) == 0

    def allowed(
        self,
        species: Tensor,
        counts: Tensor,
        roles: Tensor | None = None,
        within: Tensor | None = None,
        required: frozenset[int] = frozenset(),
    ) -> Tensor | None:
        """Return what keeps an ordered neutral completion reachable.

        As `ChargeNeutral`, once for each cut: an element is allowed where one cut
        allows it. A `within` of few elements leaves few cuts that differ.
        """
        everything = possible(species, within)
        used = everything.flatten(0, 1).any(0).nonzero().squeeze(1).tolist()
        found = torch.zeros_like(everything)
        for rule in _rules(self.states, frozenset(used)):
            found |= feasibility_mask(
                rule.elements, species, counts, roles, within, required
            )
            if torch.equal(found, everything):
                break
        return found

    def residual(self, amounts: dict[int, int]) -> float:
        """Return the smallest total charge of an ordered choice of states, in e.

        Args:
            amounts: number of atoms by atomic number.

        Returns:
            Zero when a neutral one exists; inf when there is no ordered choice at all.
        """
        if len(amounts) == 1:
            return 0.0
        best = float("inf")
        for states in _cuts(self.states):
            sums = {0}
            for z, count in amounts.items():
                sums = {s + count * q for s in sums for q in states[z]}
            best = min([best, *(abs(s) for s in sums)])
        return best


States = tuple[tuple[int, ...], ...]
"""Oxidation states by atomic number."""


@cache
def _cuts(name: str) -> tuple[States, ...]:
    """Return the states that each cut leaves to each element.

    The cuts in the middle of the scale come first. One that leaves no element a state
    that another cut would not leave it, too, is left out.
    """
    scale = [float(x) for x in elements.table("electronegativity")]
    known = [x for x in scale[1:] if x == x and x > 0]
    found = []
    for cut in sorted({*known, max(known) + 1}, key=lambda x: abs(x - 2.2)):
        rows = []
        for states, x in zip(oxidation_states(name), scale, strict=True):
            sign = 1 if x < cut else -1
            rows.append(tuple(q for q in states if q * sign >= 0 and x > 0))
        found.append(tuple(rows))
    return _widest(found)


def _widest(cuts: Iterable[States]) -> tuple[States, ...]:
    """Return cuts without those of which another one leaves all states, and more."""
    left: list[States] = []
    for cut in cuts:
        if not any(_within(cut, other) for other in left):
            left = [*(other for other in left if not _within(other, cut)), cut]
    return tuple(left)


def _within(few: States, many: States) -> bool:
    return all(set(a) <= set(b) for a, b in zip(few, many, strict=True))


@lru_cache(maxsize=1000)
def _rules(name: str, used: frozenset[int]) -> tuple[Neutrality, ...]:
    """Return a programme for each cut that differs for the given elements."""
    among = [
        tuple(states if z in used else () for z, states in enumerate(cut))
        for cut in _cuts(name)
    ]
    return tuple(Neutrality(cut) for cut in _widest(among))


@cache
def _ends(name: str) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest state of every element at every cut, (cuts, 104)."""
    cuts = _cuts(name)
    low = [[float(min(s, default=0)) for s in states] for states in cuts]
    high = [[float(max(s, default=0)) for s in states] for states in cuts]
    return torch.tensor(low), torch.tensor(high)
