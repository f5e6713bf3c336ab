"""A JupyterLab on this machine only, and how its user opens and runs a notebook."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOKEN = "only-for-this-test"
SHOWN = ".jp-NotebookPanel:not(.lm-mod-hidden)"
IDLE = f"{SHOWN} .jp-Notebook-ExecutionIndicator[data-status='idle']"


@contextmanager
def serving(root: Path, folder: Path) -> Iterator[str]:
    """Give the address of a JupyterLab over `root`, whose settings and log are in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "MATDESIGN_STATIC"}
    environment |= {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "HOME": str(folder),
    }
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "IdentityProvider.token": TOKEN,
        "ServerApp.root_dir": root,
        "LabApp.news_url": "",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    log = folder / "lab.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            command, cwd=root, env=environment, stdout=out, stderr=out
        )
        address = f"http://127.0.0.1:{port}"
        try:
            _wait(address, server, log)
            yield address
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            raise RuntimeError(
                f"JupyterLab ended at its start:\n{log.read_text()[-3000:]}"
            )
        try:
            with urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"JupyterLab did not answer:\n{log.read_text()[-3000:]}")


def open_notebook(page: Any, address: str) -> None:
    """Open a notebook by its address, without tabs of before, and wait for its kernel."""
    page.set_viewport_size({"width": 1300, "height": 2400})
    page.set_default_timeout(240_000)
    page.goto(f"{address}?token={TOKEN}&reset", wait_until="commit")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.locator(IDLE).wait_for()


def run_all(page: Any) -> None:
    """Choose Run All Cells from the menu."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).first.click()
