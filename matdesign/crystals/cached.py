"""What is slow to find in a set of crystals, kept on disk: found once, read after that."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from torch import Tensor

from matdesign.paths import cache_dir

FEWEST = 500
"""Crystals from which on a result is kept; fewer are found again in no time."""


def cached(
    method: str, source: dict[str, Tensor], find: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return what `find` finds, from disk where it was found before.

    A result is one file, named after the method and the checksum of its source. It
    states the checksum of its own content: a file that was cut short or altered is made
    anew. All of them may be deleted at any time.

    Args:
        method: what is found, with its version.
        source: the tensors that the result depends on, on the CPU, one row per crystal.
        find: computes the result, tensors on the CPU.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    if len(next(iter(source.values()))) < FEWEST:
        return find()
    path = cache_dir() / "found" / f"{method}-{checksum(source)[:32]}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            known = {name: file.get_tensor(name) for name in file.keys()}
            if file.metadata() == {"sha256": checksum(known)}:
                return known
    except (OSError, SafetensorError):
        pass
    found = find()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.part")
        save_file(found, draft, metadata={"sha256": checksum(found)})
        draft.replace(path)
    except OSError:  # a full disk or a read-only home: found again next time
        pass
    return found


def checksum(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of tensors on the CPU."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        one = tensors[name].detach().contiguous()
        digest.update(f"{name} {one.dtype} {tuple(one.shape)} ".encode())
        digest.update(one.numpy().tobytes())
    return digest.hexdigest()
