"""What the shared network sees: species with their chemistry, pairs with their geometry."""

import math
from functools import cache

import torch
from torch import Tensor, nn

from matdesign.crystals import elements
from matdesign.crystals.elements import MASK


@cache
def chemistry_code() -> Tensor:
    """Return a fixed descriptor of every species index.

    One-hot period, group and block; how full the s, p, d and f shells of the valence are
    by the ideal filling order; electronegativity and radius, standardised. Elements that
    behave alike have codes that lie close, so what the network learns of one helps with
    the other.

    Returns:
        float32 tensor of shape (105, 35); rows 0 (padding) and 104 (undecided) are zero.

    Source:
        Crystalite, arXiv 2604.02270, species code. Changed: electronegativity and radius
        are added, and a learned embedding stands beside the code.
    """
    row = elements.table("row").long()
    group = elements.table("group").long()
    block = elements.table("block").long()
    z = torch.arange(elements.MAX_Z + 1)
    first_f = torch.where(row == 6, 57, 89)
    shells = torch.stack(
        [
            torch.where(block == 0, group.clamp(max=2), 2) / 2,
            (group - 12).clamp(0, 6) * (block == 1) / 6,
            torch.where(block == 2, group - 2, 10 * (block == 1) * (row >= 4)) / 10,
            ((z - first_f + 1).clamp(0, 14) * (block == 3)) / 14,
        ],
        dim=1,
    )
    shells[2] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # helium stands in group 18
    scales = []
    for name in ("electronegativity", "radius"):
        values = elements.table(name)[1:]
        known = values[values.isfinite()]
        scaled = ((values - known.mean()) / known.std()).nan_to_num(0.0)
        scales.append(torch.cat([torch.zeros(1), scaled]))
    one_hot = nn.functional.one_hot
    code = torch.cat(
        [
            one_hot(row.clamp(min=1) - 1, 7),
            one_hot(group.clamp(min=1) - 1, 18),
            one_hot(block, 4),
            shells,
            torch.stack(scales, dim=1),
        ],
        dim=1,
    ).float()
    code[0] = 0.0
    return torch.cat([code, torch.zeros(1, code.shape[1])])


class SpeciesEmbedding(nn.Module):
    """A learned vector for every species plus a linear map of its chemistry code.

    Args:
        width: size of the vectors.
    """

    code: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.learned = nn.Embedding(MASK + 1, width)
        self.register_buffer("code", chemistry_code(), persistent=False)
        self.chemistry = nn.Linear(self.code.shape[1], width, bias=False)

    def forward(self, species: Tensor) -> Tensor:
        """Return vectors (crystals, sites, width) of species indices (crystals, sites)."""
        table: Tensor = self.learned.weight + self.chemistry(self.code)
        return table[species]


class SpeciesHead(nn.Module):
    """Scores of all elements, from learned weights plus the chemistry code.

    Args:
        width: size of the site vectors.
    """

    code: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("code", chemistry_code()[:MASK], persistent=False)
        self.learned = nn.Linear(width, MASK)
        self.chemistry = nn.Linear(width, self.code.shape[1], bias=False)

    def forward(self, sites: Tensor) -> Tensor:
        """Return logits (crystals, sites, 104); entry 0 is never meant to be used."""
        logits: Tensor = self.learned(sites) + self.chemistry(sites) @ self.code.T
        return logits


class PairFeatures(nn.Module):
    """Geometry of every ordered pair of sites, invariant to translation and rotation.

    Equation:
        sin and cos of 2 pi k (f_j - f_i) for k = 1..frequencies on each axis, beside
        Gaussians of the minimum-image distance in angstrom.

    Args:
        frequencies: harmonics on each axis.
        radial: number of Gaussians, centred from 0 to `cutoff`.
        cutoff: last centre, angstrom.

    Accuracy:
        The nearest image is sought among the 27 around the wrapped displacement in the
        metric of the cell: exact for reduced cells, an upper bound for very skewed ones.
    """

    images: Tensor
    centres: Tensor
    harmonics: Tensor

    def __init__(self, frequencies: int, radial: int = 16, cutoff: float = 8.0) -> None:
        super().__init__()
        shifts = torch.tensor([-1.0, 0.0, 1.0])
        self.register_buffer(
            "images", torch.cartesian_prod(shifts, shifts, shifts), persistent=False
        )
        self.register_buffer(
            "centres", torch.linspace(0.0, cutoff, radial), persistent=False
        )
        self.register_buffer(
            "harmonics",
            2 * math.pi * torch.arange(1, frequencies + 1),
            persistent=False,
        )
        self.width = cutoff / (radial - 1)
        self.size = 6 * frequencies + radial

    def forward(self, frac: Tensor, lattice: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of all pairs and their odd part.

        Args:
            frac: fractional coordinates, shape (crystals, sites, 3).
            lattice: rows in angstrom, shape (crystals, 3, 3).

        Returns:
            Features (crystals, sites, sites, size), and the sines alone
            (crystals, sites, sites, 3 frequencies), which change sign when i and j swap.
        """
        # geometry keeps its digits where the rest runs in half precision
        with torch.autocast(frac.device.type, enabled=False):
            return self._geometry(frac, lattice)

    def _geometry(self, frac: Tensor, lattice: Tensor) -> tuple[Tensor, Tensor]:
        delta = frac[:, None] - frac[:, :, None]  # (b, i, j, 3): f_j - f_i
        delta = delta - torch.round(delta)
        angle = (delta.unsqueeze(-1) * self.harmonics).flatten(-2)  # (b, i, j, 3 k)
        sine, cosine = torch.sin(angle), torch.cos(angle)
        metric = lattice @ lattice.transpose(1, 2)  # (b, 3, 3)
        image = ((self.images @ metric) * self.images).sum(-1)  # (b, 27): |n L|^2
        along = torch.einsum("bijx,bxy->bijy", delta, metric)  # (b, i, j, 3)
        square = (along * delta).sum(-1, keepdim=True) + (
            2 * along @ self.images.T + image[:, None, None]
        )
        distance = square.amin(-1, keepdim=True).clamp(min=1e-8).sqrt()
        radial = torch.exp(-0.5 * ((distance - self.centres) / self.width) ** 2)
        return torch.cat([sine, cosine, radial], dim=-1), sine
