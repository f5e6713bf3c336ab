"""The constraint that a known net of atoms is in the crystal."""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.constraints.between import NumberOfAtoms
from matdesign.constraints.distance import MinDistance, nearest_like, root
from matdesign.constraints.known import Known
from matdesign.constraints.plane_nets import NETS, Net, holds
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.geometry import displacement, wrap
from matdesign.crystals.lattice_code import from_code, to_code
from matdesign.errors import DataError

TOLERANCE = 0.1
"""How far a point of a net may be from where its neighbours say, in angstrom."""


class Motif(Constraint):
    """Atoms of one element make a net in some layer of the crystal.

    The net is "kagome", "honeycomb", "lieb", "square" or "triangular", or a `Net` of
    your own. The strict check finds
    it in any layer, orientation, origin and cell; atoms of other elements, and of the
    same one in other layers, may be anywhere, but none of the same in the net's own
    layer between its points: a triangular net is no kagome net.

    Undecided crystals are measured in the setting in which a sampler holds the motif (see
    `known`): the net in the plane of the cell's rows a and b, one of its cells in the
    crystal's, at any origin and height. In other settings the violation of an undecided
    crystal stays above zero. A finished crystal that meets the constraint has zero; one
    that misses has the same measure, but at least the tolerance.

    Equation:
        violation = min over sites i of mean over points k of the net of min over sites j
            of sqrt(d(f_i + m_k - m_0, f_j)^2 + r_j^2)
            + ||G - G_net|| / sqrt(area), G = L L^T,
        r_j = 1 angstrom times the share of site j's species that is not that of site i
        (or not the named element). G_net has the shape of the net's cell, the area (or
        the given bond) and c of the crystal, and c upright.

    Args:
        net: name of a net, or the net.
        element: symbol of the atoms that make it; None = any, but one for all.
        bond: shortest distance between points of the net in angstrom; None = any from 1
            to 6.

    Raises:
        DataError: an unknown name; a bond that is not positive.

    Source:
        Okabe et al. 2025, SCIGEN, arXiv:2407.04557 (motifs held during sampling). Changed:
        a check that finds the motif in any cell, and a measure for gradients.

    Example:
        >>> Motif("kagome", element="Fe", bond=2.6)
        a kagome net of Fe with bonds of 2.6 angstrom
    """

    unit = "angstrom"

    def __init__(
        self,
        net: str | Net,
        *,
        element: str | None = None,
        bond: float | None = None,
    ) -> None:
        if isinstance(net, str) and net.lower() not in NETS:
            raise DataError(
                f"no net is called {net!r}; choose {', '.join(NETS)}, or give a "
                "Net of your own."
            )
        if bond is not None and not (math.isfinite(bond) and bond > 0):
            raise DataError(
                f"the bond of a motif is a positive length in angstrom; got {bond!r}."
            )
        self.net = NETS[net.lower()] if isinstance(net, str) else net
        self.element = element
        self.bond = bond
        if element is not None:
            self.required = frozenset({elements.atomic_number(element)})

    def sentence(self) -> str:
        """Return for example "a kagome net of Fe with bonds of 2.6 angstrom"."""
        text = f"a {self.net.name} net of {self.element or 'one element'}"
        return (
            text
            if self.bond is None
            else f"{text} with bonds of {self.bond:g} angstrom"
        )

    def excludes(self, other: Constraint) -> bool:
        """Return whether there are too few atoms, or none as near as a bond."""
        if isinstance(other, NumberOfAtoms):
            return len(self.net.sites) > other.high
        if isinstance(other, MinDistance) and self.bond is not None:
            return self.bond + TOLERANCE < other.limit
        return False

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether the net is in some layer of the crystal, shape (crystals,)."""
        answers = [self._found(crystals, b) for b in range(len(crystals))]
        return torch.tensor(answers, dtype=torch.bool, device=crystals.device)

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the distance from the net in its setting in angstrom, (crystals,)."""
        if isinstance(crystals, SoftCrystals):
            return self._distances(crystals).amin(1) + self._misfit(crystals.lattice)
        far = self.violation(crystals.soft()).clamp(min=TOLERANCE)
        far = far.nan_to_num(TOLERANCE, posinf=1e6)
        return torch.where(self.satisfied(crystals), torch.zeros_like(far), far)

    def known(self) -> Known:
        """Return the net's points at height 0 and its cell, for replacement."""
        points = torch.tensor(self.net.sites, dtype=torch.float32)
        frac = torch.cat([points - points[:1], torch.zeros(len(points), 1)], dim=1)
        z = 0 if self.element is None else elements.atomic_number(self.element)
        plane = torch.tensor(self.net.cell * (self.bond or 1.0), dtype=torch.float32)
        species = torch.full((len(points),), z)
        return Known(wrap(frac), species, plane, sized=self.bond is not None)

    def project(self, soft: SoftCrystals) -> SoftCrystals | None:
        """Return the crystals with the nearest sites moved onto the net.

        The site that fits best as first point stays; the sites nearest to the others
        become the other points and take on their mean species. The cell becomes the
        nearest with the net's plane and c upright, with its rotation removed. A crystal
        with fewer sites than the net has points stays as it is.

        Args:
            soft: undecided crystals.
        """
        from scipy.optimize import linear_sum_assignment

        plan = self.known()
        k = len(plan.frac)
        fits = (soft.mask.sum(1) >= k) & soft.lattice.isfinite().all(-1).all(-1)
        fits = fits & soft.frac.isfinite().all(-1).all(-1) & (soft.volume > 1e-6)
        frac, species, lattice = (
            t.clone() for t in (soft.frac, soft.species, soft.lattice)
        )
        for b in fits.nonzero().squeeze(1).tolist():
            row = slice(b, b + 1)
            cell = from_code(plan.project(to_code(soft.lattice[row])))
            one = SoftCrystals(soft.species[row], soft.frac[row], cell, soft.mask[row])
            anchor = int(self._distances(one)[0].argmin())
            wanted = wrap(one.frac[0, anchor] + plan.frac.to(one.frac))  # (k, 3)
            way = displacement(wanted[None, :, None], one.frac[:, None], cell)[0]
            cost = way.square().sum(-1).masked_fill(~one.mask[0], 1e9)
            cost[0, anchor] = -1e9
            taken = linear_sum_assignment(cost.detach().cpu().numpy())[1]
            frac[b, taken] = wanted
            mean = one.species[0, taken].mean(0)
            if self.element is not None:
                mean = torch.zeros_like(mean)
                mean[elements.atomic_number(self.element)] = 1.0
            species[b, taken] = mean
            lattice[b] = cell[0]
        return dataclasses.replace(soft, species=species, frac=frac, lattice=lattice)

    def _found(self, crystals: Crystals, b: int) -> bool:
        cell = crystals.lattice[b].detach().double().cpu().numpy()
        frac = crystals.frac[b].detach().double().cpu().numpy()
        if not (np.isfinite(cell).all() and abs(np.linalg.det(cell)) > 0.1):
            return False
        kinds = set(crystals.species[b].tolist()) - {0}
        if self.element is not None:
            kinds &= self.required
        for z in sorted(kinds):
            points = frac[(crystals.species[b] == z).cpu().numpy()]
            if np.isfinite(points).all() and holds(
                self.net, points, cell, TOLERANCE, self.bond
            ):
                return True
        return False

    def _distances(self, soft: SoftCrystals) -> Tensor:
        """Return the mean distance from the net with each site as first point, (b, s)."""
        at = self.known().frac.to(soft.frac)
        p, mask = soft.species, soft.mask
        if self.element is None:
            unlike = (p[:, :, None] - p[:, None]).abs().sum(-1) / 2  # (b, i, j)
        else:
            wrong = 1 - p[..., elements.atomic_number(self.element)]
            unlike = wrong[:, None].expand(-1, p.shape[1], -1)
        total = soft.frac.new_zeros(mask.shape)
        for point in at:
            total = total + nearest_like(soft.frac + point, soft, unlike)
        return (total / len(at)).masked_fill(~mask, torch.inf)

    def _misfit(self, lattice: Tensor) -> Tensor:
        """Return how far the cell is from that of the net in angstrom, (crystals,)."""
        gram = lattice @ lattice.transpose(1, 2)
        plane = self.known().plane.to(lattice)
        shape = plane @ plane.T
        area = torch.linalg.det(gram[:, :2, :2]).clamp(min=1e-12).sqrt()
        size = area / torch.linalg.det(plane).abs()
        size = torch.ones_like(size) if self.bond is not None else size
        flat = gram[:, :2, :2] - size[:, None, None] * shape
        square = flat.square().sum((1, 2)) + 2 * gram[:, 2, :2].square().sum(1)
        return root(square) / area.sqrt()
