"""Crystals that the default potential labels, for property networks that guide samplers.

A network that has seen relaxed crystals only does not know that an atom in the wrong
place costs energy, and a sampler that follows its gradient finds that out. So it also
learns from *shaken* crystals, out of their minima, and from *sampled* ones, which the
shipped generators made, clashes and all. Labels are energies of the crystals as they
stand, not of what relaxation would make of them.
"""

import hashlib
import math
from pathlib import Path

import build_references
import torch
from bench.stages import code, sampler
from torch import Tensor

import matdesign as design
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.io.parquet import read_parquet, write_parquet

KEPT = Path(__file__).resolve().parent.parent / "build" / "labels"
FORMATION, ABOVE = "formation_energy_per_atom", "energy_above_hull"
ENERGIES = ("energy_per_atom", FORMATION, ABOVE, "e_above_hull")
LOWEST, HIGHEST, FARTHEST = -0.1, 1.5, 6.0
"""What is believed, eV/atom: costs of shaking from lowest to highest, and the distance
to the hull of a sampled crystal; beyond is no crystal, or a hole in the potential."""


def energies(crystals: Crystals) -> Tensor:
    """Return the energy of each crystal as it stands, eV/atom, by the default potential."""
    return torch.from_numpy(build_references.energies("chgnet-0.3.0", crystals)).float()


# ---- shaken --------------------------------------------------------------------------


def shake(crystals: Crystals, seed: int) -> tuple[Crystals, Tensor]:
    """Return displaced and strained crystals, and the displacement of each.

    Returns:
        The shaken crystals without properties, and the standard deviation of each
        coordinate in angstrom, 0.02 to 0.4 with equal weight on every factor; strains are
        a tenth of it, and as much again for the volume.
    """
    rng = generator(seed)
    b, s = crystals.species.shape
    size = 0.02 * 20 ** torch.rand(b, generator=rng)
    move = torch.randn(b, s, 3, generator=rng) * size[:, None, None]
    strain = torch.randn(b, 3, 3, generator=rng)
    strain = (strain + strain.transpose(1, 2)) / 2
    swell = torch.randn(b, 1, 1, generator=rng) * torch.eye(3)
    deform = torch.eye(3) + 0.1 * size[:, None, None] * (strain + swell)
    frac = crystals.frac + move @ torch.linalg.inv(crystals.lattice)
    frac = (frac % 1.0 % 1.0) * crystals.mask[..., None]
    ids = tuple(f"{one}-shaken" for one in crystals.ids)
    return Crystals(crystals.species, frac, crystals.lattice @ deform, ids=ids), size


def shaken(crystals: Crystals, *, copies: float, seed: int) -> Crystals:
    """Return shaken copies of crystals with their energies; absurd ones are left out.

    Returns:
        Crystals with the energies, `cost` (eV/atom) and `displacement` (angstrom).
    """
    parts = []
    for copy in range(math.ceil(copies)):
        count = round(min(1.0, copies - copy) * len(crystals))
        some = crystals[torch.linspace(0, len(crystals) - 1, count).long()]
        moved, size = shake(some, seed + copy)
        before = some.properties.get("energy_per_atom")
        more = energies(moved) - (energies(some) if before is None else before)
        dearer = {k: v + more for k, v in some.properties.items() if k in ENERGIES}
        made = moved.replace(
            properties={**dearer, "cost": more, "displacement": size},
            units=dict.fromkeys((*dearer, "cost"), "eV/atom"),
        )
        parts.append(made[(more > LOWEST) & (more < HIGHEST)])
    return Crystals.cat(parts)


# ---- sampled -------------------------------------------------------------------------


def families(data: str) -> list[str]:
    """Return the shipped generators of a data set."""
    return [name for name in design.models() if name.endswith(f"-{data}")]


def unguided(data: str, count: int, seed: int) -> list[Crystals]:
    """Return crystals of every family in equal shares, without a guide."""
    made, names = [], families(data)
    for name in names:
        model = design.load_model(name)
        steps = 25 if model.stepwise else None
        made.append(model.sample(count // len(names), seed=seed, steps=steps))
    return made


def guided(data: str, predictor: str, count: int, seed: int) -> list[Crystals]:
    """Return crystals of flow matching that a predictor guided by its gradient."""
    model, made = design.load_model(f"flow-matching-{data}"), []
    for name, high in ((FORMATION, -1.5), (ABOVE, 0.1)):
        wanted = design.Property(predictor, high=high, name=name)
        wanted.scale = 0.1
        guide = design.Guide(wanted, "gradient", strict="hard")
        made.append(guide.sample(model, count // 2, seed=seed, steps=25))
    return made


def sampled(
    data: str, *, count: int, guides: int = 0, predictor: str = "", seed: int = 0
) -> Crystals:
    """Return sampled crystals with their energies; absurd ones are left out.

    Kept are the crystals and their energies, and nothing of a hull.
    """
    models = [f"flow-matching-{data}", *families(data)] + [predictor] * bool(predictor)
    made_by = "".join(sampler(name) for name in models) + code()
    stamp = hashlib.sha256(made_by.encode()).hexdigest()[:12]
    path = KEPT / f"sampled-{data}-{count}-{guides}-{predictor}-{seed}-{stamp}.parquet"
    if not path.exists():
        parts = unguided(data, count, seed)
        parts += guided(data, predictor, guides, seed) if guides else []
        bare = [Crystals(one.species, one.frac, one.lattice) for one in parts]
        made = Crystals.cat(bare)
        ids = tuple(f"made-{k}" for k in range(len(made)))
        made = made.replace(properties={"energy_per_atom": energies(made)}, ids=ids)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(made, path)
    made, hull = read_parquet(path), design.Hull.shipped()
    energy = made.properties["energy_per_atom"].numpy()
    above = torch.as_tensor(hull.energy_above_hull(made, energy)).float()
    formed = torch.as_tensor(hull.formation_energy(made, energy)).float()
    made = made.replace(
        properties={FORMATION: formed, ABOVE: above},
        units=dict.fromkeys((FORMATION, ABOVE), "eV/atom"),
    )
    return made[(above < FARTHEST) & formed.isfinite()]
