"""The yardstick of scripts/bench_generators.py: a message-passing network of the kind that
DiffCSP made common, written densely, with its training loss and its sampler.

Nothing here is meant to be trained for use: only its cost counts, and that does not
depend on the weights.

Source: DiffCSP, Jiao et al., arXiv 2309.04475; sizes as published (12.35 M parameters).
Changed: own code on padded batches instead of edge lists, with all ordered pairs.
"""

import math

import torch
from torch import Tensor, nn

from matdesign.crystals import wrapped_normal
from matdesign.crystals.batch import Crystals

STEPS = 1_000
"""Noise levels of the published sampler, each with a corrector and a predictor."""

KINDS = 100
"""Entries of the one-hot species."""


class Messages(nn.Module):
    """One layer: a message from every site to every site, and a step of each site.

    Equation:
        m_ij = phi(h_i, h_j, L L^T, waves(f_j - f_i)),  h_i <- h_i + psi(h_i, mean_j m_ij)

    Args:
        hidden: size of the site vectors.
        waves: size of the sines and cosines of a displacement.
        factored: apply the first linear map of phi to its inputs one by one. The result is
            the same; what depends on one site is no longer computed for every pair. The
            published code does not.
    """

    def __init__(self, hidden: int, waves: int, factored: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.first = nn.Linear(2 * hidden + 9 + waves, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.step = nn.Sequential(
            nn.Linear(2 * hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
        )
        self.hidden, self.factored = hidden, factored

    def forward(self, h: Tensor, metric: Tensor, waves: Tensor, mask: Tensor) -> Tensor:
        """Return new site vectors.

        Args:
            h: site vectors, shape (crystals, sites, hidden).
            metric: L L^T, shape (crystals, 9).
            waves: of all displacements, shape (crystals, sites, sites, size).
            mask: True where a site exists, shape (crystals, sites).
        """
        x = self.norm(h)
        b, n, d = x.shape
        if self.factored:
            of_i, of_j, of_cell, of_pair = self.first.weight.split(
                [d, d, 9, waves.shape[-1]], dim=1
            )
            y = nn.functional.linear(waves, of_pair, self.first.bias)
            y = y + (x @ of_i.T)[:, :, None] + (x @ of_j.T)[:, None]
            y = y + (metric @ of_cell.T)[:, None, None]
        else:
            each = (b, n, n)
            pair = [
                x[:, :, None].expand(*each, d),
                x[:, None].expand(*each, d),
                metric[:, None, None].expand(*each, 9),
                waves,
            ]
            y = self.first(torch.cat(pair, dim=-1))
        silu = nn.functional.silu
        message = silu(self.second(silu(y))) * mask[:, None, :, None]
        mean = message.sum(2) / mask.sum(1).clamp(min=1)[:, None, None]
        return h + self.step(torch.cat([x, mean], dim=-1))


class ReferenceNetwork(nn.Module):
    """Species, displacements and cell metric in; three kinds of noise out.

    Args:
        hidden: size of the site vectors.
        layers: message-passing layers.
        frequencies: of the waves on each axis, from 0.
        time: size of the time embedding.
        factored: see `Messages`.
    """

    def __init__(
        self,
        *,
        hidden: int = 512,
        layers: int = 6,
        frequencies: int = 128,
        time: int = 256,
        factored: bool = False,
    ) -> None:
        super().__init__()
        self.time = time
        self.species = nn.Linear(KINDS, hidden)
        self.mix = nn.Linear(hidden + time, hidden)
        self.layers = nn.ModuleList(
            Messages(hidden, 6 * frequencies, factored) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.move = nn.Linear(hidden, 3, bias=False)
        self.cell = nn.Linear(hidden, 9, bias=False)
        self.kind = nn.Linear(hidden, KINDS)
        wave = 2 * math.pi * torch.arange(frequencies)
        self.register_buffer("wave", wave, persistent=False)

    def forward(
        self, kinds: Tensor, frac: Tensor, lattice: Tensor, t: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return noise of the species, the coordinates and the lattice.

        Args:
            kinds: noisy one-hot species, shape (crystals, sites, 100).
            frac: fractional coordinates, shape (crystals, sites, 3).
            lattice: rows in angstrom, shape (crystals, 3, 3).
            t: step, 1 to 1,000, shape (crystals,).
            mask: True where a site exists, shape (crystals, sites).
        """
        rate = torch.logspace(0, -4, self.time // 2, device=t.device)
        angle = t[:, None] * rate
        when = torch.cat([angle.sin(), angle.cos()], dim=1)[:, None]
        when = when.expand(*mask.shape, self.time)
        h = self.mix(torch.cat([self.species(kinds), when], dim=-1))
        apart = (frac[:, None] - frac[:, :, None]) % 1  # f_j - f_i
        angle = (apart[..., None] * self.wave).flatten(-2)
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
        metric = (lattice @ lattice.transpose(1, 2)).flatten(1)
        for layer in self.layers:
            h = layer(h, metric, waves, mask)
        h = self.norm(h) * mask[..., None]
        whole = h.sum(1) / mask.sum(1).clamp(min=1)[:, None]
        shape = self.cell(whole).view(-1, 3, 3) @ lattice
        return self.kind(h), self.move(h), shape


class Reference(nn.Module):
    """The network with the published loss and sampler.

    Args:
        factored: see `Messages`.
        **sizes: of `ReferenceNetwork`.
    """

    def __init__(self, *, factored: bool = False, **sizes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = ReferenceNetwork(factored=factored, **sizes)
        place = (torch.linspace(0, 1, STEPS + 1) + 0.008) / 1.008
        level = torch.cos(place * math.pi / 2).square()
        self.register_buffer("kept", (level / level[0]).clamp(1e-6, 1.0))
        spread = 0.005 * 100 ** torch.linspace(0, 1, STEPS)
        self.register_buffer("spread", torch.cat([torch.zeros(1), spread]))
        size = wrapped_normal.score_norm(spread, 256).sqrt()
        self.register_buffer("size", torch.cat([torch.ones(1), size]))

    def loss(self, crystals: Crystals, seed: int = 0) -> Tensor:
        """Return the mean square errors of all three kinds of noise, weighted 20:1:1."""
        rng = torch.Generator(crystals.device).manual_seed(seed)
        mask, b = crystals.mask, len(crystals)
        t = torch.randint(1, STEPS + 1, (b,), generator=rng, device=mask.device)

        def normal(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=rng, device=like.device)

        kinds = nn.functional.one_hot(crystals.species.clamp(max=KINDS - 1), KINDS)
        kinds = kinds.to(crystals.frac)
        noise, tilt, jump = (
            normal(kinds),
            normal(crystals.lattice),
            normal(crystals.frac),
        )
        a, s = self.kept[t].sqrt(), (1 - self.kept[t]).sqrt()
        sigma = self.spread[t][:, None, None]
        said = self.network(
            a[:, None, None] * kinds + s[:, None, None] * noise,
            (crystals.frac + sigma * jump) % 1,
            a[:, None, None] * crystals.lattice + s[:, None, None] * tilt,
            t.to(crystals.frac),
            mask,
        )
        score = wrapped_normal.score(sigma * jump, sigma) / self.size[t][:, None, None]
        there = mask[..., None] / mask.sum()
        return (
            20 * ((said[0] - noise).square() * there).sum() / KINDS
            + ((said[1] - score).square() * there).sum() / 3
            + (said[2] - tilt).square().mean()
        )

    @torch.no_grad()
    def steps(self, n_atoms: Tensor, count: int, seed: int = 0) -> int:
        """Take the first steps of the published sampler and return the evaluations.

        Each noise level: a Langevin step of the coordinates, then a step back of
        coordinates, lattice and species.

        Args:
            n_atoms: atoms of each crystal, shape (crystals,).
            count: noise levels to take of the 1,000.
            seed: of the noise.
        """
        at = n_atoms.device
        rng = torch.Generator(at).manual_seed(seed)
        mask = torch.arange(int(n_atoms.max()), device=at) < n_atoms[:, None]

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=rng, device=at)

        b, n = mask.shape
        kinds, lattice = normal(b, n, KINDS), normal(b, 3, 3)
        frac = torch.rand((b, n, 3), generator=rng, device=at)
        for level in range(STEPS, STEPS - count, -1):
            t = torch.full((b,), float(level), device=at)
            here, then = self.spread[level], self.spread[level - 1]
            eta = 1e-5 * (here / self.spread[1]).square()
            _, move, _ = self.network(kinds, frac, lattice, t, mask)
            push = eta * self.size[level] * move + (2 * eta).sqrt() * normal(b, n, 3)
            frac = (frac + push) % 1
            noise, move, tilt = self.network(kinds, frac, lattice, t, mask)
            gain = here.square() - then.square()
            frac = frac + gain * self.size[level] * move
            frac = (frac + then * gain.sqrt() / here * normal(b, n, 3)) % 1
            now, before = self.kept[level], self.kept[level - 1]
            a = (now / before).clamp(min=1e-3)
            part = (1 - a) / (1 - now).sqrt()
            z = ((1 - a) * (1 - before) / (1 - now)).sqrt()
            lattice = (lattice - part * tilt) / a.sqrt() + z * normal(b, 3, 3)
            kinds = (kinds - part * noise) / a.sqrt() + z * normal(b, n, KINDS)
        return 2 * count * b
