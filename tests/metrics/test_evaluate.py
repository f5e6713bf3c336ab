"""Fault injection: crystals broken on purpose, each caught by the metric for it."""

import json
import math

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.evaluator import Protocol, compare, evaluate

PAIRS = [
    ("Na", "Cl", 5.64), ("K", "Br", 6.60), ("Mg", "O", 4.21), ("Ca", "S", 5.69),
    ("Li", "F", 4.03), ("Sr", "Se", 6.23), ("Ba", "Te", 7.00), ("Rb", "I", 7.34),
]  # fmt: skip


def rocksalt(cation, anion, edge):
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(edge), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


@pytest.fixture(scope="module")
def sound():
    """Eight real compounds, all different, all valid."""
    return Crystals.from_structures([rocksalt(*p) for p in PAIRS])


def test_sound_crystals_pass_everything(sound):
    found = evaluate(sound)
    for name in ("structural validity", "compositional validity", "uniqueness"):
        assert found[name].value == 1.0
        assert found[name].low < 1.0  # eight crystals do not prove 100 %
    assert found.failures == {}
    assert (found.table["reason"] == "").all()
    assert found["median of smallest distances"].value == pytest.approx(2.845, abs=0.1)


def test_overlapping_atoms_are_caught(sound):
    frac = sound.frac.clone()
    frac[2, 1] = frac[2, 0] + 0.01
    found = evaluate(sound.replace(frac=frac))
    assert found["structural validity"].count == 7
    assert found["compositional validity"].count == 8
    assert found.table["reason"][2] == "atoms closer than 0.5 Å"
    assert found.table["min_distance"][2] < 0.5


def test_collapsed_cell_is_caught(sound):
    lattice = sound.lattice.clone()
    lattice[5] *= 1e-2
    found = evaluate(sound.replace(lattice=lattice))
    assert found["structural validity"].count == 7
    assert found.failures == {"volume below 0.1 Å^3": 1}


def test_charge_imbalance_is_caught(sound):
    species = sound.species.clone()
    species[0, 4] = 11  # a Cl becomes Na: Na5Cl3
    species[1, 0] = 2  # helium
    found = evaluate(sound.replace(species=species))
    assert found["compositional validity"].count == 6
    assert found["structural validity"].count == 8
    assert found.failures == {
        "no neutral choice of oxidation states": 1,
        "no oxidation states known for He": 1,
    }


def test_not_a_number_is_caught_and_the_rest_is_judged(sound):
    frac = sound.frac.clone()
    frac[3, 2, 1] = math.nan
    found = evaluate(sound.replace(frac=frac), sound)
    assert len(found) == 8
    assert found["structural validity"].count == 7
    assert not found.table["unique"][3] and not found.table["novel"][3]


def test_repeats_in_disguise_are_caught(sound):
    cubic = rocksalt(*PAIRS[0])
    primitive = cubic.get_primitive_structure()
    enlarged = cubic.copy()
    enlarged.make_supercell([1, 1, 2])
    moved = Structure(cubic.lattice, cubic.species[::-1], cubic.frac_coords[::-1] + 0.3)
    more = Crystals.from_structures([primitive, enlarged, moved])
    found = evaluate(Crystals.cat([sound, more]))
    assert found["uniqueness"].figure() == "8/11"
    assert found.table["duplicate_of"][8:].tolist() == [0, 0, 0]
    assert found.failures == {"repeat of an earlier crystal": 3}


def test_a_generator_that_copies_one_crystal_scores_one_unique(sound):
    found = evaluate(sound[[4] * 30])
    assert found["uniqueness"].count == 1
    assert found["validity"].count == 30


def test_training_copies_are_not_novel(sound):
    found = evaluate(sound[[6, 1, 2]], sound[:4])
    assert found.table["novel"].tolist() == [True, False, False]
    assert found.table["known_as"].tolist() == [-1, 1, 2]
    assert found["novelty"].figure() == "1/3"
    assert found["valid, unique and novel"].count == 1


def test_shifted_density_is_caught(sound):
    squeezed = sound.replace(lattice=sound.lattice * 0.8 ** (1 / 3))
    same = evaluate(sound, sound)["density distance, valid"]
    other = evaluate(squeezed, sound)["density distance, valid"]
    assert same.value == pytest.approx(0, abs=1e-6)  # float32 in the reference
    mean = float(sound.density.mean())
    assert other.value == pytest.approx(0.25 * mean, rel=1e-4)  # 1 / 0.8 = 1.25
    assert other.unit == "g/cm^3" and other.low > 0


