"""One door to the benchmarks: each explains itself, and an unknown one is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench.py"
FOLDER = SCRIPT.with_suffix("")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True)


NAMES = [p.stem for p in FOLDER.glob("*.py") if "def main(" in p.read_text()]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_benchmark_is_named_and_explains_itself(name):
    word = name.replace("_", "-")
    assert f"    {word} " in run().stdout
    shown = run(word, "--help")
    assert shown.returncode == 0, shown.stderr[-1000:]
    assert f"usage: bench.py {word}" in shown.stdout


def test_an_unknown_name_is_refused():
    shown = run("nothing")
    assert shown.returncode == 2 and "usage: bench.py NAME" in shown.stdout
