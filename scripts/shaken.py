"""Shake crystals out of their minima and let the default potential say what that costs.

    python scripts/shaken.py perovskites --copies 1

A network that has seen relaxed crystals only does not know that an atom in the wrong
place costs energy, and a sampler that follows its gradient finds that out. Here every
atom is displaced and every cell strained, by a little or a lot; the energy per atom that
the potential gives the shaken crystal, less that of the one it came from, is added to the
energies the crystal came with. Labels are kept in build/shaken.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

import matdesign as design
from matdesign.crystals.batch import Crystals, generator
from matdesign.generators.batching import fingerprint
from matdesign.generators.storage import read_checkpoint, write_checkpoint

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "shaken"
ENERGIES = (
    "energy_per_atom",
    "formation_energy_per_atom",
    "energy_above_hull",
    "e_above_hull",
)
HIGHEST, LOWEST = 1.5, -0.1
"""Costs that are believed, eV/atom: more is no crystal, less a hole in the potential."""


def shake(crystals: Crystals, seed: int) -> tuple[Crystals, Tensor]:
    """Return displaced and strained crystals, and the displacement of each.

    Args:
        crystals: relaxed crystals.
        seed: of the displacements.

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
    turn = torch.eye(3) + 0.1 * size[:, None, None] * (strain + swell)
    frac = crystals.frac + move @ torch.linalg.inv(crystals.lattice)
    frac = (frac % 1.0 % 1.0) * crystals.mask[..., None]
    ids = tuple(f"{one}-shaken" for one in crystals.ids)
    return Crystals(crystals.species, frac, crystals.lattice @ turn, ids=ids), size


def cost(crystals: Crystals, shaken: Crystals, seed: int) -> Tensor:
    """Return what the shaking costs by the default potential, eV/atom, (crystals,)."""
    path = KEPT / f"{fingerprint(crystals)[:16]}-{seed}.safetensors"
    if path.exists():
        return read_checkpoint(path)[0]["cost"]
    potential = design.Potential()
    parts = []
    for start in range(0, len(crystals), 200):
        some = slice(start, start + 200)
        after = energies(potential, shaken[some])
        known = crystals[some].properties.get("energy_per_atom")
        before = energies(potential, crystals[some]) if known is None else known
        parts.append(after - before)
        print(f"shaken {min(start + 200, len(crystals))}/{len(crystals)}", flush=True)
    found = torch.cat(parts)
    write_checkpoint(path, {"cost": found}, {"seed": seed, "unit": "eV/atom"})
    return found


def energies(potential: design.Potential, crystals: Crystals) -> Tensor:
    """Return the energy of each crystal as it stands, eV/atom."""
    found = potential.evaluate(crystals, forces=False)
    return torch.as_tensor(found.energy_per_atom).float()


def labelled(crystals: Crystals, *, copies: float, seed: int) -> Crystals:
    """Return shaken copies of crystals with their energies; absurd ones are left out.

    Args:
        crystals: relaxed crystals with one of the energies that this file knows.
        copies: shaken copies of each; half a copy is one of every second crystal.
        seed: of the displacements.

    Returns:
        Crystals with the energies, `cost` (eV/atom) and `displacement` (angstrom).
    """
    parts = []
    for copy in range(math.ceil(copies)):
        part = min(1.0, copies - copy)
        some = crystals
        if part < 1.0:
            count = round(part * len(crystals))
            some = crystals[torch.linspace(0, len(crystals) - 1, count).long()]
        shaken, size = shake(some, seed + copy)
        more = cost(some, shaken, seed + copy)
        dearer = {
            name: values + more
            for name, values in some.properties.items()
            if name in ENERGIES
        }
        made = shaken.replace(
            properties={**dearer, "cost": more, "displacement": size},
            units=dict.fromkeys((*dearer, "cost"), "eV/atom"),
        )
        parts.append(made[(more > LOWEST) & (more < HIGHEST)])
    return Crystals.cat(parts)


def main() -> None:
    """Print what shaking costs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a name of design.datasets()")
    parser.add_argument("--copies", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = design.load(args.data, split="train")
    made = labelled(train, copies=args.copies, seed=args.seed)
    size, more = made.properties["displacement"], made.properties["cost"]
    print(f"{len(made)} of {args.copies * len(train):.0f} kept")
    for low, high in ((0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.4)):
        some = more[(size >= low) & (size < high)]
        print(f"{low}-{high} angstrom: {len(some)}, median {some.median():.3f} eV/atom")


if __name__ == "__main__":
    main()
