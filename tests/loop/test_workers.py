"""Worker processes: what one bad task does to the others (nothing)."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matdesign.errors import MatdesignError
from matdesign.loop.workers import TaskFailed, Workers, isolated


def behave(item):
    """Do what the item says; the good ones are squared."""
    kind, value = item
    if kind == "hang":
        time.sleep(600)
    if kind == "exit":
        os._exit(1)
    if kind == "abort":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "raise":
        raise ValueError(f"cannot do {value}")
    if kind == "eat":
        item.clear()
    return value**2


def behave_all(items):
    return [behave(item) for item in items]


def alive(pid):
    """Whether the process runs (a zombie does not)."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as pool:
        yield pool


def test_result_and_parallel_processes(workers):
    pids = [workers.submit(os.getpid, time_limit=30) for _ in range(4)]
    assert os.getpid() not in {p.result() for p in pids}
    assert workers.submit(math.hypot, 3.0, 4.0, time_limit=30).result() == 5.0


def test_start_up_is_paid_once():
    with Workers(1) as pool:
        first, second = (
            pool.submit(os.getpid, time_limit=30).result() for _ in range(2)
        )
        assert first == second


def test_exception_becomes_reason(workers):
    with pytest.raises(TaskFailed, match=r"ValueError: cannot do 7") as caught:
        workers.submit(behave, ["raise", 7], time_limit=30).result()
    assert "behave" in caught.value.details


def test_crash_is_named_and_worker_replaced(workers):
    with pytest.raises(TaskFailed, match=r"worker died: exit code 1"):
        workers.submit(behave, ["exit", 0], time_limit=30).result()
    with pytest.raises(TaskFailed, match=r"worker died: SIGSEGV"):
        workers.submit(behave, ["abort", 0], time_limit=30).result()
    assert workers.submit(behave, ["good", 3], time_limit=30).result() == 9


def test_hang_is_killed_at_the_limit(workers):
    began = time.monotonic()
    with pytest.raises(TaskFailed, match=r"time limit 0.5 s"):
        workers.submit(time.sleep, 600, time_limit=0.5).result()
    assert time.monotonic() - began < 60


def test_eaten_input_is_a_copy(workers):
    item = ["eat", 5]
    workers.submit(behave, item, time_limit=30).result()
    assert item == ["eat", 5]


def test_notebook_functions_travel(workers):
    factor = 3

    def local(x):
        return factor * x

    assert workers.submit(local, 5, time_limit=30).result() == 15


def test_printing_does_not_disturb_the_pipe(workers):
    def noisy():
        print("hello")
        os.write(1, b"raw bytes\n")
        return 1

    assert workers.submit(noisy, time_limit=30).result() == 1


def test_unsendable_result_is_a_failure(workers):
    import threading

    with pytest.raises(TaskFailed, match=r"cannot be sent back"):
        workers.submit(threading.Lock, time_limit=30).result()


def test_memory_limit():
    with Workers(1, memory_limit=0.5) as pool:
        with pytest.raises(TaskFailed, match=r"MemoryError"):
            pool.submit(bytearray, 2**31, time_limit=30).result()
        assert pool.submit(abs, -1, time_limit=30).result() == 1


def test_prepare_runs_once_per_process_and_its_failure_is_an_error():
    def prepare():
        os.environ["PREPARED"] = os.environ.get("PREPARED", "") + "x"

    with Workers(1, prepare=prepare) as pool:
        for _ in range(2):
            assert pool.submit(os.getenv, "PREPARED", time_limit=30).result() == "x"

    def broken():
        raise FileNotFoundError("no weights")

    with Workers(1, prepare=broken) as pool:
        with pytest.raises(MatdesignError, match=r"could not prepare.*no weights"):
            pool.submit(abs, 1, time_limit=30).result()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_isolation_bad_items_cost_themselves_alone(workers, batch):
    kinds = ["good", "exit", "good", "hang", "raise", "good", "eat", "good"]
    items = [[kind, i] for i, kind in enumerate(kinds)]
    found = dict(isolated(workers, behave_all, items, time_limit=1.5, batch=batch))
    assert sorted(found) == list(range(8))
    for i, kind in enumerate(kinds):
        if kind in ("good", "eat"):
            assert found[i] == i**2
    assert found[1].reason == "worker died: exit code 1"
    assert found[3].reason == "time limit 1.5 s"
    assert found[4].reason == "ValueError: cannot do 4"
    assert items[6] == ["eat", 6]


def test_again_repeats_alone(workers):
    def count(items):
        return [len(items)] * len(items)

    found = dict(
        isolated(workers, count, "abcd", time_limit=30, batch=4, again=lambda n: n == 4)
    )
    assert found == {0: 1, 1: 1, 2: 1, 3: 1}


def test_leaving_early_stops_the_work(workers):
    items = [["good", 2], ["hang", 0], ["hang", 1], ["hang", 2]]
    stream = isolated(workers, behave_all, items, time_limit=300)
    assert next(stream) == (0, 4)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 60  # against 900 s of hanging
    assert workers.submit(abs, -2, time_limit=30).result() == 2


def test_close_leaves_no_process():
    pool = Workers(2)
    pids = {pool.submit(os.getpid, time_limit=30).result() for _ in range(2)}
    task = pool.submit(time.sleep, 600)
    pool.close()
    assert task.done()
    assert not any(alive(pid) for pid in pids)
    assert pool.submit(abs, -1, time_limit=30).result() == 1  # and starts again
    pool.close()


def test_remote_executor_has_the_same_limits():
    with ThreadPoolExecutor(1) as threads:
        remote = Workers(executor=threads)
        items = [["good", 2], ["hang", 0], ["good", 3]]
        found = dict(isolated(remote, behave_all, items, time_limit=1.5, batch=3))
    assert (found[0], found[2], found[1].reason) == (4, 9, "time limit 1.5 s")


SCRIPT = """
import os, signal, sys, time
from matdesign.loop.workers import Workers
# A shell that runs the tests in the background makes its children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("main", flush=True)
workers = Workers(1)
print(workers.submit(os.getpid, time_limit=60).result(), flush=True)
try:
    workers.submit(time.sleep, 600, time_limit=600).result()
except KeyboardInterrupt:
    workers.close()
    print("interrupted", flush=True)
"""


def _script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    process = subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert process.stdout.readline() == "main\n"  # once: no guard is needed
    return process, int(process.stdout.readline())


def _gone(pid, seconds=20.0):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_a_killed_parent_leaves_no_worker(tmp_path):
    process, pid = _script(tmp_path)
    assert alive(pid)
    process.kill()
    process.wait()
    process.stdout.close()
    assert _gone(pid)


def test_ctrl_c_ends_cleanly(tmp_path):
    process, pid = _script(tmp_path)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert out == "interrupted\n"
    assert process.returncode == 0 and _gone(pid)
