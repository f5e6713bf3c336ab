"""Sentences that pages compute: directions follow from intervals, in either direction."""

from dataclasses import dataclass

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.metrics.evaluator import Comparison, compare
from matdesign.teach import claims
from matdesign.teach.chapters import Sweep


def crystals(volume: float) -> Crystals:
    """One cubic cell of one atom with this volume in angstrom^3."""
    cell = volume ** (1 / 3) * torch.eye(3)[None]
    return Crystals(torch.tensor([[26]]), torch.zeros(1, 1, 3), cell)


def sweep(*hits: int, volume: float = 9.5) -> Sweep:
    """A sweep of 64 crystals a row: nothing asked, then scales 0, 1, 2 and 4."""
    names = ["nothing", *(f"target, scale {s:g}" for s in (0, 1, 2, 4))]
    rows = [
        {
            "condition": name,
            "hits": k,
            "n": 64,
            "low": k / 64 - 0.1,
            "high": k / 64 + 0.1,
        }
        for name, k in zip(names, hits, strict=True)
    ]
    return Sweep(tuple(rows), (crystals(volume),))


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ((0.6, 0.8), "above"),
        ((0.0, 0.1), "below"),
        ((0.2, 0.5), "not distinguished from"),
    ],
)
def test_intervals_decide(one: tuple[float, float], words: str) -> None:
    assert claims.compared(one, (0.15, 0.3)) == words


def test_more_is_not_always_better() -> None:
    said = claims.best_scale(sweep(0, 10, 17, 40, 5))
    assert "Most hits, 40 of 64, come at scale 2" in said
    assert "9.5 Å³ per atom (fewer: more is not better)" in said
    assert "(the intervals overlap)" in claims.best_scale(sweep(0, 10, 17, 40, 38))
    assert "no smaller scale has more hits" in claims.best_scale(sweep(0, 50, 9, 9, 40))


def test_samples_beside_baselines() -> None:
    """Equal batches beat nothing; the sentence names the samples it speaks of."""
    known = Crystals.cat([crystals(v) for v in (10.0, 11.0, 12.0)])
    judged: Comparison = compare({"samples": known, "others": known}, known)
    for name in ("samples", "others"):
        said = claims.against_baselines(judged, name)
        assert said.startswith(f"the {name} are not better than every baseline in")
        assert "compositional validity" in said and not said.endswith(".")


@dataclass
class Model:
    """A model with the record that training writes."""

    record: dict[str, object]


def test_how_long_training_took() -> None:
    record = {"steps": 7000, "seconds": 5016.2, "device": "cpu (1 thread)"}
    assert (
        claims.trained(Model(record)) == "7,000 steps in 84 minutes, on cpu (1 thread)"
    )
    long = {**record, "seconds": 36000.0}
    assert "in 10.0 hours" in claims.trained(Model(long))
    more = {**record, "started_from": {"steps": 3000}}
    assert claims.trained(Model(more)).endswith("after 3,000 steps of earlier weights")
