"""Splits: nothing lost, nothing twice, no group in two parts, same seed same parts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.data.splits import group_of, split
from matdesign.errors import DataError

KINDS = ["random", "composition", "chemical_system", "prototype", "spacegroup", "size"]


def batch(n: int = 200, seed: int = 0) -> Crystals:
    rng = generator(seed)
    species = torch.randint(3, 12, (n, 6), generator=rng)
    sites = torch.randint(1, 7, (n, 1), generator=rng)
    species[torch.arange(6) >= sites] = 0
    words = torch.randint(0, 30, (n,), generator=rng)
    return Crystals(
        species,
        torch.rand(n, 6, 3, generator=rng),
        5 * torch.eye(3).repeat(n, 1, 1),
        properties={"spacegroup": torch.randint(1, 40, (n,), generator=rng).float()},
        labels={"prototype": tuple(f"p{w}" for w in words.tolist())},
        ids=tuple(str(i) for i in range(n)),
    )


@pytest.mark.parametrize("by", KINDS)
def test_parts_hold_every_crystal_once_and_share_no_group(by: str) -> None:
    crystals = batch()
    parts = split(crystals, by, seed=3)
    ids = [one for part in parts for one in part.ids]
    assert sorted(ids, key=int) == list(crystals.ids)
    groups = group_of(crystals, by)
    inside = [{int(groups[int(i)]) for i in part.ids} for part in parts]
    assert not (inside[0] & inside[1] | inside[0] & inside[2] | inside[1] & inside[2])
    tolerance = 0.2 if by == "size" else 0.05
    shares = [len(part) / len(crystals) for part in parts]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=tolerance)


@pytest.mark.parametrize("by", KINDS)
def test_same_seed_same_parts(by: str) -> None:
    one, again = split(batch(), by, seed=5), split(batch(), by, seed=5)
    assert [part.ids for part in one] == [part.ids for part in again]
    other = split(batch(), by, seed=6)
    if by != "size":  # ordered by size: nothing is drawn
        assert one[0].ids != other[0].ids


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 12), min_size=3, max_size=40),
    st.integers(0, 1000),
    st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.5, 0.0)]),
)
def test_any_group_sizes(
    sizes: list[int], seed: int, fractions: tuple[float, float, float]
) -> None:
    words = [f"g{k}" for k, size in enumerate(sizes) for _ in range(size)]
    n = len(words)
    crystals = Crystals(
        torch.ones(n, 1, dtype=torch.long),
        torch.zeros(n, 1, 3),
        torch.eye(3).repeat(n, 1, 1),
        labels={"prototype": tuple(words)},
    )
    parts = split(crystals, "prototype", fractions=fractions, seed=seed)
    assert sum(map(len, parts)) == n and bool(len(parts[2])) == (fractions[2] > 0)
    found = [set(part.labels["prototype"]) for part in parts]
    assert sum(map(len, found)) == len(sizes)
    # no part is further over its share than the one group that overfilled it
    for part, share in zip(parts, fractions, strict=True):
        assert len(part) - share * n <= max(sizes)


@pytest.mark.parametrize("seed", range(5))
def test_a_large_group_leaves_the_other_parts_their_share(seed: int) -> None:
    words = ("large",) * 130 + tuple(f"g{k}" for k in range(70))
    crystals = batch(200).replace(labels={"prototype": words})
    train, val, test = split(crystals, "prototype", seed=seed)
    assert train.labels["prototype"].count("large") == 130
    shares = [len(part) / 200 for part in (train, val, test)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.14)
    assert min(shares) > 0.03


def test_random_shares_are_exact() -> None:
    assert [len(part) for part in split(batch(1000), seed=1)] == [800, 100, 100]
    thirds = split(batch(10), "random", fractions=(0.5, 0.3, 0.2), seed=0)
    assert [len(part) for part in thirds] == [5, 3, 2]


def test_composition_ignores_order_and_multiples() -> None:
    species = torch.tensor([[8, 1, 1, 0, 0, 0], [1, 1, 8, 1, 1, 8], [1, 8, 0, 0, 0, 0]])
    crystals = Crystals(species, torch.zeros(3, 6, 3), torch.eye(3).repeat(3, 1, 1))
    assert group_of(crystals, "composition").tolist() == [0, 0, 1]
    assert group_of(crystals, "chemical_system").tolist() == [0, 0, 0]


def test_size_keeps_the_largest_for_the_test() -> None:
    train, val, test = split(batch(500), "size", fractions=(0.6, 0.2, 0.2))
    assert int(train.n_atoms.max()) < int(val.n_atoms.min())
    assert int(val.n_atoms.max()) < int(test.n_atoms.min())


def test_the_whole_crystal_moves_together() -> None:
    crystals = batch()
    for part in split(crystals, "prototype"):
        at = [int(i) for i in part.ids]
        assert torch.equal(part.frac, crystals.frac[at])
        assert torch.equal(
            part.properties["spacegroup"], crystals.properties["spacegroup"][at]
        )


@pytest.mark.parametrize(
    ("change", "keywords", "message"),
    [
        ({}, {"by": "colour"}, "unknown kind of split 'colour'; choose one of random"),
        ({}, {"fractions": (0.5, 0.4, 0.2)}, "sum to 1"),
        ({}, {"fractions": (1.1, -0.1, 0.0)}, "sum to 1"),
        ({"labels": {}}, {"by": "prototype"}, "200 of 200 crystals have no prototype"),
        (
            {"labels": {"prototype": ("",) * 200}},
            {"by": "prototype"},
            "200 of 200 crystals have no prototype",
        ),
        (
            {"labels": {"prototype": ("a", "b") * 100}},
            {"by": "prototype"},
            "part would be empty; 200 crystals form 2 groups by prototype",
        ),
    ],
)
def test_errors_say_what_to_do(
    change: dict[str, object], keywords: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        split(batch().replace(**change), **keywords)  # type: ignore[arg-type]


def test_an_empty_batch_cannot_be_split() -> None:
    with pytest.raises(DataError, match="would be empty"):
        split(batch()[[]])
