"""The one engine behind the tables of models: sample, evaluate, count."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.metrics.evaluator import Evaluation, evaluate
from matdesign.paths import data_dir


@dataclass(frozen=True)
class Sample:
    """Crystals of one model, what is known of them and what they cost.

    Args:
        made: the crystals.
        judged: each by the published protocol.
        seconds: for all of them.
    """

    made: Crystals
    judged: Evaluation
    seconds: float

    @property
    def evaluations(self) -> int:
        """Network evaluations, all together."""
        return int(self.made.info.get("network_evaluations") or 0)

    def count(self, flag: str) -> int:
        """Return how many crystals have a flag of the evaluation's table."""
        return int(self.judged.table[flag].sum())


def sampled(
    model: Generator, n: int, train: Crystals | None = None, **settings: Any
) -> Sample:
    """Return n crystals of a model, timed and judged.

    Args:
        model: any generator.
        n: how many.
        train: the training set, for novelty.
        **settings: of `model.sample`.
    """
    start = time.perf_counter()
    made = model.sample(n, **settings)
    seconds = time.perf_counter() - start
    return Sample(made, evaluate(made, train), seconds)


def recorded(name: str, script: str) -> Any:
    """Return figures that a script measured before, from `data/measured`.

    Args:
        name: of the file, without its ending.
        script: what makes it, in words of a command.

    Raises:
        DataError: the file is not there: the data folder is incomplete.
    """
    path = data_dir() / "measured" / f"{name}.json"
    if not path.is_file():
        raise DataError(
            f"no measured table at {path}. Run scripts/{script} --output {path.name}, or "
            "take the data folder of a release."
        )
    return json.loads(path.read_text())


def source(run: dict[str, Any]) -> str:
    """Return the command, machine and day of a measured table."""
    return f"{run['command']} ({run['hardware']}, {run['written']})"
