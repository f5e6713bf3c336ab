"""The benchmark of generators: the yardstick is what it says, and ratios are its own."""

import json

import bench_generators as bench
import pytest
import torch
from bench_cost import MP20_SIZES, QUICK, cost, exponent, like_mp20
from reference_network import STEPS, Reference, ReferenceNetwork

import matdesign as design
from matdesign.errors import DataError
from matdesign.generators.batching import by_size

SMALL = {"hidden": 16, "layers": 2, "frequencies": 4, "time": 8}


@pytest.fixture
def noisy(eight):
    """Inputs of a small reference network, and the network."""
    network = Reference(**SMALL).network
    kinds = torch.nn.functional.one_hot(eight.species, 100).float()
    t = torch.linspace(1, 1000, 8)
    return network, [kinds, eight.frac, eight.lattice, t, eight.mask]


def test_the_reference_has_the_published_number_of_weights():
    def linear(inputs, outputs):
        return inputs * outputs + outputs

    layer = linear(2 * 512 + 9 + 6 * 128, 512) + linear(512, 512)
    layer += linear(2 * 512, 512) + linear(512, 512) + 2 * 512
    heads = 3 * 512 + 9 * 512 + linear(512, 100) + 2 * 512
    whole = 6 * layer + heads + linear(100, 512) + linear(512 + 256, 512)
    counted = sum(p.numel() for p in ReferenceNetwork().parameters())
    assert counted == whole == 12_346_468


def test_the_factored_reference_says_the_same(noisy, eight):
    network, given = noisy
    other = Reference(factored=True, **SMALL).network
    other.load_state_dict(network.state_dict())
    for a, b in zip(network(*given), other(*given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_reference_ignores_padding_and_the_origin(noisy):
    network, (kinds, frac, lattice, t, mask) = noisy
    want = network(kinds, frac, lattice, t, mask)
    wide = [torch.nn.functional.pad(x, (0, 0, 0, 3)) for x in (kinds, frac)]
    more = torch.nn.functional.pad(mask, (0, 3))
    padded = network(wide[0], wide[1] + 0.3, lattice, t, more)
    there = mask[..., None]
    for a, b in zip(want[:2], padded[:2], strict=True):
        torch.testing.assert_close(a * there, b[:, :5] * there, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(want[2], padded[2], rtol=1e-3, atol=1e-4)


def test_the_reference_learns_and_takes_two_evaluations_a_level(eight):
    reference = Reference(**SMALL)
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = reference.loss(eight, seed=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert reference.steps(torch.tensor([2, 5]), 3) == 2 * 3 * 2
    assert 2 * STEPS == 2_000


def test_growth_of_a_power_law_is_its_power():
    assert exponent({n: 0.1 * n**1.5 for n in (4, 8, 16, 32)}) == pytest.approx(1.5)
    assert exponent({4: 1.0, 8: 2.0}) is None


def test_memory_counts_what_was_held():
    def hold():
        return float(torch.ones(64, 2**18).sum())

    _, took = cost(hold, "cpu")
    if took.memory is None:
        pytest.skip("this system does not tell")
    assert 60 < took.memory < 100
    assert took.seconds("cpu") == took.cpu and took.seconds("wall") == took.wall


def test_sizes_are_distributed_as_in_mp20():
    # no prototype has 11, 15, 17 or 19 atoms: these stand in the next larger size
    many = like_mp20(design.load("prototypes", split="train"), 20_000)
    share = many.n_atoms.bincount(minlength=21)[1:].double() / 20_000
    wanted = torch.tensor(MP20_SIZES, dtype=torch.float64)
    wanted = wanted / wanted.sum()
    for missing in (11, 15, 17, 19):
        wanted[missing] += wanted[missing - 1]
        wanted[missing - 1] = 0.0
    error = (wanted * (1 - wanted) / 20_000).sqrt()
    assert ((share - wanted).abs() <= 5 * error).all()


def test_groups_of_the_reference_hold_every_crystal(eight):
    groups = by_size(eight.n_atoms, torch.arange(8), least=2)
    assert sorted(torch.cat(groups).tolist()) == list(range(8))


def test_a_quick_run_prints_ratios_of_its_own_figures(tmp_path, capsys):
    output = tmp_path / "speed.json"
    words = ["--quick", "--models", "--families", "flow-matching", "--threads", "1"]
    words += ["--representations", "cell", "--clock", "cpu", "--output", str(output)]
    bench.main(words)
    found = json.loads(output.read_text())
    row = found["models"]["fresh flow-matching (cell)"]
    assert row["sampling"]["evaluations_per_crystal"] == QUICK.own_steps
    made = found["reference"]["sampling"][0]["published"]
    assert made["evaluations_per_crystal"] == 2_000
    assert row["sampling_ratio"]["published"] == pytest.approx(
        made["seconds_per_crystal"] / row["sampling"]["seconds_per_crystal"]
    )
    step = found["reference"]["training"]["published"]
    assert row["training_ratio"]["published"] == pytest.approx(
        row["training"]["crystals_per_second"] / step["crystals_per_second"]
    )
    shown = capsys.readouterr().out
    assert "reference, factored" in shown and "fresh flow-matching (cell)" in shown
    assert len(found["bars"]) == 3


def test_a_model_that_fails_is_named_and_the_rest_goes_on(monkeypatch, eight):
    def broken(name):
        def for_data(*_, **__):
            raise DataError("no such thing")

        return (
            type("Broken", (), {"for_data": for_data}) if name == "vae" else real(name)
        )

    real = bench.family
    monkeypatch.setattr(bench, "family", broken)
    monkeypatch.setattr(
        bench, "one_model", lambda *_: {"sampling": {"crystals_per_second": 1.0}}
    )
    monkeypatch.setattr(bench.References, "training", lambda *_: {})
    found = bench.measure(
        QUICK,
        data=eight,
        shipped=[],
        fresh=[("vae", "cell"), ("diffusion", "cell")],
        threads=1,
    )
    assert found["models"]["fresh vae (cell)"]["error"] == "no such thing"
    assert found["thousand"]["model"] == "fresh diffusion (cell)"
