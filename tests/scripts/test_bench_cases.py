"""The engine of the case studies: what is a hit, what confirms it, ratios, going on."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bench import cases, light
from pymatgen.core import Lattice, Structure

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.loop.results import Column, Results


def salt(edge: float, *symbols: str) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure(Lattice.cubic(edge), list(symbols), sites)


CASE = replace(
    cases.CASES["solar-absorber"],
    composition=lambda: [design.OnlyElements.harmless(), design.ChargeNeutral()],
    predicted=list,
)


def results(*rows: tuple[Structure, float, float, str]) -> Results:
    made, gaps, above, why = zip(*rows, strict=True)
    columns = {
        "band_gap": Column(list(gaps), "eV"),
        "energy_above_hull": Column(list(above), "eV/atom"),
    }
    return Results(Crystals.from_structures(list(made)), columns, tuple(why))


def test_a_hit_is_usable_in_all_windows_allowed_and_new() -> None:
    table = results(
        (salt(4.1, "Cs", "Cl"), 1.3, 0.02, ""),
        (salt(4.2, "Cs", "Cl"), 1.4, 0.01, ""),  # the same crystal again
        (salt(4.1, "Cs", "I"), 1.7, 0.02, ""),
        (salt(4.1, "Cs", "F"), 1.3, 0.11, ""),
        (salt(4.1, "Rb", "I"), 1.3, -1.2, ""),  # a hole of the potential
        (salt(4.1, "Cs", "Br"), 1.3, 0.02, "not converged"),
        (salt(4.1, "Tl", "Cl"), 1.3, 0.02, ""),
        (salt(4.1, "Cs", "Na"), 1.3, 0.02, ""),
        (salt(4.1, "Rb", "Cl"), 1.1, 0.1, ""),
    )
    assert cases.hits_of(CASE, table) == [0, 8]
    assert cases.hits_of(CASE, table[[]]) == []
    assert cases.missed(CASE, table) == {
        "band_gap": 1,
        "energy_above_hull": 2,
        "composition": 2,
    }


def test_the_distance_is_counted_in_doubts_and_nothing_inside() -> None:
    one = salt(4.1, "Cs", "Cl")
    far = CASE.distance(results((one, 1.35, 0.0, ""), (one, 0.84, 0.2, "")))
    assert far.tolist() == pytest.approx([0.0, 2.0])


def test_a_judge_that_fails_or_sees_another_value_confirms_nothing() -> None:
    one = salt(4.1, "Cs", "Cl")
    said = results(
        (one, 1.3, 0.0, ""),
        (one, 1.7, 0.0, ""),
        (one, 1.3, 0.2, ""),
        (one, 1.3, 0.0, "no"),
    )
    assert cases.confirmed(CASE, said).tolist() == [True, False, False, False]


def test_a_ratio_of_rates_has_an_interval_and_none_where_the_other_never_hit() -> None:
    middle, low, high = cases.ratio((40, 100), (10, 100))
    assert middle == 4.0 and low is not None and high is not None
    assert 2 < low < 4 < high < 8
    [none, low, high] = cases.ratio((10, 60), (0, 60))
    assert none is None and low is not None and low > 1
    [_, low, high] = cases.ratio((5, 60), (5, 60))
    assert low is not None and high is not None and low < 1 < high


def test_the_summary_pools_seeds() -> None:
    def one(arm: str, calls: int, *sure: bool) -> dict[str, object]:
        return {"arm": arm, "calls": calls, "hits": [{"confirmed": x} for x in sure]}

    found = cases.summary(
        [
            one("guided", 20, True, False),
            one("guided", 20, True),
            one("unguided", 40, False),
        ]
    )
    lead = found["guided"]
    assert lead["hits by seed"] == [2, 1] and lead["confirmed by seed"] == [1, 1]
    assert lead["hits per call"][0] == 3 / 40 and lead["confirmed"] == 2
    assert lead["times unguided"]["hits"][0] == 3.0
    assert lead["times unguided"]["confirmed"][0] is None
    assert cases.summary([one("substitution", 0)]) == {}


def test_a_campaign_that_was_ended_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"band_gap": "eV", "energy_above_hull": "eV/atom"}

    def oracle(*_: object) -> design.FunctionOracle:
        said = {"band_gap": 1.3, "energy_above_hull": 0.0}
        return design.FunctionOracle(lambda _: said, columns, name="always a hit")

    case = replace(CASE, oracle=oracle)
    pool = design.Pool(design.load("perovskites")[:200])
    monkeypatch.setattr(cases, "proposer", lambda *_: pool)
    given = {"name": "made-up", "calls": 6, "drawn": 60}
    args = Namespace(
        **given, cache=tmp_path, model="", method=None, draws=None, data=None
    )
    whole = cases.run(case, "substitution", 0, args)
    other = Namespace(**{**vars(args), "cache": tmp_path / "again"})
    other.cache.mkdir()
    begun = cases.campaign(case, "substitution", 0, other)
    begun.ask()  # proposed, and ended before anything was evaluated
    begun.close()
    again = cases.run(case, "substitution", 0, other)
    for one in (whole, again):
        one.pop("oracle_seconds")
    assert again == whole and whole["calls"] == 6 and len(whole["hits"]) == 6
    assert [hit["call"] for hit in whole["hits"]] == [1, 2, 3, 4, 5, 6]
    assert all(hit["confirmed"] for hit in whole["hits"])
    assert Structure.from_str(whole["hits"][0]["cif"], fmt="cif").is_ordered


def test_band_edges_are_those_of_the_literature() -> None:
    titania = Structure(
        Lattice.cubic(4), ["Ti", "O", "O"], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]
    )
    low, high = light.edges(titania, 3.2)
    assert low == pytest.approx(-0.29, abs=0.01) and high - low == pytest.approx(3.2)


def test_edges_of_a_crystal_as_proposed_are_constraints() -> None:
    made = design.load("perovskites")[:4]
    gap, low, high = light.splits_water()
    value = torch.stack([one.value(made) for one in (low, high)])  # type: ignore[attr-defined]
    assert torch.allclose(value[1] - value[0], gap.value(made), atol=1e-4)  # type: ignore[attr-defined]


def test_a_hit_names_the_known_crystal_whose_structure_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Crystals.from_structures([salt(4.1, "Cs", "Cl")])
    monkeypatch.setattr(cases, "load_reduced", lambda _: {"train": known})
    hits = [{"cif": salt(a, *of).to(fmt="cif")} for a, *of in ((3.9, "Rb", "Br"),)]
    other = Structure(
        Lattice.hexagonal(3, 9),
        ["Na", "Na", "S"],
        [[0, 0, 0], [0.3, 0.6, 0.4], [0.6, 0.3, 0.7]],
    )
    hits.append({"cif": other.to(fmt="cif")})
    cases.enter_known([{"hits": hits}, {"hits": []}], Path())
    assert [hit["substitution_of"] for hit in hits] == ["CsCl", ""]
