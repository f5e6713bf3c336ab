"""A campaign as figures: what they say is counted from the store."""

import html
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "loop"))

from alloys import Alloys
from test_campaign import Fixed, Toy
from test_strategies import Seer

import matdesign as design
from matdesign.display.campaign_page import hypervolumes
from matdesign.errors import DataError
from matdesign.loop.cascade import computing
from matdesign.metrics.intervals import wilson


class Slow(Toy):
    """Says that a call took two seconds."""

    def evaluate(self, crystals):
        found = super().evaluate(crystals)
        return replace(found, seconds=torch.full((len(crystals),), 2.0))


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    where = tmp_path_factory.mktemp("campaign") / "alloys.db"
    wanted = design.RequiredElements("Cu")
    settings = {"budget": 12, "batch": 4, "propose": 12, "seed": 4, "select": Seer()}
    loop = design.Campaign(Alloys(), wanted, Slow(), where, **settings)
    list(loop)
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def figures(campaign):
    return design.plot_campaign(campaign, Alloys(bad=0).sample(40, seed=9))


def test_figures_count_what_the_store_holds(campaign, figures):
    progress, fates, shares, surrogate = figures
    table, rows = campaign.table(), campaign.store.decisions()
    best = table["objective"].min()
    assert progress.alt == f"Best energy_above_hull so far: {best:.4g} in 12 calls."
    line = progress.figure.axes[0].lines[0].get_ydata()
    assert len(line) == 12 and np.nanmax(np.diff(line)) <= 0 and line[-1] == best
    failed = int((~table["ok"]).sum())
    counts = {one: sum(row["decision"] == one for row in rows) for one in ("rejected",)}
    counts |= {"usable": 12 - failed} | ({"failed": failed} if failed else {})
    for fate, n in counts.items():
        assert n and f"{n} {fate}" in fates.alt
    assert "12 oracle calls took" in fates.caption
    first = [row for row in rows if row["iteration"] == 0]
    different = len({row["formula"] for row in first}) / len(first)
    assert f"different formulas from {different:.0%} to" in shares.alt
    assert (
        "known formulas from" in shares.alt and "known chemical systems" in shares.alt
    )
    assert "Surrogate against oracle on" in surrogate.alt
    said = {
        row["id"]: row["predicted"] for row in rows if row["decision"] == "selected"
    }
    off = table["objective"] - table["id"].map(said)
    side = "above" if off.mean() > 0 else "below"
    assert f"values are {abs(off.mean()):.3g} {side} the predictions" in surrogate.alt


def test_the_hypervolume_of_two_objectives_is_the_area_of_a_staircase():
    """Reference (0, 0): rectangles 1 x 3 and 2 x 1, then what is beaten, and a failure."""
    rows = [[0, 0], [1, 3], [2, 1], [1, 1], [math.nan, 9], [2, 3], [0, 0]]
    values = torch.tensor(rows, dtype=torch.float64)
    assert hypervolumes(values, range(1, 8)) == [0, 3, 4, 4, 4, 6, 6]
    assert hypervolumes(values, [2, 6]) == [3, 6]
    assert hypervolumes(torch.tensor([[5.0, 1.0], [4.0, 3.0]]), [1, 2]) == [0, 0]


class Two:
    """An oracle of two columns: copper and gold, the first crystal fails."""

    name, columns = "two", {"copper": "eV", "gold": "g"}

    def evaluate(self, crystals):
        copper, gold = (
            (crystals.species == z).sum(1) / crystals.n_atoms for z in (29, 79)
        )
        columns = {
            "copper": design.Column(copper, "eV"),
            "gold": design.Column(gold, "g"),
        }
        reason = ["broken"] + [""] * (len(crystals) - 1)
        return design.Results(crystals, columns, tuple(reason), oracle=self.name)


