"""The table of the guides: its counts are those of the crystals, its baseline is fair."""

import json
import math
import shlex
from functools import cache

import pytest
import torch
from bench import engine

import matdesign as design
from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.paths import data_dir
from matdesign.teach.guide_table import (
    Case,
    GuidanceTable,
    measure,
    measured,
    unguided,
)

NAME = "coupling-flow-perovskites"


@cache
def model() -> Generator:
    return design.load_model(NAME)


@cache
def train() -> Crystals:
    return design.load("perovskites", split="train")


class Heavier(Constraint):
    """A judge of its own: the same question with another answer."""

    unit = "g/cm^3"
    hard = False

    def violation(self, crystals: Crystals | SoftCrystals) -> torch.Tensor:
        """Return how much is missing to 6 g/cm^3."""
        return (6.0 - crystals.density).clamp(min=0)

    def satisfied(self, crystals: Crystals) -> torch.Tensor:
        """Return whether 6 g/cm^3 are reached."""
        return crystals.density >= 6.0

    def sentence(self) -> str:
        """Return the constraint in words."""
        return "heavy"


@pytest.mark.parametrize("redraws", [0, None])
def test_a_row_counts_what_the_crystals_are(redraws: int | None) -> None:
    """All particles are paid for, on both sides with what was drawn again."""
    one = design.load_model(NAME)
    one.redraws = one.redraws if redraws is None else redraws
    wanted = design.Density(5.5, 6)
    free = unguided(one, None, 20, train(), seed=0)
    cell = measure(one, Case(wanted), free, train(), NAME, "steer", n=8)
    again = one.sample(8, seed=0, guide=design.Guide(wanted, "steer", strict="hard"))
    judged = design.evaluate(again, train())
    assert cell.guided is not None
    assert cell.guided.met == int(wanted.satisfied(again).sum())
    assert cell.guided.unique == judged["uniqueness"].count
    assert cell.guided.novel == judged["novelty"].count
    assert cell.free.met == int(wanted.satisfied(free.made).sum())
    assert cell.guided.evaluations == again.info["network_evaluations"]
    assert cell.method == "steer" and cell.family == "CouplingFlow"
    share = cell.guided.evaluations / 8 / (cell.free.evaluations / 20)
    assert cell.of == math.ceil(share)
    assert cell.guided.evaluations >= 8 * 8 and (redraws is None or cell.of == 8)
    assert cell.gain == pytest.approx(cell.guided.met / 8 / (cell.free.met / 20))


def test_hard_constraints_hold_always_and_soft_ones_are_counted() -> None:
    cases = [design.OnlyElements("Ca", "Sr", "Ti", "Zr", "O"), design.Density(5.5, 6)]
    table = design.guidance_table({NAME: model()}, cases, train(), n=6, pool=12)
    hard, soft = table.cells
    assert hard.guided and hard.hard and hard.guided.met == hard.guided.n == 6
    assert soft.guided and not soft.hard and "project" in soft.method
    assert soft.guided.met == 6 and soft.guided.drawn == 6
    assert hard.method == "mask"
    text = repr(table)
    assert "6/6 (0.61 to 1.00)" in text and str(cases[0]) in text
    assert "<table" in table._repr_html_()
    assert json.loads(json.dumps(table.record())) == table.record()


def test_what_is_given_holds_on_both_sides() -> None:
    given = design.RequiredElements("O")
    case = Case(design.Density(5, 6), given)
    table = design.guidance_table({NAME: model()}, [case], train(), n=4, pool=6)
    free = unguided(model(), given, 6, train())
    assert bool(given.satisfied(free.made).all())
    assert "given" in table.cells[0].case


def test_another_judge_decides() -> None:
    wanted = design.Density(5, 5.5)
    case = Case(wanted, judge=Heavier())
    free = unguided(model(), None, 10, train())
    cell = measure(model(), case, free, train(), NAME, n=5)
    assert cell.guided and cell.guided.believed == 5
    assert cell.guided.met == 0  # none of these is as heavy as the judge wants
    assert cell.free.met == int((free.made.density >= 6).sum())
    assert not cell.beats_best


def test_a_refusal_is_a_row() -> None:
    free = unguided(model(), None, 4, train())
    case = Case(design.Novelty(train()))
    cell = measure(model(), case, free, train(), NAME, "gradient", n=2)
    assert cell.guided is None and "gradient cannot guide" in cell.refused
    assert "refused" in repr(GuidanceTable().add(cell))
    assert math.isnan(cell.gain) and not cell.beats_best


def test_a_pool_too_small_for_the_baseline_says_so() -> None:
    free = unguided(model(), None, 3, train())
    case = Case(design.Density(5.5, 6))
    cell = measure(model(), case, free, train(), NAME, "steer", n=2)
    assert cell.best == () and "pool below N" in repr(GuidanceTable((cell,)))


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(DataError, match="at least 1"):
        design.guidance_table({NAME: model()}, [design.Density(5, 6)], train(), n=0)


@pytest.mark.parametrize("name", ["guidance", "guidance-fresh"])
def test_a_measured_table_holds_what_its_file_says(name: str) -> None:
    table = measured(name)
    path = data_dir() / "measured" / f"{name}.json"
    found = json.loads(path.read_text())["runs"]
    assert len(table.cells) == sum(len(run["cells"]) for run in found)
    assert all(run["command"] in table.source for run in found)
    assert table.record() == [cell for run in found for cell in run["cells"]]


def test_what_was_measured_of_hard_constraints_holds_always() -> None:
    hard = [cell for cell in measured().cells if cell.hard]
    assert {cell.family for cell in hard} >= {"VAE", "Diffusion"} and len(hard) >= 50
    assert all(cell.guided and cell.guided.met == cell.guided.n for cell in hard)


def test_measured_prices_are_those_of_a_command() -> None:
    path = data_dir() / "measured" / "guidance-cost.json"
    runs = json.loads(path.read_text())["runs"]
    words = [shlex.split(run["command"])[3:] for run in runs]
    asked = [engine.arguments("guidance-cost", one)[1] for one in words]
    for run, args in zip(runs, asked, strict=True):
        assert set(run["prices"]) == set(args.models) and run["n"] == args.n
        for ways in run["prices"].values():
            for way, price in ways.items():
                assert way in args.ways
                if "error" not in price:
                    assert price["met"] is (price["median"] <= price["bar"])
                    assert price["low"] <= price["median"] <= price["high"]
