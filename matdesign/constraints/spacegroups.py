"""Constraints on the symmetry of the crystal: its space group, its crystal system."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matdesign.constraints.base import Constraint, listing
from matdesign.constraints.distance import nearest_like, root
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.lattice_code import SYSTEMS, system_of
from matdesign.crystals.symmetry.find import SYMPREC, spacegroup, spacegroup_number
from matdesign.crystals.symmetry.wyckoff import operations, primitive_cell
from matdesign.errors import DataError

_FEW = 4
"""Most space groups for which undecided crystals are measured one by one."""


class _OfGroups(Constraint):
    """The space group is one of some numbers."""

    numbers: tuple[int, ...]

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether the group found is one of the numbers, shape (crystals,)."""
        found = spacegroup(crystals)
        return torch.isin(found, torch.tensor(self.numbers, device=found.device))

    def excludes(self, other: Constraint) -> bool:
        """Return whether the other one asks for other groups."""
        return isinstance(other, _OfGroups) and not {*self.numbers} & {*other.numbers}


class SpaceGroup(_OfGroups):
    """The crystal has one of the named space groups.

    The strict check finds the group of the crystal itself, whatever its cell, with a
    tolerance of `SYMPREC`, 0.1 angstrom, as reports do: a crystal of higher symmetry than
    asked misses.

    Undecided crystals are measured in the setting in which generators write them: the
    primitive cell of the standard setting, standard origin. There the violation is how
    far the crystal is from its own images; in another setting it stays above zero. For
    more than four groups, and for a finished crystal, whose setting may be any, it is
    only said whether the group is met: 0, or at least 0.1 angstrom.

    Equation:
        for a group of operations (R, t) in the primitive cell L:
        violation = mean over operations and atoms i of
            min over j of sqrt(|(f_i R^T + t - f_j) L|^2 + (r_ij)^2)
            + mean over operations of ||R^T G R - G|| / sqrt(tr G), G = L L^T,
        with r_ij = total variation between the species of i and j, times 1 angstrom. The
        smallest over the named groups.

    Args:
        *groups: numbers from 1 to 230, or Hermann-Mauguin symbols such as "Pm-3m"; see
            `spacegroup_number`.

    Raises:
        DataError: no group is named, or one is not a space group.

    Accuracy:
        Differentiable but where the nearest atom changes. Zero exactly for the crystals
        whose atoms and cell are mapped onto themselves, which includes those of higher
        symmetry.

    Example:
        >>> SpaceGroup(221, "Fm-3m")
        space group 221 (Pm-3m) or 225 (Fm-3m)
    """

    unit = "angstrom"

    def __init__(self, *groups: int | str) -> None:
        if not groups:
            raise DataError('SpaceGroup got no group; name one: SpaceGroup("Pm-3m").')
        self.numbers = tuple(sorted({spacegroup_number(one) for one in groups}))

    def sentence(self) -> str:
        """Return for example "space group 221 (Pm-3m)"."""
        words = [f"{number} ({symbol(number)})" for number in self.numbers]
        return f"space group {listing(words).replace(' and ', ' or ')}"

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the distance from the symmetry in angstrom, shape (crystals,)."""
        if isinstance(crystals, Crystals):
            return _graded(self.satisfied(crystals), self._distance(crystals.soft()))
        return self._distance(crystals)

    def conditions(self) -> dict[str, Any]:
        """Return the numbers as a condition."""
        return {"spacegroup": list(self.numbers)}

    def _distance(self, soft: SoftCrystals) -> Tensor:
        if len(self.numbers) > _FEW:
            met = self.satisfied(soft.harden())
            return torch.where(met, 0.0, SYMPREC).to(soft.frac.dtype)
        each = [_from_images(soft, number) for number in self.numbers]
        return torch.stack(each).amin(dim=0)


class CrystalSystem(_OfGroups):
    """The crystal belongs to one of the named crystal systems, by its space group.

    The system is that of the space group, found as `SpaceGroup` does, not of the lengths
    and angles of the cell. It is met or not: the violation is 0 or 1 and has no
    gradient; on undecided crystals it is that of the most probable elements. Ask a
    generator for it with `conditions`.

    Args:
        *systems: "triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal",
            "hexagonal" or "cubic".

    Raises:
        DataError: no system is named, or one is unknown.

    Example:
        >>> CrystalSystem("cubic", "tetragonal")
        tetragonal or cubic crystal system
    """

    def __init__(self, *systems: str) -> None:
        wrong = [one for one in systems if one not in SYSTEMS]
        if wrong or not systems:
            raise DataError(
                f"a crystal system is one of {', '.join(SYSTEMS)}; got "
                f"{wrong[0] if wrong else 'none'}."
            )
        self.systems = tuple(one for one in SYSTEMS if one in systems)
        named = torch.tensor([1 + SYSTEMS.index(one) for one in self.systems])
        of_group = torch.isin(system_of(torch.arange(231)), named)
        self.numbers = tuple(of_group.nonzero().flatten().tolist())

    def sentence(self) -> str:
        """Return for example "cubic crystal system"."""
        return f"{listing(self.systems).replace(' and ', ' or ')} crystal system"

    def conditions(self) -> dict[str, Any]:
        """Return the systems as a condition."""
        return {"crystal_system": list(self.systems)}


@cache
def symbol(number: int) -> str:
    """Return the Hermann-Mauguin symbol of a space group number, such as "Pm-3m"."""
    from pymatgen.symmetry.groups import sg_symbol_from_int_number

    return sg_symbol_from_int_number(number)


def _graded(met: Tensor, distance: Tensor) -> Tensor:
    """Return 0 where a constraint is met, else the distance, but no less than symprec."""
    return torch.where(met, 0.0, distance.clamp(min=SYMPREC).nan_to_num(SYMPREC))


@cache
def _primitive(number: int) -> tuple[Tensor, Tensor]:
    """Return the operations of a group in its primitive cell, without centring.

    Returns:
        R for rows (f' = f R + t), shape (operations, 3, 3), and t.
    """
    rotations, translations = operations(number)
    cell = primitive_cell(number)
    into = np.linalg.inv(cell)
    rows = np.round(cell @ rotations.transpose(0, 2, 1) @ into)
    _, first = np.unique(rows.reshape(-1, 9), axis=0, return_index=True)
    first.sort()
    return torch.from_numpy(rows[first]), torch.from_numpy((translations @ into)[first])


def _from_images(soft: SoftCrystals, number: int) -> Tensor:
    """Return how far crystals are from their images under a group, in angstrom."""
    rotations, shifts = (t.to(soft.frac) for t in _primitive(number))
    p, mask = soft.species, soft.mask
    unlike = (p[:, :, None] - p[:, None]).abs().sum(-1) / 2  # (b, s, s)
    gram = soft.lattice @ soft.lattice.transpose(1, 2)
    size = gram.diagonal(dim1=1, dim2=2).sum(-1).sqrt()
    total = soft.frac.new_zeros(len(soft))
    for rotation, shift in zip(rotations, shifts, strict=True):
        moved = soft.frac @ rotation + shift
        near = nearest_like(moved, soft, unlike)  # (b, s)
        total = total + (near * mask).sum(1) / mask.sum(1).clamp(min=1)
        turned = rotation @ gram @ rotation.T
        total = total + root((turned - gram).square().sum((1, 2))) / size
    return total / len(rotations)
