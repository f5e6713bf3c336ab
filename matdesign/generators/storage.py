"""Weights on disk: safetensors for tensors, JSON for facts; nothing is ever unpickled."""

import hashlib
import inspect
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from matdesign.errors import DataError

M = TypeVar("M")
T = TypeVar("T")

WEIGHTS = "model.safetensors"
FACTS = "config.json"
FORMAT = 1


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that is, at any moment and after any crash, either old or new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def save_model(model: Any, folder: str | Path) -> Path:
    """Write a model: its class, `config`, `record` and weights; return the folder.

    Each file is written atomically, and the facts carry the checksum of the weights, so
    that a mixture of two writes is noticed.
    """
    from safetensors.torch import save

    from matdesign import __version__

    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    content = save(_plain(model.state_dict()))
    facts = {
        "format": FORMAT,
        "class": type(model).__name__,
        "version": __version__,
        "config": model.config,
        "record": model.record,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_atomic(where / WEIGHTS, content)
    write_atomic(where / FACTS, f"{json.dumps(facts, indent=1)}\n".encode())
    return where


def _read(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts that `save_model` left in a folder, checked."""
    from safetensors.torch import load

    path, weights = Path(folder) / FACTS, Path(folder) / WEIGHTS
    for file in (path, weights):
        if not file.is_file():
            raise DataError(
                f"{file} is missing; a saved model is a folder with {FACTS} and {WEIGHTS}. "
                "Copy both, or save the model again."
            )
    try:
        facts = json.loads(path.read_bytes())
    except ValueError as wrong:
        raise DataError(
            f"{path} is not JSON ({wrong}); it was cut short or altered. "
            "Restore it, or save the model again."
        ) from wrong
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise DataError(
            f"{path} has a format that this version cannot read; need {FORMAT}. "
            "Save the model again with this version."
        )
    content = weights.read_bytes()
    seal = hashlib.sha256(content).hexdigest()
    if seal != facts.get("sha256"):
        raise DataError(
            f"{weights} does not have the checksum that {path.name} states: got {seal}. It "
            "was cut short or altered; restore it, or save the model again."
        )
    return load(content), facts


def load_model(kind: type[M], folder: str | Path) -> M:
    """Return the model that `save_model` wrote, in evaluation mode, on the CPU.

    Args:
        kind: the class it must be, itself or by inheritance.
        folder: where it lies.

    Raises:
        DataError: a file is missing, truncated, altered or of another class.
    """
    import matdesign

    tensors, facts = _read(folder)
    path = Path(folder) / FACTS
    name = facts.get("class")
    own = getattr(matdesign, str(name), None)
    maker: Any = kind if kind.__name__ == name else own
    if not inspect.isclass(maker):
        raise DataError(
            f"{path} names a model that is not known here: got {name!r}. "
            f"Load it with its own class, as in {name}.load(folder)."
        )
    if not issubclass(maker, kind):
        raise DataError(
            f"{path} holds a {name}, not a {kind.__name__}. Use {name}.load(folder)."
        )
    try:
        model: Any = maker(**renamed(maker, dict(facts["config"])))
        model.load_state_dict(renamed(maker, tensors))
    except (TypeError, KeyError, ValueError, RuntimeError) as wrong:
        raise DataError(
            f"{path} does not fit its weights or this version: {wrong}. "
            "Train the model again, or install the version that wrote it."
        ) from wrong
    model.record = dict(facts.get("record", {}))
    loaded: M = model.eval()
    return loaded


def renamed(kind: type, named: dict[str, T]) -> dict[str, T]:
    """Return keywords or tensors of an older file under the names that a class has now.

    Args:
        kind: its `renamed` says old name -> name now, "" for what had no effect, or the
            one value that an option may have had.
        named: keywords; or tensors, of whose names the first part counts.

    Raises:
        ValueError: an option that is gone had another value.
    """
    table: dict[str, Any] = getattr(kind, "renamed", {})
    now = dict[str, T]()
    for name, value in named.items():
        first, dot, rest = name.partition(".")
        new = table.get(first, first)
        if not isinstance(new, str) and value != new:
            raise ValueError(f"{first} can only be {new} now, got {value}")
        if new and isinstance(new, str):
            now[new + dot + rest] = value
    return now


def write_checkpoint(
    path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    """Write tensors with facts in the file's own JSON header, in one atomic file."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **facts})
    write_atomic(path, save(_plain(tensors), metadata={"facts": text}))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what `write_checkpoint` wrote.

    Raises:
        DataError: the file cannot be read; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as wrong:
        raise DataError(
            f"{path} is not a checkpoint that can be read ({wrong}); it was cut short or "
            "altered. Delete it and train again."
        ) from wrong
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise DataError(
            f"{path} was not written as a checkpoint by this version. "
            "Give another file, or delete it and train again."
        )
    return tensors, facts


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as a file takes them: on the CPU, none a part of another."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
