"""The average voltage of a cathode: relax it, take the ion out, relax what is left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.elements import atomic_number
from matdesign.errors import DataError
from matdesign.loop.oracle import Oracle, PotentialOracle, stream
from matdesign.loop.results import Column, Results
from matdesign.loop.worker_oracle import Streamed, unfit

CHARGES = {"Li": 1, "Na": 1, "K": 1, "Mg": 2, "Ca": 2, "Zn": 2, "Al": 3}
"""Electrons that each ion leaves behind."""

FARADAY = 96485.332 / 3.6
"""Charge of a mole of electrons, mAh."""

UNITS = {"average_voltage": "V", "capacity": "mAh/g", "volume_change": ""}


class VoltageOracle(Streamed):
    """A cathode's average voltage against the metal of its ion, by two relaxations.

    The crystal is the discharged cathode. It is relaxed, all ions are taken out, and the
    empty host is relaxed from there. Columns: `average_voltage` (V), `capacity` (mAh/g,
    of the discharged cathode), `volume_change` (of the host, relative to the discharged
    cathode) and, where the oracle has a hull, `energy_above_hull` of the discharged and
    `energy_above_hull_charged` of the charged cathode (eV/atom); with them the columns
    of the discharged crystal. A crystal without the ion, one of nothing else, and one
    whose host fails are failed rows.

    Equation:
        V = -[E(A_n H) - E(H) - n E(A)] / (n z), in volt where the energies are in eV,
        with n ions A of charge z in the cell, E(A) per atom of the bulk metal;
        capacity = n z F / M, with the Faraday constant F and the molar mass M of A_n H.

    Args:
        ion: Li, Na, K, Mg, Ca, Zn or Al.
        oracle: relaxes and gives `energy_per_atom`; a `PotentialOracle` where left out.
            A campaign that is killed relaxes again what had no voltage yet; a
            `Cached(PotentialOracle())` remembers the first relaxations.

    Raises:
        DataError: no such ion; in `evaluate`: its metal cannot be computed.

    Accuracy:
        Mean over the whole charge: steps and what limits the cell in practice are not
        seen, nor zero-point and thermal energies (mostly below 0.1 V). The error of the
        potential dominates; tests/loop/test_voltage.py bounds it for known cathodes.

    Source:
        Aydinol et al., Phys. Rev. B 56, 1354 (1997). Changed: a learned potential in
        place of density functional theory.

    Example:
        >>> VoltageOracle("Na", PotentialOracle("r2scan")).columns["average_voltage"]
        'V'
    """

    def __init__(self, ion: str = "Li", oracle: Oracle | None = None) -> None:
        if ion not in CHARGES:
            raise DataError(f"no such ion: got {ion!r}; choose {', '.join(CHARGES)}.")
        self.ion, self.oracle = ion, oracle or PotentialOracle()

    @property
    def name(self) -> str:
        """The ion, and the oracle that relaxes."""
        return f"average voltage of {self.ion} by {self.oracle.name}"

    @property
    def columns(self) -> dict[str, str]:
        """The columns that an objective can be, with their units."""
        relaxed: dict[str, str] = getattr(self.oracle, "columns", {})
        units = {**relaxed, **UNITS}
        if "energy_above_hull" in relaxed:
            units["energy_above_hull_charged"] = "eV/atom"
        return units

    def to_dict(self) -> dict[str, Any] | None:
        """Return what makes this oracle again; None with an oracle of your own."""
        words = self.oracle.to_dict() if type(self.oracle) is PotentialOracle else None
        return None if words is None else {"ion": self.ion, "oracle": words}

    @classmethod
    def from_dict(cls, words: dict[str, Any]) -> VoltageOracle:
        """Return the oracle of `to_dict`."""
        return cls(words["ion"], PotentialOracle.from_dict(words["oracle"]))

    @cached_property
    def metal(self) -> float:
        """Energy of the ion's bulk metal by the same oracle, eV/atom."""
        from ase.build import bulk
        from pymatgen.core import Structure

        crystal: Any = Structure.from_ase_atoms(bulk(self.ion))
        row = self.oracle.evaluate(Crystals.from_structures([crystal]))
        if why := row.reason[0]:
            raise DataError(f"{self.oracle.name} fails for metallic {self.ion}: {why}.")
        return float(row.energy_per_atom[0])

    def refusals(self, crystals: Crystals) -> list[str]:
        """Return, per crystal, why nothing would be computed for it, or ""."""
        reasons = list(getattr(self.oracle, "refusals", unfit)(crystals))
        ions = (crystals.species == atomic_number(self.ion)).sum(1)
        for i, n in enumerate(ions.tolist()):
            if not n:
                reasons[i] = reasons[i] or f"no {self.ion} in it"
            elif n == crystals.n_atoms[i]:
                reasons[i] = reasons[i] or f"nothing left without {self.ion}"
        return reasons

    def stream(self, crystals: Crystals) -> Iterator[tuple[int, Results]]:
        """Yield place and table of single crystals, those that fail early first."""
        reasons = self.refusals(crystals)
        for i in (i for i, why in enumerate(reasons) if why):
            yield i, self._row(Results(crystals[[i]], {}, (reasons[i],)), {})
        fit = [i for i, why in enumerate(reasons) if not why]
        full: dict[int, Results] = {}
        for k, row in stream(self.oracle, crystals[fit]) if fit else ():
            if row.reason[0]:
                yield fit[k], self._row(row, {})
            else:
                full[fit[k]] = row
        if not full:
            return
        places, hosts = list(full), [one.structures[0] for one in full.values()]
        for host in hosts:
            host.remove_species([self.ion])
        for k, row in stream(self.oracle, Crystals.from_structures(hosts)):
            yield places[k], self._charged(full[places[k]], row)

    def _charged(self, full: Results, host: Results) -> Results:
        """Return the row of one cathode from its two relaxations."""
        both = replace(full, seconds=full.seconds + host.seconds)
        if host.reason[0]:
            why = f"without {self.ion}: {host.reason[0]}"
            return self._row(replace(both, reason=(why,)), {})
        crystal, empty = full.structures, host.structures
        atoms, left = int(crystal.n_atoms[0]), int(empty.n_atoms[0])
        n, charge = atoms - left, CHARGES[self.ion]
        gained = left * float(host.energy_per_atom[0]) + n * self.metal
        gained -= atoms * float(full.energy_per_atom[0])
        found = {
            "average_voltage": gained / (n * charge),
            "capacity": n * charge * FARADAY / float(crystal.mass[0]),
            "volume_change": float(empty.volume[0] / crystal.volume[0]) - 1,
            "energy_above_hull_charged": float(host.energy_above_hull[0]),
        }
        return self._row(both, found)

    def _row(self, row: Results, found: dict[str, float]) -> Results:
        """Return a row with all columns, those that are not known as NaN."""
        columns = dict(row.columns)
        for name, unit in self.columns.items():
            value = torch.tensor([found.get(name, math.nan)], dtype=torch.float64)
            columns.setdefault(name, Column(value, unit))
        return replace(row, columns=columns, oracle=self.name)
