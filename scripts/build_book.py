"""Build the book: bring its scripts, drop stale results, execute every page, write HTML.

    python scripts/build_book.py

Pages are executed side by side into a cache in `_build`. It knows only their own cells, so a key
over the package, the data and the pins is kept beside it; when the key changes, `_build` goes.
Any warning and any failing cell ends the build with an error. Last, every page is written as a
notebook, with what it has just printed (`scripts/chapters.py`).
"""

import argparse
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import chapters
import joblib
import vendor_js
from jupyter_cache import get_cache
from jupyter_cache.executors.basic import ExecutionWorkerLocalSerial, ProcessData

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
KEY = BUILD / "matdesign.key"
# as myst-nb reads a page, so that the build finds what was executed here
READER = {"name": "myst_nb_md", "type": "plugin"}


def main() -> int:
    """Build, and return the exit status."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    started = time.perf_counter()
    vendor_js.vendor()
    key = key_of_inputs()
    if not KEY.exists() or KEY.read_text() != key:
        shutil.rmtree(BUILD, ignore_errors=True)
        BUILD.mkdir()
        KEY.write_text(key)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # our own kernel, not the user's
    os.environ["MATDESIGN_STATIC"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = execute()
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT]
    done = subprocess.run([*command, "-W", "--keep-going"], cwd=ROOT, check=False)
    if done.returncode == 0:
        chapters.write()
        chapters.publish()
        print(f"book built in {time.perf_counter() - started:.0f} s: {BUILD / 'html'}")
    return done.returncode or failed


def execute() -> int:
    """Execute the pages that the cache lacks, at most eight at a time; return how many failed."""
    cache, pages = get_cache(BUILD / ".jupyter_cache"), chapters.read()
    names = [f"{ROOT}/book/{k}.md" for k, v in pages.items() if "{code-cell}" in v]
    found = [cache.add_nb_to_project(one, read_data=READER).uri for one in names]
    due = cache.list_unexecuted(filter_uris=found)
    todo = [ProcessData(one.pk, one.uri, cache, 300, False) for one in due]
    with ProcessPoolExecutor(min(8, joblib.cpu_count())) as pool:
        work = ExecutionWorkerLocalSerial(logging.getLogger(__name__))
        return sum(code > 0 for code, _ in pool.map(work, todo))


def key_of_inputs() -> str:
    """Return a hash over everything that a page's result depends on but its own text."""
    digest = hashlib.sha256()
    tops = [ROOT / name for name in ("matdesign", "data", "constraints.txt")]
    for path in sorted(path for top in tops for path in (top, *top.rglob("*"))):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
