"""What the chapters on architectures share: baselines, hits, sweeps, neighbours, the table."""

import json

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.generators.contract import Generator
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.flow_matching import FlowMatching
from matdesign.paths import data_dir
from matdesign.teach import chapters
from matdesign.teach.side_by_side import SideBySide, measure, measured


def crystal(species, volume_per_atom=15.0, seed=0):
    """One cubic crystal whose atoms sit far apart on a line of the cell's diagonal."""
    n = len(species)
    edge = (volume_per_atom * n) ** (1 / 3)
    place = (torch.arange(n) / n)[:, None].expand(n, 3)
    return Crystals(torch.tensor([species]), place[None], edge * torch.eye(3)[None])


def batch(*crystals):
    return Crystals.cat(list(crystals))


@pytest.fixture
def train():
    kinds = [
        [11, 17], [19, 17], [12, 8], [38, 22, 8, 8, 8], [56, 22, 8, 8, 8],
        [11, 12, 9, 9, 9], [26, 26, 8, 8, 8], [3, 3, 8],
    ]  # fmt: skip
    return batch(*(crystal(k, 10.0 + i) for i, k in enumerate(kinds)))


class Fixed(Generator):
    """A generator that gives the same crystals again and again and notes what was asked."""

    likelihood = "none"

    def __init__(self, crystals):
        super().__init__({"elements": [1]}, [0, 1])
        self.crystals, self.calls = crystals, []

    @classmethod
    def for_data(cls, train, *, seed=0, **options):
        return cls(train)

    def loss(self, crystals, *, seed=None):
        raise NotImplementedError

    def start(self, plan, rng):
        raise NotImplementedError

    predict = step = start

    def sample(self, n, **asked):
        self.calls.append((n, asked))
        rows = [i % len(self.crystals) for i in range(n)]
        return self.crystals[rows].replace(info={"network_evaluations": 3 * n})


# ---- data and baselines ----------------------------------------------------------------


def test_the_parts_of_the_data_share_no_formula():
    train, held_out = chapters.data()
    assert len(train) > len(held_out) > 0
    assert not set(train.formulas) & set(held_out.formulas)


def test_judge_puts_samples_beside_both_baselines(train):
    judged = chapters.judge(train[:4], train)
    names = ["samples", "shuffled training data", "random substitution"]
    assert list(judged.evaluations) == names
    assert [len(judged[name]) for name in names] == [4, 4, 4]
    several = chapters.judge({"a": train[:4], "b": train[4:6]}, train)
    sizes = {name: len(one) for name, one in several.evaluations.items()}
    assert sizes == dict(zip(("a", "b", *names[1:]), (4, 2, 4, 4)))


# ---- the target ------------------------------------------------------------------------


def test_hits_counted_by_hand():
    made = batch(
        crystal([38, 22, 8, 8, 8], 15.0),  # both
        crystal([38, 22, 8, 8, 8], 13.9),  # too small
        crystal([38, 22, 8, 8, 8], 18.1),  # too large
        crystal([38, 38, 8, 8, 8], 15.0),  # two kinds only
        crystal([38, 22, 8, 8, 9], 15.0),  # four kinds
        crystal([11, 17], 15.0),
        crystal([8, 56, 8, 22, 8], 17.9),  # the order does not matter
        crystal([38, 38, 22, 22, 8, 8, 8, 8, 8, 8], 16.0),  # two formula units
    )
    wanted = [True, False, False, False, False, False, True, True]
    assert chapters.hits(made).tolist() == wanted


def test_steer_asks_once_for_nothing_and_then_at_every_scale():
    model = Fixed(batch(crystal([38, 22, 8, 8, 8]), crystal([11, 17])))
    sweep = chapters.steer(model, scales=(0.0, 2.5), n=5, seed=7, steps=9)
    shared = {"seed": 7, "steps": 9}
    assert model.calls == [
        (1, {"seed": 7, "steps": 1}),  # so that building tables is not timed
        (5, {**shared, "conditions": None, "scale": 1.0}),
        (5, {**shared, "conditions": chapters.TARGET, "scale": 0.0}),
        (5, {**shared, "conditions": chapters.TARGET, "scale": 2.5}),
    ]
    names = ["nothing", "target, scale 0", "target, scale 2.5"]
    assert [row["condition"] for row in sweep.rows] == names
    for row, made in zip(sweep.rows, sweep.samples):
        assert (row["hits"], row["n"], row["valid"], row["evaluations"]) == (
            3,
            5,
            5,
            15,
        )
        assert row["low"] < 3 / 5 < row["high"]
        assert len(made) == 5


def test_a_sweep_prints_as_a_table():
    sweep = chapters.steer(Fixed(crystal([11, 17])), scales=(1.0,), n=4)
    text, page = repr(sweep), sweep._repr_html_()
    for word in ("meet the target", "95 % interval", "target, scale 1", "0/4", "4/4"):
        assert word in text
        assert word in page
    assert "network evaluations per crystal" in text.splitlines()[0]
    assert page.count("<tr>") == 3


