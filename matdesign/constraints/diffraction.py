"""The constraint that the powder X-ray diffraction pattern resembles a given one."""

from __future__ import annotations

import math
import numbers
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from matdesign.constraints.between import Range
from matdesign.constraints.powder import (
    CU_K_ALPHA,
    MOST_REFLECTIONS,
    REACH,
    powder_pattern,
)
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure

_PER_WIDTH = 5
"""Points of the grid in the width of a peak."""


class Diffraction(Range):
    """The powder X-ray diffraction pattern resembles a given one.

    Two patterns are compared by the cosine of the angle between them as vectors of
    intensities: 1 for the same pattern up to a factor, 0 where no peaks overlap. The
    violation is what is missing to `at_least`. It is infinite where a crystal has no
    pattern: a cell without volume or with more than `MOST_REFLECTIONS` reflections, an
    element beyond Cf. On undecided crystals each site scatters with the expected form
    factor.

    Peaks meet only where the cells agree: at 40 degrees, a cell longer by 1 % moves a
    peak by 0.4 degrees. A large width forgives that and gives gradients something to
    follow; a small one is strict.

    Equation:
        similarity = I . I' / (|I| |I'|), I the intensities of `powder_pattern`

    Args:
        target: one crystal, as `Crystals` of one or a pymatgen structure, or a pattern:
            a pair of arrays, angles 2 theta in degrees and intensities in any unit. A
            measured one needs its background taken away and `width` set to that of its
            peaks.
        at_least: smallest similarity that is near enough, between 0 and 1.
        two_theta: first and last angle 2 theta that are compared, degrees.
        width: of a peak, full width at half maximum, at least 0.01 degrees.
        wavelength: of the X-rays, at least 0.1 angstrom, or a name such as "MoKa", as in
            pymatgen's XRDCalculator; copper K-alpha unless given.

    Raises:
        DataError: the target is none of these, or has no pattern; a number is out of
            its range; a given pattern does not cover the angles, or has points farther
            apart than half the width.

    Example:
        >>> from pymatgen.core import Lattice, Structure
        >>> salt = Structure.from_spacegroup(
        ...     "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ... )
        >>> Diffraction(salt)
        diffraction pattern at least 0.9 like that of NaCl
    """

    scale = 0.1

    def __init__(
        self,
        target: Crystals | Structure | tuple[Any, Any],
        at_least: float = 0.9,
        *,
        two_theta: tuple[float, float] = (10.0, 80.0),
        width: float = 1.0,
        wavelength: float | str = CU_K_ALPHA,
    ) -> None:
        if not 0 < at_least < 1:
            raise DataError(
                f"at_least is a similarity above 0 and below 1; got {at_least!r}."
            )
        if isinstance(wavelength, str):
            wavelength = _of_radiation(wavelength)
        lengths: tuple[tuple[str, Any, float], ...] = (
            ("width", width, 0.01),
            ("wavelength", wavelength, 0.1),
        )
        for name, number, least in lengths:
            real = isinstance(number, numbers.Real) and math.isfinite(number)
            if not (real and number >= least):
                raise DataError(f"the {name} is at least {least:g}; got {number!r}.")
        low, high = two_theta
        edge = REACH * width
        if not edge < low < high < 180 - edge:
            raise DataError(
                "two_theta is a pair of rising angles in degrees, which stay clear of 0 "
                f"and 180 by 2.6 times the width ({edge:.3g}); got {two_theta!r}."
            )
        super().__init__("similarity", at_least, math.inf, "cosine")
        self.at_least = float(at_least)
        self.width, self.wavelength = float(width), float(wavelength)
        points = max(2, round((high - low) / width * _PER_WIDTH) + 1)
        self.two_theta = torch.linspace(low, high, points, dtype=torch.float64)
        """Angles of the pattern in degrees, shape (angles,)."""
        self.target, self.of = self._read(target)

    @property
    def key(self) -> Hashable:
        """Every target is one of its own."""
        return id(self)

    def sentence(self) -> str:
        """Return for example "diffraction pattern at least 0.9 like that of SrTiO3"."""
        return f"diffraction pattern at least {self.at_least:g} like {self.of}"

    def pattern(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the intensities at `two_theta`, shape (crystals, angles), float64.

        See `powder_pattern`. NaN where a crystal has no pattern.

        Args:
            crystals: finished or undecided crystals.
        """
        return powder_pattern(
            crystals, self.two_theta, width=self.width, wavelength=self.wavelength
        )

    def value(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the similarity to the target, from 0 to 1, shape (crystals,).

        Args:
            crystals: finished or undecided crystals; NaN for one without a pattern.
        """
        made = self.pattern(crystals)
        length = (made.square().sum(1) + 1e-20).sqrt()
        return (made @ self.target.to(made) / length).to(crystals.frac.dtype)

    def _read(self, target: Any) -> tuple[Tensor, str]:
        """Return the target's pattern, of length 1, and what a sentence calls it."""
        from pymatgen.core import Structure

        if isinstance(target, Structure):
            target = Crystals.from_structures([target])
        if isinstance(target, Crystals):
            if len(target) != 1:
                raise DataError(
                    f"the target of Diffraction is one crystal; got {len(target)}. "
                    "Take one of them, such as crystals[[0]]."
                )
            name = f"that of {target.formulas[0]}"
            with torch.no_grad():
                made = self.pattern(target)[0].cpu()
            if bool(made.isnan().any()):
                raise DataError(
                    f"the target of Diffraction, {name}, has no pattern: it holds an "
                    "element beyond Cf, or its cell has no volume or "
                    f"over {MOST_REFLECTIONS:,} reflections. Narrow two_theta for these."
                )
        else:
            name, made = "the given one", self._measured(target)
        length = made.norm()
        if not (bool(length.isfinite()) and float(length) > 0):
            raise DataError(
                f"the target of Diffraction, {name}, is zero from "
                f"{float(self.two_theta[0]):g} to {float(self.two_theta[-1]):g} degrees; "
                "give other angles or another crystal."
            )
        return made / length, name

    def _measured(self, target: Any) -> Tensor:
        """Return a given pattern at `two_theta`, between its points along lines."""
        try:
            angles, heights = (
                torch.as_tensor(one, dtype=torch.float64).cpu() for one in target
            )
        except (TypeError, ValueError, RuntimeError) as problem:
            raise DataError(
                "the target of Diffraction is Crystals of one, a pymatgen structure or a "
                f"pair of arrays (two_theta, intensity); got {type(target).__name__}."
            ) from problem
        if angles.ndim != 1 or angles.shape != heights.shape or len(angles) < 2:
            raise DataError(
                "a pattern is two arrays of the same length, 2 or more; got shapes "
                f"{tuple(angles.shape)} and {tuple(heights.shape)}."
            )
        steps, grid = angles.diff(), self.two_theta
        first, last, ends = float(angles[0]), float(angles[-1]), self.two_theta[[0, -1]]
        if not bool((angles.isfinite() & heights.isfinite() & (heights >= 0)).all()):
            wrong = (
                "has an angle that is not finite, or an intensity that is not 0 or more"
            )
        elif not bool((steps > 0).all()) or float(steps.max()) > self.width / 2:
            wrong = (
                "does not rise in steps of at most half the width, "
                f"{self.width / 2:g} degrees. Broaden a list of peaks first"
            )
        elif first > ends[0] + 1e-6 or last < ends[1] - 1e-6:
            wrong = f"covers {first:g} to {last:g} degrees, not all of two_theta"
        else:
            wrong = ""
        if wrong:
            raise DataError(f"the given pattern {wrong}.")
        return torch.from_numpy(np.interp(grid, angles, heights))


def _of_radiation(name: str) -> float:
    """Return the wavelength of a radiation in angstrom, by pymatgen's names."""
    from pymatgen.analysis.diffraction.xrd import WAVELENGTHS

    if name not in WAVELENGTHS:
        raise DataError(
            f"no radiation is called {name!r}; give a wavelength in angstrom, or one of "
            f"{', '.join(WAVELENGTHS)}."
        )
    return float(WAVELENGTHS[name])
