"""What runs inside a worker process: read a task, do it, answer; see `workers`.

The process speaks through its standard input and output, so whatever a task prints is
sent to standard error instead.  Messages are pickled; both ends are this program, on
this machine, and nothing from a file is ever unpickled.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import IO, Any

GRACE = 5.0
"""Seconds after its time limit when a worker ends itself, if nobody else did."""


def send(pipe: IO[bytes], message: object) -> None:
    """Write one message, as bytes: if they cannot be read, the next one still can."""
    import cloudpickle

    pickle.dump(cloudpickle.dumps(message), pipe)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read one message of the process at the other end of our own pipe, never of a file.

    Raises:
        EOFError: the other end is gone.
    """
    try:
        data = pickle.load(pipe)
    except pickle.UnpicklingError as cut:
        raise EOFError from cut
    return pickle.loads(data)


def set_up(prepare: Callable[[], object] | None, memory_limit: float | None) -> None:
    """Make allocations beyond a limit (GiB) fail, where the system can, and prepare."""
    if memory_limit is not None and sys.platform != "win32":
        import resource

        size = int(memory_limit * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    if prepare is not None:
        prepare()


def _listen(pipe: IO[bytes], inbox: queue.Queue[Any]) -> None:
    """Pass tasks on; end the process at once when the parent is gone."""
    while True:
        try:
            inbox.put(receive(pipe))
        except EOFError:
            os._exit(0)
        except Exception as error:  # a task that cannot be unpickled here
            inbox.put(error)


def _answer(task: Any) -> tuple[bool, Any, str]:
    """Do one task and say (fine, result or reason, details)."""
    try:
        if isinstance(task, Exception):
            raise task
        function, args, limit = task
        if limit is not None:  # a watchdog in C: works where Python is stuck
            faulthandler.dump_traceback_later(limit + GRACE, exit=True)
        return True, function(*args), ""
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        reason = f"{type(error).__name__}: {words}" if words else type(error).__name__
        return False, reason, traceback.format_exc()[-4000:]
    finally:
        faulthandler.cancel_dump_traceback_later()


def serve() -> None:
    """Serve tasks until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    faulthandler.enable()
    inbox: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(tasks, inbox), daemon=True).start()
    while True:
        reply = _answer(inbox.get())
        try:
            send(answers, reply)
        except OSError:
            os._exit(0)
        except Exception as error:  # a result that cannot be pickled
            name = type(error).__name__
            send(answers, (False, f"the result cannot be sent back: {name}", ""))


if __name__ == "__main__":
    serve()
