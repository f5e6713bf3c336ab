"""Split a batch so that what must not be shared by two parts never is."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.matching import reduced
from matdesign.crystals.symmetry.find import spacegroup
from matdesign.errors import DataError

By = Literal[
    "random", "composition", "chemical_system", "prototype", "spacegroup", "size"
]
"""What keeps crystals together."""

PARTS = ("train", "validation", "test")


def split(
    crystals: Crystals,
    by: str = "random",
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int | torch.Generator | None = 0,
) -> tuple[Crystals, Crystals, Crystals]:
    """Return train, validation and test parts; a group is never cut in two.

    Groups are drawn in random order, each into a part with room for it, so parts come
    close to the fractions. `"size"` is different: crystals are ordered by their
    number of atoms, and the largest are the test, to measure how far a model reaches
    beyond what it saw.

    Args:
        crystals: the batch.
        by: `"random"` (each crystal by itself), `"composition"` (reduced formula),
            `"chemical_system"` (set of elements), `"prototype"` (the label of that
            name), `"spacegroup"` (the property of that name, else found here) or
            `"size"`.
        fractions: shares of the three parts; they sum to 1.
        seed: fixes the order in which groups are drawn.

    Returns:
        Three batches; together they hold every crystal once. Order inside is kept.

    Raises:
        DataError: an unknown `by`, shares that do not sum to 1, a missing label, or a
            part that would be empty.

    Example:
        >>> species = torch.tensor([[1], [1], [2], [3]])
        >>> four = Crystals(species, torch.zeros(4, 1, 3), torch.eye(3).repeat(4, 1, 1))
        >>> parts = split(four, "composition", fractions=(0.5, 0.25, 0.25))
        >>> sorted(len(part) for part in parts)
        [1, 1, 2]
    """
    if by not in get_args(By):
        raise DataError(
            f"unknown kind of split {by!r}; choose one of {', '.join(get_args(By))}."
        )
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(
            f"fractions must be three shares that sum to 1; got {fractions}. "
            "Use for example (0.8, 0.1, 0.1)."
        )
    groups = group_of(crystals, by)
    if by == "size":
        part = _by_size(groups, fractions)
    else:
        part = _assign(groups, fractions, generator(seed))
    for k, share in enumerate(fractions):
        if share > 0 and not bool((part == k).any()):
            raise DataError(
                f"the {PARTS[k]} part would be empty; {len(crystals)} crystals form "
                f"{len(set(groups.tolist()))} groups by {by}. Split by something "
                "finer, change the fractions, or use more data."
            )
    first, second, third = (crystals[part == k] for k in range(3))
    return first, second, third


def group_of(crystals: Crystals, by: str) -> torch.Tensor:
    """Return the group number of every crystal, shape (crystals,).

    Numbers are dense, in order of first appearance (of atom count, for `"size"`).

    Raises:
        DataError: the batch has no `prototype` label, or one crystal's is unknown.

    Example:
        >>> species = torch.tensor([[8, 1], [1, 8], [26, 0]])
        >>> three = Crystals(species, torch.zeros(3, 2, 3), torch.eye(3).repeat(3, 1, 1))
        >>> group_of(three, "chemical_system").tolist()
        [0, 0, 1]
    """
    keys: list[object]
    if by == "random":
        return torch.arange(len(crystals))
    if by == "size":
        return crystals.n_atoms.cpu()
    if by == "prototype":
        keys = list(crystals.labels.get("prototype", ("",) * len(crystals)))
        if unknown := keys.count(""):
            raise DataError(
                f"{unknown} of {len(keys)} crystals have no prototype; this batch has the "
                f"labels {', '.join(crystals.labels) or '(none)'}. Drop them, split by "
                "spacegroup or composition, or load a set that names its prototypes, such "
                "as 'prototypes'."
            )
    elif by == "spacegroup":
        known = crystals.properties.get("spacegroup")
        if known is None or not bool(known.isfinite().all()):
            known = spacegroup(crystals)
        keys = known.tolist()
    else:
        formulas = reduced(crystals.species)
        keys = [f if by == "composition" else tuple(z for z, _ in f) for f in formulas]
    number: dict[object, int] = {}
    return torch.tensor(
        [number.setdefault(key, len(number)) for key in keys], dtype=torch.long
    )


def _assign(
    groups: torch.Tensor,
    fractions: tuple[float, float, float],
    rng: torch.Generator,
) -> torch.Tensor:
    """Return the part of every crystal; whole groups, drawn in random order.

    Of the parts that a group fits into it goes to the one that is filled least; where it
    fits into none, to the one with most room. The last groups go to parts still empty.
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    sizes = torch.bincount(groups, minlength=count).tolist()
    goal = [share * len(groups) for share in fractions]
    choice, room = [0] * count, list(goal)
    order = torch.randperm(count, generator=rng, device=rng.device).tolist()
    for left, group in zip(range(count, 0, -1), order):
        size = sizes[group] - 1e-6
        empty = [k for k in range(3) if room[k] == goal[k] > 0]
        fits = [k for k in range(3) if room[k] >= size]
        if left <= len(empty):
            part = max(empty, key=room.__getitem__)
        elif fits:
            part = max(fits, key=lambda k: room[k] / goal[k])
        else:
            part = max(range(3), key=room.__getitem__)
        choice[group] = part
        room[part] -= sizes[group]
    return torch.tensor(choice, dtype=torch.long)[groups]


def _by_size(
    atoms: torch.Tensor, fractions: tuple[float, float, float]
) -> torch.Tensor:
    """Return the part of every crystal: few atoms train, many test, no size in two.

    Of all pairs of limits, the one whose shares come closest and leave no part empty.
    """
    _, size, counts = atoms.unique(return_inverse=True, return_counts=True)
    below = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).double()
    first, second = torch.meshgrid(below, below, indexing="ij")
    shares = torch.stack([first, second - first, below[-1] - second], dim=-1)
    goal = torch.tensor(fractions, dtype=torch.float64)
    empty = ((shares <= 0) & (goal > 0)).any(-1) | (shares < 0).any(-1)
    miss = (shares / below[-1].clamp_min(1) - goal).square().sum(-1)
    best = int(torch.where(empty, 4.0 + miss, miss).argmin())
    low, high = divmod(best, len(below))
    return (size >= low).long() + (size >= high).long()
