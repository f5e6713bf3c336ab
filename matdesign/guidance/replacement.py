"""`Replacement`: known coordinates put back at every step, with the noise of that step."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.errors import DataError
from matdesign.generators.control import Preview


class Replacement:
    """Holds the first sites and the cell of each crystal to what a constraint knows.

    The preview of known numbers is replaced by the known numbers themselves. A sampler
    that goes on from there follows the path, or the exact bridge, from its own noise to
    them, so that at every time they are a forward-noised copy of what is known, and the
    other sites are denoised in their company.

    Equation:
        x_s[known] ~ q(x_s | x_t, x_0 = known);  x_s[free] ~ p(x_s | x_t)

    Only orbits of a layout in which all coordinates are free can be fixed: crystals in P1.
    Known sites that are not the first ones keep their distances to each other; the
    sampler chooses their height and origin.

    Args:
        constraint: with `known()`.
        first: the site at which its coordinates begin.

    Source:
        SCIGEN, Okabe et al., arXiv 2407.04557; inpainting by replacement: Lugmayr et al.,
        arXiv 2201.09865. Changed: the bridge from the sampler's own noise instead of
        fresh noise at every step, so that consecutive copies fit each other.
    """

    def __init__(self, constraint: Constraint, first: int = 0) -> None:
        known = constraint.known()
        if known is None:
            raise DataError(
                f"replacement needs known coordinates; got a constraint without: {constraint}."
            )
        self.constraint, self.known = constraint, known
        self.first, self.end = first, first + len(known.frac)

    def put_back(self, preview: Preview) -> tuple[Preview, Tensor]:
        """Return a preview with the known numbers in place, and which coordinates they are.

        Args:
            preview: of crystals in P1.

        Raises:
            DataError: a crystal has fewer free sites than are known.
        """
        lay, known = preview.layout, self.known
        sites = slice(self.first, self.end)
        free = lay.free.all(-1)[:, : self.end]
        if free.shape[1] < self.end or not bool(free.all()):
            raise DataError(
                f"{self.constraint} fixes sites up to the {self.end}th, but a crystal has "
                "fewer whose coordinates are all free. Ask for more atoms (n_atoms), and "
                'use a model in the representation "cell".'
            )
        u = preview.u.clone()
        u[:, sites] = known.frac.to(u)
        if self.first:
            shift = torus_difference(known.frac.to(u), preview.u[:, sites])
            near = shift[:, :1]
            mean = near + torus_difference(near, shift).mean(1, keepdim=True)
            u[:, sites] = wrap(u[:, sites] + mean)
        fixed = torch.zeros_like(lay.free)
        fixed[:, sites] = True
        raw = preview.scales.restore(preview.code)
        size = lay.conventional_atoms.to(raw).log()[:, None] / 3
        six = torch.tensor([0.0, 0, 0, 0, 0, 1], device=raw.device).to(raw)
        wanted = known.project(raw + size * six) - size * six
        code = preview.scales.standardize(wanted, lay)
        return dataclasses.replace(preview, u=u, code=code), fixed
