"""Calibration: a potential's energies on the scale of density functional theory.

The energies of a potential count from a zero of its own.  One number per element, fitted
to known crystals, turns them into formation energies that may be compared with tables
of density functional theory; the error on crystals left out of the fit says how far.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matdesign.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from matdesign.crystals.batch import Crystals

WITH_U = ("V", "Cr", "Mn", "Fe", "Co", "Ni", "Mo", "W")
"""Metals whose oxides and fluorides the Materials Project computes with a Hubbard U."""

FEWEST = 10
"""An element in fewer crystals than this is not fitted."""

SCALE = 0.03
"""Where the loss turns from square to linear, eV/atom."""

FOLDS = 5
"""Parts of the data; each is left out once to measure the error."""


@dataclass(frozen=True)
class Calibration:
    """Element references of one potential, and how well they carry over.

    Args:
        name: of the potential.
        elements: symbol -> reference energy, eV/atom.
        error: mean absolute error of formation energies on crystals left out of the
            fit, as they stand in the data, eV/atom; NaN where not measured. They were
            not left out of the training of the shipped potentials: a lower bound.
        held_out: more of that error, by name, eV/atom.
        volumes: symbol of a metal -> volume in its alloys, angstrom^3/atom.
        crystals: number of crystals fitted to.
        raw: the potential was trained on energies as they were computed, with a Hubbard
            U for oxides and fluorides of eight metals and without one elsewhere. Such a
            metal has another reference there, "Fe+U" beside "Fe". CHGNet was trained on
            energies that the Materials Project had made comparable before.
    """

    name: str
    elements: dict[str, float]
    error: float = float("nan")
    held_out: dict[str, float] = field(default_factory=dict)
    volumes: dict[str, float] = field(default_factory=dict)
    crystals: int = 0
    raw: bool = False

    @classmethod
    def fit(
        cls,
        name: str,
        crystals: Crystals,
        energy_per_atom: ArrayLike,
        formation_energy_per_atom: ArrayLike,
        *,
        raw: bool = False,
    ) -> Calibration:
        """Fit element references to known crystals.

        Equation:
            E_f = E - sum_i c_i r_i, with r fitted such that E_f is the known one.

        Args:
            name: of the potential.
            crystals: known crystals, such as reduced MP-20.
            energy_per_atom: by the potential, eV/atom, shape (crystals,).
            formation_energy_per_atom: known, eV/atom, shape (crystals,).
            raw: whether the potential knows computed energies only, see above.

        Returns:
            References of the elements in at least 10 crystals, the error by five-fold
            cross-validation, and the volumes of the metals, fitted to the alloys.
        """
        from matdesign.crystals.elements import table

        content = fractions(crystals)
        offset = np.subtract(energy_per_atom, formation_energy_per_atom)
        elements, left = fit_elements(apart(content) if raw else content, offset)
        alloys = ((table("metal")[crystals.species] == 1) | ~crystals.mask).all(1)
        volume = (crystals.volume / crystals.n_atoms)[alloys].double().numpy()
        volumes, _ = fit_elements(content[alloys.numpy()], volume, scale=1.0)
        return cls(
            name,
            {s: round(e, 5) for s, e in elements.items()},
            *held_out(left),
            {s: round(v, 3) for s, v in volumes.items()},
            len(crystals),
            raw,
        )

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """Read what `write` wrote.

        Raises:
            DataError: the file is missing or is no calibration.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"{path} is not a calibration ({error}). "
                "Make one with scripts/build_references.py or `Calibration.fit`."
            ) from None

    def names(self, symbols: Iterable[str]) -> dict[str, str]:
        """Return which reference each element of a compound has: "Fe" or "Fe+U"."""
        symbols = set(symbols)
        with_u = WITH_U if self.raw and symbols & {"O", "F"} else ()
        return {s: f"{s}+U" if s in with_u else s for s in symbols}

    def write(self, path: str | Path) -> None:
        """Write the calibration as JSON."""
        text = json.dumps(asdict(self), indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")


def fractions(crystals: Crystals) -> NDArray[np.float64]:
    """Return the fraction of every element, shape (crystals, 104), by atomic number."""
    from matdesign.crystals.elements import MAX_Z

    counts = np.zeros((len(crystals), MAX_Z + 1))
    species = crystals.species.numpy()
    np.add.at(counts, (np.arange(len(species))[:, None], species), 1.0)
    counts[:, 0] = 0.0  # padding
    return counts / counts.sum(1, keepdims=True)


def apart(content: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return fractions with eight more columns, shape (crystals, 112).

    The last are those of `WITH_U`, whose fractions in crystals with oxygen or fluorine
    moved there.
    """
    from matdesign.crystals.elements import atomic_number

    metals = [atomic_number(symbol) for symbol in WITH_U]
    there = (content[:, [8, 9]] > 0).any(1, keepdims=True)
    moved = np.where(there, content[:, metals], 0.0)
    rest = content.copy()
    rest[:, metals] -= moved
    return np.hstack([rest, moved])


def fit_elements(
    content: NDArray[np.float64], values: ArrayLike, *, scale: float = SCALE
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Fit one number per element, so that their mean over a crystal's atoms is a value.

    Least squares with a loss that grows only linearly beyond `scale`: a few crystals of
    another kind (another magnetic state, a wrong entry) do not pull the rest along.

    Args:
        content: fraction of each element, shape (crystals, 104), or from `apart`.
        values: per atom, shape (crystals,).
        scale: residual at which the loss turns from square to linear.

    Returns:
        Symbol -> number, for elements in at least `FEWEST` crystals; and the residual
        of each crystal when it was left out of the fit, NaN where one of its elements
        is not fitted.

    Source:
        The loss is scipy's `soft_l1`.
    """
    from scipy.optimize import least_squares

    from matdesign.crystals.elements import symbols

    values = np.asarray(values, dtype=np.float64)
    common = (content > 0).sum(0) >= FEWEST
    if not common.any():
        return {}, np.full(len(values), np.nan)
    usable = content[:, ~common].sum(1) == 0
    matrix, wanted = content[usable][:, common], values[usable]

    def fit(rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        a, b = matrix[rows], wanted[rows]
        start = np.linalg.lstsq(a, b)[0]
        found = least_squares(
            lambda r: a @ r - b, start, lambda r: a, loss="soft_l1", f_scale=scale
        )
        return np.asarray(found.x)

    fold = np.random.default_rng(0).permutation(len(wanted)) % FOLDS
    left = np.full(len(values), np.nan)
    for k in range(FOLDS):
        out = fold == k
        left[np.flatnonzero(usable)[out]] = wanted[out] - matrix[out] @ fit(~out)
    numbers = np.flatnonzero(common)
    names = [*symbols(), *(f"{symbol}+U" for symbol in WITH_U)]
    whole = fit(np.ones(len(wanted), dtype=bool))
    return {names[z]: float(v) for z, v in zip(numbers, whole, strict=True)}, left


def held_out(left: NDArray[np.float64]) -> tuple[float, dict[str, float]]:
    """Return the mean absolute error of residuals, and its distribution."""
    error = np.abs(left[np.isfinite(left)])
    shares = {"median": 0.5, "90 %": 0.9, "99 %": 0.99}
    shape = {k: round(float(np.quantile(error, q)), 5) for k, q in shares.items()}
    return round(float(error.mean()), 5), shape
