"""Worker processes that may hang, crash or run out of memory without harm to the rest.

An oracle meets crystals that nobody meant: they loop for ever, kill the interpreter or
ask for a terabyte.  So the work is done in other processes, each with a time limit.
`Workers` has the `submit -> Future` of `concurrent.futures`; `isolated` runs a
function on batches and, where a batch goes wrong, on its items one by one, so that a
bad item costs itself alone.

Why not a library: loky has no time limit per task and gives up the whole pool when one
process dies; pebble (5.2.3) has both, but imports the user's script anew in every
worker (a script without a main guard fails), cannot send functions defined in a
notebook, and leaves a busy worker behind when the parent is killed.  Workers are
therefore started like any other program, and spoken to through their pipes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from matdesign.errors import DataError, MatdesignError
from matdesign.loop.worker_main import receive, send, set_up

T = TypeVar("T")
R = TypeVar("R")

START_LIMIT = 300.0
"""Seconds that a worker may take to start and prepare."""

KEPT = 4
"""Worker processes, each of another `Workers`, that a thread of an executor keeps."""

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)

_SIGNALS = {one.value: one.name for one in signal.Signals}


class TaskFailed(Exception):
    """A task ended without a result; `reason` says why in a few words.

    Args:
        reason: such as "time limit 60 s", "worker died: SIGSEGV", "ValueError: ...".
        details: traceback or last words of the worker, for the curious.
    """

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details


class Workers:
    """A few persistent worker processes behind `submit`.

    A process is started when a task first needs it and again after it was lost; it
    computes with one thread, ignores Ctrl-C (the parent decides), and ends by itself
    when the parent is gone. Each belongs to one thread of an executor.

    Args:
        count: processes at most, where no executor is given.
        prepare: called once in every new process, outside the tasks' time limits; load
            models here.
        memory_limit: GiB of memory a process may ask for; None for no limit.
        executor: where the tasks go instead of threads of this process: a
            `concurrent.futures.Executor`, which stays the caller's and open, or the
            address of a Dask scheduler, such as "tcp://host:8786".

    Example:
        >>> import math
        >>> with Workers(1) as workers:
        ...     workers.submit(math.sqrt, 4.0, time_limit=20).result()
        2.0
    """

    def __init__(
        self,
        count: int = 2,
        *,
        prepare: Callable[[], object] | None = None,
        memory_limit: float | None = None,
        executor: Executor | str | None = None,
    ) -> None:
        self.count = count
        self._set_up = partial(set_up, prepare, memory_limit)
        self._given = executor
        self._executor: Executor | None = None
        self._client: Any = None

    def submit(
        self, function: Callable[..., R], *args: Any, time_limit: float | None = None
    ) -> Future[R]:
        """Return a future of `function(*args)`, computed in a worker process.

        Args:
            function: any function, also one defined in a notebook.
            *args: what it gets; the worker has copies.
            time_limit: seconds after which the worker is killed; None waits for ever.

        Returns:
            A future whose `result()` raises `TaskFailed` when the task hangs, crashes
            or raises, and `MatdesignError` when no worker could be started.
        """
        if self._executor is None:
            self._owner = uuid.uuid4().hex
            self._finalizer = weakref.finalize(self, _end, self._owner)
            self._executor = self._open()
        task = partial(_beside, self._owner, self._set_up, function, args, time_limit)
        return self._executor.submit(task)

    def close(self) -> None:
        """Kill what is running and drop what is waiting; `submit` starts anew."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        if self._given is None:
            executor.shutdown(wait=False, cancel_futures=True)
        self._finalizer()
        if self._given is None:
            executor.shutdown(wait=True)
        if self._client is not None:
            with suppress(OSError, TimeoutError):  # the cluster may be gone
                self._client.run(_end, self._owner, on_error="ignore")
            self._client.close()

    def _open(self) -> Executor:
        if not isinstance(self._given, str):
            return self._given or ThreadPoolExecutor(self.count)
        try:
            import distributed

            dask: Any = distributed
            self._client = dask.Client(self._given, set_as_default=False)
        except ImportError:
            raise DataError(
                "a Dask cluster needs a package that is not installed. Run "
                "`pip install 'matdesign[cluster]'`."
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(
                f"no Dask scheduler answers at {self._given}: {error}. Start one with "
                "`dask scheduler`, and give the address that it prints."
            ) from None
        return self._client.get_executor(pure=False)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def isolated(
    workers: Workers,
    function: Callable[[list[T]], Sequence[R]],
    items: Sequence[T],
    *,
    time_limit: float,
    batch: int = 1,
    again: Callable[[R], bool] = lambda result: False,
) -> Iterator[tuple[int, R | TaskFailed]]:
    """Yield (place, result or failure) of every item, as they get ready.

    A batch has the time of one item.  Where that is not enough, or the batch dies or
    raises, its items are tried one by one: the guilty one fails, the others do not.

    Args:
        workers: where to compute.
        function: takes a list of items and gives one result each.
        items: what to compute.
        time_limit: seconds per task.
        batch: items per task.
        again: tells of a result from a batch that its item shall be tried alone.

    Raises:
        MatdesignError: no worker could be started.
    """
    waiting: dict[Future[Sequence[R]], list[int]] = {}

    def start(places: list[int]) -> None:
        some = [items[i] for i in places]
        waiting[workers.submit(function, some, time_limit=time_limit)] = places

    try:
        for first in range(0, len(items), batch):
            start(list(range(len(items)))[first : first + batch])
        while waiting:
            task = next(as_completed(waiting))
            places = waiting.pop(task)
            try:
                results: Sequence[R | TaskFailed] = task.result()
            except TaskFailed as failure:
                results = [failure] * len(places)
            for place, result in zip(places, results, strict=True):
                if len(places) > 1 and (
                    isinstance(result, TaskFailed) or again(result)
                ):
                    start([place])
                else:
                    yield place, result
    finally:
        if waiting:  # the reader left, or Ctrl-C: what is under way is of no use
            for task in waiting:
                task.cancel()
            workers.close()


_PROCESSES: dict[tuple[int, str], _Process] = {}
"""Worker processes started from here, by thread and `Workers`, the oldest first."""

_ENDED: set[str] = set()
"""`Workers` that were closed: no process of theirs may live."""


def _beside(
    owner: str,
    prepare: Callable[[], None],
    function: Callable[..., R],
    args: tuple[Any, ...],
    limit: float | None,
) -> R:
    """Run in the worker process of this thread and owner, kept for the next task."""
    thread = threading.get_ident()
    if (thread, owner) not in _PROCESSES:
        kept = [key for key in list(_PROCESSES) if key[0] == thread]
        for key in kept[: max(0, len(kept) + 1 - KEPT)]:  # hardly used any more
            _PROCESSES.pop(key).end()
        _PROCESSES[thread, owner] = _Process(owner, prepare)
    process = _PROCESSES[thread, owner]
    if process.popen is None or process.popen.poll() is not None:
        process.start()
    return process.exchange(function, args, limit)


def _end(owner: str) -> None:
    """Kill the worker processes of a `Workers`."""
    _ENDED.add(owner)
    for key in [key for key in list(_PROCESSES) if key[1] == owner]:
        popen = _PROCESSES.pop(key).popen
        if popen is not None:
            popen.kill()
            popen.wait()


class _Process:
    """One worker process and the pipes to it; used by one thread."""

    def __init__(self, owner: str, prepare: Callable[[], None]) -> None:
        self.owner, self.prepare = owner, prepare
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it is prepared."""
        self.end()
        path = os.pathsep.join(p for p in sys.path if p)
        self.words = tempfile.TemporaryFile()
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "matdesign.loop.worker_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
            start_new_session=True,
        )
        if self.owner in _ENDED:  # `_end` may have looked before the process was there
            self.popen.kill()
        try:
            self.exchange(self.prepare, (), START_LIMIT)
        except TaskFailed as failure:
            self.end()
            raise MatdesignError(
                f"a worker process could not prepare itself: {failure.reason}. Mend this "
                f"first, no crystal can be evaluated.\n{failure.details}"
            ) from None

    def exchange(
        self, function: Callable[..., Any], args: tuple[Any, ...], limit: float | None
    ) -> Any:
        """Return the result of a task or raise `TaskFailed`; kill at the limit."""
        popen = self.popen
        assert popen and popen.stdin and popen.stdout
        end = threading.TIMEOUT_MAX if limit is None else limit
        began, timer = time.monotonic(), threading.Timer(end, popen.kill)
        timer.daemon = True
        timer.start()
        try:
            send(popen.stdin, (function, args, limit))
            fine, result, details = receive(popen.stdout)
        except (EOFError, OSError):
            code, late = popen.wait(), time.monotonic() - began >= end
            words = self.last_words()
            self.end()
            how = _SIGNALS.get(-code, f"exit code {code}")
            reason = f"time limit {end:g} s" if late else f"worker died: {how}"
            raise TaskFailed(reason, words) from None
        finally:
            timer.cancel()
        if not fine:
            raise TaskFailed(result, details)
        return result

    def last_words(self) -> str:
        """What the process wrote to its standard error, at most 4,000 characters."""
        size = self.words.seek(0, os.SEEK_END)
        self.words.seek(max(0, size - 4000))
        return self.words.read().decode(errors="replace").strip()

    def end(self) -> None:
        """Kill the process, if any, and collect it (no zombie stays)."""
        popen, self.popen = self.popen, None
        if popen is not None:
            popen.kill()
            popen.wait()
            for pipe in filter(None, (popen.stdin, popen.stdout)):
                with suppress(OSError):  # unsent bytes to a dead process
                    pipe.close()