@pytest.mark.parametrize("family", [Diffusion, FlowMatching])
def test_guidance_is_paid_for(family, train, monkeypatch):
    volume = {"volume_per_atom": torch.linspace(10, 17, len(train))}
    model = family.for_data(
        train.replace(properties=volume), width=16, layers=1, heads=2
    )
    model.redraws = 0  # drawing again costs evaluations too
    target = {"composition": "AB", "volume_per_atom": (12.0, 16.0)}
    monkeypatch.setattr(chapters, "TARGET", target)
    sweep = chapters.steer(model, n=2, steps=2)
    free, zero, one, two, four = (row["evaluations"] for row in sweep.rows)
    assert free == zero == one > 0
    assert two == four == 2 * one


# ---- neighbours ------------------------------------------------------------------------


def test_the_neighbour_of_a_training_crystal_is_itself(train):
    found, distance = chapters.nearest(train, train)
    assert torch.equal(found.species, train.species)
    assert torch.equal(found.lattice, train.lattice)
    assert distance.tolist() == [0.0] * len(train)


def test_distances_of_compositions_by_hand():
    pool = batch(crystal([11, 17]), crystal([12, 8], 30.0), crystal([12, 8], 11.0))
    made = batch(crystal([19, 17]), crystal([79, 79]), crystal([12, 8], 12.0))
    found, distance = chapters.nearest(made, pool)
    assert distance.tolist() == pytest.approx([0.5, 1.0, 0.0], abs=1e-6)
    assert float(found.volume[2]) == pytest.approx(22.0, rel=1e-5)
    table = chapters.neighbours(made, pool)
    assert table["distance of compositions"].tolist() == ["0.500", "1.000", "0.000"]
    assert table["nearest in training"][2] == "MgO"


# ---- side by side ----------------------------------------------------------------------


def column_of(crystals, train, n=2, **named):
    model = Fixed(crystals)
    sweep = chapters.steer(model, scales=(0.0, 1.0), n=n, seed=2)
    calls = len(model.calls)
    made = measure(model, train, sweep, **named)
    assert len(model.calls) == calls, "nothing is sampled twice"
    return made


def test_a_column_judges_what_a_sweep_has_made_free_and_asked(train):
    crystals = batch(crystal([38, 22, 8, 8, 8]), crystal([11, 17]))
    column = column_of(crystals, train, n=4, name="fixed")
    assert (column.free, column.conditioned, column.evaluations) == (2, 2, 12)
    assert (column.name, column.family, len(column.made)) == ("fixed", "Fixed", 4)
    assert column.judged["novelty"].n == 4 and column.seconds > 0


def test_a_column_needs_a_sweep_with_scale_one(train):
    model = Fixed(crystal([11, 17]))
    with pytest.raises(ValueError, match="not enough values"):
        measure(model, train, chapters.steer(model, scales=(2.0,), n=2))


def test_the_table_has_a_cell_for_every_model_and_figure(train):
    column = column_of(crystal([38, 22, 8, 8, 8]), train, name="fixed")
    other = column_of(crystal([11, 17]), train, name="other")
    table = SideBySide((column, other))
    assert table["other"] is other
    head, rows = table.cells_as_text()
    assert head == ["", "fixed", "other"]
    assert all(len(row) == 3 for row in rows)
    said = {row[0]: row[1:] for row in rows}
    assert said["architecture"] == ["Fixed", "Fixed"]
    assert said["network evaluations per crystal"] == ["3", "3"]
    assert [text.split(" ")[0] for text in said["meets the target, unconditioned"]] == [
        "2/2",
        "0/2",
    ]
    assert "uniqueness" in repr(SideBySide((column,)))
    assert "<table" in SideBySide((column,))._repr_html_()


def test_heads_leave_out_the_data_set_that_all_models_share(train):
    columns = [
        column_of(crystal([11, 17]), train, name=name)
        for name in ("flow-matching-prototypes", "vae-prototypes", "vae-perovskites")
    ]
    assert SideBySide(tuple(columns[:2])).cells_as_text()[0] == [
        "",
        "flow-matching",
        "vae",
    ]
    apart = SideBySide(tuple(columns)).cells_as_text()[0]
    assert apart[1:] == [c.name for c in columns]  # two data sets: both are named
    assert (
        SideBySide(tuple(columns[:1])).cells_as_text()[0][1]
        == "flow-matching-prototypes"
    )


def test_the_measured_table_says_what_its_file_holds():
    path = data_dir() / "measured" / "quality.json"
    found = json.loads(path.read_text())
    table = measured()
    assert list(table.columns) == list(found["batches"])
    one = found["batches"]["flow-matching-mp20"]["figures"]
    share = one["structural validity"]
    assert table["flow-matching-mp20"]["structural validity"].startswith(
        f"{100 * share['count'] / share['n']:.1f} % ("
    )
    unit = table["flow-matching-mp20"]["density distance, valid"]
    assert unit.startswith(f"{one['density distance, valid']['value']:.3f} g/cm^3")
    assert table["DiffCSP"]["match rate"] == ""  # it was not asked for structures
    assert found["command"] in table.attrs["source"]
