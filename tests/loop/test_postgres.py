"""A campaign in a real PostgreSQL server: killed, resumed by URL, locked."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from alloys import Alloys, CountingOracle

from matdesign.errors import DataError
from matdesign.loop.campaign import Campaign
from matdesign.loop.store import Store

pytest.importorskip("ase_db_backends")
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
FOUND = [shutil.which(name, path=f"{os.environ['PATH']}:{':'.join(map(str, PROGRAMS))}")
         for name in ("initdb", "pg_ctl")]  # fmt: skip
pytestmark = [
    pytest.mark.skipif(None in FOUND, reason="no PostgreSQL server on this machine"),
    pytest.mark.slow,
]

SETTINGS = {"budget": 18, "batch": 6, "seed": 5}
SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from alloys import Alloys, CountingOracle
from matdesign.loop.campaign import Campaign
oracle = CountingOracle({side!r}, pause=0.2)
for _ in Campaign(Alloys(), None, oracle, {url!r}, **{settings!r}):
    pass
"""


@pytest.fixture
def url():
    """A server of its own in a new folder; it refuses to run as root."""
    folder = Path(tempfile.mkdtemp(prefix="matdesign-"))
    user = {}
    if os.geteuid() == 0:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody", "nogroup")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]

    def do(*words):
        subprocess.run(words, check=True, cwd=folder, stdout=subprocess.DEVNULL, **user)

    initdb, pg_ctl = FOUND
    data, log = str(folder / "data"), str(folder / "log")
    do(initdb, "-D", data, "-U", "lab", "-A", "trust", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    do(pg_ctl, "-D", data, "-w", "-l", log, "-o", options, "start")
    try:
        yield f"postgresql://lab:secret@127.0.0.1:{port}/postgres"
    finally:
        do(pg_ctl, "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def finish(loop):
    """Run a campaign to its end and return its table."""
    for _ in loop:
        pass
    assert loop.spent == 18
    table = loop.table().drop(columns="seconds")
    loop.close()
    return table


def test_a_killed_campaign_goes_on_by_its_url(url, tmp_path):
    side = tmp_path / "side"
    here = str(Path(__file__).parent)
    script = SCRIPT.format(here=here, side=str(side), url=url, settings=SETTINGS)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen([sys.executable, "-c", script], env=env)
    while process.poll() is None and len(computed(side)) < 8:
        time.sleep(0.05)
    with pytest.raises(DataError, match="another process is writing to 127") as caught:
        Store(url)
    assert "secret" not in str(caught.value)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    oracle = CountingOracle(side)
    again = Campaign.resume(url, generator=Alloys(), oracle=oracle)
    assert 0 < again.spent < 18
    table = finish(again)
    counted = Counter(computed(side))
    assert len(counted) == 18 and sum(counted.values()) <= 20  # two were under way
    whole = CountingOracle(tmp_path / "whole")
    want = finish(Campaign(Alloys(), None, whole, tmp_path / "c.db", **SETTINGS))
    assert table.equals(want)
    with pytest.raises(DataError, match="holds a campaign already"):
        Campaign(Alloys(), None, oracle, url, **SETTINGS)


def computed(side):
    return side.read_text().split() if side.exists() else []
