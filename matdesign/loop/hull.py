"""Distance to the convex hull: would a crystal fall apart into known compounds?

At the composition of a crystal, the hull is the lowest energy that any mixture of the
known compounds can have.  It is a linear program with one unknown per compound, which
stays exact and quick for any number of elements.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matdesign.errors import DataError, ShapeError
from matdesign.loop.calibration import Calibration

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from pymatgen.core import Composition, Structure

    from matdesign.crystals.batch import Crystals

    Formula = Structure | Composition | str | Mapping[str, float]
    Compositions = Crystals | Sequence[Formula]

Amounts = dict[str, float]


class Hull:
    """Known compounds, and how far other crystals lie above their mixtures.

    Energies of different potentials or functionals must never meet in one hull.  Two
    ways lead there: phases computed by the same potential, as in the constructor, or a
    potential that is calibrated to the scale of the known compounds, as in `shipped`.

    Args:
        elements: symbol -> energy of the element, eV/atom.
        phases: (formula or amounts, energy in eV/atom) of the competing compounds;
            those with an element that `elements` lacks are left out.

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
        phases: Iterable[tuple[Formula, float]] = (),
    ) -> None:
        self.calibration = Calibration("", dict(elements))
        self._key = ""  # of a shipped one
        self._systems: dict[str, list[tuple[Any, float]]] = {}
        self._mixtures: dict[tuple[Any, ...], tuple[float, Amounts]] = {}
        for what, energy in phases:
            row = _amounts(what)
            if set(row) <= set(elements) and np.isfinite(energy):
                formed = float(energy) - self._elemental(row)
                self._systems.setdefault(_system(row), []).append((row, formed))

    @classmethod
    def shipped(cls, calibration: Calibration | str = "chgnet-0.3.0") -> Hull:
        """Return the hull of 95,000 known compounds for a calibrated potential.

        The compounds are those of the Materials Project, with formation energies by
        density functional theory; the card in data/references says more.

        Args:
            calibration: of the potential that gives the energies of crystals, or the
                name of a shipped one: "chgnet-0.3.0", "chgnet-r2scan", "7net-l3i5".

        Raises:
            DataError: there is no such calibration, or the compounds are missing.
        """
        from matdesign.paths import data_dir

        folder, key = data_dir() / "references", ""
        if isinstance(calibration, str):
            key = shipped_key(calibration)
            calibration = Calibration.read(folder / f"{calibration}.json")
        made = cls(calibration.elements)
        made.calibration = calibration
        made._systems, made._key = _compounds(folder / "compounds.parquet"), key
        return made

    @property
    def key(self) -> str:
        """Short hash of all references: equal keys give equal distances."""
        if self._key:
            return self._key
        systems = [
            (s, sorted((_formula(row), formed) for row, formed in self._phases(s)))
            for s in sorted(self._systems)
        ]
        facts = repr((sorted(self.calibration.elements.items()), systems))
        return hashlib.sha256(facts.encode()).hexdigest()[:8]

    @property
    def error(self) -> float:
        """Error of a distance, eV/atom; NaN for a hull of the potential's own phases.

        It is the mean absolute error of the calibration on crystals left out of its
        fit.  The shipped potentials were trained on such crystals; on new ones, and on
        relaxed ones, they are worse.
        """
        return self.calibration.error

    def __repr__(self) -> str:
        compounds = sum(len(of) for s, of in self._systems.items() if _several(s))
        text = f"{len(self.calibration.elements)} elements, {compounds:,} compounds"
        if self.calibration.name:
            text += f"; {self.calibration.name}, ± {self.error:.3f} eV/atom"
        return f"Hull({text})"

    def formation_energy(
        self, crystals: Compositions, energy_per_atom: ArrayLike
    ) -> NDArray[np.float64]:
        """Return energies per atom relative to the elements.

        Equation:
            E_f = E - sum_i c_i E_i, with c_i the fraction of element i.

        Args:
            crystals: crystals, structures, compositions, formulas or amounts.
            energy_per_atom: eV/atom, shape (crystals,).

        Returns:
            eV/atom, shape (crystals,); NaN where an element has no reference.
        """
        rows, energies = _pair(crystals, energy_per_atom)
        return energies - np.array([self._elemental(row) for row in rows])

    def energy_above_hull(
        self, crystals: Compositions, energy_per_atom: ArrayLike
    ) -> NDArray[np.float64]:
        """Return the distance of crystals to the hull of the known compounds.

        The crystals asked about are not part of the hull, so the distance can be
        negative: such a crystal is more stable than every mixture of what is known, or
        the potential is wrong about it.  Where no compound of the system is known
        (`competing` is 0) only the elements compete, and the distance says little.

        Args:
            crystals: crystals, structures, compositions, formulas or amounts.
            energy_per_atom: eV/atom by the potential, shape (crystals,).

        Returns:
            eV/atom, shape (crystals,); NaN where an element has no reference.

        Accuracy:
            `error` is that of the potential.  The linear program is solved to 1e-10
            eV/atom; the test compares with pymatgen's PhaseDiagram.
        """
        rows, energies = _pair(crystals, energy_per_atom)
        floor = [self._elemental(row) + self._mixture(row)[0] for row in rows]
        return energies - np.array(floor)

    def competing(self, crystals: Compositions) -> NDArray[np.int64]:
        """Return how many known compounds lie in each crystal's system, (crystals,).

        Subsystems count, the elements do not: SrTiO3 competes with SrO and TiO2.
        """
        inside = [filter(_several, self._inside(row)) for row in _rows(crystals)]
        counts = [sum(len(self._systems[s]) for s in systems) for systems in inside]
        return np.array(counts, dtype=np.int64)

    def known(self, crystals: Compositions) -> NDArray[np.bool_]:
        """Return whether each is an element or has a known compound's formula, (crystals,).

        Polymorphs of a known compound are known.
        """
        rows = _rows(crystals)
        return np.array(
            [
                len(row) == 1
                or any(_key(p) == _key(row) for p, _ in self._phases(_system(row)))
                for row in rows
            ],
            dtype=bool,
        )

    def decomposition(self, composition: Formula) -> dict[str, float]:
        """Return the phases that a composition falls apart into on the hull.

        Returns:
            Formula -> fraction of the atoms; largest first.

        Raises:
            DataError: an element has no reference.
        """
        if lacking := self.missing([composition])[0]:
            raise DataError(
                f"{composition}: {lacking}; known are {list(self.calibration.elements)}"
            )
        mixture = self._mixture(_amounts(composition))[1]
        return dict(sorted(mixture.items(), key=lambda item: -item[1]))

    def missing(self, crystals: Compositions) -> list[str]:
        """Return, per crystal, why it has no reference, or ""."""
        return [self._lacking(row) for row in _rows(crystals)]

    # ---- inside -------------------------------------------------------------------

    def _lacking(self, row: Amounts) -> str:
        names = self.calibration.names(row).values()
        lacking = sorted(set(names) - set(self.calibration.elements))
        return f"no reference energy for {' and '.join(lacking)}" if lacking else ""

    def _elemental(self, row: Amounts) -> float:
        known, names = self.calibration.elements, self.calibration.names(row)
        return sum(c * known.get(names[s], float("nan")) for s, c in row.items())

    def _inside(self, row: Amounts) -> list[str]:
        """Chemical systems of known phases that lie within the one of a crystal."""
        parts = (
            "".join(part)
            for size in range(1, len(row) + 1)
            for part in combinations(sorted(row), size)
        )
        return [part for part in parts if part in self._systems]

    def _phases(self, system: str) -> list[tuple[Amounts, float]]:
        """Amounts and formation energy of the phases of one chemical system."""
        known = self._systems.get(system, [])
        return [(_parsed(p) if isinstance(p, str) else p, e) for p, e in known]

    def _mixture(self, row: Amounts) -> tuple[float, Amounts]:
        """Formation energy of the hull at a composition, and the mixture there."""
        if self._lacking(row):
            return float("nan"), {}
        at = _key(row)
        if at not in self._mixtures:
            self._mixtures[at] = self._minimise(row)
        return self._mixtures[at]

    def _minimise(self, row: Amounts) -> tuple[float, Amounts]:
        """Solve: min E.x, phases x >= 0, such that the mixture has the composition."""
        from scipy.optimize import linprog

        names = sorted(row)
        phases: list[tuple[Amounts, float]] = [({s: 1.0}, 0.0) for s in names]
        for system in self._inside(row):  # above 0 the elements win anyway
            phases += [phase for phase in self._phases(system) if phase[1] < 0.0]
        if len(phases) == len(names):
            return 0.0, dict(row)
        content = [[p.get(s, 0.0) for p, _ in phases] for s in names]
        cost = [formed for _, formed in phases]
        exact = {f"{x}_feasibility_tolerance": 1e-10 for x in ("primal", "dual")}
        found = linprog(cost, A_eq=content, b_eq=[row[s] for s in names], options=exact)
        if found.status != 0:
            raise DataError(
                f"the hull at {row} could not be found: {found.message}. "
                "Check the phases of this chemical system."
            )
        part = np.flatnonzero(found.x > 1e-9)
        mixture = {_formula(phases[i][0]): round(float(found.x[i]), 9) for i in part}
        return float(found.fun), mixture


