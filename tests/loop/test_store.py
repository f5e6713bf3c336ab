"""The store: exact round trips, all-or-nothing iterations, survival of a kill."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.loop.results import Column, Results
from matdesign.loop.store import Proposal, Store, crystal_keys


def crystals(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Crystals(
        torch.randint(1, 90, (n, 4), generator=rng),
        torch.rand(n, 4, 3, generator=rng),
        4 * torch.eye(3) + torch.rand(n, 3, 3, generator=rng),
    )


def results(one, energy=-3.0, reason=""):
    columns = {
        "energy_per_atom": Column([energy], "eV/atom"),
        "energy_above_hull": Column([energy + 4], "eV/atom", [0.02]),
        "competing": Column([3]),
        "steps": Column([17]),
        "volume": Column([4.5], "angstrom^3"),  # ASE has a key of that name
    }
    return Results(one, columns, (reason,), torch.tensor([0.25]), "toy")


def test_round_trip_is_exact(tmp_path):
    store = Store(tmp_path / "a.db")
    batch = crystals(5)
    proposals = [
        Proposal(
            batch[[i]], i, "selected" if i % 2 else "rejected", "" if i % 2 else "1"
        )
        for i in range(5)
    ]
    store.propose(3, proposals)
    read = store.proposals(3)
    assert [p.key for p in read] == crystal_keys(batch)
    assert torch.equal(Crystals.cat([p.crystal for p in read]).frac, batch.frac)
    assert [p.decision for p in read] == [p.decision for p in proposals]
    assert store.proposals(2) == []
    store.evaluated(3, read[1], results(batch[[1]]))
    (found,) = store.evaluations()
    assert (found.iteration, found.place, found.key) == (3, 1, read[1].key)
    assert found.result.energy_per_atom.tolist() == [-3.0]
    assert torch.isnan(found.result.formation_energy_per_atom).all()
    assert found.result.steps.tolist() == [17] and found.result.ok.all()
    assert found.result.to_dict() == results(batch[[1]]).to_dict()
    assert found.result.columns["energy_above_hull"].std.tolist() == [0.02]
    assert set(store.originals()) == {read[1].key, read[3].key}
    store.finish(3, {"proposed": 5, "seconds": 1.5})
    assert store.iterations() == [
        {"kind": "iteration", "iteration": 3, "proposed": 5, "seconds": 1.5}
    ]
    assert "5 crystals, 1 evaluations, 1 iterations" in repr(store)


def test_settings_are_replaced(tmp_path):
    store = Store(tmp_path / "a.db")
    assert store.settings() is None
    store.write_settings({"seed": 1, "inf": float("inf")})
    store.write_settings({"seed": 2, "text": "1e5"})
    assert store.settings() == {"seed": 2, "text": "1e5"}
    assert store.count("campaign") == 1


def test_odd_crystals_can_be_stored(tmp_path):
    store = Store(tmp_path / "a.db")
    odd = [
        Crystals(
            torch.tensor([[29]]), torch.full((1, 1, 3), torch.nan), torch.eye(3)[None]
        ),
        Crystals(torch.tensor([[29]]), torch.zeros(1, 1, 3), torch.ones(1, 3, 3)),
        Crystals(torch.tensor([[0]]), torch.zeros(1, 1, 3), torch.eye(3)[None]),
        Crystals(
            torch.tensor([[2]]), torch.zeros(1, 1, 3), torch.full((1, 3, 3), torch.inf)
        ),
    ]
    rows = [Proposal(one, i, "rejected", "odd") for i, one in enumerate(odd)]
    store.propose(0, rows)
    for i, one in enumerate(odd):
        store.evaluated(0, rows[i], results(one, torch.nan, "odd"))
    assert [p.key for p in store.proposals(0)] == [p.key for p in rows]
    assert all(not e.result.ok.any() for e in store.evaluations())


def test_keys_tell_crystals_apart():
    batch = crystals(3)
    padded = Crystals.cat(
        [
            batch,
            crystals(1).replace(
                species=torch.ones(1, 9, dtype=torch.long),
                frac=torch.zeros(1, 9, 3),
            ),
        ]
    )[:3]
    assert padded.species.shape[1] == 9
    assert crystal_keys(padded) == crystal_keys(batch)
    assert len(set(crystal_keys(batch))) == 3
    moved = batch.replace(frac=batch.frac + 1e-6)
    assert not set(crystal_keys(moved)) & set(crystal_keys(batch))


def test_ase_reads_it(tmp_path):
    from ase.db import connect

    store = Store(tmp_path / "a.db")
    batch = crystals(2)
    store.evaluated(0, Proposal(batch[[0]], 0, "selected"), results(batch[[0]], -2.0))
    row = connect(tmp_path / "a.db", use_lock_file=False).get("energy_above_hull<2.5")
    assert row.toatoms().numbers.tolist() == batch.species[0].tolist()
    assert row.toatoms().cell.volume == pytest.approx(float(batch.volume[0]), rel=1e-5)


def test_errors_speak(tmp_path):
    with pytest.raises(
        DataError, match=r"ending in .db or a database URL; got 'a.txt'"
    ):
        Store("a.txt")
    with pytest.raises(DataError, match=r"no store .*none.a.db: .*none does not exist"):
        Store(tmp_path / "none" / "a.db")
    (tmp_path / "b.db").write_text("this is no database at all" * 100)
    with pytest.raises(DataError, match=r"b.db is not a campaign store"):
        Store(tmp_path / "b.db")
    with pytest.raises(DataError, match=r"ase-db-backends|cannot be rea") as caught:
        Store("postgresql://me:secret@nowhere/db")
    assert "secret" not in str(caught.value)


def test_one_writer_at_a_time(tmp_path):
    first = Store(tmp_path / "a.db")
    with pytest.raises(DataError, match=r"another process is writing"):
        Store(tmp_path / "a.db")
    first.close()
    Store(tmp_path / "a.db").close()


def test_a_killed_writer_leaves_whole_iterations(tmp_path):
    script = """
        import os, sys
        sys.path.insert(0, {here!r})
        from test_store import *
        store = Store({path!r})
        batch = crystals(30)
        rows = [Proposal(batch[[i]], i, "selected") for i in range(30)]
        iteration = 0
        while True:
            store.propose(iteration, rows)
            print(iteration, flush=True)
            iteration += 1
    """
    path = tmp_path / "a.db"
    script = script.format(here=os.path.dirname(__file__), path=str(path))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env=env
    )
    lines = [writer.stdout.readline() for _ in range(4)]
    writer.send_signal(signal.SIGKILL)
    rest = writer.communicate()[0].split()
    seen = [int(x) for x in [*lines, *rest]]
    store = Store(path)  # neither a stale lock nor a damaged file
    assert store.count("crystal") % 30 == 0
    for iteration in seen:
        assert len(store.proposals(iteration)) == 30
