"""Judge a trained property network on held-out crystals and write its card.

    python scripts/property_card.py energy-prototypes
    python scripts/property_card.py band-gap-mp20 --data mp_20_dev.parquet --aim band_gap=0.4

Errors are those on the test part, which no choice was made on. Energies are also judged on
shaken test crystals (scripts/shaken.py), where the default potential says what is true: a
network that guides a sampler meets such crystals all the time. Writes card.json and
card.md beside the weights; scripts/train_property.py ends with the same.
"""

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import shaken
import torch
from made import labelled as generated
from mp20 import load_reduced
from numpy.typing import NDArray

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.generators.storage import write_atomic
from matdesign.metrics.intervals import bootstrap
from matdesign.paths import data_dir
from matdesign.predictors.network import PropertyNetwork

SOURCES = {
    "mp20": "Labels are those of the Materials Project (PBE and PBE+U, CC BY 4.0), of "
    "relaxed crystals within 0.08 eV/atom of the hull; of others the network was shown "
    "nothing, and it judges them too kindly.",
    "shipped": "Labels are those of the potential CHGNet 0.3.0, an approximation of "
    "PBE(+U); no density functional calculation was made.",
}
PART = (
    "One compound may stand in the training part and in the test part as two polymorphs, "
    "which makes these errors smaller than those on new chemistry."
)
APART = (
    "A judge of crystals that `{other}` guided, trained apart: with another seed, another "
    "order of the data, a network of another shape, and every second row of the training "
    "part. `{other}` saw all of these rows, so that what both know is not disjoint. Shaken "
    "copies and crystals that generators made, where there are any, are its own."
)
SHAKEN, SHAKEN_SEED, MADE = 300, 1_000, 400


def parts(data: str) -> dict[str, Crystals]:
    """Return the parts of a shipped set, or of the table of reduced MP-20."""
    if data.endswith(".parquet"):
        return load_reduced(data)
    return {k: design.load(data, split=k) for k in ("train", "val", "test")}


def numbers(pairs: list[str]) -> dict[str, float]:
    """Return {"band_gap": 0.4} of ["band_gap=0.4"]."""
    return {k: float(v) for k, _, v in (pair.partition("=") for pair in pairs)}