def test_a_campaign_of_several_objectives_shows_its_hypervolume(tmp_path):
    select = design.Bayesian(objectives=["-copper", "gold"], start=99)
    settings = {"objective": "-copper", "budget": 12, "batch": 12, "propose": 30}
    loop = design.Campaign(
        Alloys(bad=0), None, Two(), tmp_path / "a.db", select=select, **settings
    )
    list(loop)
    _, volume, *_ = design.plot_campaign(loop)
    table = loop.table()
    fine = table[table["ok"]]
    assert len(fine) == 11
    low, high = fine["copper"].min(), fine["gold"].max()  # the worst of each
    area, reached = 0.0, 0.0  # a staircase: copper raised, gold lowered
    for _, row in fine.sort_values(
        ["copper", "gold"], ascending=[False, True]
    ).iterrows():
        area += max(high - row["gold"] - reached, 0) * (row["copper"] - low)
        reached = max(reached, high - row["gold"])
    line = volume.figure.axes[0].lines[0].get_ydata()
    assert len(line) == 12 and line[0] == 0 and np.diff(line).min() >= 0
    assert line[-1] == pytest.approx(area) and area > 0
    axes = volume.figure.axes[0]
    assert axes.get_ylabel().split("\n") == ["dominated hypervolume", "(eV · g)"]
    assert (
        f"copper, maximised, {low:.4g} eV; gold, minimised, {high:.4g} g."
        in volume.caption
    )
    assert "failures never count" in volume.caption and "in 12 calls" in volume.alt
    assert volume.alt in design.Dashboard(loop).to_html()
    order = loop.best(99)
    both = [
        [-x, y]
        for x, y in zip(*(order.properties[k].tolist() for k in ("copper", "gold")))
    ]
    beaten = [
        any(a <= c and b <= d and (a, b) != (c, d) for a, b in both) for c, d in both
    ]
    front = beaten.count(False)
    assert 0 < front < len(both) and not any(beaten[:front])  # those first
    for part in (both[:front], both[front:]):
        assert part == sorted(part, key=lambda one: one[0])
    hit = sorted(x for x, _ in both)[len(both) // 2]
    page = design.report_campaign(loop, tmp_path / "a.html", hit=hit).read_text()
    assert f"{sum(x <= hit for x, _ in both)} different hits" in page  # beaten ones too
    view = design.Campaign.view(loop.store.name)  # knows the objectives from the store
    assert view.best(99).ids == order.ids
    view.close()
    page = design.report_campaign(loop, tmp_path / "a.html").read_text()
    assert f"-copper {both[0][0]:.4g} eV, gold {both[0][1]:.4g} g" in page
    loop.close()


def test_a_report_holds_finalists_judge_failures_and_lineage(campaign, tmp_path):
    class Judge(Toy):
        name = "judge"

        def evaluate(self, crystals):
            found = super().evaluate(crystals)
            column = found.columns["energy_above_hull"]
            higher = design.Column(column.values + 1, column.unit)
            return design.Results(crystals, {"energy_above_hull": higher})

    known = Alloys(bad=0).sample(40, seed=9)
    made = design.report_campaign(
        campaign,
        tmp_path / "out" / "page.html",
        known=known,
        judge=Judge(),
        finalists=3,
    )
    text = made.read_text(encoding="utf-8")
    assert text.count('class="md-plot"') == 4 and "Campaign alloys" in text
    best = campaign.best(3)
    value = float(best.properties["energy_above_hull"][0])
    assert f"finalist {best.ids[0]}, {best.formulas[0]}" in text
    words = (
        f"energy_above_hull {value:.4g} eV/atom, {value + 1:.4g} eV/atom by the judge"
    )
    assert f"{words} judge" in text
    assert "crystals by Alloys" in text and "not evaluated: passed over" in text
    table = campaign.table()
    failed, made = table.query("not ok"), campaign.store.count("crystal")
    assert f"<b>{made}</b> proposed" in text and "relaxed in" not in text
    assert text.count("evaluated in 2.0 s") == 3 + len(failed)
    assert "computing time of the oracle" in text and "24.0 s" in text  # of all 12
    files = list((tmp_path / "out" / "crystals").glob("*.cif"))
    assert len(files) == 3 + len(failed)
    assert all(reason.split()[0] in text for reason in failed["reason"])


def test_the_funnel_counts_each_crystal_of_the_store_once(tmp_path):
    """Always the same twenty, some broken or without copper: duplicates and failures."""
    some = Alloys(bad=0.2).sample(20, seed=3)
    wanted, where = design.RequiredElements("Cu"), tmp_path / "a.db"
    settings = {"budget": 9, "batch": 3, "propose": 20}
    loop = design.Campaign(Fixed(some), wanted, Toy(), where, **settings)
    list(loop)
    page = design.report_campaign(loop, tmp_path / "a.html", hit=0.6).read_text()
    counts = {w: int(n) for n, w in re.findall(r"<li><b>(\d+)</b> ([^:,<]+)", page)}
    rows = [row.key_value_pairs for row in loop.store._db.select(kind="crystal")]
    said = Counter(row["decision"] for row in rows)
    assert min(said[one] for one in ("rejected", "duplicate", "passed over")) > 0
    done = [row.key_value_pairs for row in loop.store._db.select(kind="evaluation")]
    good = loop.best(99)
    hits = int((good.properties["energy_above_hull"] <= 0.6).sum())
    failed = sum(not row["ok"] for row in done)
    assert 0 < hits < len(good) and failed
    assert counts == {
        "proposed": len(rows),
        "passed the filter": len(rows) - said["rejected"],
        "new": said["selected"] + said["passed over"],
        "selected": said["selected"],
        "evaluated": len(done),
        "without a failure": len(done) - failed,
        "different hits": hits,
    }
    low, high = wilson(hits, len(done))
    text = html.unescape(page)
    assert (
        f"Asked for: crystals with {wanted}, of the lowest energy_above_hull." in text
    )
    what = "energy_above_hull up to 0.6 eV/atom, still within the constraints"
    assert f"{hits} different hits, {what}; that is" in text
    assert f"of the calls (95 % interval {low:.0%} to {high:.0%})" in text
    loop.close()


def test_what_lies_too_far_below_the_hull_is_no_hit(tmp_path):
    class Deep(Toy):
        def evaluate(self, crystals):
            found = super().evaluate(crystals)
            values = found.energy_above_hull - 0.8
            column = {"energy_above_hull": design.Column(values, "eV/atom")}
            return replace(found, columns=column)

    loop = design.Campaign(Alloys(bad=0), None, Deep(), tmp_path / "a.db", budget=30)
    list(loop)
    found = loop.best(99).properties["energy_above_hull"]
    near = int((found.abs() <= 0.1).sum())
    assert near and float(found.min()) < -0.1
    page = design.report_campaign(loop, tmp_path / "a.html").read_text()
    assert f"<b>{near}</b> different hits" in page
    assert "within 0.1 eV/atom of the hull, ranked" in page
    page = design.report_campaign(
        loop, tmp_path / "a.html", hit=0.05, finalists=99
    ).read_text()
    assert "within 0.05 eV/atom of the hull, ranked" in page
    assert "more than 0.05 eV/atom above the hull" in page
    assert "more than 0.1 eV/atom below all that is known" in page
    loop.close()


class Below(Toy):
    """Says of every crystal that is less than half copper that it is far below the hull."""

    def evaluate(self, crystals):
        found = super().evaluate(crystals)
        copper = 1 - found.energy_above_hull
        values = torch.where(copper >= 0.5, copper - 0.5, copper - 5)
        column = {"energy_above_hull": design.Column(values, "eV/atom")}
        return replace(found, columns=column, reason=("",) * len(crystals))


def test_finalists_are_the_best_that_are_believed_however_many_lie_below(tmp_path):
    loop = design.Campaign(Alloys(bad=0), None, Below(), tmp_path / "a.db", budget=60)
    list(loop)
    worth = loop.table()["objective"]
    assert (worth < -0.1).sum() > 24 and (worth == 0).sum() > 2
    for most in (1, 3):
        page = tmp_path / "a.html"
        text = design.report_campaign(loop, page, finalists=most).read_text()
        assert len(re.findall(r"finalist \d", text)) == min(most, (worth == 0).sum())
    loop.close()


class Press(Toy):
    """Every crystal comes back in a smaller cell where its place is odd."""

    def evaluate(self, crystals):
        found = super().evaluate(crystals)
        lattice = crystals.lattice.clone()
        lattice[1::2] *= 0.8
        return replace(found, structures=crystals.replace(lattice=lattice))


class Apart(design.MinDistance):
    """A constraint of the user's own."""


@pytest.mark.parametrize("kind", [design.MinDistance, Apart])
def test_hits_still_meet_the_constraints_or_the_report_says_it_cannot_tell(
    tmp_path, kind
):
    where = tmp_path / "a.db"
    loop = design.Campaign(Alloys(bad=0), kind(2.3), Press(), where, budget=20)
    list(loop)
    found = loop.best(99)
    kept = int(kind(2.3).satisfied(found).sum())
    assert 0 < kept < len(found)
    page = design.report_campaign(loop, tmp_path / "a.html", hit=9).read_text()
    assert f"{kept} different hits, " in page and "still within the constraints" in page
    loop.close()
    seen = design.Campaign.view(where)
    page = design.report_campaign(seen, tmp_path / "b.html", hit=9).read_text()
    many, said = (
        (len(found), "not checked for") if kind is Apart else (kept, "still within")
    )
    assert f"{many} different hits, " in page and f"{said} " in page
    assert "crystals with" in page


def test_a_judge_may_be_named(campaign, tmp_path):
    page = tmp_path / "a.html"
    with pytest.raises(
        DataError, match=r"no judge 'luck'; choose of .*r2scan.*judge-p"
    ):
        design.report_campaign(campaign, page, judge="luck")
    with pytest.raises(
        DataError, match="judge-band-gap does not compute the objective"
    ):
        design.report_campaign(campaign, page, judge="judge-band-gap")
    assert not page.exists()
    text = design.report_campaign(campaign, page, judge="judge-prototypes").read_text()
    first = campaign.best(1)
    network = design.load_predictor("judge-prototypes")
    again = float(network.predict(first)["energy_above_hull"][0])
    assert f"{again:.4g} eV/atom by the judge judge-prototypes" in text
    loop = campaign.best(6)
    own, other = (
        (-0.1 <= one) & (one <= 0.1)
        for one in (
            loop.properties["energy_above_hull"],
            network.predict(loop)["energy_above_hull"],
        )
    )
    sure = f"{int((own & other).sum())} of {int(own.sum())} hits among 6 finalists"
    assert f"judge-prototypes confirms {sure}" in text


MILLI = design.FunctionOracle(
    lambda _: 0.0, {"energy_above_hull": "meV/atom"}, name="milli"
)


class Broken(Toy):
    """Only the second crystal of a batch does not fail."""

    def evaluate(self, crystals):
        found = super().evaluate(crystals)
        reason = tuple("" if i == 1 else "broken 3" for i in range(len(crystals)))
        return replace(found, reason=reason)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"judge": Toy()}, "is the loop's own oracle"),
        ({"judge": MILLI}, "in meV/atom, the loop in eV/atom"),
        ({"judge": Two()}, "two does not compute the objective"),
        ({"hit": math.nan}, "nothing can be a hit: got nan"),
        ({"hit": -0.2}, "nothing can be a hit: got -0.2"),
    ],
)
def test_what_can_say_nothing_is_refused_before_it_works(
    campaign, tmp_path, given, words
):
    with pytest.raises(DataError, match=words):
        design.report_campaign(campaign, tmp_path / "a.html", **given)
    assert not (tmp_path / "a.html").exists()


