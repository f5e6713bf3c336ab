"""Checks of the chapter on autoregressive models: right answers pass, common errors fail."""

import torch

from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.filling import fill_table, letter_mask
from matdesign.teach import exercises_generators as exercises


def test_the_chain():
    assert exercises.check_chain(lambda p: sum(one.log() for one in p))
    assert not exercises.check_chain(lambda p: torch.stack(list(p)).prod(0).log())
    assert not exercises.check_chain(lambda p: -sum(one.log() for one in p))


def test_the_mask():
    table = wyckoff_table()
    fill = fill_table(table.count[:, :NONE], table.freedom[:, :NONE], 8)

    def right(group: int, last: int, left: int) -> list[int]:
        given = (group, max(last, 0), int(last >= 0), left)
        mask = letter_mask(fill, *map(torch.tensor, given))
        return mask.nonzero().squeeze(1).tolist()

    def short_sighted(group: int, last: int, left: int) -> list[int]:
        count = table.count[group].tolist()
        return [a for a in range(max(last, 0), NONE) if 0 < count[a] <= left]

    assert exercises.check_letter_mask(right)
    assert "does not belong" in exercises.check_letter_mask(short_sighted).text


def test_the_joint_mixture():
    def joint(weights, means, widths, x):
        each = torch.distributions.Normal(means, widths).log_prob(x)
        return torch.logsumexp(weights.log() + each.sum(1), 0)

    def separate(weights, means, widths, x):
        each = torch.distributions.Normal(means, widths).log_prob(x)
        return torch.logsumexp(weights.log()[:, None] + each, 0).sum()

    assert exercises.check_joint_mixture(joint)
    assert "means of shape (3, 6)" in exercises.check_joint_mixture(separate).text
