"""Elemental reference energies of the potential, from known forms only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from databuild.candidates import library
from databuild.chemistry import ELEMENTS

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from matdesign.loop.potential import Potential

WRONG_FORMS = {"S": ("dcdft",)}
"""Forms left out: the dcdft sulfur is not the ground state's structure."""

FROZEN = ("F",)
"""Solid F2 would expand without end (the potential knows no van der Waals bonds), so
only its positions relax, in the known cell."""

NEAR = (0.75, 1.75)
"""Volume over the known volume that a relaxed form may have; the layered and molecular
forms (P, As, S, Se, O2) swell without van der Waals bonds, and the potential's spurious
dense minima lie below."""


def known_forms(symbol: str) -> dict[str, Structure]:
    """Forms of an element that nature knows, at their known volumes.

    Args:
        symbol: Of the element.

    Returns:
        Name -> primitive cell: dcdft's ground states, ASE's reference states and the
        library's prototypes named after this very element.
    """
    import warnings

    from ase.build import bulk
    from ase.collections import dcdft
    from pymatgen.io.ase import AseAtomsAdaptor

    forms: dict[str, Structure] = {}

    def add(name: str, atoms: Any) -> None:
        structure = AseAtomsAdaptor.get_structure(atoms)
        structure.remove_site_property("magmom") if (
            "magmom" in structure.site_properties
        ) else None
        forms[name] = structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if symbol in dcdft.names:
            add("dcdft", dcdft[symbol])
        try:
            add("ase.bulk", bulk(symbol))
        except (ValueError, KeyError, RuntimeError):
            pass
        for label, prototype in library(64).items():
            if prototype.roles == (symbol,):
                forms[label] = prototype.structure.copy()
    for name in WRONG_FORMS.get(symbol, ()):
        forms.pop(name, None)
    return forms


def reference(symbol: str, potential: Potential) -> dict[str, Any]:
    """The reference of one element: the lowest known form near its known volume.

    Args:
        symbol: Of the element.
        potential: Gives the energies.

    Returns:
        energy_per_atom (eV), volume_per_atom (angstrom^3), form, how, and the
        structure as numbers, frac_coords and lattice; also every form tried.
    """
    from matdesign.loop.relax import relax

    forms = known_forms(symbol)
    frozen = symbol in FROZEN
    results = relax(
        list(forms.values()),
        potential,
        fmax=0.02,
        steps=300,
        relax_cell=not frozen,
        prescan=False,
    )
    tried: list[dict[str, Any]] = []
    for (name, start), result in zip(forms.items(), results, strict=True):
        ratio = result.structure.volume / start.volume
        tried.append(
            {
                "form": name,
                "energy_per_atom": round(result.energy_per_atom, 6),
                "volume_per_atom": round(result.structure.volume / len(start), 4),
                "volume_ratio": round(ratio, 4),
                "reason": result.reason,
                "structure": result.structure,
                "accepted": NEAR[0] < ratio < NEAR[1] and result.fmax < 0.1,
            }
        )
    accepted = [t for t in tried if t["accepted"]]
    if not accepted:
        raise RuntimeError(
            f"no form of {symbol} near its known volume; tried {sorted(forms)}"
        )
    best = min(accepted, key=lambda t: t["energy_per_atom"])
    structure = best["structure"]
    how = "positions relaxed in the known cell" if frozen else "positions and cell"
    return {
        "energy_per_atom": best["energy_per_atom"],
        "volume_per_atom": best["volume_per_atom"],
        "form": best["form"],
        "how": how,
        "numbers": [site.specie.Z for site in structure],
        "frac_coords": [float(v) for v in structure.frac_coords.ravel()],
        "lattice": [float(v) for v in structure.lattice.matrix.ravel()],
        "tried": [
            {k: v for k, v in t.items() if k != "structure"}
            for t in sorted(tried, key=lambda t: t["energy_per_atom"])
        ],
    }


def all_references(potential: Potential) -> dict[str, dict[str, Any]]:
    """References of every element in `ELEMENTS`."""
    out: dict[str, dict[str, Any]] = {}
    for symbol in ELEMENTS:
        try:
            out[symbol] = reference(symbol, potential)
        except RuntimeError as error:
            print(error, flush=True)
            continue
        entry = out[symbol]
        print(
            f"{symbol:2s} {entry['energy_per_atom']:9.4f} eV/atom  "
            f"{entry['volume_per_atom']:7.2f} angstrom^3  {entry['form']}",
            flush=True,
        )
    return out
