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
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from functools import partial
from typing import IO, Any, TypeVar

from matdesign.errors import MatdesignError
from matdesign.loop.worker_main import STARTED, receive, send

T = TypeVar("T")
R = TypeVar("R")

START_LIMIT = 300.0
"""Seconds that a worker may take to start and prepare."""

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)


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
    when the parent is gone.

    Args:
        count: processes at most.
        prepare: called once in every new process, outside the tasks' time limits; load
            models here.
        memory_limit: GiB of memory a process may ask for; None for no limit.

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
    ) -> None:
        if count < 1:
            raise MatdesignError(f"workers must be 1 or more; got {count}.")
        self.count = count
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="matdesign-worker")
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        self._all: list[_Process] = []
        for _ in range(count):
            process = _Process(prepare, memory_limit)
            self._idle.put(process)
            self._all.append(process)
        self._finalizer = weakref.finalize(self, _end, self._all)

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
        return self._threads.submit(self._run, function, args, time_limit)

    def _run(
        self, function: Callable[..., R], args: tuple[Any, ...], limit: float | None
    ) -> R:
        process = self._idle.get()
        try:
            result: R = process.call(function, args, limit)
            return result
        finally:
            self._idle.put(process)

    def stop(self) -> None:
        """Kill what is running and drop what is waiting; the workers stay usable."""
        stale = self._threads
        self._threads = ThreadPoolExecutor(
            self.count, thread_name_prefix="matdesign-worker"
        )
        stale.shutdown(wait=False, cancel_futures=True)
        _end(self._all)
        stale.shutdown(wait=True)
        for process in self._all:
            process.stopped = False

    def close(self) -> None:
        """End all processes; nothing can be submitted afterwards."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._finalizer()
        self._threads.shutdown(wait=True)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Remote:
    """Any other executor (a Dask cluster's, say) with the same time limits.

    Each task runs in a worker process beside the executor's own process.

    Args:
        executor: a `concurrent.futures.Executor`, such as
            `dask.distributed.Client(...).get_executor()`.
        prepare: as in `Workers`.
        memory_limit: as in `Workers`.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        prepare: Callable[[], object] | None = None,
        memory_limit: float | None = None,
    ) -> None:
        self.executor = executor
        self._how = (uuid.uuid4().hex, prepare, memory_limit)

    def submit(
        self, function: Callable[..., R], *args: Any, time_limit: float | None = None
    ) -> Future[R]:
        """Same as `Workers.submit`."""
        task = partial(_beside, function, args, time_limit, *self._how)
        return self.executor.submit(task)

    def stop(self) -> None:
        """Nothing: the executor belongs to the caller."""

    def close(self) -> None:
        """Nothing: the executor belongs to the caller."""


KEPT = 4
"""Worker processes, each of another `Remote`, that one thread of an executor keeps."""

_LOCAL = threading.local()


def _beside(
    function: Callable[..., R],
    args: tuple[Any, ...],
    limit: float | None,
    owner: str,
    prepare: Callable[[], object] | None,
    memory_limit: float | None,
) -> R:
    """Run in a worker process of this thread and `Remote`, kept for the next task."""
    kept: dict[str, Workers] = vars(_LOCAL).setdefault("workers", {})
    if owner not in kept:
        while len(kept) >= KEPT:  # those of the oldest, which is hardly used any more
            kept.pop(next(iter(kept))).close()
        kept[owner] = Workers(1, prepare=prepare, memory_limit=memory_limit)
    return kept[owner].submit(function, *args, time_limit=limit).result()


def isolated(
    workers: Workers | Remote,
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
        task = workers.submit(
            function, [items[i] for i in places], time_limit=time_limit
        )
        waiting[task] = places

    try:
        for first in range(0, len(items), max(batch, 1)):
            start(list(range(len(items)))[first : first + max(batch, 1)])
        while waiting:
            task = next(as_completed(waiting))
            places = waiting.pop(task)
            try:
                results = list(task.result())
                if len(results) != len(places):
                    raise TaskFailed(f"{len(results)} results for {len(places)} items")
            except TaskFailed as failure:
                if len(places) == 1:
                    yield places[0], failure
                else:
                    for place in places:
                        start([place])
                continue
            for place, result in zip(places, results, strict=True):
                if len(places) > 1 and again(result):
                    start([place])
                else:
                    yield place, result
    finally:
        if waiting:  # the reader left, or Ctrl-C: what is under way is of no use
            for task in waiting:
                task.cancel()
            workers.stop()


class _Process:
    """One worker process and the pipes to it; used by one thread at a time."""

    def __init__(
        self, prepare: Callable[[], object] | None, memory_limit: float | None
    ) -> None:
        self.prepare = prepare
        self.memory_limit = memory_limit
        self.popen: subprocess.Popen[bytes] | None = None
        self.words: IO[bytes] | None = None
        self.stopped = False

    def start(self) -> None:
        """Start the process and wait until it is prepared."""
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
        if self.stopped:  # `_end` may have looked before the process was there
            self.popen.kill()
        try:
            hello = self.exchange((self.prepare, self.memory_limit), START_LIMIT)
        except TaskFailed as failure:
            self.end()
            raise MatdesignError(
                f"a worker process could not start: {failure.reason}. "
                f"Its last words: {failure.details[-600:] or 'none'}"
            ) from None
        if hello != STARTED:
            self.end()
            raise MatdesignError(
                f"a worker process could not prepare itself: {hello[1]}. "
                f"Mend this first, no crystal can be evaluated.\n{hello[2]}"
            )

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], limit: float | None
    ) -> Any:
        """Return the result of one task, or raise `TaskFailed`."""
        if self.popen is None or self.popen.poll() is not None:
            self.start()
        try:
            fine, result, details = self.exchange((function, args, limit), limit)
        except TaskFailed:
            self.end()
            raise
        if not fine:
            raise TaskFailed(result, details)
        return result

    def exchange(self, message: object, limit: float | None) -> Any:
        """Send a message and return the answer; kill the process at the limit."""
        popen = self.popen
        assert (
            popen is not None and popen.stdin is not None and popen.stdout is not None
        )
        late = threading.Event()

        def expire() -> None:
            late.set()
            popen.kill()

        timer = threading.Timer(limit, expire) if limit is not None else None
        if timer:
            timer.daemon = True
            timer.start()
        try:
            send(popen.stdin, message)
            return receive(popen.stdout)
        except (EOFError, OSError):
            code = popen.wait()
            if late.is_set():
                raise TaskFailed(f"time limit {limit:g} s") from None
            raise TaskFailed(f"worker died: {_how(code)}", self.last_words()) from None
        finally:
            if timer:
                timer.cancel()

    def last_words(self) -> str:
        """What the process wrote to its standard error, at most 4,000 characters."""
        if self.words is None:
            return ""
        size = self.words.seek(0, os.SEEK_END)
        self.words.seek(max(0, size - 4000))
        return self.words.read().decode(errors="replace").strip()

    def end(self) -> None:
        """Kill the process, if any, and collect it (no zombie stays)."""
        popen, self.popen = self.popen, None
        if popen is not None:
            popen.kill()
            popen.wait()
            for pipe in (popen.stdin, popen.stdout):
                try:
                    if pipe is not None:
                        pipe.close()
                except OSError:
                    pass  # unsent bytes to a dead process


def _end(processes: list[_Process]) -> None:
    for process in processes:
        process.stopped = True
    for process in processes:
        popen = process.popen
        if popen is not None:
            popen.kill()
            popen.wait()


def _how(code: int) -> str:
    """Say an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