def test_the_potential_of_the_loop_is_no_judge_whatever_its_settings(tmp_path):
    where, slow = tmp_path / "a.db", design.PotentialOracle(time_limit=30, steps=50)
    loop = design.Campaign(Alloys(bad=0), None, slow, where, budget=2, batch=2)
    loop.ask()
    rows = replace(Toy().evaluate(loop.ask()), oracle=slow.name)
    loop.tell(replace(rows, reason=("", "")))
    again = design.PotentialOracle(time_limit=20)
    kept = design.Cached(again, tmp_path / "kept.db")
    limits = {"energy_above_hull": (-1.0, 1.0)}
    for judge in ("0.3.0", kept, design.Cascade(Toy(), again, within=limits)):
        with pytest.raises(DataError, match="is the loop's own oracle"):
            design.report_campaign(loop, tmp_path / "a.html", judge=judge)
    loop.close()


def test_a_judge_is_another_method_for_the_objective_whatever_it_is_part_of():
    def gap(name):
        return design.FunctionOracle(len, {"gap": "eV"}, name=name)

    loop, limits = design.PotentialOracle(), {"energy_above_hull": (-1.0, 1.0)}
    other = design.PotentialOracle("r2scan")
    first, second = gap("first"), gap("second")
    one = design.Cascade(loop, first, within=limits)
    assert computing(one, "gap") == computing(first, "gap") == "first"
    assert computing(design.Cascade(loop, second, within=limits), "gap") == "second"
    assert (
        computing(design.Cascade(first, loop, within={"gap": (0, 1)}), "gap") == "first"
    )
    assert computing(design.Cached(one), "energy_above_hull") == "chgnet/0.3.0"
    two = design.Cascade(other, first, within=limits)
    assert computing(two, "energy_above_hull") == "chgnet/r2scan"
    volts = design.VoltageOracle("Li", other)
    assert computing(volts, "average_voltage") == "chgnet/r2scan"


