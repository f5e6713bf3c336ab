"""Trained generators that come with the package, and where any shipped weights lie."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from matdesign.errors import DataError
from matdesign.generators import storage
from matdesign.generators.contract import Generator
from matdesign.paths import data_dir

DATA = {
    "prototypes": "inorganic crystals of 75 elements, 1-20 atoms",
    "perovskites": "ABX3 perovskites and their distorted children",
    "mp20": "inorganic crystals of reduced MP-20, 1-20 atoms",
}
"""What the shipped weights were trained on."""

NETWORK = "PropertyNetwork"
FAMILIES = ("autoregressive", "coupling-flow", "diffusion", "flow-matching", "vae")

KNOWN = {f"{family}-{data}": DATA[data] for data in DATA for family in FAMILIES} | {
    "diffusion-prototypes-cell": DATA["prototypes"]
}
"""Models that a complete checkout holds, and what they make."""


@dataclass(frozen=True)
class Models:
    """The trained weights at hand; print it.

    Args:
        names: what `load_model` accepts.
        about: name -> what it makes and where it comes from.
    """

    names: tuple[str, ...]
    about: dict[str, str]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __repr__(self) -> str:
        if not self.names:
            return "no trained models here; train one with `python scripts/train.py`"
        wide = max(map(len, self.names))
        return "\n".join(f"{name:<{wide}}  {self.about[name]}" for name in self.names)


def models() -> Models:
    """Return the trained generators that `load_model` can load by name.

    Example:
        >>> import matdesign as design
        >>> "diffusion-prototypes" in design.models()
        True
    """
    return listed(predicting=False)


def load_model(name: str | Path) -> Generator:
    """Return a trained generator, ready to sample, on the CPU.

    Args:
        name: one of `models()`, or a folder that `model.save` wrote.

    Raises:
        DataError: no such model; weights missing, cut short or altered. The message names
            the file and says how to get it.

    Example:
        >>> import matdesign as design
        >>> design.load_model("diffusion-prototypes").sample(2, seed=0, steps=5).n_atoms.shape
        torch.Size([2])
    """
    folder = weights_folder(name, KNOWN, predicting=False)
    model = Generator.load(folder)
    model.record.setdefault("name", folder.name)
    return model


def weights_folder(name: str | Path, known: Iterable[str], *, predicting: bool) -> Path:
    """Return the folder of some weights.

    Args:
        name: a folder that was saved, or the name of a shipped one.
        known: names that a complete checkout holds.
        predicting: look among the property networks, not among the generators.

    Raises:
        DataError: no such weights; the message says how to get them.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and (folder / storage.FACTS).is_file():
        return folder
    shipped = data_dir() / "models" / str(name)
    plain = "/" not in str(name) and str(name) not in ("", ".", "..")
    if plain and (shipped / storage.FACTS).is_file():
        return shipped
    if str(name) in known:
        raise DataError(
            f"the weights of {name} are missing: {shipped / storage.WEIGHTS}. Restore the "
            f"folder from the repository (`git checkout -- data/models/{name}`), or train "
            "them with `python scripts/train.py`."
        )
    names = sorted({*listed(predicting=predicting).names, *known})
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise DataError(
        f"no model {str(name)!r}. {hint}Known: {', '.join(names)}; or give a folder that "
        "was saved."
    )


def listed(*, predicting: bool) -> Models:
    """Return the shipped folders that hold generators, or those of property networks."""
    root = data_dir() / "models"
    about = {
        p.parent.name: _describe(p.parent) for p in root.glob(f"*/{storage.FACTS}")
    }
    names = [n for n in sorted(about) if about[n].startswith(NETWORK) == predicting]
    return Models(tuple(names), {name: about[name] for name in names})


def _describe(folder: Path) -> str:
    """Return one line about a saved model, from its facts alone."""
    try:
        facts = json.loads((folder / storage.FACTS).read_bytes())
        record = facts.get("record", {})
        if facts["class"] == NETWORK:
            what = ", ".join(facts["config"]["properties"])
            return f"{NETWORK} of {what}"
        counts = facts["config"]["size_histogram"]
        about = KNOWN.get(folder.name, f"{sum(counts):,} crystals")
        trained = f"{record['steps']:,} steps" if "steps" in record else "untrained"
        return f"{facts['class']} on {about}; {trained}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"cannot be read: {folder / storage.FACTS}"
