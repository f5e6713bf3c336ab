"""Slow figures of single crystals, kept on disk and computed by several processes."""

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

Outcome = Vector | str
"""A vector, or why there is none."""

DIED = "its process ended"


class Store:
    """Vectors on disk, by key, each written at once.

    Args:
        path: the file, made when missing. Several processes may use it at once.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(path, timeout=120.0)
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS vectors "
            "(key BLOB PRIMARY KEY, value BLOB, reason TEXT)"
        )

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Outcome]:
        """Return what is known of the keys."""
        known: dict[bytes, Outcome] = {}
        query = "SELECT value, reason FROM vectors WHERE key = ?"
        for key in keys:
            for value, reason in self._file.execute(query, (key,)):
                known[key] = reason or np.frombuffer(value, dtype=np.float64)
        return known

    def write(self, key: bytes, outcome: Outcome) -> None:
        """Keep an outcome."""
        value, reason = (b"", outcome) if isinstance(outcome, str) else (outcome, "")
        row = key, bytes(value), reason
        with self._file:
            self._file.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", row)


def in_processes(
    task: Callable[[Any], Outcome], items: Sequence[Any], workers: int
) -> Iterator[tuple[int, Outcome]]:
    """Yield (place, outcome) of every item as they get ready, from several processes.

    An item that ends its process is tried once more by itself; when it does so again,
    that is its outcome. No item can stop the others.

    Args:
        task: a function of a module; must not raise for an item.
        items: what travels to the processes.
        workers: processes; 1 computes in this one.
    """
    if workers <= 1 or len(items) < 2:
        for i, one in enumerate(items):
            yield i, task(one)
        return
    waiting = list(range(len(items)))[::-1]
    suspects: list[int] = []
    while waiting or suspects:
        alone = not waiting
        queue, most = (suspects, 1) if alone else (waiting, 4 * workers)
        flying: dict[Future[Outcome], int] = {}
        # not forked: a fork of a process with threads may never end
        pool = ProcessPoolExecutor(1 if alone else workers, get_context("spawn"))
        try:
            while queue or flying:
                while queue and len(flying) < most:
                    flying[pool.submit(task, items[queue[-1]])] = queue[-1]
                    queue.pop()
                for ready in wait(flying, return_when=FIRST_COMPLETED).done:
                    outcome = ready.result()
                    yield flying.pop(ready), outcome
        except BrokenProcessPool:
            lost = list(flying.values())
            if alone:
                yield from ((i, DIED) for i in lost)
            else:
                suspects += lost
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError inside the block after some processor seconds.

    A busy machine does not count. In a thread that is not the main one, where Python
    handles no signals, there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
