"""The cases that live on light: gaps of relaxed crystals, and where the bands lie."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pymatgen.core import Element, Structure
from torch import Tensor

import matdesign as design
from matdesign.constraints.base import All, Constraint
from matdesign.crystals.batch import Crystals

NETWORK = "band-gap-mp20"
"""Predicts the gaps that campaigns see."""
EDGES = ("conduction_edge", "valence_edge")
STABLE = {"energy_above_hull": (-1.0, 0.1)}
"""eV/atom; far below the hull is a mistake of the potential."""
ABSORBER, CATALYST = (1.1, 1.6), (1.8, 3.0)
"""Gaps, eV."""
SPLITS_WATER = {"conduction_edge": (-9.0, 0.0), "valence_edge": (1.23, 9.0)}
"""Potentials against hydrogen, V."""
DOUBTS = {"band_gap": 0.26, "energy_above_hull": 0.1, **dict.fromkeys(EDGES, 0.3)}
"""Mean error of the network on held-out crystals, eV; what is near the hull, eV/atom; and
what an estimate of band edges may be wrong by, V."""


def edges(structure: Structure, gap: float) -> tuple[float, float]:
    """Return potentials of conduction and valence band, V against hydrogen, at pH 0.

    Equation:
        E_c = X - 4.5 - gap / 2,  E_v = E_c + gap,  X the geometric mean over atoms of
        Mulliken's electronegativity (ionisation energy + electron affinity) / 2, eV

    Source:
        Butler and Ginley, J. Electrochem. Soc. 125, 228 (1978).
    """
    total = 0.0
    for one, share in structure.composition.fractional_composition.items():
        element = Element(one.symbol)
        mulliken = (element.ionization_energy + element.electron_affinity) / 2
        total += share * math.log(mulliken)
    middle = math.exp(total) - 4.5
    return middle - gap / 2, middle + gap / 2


def relaxed_gap(
    weights: str, network: str, cache: Path, *, with_edges: bool = False
) -> design.Cascade:
    """Return an oracle that relaxes first: a gap is that of the relaxed crystal.

    The network knows crystals near the hull only; what is more than 1 eV/atom off is not
    put to it. What was relaxed once is kept.
    """
    predictor = design.load_predictor(network)

    def compute(structure: Structure) -> dict[str, Any]:
        crystal = Crystals.from_structures([structure])
        said = predictor.predict_members(crystal)["band_gap"][:, 0]
        gap = float(said.mean())
        found = dict(zip(EDGES, edges(structure, gap), strict=True))
        return {"band_gap": (gap, float(said.std())), **found}

    columns = {"band_gap": "eV", **(dict.fromkeys(EDGES, "V") if with_edges else {})}
    name = f"{network}{' with edges' if with_edges else ''}"
    potential = design.PotentialOracle(weights, workers=1, time_limit=300)
    return design.Cascade(
        design.Cached(potential, cache),
        design.FunctionOracle(compute, columns, name=name),
        within={"energy_above_hull": (-1.0, 1.0)},
    )


def harmless() -> list[Constraint]:
    """Return what a new and harmless salt is."""
    new = design.NovelFormula(design.Hull.shipped().known)
    return [design.OnlyElements.harmless(), design.ChargeNeutral(), new]


def absorbs() -> list[Constraint]:
    """Return the gap of an absorber as proposed."""
    return [design.Property(NETWORK, *ABSORBER)]


def splits_water() -> list[Constraint]:
    """Return gap and edges of a photocatalyst as proposed."""
    predictor = design.load_predictor(NETWORK)

    def edge(which: int) -> Callable[[Any], Tensor]:
        def value(crystals: Any) -> Tensor:
            gaps = predictor.predict(crystals)["band_gap"].tolist()
            found = [edges(*pair)[which] for pair in zip(crystals, gaps, strict=True)]
            return torch.tensor(found, dtype=crystals.frac.dtype)

        return value

    return [
        design.Property(NETWORK, *CATALYST),
        design.Property(edge(0), high=0.0, name=EDGES[0], unit="V"),
        design.Property(edge(1), low=1.23, name=EDGES[1], unit="V"),
    ]


def substitution(low: float, high: float) -> Callable[[Crystals], design.Substitution]:
    """Return what substitutes known crystals of harmless salts with a gap in a range."""

    def make(known: Crystals) -> design.Substitution:
        gap, salt = known.properties["band_gap"], All(*harmless()[:2])
        fits = (gap >= low) & (gap <= high) & salt.satisfied(known)
        return design.Substitution(known[fits.nonzero().squeeze(1)])

    return make