@cache
def shipped_key(calibration: str) -> str:
    """Return `Hull.shipped(calibration).key`, from its files and without loading them."""
    from matdesign.paths import data_dir

    folder, digest = data_dir() / "references", hashlib.sha256()
    for name in (f"{calibration}.json", "compounds.parquet"):
        path = folder / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:8]


@cache
def _compounds(path: Path) -> dict[str, list[tuple[Any, float]]]:
    """Known compounds by chemical system; formulas are taken apart when asked for.

    Elements stand in alphabetic order in these formulas, so a formula without its
    numbers names the chemical system.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        formulas = table["formula"].combine_chunks()
        energies = table["formation_energy_per_atom"].to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is no table of known compounds ({error}). "
            "Make it with `python scripts/build_references.py`."
        ) from None
    names = pc.replace_substring_regex(formulas, r"[0-9]+", "").to_pylist()
    systems: dict[str, list[tuple[Any, float]]] = {}
    for name, formula, energy in zip(
        names, formulas.to_pylist(), energies, strict=True
    ):
        systems.setdefault(name, []).append((formula, energy))
    return systems


def _pair(
    crystals: Compositions, energy: ArrayLike
) -> tuple[list[Amounts], NDArray[np.float64]]:
    rows = _rows(crystals)
    energies = np.asarray(energy, dtype=np.float64).reshape(-1)
    if len(energies) != len(rows):
        raise ShapeError(
            f"one energy per crystal is needed: got {len(energies)} energies for "
            f"{len(rows)} crystals. Give eV/atom in the crystals' order."
        )
    return rows, energies


def _rows(crystals: Compositions) -> list[Amounts]:
    """Fraction of every element, per crystal."""
    from matdesign.crystals.batch import Crystals
    from matdesign.crystals.elements import symbols

    if not isinstance(crystals, Crystals):
        return [_amounts(one) for one in crystals]
    names = symbols()
    sites = [[names[z] for z in row if z] for row in crystals.species.tolist()]
    return [_shares(Counter(row)) for row in sites]


def _amounts(what: Any) -> Amounts:
    """Fraction of every element of a formula, composition, structure or mapping."""
    from pymatgen.core import Composition

    from matdesign.crystals.elements import atomic_number, symbols

    try:
        composition = getattr(what, "composition", None) or Composition(what)
        counts = composition.get_el_amt_dict()
    except (ValueError, TypeError) as error:
        raise DataError(
            f"no composition of known elements: got {what!r} ({error}). Give a formula "
            'such as "SrTiO3", or amounts such as {"Na": 1, "Cl": 1}.'
        ) from None
    named: Amounts = {}
    for symbol, count in counts.items():
        name = symbols()[atomic_number(symbol)]
        named[name] = named.get(name, 0.0) + count
    return _shares(named)


def _parsed(formula: str) -> Amounts:
    """Fractions of a formula of the table, such as "O3SrTi"."""
    found = re.findall(r"([A-Z][a-z]?)([0-9]*)", formula)
    return _shares({symbol: int(count or 1) for symbol, count in found})


def _shares(counts: Mapping[str, float]) -> Amounts:
    total = sum(counts.values())
    return {symbol: count / total for symbol, count in counts.items()}


def _formula(row: Amounts) -> str:
    from pymatgen.core import Composition

    if len(row) == 1:
        return next(iter(row))  # "O", where pymatgen writes O2
    return str(Composition(row).get_integer_formula_and_factor()[0])


def _key(row: Amounts) -> tuple[tuple[str, float], ...]:
    """The composition as a key: rounding makes NaCl and Na2Cl2 one."""
    return tuple(sorted((s, round(c, 10)) for s, c in row.items()))


def _system(row: Amounts) -> str:
    """The chemical system as a key, such as "OSrTi"."""
    return "".join(sorted(row))


def _several(system: str) -> bool:
    """Whether a chemical system has more elements than one."""
    return sum(letter.isupper() for letter in system) > 1
