"""What a reader asks of the place: `about`, `device`, `scale`."""

import json
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import torch

from matdesign.errors import DataError
from matdesign.paths import data_dir
from matdesign.tables import Table

T = TypeVar("T")

PACKAGES = (
    "matdesign torch numpy pymatgen ase moyopy spglib smact chgnet lightning pyarrow "
    "nglview jupyterlab jupyter-book"
).split()
"""Distributions whose version can change a number or break a page."""


class About(Table, dict[str, str]):
    """What runs here, topic -> text: versions, system, device, licences; print it."""

    def cells_as_text(self) -> tuple[list[str], list[list[str]]]:
        """Return topics and texts."""
        return ["topic", "here"], [[*one] for one in self.items()]


def about() -> About:
    """Return versions, device, data found and licences; printing it is a bug report.

    It names no path below the home folder, so it can be pasted in public.

    Example:
        >>> "torch" in about()["versions"]
        True
    """
    versions = {"python": platform.python_version()}
    versions |= {name: package_version(name) for name in PACKAGES}
    return About(
        {
            "versions": ", ".join(f"{name} {v}" for name, v in versions.items()),
            "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "device": device_line(_best()),
            **_data(),
            "licence": "code MIT, prose CC BY 4.0, data as stated above",
        }
    )


def device() -> torch.device:
    """Pick the best device of this machine and print one line about it.

    Returns:
        `cuda` where a CUDA device answers, `mps` on Apple silicon, else `cpu`. Models
        and tensors move with `.to(device)`; the package uses no global device.

    Example:
        >>> design_device = device()  # doctest: +ELLIPSIS
        device: ...
    """
    best = _best()
    print(device_line(best))
    return best


def device_line(which: torch.device) -> str:
    """Return one line that names the device, its memory and what it means for sizes.

    Args:
        which: any torch device of this machine.
    """
    what, size = f"{torch.get_num_threads()} threads", "CPU"
    if which.type == "cuda":
        card = torch.cuda.get_device_properties(which)
        what, size = f"{card.name}, {card.total_memory / 2**30:.0f} GiB", "GPU"
    elif which.type == "mps":
        what, size = "Apple GPU", "GPU"
    return f"device: {which} ({what}); design.scale gives {size} sizes"


def scale(*, cpu: T, gpu: T) -> T:
    """Return the size that fits this machine; the line shows a reader both.

    Args:
        cpu: value for a laptop.
        gpu: value where a GPU is found.

    Returns:
        One of the two.

    Example:
        >>> steps = scale(cpu=200, gpu=20_000)
        >>> steps in (200, 20_000)
        True
    """
    return cpu if _best().type == "cpu" else gpu


def _best() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@cache
def package_version(name: str) -> str:
    """Return the installed version of a package, or "not installed"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _data() -> dict[str, str]:
    try:
        root = data_dir()
    except DataError:
        return {"data": "no shipped data found"}
    cards = sorted([*root.glob("*/card.json"), *root.glob("*/*/card.json")])
    return {
        f"data: {c.parent.relative_to(root).as_posix()}": _licence(c) for c in cards
    }


def _licence(card: Path) -> str:
    try:
        return str(json.loads(card.read_text(encoding="utf-8"))["licence"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"card without a readable licence: {card.name}"
