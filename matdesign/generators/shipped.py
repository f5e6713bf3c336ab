"""Trained generators that come with the package, and where any shipped weights lie."""

import difflib
import json
from pathlib import Path

from matdesign.errors import DataError
from matdesign.generators import storage
from matdesign.generators.contract import Generator
from matdesign.paths import data_dir

NETWORK = "PropertyNetwork"


class Models(dict[str, str]):
    """The trained weights at hand: name -> what it makes; print it."""

    def __repr__(self) -> str:
        if not self:
            return "no trained models here; train one with `python scripts/train.py`"
        wide = max(map(len, self))
        return "\n".join(f"{name:<{wide}}  {about}" for name, about in self.items())


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
    folder = weights_folder(name, predicting=False)
    model = Generator.load(folder)
    model.record.setdefault("name", folder.name)
    return model


def weights_folder(name: str | Path, *, predicting: bool) -> Path:
    """Return the folder of some weights.

    Args:
        name: a folder that was saved, or the name of a shipped one.
        predicting: the name is that of a property network, not of a generator.

    Raises:
        DataError: no such weights; the message says how to get them.
    """
    plain = "/" not in str(name) and str(name) not in ("", ".", "..")
    shipped = data_dir() / "models" / str(name)
    for folder in [Path(name).expanduser(), *([shipped] if plain else [])]:
        if (folder / storage.FACTS).is_file():
            return folder
    names = sorted(listed(predicting=predicting))
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise DataError(
        f"no model {str(name)!r}: {shipped / storage.WEIGHTS} is missing. {hint}Known: "
        f"{', '.join(names)}; or give a folder that was saved. Weights of the repository "
        "are restored by `git checkout -- data/models`, others trained with "
        "`python scripts/train.py`."
    )


def listed(*, predicting: bool) -> Models:
    """Return the shipped folders that hold generators, or those of property networks."""
    paths = sorted((data_dir() / "models").glob(f"*/{storage.FACTS}"))
    about = {path.parent.name: _describe(path.parent) for path in paths}
    right = {
        n: text for n, text in about.items() if text.startswith(NETWORK) == predicting
    }
    return Models(right)


def _describe(folder: Path) -> str:
    """Return one line about a saved model, from its facts alone."""
    try:
        facts = json.loads((folder / storage.FACTS).read_bytes())
        record = facts.get("record", {})
        if facts["class"] == NETWORK:
            return f"{NETWORK} of {', '.join(facts['config']['properties'])}"
        count = sum(facts["config"]["size_histogram"])
        data = f" of {record['data']}" if "data" in record else ""
        trained = f"{record['steps']:,} steps" if "steps" in record else "untrained"
        return f"{facts['class']} on {count:,} crystals{data}; {trained}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"cannot be read: {folder / storage.FACTS}"
