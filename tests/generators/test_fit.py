"""Training: resumes to the bit, averages weights, refuses what does not fit, learns."""

import itertools
import subprocess
import sys

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.parquet import write_parquet
from matdesign.errors import DataError
from matdesign.generators.autoregressive import Autoregressive
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.trainer import Run, _rate, by_size, fit, pick, training

SMALL = {"width": 32, "layers": 2, "heads": 4}


@pytest.fixture
def crystals(eight: Crystals) -> Crystals:
    return eight


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", [Diffusion, Autoregressive])  # without, with dropout
def test_resumed_training_equals_uninterrupted_training(kind, crystals, tmp_path):
    options = {"steps": 20, "batch_size": 6, "seed": 5, "val": crystals, "val_every": 7}
    whole = kind.for_data(crystals, **SMALL)
    run = fit(whole, crystals, log_every=5, **options)

    file = tmp_path / "half.safetensors"
    first = kind.for_data(crystals, **SMALL)
    # killed after step 13: only what step 10 saved is left
    loop = training(first, crystals, checkpoint=file, checkpoint_every=10, **options)
    list(itertools.islice(loop, 13))
    loop.close()
    second = kind.for_data(crystals, seed=99, **SMALL)
    again = fit(second, crystals, checkpoint=file, log_every=5, **options)

    assert torch.equal(weights(whole), weights(second))
    assert again.resumed == 1 and again.steps == 20
    assert run.history[-1].terms == again.history[-1].terms
    assert run.history[-1].val == again.history[-1].val


def test_history_survives_a_resume(crystals, tmp_path):
    file = tmp_path / "c.safetensors"
    options = {"batch_size": 4, "checkpoint": file, "log_every": 2}
    fit(Diffusion.for_data(crystals, **SMALL), crystals, steps=4, **options)
    run = fit(Diffusion.for_data(crystals, **SMALL), crystals, steps=8, **options)
    assert [s.step for s in run.history] == [2, 4, 6, 8]
    seconds = [s.seconds for s in run.history]
    assert seconds == sorted(seconds)


def test_a_checkpoint_of_another_training_is_refused(crystals, tmp_path):
    file = tmp_path / "c.safetensors"
    model = Diffusion.for_data(crystals, **SMALL)
    fit(model, crystals, steps=1, batch_size=4, seed=1, checkpoint=file)
    with pytest.raises(DataError, match=r"c\.safetensors.*seed is 1.*delete"):
        fit(model, crystals, steps=2, batch_size=4, seed=2, checkpoint=file)
    with pytest.raises(DataError, match="its data is"):
        fit(model, crystals[:4], steps=2, batch_size=4, seed=1, checkpoint=file)
    labels = {"density": torch.ones(len(crystals))}  # the same sites with other labels
    labelled = crystals.replace(properties=labels)
    with pytest.raises(DataError, match="its data is"):
        fit(model, labelled, steps=2, batch_size=4, seed=1, checkpoint=file)


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_checkpoint_is_named(crystals, tmp_path, damage):
    file = tmp_path / "c.safetensors"
    model = Diffusion.for_data(crystals, **SMALL)
    fit(model, crystals, steps=1, batch_size=4, checkpoint=file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"hello")
    with pytest.raises(DataError, match=r"c\.safetensors.*Delete it"):
        fit(model, crystals, steps=2, batch_size=4, checkpoint=file)


def test_the_model_ends_with_averaged_weights(crystals):
    """With ema = 0 the average is the weights themselves; with 0.999 it lags."""
    ends = []
    for ema in (0.0, 0.999):
        model = Diffusion.for_data(crystals, **SMALL)
        fit(model, crystals, steps=10, batch_size=4, ema=ema)
        ends.append(weights(model))
    start = weights(Diffusion.for_data(crystals, **SMALL))
    moved, lagged = ((end - start).norm() for end in ends)
    assert 0 < lagged < moved


def test_leaving_the_loop_early_keeps_a_usable_model(crystals):
    model = Diffusion.for_data(crystals, **SMALL)
    for step in training(model, crystals, steps=100, batch_size=4):
        if step.step == 3:
            break
    assert not model.training
    assert step.terms.keys() == {"frac", "lattice", "species"}
    assert step.loss == pytest.approx(sum(step.terms.values()), rel=1e-5)


