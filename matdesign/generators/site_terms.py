"""The log probability of crystals as sequences of sites, term by term."""

from __future__ import annotations

import torch
from torch import Tensor

from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.conditions import Condition
from matdesign.generators.filling import element_mask, letter_mask
from matdesign.generators.sequence import Sequences
from matdesign.generators.site_network import SiteNetwork


def log_terms(
    net: SiteNetwork,
    seq: Sequences,
    asked: Condition,
    prior: Tensor,
    fill: Tensor,
    allowed: Tensor,
) -> dict[str, Tensor]:
    """Return the log probability of each part of each crystal, in nats.

    All sites of all crystals are read at once; the mask of the transformer keeps every
    token from seeing what it shall predict.

    Args:
        net: what comes next.
        seq: the crystals.
        asked: what is told to the network.
        prior: log share of each space group and size, shape (231, sizes).
        fill: of `fill_table`.
        allowed: elements seen in training, bool, shape (104,).

    Returns:
        `size`, `spacegroup`, `letter`, `species`, `lattice`, `coordinates`, each of shape
        (crystals,).
    """
    b, m = seq.letter.shape
    table = wyckoff_table(str(seq.letter.device))
    ask = net.ask(asked)
    size = (prior.logsumexp(0) + net.size_logits(ask)).log_softmax(-1)
    group = (prior.T[seq.n_atoms] + net.group_logits(ask, seq.n_atoms)).log_softmax(-1)

    # the tokens of both passes; each knows the site before it
    about = net.about(ask, seq.spacegroup, seq.n_atoms)
    keys, left = net.keys(seq.spacegroup), seq.left(table)
    last = torch.nn.functional.pad(seq.letter, (1, 0), value=NONE)  # (b, m + 1)
    before = torch.nn.functional.pad(seq.species, (1, 0))
    u = torch.nn.functional.pad(seq.u, (0, 0, 1, 0))
    first = net.skeleton_tokens(about, keys, last, before, left)
    second = net.placing_tokens(
        about,
        keys,
        seq.spacegroup,
        seq.letter,
        seq.species,
        (last[:, :m], before[:, :m], u[:, :m]),
        seq.x,
        seq.code_free,
    )
    steps = torch.arange(m + 1, device=last.device)
    valid = torch.cat([steps <= seq.length[:, None], seq.exists], dim=1)
    hidden, _ = net.read(torch.cat([first, second], dim=1), valid)
    first, second = hidden[:, : m + 1], hidden[:, m + 1 :]

    mask = letter_mask(
        fill,
        seq.spacegroup[:, None].expand(-1, m),
        last[:, :m],
        before[:, :m],
        left[:, :m].clamp(min=0),
    )
    letter = _log_softmax(net.letter_logits(first[:, :m], keys), mask)
    fits = element_mask(allowed, seq.letter, last[:, :m], before[:, :m])
    species = _log_softmax(net.species_logits(first[:, :m], keys, seq.letter), fits)
    end = first[torch.arange(b, device=last.device), seq.length]  # after the last site
    count = table.count[seq.spacegroup[:, None], seq.letter]
    raw = net.lattice_raw(end, seq.species, count)
    return {
        "size": _at(size, seq.n_atoms),
        "spacegroup": _at(group, seq.spacegroup),
        "letter": (_at(letter, seq.letter.clamp(max=NONE - 1)) * seq.exists).sum(1),
        "species": (_at(species, seq.species) * seq.exists).sum(1),
        "lattice": net.lattices.log_prob(raw, seq.x, seq.code_free),
        "coordinates": log_coordinates(net, second, seq),
    }


def log_coordinates(net: SiteNetwork, hidden: Tensor, seq: Sequences) -> Tensor:
    """Return the log density of the free coordinates, shape (crystals,).

    Equation:
        sum_i log p(x_i | ..) + log p(y_i | x_i, ..) + log p(z_i | x_i, y_i, ..),
        free coordinates only

    Args:
        net: what comes next.
        hidden: vectors of the second pass, shape (crystals, sites, width).
        seq: the crystals.
    """
    total = seq.x.new_zeros(len(seq))
    for axis in range(3):
        row, site = seq.free[..., axis].nonzero(as_tuple=True)
        u = seq.u[row, site]
        raw = net.axis_raw(hidden[row, site], u, axis)
        dense = net.circle.log_prob(raw, u[:, axis])
        total = total.index_add(0, row, dense)
    return total


def _log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Return log probabilities among the allowed choices; others are very unlikely."""
    return logits.masked_fill(~mask, -1e9).log_softmax(-1)


def _at(log_p: Tensor, index: Tensor) -> Tensor:
    return log_p.gather(-1, index[..., None]).squeeze(-1)
