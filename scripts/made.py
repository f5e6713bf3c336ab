"""Crystals that the shipped generators make, with the energies of the default potential.

    python scripts/made.py prototypes --count 4000 --guided 600

A network that has seen relaxed and slightly shaken crystals only is too kind to what a
sampler makes, clashes and all. Here every family makes its share, unguided; a predictor
may guide some more of them. Labels are single points: energies of the crystals as they
stand, not of what relaxation would make of them. They are kept in build/made.
"""

import argparse
from pathlib import Path

import torch
from shaken import energies

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.parquet import read_parquet, write_parquet
from matdesign.generators.shipped import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "made"
FORMATION, ABOVE = "formation_energy_per_atom", "energy_above_hull"
HIGHEST = 6.0
"""Distance to the hull that is believed, eV/atom; more is no crystal."""
STEPS = 25
WISHES = ((FORMATION, -1.5), (ABOVE, 0.1))
"""What guided crystals are asked to lie below, eV/atom."""


def unguided(data: str, count: int, seed: int) -> list[Crystals]:
    """Return crystals of every family in equal shares, without a guide."""
    made = []
    for family in FAMILIES:
        model = design.load_model(f"{family}-{data}")
        steps = STEPS if family in ("diffusion", "flow-matching") else None
        made.append(model.sample(count // len(FAMILIES), seed=seed, steps=steps))
        print(f"{family}: {len(made[-1])} made", flush=True)
    return made


def guided(data: str, predictor: str, count: int, seed: int) -> list[Crystals]:
    """Return crystals of flow matching that a predictor guided by its gradient."""
    model, made = design.load_model(f"flow-matching-{data}"), []
    for name, high in WISHES:
        wanted = design.Property(predictor, high=high, name=name)
        wanted.scale = 0.1
        guide = design.Guide(wanted, "gradient", strict="hard")
        some = guide.sample(model, count // len(WISHES), seed=seed, steps=STEPS)
        made.append(some)
        print(f"guided by {name}: {len(some)} made", flush=True)
    return made


def labelled(
    data: str, *, count: int, guides: int = 0, predictor: str = "", seed: int = 0
) -> Crystals:
    """Return made crystals with their energies; absurd ones are left out.

    Args:
        data: the set that the generators were trained on.
        count: crystals of all families together.
        guides: crystals that a predictor guided, besides.
        predictor: its name.
        seed: of the samples.
    """
    path = KEPT / f"{data}-{count}-{guides}-{predictor}-{seed}.parquet"
    if not path.exists():
        parts = unguided(data, count, seed)
        parts += guided(data, predictor, guides, seed) if guides else []
        bare = [Crystals(one.species, one.frac, one.lattice) for one in parts]
        made = Crystals.cat(bare)
        potential, hull = design.Potential(), design.Hull.shipped()
        split = [
            energies(potential, made[k]) for k in torch.arange(len(made)).split(200)
        ]
        energy = torch.cat(split).numpy()
        above = torch.as_tensor(hull.energy_above_hull(made, energy)).float()
        formed = torch.as_tensor(hull.formation_energy(made, energy)).float()
        made = made.replace(
            properties={FORMATION: formed, ABOVE: above},
            units=dict.fromkeys((FORMATION, ABOVE), "eV/atom"),
            ids=tuple(f"made-{k}" for k in range(len(made))),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(made[(above < HIGHEST) & formed.isfinite()], path)
    return read_parquet(path).replace(
        units=dict.fromkeys((FORMATION, ABOVE), "eV/atom")
    )


def main() -> None:
    """Print what the crystals are like."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a name of design.datasets()")
    parser.add_argument("--count", type=int, default=4_000)
    parser.add_argument("--guided", type=int, default=0)
    parser.add_argument("--predictor", default="energy-prototypes")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = labelled(
        args.data,
        count=args.count,
        guides=args.guided,
        predictor=args.predictor,
        seed=args.seed,
    )
    above = made.properties[ABOVE]
    print(f"{len(made)} of {args.count + args.guided} kept")
    print(f"distance to the hull: median {above.median():.3f} eV/atom")


if __name__ == "__main__":
    main()