def test_mixed_precision_trains_like_full_precision(crystals):
    ends = {}
    for precision in ("32-true", "bf16-mixed"):
        model = Diffusion.for_data(crystals, **SMALL)
        options = {"steps": 5, "batch_size": 8, "precision": precision, "log_every": 5}
        run = fit(model, crystals, **options)
        ends[precision] = run.history[-1].loss
        assert all(p.dtype == torch.float32 for p in model.parameters())
    # bf16 keeps three digits; five steps at a small rate stay close
    assert ends["bf16-mixed"] == pytest.approx(ends["32-true"], rel=0.02)


def test_two_processes_share_the_work(crystals, tmp_path):
    """Data-parallel training on two CPU processes ends with one set of weights."""
    script = tmp_path / "two.py"
    write_parquet(crystals, tmp_path / "eight.parquet")
    script.write_text(
        "import os, pathlib, sys, torch\n"
        "import matdesign as design\n"
        "torch.set_num_threads(1)\n"
        "train = design.read(sys.argv[1])\n"
        "model = design.Diffusion.for_data(train, width=32, layers=1, heads=4)\n"
        "run = design.fit(model, train, steps=3, batch_size=8, devices=2,\n"
        "    accelerator='cpu', progress=False, log_every=1)\n"
        "total = sum(float(p.double().sum()) for p in model.parameters())\n"
        # a file each: lines that two processes print may run into each other
        "out = pathlib.Path(sys.argv[1]).with_name(f'weights-{os.getpid()}.txt')\n"
        "out.write_text(f'{total!r} {run.device}')\n"
    )
    shown = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "eight.parquet")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert shown.returncode == 0, shown.stderr
    ends = [path.read_text() for path in tmp_path.glob("weights-*.txt")]
    assert len(ends) == 2 and ends[0] == ends[1], shown.stdout
    assert "2 processes" in ends[0]


def test_nothing_to_train_on_is_said(crystals):
    model = Diffusion.for_data(crystals, **SMALL)
    with pytest.raises(DataError, match="0 crystals"):
        fit(model, crystals[:0], steps=1)


def test_learning_rate_rises_stays_and_falls():
    rates = [_rate(step, 1000, 100, 0.3) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99:700] == pytest.approx([1.0] * 601)
    assert all(a >= b for a, b in itertools.pairwise(rates[700:]))
    assert rates[-1] < 1e-4


def test_every_crystal_is_seen_once_in_each_pass():
    size, batch = 10, 4
    seen = torch.cat([pick(size, batch, step, seed=3) for step in range(10)])
    for turn in range(4):
        assert sorted(seen[turn * size : (turn + 1) * size].tolist()) == list(
            range(size)
        )
    assert len(pick(3, 8, 0, seed=0)) == 8  # a batch larger than the set spans passes


def test_groups_are_the_batch_and_nearly_equal_in_size():
    rng = torch.Generator().manual_seed(0)
    n_atoms = torch.randint(1, 21, (500,), generator=rng)
    index = torch.randperm(500, generator=rng)[:128]
    groups = by_size(n_atoms, index)
    assert sorted(torch.cat(groups).tolist()) == sorted(index.tolist())
    assert all(len(group) >= 16 for group in groups)
    padded = sum(len(g) * int(n_atoms[g].max()) for g in groups)
    assert padded < 1.25 * int(n_atoms[index].sum())


def test_a_run_prints_its_facts(crystals):
    run = fit(
        Diffusion.for_data(crystals, **SMALL), crystals, steps=2, batch_size=4, seed=8
    )
    text = repr(run)
    for part in ("2 steps of 4", "seed      8", "cpu", "species", "8 crystals"):
        assert part in text
    assert run.facts()["data"] == run.data
    assert repr(Run()).startswith("Run: 0 steps")


def test_a_run_plots(crystals):
    pytest.importorskip("matplotlib")
    model = Diffusion.for_data(crystals, **SMALL)
    run = fit(model, crystals, steps=4, batch_size=4, log_every=1)
    assert run.plot() is not None
    assert Run().plot() is None
