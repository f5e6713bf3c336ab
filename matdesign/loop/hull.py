"""Distance to the convex hull: would a crystal fall apart into known phases?

At the composition of a crystal, the hull is the lowest energy that any mixture of the
reference phases can have.  It is a linear program with one unknown per phase, which
stays exact and quick for any number of elements.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matdesign.errors import DataError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from pymatgen.core import Composition, Structure

    from matdesign.crystals.batch import Crystals

    Compositions = Crystals | Sequence[Structure | Composition | str]

Amounts = Mapping[str, float]


class Hull:
    """Reference phases of one potential, and what they say of other crystals.

    Energies of different potentials or functionals must never meet in one hull; give
    each potential its own.

    Args:
        elements: symbol -> energy of the reference form, eV/atom.
        phases: (formula or composition, energy in eV/atom) of the competing compounds;
            those with an element that `elements` lacks are left out.
        name: of the potential that gave the energies.
        volumes: symbol -> volume of the reference form, angstrom^3/atom, where known.

    Example:
        >>> hull = Hull({"Na": -1.3, "Cl": -1.9}, [("NaCl", -3.4)])
        >>> hull.energy_above_hull(["NaCl", "NaCl3"], [-3.3, -2.5]).round(3).tolist()
        [0.1, 0.15]
        >>> hull.decomposition("NaCl3")
        {'Cl': 0.5, 'NaCl': 0.5}
    """

    def __init__(
        self,
        elements: Mapping[str, float],
        phases: Iterable[tuple[str | Composition, float]] = (),
        *,
        name: str = "",
        volumes: Mapping[str, float] | None = None,
    ) -> None:
        self.elements = dict(elements)
        self.volumes = dict(volumes or {})
        self.name = name
        self._systems: dict[frozenset[str], dict[tuple[Any, ...], float]] = {}
        self._count: dict[frozenset[str], int] = {}
        self._energies: dict[tuple[Any, ...], tuple[float, dict[str, float]]] = {}
        for what, energy in phases:
            self._add(_amounts(what), float(energy))

    @classmethod
    def shipped(cls) -> Hull:
        """Return the hull of the shipped reference phases (CHGNet 0.3.0).

        Raises:
            DataError: the references are missing or damaged.
        """
        from matdesign.paths import data_dir

        return cls.read(data_dir() / "references")

    @classmethod
    def read(cls, folder: str | Path) -> Hull:
        """Read `elements.json` and, where present, `phases.parquet` of a folder.

        Args:
            folder: holds elements.json (symbol -> energy_per_atom, volume_per_atom)
                and phases.parquet (columns numbers and energy_per_atom).

        Raises:
            DataError: elements.json is missing, or a file cannot be understood.
        """
        folder = Path(folder)
        files = [folder / "elements.json", folder / "phases.parquet"]
        if not files[0].is_file():
            raise DataError(
                f"reference energies are missing: no {files[0]}. "
                "Make them with `python scripts/build_data.py references`."
            )
        stamps = tuple(f.stat().st_mtime_ns if f.is_file() else 0 for f in files)
        return _read(str(folder), stamps)

    @property
    def key(self) -> str:
        """Short hash of all references: equal keys give equal distances."""
        phases = [
            (sorted(s), sorted(rows.items())) for s, rows in self._systems.items()
        ]
        facts = repr((sorted(self.elements.items()), sorted(phases)))
        return hashlib.sha256(facts.encode()).hexdigest()[:8]

    @property
    def size(self) -> int:
        """Number of reference phases, elements included."""
        return len(self.elements) + sum(self._count.values())

    def __repr__(self) -> str:
        of = f" by {self.name}" if self.name else ""
        compounds = sum(self._count.values())
        return (
            f"Hull({len(self.elements)} elements and {compounds} compounds in "
            f"{len(self._count)} chemical systems{of})"
        )

    def formation_energy(
        self, crystals: Compositions, energy_per_atom: ArrayLike
    ) -> NDArray[np.float64]:
        """Return energies per atom relative to the elements' reference forms.

        Equation:
            E_f = E - sum_i c_i E_i, with c_i the fraction of element i.

        Args:
            crystals: crystals, structures, compositions or formulas.
            energy_per_atom: eV/atom, shape (crystals,).

        Returns:
            eV/atom, shape (crystals,); NaN where an element has no reference.
        """
        rows, energies = self._pair(crystals, energy_per_atom)
        elements = np.array([self._elemental(row) for row in rows], dtype=np.float64)
        return np.subtract(energies, elements)

    def energy_above_hull(
        self, crystals: Compositions, energy_per_atom: ArrayLike
    ) -> NDArray[np.float64]:
        """Return the distance of crystals to the hull of the reference phases.

        The crystals asked about are not part of the hull, so the distance can be
        negative: such a crystal is more stable than every mixture of references, and
        would become a corner of the hull.  A reference phase itself has 0 or more.
        Where no compound of the system is known (`competing` is 0) only the elements
        compete, and the distance says little.

        Args:
            crystals: crystals, structures, compositions or formulas.
            energy_per_atom: eV/atom by the same potential, shape (crystals,).

        Returns:
            eV/atom, shape (crystals,); NaN where an element has no reference.

        Accuracy:
            The linear program is solved to 1e-9 eV/atom; the test compares with
            pymatgen's PhaseDiagram.
        """
        rows, energies = self._pair(crystals, energy_per_atom)
        floor = [self._elemental(row) + self._solve(row)[0] for row in rows]
        return np.subtract(energies, np.array(floor, dtype=np.float64))

    def competing(self, crystals: Compositions) -> NDArray[np.int64]:
        """Return how many reference compounds lie in each crystal's chemical system.

        Subsystems count, the elements do not: SrTiO3 competes with SrO and TiO2.

        Returns:
            Counts of shape (crystals,).
        """
        return np.array(
            [
                sum(self._count.get(s, 0) for s in self._inside(frozenset(row)))
                for row in _rows(crystals)
            ],
            dtype=np.int64,
        )

    def decomposition(self, composition: str | Composition) -> dict[str, float]:
        """Return the phases that a composition falls apart into on the hull.

        Returns:
            Formula -> fraction of the atoms; largest first.

        Raises:
            DataError: an element has no reference.
        """
        row = _amounts(composition)
        if lacking := self.missing([composition])[0]:
            raise DataError(
                f"{composition}: {lacking}; known are {list(self.elements)}"
            )
        mixture = self._solve(row)[1]
        return dict(sorted(mixture.items(), key=lambda item: -item[1]))

    def missing(self, crystals: Compositions) -> list[str]:
        """Return, per crystal, why it has no reference, or ""."""
        out = []
        for row in _rows(crystals):
            lacking = sorted(set(row) - set(self.elements))
            words = " and ".join(lacking)
            out.append(f"no reference energy for {words}" if lacking else "")
        return out

    # ---- inside -------------------------------------------------------------------

    def _add(self, row: Amounts, energy: float) -> None:
        if not np.isfinite(energy) or not set(row) <= set(self.elements):
            return
        formed = energy - self._elemental(row)
        system, key = frozenset(row), _key(row)
        if len(row) > 1:
            self._count[system] = self._count.get(system, 0) + 1
        known = self._systems.setdefault(system, {})
        known[key] = min(formed, known.get(key, 0.0))  # above 0 the elements win anyway

    def _pair(
        self, crystals: Compositions, energy: ArrayLike
    ) -> tuple[list[dict[str, float]], NDArray[np.float64]]:
        rows = _rows(crystals)
        energies = np.asarray(energy, dtype=np.float64).reshape(-1)
        if len(energies) != len(rows):
            raise ShapeError(
                f"one energy per crystal is needed: got {len(energies)} energies for "
                f"{len(rows)} crystals. Give eV/atom in the crystals' order."
            )
        return rows, energies

    def _elemental(self, row: Amounts) -> float:
        return sum(c * self.elements.get(s, float("nan")) for s, c in row.items())

    def _inside(self, system: frozenset[str]) -> list[frozenset[str]]:
        """Chemical systems with references that lie within a system."""
        if 2 ** len(system) > len(self._systems):
            return [s for s in self._systems if s <= system]
        parts = (
            frozenset(part)
            for size in range(1, len(system) + 1)
            for part in combinations(sorted(system), size)
        )
        return [part for part in parts if part in self._systems]

    def _solve(self, row: Amounts) -> tuple[float, dict[str, float]]:
        """Formation energy of the hull at a composition, and the mixture there."""
        if not set(row) <= set(self.elements):
            return float("nan"), {}
        at = _key(row)
        if at not in self._energies:
            self._energies[at] = self._minimise(row)
        return self._energies[at]

    def _minimise(self, row: Amounts) -> tuple[float, dict[str, float]]:
        """Solve: min E.x, phases x >= 0, such that the mixture has the composition."""
        from scipy.optimize import linprog

        names = sorted(row)
        phases: list[tuple[dict[str, float], float]] = [({s: 1.0}, 0.0) for s in names]
        for system in self._inside(frozenset(names)):
            for key, formed in self._systems[system].items():
                if formed < 0.0:
                    phases.append((dict(key), formed))
        if len(phases) == len(names):
            return 0.0, dict(row)
        content = np.array([[p.get(s, 0.0) for p, _ in phases] for s in names])
        content /= content.sum(axis=0)
        cost = np.array([formed for _, formed in phases])
        found = linprog(
            cost, A_eq=content, b_eq=[row[s] for s in names], method="highs"
        )
        if found.status != 0:
            raise DataError(
                f"the hull at {dict(row)} could not be found: {found.message}. "
                "Check the reference phases of this chemical system."
            )
        mixture = {
            _formula(phases[i][0]): round(float(x), 9)
            for i, x in enumerate(found.x)
            if x > 1e-9
        }
        return float(found.fun), mixture


@lru_cache(maxsize=8)
def _read(folder: str, stamps: tuple[int, ...]) -> Hull:
    """Read references once per state of the files."""
    elements_file = Path(folder) / "elements.json"
    phases_file = Path(folder) / "phases.parquet"
    try:
        table = json.loads(elements_file.read_text())
        elements = {s: float(row["energy_per_atom"]) for s, row in table.items()}
        volumes = {s: float(row["volume_per_atom"]) for s, row in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{elements_file} is not a table of reference energies ({error!r}). "
            "Make it again with `python scripts/build_data.py references`."
        ) from None
    phases: list[tuple[Any, float]] = []
    if stamps[1]:
        import pyarrow.parquet

        from matdesign.crystals.elements import symbols

        names = symbols()
        columns = ["numbers", "energy_per_atom"]
        try:
            read = pyarrow.parquet.read_table(phases_file, columns=columns)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{phases_file} cannot be read ({error}). "
                "Make it again with `python scripts/build_data.py assemble`."
            ) from None
        numbers, energies = (read[column].to_pylist() for column in columns)
        for row, energy in zip(numbers, energies, strict=True):
            phases.append((_fractions(names[z] for z in row), energy))
    return Hull(elements, phases, name="CHGNet 0.3.0", volumes=volumes)


def _rows(crystals: Compositions) -> list[dict[str, float]]:
    """Fraction of every element, per crystal."""
    from matdesign.crystals.batch import Crystals

    if isinstance(crystals, Crystals):
        from matdesign.crystals.elements import symbols

        names = symbols()
        return [_fractions(names[z] for z in r if z) for r in crystals.species.tolist()]
    return [_amounts(one) for one in crystals]


def _amounts(what: Any) -> dict[str, float]:
    """Fraction of every element of a formula, composition, structure or mapping."""
    from pymatgen.core import Composition

    if isinstance(what, dict):
        return what
    composition = getattr(what, "composition", None) or Composition(what)
    fractions = composition.fractional_composition.get_el_amt_dict()
    return {str(s): float(c) for s, c in fractions.items()}


def _fractions(symbols: Iterable[str]) -> dict[str, float]:
    counts: dict[str, int] = {}
    for symbol in symbols:
        counts[symbol] = counts.get(symbol, 0) + 1
    total = sum(counts.values())
    return {symbol: count / total for symbol, count in counts.items()}


def _key(row: Amounts) -> tuple[tuple[str, float], ...]:
    """The composition as a key: rounding makes NaCl and Na2Cl2 one."""
    return tuple(sorted((s, round(c, 10)) for s, c in row.items()))


def _formula(row: Amounts) -> str:
    from pymatgen.core import Composition

    if len(row) == 1:
        return next(iter(row))
    smallest = min(row.values())
    whole = {s: c / smallest for s, c in row.items()}
    for factor in range(1, 61):
        if all(
            abs(c * factor - round(c * factor)) < 1e-4 * factor for c in whole.values()
        ):
            whole = {s: float(round(c * factor)) for s, c in whole.items()}
            break
    return str(Composition(whole).reduced_formula)
