"""Runs a notebook of this checkout without a display, as `make design` does."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from matdesign.errors import DataError


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
    time_limit: int = 1200,
) -> None:
    """Execute a notebook from top to bottom in its own folder and save it with outputs.

    Works without a display: viewers take their static form.

    Args:
        notebook: what to execute; the file itself is left as it is.
        saved: where to write the executed copy; written also when a cell fails.
        say: called with each heading that is reached.
        time_limit: seconds that one cell may take.

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

    from matdesign.display.pages import STATIC

    nbformat: Any = import_module("nbformat")  # untyped
    try:
        book = nbformat.read(notebook, as_version=4)
    except (OSError, ValueError) as error:
        raise DataError(f"{notebook} cannot be read as a notebook: {error}.") from None

    def reached(cell: Any, cell_index: int) -> None:
        if cell.cell_type == "markdown":
            heads = [s for s in cell.source.splitlines() if s.startswith("#")]
            for head in heads:
                say(f"  {head.lstrip('# ')}")

    client = NotebookClient(
        book,
        timeout=time_limit,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(notebook.parent)}},
        on_cell_start=reached,
    )
    # half the cores, waiting passively: threads that spin are slow where others work too
    threads = max(1, (os.cpu_count() or 1) // 2)
    calm = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    saved.parent.mkdir(parents=True, exist_ok=True)
    try:
        client.execute(env={**calm, "MPLBACKEND": "agg", **os.environ, STATIC: "1"})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        why = str(error).strip().splitlines() or ["no message"]
        raise DataError(
            f"{notebook.name} stopped: {why[-1][:300]} All of it is in {saved}."
        ) from None
    finally:
        nbformat.write(book, saved)
