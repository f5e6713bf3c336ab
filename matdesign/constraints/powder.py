"""Powder X-ray diffraction patterns of crystals, with gradients."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.geometry import reduce_lattice

CU_K_ALPHA = 1.54184
"""Mean wavelength of copper K-alpha radiation, angstrom."""

MOST_REFLECTIONS = 20_000
"""Reflections of one cell, at most, one of each pair hkl and -h-k-l."""

REACH = 6 / math.sqrt(8 * math.log(2))
"""How far from its centre a peak is added up, in widths: 6 standard deviations."""


def powder_pattern(
    crystals: Crystals | SoftCrystals,
    two_theta: Tensor,
    *,
    width: float = 1.0,
    wavelength: float = CU_K_ALPHA,
) -> Tensor:
    """Return the powder X-ray diffraction patterns of crystals.

    All reflections hkl that the angles show are added up, so multiplicities need no
    table. A site that is still undecided scatters with the expected form factor of its
    elements; those beyond Cf scatter nothing.

    Equation:
        F_hkl = sum_j f_j(s) exp(2 pi i hkl . x_j), s = |hkl L^-T| / 2 = sin(theta) / l;
        f(s) = Z - 41.78214 s^2 sum_k a_k exp(-b_k s^2), l the wavelength;
        I(t) = sum_hkl |F|^2 (1 + cos^2 2 theta) / (sin^2 theta cos theta) G(t - 2 theta),
        G a Gaussian of height 1

    Args:
        crystals: finished or undecided crystals.
        two_theta: angles in degrees, 2 or more, rising in even steps that are small
            against the width, shape (angles,).
        width: of a peak, full width at half maximum, degrees.
        wavelength: of the X-rays, angstrom.

    Returns:
        Intensities in electrons^2 per cell, float64, shape (crystals, angles); NaN where
        a crystal has no pattern: a site of nothing but elements beyond Cf, a cell without
        volume or with more than `MOST_REFLECTIONS`.

    Accuracy:
        Atoms stand still (no Debye-Waller factor), do not absorb and scatter without
        anomalous dispersion; grains have no preferred direction. Agrees with pymatgen's
        XRDCalculator (tests/constraints/test_diffraction.py).

    Source:
        De Graef and McHenry, Structure of Materials (2012), chapters 11 and 12; form
        factors from pymatgen's table.
    """
    grid = two_theta.to(crystals.lattice.device)
    reach = REACH * width
    ends = float(grid[0]) - reach, float(grid[-1]) + reach
    low, high = (2 * math.sin(math.radians(t) / 2) / wavelength for t in ends)
    lattice = crystals.lattice.double()
    change = reduce_lattice(lattice)
    rows = change @ lattice
    # whole numbers: coordinates in the reduced cell, where few hkl need a look
    frac = crystals.frac.double() @ torch.linalg.inv_ex(change).inverse.round()
    numbers, p = _scattering(crystals)
    unknown = (crystals.mask & (p.detach().sum(-1) == 0)).any(1).tolist()
    made = [rows.new_full((0, len(grid)), torch.nan)]
    for i in range(len(rows)):
        hkl = None if unknown[i] else _reflections(rows[i].detach(), low, high)
        if hkl is None:
            made.append(rows.new_full((1, len(grid)), torch.nan))
        else:
            one = _peaks(hkl, rows[i], frac[i], p[i], numbers, grid, width, wavelength)
            made.append(one[None])
    return torch.cat(made)


def _reflections(rows: Tensor, low: float, high: float) -> Tensor | None:
    """Return half of the hkl with 1 / d between two ends, (reflections, 3), if few."""
    sizes = (high * rows.norm(dim=1)).tolist()  # |h| = |g . a| <= |g| |a|
    if not all(map(math.isfinite, sizes)) or float(torch.linalg.det(rows).abs()) < 1e-3:
        return None
    most = [math.floor(size) for size in sizes]
    if math.prod(2 * k + 1 for k in most) > 16 * MOST_REFLECTIONS:
        return None
    hkl = torch.cartesian_prod(*(torch.arange(-k, k + 1).to(rows) for k in most))
    hkl = hkl[len(hkl) // 2 + 1 :]
    far = (hkl @ torch.linalg.inv(rows).mT).norm(dim=1)
    hkl = hkl[(far > low) & (far < high)]
    return hkl if len(hkl) <= MOST_REFLECTIONS else None


def _peaks(
    hkl: Tensor,
    rows: Tensor,
    frac: Tensor,
    p: Tensor,
    numbers: Tensor,
    grid: Tensor,
    width: float,
    wavelength: float,
) -> Tensor:
    """Return the pattern of one crystal, shape (angles,)."""
    square = (hkl @ torch.linalg.inv(rows).mT).square().sum(-1) / 4  # s^2
    a, b = _form_factors().to(rows)[numbers].unbind(-1)  # (elements, 4)
    fall = torch.exp(-b * square[:, None, None])  # (hkl, elements, 4)
    factor = (numbers - 41.78214 * square[:, None] * (a * fall).sum(-1)) @ p.mT
    phase = 2 * math.pi * (hkl @ frac.mT)  # (hkl, sites)
    real, imaginary = (factor * phase.cos()).sum(-1), (factor * phase.sin()).sum(-1)
    sine = wavelength * square.sqrt()
    angle = 2 * sine.asin()
    polar = (1 + angle.cos() ** 2) / (sine**2 * (angle / 2).cos())
    height = 2 * (real**2 + imaginary**2) * polar
    angle = angle.rad2deg()
    step = (grid[-1] - grid[0]) / (len(grid) - 1)
    side = math.ceil(REACH * width / float(step))
    near = torch.arange(-side, side + 1, device=rows.device)
    at = ((angle.detach() - grid[0]) / step).round().long()[..., None] + near
    offset = (grid[0] + at * step - angle[..., None]) / width
    shape = torch.exp(-4 * math.log(2) * offset**2)
    inside = (at >= 0) & (at < len(grid))
    added = (height[:, None] * shape * inside).flatten()
    at = at.clamp(0, len(grid) - 1).flatten()
    return rows.new_zeros(len(grid)).scatter_add(0, at, added)


@cache
def _form_factors() -> Tensor:
    """Return a and b of the form factors, (104, 4, 2); NaN where there are none."""
    from pymatgen.analysis.diffraction.xrd import ATOMIC_SCATTERING_PARAMS

    rows = torch.full((elements.MAX_Z + 1, 4, 2), torch.nan, dtype=torch.float64)
    for z, symbol in enumerate(elements.symbols()):
        if symbol in ATOMIC_SCATTERING_PARAMS:
            rows[z] = torch.tensor(ATOMIC_SCATTERING_PARAMS[symbol])
    return rows


def _scattering(crystals: Crystals | SoftCrystals) -> tuple[Tensor, Tensor]:
    """Return the elements that can scatter, and their probabilities at each site."""
    species = crystals.species
    if isinstance(crystals, SoftCrystals):
        there = species.detach().flatten(0, 1).any(0) | species.requires_grad
    else:
        there = torch.zeros(elements.MAX_Z + 1, dtype=torch.bool, device=species.device)
        there[species] = True
    there = there & ~_form_factors().isnan().flatten(1).any(1).to(there.device)
    numbers = there.nonzero().squeeze(1)
    if isinstance(crystals, SoftCrystals):
        return numbers, species[..., numbers].double()
    return numbers, (species[..., None] == numbers).double()
