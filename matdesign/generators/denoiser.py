"""`Denoiser`: the shared network, asked about orbits instead of sites."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import generator
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.backbone import PairTransformer, Prediction
from matdesign.generators.conditions import Condition, ConditionEncoder, combine
from matdesign.generators.control import Scales


class Denoiser(PairTransformer):
    """A `PairTransformer` for either representation, with conditions.

    A layout writes the orbits out as sites; the network looks at the sites; what it says
    about them is averaged back onto the orbits, where only free directions count. In the
    representation "cell" every orbit is one site and nothing is averaged.

    Args:
        properties: name -> (mean, standard deviation) of the properties that may be asked
            for; None builds no encoder of conditions.
        positions: give every site the features of its Wyckoff position.
        width: size of the tokens.
        layers: attention layers.
        heads: attention heads.
        pair_width: size of the pair vectors.
        frequencies: harmonics of the displacement on each axis.
    """

    def __init__(
        self,
        *,
        properties: dict[str, list[float]] | None = None,
        positions: bool = False,
        width: int = 128,
        layers: int = 6,
        heads: int = 8,
        pair_width: int = 48,
        frequencies: int = 10,
    ) -> None:
        super().__init__(
            width=width,
            layers=layers,
            heads=heads,
            pair_width=pair_width,
            frequencies=frequencies,
        )
        self.asked = None if properties is None else ConditionEncoder(width, properties)
        self.position = nn.Linear(5, width) if positions else None
        self.reset(0)

    @torch.no_grad()
    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed; output and gate layers start at zero."""
        rng = generator(seed)
        super().reset(rng)
        asked = getattr(self, "asked", None)  # not there yet while the base is built
        if isinstance(asked, ConditionEncoder):
            asked.reset(rng)

    def about(
        self,
        layout: Layout,
        scales: Scales,
        species: Tensor,
        u: Tensor,
        x: Tensor,
        t: Tensor,
        condition: Condition | None = None,
    ) -> Prediction:
        """Return what the network says about the orbits of noisy crystals.

        Args:
            layout: orbits and what of them is free.
            scales: elements that may appear, and the scale of x.
            species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
            u: free coordinates, shape (crystals, orbits, 3).
            x: standardised lattice code, shape (crystals, 6).
            t: time in [0, 1], shape (crystals,).
            condition: what the crystals are asked to be; None asks for nothing.

        Returns:
            Vectors for u (zero where not free), for x (zero where not free), and logits
            of species, minus infinity for elements that may not appear.
        """
        whole = each = None
        if self.asked is not None and condition is not None:
            whole = self.asked(condition)
        if self.position is not None:
            each = self.position(_position(layout, u))
        out = self(
            layout.expand_species(species),
            layout.expand(u),
            scales.lattice(x, layout),
            x,
            t,
            whole=whole,
            each=each,
        )
        # the network may run in half precision; noise and loss never do
        moved, shape, logits = (one.to(u.dtype) for one in out)
        if self.position is not None:
            moved = layout.pull_back(moved)
            logits = layout.mean_over_orbit(logits)
        return Prediction(
            moved,
            shape * layout.code_free,
            logits.masked_fill(~scales.allowed, -torch.inf),
        )

    def passes(self, condition: Condition | None, scale: float) -> int:
        """Return how often `guided` runs the network: twice with guidance, else once."""
        given = self.asked is not None and condition is not None
        return 2 if given and scale not in (0.0, 1.0) else 1

    def guided(
        self,
        layout: Layout,
        scales: Scales,
        species: Tensor,
        u: Tensor,
        x: Tensor,
        t: Tensor,
        condition: Condition | None,
        scale: float,
    ) -> Prediction:
        """Return `about`, with classifier-free guidance where scale is neither 0 nor 1.

        Equation:
            (1 - scale) unconditional + scale conditional, for vectors and for logits.

        Source:
            Ho and Salimans, arXiv 2207.12598. On the torus the vectors are tangent, so
            that their linear combination is one again.
        """
        if self.passes(condition, scale) == 1:
            wanted = condition if scale else None
            return self.about(layout, scales, species, u, x, t, wanted)
        free = self.about(layout, scales, species, u, x, t)
        bound = self.about(layout, scales, species, u, x, t, condition)
        logits = torch.where(
            scales.allowed, combine(free.species, bound.species, scale), -torch.inf
        )
        return Prediction(
            combine(free.frac, bound.frac, scale),
            combine(free.lattice, bound.lattice, scale),
            logits,
        )


def _position(layout: Layout, like: Tensor) -> Tensor:
    """Return features of the Wyckoff position of every site, (crystals, sites, 5).

    One-hot number of free coordinates (0 to 3), and the share of the crystal's atoms that
    belong to the orbit.
    """
    freedom = nn.functional.one_hot(layout.free.sum(-1), 4)  # (b, orbits, 4)
    share = layout.count / layout.n_atoms.clamp(min=1)[:, None]
    orbit = torch.cat([freedom, share[..., None]], dim=-1).to(like)
    of_sites = layout.orbit[..., None].expand(-1, -1, 5)
    return orbit.gather(1, of_sites) * layout.mask[..., None]
