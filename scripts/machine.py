"""What scripts that train, sample and time need to know of the machine."""

import os
import platform
import shlex
from collections.abc import Iterable
from pathlib import Path

import torch


def processor() -> str:
    """Return the name of the processor and how many cores the machine has."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    names = [x.split(":")[1].strip() for x in text.splitlines() if "model name" in x]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def hardware() -> str:
    """Return the processor, and the GPU or that there is none."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor()}, {gpu}"


def command(script: str, words: Iterable[str]) -> str:
    """Return a command line without the folders of this machine.

    Args:
        script: its file in `scripts`.
        words: what follows, such as `sys.argv[1:]`; of whole paths and of data files, also
            behind "=", the name stays.

    Example:
        >>> command("train.py", ["vae", "mp20=/a/b/mp_20_dev.parquet", "--seed", "0"])
        'python scripts/train.py vae mp20=mp_20_dev.parquet --seed 0'
    """
    short = []
    for word in words:
        head, sign, last = word.rpartition("=")
        there = last.startswith("/") or last.endswith((".json", ".parquet"))
        short.append(f"{head}{sign}{Path(last).name}" if there else word)
    return shlex.join(["python", f"scripts/{script}", *short])
