"""Candidates: a prototype, a substitution and a variant, built on demand."""

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from pymatgen.analysis.structure_prediction import volume_predictor
from pymatgen.core import Lattice, Structure

from databuild import perovskite

ORACLE_VERSION = "chgnet-0.4.2/0.3.0+relax-1"
"""Part of every identity: other weights or another relaxation, other ids."""


@dataclass(frozen=True)
class Prototype:
    """One structure type of the library.

    Attributes:
        label: AFLOW label, such as "AB_cF8_225_a_b".
        structure: Primitive cell with the elements of the type's namesake.
    """

    label: str
    structure: Structure

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """Elements of the namesake: the roles to fill."""
        return tuple(sorted({site.specie.symbol for site in self.structure}))

    @cached_property
    def amounts(self) -> dict[str, float]:
        """Atoms of each role in the reduced formula."""
        return dict(self.structure.composition.reduced_composition.as_dict())

    @cached_property
    def stoichiometry(self) -> str:
        """Anonymous formula, such as "ABC3"."""
        return str(self.structure.composition.anonymized_formula)


@dataclass(frozen=True)
class Candidate:
    """One crystal to try.

    Attributes:
        prototype: AFLOW label, or a perovskite child such as "perovskite-Pnma".
        substitution: (role, element) pairs, sorted by role.
        variant: "" or "rattled".
        kind: "ionic", "metallic" or "element": how it was drawn.
    """

    prototype: str
    substitution: tuple[tuple[str, str], ...]
    variant: str = ""
    kind: str = "ionic"

    @property
    def identity(self) -> str:
        """Stable id: a hash of prototype, substitution, variant and oracle."""
        parts = ",".join(f"{role}={symbol}" for role, symbol in self.substitution)
        text = "|".join((self.prototype, parts, self.variant, ORACLE_VERSION))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def build(self) -> Structure:
        """The crystal before any relaxation, at a guessed volume."""
        elements: dict[Any, Any] = dict(self.substitution)
        if self.prototype.startswith("perovskite-"):
            return perovskite.build(
                self.prototype.removeprefix("perovskite-"), elements
            )
        structure = library()[self.prototype].structure.copy()
        structure.replace_species(elements)
        structure.scale_lattice(guess_volume(structure))
        if self.variant == "rattled":
            structure = rattle(structure, int(self.identity[:8], 16))
        return structure


@cache
def library(largest: int = 20) -> dict[str, Prototype]:
    """AFLOW prototypes shipped with pymatgen, as primitive cells.

    Args:
        largest: Leave out cells of more atoms.

    Returns:
        Label -> prototype of at most four elements.
    """
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY  # read for 10 s

    out: dict[str, Prototype] = {}
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        label = entry["tags"]["aflow"]
        cell = entry["snl"].structure.get_primitive_structure()
        if label in out or len(cell) > largest or len(cell.elements) > 4:
            continue
        plain = Structure(
            cell.lattice, [site.specie.symbol for site in cell], cell.frac_coords
        )
        out[label] = Prototype(label, plain)
    return out


@cache
def _predictor() -> Any:
    make: Any = volume_predictor.DLSVolumePredictor
    return make(cutoff=6.0)


def guess_volume(structure: Structure) -> float:
    """Volume in angstrom^3 from bond lengths; 16 per atom where none is known."""
    try:
        volume = float(_predictor().predict(structure))
    except (ValueError, KeyError, ZeroDivisionError, RuntimeError):
        volume = float("nan")
    per_atom = volume / len(structure)
    return volume if 4.0 < per_atom < 120.0 else 16.0 * len(structure)


def rattle(structure: Structure, seed: int) -> Structure:
    """Push atoms by about 0.12 angstrom and strain the cell by about 3 %: P1."""
    rng = np.random.default_rng(seed)
    strain = np.eye(3) + 0.03 * rng.standard_normal((3, 3))
    cart = structure.cart_coords + 0.12 * rng.standard_normal((len(structure), 3))
    frac = cart @ np.linalg.inv(structure.lattice.matrix)
    return Structure(
        Lattice(structure.lattice.matrix @ strain), structure.species, frac
    )
