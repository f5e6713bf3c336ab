"""The second pass of `Autoregressive`: a lattice for known sites, then site after site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from matdesign.crystals.symmetry.wyckoff import NONE
from matdesign.generators.attention import Cache
from matdesign.generators.conditions import Condition, combine
from matdesign.generators.control import Sample
from matdesign.generators.overlap import clearance
from matdesign.generators.planning import Plan
from matdesign.generators.scales import Scales
from matdesign.generators.site_network import SiteNetwork


class Reading(NamedTuple):
    """What the network remembers of crystals, read with or without a condition.

    Args:
        about: vector that every token carries, shape (crystals, width).
        keys: vectors of the letters of the space group, shape (crystals, 28, width).
        cache: keys and values of all tokens so far.
    """

    about: Tensor
    keys: Tensor
    cache: Cache


@dataclass(frozen=True, eq=False)
class SiteSample(Sample):
    """Crystals whose letters and elements are known, on their way to coordinates.

    Args:
        free: coordinates that are drawn, bool, shape (crystals, sites, 3).
        readings: without and with the condition, or one of them.
    """

    free: Tensor
    readings: tuple[Reading, ...]


def before(plan: Plan) -> tuple[Tensor, Tensor]:
    """Return letter and element of the site before each, shape (crystals, sites + 1)."""
    letter = torch.where(plan.layout.orbits, plan.layout.letter, NONE)
    pad = torch.nn.functional.pad
    return pad(letter, (1, 0), value=NONE), pad(plan.species, (1, 0))


def read_sites(
    network: SiteNetwork, plan: Plan, condition: Condition
) -> tuple[Reading, Tensor]:
    """Return what the network remembers of all sites, and the raw lattice mixture.

    Args:
        network: of the model.
        plan: letters and elements of all sites, in canonical order.
        condition: what the crystals shall be.
    """
    lay, group = plan.layout, plan.layout.spacegroup
    about = network.about(network.ask(condition), group, lay.n_atoms)
    keys = network.keys(group)
    placed = torch.nn.functional.pad(lay.count.cumsum(1), (1, 0))
    left = lay.n_atoms[:, None] - placed
    tokens = network.site_tokens(about, keys, *before(plan), left)
    length = lay.orbits.sum(1)
    valid = torch.arange(left.shape[1], device=left.device) <= length[:, None]
    hidden, cache = network.read(tokens, valid)
    end = hidden[torch.arange(len(length), device=length.device), length]
    raw = network.lattice_raw(end, plan.species, lay.count)
    return Reading(about, keys, cache), raw


def read_next(
    network: SiteNetwork, x: SiteSample, i: int, reading: Reading
) -> tuple[Tensor, Reading]:
    """Return the vector from which site i is placed, (crystals, width), and the memory.

    Args:
        network: of the model.
        x: crystals with all sites before i placed.
        i: number of the site.
        reading: of x so far.
    """
    lay, here = x.layout, slice(i, i + 1)
    letter, species = before(x.plan)
    old = x.u[:, i - 1 : i] if i else torch.zeros_like(x.u[:, :1])
    tokens = network.placing_tokens(
        reading.about,
        reading.keys,
        lay.spacegroup,
        letter[:, i + 1 : i + 2],
        species[:, i + 1 : i + 2],
        (letter[:, here], species[:, here], old),
        x.code,
        lay.code_free,
        i,
    )
    hidden, cache = network.read(tokens, lay.orbits[:, here], reading.cache)
    return hidden[:, 0], reading._replace(cache=cache)


def combined(raw: Sequence[Tensor], weights: int, scale: float) -> Tensor:
    """Return one raw mixture from those without and with the condition, or the only one.

    Guidance combines the weights; means and widths are those that the condition gives.

    Args:
        raw: one or two, shape (crystals, numbers).
        weights: how many of the numbers are weights.
        scale: of classifier-free guidance.
    """
    if len(raw) == 1:
        return raw[0]
    null, wanted = raw
    mixed = combine(null[..., :weights], wanted[..., :weights], scale)
    return torch.cat([mixed, wanted[..., weights:]], dim=-1)


def overlapping(
    scales: Scales,
    plan: Plan,
    rows: Tensor,
    u: Tensor,
    code: Tensor,
    orbits: Tensor,
    new: Tensor | None = None,
) -> Tensor:
    """Return in which of some crystals of a plan atoms overlap, bool, shape (rows,).

    Args:
        scales: of the lattice code.
        plan: layouts and elements of all crystals.
        rows: numbers of some of them.
        u: free coordinates of these, shape (rows, orbits, 3).
        code: their standardised lattice codes, shape (rows, 6).
        orbits: those that count, bool, shape (crystals, orbits).
        new: orbits of which one atom at least is in each pair; None = any.
    """
    part = plan.layout[rows]
    m = part.count.shape[1]
    some = None if new is None else new[rows, :m]
    cell, species = scales.lattice(code, part), plan.species[rows, :m]
    return clearance(part, species, u[:, :m], cell, orbits[rows, :m], some) < 1
