"""Runs a notebook of this checkout without a display, as `make design` does."""

import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matdesign.errors import DataError

if TYPE_CHECKING:
    import nbformat


def notebooks() -> Path:
    """Return the folder of notebooks of this checkout.

    Raises:
        DataError: the package was installed without them.
    """
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    if not folder.is_dir():
        raise DataError(
            "the notebooks are not part of an installed package; got "
            f"{Path(__file__).parent}. Run this in a checkout of the repository."
        )
    return folder


def run(
    notebook: Path,
    saved: Path,
    *,
    say: Callable[[str], None] = print,
    time_limit: float = 1200,
) -> float:
    """Execute a notebook from top to bottom in its own folder and save it with outputs.

    Works without a display: viewers take their static form.

    Args:
        notebook: what to execute; the file itself is left as it is.
        saved: where to write the executed copy; written also when a cell fails.
        say: called with one line per cell.
        time_limit: seconds that one cell may take.

    Returns:
        Seconds for the whole notebook.

    Raises:
        DataError: the notebook is missing or a cell fails; the message shows the last
            line of the error, the saved copy all of it.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import (
        CellExecutionError,
        CellTimeoutError,
        DeadKernelError,
    )

    nbformat: Any = import_module("nbformat")  # untyped
    try:
        book = nbformat.read(notebook, as_version=4)
    except (OSError, ValueError) as error:
        raise DataError(f"{notebook} cannot be read as a notebook: {error}.") from None
    titles = _titles(book)
    start = time.perf_counter()
    began = start

    def before(cell: Any, cell_index: int, **_: Any) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(cell: Any, cell_index: int, **_: Any) -> None:
        seconds = time.perf_counter() - began
        say(f"  {titles[cell_index]:<56} {seconds:6.1f} s")

    client = NotebookClient(
        book,
        timeout=round(time_limit),
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(notebook.parent)}},
        on_cell_execute=before,
        on_cell_executed=after,
    )
    saved.parent.mkdir(parents=True, exist_ok=True)
    try:
        client.execute(env=_environment())
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        why = str(error).strip().splitlines() or ["no message"]
        raise DataError(
            f"{notebook.name} stopped: {why[-1][:300]} All of it is in {saved}."
        ) from None
    finally:
        nbformat.write(book, saved)
    return time.perf_counter() - start


def _environment() -> dict[str, str]:
    """Return the kernel's environment: static viewers, no display, patient threads.

    Small networks gain little from a thread on every core, and threads that wait by
    spinning are many times slower where other programs use the cores too: so half the
    cores, and waiting passively. What the caller has set is kept.
    """
    from matdesign.display.viewer import STATIC

    threads = max(1, (os.cpu_count() or 1) // 2)
    calm = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    return {**calm, "MPLBACKEND": "agg", **os.environ, STATIC: "1"}


def _titles(book: "nbformat.NotebookNode") -> list[str]:
    """Return, for every cell, the last heading above it."""
    titles, title = [], "setup"
    for cell in book.cells:
        if cell.cell_type == "markdown":
            heads = [s for s in str(cell.source).splitlines() if s.startswith("#")]
            title = heads[-1].lstrip("# ") if heads else title
        titles.append(title[:56])
    return titles
