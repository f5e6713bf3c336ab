"""Fingerprints of crystals: what stands around the sites, and which elements.

Both are long vectors, made so that like crystals lie close; coverage measures distances
between them. The structure's takes about 0.1 seconds, so it is kept on disk and can be
computed by several processes.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from matdesign.crystals.batch import Crystals
from matdesign.crystals.cached import checksum
from matdesign.crystals.matching import reduced
from matdesign.environment import package_version
from matdesign.metrics import magpie
from matdesign.metrics.store import DIED, Outcome, Store, deadline, in_processes

Floats = NDArray[np.float64]

LENGTH = 61
"""Length of the structure's fingerprint."""

VERSION = 1
"""Raise this when fingerprints would come out differently."""

ALIKE = 1e-3
"""Sites that a symmetry maps onto each other this closely are computed once, angstrom."""

TOO_SLOW = "no fingerprint (too slow)"


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of a batch, one row per crystal.

    Args:
        structure: mean over the sites of their fingerprints, shape (crystals, 61); NaN
            where it failed.
        composition: standardised Magpie features, shape (crystals, 132).
        reason: why a crystal has no fingerprint, empty where it has.
    """

    structure: Floats
    composition: Floats
    reason: tuple[str, ...]

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which crystals have both fingerprints, shape (crystals,)."""
        return np.array([not why for why in self.reason], dtype=bool)


def fingerprints(
    crystals: Crystals,
    *,
    workers: int = 1,
    cache: Path | None = None,
) -> Fingerprints:
    """Return the fingerprints of every crystal; one that fails says why.

    Args:
        crystals: any batch, broken crystals included.
        workers: processes; 1 computes in this one.
        cache: file that keeps fingerprints by the content of the crystal, made when
            missing; several processes may use one at a time.

    Returns:
        One row per crystal.

    Raises:
        DataError: matminer is not installed.

    Source:
        Structure: CrystalNN with order parameters, Zimmermann and Jain, RSC Adv. 10,
        6063 (2020), matminer's preset "ops". Composition: Magpie, Ward et al., npj
        Comput. Mater. 2, 16028 (2016). Both averaged and standardised as CDVAE
        (arXiv:2110.06197) does. Changed: sites that symmetry maps onto each other are
        computed once; means and deviations are those of the training part of reduced
        MP-20.
    """
    magpie.need_matminer()
    batch = crystals.to("cpu")
    plain = [_plain(batch, i) for i in range(len(batch))]
    keys = [_key(one) for one in plain]
    store = Store(cache) if cache is not None else None
    known = store.read(keys) if store is not None else {}
    # the same crystal is computed once, however often it occurs
    left = {key: i for i, key in enumerate(keys) if key not in known}
    items, names = [plain[i] for i in left.values()], list(left)
    for k, outcome in in_processes(fingerprint, items, workers):
        known[names[k]] = outcome
        # what the machine did says nothing of the crystal
        if store is not None and str(outcome) not in (TOO_SLOW, DIED):
            store.write(names[k], outcome)
    structure = np.full((len(plain), LENGTH), np.nan)
    reason = [""] * len(plain)
    for i, key in enumerate(keys):
        outcome = known[key]
        if isinstance(outcome, str):
            reason[i] = outcome
        else:
            structure[i] = outcome
    formulas = reduced(batch.species)
    return Fingerprints(structure, magpie.standardised(formulas), tuple(reason))


# ---- structure -----------------------------------------------------------------------


def _plain(crystals: Crystals, i: int) -> Crystals:
    """Return one crystal by itself, without padding and names."""
    real = crystals.mask[i]
    return Crystals(
        crystals.species[i, real][None],
        crystals.frac[i, real].detach()[None],
        crystals.lattice[i].detach()[None],
    )


def _key(one: Crystals) -> bytes:
    """Return a name of this very crystal and of the code that reads it."""
    arrays = {name: getattr(one, name) for name in ("species", "frac", "lattice")}
    tools = [f"{name} {package_version(name)}" for name in ("matminer", "pymatgen")]
    return f"{VERSION} {' '.join(tools)} {checksum(arrays)}".encode()


def fingerprint(one: Crystals) -> Outcome:
    """Return the structure's fingerprint of one crystal, or why it has none."""
    if not one.species.numel():
        return "no fingerprint (no atoms)"
    if not (one.frac.isfinite().all() and one.lattice.isfinite().all()):
        return "no fingerprint (not a number)"
    # a neighbour search in an almost flat cell takes all memory before it ends
    cell = one.lattice[0].double()
    areas = torch.linalg.cross(cell.roll(1, 0), cell.roll(2, 0), dim=-1).norm(dim=-1)
    heights = torch.linalg.det(cell).abs() / areas
    if not heights.min() > 0.5:
        return "no fingerprint (flat cell)"
    try:
        with deadline():
            return _mean_over_sites(one)
    except TimeoutError:
        return TOO_SLOW
    except Exception as error:  # pymatgen raises many kinds; one must not stop all
        return f"no fingerprint ({type(error).__name__})"


def _mean_over_sites(one: Crystals) -> Floats:
    import warnings

    import spglib

    structure = one.structure(0)
    kind: NDArray[Any] = np.arange(len(structure))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cell: Any = (
            structure.lattice.matrix,
            structure.frac_coords,
            structure.atomic_numbers,
        )
        with suppress(Exception):  # spglib raises its own kinds for odd cells
            found = spglib.get_symmetry_dataset(cell, symprec=ALIKE)
            if found is not None:
                kind = found.equivalent_atoms
        first, times = np.unique(kind, return_counts=True)
        sites = [_featurizer().featurize(structure, int(i)) for i in first]
    mean = np.average(np.array(sites, dtype=np.float64), axis=0, weights=times)
    if not np.isfinite(mean).all():
        raise ValueError("not a number")
    return mean


@cache
def _featurizer() -> Any:
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    return CrystalNNFingerprint.from_preset("ops")
