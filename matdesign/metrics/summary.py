"""What is reported beside the table: figures with intervals, and the protocol."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdesign.crystals.matching import TOLERANCES
from matdesign.environment import package_version
from matdesign.metrics.intervals import wilson


@dataclass(frozen=True)
class Protocol:
    """The settings of a judgement; two figures compare only where these agree.

    Args:
        shortest_distance: least distance between two sites, angstrom.
        smallest_volume: least cell volume, angstrom^3.
        states: SMACT's list of oxidation states; published figures use "smact14".
        mixed_valence: atoms of one element may have different charges.
        matcher: tolerances of "the same crystal": "mattergen" or "cdvae".
        comparisons: most candidates of its own formula one crystal is compared with.
        substitutions: most candidates of its formula with other elements, the most
            similar first (in reduced MP-20 the first one decides 150 of 153 cases).
        structure_cutoff: coverage, distance of structure fingerprints; 0.4 for MP-20,
            0.2 for Perov-5 and Carbon-24.
        composition_cutoff: the same for compositions; 10 for MP-20, 4 for the others.
        stable: most energy above the hull of a stable crystal, eV/atom.
        level: what the intervals cover.
        resamples: of the bootstrap.
    """

    shortest_distance: float = 0.5
    smallest_volume: float = 0.1
    states: str = "smact14"
    mixed_valence: bool = False
    matcher: str = "mattergen"
    comparisons: int = 20
    substitutions: int = 5
    structure_cutoff: float = 0.4
    composition_cutoff: float = 10.0
    stable: float = 0.1
    level: float = 0.95
    resamples: int = 200

    def lines(self) -> list[str]:
        """Return the settings and the versions that produced a figure, in sentences."""
        match = TOLERANCES[self.matcher]
        mixed = "mixed valence allowed" if self.mixed_valence else "no mixed valence"
        return [
            f"structure: distances >= {self.shortest_distance:g} Å (own images left "
            f"out), volume >= {self.smallest_volume:g} Å^3",
            f"composition: SMACT {package_version('smact')} rules, {self.states} oxidation "
            f"states, {mixed}; elements and alloys pass",
            f"same crystal: pymatgen {package_version('pymatgen')} StructureMatcher, "
            f"{self.matcher} settings (ltol {match['ltol']}, stol {match['stol']}, "
            f"angle {match['angle_tol']:g}), {self.comparisons} candidates at most; "
            "structurally invalid crystals count as neither unique nor novel",
            f"intervals: {100 * self.level:g} %, Wilson for rates, bootstrap "
            f"({self.resamples} resamples) for the rest",
        ]

    def coverage_line(self) -> str:
        """Return how coverage was taken; it compares within one set of versions only."""
        return (
            f"coverage: matminer {package_version('matminer')}, CrystalNN order "
            f"parameters of pymatgen {package_version('pymatgen')} within "
            f"{self.structure_cutoff:g} and Magpie features within "
            f"{self.composition_cutoff:g} of any held-out crystal; a crystal without a "
            "fingerprint is a miss"
        )

    def record(self) -> dict[str, Any]:
        """Return settings and versions as plain values for a JSON file."""
        packages = ("matdesign", "smact", "pymatgen", "matminer", "numpy", "torch")
        return {**asdict(self), "versions": {p: package_version(p) for p in packages}}


@dataclass(frozen=True)
class Metric:
    """One figure with its interval.

    Args:
        name: in words.
        value: the figure; NaN where no crystal qualified.
        low: lower end of the interval.
        high: upper end.
        unit: of the figure; empty for rates.
        n: crystals that it was computed from.
        count: for a rate, how many had the property; None for other figures.
        floor: for a distance, what draws from the reference itself would score.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str = ""
    n: int = 0
    count: int | None = None
    floor: float | None = None

    @classmethod
    def rate(cls, name: str, flags: NDArray[np.bool_], level: float) -> "Metric":
        """Return the part of the crystals for which a flag is set; NaN of none."""
        n, count = len(flags), int(flags.sum())
        if not n:
            return cls(name, np.nan, np.nan, np.nan)
        low, high = wilson(count, n, level=level)
        return cls(name, count / n, low, high, n=n, count=count)

    @property
    def better(self) -> str:
        """Which way is better, "higher" or "lower"; "" where neither is."""
        if "distance" in self.name:
            return "" if "median" in self.name else "lower"
        neutral = self.count is None or self.name.startswith(("ledger", "duplicates"))
        return "" if neutral else "higher"

    def beats(self, other: "Metric") -> bool:
        """Return whether this figure is better and the intervals do not overlap."""
        if self.better == "lower":
            return self.high < other.low
        return self.low > other.high

    def figure(self) -> str:
        """Return the figure as text: `231/256` or `0.34 g/cm^3`."""
        if self.count is not None:
            return f"{self.count}/{self.n}"
        return f"{self.value:.3g} {self.unit}".strip()

    def span(self) -> str:
        """Return the interval as text."""
        if not np.isfinite(self.value):
            return "no crystal qualified"
        form = ".3g" if self.count is None else ".2f"
        return f"{self.low:{form}} to {self.high:{form}}"

    def __str__(self) -> str:
        itself = "reference against itself"
        floor = "" if self.floor is None else f"; {itself} {self.floor:.2g}"
        return f"{self.name} {self.figure()} ({self.span()}{floor})"
