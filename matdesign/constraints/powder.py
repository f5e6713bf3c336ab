"""Powder X-ray diffraction patterns of crystals, with gradients."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.data.primitive import primitive_cells
from matdesign.crystals.geometry import reduce_lattice

CU_K_ALPHA = 1.54184
"""Mean wavelength of copper K-alpha radiation, angstrom."""

MOST_REFLECTIONS = 20_000
"""Reflections of one primitive cell, at most, one of each pair hkl and -h-k-l."""

REACH = 6 / math.sqrt(8 * math.log(2))
"""How far from its centre a peak is added up, in widths: 6 standard deviations."""

_CHUNK = 8_000
"""Reflections whose intermediate numbers are held at once; about 10 kB each."""


def powder_pattern(
    crystals: Crystals | SoftCrystals,
    two_theta: Tensor,
    *,
    width: float = 1.0,
    wavelength: float = CU_K_ALPHA,
) -> Tensor:
    """Return the powder X-ray diffraction patterns of crystals.

    All reflections hkl that the angles show are added up, so multiplicities need no
    table. A site that is still undecided scatters with the expected form factor over the
    belief of its elements; what is believed to be beyond Cf scatters nothing.

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
        a crystal has no pattern: see `obstacle`. A finished crystal in a cell with more
        than `MOST_REFLECTIONS` is read in its primitive cell.

    Accuracy:
        Atoms stand still (no Debye-Waller factor), do not absorb and scatter without
        anomalous dispersion; grains have no preferred direction. Agrees with pymatgen's
        XRDCalculator (tests/constraints/test_diffraction.py).

    Source:
        De Graef and McHenry, Structure of Materials (2012), chapters 11 and 12; form
        factors from pymatgen's table.
    """
    grid = two_theta.to(crystals.lattice.device)
    low, high = _ends(grid, width, wavelength)
    many: dict[int, float] = {}
    if isinstance(crystals, Crystals):
        crystals, many = _fewer(crystals, low, high)
    lattice = crystals.lattice.double()
    change = reduce_lattice(lattice)
    rows = change @ lattice
    # whole numbers: coordinates in the reduced cell, where few hkl need a look
    frac = crystals.frac.double() @ torch.linalg.inv_ex(change).inverse.round()
    numbers, belief = _belief(crystals)
    unknown = (crystals.mask & (belief.detach().sum(-1) == 0)).any(1)
    found: dict[int, Tensor] = {}
    for i in (~unknown).nonzero().squeeze(1).tolist():
        hkl = _reflections(rows[i].detach(), low, high)
        if not isinstance(hkl, str):
            found[i] = hkl
    made = rows.new_full((len(rows), len(grid)), torch.nan)
    chunks = _chunks(found)
    again = len(chunks) > 1 and torch.is_grad_enabled()
    for chunk in chunks:
        which = torch.tensor(chunk, device=rows.device)
        hkl = pad_sequence([found[i] for i in chunk], batch_first=True)
        parts = (hkl, rows[which], frac[which], belief[which], numbers)
        rest = (grid, width, wavelength)
        # many crystals: numbers on the way are made again rather than kept
        some = (
            checkpoint(_peaks, *parts, *rest, use_reentrant=False)
            if again
            else _peaks(*parts, *rest)
        )
        made = made.index_copy(0, which, some)
    for i, cells in many.items():
        made[i] *= cells**2
    return made


def obstacle(
    crystal: Crystals, two_theta: Tensor, *, width: float, wavelength: float
) -> str:
    """Return why one crystal has no pattern, as a clause; "" where it has one.

    Args:
        crystal: a batch of one.
        two_theta: as in `powder_pattern`, like the other two.
        width: of a peak, degrees.
        wavelength: of the X-rays, angstrom.
    """
    low, high = _ends(two_theta, width, wavelength)
    one, _ = _fewer(crystal, low, high)
    _, belief = _belief(one)
    if bool((one.mask & (belief.sum(-1) == 0)).any()):
        return "it holds an element beyond Cf"
    hkl = _reflections(
        reduce_lattice(one.lattice.double()) @ one.lattice.double(), low, high
    )
    if isinstance(hkl, str):
        return hkl
    return "" if len(hkl) else "no reflection lies between these angles"


def _ends(two_theta: Tensor, width: float, wavelength: float) -> tuple[float, float]:
    """Return the smallest and largest 1 / d whose peaks the angles show."""
    reach = REACH * width
    ends = float(two_theta[0]) - reach, float(two_theta[-1]) + reach
    low, high = (2 * math.sin(math.radians(t) / 2) / wavelength for t in ends)
    return low, high


def _fewer(
    crystals: Crystals, low: float, high: float
) -> tuple[Crystals, dict[int, float]]:
    """Return crystals, those of too many reflections in primitive cells; cells in each."""
    sphere = 2 * math.pi / 3 * (high**3 - low**3) * crystals.volume.double()
    many = (sphere > MOST_REFLECTIONS / 2) & sphere.isfinite()
    if not many.any():
        return crystals, {}
    small = primitive_cells(crystals[many]).to(crystals.device)
    rows = many.nonzero().squeeze(1)
    order = torch.arange(len(crystals), device=crystals.device)
    order[rows] = len(crystals) + torch.arange(len(rows), device=crystals.device)
    times = (crystals.n_atoms[rows] / small.n_atoms).tolist()
    return Crystals.cat([crystals, small])[order], dict(zip(rows.tolist(), times))


def _reflections(rows: Tensor, low: float, high: float) -> Tensor | str:
    """Return half of the hkl with 1 / d between two ends, (reflections, 3), or why not."""
    rows = rows.reshape(3, 3)
    sizes = (high * rows.norm(dim=1)).tolist()  # |h| = |g . a| <= |g| |a|
    if not all(map(math.isfinite, sizes)) or float(torch.linalg.det(rows).abs()) < 1e-3:
        return "its cell has no volume"
    most = [math.floor(size) for size in sizes]
    over = f"it has over {MOST_REFLECTIONS:,} reflections: narrow two_theta"
    if math.prod(2 * k + 1 for k in most) > 16 * MOST_REFLECTIONS:
        return over
    hkl = torch.cartesian_prod(*(torch.arange(-k, k + 1).to(rows) for k in most))
    hkl = hkl[len(hkl) // 2 + 1 :]
    far = (hkl @ torch.linalg.inv(rows).mT).norm(dim=1)
    hkl = hkl[(far > low) & (far < high)]
    return hkl if len(hkl) <= MOST_REFLECTIONS else over


def _peaks(
    hkl: Tensor,
    rows: Tensor,
    frac: Tensor,
    belief: Tensor,
    numbers: Tensor,
    grid: Tensor,
    width: float,
    wavelength: float,
) -> Tensor:
    """Return patterns, (crystals, angles), of hkl padded with 0 0 0."""
    there = hkl.any(-1)
    square = (hkl @ torch.linalg.inv(rows).mT).square().sum(-1) / 4  # s^2
    square = torch.where(there, square, 0.25 / wavelength**2)
    a, b = _form_factors().to(rows)[numbers].unbind(-1)  # (elements, 4)
    fall = torch.exp(-b * square[..., None, None])  # (crystals, hkl, elements, 4)
    factors = numbers - 41.78214 * square[..., None] * (a * fall).sum(-1)
    factor = factors @ belief.mT  # (crystals, hkl, sites)
    phase = 2 * math.pi * (hkl @ frac.mT)
    real, imaginary = (factor * phase.cos()).sum(-1), (factor * phase.sin()).sum(-1)
    sine = wavelength * square.sqrt()
    angle = 2 * sine.asin()
    polar = (1 + angle.cos() ** 2) / (sine**2 * (angle / 2).cos())
    height = 2 * (real**2 + imaginary**2) * polar * there
    angle = angle.rad2deg()
    step = (grid[-1] - grid[0]) / (len(grid) - 1)
    side = math.ceil(REACH * width / float(step))
    near = torch.arange(-side, side + 1, device=rows.device)
    place = ((angle.detach() - grid[0]) / step).round().long()[..., None] + near
    apart = (grid[0] + place * step - angle[..., None]) / width
    shape = torch.exp(-4 * math.log(2) * apart**2)
    inside = (place >= 0) & (place < len(grid))
    added = (height[..., None] * shape * inside).flatten(1)
    place = place.clamp(0, len(grid) - 1).flatten(1)
    return rows.new_zeros(len(rows), len(grid)).scatter_add(1, place, added)


@cache
def _form_factors() -> Tensor:
    """Return a and b of the form factors, (104, 4, 2); NaN where there are none."""
    from pymatgen.analysis.diffraction.xrd import ATOMIC_SCATTERING_PARAMS

    rows = torch.full((elements.MAX_Z + 1, 4, 2), torch.nan, dtype=torch.float64)
    for z, symbol in enumerate(elements.symbols()):
        if symbol in ATOMIC_SCATTERING_PARAMS:
            rows[z] = torch.tensor(ATOMIC_SCATTERING_PARAMS[symbol])
    return rows


def _belief(crystals: Crystals | SoftCrystals) -> tuple[Tensor, Tensor]:
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


def _chunks(found: dict[int, Tensor]) -> list[list[int]]:
    """Return which crystals to read together: alike in size, and few enough."""
    chunks: list[list[int]] = []
    for i in sorted(found, key=lambda i: len(found[i])):
        if chunks and len(found[i]) * (len(chunks[-1]) + 1) <= _CHUNK:
            chunks[-1].append(i)
        else:
            chunks.append([i])
    return chunks
