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


def fast_products() -> bool:
    """Let oneDNN take the matrix products of float32 where that keeps their digits.

    On some processors torch's default library uses half of the vector unit; oneDNN,
    asked for "bf16" precision, takes float32 products at twice the rate. Where it would
    really round to bf16 (processors with tile units) the default stays: decided by one
    product that is compared with float64.

    Returns:
        Whether oneDNN is used from now on.
    """
    rules = torch.backends.mkldnn.matmul
    if not torch.backends.mkldnn.is_available():
        return False
    before = rules.fp32_precision
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=rng) for _ in range(2))
    rules.fp32_precision = "bf16"
    exact = a.double() @ b.double()
    if float((a @ b - exact).abs().max() / exact.abs().max()) < 2e-6:
        return True
    rules.fp32_precision = before
    return False
