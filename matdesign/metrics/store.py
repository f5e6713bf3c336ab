"""Slow figures of single crystals, kept on disk and computed by several processes."""

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
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

TIME_LIMIT = 60.0
"""Processor seconds that one crystal may take."""


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
    """Yield (place, outcome) of every item in their order, from several processes.

    Where an item ends its process, what is left is computed by one process, and the item
    that ends it again has that as its outcome. No item can stop the others.

    Args:
        task: a function of a module; must not raise for an item.
        items: what travels to the processes.
        workers: processes; 1 computes in this one.
    """
    if workers <= 1 or len(items) < 2:
        for i, one in enumerate(items):
            yield i, task(one)
        return
    left, alone = list(range(len(items))), False
    while left:
        # not forked: a fork of a process with threads may never end
        pool = ProcessPoolExecutor(1 if alone else workers, get_context("spawn"))
        try:
            for future in [pool.submit(task, items[i]) for i in left]:
                outcome = future.result()
                yield left.pop(0), outcome
        except BrokenProcessPool:
            if alone:
                yield left.pop(0), DIED
            alone = True  # one by one: the first without an outcome ended its process
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def deadline(seconds: float = TIME_LIMIT) -> Iterator[None]:
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
