"""A campaign as figures: while it runs, and as a report of one file."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from matdesign.constraints.checks import check
from matdesign.crystals.batch import Crystals
from matdesign.crystals.matching import reduced
from matdesign.display.live import stack
from matdesign.display.pages import Live
from matdesign.display.plots import COLORS, HATCHES, Plot, canvas, draw_lines
from matdesign.display.report_page import NEAR_HULL
from matdesign.display.reporting import report
from matdesign.display.viewer import view
from matdesign.errors import DataError
from matdesign.loop.cascade import computing
from matdesign.loop.function_oracle import FunctionOracle
from matdesign.loop.iteration import unselected
from matdesign.loop.oracle import Oracle, PotentialOracle
from matdesign.loop.potential import WEIGHTS
from matdesign.loop.rebuild import check_objective, value
from matdesign.loop.results import UNITS, Results
from matdesign.metrics.evaluator import evaluate
from matdesign.metrics.intervals import wilson
from matdesign.predictors.shipped import load_predictor, property_networks

if TYPE_CHECKING:
    import pandas
    from pymatgen.core import Structure

    from matdesign.loop.campaign import Campaign
    from matdesign.loop.iteration import Iteration


def plot_campaign(campaign: Campaign, known: Crystals | None = None) -> list[Plot]:
    """Return how a campaign goes: progress, hypervolume, fates, diversity, surrogate.

    Args:
        campaign: running, ended, or of `Campaign.view`.
        known: training or other known crystals, for the shares of what is known.

    Returns:
        Those for which there is something to draw.
    """
    return _plots(campaign, known, campaign.store.decisions())


def _plots(campaign: Campaign, known: Crystals | None, rows: list[Any]) -> list[Plot]:
    import pandas

    if not rows:
        return []
    made = pandas.DataFrame(rows)
    table, (named, unit) = campaign.table(), _objective(campaign)
    done = dict(zip(table.get("id", ()), table.get("ok", ()), strict=True))
    ended = {name: "usable" if ok else "failed" for name, ok in done.items()}
    fate = made["id"].map(ended).astype(object).fillna(made["decision"])
    made["fate"] = fate.replace("selected", "waiting")
    plots = [_progress(table, named, unit)] if len(table) else []
    plots += _tradeoff(campaign, table)
    plots += [_fates(made, table), _diversity(made, known)]
    if len(table) and "predicted" in made:
        said = made.merge(table[["id", "objective"]], on="id")
        said = said.dropna(subset=["predicted", "objective"])
        plots += [_surrogate(said, named)] if len(said) else []
    return plots


def _objective(campaign: Campaign) -> tuple[str, str]:
    """Return the name of what a campaign lowers, and its unit."""
    aim = campaign.objective
    named = aim if isinstance(aim, str) else "objective"
    return named, campaign.history.units.get(named.removeprefix("-"), "")


def _progress(table: pandas.DataFrame, named: str, unit: str) -> Plot:
    values, calls = table["objective"].to_numpy(), range(1, len(table) + 1)
    best = np.fmin.accumulate(values)
    figure, axes = canvas()
    axes.scatter(calls, values, s=12, color="#888888", label="evaluated")
    axes.step(calls, best, where="post", color=COLORS[0], lw=2, label="best so far")
    axes.set(xlabel="oracle calls", ylabel=named + f" ({unit})" * bool(unit))
    axes.legend(frameon=False, fontsize=10)
    alt = f"Best {named} so far: {best[-1]:.4g} in {len(values)} calls."
    return Plot(figure, alt, f"{alt} A point is a result; failures have none.")


def hypervolumes(values: Tensor, calls: Sequence[int]) -> list[float]:
    """Return the volume that the first n rows dominate, for each n; by BoTorch.

    Args:
        values: the higher the better, shape (rows, objectives). The worst value of each
            objective is the reference point; a row with NaN adds nothing.
        calls: each n.
    """
    from botorch.utils.multi_objective.box_decompositions import DominatedPartitioning
    from botorch.utils.multi_objective.pareto import is_non_dominated

    known, found = values.isfinite().all(1), list[float]()
    for n in calls:
        seen = values[:n][known[:n]]
        boxes = DominatedPartitioning(
            values[known].amin(0), seen[is_non_dominated(seen)]
        )
        found.append(float(boxes.compute_hypervolume()) if len(seen) else 0.0)
    return found


def _tradeoff(campaign: Campaign, table: pandas.DataFrame) -> list[Plot]:
    """Return the hypervolume by oracle calls, where there are several objectives."""
    aims = getattr(campaign.select, "objectives", ()) or ()
    names, units = [one.removeprefix("-") for one in aims], campaign.history.units
    if not names or not {*names} <= {*table} & {*units}:
        return []
    signs = torch.tensor([1.0 if one[0] == "-" else -1.0 for one in aims])
    values = signs * torch.tensor(table[names].to_numpy(float))
    values[~torch.tensor(table["ok"].to_numpy(bool))] = math.nan
    known = values[values.isfinite().all(1)]
    if not len(known):
        return []
    # a hypervolume of a large front takes seconds, so that not every call has one
    calls = np.linspace(1, len(table), min(len(table), 25)).round().astype(int)
    found = hypervolumes(values, calls.tolist())
    unit = " · ".join(filter(None, (units[one] for one in names)))
    figure, axes = canvas()
    axes.step(calls, found, where="post", color=COLORS[0], lw=2)
    label = "dominated hypervolume" + f"\n({unit})" * bool(unit)
    axes.set(xlabel="oracle calls", ylabel=label, ylim=(0, None))
    worst = "; ".join(
        f"{name}, {'maximised' if sign > 0 else 'minimised'}, "
        f"{float(sign * low):.4g} {units[name]}".strip()
        for name, sign, low in zip(names, signs, known.amin(0), strict=True)
    )
    caption = f"Volume dominated, from the worst value seen of each: {worst}. "
    caption += "What another beats in all adds nothing; failures never count."
    alt = f"Hypervolume dominated by {' and '.join(names)}: {found[-1]:.4g}"
    return [Plot(figure, f"{alt} {unit}".strip() + f" in {len(table)} calls.", caption)]


def _fates(made: pandas.DataFrame, table: pandas.DataFrame) -> Plot:
    counts = made.groupby(["iteration", "fate"]).size().unstack(fill_value=0)
    figure, axes = canvas()
    bottom = np.zeros(len(counts))
    for n, fate in enumerate(counts):
        look: dict[str, Any] = {"color": COLORS[n % 6], "hatch": HATCHES[n % 6]}
        look |= {"edgecolor": "white", "label": str(fate)}
        axes.bar(counts.index, counts[fate], bottom=bottom, **look)
        bottom += counts[fate].to_numpy()
    axes.set(xlabel="iteration", ylabel="crystals")
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    found = ", ".join(f"{n} {fate}" for fate, n in counts.sum().items())
    spent = float(table["seconds"].sum()) if len(table) else 0.0
    cost = f"What became of the proposed: {found}. "
    cost += f"{len(table)} oracle calls took {spent:.0f} s of computing."
    return Plot(figure, f"Fate of {len(made)} proposed crystals: {found}.", cost)


def _diversity(made: pandas.DataFrame, known: Crystals | None) -> Plot:
    by = made.groupby("iteration")
    lines = {
        "different formulas": by["formula"].nunique() / by.size(),
        "duplicates": (made["fate"] == "duplicate").groupby(made["iteration"]).mean(),
    }
    if known is not None:
        formulas = set(reduced(known.species))
        systems = {frozenset(z for z, _ in one) for one in formulas}
        old = made["formula"].map(lambda one: one in formulas)
        near = made["formula"].map(lambda one: frozenset(z for z, _ in one) in systems)
        lines["known formulas"] = old.groupby(made["iteration"]).mean()
        lines["known chemical systems"] = near.groupby(made["iteration"]).mean()
    curves = {name: (one.index, one.to_numpy()) for name, one in lines.items()}
    figure, axes = draw_lines(curves, marked=1, xlabel="iteration", ylim=(0, 1.05))
    axes.set_ylabel("share of the proposed")
    axes.locator_params(axis="x", integer=True)
    ends = (f"{k} from {y[0]:.0%} to {y[-1]:.0%}" for k, (_, y) in curves.items())
    alt = f"Shares of the proposed, first to last: {'; '.join(ends)}."
    return Plot(figure, alt, f"{alt} A loop whose proposals grow alike explores less.")


def _surrogate(said: pandas.DataFrame, named: str) -> Plot:
    mean, std, true = (said[k] for k in ("predicted", "predicted_std", "objective"))
    figure, axes = canvas(4.2, 4.0)
    axes.errorbar(mean, true, xerr=std, fmt="o", ms=4, lw=0.8, color=COLORS[0])
    ends = [min(mean.min(), true.min()), max(mean.max(), true.max())]
    axes.plot(ends, ends, color="#333333", lw=1, ls="--")
    axes.set_xlabel(f"{named},\npredicted when chosen")
    axes.set_ylabel(f"{named}\nby the oracle")
    off, within = (true - mean).mean(), ((true - mean).abs() <= 2 * std).mean()
    found = f"the oracle's values are {abs(off):.3g} {'above' if off > 0 else 'below'}"
    alt = (
        f"Surrogate against oracle on {len(said)} chosen crystals: on average {found} the "
        f"predictions, {within:.0%} within two standard deviations."
    )
    return Plot(figure, alt, f"{alt} The dashed line: both agree.")


class Dashboard(Live):
    """A campaign to watch: show it, then iterate over it as over the campaign.

    Best so far, fates, cost, diversity, and the newest best crystal to turn. Shown again
    at the end it stays complete without a kernel.

    Args:
        campaign: to run, or to look at.
        known: as for `plot_campaign`.

    Example:
        >>> board = Dashboard(campaign)  # doctest: +SKIP
        >>> display(board)  # doctest: +SKIP
        >>> for iteration in board:  # doctest: +SKIP
        ...     pass
    """

    def __init__(self, campaign: Campaign, known: Crystals | None = None) -> None:
        self.campaign, self.known = campaign, known
        self._box: Any = None

    def __iter__(self) -> Iterator[Iteration]:
        for iteration in self.campaign:
            if self._box is not None:
                self.widget()
            yield iteration

    def __repr__(self) -> str:
        return f"Dashboard of a {self.campaign!r}"

    def to_html(self, crystals: bool = True) -> str:
        """Return what there is to see as HTML, with the best crystal or without."""
        shown: list[Any] = plot_campaign(self.campaign, self.known)
        shown += [view(one) for one in self.campaign.best(1) if crystals]
        said = f"<p>{html.escape(repr(self.campaign))}</p>"
        return said + "".join(one.to_html() for one in shown)

    def widget(self) -> Any:
        """Return the same with a live viewer; it changes with every iteration."""
        best = [view(one) for one in self.campaign.best(1)]
        self._box = stack(self.to_html(crystals=False), best, self._box)
        return self._box


def report_campaign(
    campaign: Campaign,
    path: str | Path = "build/campaign.html",
    *,
    known: Crystals | None = None,
    judge: Oracle | str | None = None,
    hit: float | None = None,
    finalists: int = 6,
) -> Path:
    """Write how a campaign went, on one page that opens offline; return its path.

    It says what was asked and found, counts the crystals from the proposed to the hits, and
    shows progress, spending and failures, and the four ways in which a loop goes wrong:
    the surrogate against the oracle on what it chose, diversity by iteration, how much is
    known already, and the finalists by the novelty ledger and by a judge that the loop never
    saw. The rest is as in `report`, of the finalists and of what failed in the oracle.

    Args:
        campaign: running, ended, or of `Campaign.view`.
        path: of the page.
        known: training or other known crystals, for what is new.
        judge: evaluates the finalists once more; nothing is recorded. An oracle, or a
            name: weights of the potential ("r2scan") or one of `property_networks()`.
        hit: highest value of the objective, sign included, of a hit. Where left out
            0.1 eV/atom for `energy_above_hull`, of which nothing below -0.1 is believed.
        finalists: at most how many of the best, in the order of `Campaign.best`.

    Raises:
        DataError: nothing is evaluated yet; no value could be a hit; the judge is unknown,
            the loop's own oracle, or computes the objective not at all or in another unit.
    """
    aim, (named, unit) = campaign.objective, _objective(campaign)
    judge = _named(judge) if isinstance(judge, str) else judge
    if not campaign.spent:
        raise DataError("nothing is evaluated yet. Give at least one result.")
    if judge is not None:
        _check_judge(judge, campaign)
    near = aim == "energy_above_hull"
    hit = NEAR_HULL if near and hit is None else hit
    least = -NEAR_HULL if near else -math.inf
    if hit is not None and not hit >= least:
        raise DataError(f"nothing can be a hit: got {hit}; give at least {least}.")

    def said(results: Results, row: int, x: Any = aim) -> str:
        unit = campaign.history.units.get(str(x).removeprefix("-"), "")
        return f"{value(x, results[[row]]):.4g} {unit}".strip()

    def hits(results: Results) -> list[bool]:
        each = [value(aim, results[[i]]) for i in range(len(results))]
        met = [True] * len(each)
        if campaign.constraints and len(each):
            met = check(results.structures, campaign.constraints).met.tolist()
        fine = (hit is not None and least <= one <= hit for one in each)
        return [one and still for one, still in zip(fine, met, strict=True)]

    made, table = campaign.store.decisions(), campaign.table()
    dropped = Counter(unselected(one["decision"], one["reason"]) for one in made)
    del dropped[""]
    facts: dict[str, object] = {"campaign": repr(campaign)}
    facts |= {f"not evaluated: {why}": n for why, n in dropped.items()}
    origins = Counter((one.get("model", "?"), one.get("guide", "")) for one in made)
    for by, n in origins.items():
        facts["crystals by " + ", ".join(filter(None, by))] = n
    facts["computing time of the oracle"] = f"{float(table['seconds'].sum()):.1f} s"

    gone, calls = Counter(one["decision"] for one in made), len(table)
    passed, many = len(made) - gone["rejected"], int(table["ok"].sum())
    funnel = [
        (len(made), "proposed"),
        (passed, "passed the filter: sound, and within the constraints"),
        (passed - gone["duplicate"], "new: like no crystal before"),
        (gone["selected"], "selected"),
        (calls, "evaluated"),
        (many, "without a failure"),
    ]
    wanted = (campaign.store.settings() or {}).get("wanted", "")
    asked = f" with {wanted}," if wanted else ""
    what, aims = "usable results", campaign.history.objectives or [named]
    if hit is not None:
        low = calls if len(aims) > 1 else int((table["objective"] <= hit).sum())
        many = sum(hits(campaign.history.results(low, least=least)))
        what = f"different hits, {named} up to {hit:g} {unit}".strip()
        kept = "still within" if campaign.constraints else "not checked for"
        what += f", {kept} the constraints" * bool(wanted)
        funnel.append((many, what))
    ends = " to ".join(f"{end:.0%}" for end in wilson(many, calls))
    lead = [
        f"Asked for: crystals{asked} of the lowest {' and '.join(aims)}. Found by "
        f"{calls} oracle calls on {len(made)} proposed crystals: {many} {what}; that is "
        f"{many / calls:.0%} of the calls (95 % interval {ends})."
    ]
    bad = int((~table["ok"]).sum())
    shown = campaign.history.results(finalists, 24, least)
    first = shown[[i for i in range(len(shown)) if value(aim, shown[[i]]) >= least]]
    lead += [
        f"finalist {row['id']}, {row['formula']}: {named} {said(first, i)}"
        + "".join(f", {x} {said(first, i, x)}" for x in aims if x != named)
        for i, row in enumerate(first.rows())
    ]
    if judge is not None and len(first):
        found = judge.evaluate(first.structures)
        for i, why in enumerate(found.reason):
            lead[1 + i] += f", {why or said(found, i)} by the judge {judge.name}"
        if hit is not None:
            both = sum(map(min, hits(first), hits(found)))
            sure = f"{both} of {sum(hits(first))} hits among {len(first)} finalists"
            lead.append(f"The judge {judge.name} confirms {sure}.")
    lead += [f"Of {bad} that failed the last 24 are below."] * (bad > 24)
    return report(
        shown.structures,
        shown,
        evaluate(shown.structures, known),
        path,
        title=f"Campaign {Path(campaign.store.name).stem}",
        facts=facts,
        plots=_plots(campaign, known, made),
        lead=lead,
        funnel=funnel,
        near=hit if near and hit is not None else NEAR_HULL,
    )


def _check_judge(judge: Oracle, campaign: Campaign) -> None:
    # one that repeats the loop's values, or gives them in another unit, says nothing
    check_objective(judge, campaign.objective)
    named, unit = _objective(campaign)
    column = named.removeprefix("-")
    if computing(judge, column) == computing(campaign.oracle, column):
        raise DataError(f"{judge.name} is the loop's own oracle: take another judge.")
    other = getattr(judge, "columns", UNITS).get(column, unit)
    if campaign.history.units.get(column, other) != other:
        raise DataError(f"the judge gives {named} in {other}, the loop in {unit}.")


def _named(name: str) -> Oracle:
    """Return the judge of a name: weights of the potential, or a property network."""
    networks = property_networks()
    if name in WEIGHTS:
        return PotentialOracle(name)
    if name not in networks:
        raise DataError(f"no judge {name!r}; choose of {[*WEIGHTS, *networks]}.")
    network = load_predictor(name)

    def predicted(structure: Structure) -> dict[str, float]:
        found = network.predict(Crystals.from_structures([structure]))
        return {key: float(one[0]) for key, one in found.items()}

    units = dict(zip(network.properties, network.units, strict=True))
    return FunctionOracle(predicted, units, name=name)
