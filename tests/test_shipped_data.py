"""What data/ ships is what its cards say."""

import hashlib
import json
import re

import numpy as np
import pytest

from matdesign.paths import data_dir

parquet = pytest.importorskip("pyarrow.parquet")
FOLDERS = ("prototypes", "perovskites", "references")
LABELS = (
    "energy_per_atom",
    "formation_energy_per_atom",
    "energy_above_hull",
    "volume_per_atom",
    "density",
    "magmom_per_atom",
)


def card(name):
    return json.loads((data_dir() / name / "card.json").read_text())


@pytest.fixture(scope="module")
def tables():
    return {
        name: parquet.read_table(data_dir() / name / f"{name}.parquet").to_pandas()
        for name in ("prototypes", "perovskites")
    }


@pytest.mark.parametrize("name", FOLDERS)
def test_files_match_the_card(name):
    files = card(name)["files"]
    assert files
    for file, stated in files.items():
        content = (data_dir() / name / file).read_bytes()
        assert len(content) == stated["bytes"]
        assert hashlib.sha256(content).hexdigest() == stated["sha256"]


@pytest.mark.parametrize(
    ("name", "least"), [("prototypes", 6000), ("perovskites", 1500)]
)
def test_sets_are_large_enough_and_whole(tables, name, least):
    table = tables[name]
    assert len(table) == card(name)["rows"] >= least
    assert table.material_id.is_unique
    assert np.isfinite(table[list(LABELS)].to_numpy()).all()
    assert set(LABELS) <= set(card(name)["units"])
    assert (table.num_atoms == table.numbers.map(len)).all()
    assert (table.num_atoms * 3 == table.frac_coords.map(len)).all()
    assert table.num_atoms.max() <= 20
    frac = np.concatenate(table.frac_coords.to_list())
    assert frac.min() >= 0.0 and frac.max() < 1.0
    assert (table.energy_above_hull < 3.0).all()
    assert (table.energy_above_hull < -0.1).mean() < 0.02  # mistakes of the potential
    assert table.formation_energy_per_atom.between(-5.5, 1.5).all()


def test_volume_and_density_belong_to_the_lattice(tables):
    table = tables["prototypes"].iloc[::50]
    lattices = np.stack(table.lattice.to_list()).reshape(-1, 3, 3)
    volume = np.abs(np.linalg.det(lattices)) / table.num_atoms
    np.testing.assert_allclose(volume, table.volume_per_atom, rtol=1e-4)


def test_polymorphs_share_a_split_in_both_sets(tables):
    seen = {}
    for table in tables.values():
        for formula, split in zip(table.formula, table.split, strict=True):
            assert seen.setdefault(formula, split) == split
    shares = tables["prototypes"].split.value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.8, abs=0.03)
    assert shares["val"] == pytest.approx(0.1, abs=0.02)


def test_labels_are_those_of_the_shipped_hull(tables):
    from matdesign.loop.hull import Hull

    hull = Hull.shipped()
    table = tables["prototypes"].iloc[::40]
    distance = hull.energy_above_hull(list(table.formula), table.energy_per_atom)
    np.testing.assert_allclose(distance, table.energy_above_hull, atol=2e-4)
    formation = hull.formation_energy(list(table.formula), table.energy_per_atom)
    np.testing.assert_allclose(formation, table.formation_energy_per_atom, atol=2e-4)


def test_known_compounds_are_where_experiment_puts_them():
    prototypes = card("prototypes")
    differences = [row["difference"] for row in prototypes["against_experiment"]]
    assert len(differences) > 20
    assert prototypes["mean_absolute_error_against_experiment"] < 0.12
    assert abs(np.mean(differences)) < 0.05


def test_real_crystals_lie_on_the_hull():
    figures = card("references")
    rows = figures["check: validation rows of reduced MP-20 by CHGNet 0.3.0"]
    assert rows["share within 0.1 eV/atom"] >= 0.96
    assert rows["median difference from the Materials Project (eV/atom)"] <= 0.02
    assert rows["crystals"] == 500


def test_known_compounds_are_whole_and_in_the_order_the_hull_reads_them_in():
    table = parquet.read_table(data_dir() / "references" / "compounds.parquet")
    table = table.to_pandas()
    assert len(table) == card("references")["known compounds"]["compounds"] > 95_000
    assert table.formula.is_unique and table.formation_energy_per_atom.notna().all()
    assert set(table.source) == {"MP-20", "matbench_mp_e_form, shifted"}
    for formula in table.formula[::5000]:  # elements in alphabetic order, two or more
        symbols = re.findall("[A-Z][a-z]?", formula)
        assert len(symbols) > 1 and symbols == sorted(set(symbols))


def test_labels_are_reproduced_by_the_potential(tables):
    from pymatgen.core import Lattice, Structure

    from matdesign.loop.potential import Potential

    some = tables["prototypes"].sample(6, random_state=1)
    crystals = [
        Structure(
            Lattice(np.array(row.lattice, dtype=float).reshape(3, 3)),
            list(row.numbers),
            np.array(row.frac_coords, dtype=float).reshape(-1, 3),
        )
        for row in some.itertuples()
    ]
    energy = Potential().evaluate(crystals, forces=False).energy_per_atom
    np.testing.assert_allclose(energy, some.energy_per_atom, atol=2e-3)


def test_rejects_are_kept_with_a_reason():
    for name in ("prototypes", "perovskites"):
        table = parquet.read_table(data_dir() / name / "rejected.parquet").to_pandas()
        assert len(table) == card(name)["tried"] - card(name)["rows"]
        assert (table.reason.str.len() > 0).all()


def test_all_data_sets_stay_small():
    total = sum(p.stat().st_size for p in data_dir().glob("*/*.parquet"))
    assert total < 6_000_000


def test_cards_are_of_the_weights_beside_them():
    """A card holds the record of its training, day and losses: that of the weights here."""
    folders = [p.parent for p in (data_dir() / "models").glob("*/card.json")]
    assert len(folders) == len(list((data_dir() / "models").iterdir()))
    for folder in folders:
        card = json.loads((folder / "card.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        assert card["training"] == config["record"], folder.name
        made = card.get("sampling", {}).get("weights_sha256")
        weights = (folder / "model.safetensors").read_bytes()
        assert made in (None, hashlib.sha256(weights).hexdigest()), folder.name
