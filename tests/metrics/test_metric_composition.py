"""Compositional validity: equal to SMACT's own function, and quick where it is not."""

import itertools
import random
import warnings
from math import gcd

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matdesign.crystals import elements, matching
from matdesign.errors import DataError
from matdesign.metrics import composition


def formula(**counts):
    pairs = ((elements.atomic_number(s), n) for s, n in counts.items())
    return tuple(sorted(pairs))


def smact_says(counts, state_set, mixed_valence=False):
    from pymatgen.core import Composition
    from smact.screening import smact_validity

    names = elements.symbols()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return smact_validity(
            Composition({names[z]: n for z, n in counts}),
            oxidation_states_set=state_set,
            mixed_valence=mixed_valence,
        )


def random_counts(draw, most_elements, most_atoms, numbers=range(1, 104)):
    chosen = draw.sample(list(numbers), draw.randint(1, most_elements))
    counts = [draw.randint(1, most_atoms) for _ in chosen]
    divisor = gcd(*counts)
    return tuple(sorted((z, n // divisor) for z, n in zip(chosen, counts)))


@pytest.mark.parametrize("state_set", composition.STATE_SETS)
def test_same_verdict_as_smact_on_random_compositions(state_set):
    draw = random.Random(0)
    verdicts = []
    for _ in range(1000):
        counts = random_counts(draw, 4, 6)
        expected = smact_says(counts, state_set)
        assert composition.check(counts, state_set).valid == expected, counts
        verdicts.append(expected)
    assert 200 < sum(verdicts) < 900  # both verdicts are well represented


def test_same_verdict_as_smact_on_compounds_with_common_anions():
    draw = random.Random(1)
    anions = [elements.atomic_number(s) for s in ("O", "F", "S", "Cl", "N", "Br")]
    verdicts = []
    for _ in range(1000):
        metals = dict(random_counts(draw, 3, 4))
        counts = {**metals, draw.choice(anions): draw.randint(1, 9)}
        divisor = gcd(*counts.values())
        reduced = tuple(sorted((z, n // divisor) for z, n in counts.items()))
        expected = smact_says(reduced, "smact14")
        assert composition.check(reduced).valid == expected, reduced
        verdicts.append(expected)
    assert 200 < sum(verdicts) < 900


def test_same_verdict_as_smact_with_mixed_valence():
    draw = random.Random(2)
    mixed = sorted(composition.mixed_valence_elements())
    gained = 0
    for _ in range(150):
        counts = random_counts(draw, 2, 3, numbers=[*mixed[:12], 8, 16, 9])
        expected = smact_says(counts, "smact14", mixed_valence=True)
        assert composition.check(counts, mixed_valence=True).valid == expected, counts
        gained += expected and not composition.check(counts).valid
    assert gained  # the option makes a difference somewhere


def test_magnetite_needs_mixed_valence_where_the_list_has_no_8_over_3():
    magnetite = formula(Fe=3, O=4)
    assert not composition.check(magnetite).valid
    verdict = composition.check(magnetite, mixed_valence=True)
    assert verdict.valid
    states = dict(verdict.states)
    assert len(states["Fe"]) == 3 and len(set(states["Fe"])) > 1
    assert sum(states["Fe"]) + 4 * states["O"][0] == 0


@given(st.data())
@settings(max_examples=150)
def test_equals_the_enumeration_of_all_choices(data):
    """An oracle of our own: list every choice of states, test each."""
    some = st.integers(1, 103)
    size = data.draw(st.integers(2, 4))
    numbers = data.draw(st.lists(some, min_size=size, max_size=size, unique=True))
    times = [data.draw(st.integers(1, 5)) for _ in numbers]
    divisor = gcd(*times)
    counts = tuple(sorted((z, n // divisor) for z, n in zip(numbers, times)))
    known = [composition.ions()[z] for z, _ in counts]
    expected = all(ion.metal for ion in known)
    if not expected and all(ion.electronegativity is not None for ion in known):
        for choice in itertools.product(*(ion.states for ion in known)):
            total = sum(n * o for (_, n), o in zip(counts, choice))
            pairs = itertools.product(zip(choice, known), repeat=2)
            ordered = all(
                a.electronegativity < b.electronegativity
                for (o, a), (p, b) in pairs
                if o > 0 > p
            )
            expected |= total == 0 and ordered
    assert composition.check(counts).valid == expected


def test_the_charges_found_are_neutral_allowed_and_in_pauling_order():
    draw = random.Random(4)
    shown = 0
    for _ in range(500):
        counts = random_counts(draw, 4, 5)
        verdict = composition.check(counts)
        if not verdict.states:
            continue
        shown += 1
        chosen = {elements.atomic_number(s): o[0] for s, o in verdict.states}
        known = composition.ions()
        assert sum(n * chosen[z] for z, n in counts) == 0
        assert all(chosen[z] in known[z].states for z, _ in counts)
        cations = [known[z].electronegativity for z, o in chosen.items() if o > 0]
        anions = [known[z].electronegativity for z, o in chosen.items() if o < 0]
        assert max(cations) < min(anions)
    assert shown > 20


def test_fourteen_elements_finish():
    # product enumeration would visit more than 10^9 choices
    many = "Li Na Mg Ti Mn Fe Co Ni Mo W O S F Cl".split()
    counts = formula(**dict.fromkeys(many, 1))
    known = [composition.ions()[z] for z, _ in counts]
    choices = 1
    for ion in known:
        choices *= len(ion.states)
    assert choices > 1e8
    verdict = composition.check(counts)
    assert verdict.valid
    assert sum(states[0] for _, states in verdict.states) == 0


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (formula(Na=1, Cl=2), "no neutral choice"),
        (formula(Na=1, He=1), "no oxidation states known for He"),
        (formula(Pm=1, O=1), "no electronegativity known for Pm"),
        ((), "no atoms"),
    ],
)
def test_faults_are_caught_with_a_reason(counts, reason):
    verdict = composition.check(counts)
    assert not verdict.valid and reason in verdict.reason


def test_neutral_only_against_electronegativity_is_its_own_reason():
    draw = random.Random(3)
    found = None
    while found is None:
        counts = random_counts(draw, 3, 4)
        verdict = composition.check(counts)
        if "electronegativity" in verdict.reason and "known" not in verdict.reason:
            found = counts
    # SMACT without Pauling's test accepts what the reason says is neutral
    from pymatgen.core import Composition
    from smact.screening import smact_validity

    names = elements.symbols()
    assert smact_validity(
        Composition({names[z]: n for z, n in found}),
        use_pauling_test=False,
        oxidation_states_set="smact14",
    )


def test_elements_and_alloys_pass_without_charges():
    for counts in (formula(C=1), formula(Cu=3, Au=1), formula(He=1)):
        assert composition.check(counts) == composition.Verdict(True)


def test_every_element_alone_and_with_oxygen_gets_a_verdict():
    for z in range(1, elements.MAX_Z + 1):
        assert composition.check(((z, 1),)).valid
        if z != 8:
            pair = tuple(sorted(((z, 1), (8, 1))))
            assert composition.check(pair).valid == smact_says(pair, "smact14")


def test_reduced_formulas_ignore_order_padding_and_multiples():
    species = torch.tensor([[11, 17, 0, 0], [17, 11, 17, 11], [0, 0, 0, 0]])
    salt = ((11, 1), (17, 1))
    assert matching.reduced(species) == [salt, salt, ()]


def test_unknown_list_of_states_names_the_choices():
    with pytest.raises(DataError, match=r"'smact99'.*smact14, icsd16"):
        composition.check(formula(Na=1, Cl=1), "smact99")