def test_failures_that_are_not_shown_are_counted(tmp_path):
    loop = design.Campaign(Alloys(), None, Broken(), tmp_path / "a.db", budget=30)
    list(loop)
    page = design.report_campaign(loop, tmp_path / "a.html").read_text()
    bad = int((~loop.table()["ok"]).sum())
    assert bad > 24 and f"Of {bad} that failed the last 24 are below" in page
    loop.close()


def test_a_report_by_view_is_the_same(campaign, tmp_path):
    made = design.report_campaign(campaign, tmp_path / "a.html").read_text()
    other = design.Campaign.view(campaign.store.where)
    again = design.report_campaign(other, tmp_path / "b.html").read_text()
    assert made.count("<tr>") == again.count("<tr>")
    assert [a.alt for a in design.plot_campaign(campaign)] == [
        b.alt for b in design.plot_campaign(other)
    ]


def test_a_campaign_without_results_has_no_report(tmp_path):
    furnace = design.Experiment({"energy_above_hull": "eV/atom"})
    loop = design.Campaign(Alloys(), None, furnace, tmp_path / "a.db", batch=2)
    assert design.plot_campaign(loop) == []
    assert "Campaign" in design.Dashboard(loop).to_html()
    loop.ask()
    assert "2 waiting" in design.plot_campaign(loop)[0].alt
    with pytest.raises(DataError, match="Give at least one"):
        design.report_campaign(loop, tmp_path / "page.html")
    loop.close()


def test_a_dashboard_follows_the_campaign(tmp_path, monkeypatch):
    loop = design.Campaign(
        Alloys(bad=0), None, Toy(), tmp_path / "a.db", budget=6, batch=3
    )
    board = design.Dashboard(loop)
    box = board.widget()
    assert len(box.children) == 1 and "oracle calls 0 of 6" in box.children[0].value
    seen = []
    for iteration in board:
        seen.append(iteration.spent)
        assert f"oracle calls {iteration.spent} of 6" in box.children[0].value
        assert len(box.children) == 2
    assert seen == [3, 6]
    monkeypatch.setenv("MATDESIGN_STATIC", "1")
    static = board._repr_mimebundle_()
    assert set(static) == {"text/plain", "text/html"}
    best = loop.best(1)
    assert best.formulas[0] in static["text/html"] and "<svg" in static["text/html"]
    loop.close()
