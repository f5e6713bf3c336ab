"""The constraints that ions of common charges add up to nothing, in their order."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.constraints.neutrality import Neutrality
from matdesign.constraints.unfinished import Orbits, amounts_of, feasibility_mask
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError

STATES = {
    "common": "pymatgen's common_oxidation_states",
    "smact14": "the 2014 list of smact, about twice as many states",
}
"""Named lists of oxidation states and where they come from."""


class ChargeNeutral(Constraint):
    """Some choice of common oxidation states makes the crystal neutral.

    All atoms of an element carry one state, unless `mixed_valence` lets every atom of a
    metal choose its own (Fe3O4 needs it). A crystal of a single element is neutral, and
    so is, with `alloys`, one of metals only. Elements without a listed state (He, Ne,
    Ar and Rn in "common") are never part of a neutral compound.

    Whether a choice exists is decided exactly, without listing choices: the set of
    total charges that can be reached grows element by element (at most a few hundred
    integers), where the number of choices grows as a product.

    Equation:
        S_0 = {0};  S_j = {s + n_j q : s in S_(j-1), q in states of element j};
        violation = min |S|, in elementary charges. With mixed valence a metal of n_j
        atoms enters as n_j elements of one atom each. For undecided crystals:
        violation = max(0, sum_i E[q_min], -sum_i E[q_max]), a differentiable lower
        bound: the charge that remains when every atom takes its most helpful state.

    Args:
        states: "common" or "smact14"; see `STATES`.
        mixed_valence: atoms of one metal may differ in charge; the atoms counted are
            those of this cell.
        alloys: crystals of metals only count as neutral.

    Raises:
        DataError: there is no list of states of that name.

    Source:
        The question is smact's charge test (Davies et al., J. Open Source Softw. 4,
        1361, 2019). Changed: reachable sums instead of a product over choices, no test
        of electronegativity.

    Example:
        >>> ChargeNeutral()
        charge-neutral with common oxidation states
    """

    unit = "e"

    def __init__(
        self,
        states: str = "common",
        *,
        mixed_valence: bool = False,
        alloys: bool = False,
    ) -> None:
        if states not in STATES:
            raise DataError(
                f"no list of oxidation states {states!r}; choose {' or '.join(STATES)}."
            )
        self.states = states
        self.mixed_valence = mixed_valence
        self.alloys = alloys

    def sentence(self) -> str:
        """Return for example "charge-neutral with common oxidation states"."""
        text = f"charge-neutral with {self.states} oxidation states"
        text += ", mixed valence allowed" if self.mixed_valence else ""
        return text + (", or an alloy" if self.alloys else "")

    @property
    def rule(self) -> Neutrality:
        """What decides, exactly for finished crystals."""
        return _neutrality(self.states, self.mixed_valence, self.alloys, False)

    def residual(self, amounts: Mapping[int, int]) -> float:
        """Return the smallest total charge that the atoms can have, in e.

        Args:
            amounts: number of atoms by atomic number.

        Returns:
            Zero when a neutral choice exists; inf when there is no choice at all.
        """
        return self.rule.residual(amounts)

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the smallest total charge (its lower bound when soft), (crystals,)."""
        if isinstance(crystals, SoftCrystals):
            low, high = (t.to(crystals.species) for t in _extremes(self.rule))
            amounts = crystals.species.sum(dim=1)  # (crystals, 104)
            beyond = torch.maximum(amounts @ low.T, -amounts @ high.T)
            return beyond.amin(dim=1).clamp(min=0)
        left = [self.residual(amounts_of(row)) for row in crystals.species.tolist()]
        return torch.tensor(left, device=crystals.device, dtype=crystals.frac.dtype)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether a neutral choice of states exists, shape (crystals,)."""
        return self.violation(crystals) == 0

    def allowed(self, orbits: Orbits) -> Tensor | None:
        """Return what keeps a neutral completion reachable; see `Neutrality`.

        Exact for the last open orbit; before, it may leave what leads to a dead end.
        """
        return feasibility_mask(self.rule.elements, orbits)


@cache
def oxidation_states(name: str) -> tuple[tuple[int, ...], ...]:
    """Return the states of every element by atomic number, from one named list.

    Args:
        name: "common" or "smact14".

    Returns:
        104 tuples; empty for padding and for elements without a state.
    """
    symbols = elements.symbols()[1:]
    found: list[tuple[int, ...]]
    if name == "smact14":
        from smact import Element

        found = [
            tuple(Element(symbol).oxidation_states_smact14 or ()) for symbol in symbols
        ]
    else:
        from pymatgen.core import Element as PymatgenElement

        found = [PymatgenElement(symbol).common_oxidation_states for symbol in symbols]
    return ((), *(tuple(sorted(int(q) for q in states)) for states in found))


@cache
def _neutrality(name: str, mixed: bool, alloys: bool, ordered: bool) -> Neutrality:
    """Return what decides with these settings, made once."""
    states, order = oxidation_states(name), tuple[float, ...]()
    if ordered:
        order = tuple(elements.table("electronegativity").tolist())
        states = tuple(some if x > 0 else () for some, x in zip(states, order))
    return Neutrality(
        states,
        metals() if mixed else frozenset(),
        metals() if alloys else frozenset(),
        order,
    )


@cache
def metals() -> frozenset[int]:
    """Return the atomic numbers of metals."""
    return frozenset(elements.table("metal").nonzero().squeeze(1).tolist())


@cache
def _extremes(rule: Neutrality) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest state of every element at each cut, (cuts, 104).

    A cut that leaves no element a state that another cut does not leave it is left out:
    an element without a state would count as one without charge.
    """
    known = [z for z, kind in enumerate(rule.kinds) if kind]
    cuts = {
        tuple(
            frozenset(sum(rule.kind(z, cut), ())) for z in range(len(rule.kinds))
        ): None
        for cut in rule.cuts(known)
    }
    low, high = [], []
    for one in cuts:
        wider = (
            all(map(frozenset.issubset, one, other)) for other in cuts if other != one
        )
        if not any(wider):
            low.append([float(min(states, default=0)) for states in one])
            high.append([float(max(states, default=0)) for states in one])
    return torch.tensor(low), torch.tensor(high)


class ElectronegativityOrder(ChargeNeutral):
    """Some neutral choice of charges has every anion above every cation.

    Above means: more electronegative on Pauling's scale. All atoms of an element carry
    one oxidation state, and one without charge stands anywhere in the order. An element
    without an electronegativity (He, Ne, Ar, ...) or without a state is never part of
    such a compound. A crystal of a single element meets it.

    Equation:
        for a cut c the elements below it may only have states >= 0, the others <= 0;
        violation = min over cuts of that of `ChargeNeutral`, in elementary charges

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

    def __init__(self, states: str = "common") -> None:
        super().__init__(states)

    @property
    def rule(self) -> Neutrality:
        """What decides, exactly for finished crystals."""
        return _neutrality(self.states, False, False, True)

    def sentence(self) -> str:
        """Return "neutral with the more electronegative elements as anions"."""
        return "neutral with the more electronegative elements as anions" + (
            f" ({self.states} states)" if self.states != "common" else ""
        )
