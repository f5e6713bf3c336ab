"""The composition's fingerprint: Magpie features of a formula, standardised."""

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals
from matdesign.crystals.matching import Counts, reduced
from matdesign.environment import package_version
from matdesign.errors import DataError

Floats = NDArray[np.float64]

LENGTH = 132
"""Features of a formula: six statistics of 22 properties."""

SCALE = Path(__file__).parent.parent / "assets" / "composition_scale.json"
"""Means and deviations of the features over the training part of reduced MP-20."""


def standardised(formulas: Sequence[Counts]) -> Floats:
    """Return standardised Magpie features; what is unknown of an element counts as 0.

    Equation:
        z = (x - mean) / deviation, with the fixed means and deviations of `scale`.

    Args:
        formulas: from `matching.reduced`.

    Returns:
        Shape (formulas, 132), no unit.

    Raises:
        DataError: matminer is not installed.

    Source:
        Ward et al., npj Comput. Mater. 2, 16028 (2016), tables of matminer; as a
        fingerprint: CDVAE, arXiv:2110.06197. Changed: means and deviations are those of
        the 11,393 training rows of reduced MP-20.
    """
    mean, deviation = scale()
    return np.nan_to_num((features(formulas) - mean) / deviation, nan=0.0)


def features(formulas: Sequence[Counts]) -> Floats:
    """Return the features as they are, NaN where an element has none, (formulas, 132).

    Six per property, weighted by the fractions: least, largest, range, mean, mean
    absolute deviation, and the value of the most frequent element (the least of them).
    """
    need_matminer()
    if not formulas:
        return np.zeros((0, LENGTH))
    return np.stack([_features(one) for one in formulas])


@cache
def scale() -> tuple[Floats, Floats]:
    """Return the fixed means and standard deviations of the features, shape (132,)."""
    stored = json.loads(SCALE.read_text(encoding="utf-8"))
    return np.array(stored["mean"]), np.array(stored["deviation"])


def measure_scale(crystals: Crystals) -> dict[str, Any]:
    """Return means and deviations of the features over a reference, to be stored."""
    raw = features(reduced(crystals.species))
    deviation = np.nanstd(raw, axis=0)
    # a feature that never varies is left as it is, not divided by zero
    deviation = np.where(deviation > 1e-9, deviation, 1.0)
    return {
        "crystals": len(crystals),
        "matminer": package_version("matminer"),
        "mean": [float(f"{x:.8g}") for x in np.nanmean(raw, axis=0)],
        "deviation": [float(f"{x:.8g}") for x in deviation],
    }


def need_matminer() -> None:
    """Raise a DataError that says what to install where matminer is missing."""
    try:
        import matminer  # noqa: F401
    except ImportError:
        raise DataError(
            "coverage needs matminer, which is not installed. Install it with "
            "`pip install 'matdesign[metrics]'`."
        ) from None


@lru_cache(maxsize=200_000)
def _features(counts: Counts) -> Floats:
    from pymatgen.core import Composition

    if not counts:
        return np.full(LENGTH, np.nan)
    symbols = elements.symbols()
    formula = Composition({symbols[z]: n for z, n in counts})
    return np.array(_featurizer().featurize(formula), dtype=np.float64)


@cache
def _featurizer() -> Any:
    from matminer.featurizers.composition import ElementProperty

    return ElementProperty.from_preset("magpie", impute_nan=False)