def test_wrong_number_of_elements_is_caught(sound):
    species = sound.species.clone()
    species[:, 0] = torch.tensor(
        [3, 3, 3, 3, 11, 3, 3, 3]
    )  # a third element everywhere
    found = evaluate(sound.replace(species=species), sound)
    assert found["element count distance, all"].value == pytest.approx(1.0)


def test_a_failed_crystal_stays_in_every_denominator(sound):
    species = sound.species.clone()
    species[0] = 0  # no atoms at all
    lattice = sound.lattice.clone()
    lattice[1] = math.nan
    found = evaluate(sound.replace(species=species, lattice=lattice), sound)
    rates = [m for m in found.metrics.values() if m.count is not None]
    assert len(rates) == 6
    assert all(m.n == 8 for m in rates)
    assert all(m.count <= 7 for m in rates)
    assert found["structural validity"].count == 6


def test_all_crystals_broken_is_a_result_not_an_error(sound):
    broken = sound.replace(lattice=sound.lattice * math.nan)
    found = evaluate(broken, sound)
    assert found["structural validity"].figure() == "0/8"
    assert math.isnan(found["density distance, valid"].value)
    assert "no crystal qualified" in repr(found)
    assert "value" not in found.record()["metrics"]["density distance, valid"]


def test_a_matcher_that_fails_is_counted(sound, monkeypatch):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    def fails(*_, **__):
        raise RuntimeError("cannot")

    monkeypatch.setattr(StructureMatcher, "fit", fails)
    found = evaluate(sound[[0, 0, 1]])
    assert found.table["unique"].tolist() == [True, False, True]
    assert found.failures == {"could not be compared (RuntimeError)": 1}


def test_the_thresholds_change_the_figures_and_are_printed(sound):
    strict = Protocol(shortest_distance=2.5, matcher="cdvae", states="icsd24")
    found = evaluate(sound, protocol=strict)
    expected = int((found.table["min_distance"] >= 2.5).sum())
    assert found["structural validity"].count == expected < 8
    text = repr(found)
    assert "distances >= 2.5 Å" in text
    assert "icsd24" in text and "cdvae settings (ltol 0.3, stol 0.5" in text


def test_mixed_valence_is_an_option_and_off():
    spinel = Structure.from_spacegroup(
        "Fd-3m",
        Lattice.cubic(8.39),
        ["Fe", "Fe", "O"],
        [[0.125] * 3, [0.5] * 3, [0.2549] * 3],
    ).get_primitive_structure()
    batch = Crystals.from_structures([spinel])
    assert evaluate(batch)["compositional validity"].count == 0
    mixed = Protocol(mixed_valence=True)
    assert evaluate(batch, protocol=mixed)["compositional validity"].count == 1


def test_the_same_seed_gives_the_same_figures(sound):
    moved = sound.replace(lattice=sound.lattice * 1.03)
    assert evaluate(moved, sound, seed=5).record() == (
        evaluate(moved, sound, seed=5).record()
    )
    name = "density distance, all"
    one, two = (evaluate(moved, sound, seed=s)[name] for s in (5, 6))
    assert one.value == two.value and one.high != two.high


def test_order_padding_and_translation_change_no_figure(sound):
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    moved = sound[order]
    moved = moved.replace(frac=(moved.frac + torch.tensor([0.2, 0.7, 0.4])) % 1)
    a, b = evaluate(sound, sound), evaluate(moved, sound)
    for name in a.metrics:
        assert a[name].value == pytest.approx(b[name].value, abs=1e-5)
    assert b.table["known_as"].tolist() == [
        -1 if n else i for i, n in zip(order, b.table["novel"])
    ]


def test_one_atom_crystals_are_judged():
    copper = Structure(Lattice.cubic(2.5), ["Cu"], [[0, 0, 0]])
    found = evaluate(Crystals.from_structures([copper, copper]))
    assert found["validity"].count == 2 and found["uniqueness"].count == 1
    assert math.isnan(found["median of smallest distances"].value)


