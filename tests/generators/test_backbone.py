"""The shared network: its symmetries, padding, and what an untrained one says."""

import pytest
import torch

from matdesign.crystals.elements import MASK
from matdesign.generators.backbone import PairTransformer
from matdesign.generators.layers import PairFeatures, chemistry_code, sinusoid


@pytest.fixture(scope="module")
def network() -> PairTransformer:
    """A small float64 network whose every weight is drawn, so that all paths count."""
    network = PairTransformer(width=32, layers=2, heads=4, pair_width=16).double()
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(std=0.2, generator=rng)
    return network.eval()


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    frac = torch.rand(3, 5, 3, generator=rng, dtype=torch.float64)
    cell = 4 * torch.eye(3, dtype=torch.float64) + 0.6 * torch.randn(
        3, 3, 3, generator=rng, dtype=torch.float64
    )
    return {
        "species": torch.tensor(
            [[8, 22, MASK, 38, 8], [11, 17, 0, 0, 0], [6, 0, 0, 0, 0]]
        ),
        "frac": frac,
        "lattice": cell,
        "code": torch.randn(3, 6, generator=rng, dtype=torch.float64),
        "t": torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64),
    }


def close(a, b, mask):
    # float64 and two layers: rounding only
    assert torch.allclose(a.frac, b.frac, atol=1e-10)
    assert torch.allclose(a.lattice, b.lattice, atol=1e-10)
    assert torch.allclose(a.species[mask], b.species[mask], atol=1e-10)


def test_every_path_counts(network, inputs):
    """The fixture's network does react to what the symmetry tests change."""
    out = network(**inputs)
    moved = inputs["frac"].clone()
    moved[0, 0, 0] += 0.1
    assert not torch.allclose(network(**{**inputs, "frac": moved}).frac[0], out.frac[0])
    for name in ("lattice", "code", "t"):
        other = network(**{**inputs, name: inputs[name] * 1.1})
        assert not torch.allclose(other.frac[0], out.frac[0])


def test_reordering_atoms_reorders_the_outputs(network, inputs):
    order = torch.tensor([3, 0, 4, 2, 1])
    a = network(**inputs)
    b = network(
        **{
            **inputs,
            "species": inputs["species"][:, order],
            "frac": inputs["frac"][:, order],
        }
    )
    mask = (inputs["species"] > 0)[:, order]
    close(a._replace(frac=a.frac[:, order], species=a.species[:, order]), b, mask)


@pytest.mark.parametrize("what", ["translation", "integers", "rotation"])
def test_invariances(network, inputs, what):
    changed = dict(inputs)
    rng = torch.Generator().manual_seed(2)
    if what == "translation":
        shift = torch.rand(3, 1, 3, generator=rng, dtype=torch.float64)
        changed["frac"] = (inputs["frac"] + shift) % 1
    elif what == "integers":
        whole = torch.randint(-3, 4, (3, 5, 3), generator=rng)
        changed["frac"] = inputs["frac"] + whole
    else:
        turn = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))[0]
        changed["lattice"] = inputs["lattice"] @ turn
    close(network(**inputs), network(**changed), inputs["species"] > 0)


def test_padding_changes_nothing(network, inputs):
    out = network(**inputs)
    for i, n in enumerate((5, 2, 1)):
        one = {k: v[i : i + 1] for k, v in inputs.items()}
        one["species"], one["frac"] = one["species"][:, :n], one["frac"][:, :n]
        alone = network(**one)
        assert torch.allclose(alone.frac[0], out.frac[i, :n], atol=1e-10)
        assert torch.allclose(alone.lattice[0], out.lattice[i], atol=1e-10)
        assert torch.allclose(alone.species[0], out.species[i, :n], atol=1e-10)
        assert (out.frac[i, n:] == 0).all()


def test_what_stands_in_the_padding_does_not_matter(network, inputs):
    other = dict(inputs)
    other["frac"] = inputs["frac"].masked_fill(
        (inputs["species"] == 0).unsqueeze(-1), 0.77
    )
    close(network(**inputs), network(**other), inputs["species"] > 0)


def test_coordinates_have_no_drift(network, inputs):
    assert network(**inputs).frac.sum(1).abs().max() < 1e-12
    assert (network(**inputs).frac[2] == 0).all()  # one atom: nothing to say


def test_an_untrained_network_says_nothing(inputs):
    network = PairTransformer(width=32, layers=2, heads=4).double()
    network.reset(0)
    out = network(**inputs)
    assert (
        (out.frac == 0).all() and (out.lattice == 0).all() and (out.species == 0).all()
    )


def test_weights_come_from_the_seed():
    a, b, c = (PairTransformer(width=32, layers=1, heads=4) for _ in range(3))
    a.reset(5), b.reset(5), c.reset(6)
    same = [
        torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)
    ]
    other = [
        torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True)
    ]
    assert all(same) and not all(other)


def test_gradients_reach_all_weights_once_heads_are_open(network, inputs):
    network.zero_grad()
    out = network(**inputs)
    (
        out.frac.square().sum() + out.lattice.sum() + out.species.square().sum()
    ).backward()
    silent = [n for n, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert not silent


def test_chemistry_codes_are_distinct_and_neighbours_are_alike():
    code = chemistry_code()
    assert code.isfinite().all() and (code[0] == 0).all() and (code[MASK] == 0).all()
    apart = torch.cdist(code[1:MASK], code[1:MASK]) + 9 * torch.eye(MASK - 1)
    assert apart.min() > 0.01

    def far(a: int, b: int) -> float:
        return float((code[a] - code[b]).norm())

    assert far(11, 19) < far(11, 17)  # Na: nearer to K than to Cl
    assert far(57, 58) < far(57, 8)  # La: nearer to Ce than to O


def test_pair_distances_agree_with_pymatgen():
    from pymatgen.core import Lattice

    rng = torch.Generator().manual_seed(4)
    cell = Lattice.from_parameters(4, 5, 6, 75, 80, 100)
    frac = torch.rand(1, 6, 3, generator=rng, dtype=torch.float64)
    features = PairFeatures(2).double()
    values, _ = features(frac, torch.tensor(cell.matrix)[None])
    radial = values[0, ..., 12:]
    exact = torch.tensor(cell.get_all_distances(frac[0].numpy(), frac[0].numpy()))
    expected = torch.exp(
        -0.5
        * ((exact.clamp(min=1e-4)[..., None] - features.centres) / features.width) ** 2
    )
    assert torch.allclose(radial, expected, atol=1e-6)


def test_sinusoid_has_the_size_asked_for():
    assert sinusoid(torch.rand(3), 64).shape == (3, 64)