def figure(values: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of some values with its bootstrap interval."""
    low, high = bootstrap(
        lambda draws: float(np.average(values, weights=draws)),
        len(values),
        resamples=1_000,
    )
    mean = float(values.mean())
    return {k: round(v, 5) for k, v in (("value", mean), ("low", low), ("high", high))}


def judge(
    net: PropertyNetwork, name: str, sets: dict[str, Crystals], aims: dict[str, float]
) -> dict[str, Any]:
    """Return the errors of one property on the test part."""
    test = sets["test"]
    true = test.properties[name].double().numpy()
    known = np.isfinite(true)
    true = true[known]
    members = net.predict_members(test)[name].double().numpy()[:, known]
    found = members.mean(0)
    error, doubt = np.abs(found - true), members.std(0)
    floor = net.floors[net.properties.index(name)]
    mean = float(sets["train"].properties[name].double().nanmean())
    hot = torch.nn.functional.one_hot(test.species, len(net.baseline)).double()
    share = (hot * test.mask[..., None]).sum(1) / test.n_atoms[:, None]
    k = net.properties.index(name)
    line = (share @ net.baseline.double())[:, k].numpy()[known]
    line = line if floor is None else line.clip(min=floor)
    out: dict[str, Any] = {
        "unit": net.units[k],
        "n": len(true),
        "mae": figure(error),
        "rmse": round(float(np.sqrt((error**2).mean())), 5),
        "median_error": round(float(np.median(error)), 5),
        "error_90": round(float(np.quantile(error, 0.9)), 5),
        "bias": round(float((found - true).mean()), 5),
        "r2": round(1 - float(((found - true) ** 2).mean() / true.var()), 5),
        "mae_of_one_network": round(float(np.abs(members - true).mean()), 5),
        "mae_of_composition_line": round(float(np.abs(line - true).mean()), 5),
        "mae_of_training_mean": round(float(np.abs(mean - true).mean()), 5),
        "ranges": ranges(true, found, floor),
    }
    if len(members) > 1:
        sure = doubt <= np.median(doubt)
        out["mae_where_members_agree"] = round(float(error[sure].mean()), 5)
        out["mae_where_members_disagree"] = round(float(error[~sure].mean()), 5)
    if floor is not None:
        edge = floor + 0.1  # a tenth of an electronvolt
        same = (true > floor) == (found > edge) if name == "band_gap" else None
        if same is not None:
            out["metal_or_not"] = figure(same.astype(float))
    if name in aims:
        out["aim"] = aims[name]
        out["met"] = out["mae"]["value"] <= aims[name]
    return out


def ranges(
    true: NDArray[np.float64], found: NDArray[np.float64], floor: float | None
) -> list[dict[str, Any]]:
    """Return errors by true value: those at the floor, then fifths of the rest."""
    rest = true if floor is None else true[true > floor]
    edges = np.quantile(rest, np.linspace(0, 1, 6))
    groups = [("at the floor", true <= floor)] if floor is not None else []
    for i, (low, high) in enumerate(pairwise(edges)):
        inside = (true >= low) & ((true < high) if i < 4 else (true <= high))
        if floor is not None:
            inside &= true > floor
        groups.append((f"{low:.3g} to {high:.3g}", inside))
    return [
        {
            "range": text,
            "n": int(some.sum()),
            "mae": round(float(np.abs(found - true)[some].mean()), 4),
            "bias": round(float((found - true)[some].mean()), 4),
        }
        for text, some in groups
        if some.any()
    ]


def judge_shaken(net: PropertyNetwork, name: str, test: Crystals) -> dict[str, Any]:
    """Return errors of an energy on shaken test crystals, by displacement."""
    some = torch.linspace(0, len(test) - 1, min(len(test), SHAKEN)).long()
    before = test[some]
    made = shaken.labelled(before, copies=1, seed=SHAKEN_SEED)
    kept = [before.ids.index(one.removesuffix("-shaken")) for one in made.ids]
    rested = net.predict(before[kept])[name].double().numpy()
    found = net.predict(made)[name].double().numpy()
    true, cost, size = (
        made.properties[k].double().numpy() for k in (name, "cost", "displacement")
    )
    rows = []
    for low, high in ((0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.4)):
        at = (size >= low) & (size < high)
        rows.append(
            {
                "angstrom": f"{low} to {high}",
                "n": int(at.sum()),
                "mae": round(float(np.abs(found - true)[at].mean()), 4),
                "true_cost": round(float(cost[at].mean()), 4),
                "predicted_cost": round(float((found - rested)[at].mean()), 4),
            }
        )
    return {"n": len(made), "mae": figure(np.abs(found - true)), "ranges": rows}


def side_by_side(
    net: PropertyNetwork, other: PropertyNetwork, name: str, test: Crystals
) -> dict[str, Any]:
    """Return how two predictors of one property differ on the test part."""
    true = test.properties[name].double().numpy()
    known = np.isfinite(true)
    both = [one.predict(test)[name].double().numpy()[known] for one in (net, other)]
    errors = [found - true[known] for found in both]
    return {
        "n": int(known.sum()),
        "difference": figure(np.abs(both[0] - both[1])),
        "correlation_of_errors": round(float(np.corrcoef(*errors)[0, 1]), 3),
    }


def judge_made(
    net: PropertyNetwork, other: PropertyNetwork, name: str, data: str, guide: str
) -> dict[str, Any]:
    """Return errors of two predictors on crystals that generators made, unseen by both."""
    some = generated(
        data, count=MADE, guides=MADE // 2, predictor=guide, seed=SHAKEN_SEED
    )
    true = some.properties[name].double().numpy()
    errors = {
        key: one.predict(some)[name].double().numpy() - true
        for key, one in (("judge", net), ("guide", other))
    }
    return {
        "n": len(some),
        "mae": figure(np.abs(errors["judge"])),
        "guide_mae": figure(np.abs(errors["guide"])),
        "bias": round(float(errors["judge"].mean()), 4),
        "guide_bias": round(float(errors["guide"].mean()), 4),
        "correlation_of_errors": round(
            float(np.corrcoef(errors["judge"], errors["guide"])[0, 1]), 3
        ),
    }


def section(name: str, one: dict[str, Any]) -> list[str]:
    """Return the lines of the card about one property."""
    unit, mae = one["unit"], one["mae"]
    lines = [
        f"## {name} ({unit})",
        "",
        f"| on {one['n']:,} held-out crystals | figure |",
        "| --- | --- |",
        f"| mean absolute error | {mae['value']:.4f} (95 % interval {mae['low']:.4f} to "
        f"{mae['high']:.4f}) |",
        f"| root mean square error | {one['rmse']:.4f} |",
        f"| median and 90 % quantile of the error | {one['median_error']:.4f}, "
        f"{one['error_90']:.4f} |",
        f"| bias, R2 | {one['bias']:+.4f}, {one['r2']:.4f} |",
        f"| mean absolute error of one network alone | {one['mae_of_one_network']:.4f} |",
        f"| of a line through the composition | {one['mae_of_composition_line']:.4f} |",
        f"| of the training mean | {one['mae_of_training_mean']:.4f} |",
    ]
    if "mae_where_members_agree" in one:
        lines.append(
            "| where the networks agree better or worse than the median | "
            f"{one['mae_where_members_agree']:.4f}, "
            f"{one['mae_where_members_disagree']:.4f} |"
        )
    if "metal_or_not" in one:
        rate = one["metal_or_not"]
        lines.append(
            "| metal or not, a gap counted above 0.1 eV | "
            f"{100 * rate['value']:.1f} % right ({100 * rate['low']:.1f} to "
            f"{100 * rate['high']:.1f} %) |"
        )
    lines += ["", "| true value | crystals | mean absolute error | bias |"]
    lines.append("| --- | --- | --- | --- |")
    lines += [
        f"| {row['range']} | {row['n']} | {row['mae']:.4f} | {row['bias']:+.4f} |"
        for row in one["ranges"]
    ]
    worst = max(one["ranges"], key=lambda row: row["mae"])
    if "aim" in one:
        word = "met" if one["met"] else f"missed by {mae['value'] - one['aim']:.4f}"
        lines += ["", f"Aim: at most {one['aim']:g} {unit}: {word}."]
    lines += [
        "",
        f"Least to be trusted for true values of {worst['range']}: {worst['mae']:.4f} on "
        f"average, bias {worst['bias']:+.4f}.",
        "",
    ]
    if "apart" in one:
        two = one["apart"]
        lines += [
            f"It differs from the predictor that it judges by "
            f"{two['difference']['value']:.4f} (95 % interval "
            f"{two['difference']['low']:.4f} to {two['difference']['high']:.4f}) on these "
            f"crystals; their errors correlate by {two['correlation_of_errors']:.2f}.",
            "",
        ]
    if "made" in one:
        two = one["made"]
        lines += [
            f"Of {two['n']} crystals that the shipped generators made, a third of them "
            f"guided, the energy as they stand is wrong by {two['mae']['value']:.4f} (95 % "
            f"interval {two['mae']['low']:.4f} to {two['mae']['high']:.4f}), bias "
            f"{two['bias']:+.4f}; that of the predictor which it judges by "
            f"{two['guide_mae']['value']:.4f} ({two['guide_mae']['low']:.4f} to "
            f"{two['guide_mae']['high']:.4f}), bias {two['guide_bias']:+.4f}. There their "
            f"errors correlate by {two['correlation_of_errors']:.2f}.",
            "",
        ]
    if "shaken" in one:
        lines += [
            f"Of {one['shaken']['n']} shaken test crystals the energy is wrong by "
            f"{one['shaken']['mae']['value']:.4f} (95 % interval "
            f"{one['shaken']['mae']['low']:.4f} to {one['shaken']['mae']['high']:.4f}); "
            "what the shaking costs by the potential, and by the network:",
            "",
            "| displacement of each coordinate (angstrom) | crystals | mean absolute error "
            "| true cost | predicted cost |",
            "| --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {row['angstrom']} | {row['n']} | {row['mae']:.4f} | "
            f"{row['true_cost']:+.4f} | {row['predicted_cost']:+.4f} |"
            for row in one["shaken"]["ranges"]
        ]
        lines.append("")
    return lines


def write_card(
    net: PropertyNetwork,
    sets: dict[str, Crystals],
    aims: dict[str, float],
    folder: Path,
) -> None:
    """Judge a network, write card.json and card.md, print the second."""
    test, made = sets["test"], net.record
    start = time.perf_counter()
    net.predict(test)
    speed = len(test) / (time.perf_counter() - start)
    found = {name: judge(net, name, sets, aims) for name in net.properties}
    for name in net.properties:
        if name in shaken.ENERGIES:
            found[name]["shaken"] = judge_shaken(net, name, test)
    if "apart_from" in made:
        other = PropertyNetwork.load(data_dir() / "models" / made["apart_from"])
        for name in net.properties:
            found[name]["apart"] = side_by_side(net, other, name, test)
            if "made_crystals" in made:
                found[name]["made"] = judge_made(
                    net, other, name, made["data"], made["apart_from"]
                )
    card = {
        "name": made["name"],
        "model": f"PropertyNetwork of {len(net.members)} members, "
        f"{sum(p.numel() for p in net.parameters()):,} parameters.",
        "source": SOURCES["mp20" if made["data"] == "reduced MP-20" else "shipped"],
        "test": found,
        "training": made,
        "crystals_per_second": round(speed, 1),
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "licence": "MIT",
    }
    more = made.get("shaken_crystals", 0)
    text = (
        f", and {more:,} shaken copies of them with the energy that the potential CHGNet "
        "0.3.0 adds"
        if more
        else ", all of them relaxed: what an atom in the wrong place costs the network was "
        "never shown"
    )
    if "made_crystals" in made:
        own = made["made_crystals"]
        text += (
            f", and {own:,} crystals that the shipped generators made, guided or not"
        )
        more += own
    first = made.get("started_from") or {}
    before = f", going on from the weights of `{first['command']}`" if first else ""
    if "band_gap" in found:
        card["source"] += (
            " Gaps of PBE are far smaller than measured ones, often by 40 to 50 %: a gap "
            "from here is one of PBE."
        )
    lines = [f"# {card['name']}", "", f"{card['model']} {card['source']}", ""]
    if "apart_from" in made:
        lines += [APART.format(other=made["apart_from"]), ""]
    for name, one in found.items():
        lines += section(name, one)
    lines += [
        PART,
        "",
        f"**Training.** {made['crystals'] - more:,} crystals of `{made['data']}`{text} "
        f"(checksum {made['data_sha256'][:16]}); {made['steps']:,} steps of "
        f"{made['batch_size']} in {made['seconds'] / 60:.0f} minutes on {made['device']} "
        f"of a machine shared with much other work ({made['hardware']}), seed "
        f"{made['seed']}: `{made['command']}`{before}. Mean absolute error at the end, validation: "
        f"{made.get('val_loss')}; training: "
        f"{', '.join(f'{v} ({k})' for k, v in made['terms'].items())}.",
        "",
        f"**Speed.** {speed:.0f} crystals per second on one thread of the same machine.",
        "",
        "Weights: MIT, like the code.",
    ]
    write_atomic(folder / "card.json", (json.dumps(card, indent=1) + "\n").encode())
    write_atomic(folder / "card.md", ("\n".join(lines) + "\n").encode())
    print((folder / "card.md").read_text())


def main() -> None:
    """Judge a saved network again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="of the model")
    parser.add_argument(
        "--data", help="mp_20_dev.parquet, where it was trained on that"
    )
    parser.add_argument("--aim", nargs="*", default=[], metavar="NAME=MAE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = data_dir() / "models" / args.name
    net = PropertyNetwork.load(folder)
    sets = parts(args.data or str(net.record["data"]))
    write_card(net, sets, numbers(args.aim), folder)


if __name__ == "__main__":
    main()