def test_printed_page_and_record_say_the_same(sound):
    frac = sound.frac.clone()
    frac[2, 1] = frac[2, 0]
    found = evaluate(sound.replace(frac=frac), sound)
    text, page = repr(found), found._repr_html_()
    metric = found["structural validity"]
    assert f"structural validity 7/8 ({metric.low:.2f} to {metric.high:.2f})" in text
    assert "1  atoms closer than 0.5 Å" in text
    for part in ("7/8", "atoms closer than 0.5 Å", "SMACT 4", "StructureMatcher"):
        assert part in page
    assert page.count("<th scope=") == page.count("</th>")
    record = json.loads(json.dumps(found.record()))
    assert record["metrics"]["structural validity"]["count"] == 7
    assert record["protocol"]["versions"]["smact"][0] == "4"


def test_html_is_escaped(sound):
    batch = sound.replace(ids=tuple(f"<b>{i}</b>" for i in range(8)))
    assert "<b>" not in compare({"<b>x</b>": batch})._repr_html_()


def test_the_table_is_a_data_frame_on_demand(sound):
    frame = evaluate(sound, sound).to_pandas()
    assert len(frame) == 8
    assert frame["formula"].tolist() == list(sound.formulas)
    assert set(frame["reason"]) == {"in the reference"}


def test_compare_puts_batches_side_by_side(sound):
    broken = sound.replace(frac=sound.frac * 0.01)
    both = compare({"sound": sound, "broken": broken}, sound)
    assert both["broken"]["structural validity"].count == 0
    lines = repr(both).splitlines()
    assert lines[0].split()[:3] == ["metric", "sound", "broken"]
    assert lines[0].endswith("random substitution")
    alone = compare({"sound": sound}, sound, baselines=False)
    assert list(alone.evaluations) == ["sound"]
    row = next(line for line in lines if line.startswith("structural validity"))
    assert "8/8" in row and "0/8" in row
    assert "protocol" in repr(both) and "SMACT" in both._repr_html_()
    frame = both.to_pandas()
    assert set(frame["batch"]) == {"sound", "broken", *both.baselines}
    assert len(frame) == 4 * len(both["sound"].metrics)


def test_public_names(sound):
    assert design.evaluate(sound)["validity"].count == 8
    assert design.compare is compare and design.Protocol is Protocol


def test_errors_say_what_to_do(sound):
    with pytest.raises(DataError, match="crystals is empty: got 0"):
        evaluate(sound[:0])
    with pytest.raises(DataError, match=r"reference is empty.*or no reference"):
        evaluate(sound, sound[:0])
    with pytest.raises(DataError, match=r"no figure 'novelty'.*need a reference"):
        evaluate(sound)["novelty"]
    with pytest.raises(DataError, match="nothing to compare"):
        compare({})
    with pytest.raises(DataError, match=r"'none'.*mattergen"):
        evaluate(sound, protocol=Protocol(matcher="none"))


def test_noise_breaks_validity_in_step_with_its_size(sound):
    """More noise, fewer valid crystals; none at all leaves all of them."""
    random = torch.Generator().manual_seed(0)
    many = sound[[i % 8 for i in range(80)]]
    noise = torch.randn(many.frac.shape, generator=random)
    rates = [
        evaluate(many.replace(frac=(many.frac + size * noise) % 1))[
            "structural validity"
        ].value
        for size in (0.0, 0.05, 0.5)
    ]
    assert rates[0] == 1.0
    assert np.all(np.diff(rates) <= 0) and rates[-1] < 0.95


# ---- held-out crystals, energies, coverage -----------------------------------------


def with_energy(crystals, shift=0.0):
    """Crystals whose "predicted" energies are known: 0, -0.1, -0.2, ... plus a shift."""
    values = shift - 0.1 * torch.arange(len(crystals)).float()
    return crystals.replace(properties={"energy": values})


def test_equal_sets_have_energy_distance_zero(sound):
    given = with_energy(sound)
    found = evaluate(given, held_out=given, energy=lambda c: c.properties["energy"])
    for kind in ("valid", "all"):
        one = found[f"energy distance, {kind}"]
        assert one.value == pytest.approx(0, abs=1e-7) and one.unit == "eV/atom"
        assert one.n == len(sound) and one.floor > 0
    assert np.allclose(found.table["predicted_energy"], given.properties["energy"])


def test_a_known_shift_of_energies_is_the_distance(sound):
    found = evaluate(
        with_energy(sound, shift=0.3),
        held_out=with_energy(sound),
        energy=lambda c: c.properties["energy"],
    )
    assert found["energy distance, valid"].value == pytest.approx(0.3, abs=1e-6)


