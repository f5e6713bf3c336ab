"""A campaign on a real Dask cluster: one of its workers is killed, nothing is lost."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from alloys import Alloys, CountingOracle
from typer.testing import CliRunner

from matdesign.campaigns import _go_on
from matdesign.cli import app
from matdesign.crystals.io.files import write
from matdesign.errors import DataError
from matdesign.loop.campaign import Campaign
from matdesign.loop.workers import TaskFailed, Workers

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and two worker processes of one thread each."""
    quiet = {"dashboard_address": None, "worker_dashboard_address": None}
    with distributed.LocalCluster(2, threads_per_worker=1, **quiet) as made:
        yield made


def workers_of(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        return set(client.run(os.getpid).values())


def run(folder, **keywords):
    """Return the table of a campaign, and how often each crystal was computed."""
    side = folder / "side"
    oracle = CountingOracle(side, pause=0.2, **keywords)
    where, settings = folder / "c.db", {"budget": 18, "batch": 6, "seed": 5}
    loop = Campaign(Alloys(), None, oracle, where, **settings)
    for _ in loop:
        pass
    assert loop.spent == 18
    table = loop.table().drop(columns="seconds")
    loop.close()
    return table, Counter(side.read_text().split())


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(cluster, tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    before, killed = workers_of(cluster), threading.Event()

    def kill():
        side = tmp_path / "there" / "side"
        while not side.exists() or len(side.read_text().split()) < 8:
            time.sleep(0.02)
        os.kill(min(before), signal.SIGKILL)
        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    table, computed = run(tmp_path / "there", executor=cluster.scheduler_address)
    assert killed.is_set() and workers_of(cluster) != before
    want, _ = run(tmp_path / "here")
    assert table.equals(want) and not table.duplicated("id").any()
    # what the worker computed as it died is computed once more, and recorded once
    assert len(computed) == 18 and sum(computed.values()) <= 19


def test_time_limits_hold_on_a_cluster_and_its_processes_end(cluster):
    with Workers(executor=cluster.scheduler_address) as pool:
        with pytest.raises(TaskFailed, match=r"time limit 0.5 s"):
            pool.submit(time.sleep, 600, time_limit=0.5).result()
        pid = pool.submit(os.getpid, time_limit=60).result()
        assert pid not in workers_of(cluster)
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_an_executor_of_ones_own_stays_open(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        executor = client.get_executor(pure=False)
        for _ in range(2):
            with Workers(executor=executor) as pool:
                assert pool.submit(abs, -1, time_limit=60).result() == 1


def test_a_wrong_address_is_named(tmp_path):
    with Workers(executor="nowhere://1") as pool:
        with pytest.raises(DataError, match="no Dask scheduler answers at nowhere"):
            pool.submit(abs, 1)
    write(Alloys(bad=0).sample(1, seed=0), tmp_path / "a.cif")
    words = ["relax", str(tmp_path / "a.cif"), "--scheduler", "nowhere://1"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code and "no Dask scheduler answers" in found.output
    oracle = CountingOracle(tmp_path / "side")
    loop = Campaign(Alloys(), None, oracle, tmp_path / "c.db", budget=2)
    with pytest.raises(DataError, match="no Dask scheduler answers"):
        _go_on(loop, "nowhere://1")
    loop.close()