def test_invalid_crystals_are_not_asked_for_an_energy(sound):
    frac = sound.frac.clone()
    frac[0] = 0.0
    seen = []

    def energy(crystals):
        seen.append(len(crystals))
        return np.zeros(len(crystals))

    found = evaluate(sound.replace(frac=frac), held_out=sound, energy=energy)
    assert seen == [7, 8]
    assert np.isnan(found.table["predicted_energy"][0])
    assert found["energy distance, all"].n == 7


def test_missing_energies_are_left_out_and_said(sound):
    def energy(crystals):
        values = torch.zeros(len(crystals))
        values[0] = math.nan
        return values

    found = evaluate(sound, held_out=sound, energy=energy)
    assert found["energy distance, valid"].n == 7
    assert any("no predicted energy" in note for note in found.notes)


def test_one_energy_per_crystal_is_needed(sound):
    with pytest.raises(DataError, match="one number per crystal"):
        evaluate(sound, held_out=sound, energy=lambda c: torch.zeros(len(c), 2))


def test_distances_are_taken_to_held_out_crystals_and_novelty_to_the_known(sound):
    squeezed = sound.replace(lattice=sound.lattice * 0.8 ** (1 / 3))
    found = evaluate(sound, sound[:2], held_out=squeezed)
    assert found["novelty"].count == 6
    mean = float(sound.density.mean())
    assert found["density distance, valid"].value == pytest.approx(
        0.25 * mean, rel=1e-4
    )


def test_what_to_compare_with_must_be_given(sound):
    for wanted in ({"coverage": True}, {"energy": lambda c: torch.zeros(len(c))}):
        with pytest.raises(DataError, match="neither a reference nor held-out"):
            evaluate(sound, **wanted)
    with pytest.raises(DataError, match="held_out is empty"):
        evaluate(sound, held_out=sound[:0])


@pytest.fixture
def quick_prints(monkeypatch):
    """Fingerprints of the structure that cost nothing: the density, and zeros."""
    from matdesign.metrics import fingerprints

    def quick(one):
        if not np.isfinite(one.frac).all():
            return "no fingerprint (not a number)"
        made = np.zeros(fingerprints.LENGTH)
        made[0] = abs(np.linalg.det(one.lattice)) / len(one.species)
        return made

    monkeypatch.setattr(fingerprints, "fingerprint", quick)


def test_coverage_is_off_by_default_and_says_how_it_was_taken(sound, quick_prints):
    assert "COV-R" not in evaluate(sound, sound).metrics
    found = evaluate(sound, sound, coverage=True)
    assert found["COV-R"].figure() == found["COV-P"].figure() == "8/8"
    assert "matminer" in repr(found) and "within 0.4" in repr(found)
    assert found.record()["protocol"]["structure_cutoff"] == 0.4
    assert (found.table["nearest_structure"] == 0).all()


def test_coverage_catches_what_breaks_a_set(sound, quick_prints):
    strict = Protocol(structure_cutoff=0.4, composition_cutoff=1.0)

    def rates(crystals, target):
        found = evaluate(crystals, held_out=target, coverage=True, protocol=strict)
        return found["COV-R"].count, found["COV-P"].count

    assert rates(sound, sound) == (8, 8)
    assert rates(sound[[3] * 8], sound) == (1, 8)  # one mode, many times
    assert rates(sound, sound[:3]) == (3, 3)  # a reference cut short
    swollen = sound.replace(lattice=sound.lattice * 1.2)
    assert rates(swollen, sound)[1] < 4
    species = sound.species.clone()
    species[:4] = 92 * (species[:4] > 0)
    assert rates(sound.replace(species=species), sound) == (4, 4)
    frac = sound.frac.clone()
    frac[:2] = math.nan
    found = evaluate(sound.replace(frac=frac), held_out=sound, coverage=True)
    assert found["COV-P"].figure() == "6/8"  # failures stay in the denominator
    assert found.failures["no fingerprint (not a number)"] == 2


def test_batches_side_by_side_with_coverage(sound, quick_prints, tmp_path):
    found = compare(
        {"all": sound, "mode": sound[[0] * 8]},
        held_out=sound,
        coverage=True,
        protocol=Protocol(composition_cutoff=1.0),
        cache=tmp_path / "prints.sqlite",
    )
    assert found["all"]["COV-R"].count == 8 and found["mode"]["COV-R"].count == 1
    assert repr(found).count("coverage: matminer") == 1  # what holds for all, once
