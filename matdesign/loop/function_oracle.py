"""An oracle from a Python function: any number that a crystal has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from matdesign.errors import DataError
from matdesign.loop.jobs import FunctionJob, Job, Outcome
from matdesign.loop.worker_oracle import WorkerOracle, label
from matdesign.loop.workers import TaskFailed

if TYPE_CHECKING:
    from pymatgen.core import Structure


class FunctionOracle(WorkerOracle):
    """What a function says of a crystal.

    Args:
        function: takes a pymatgen `Structure` and gives a number, a pair (number,
            standard deviation), or a dict of these by column. Where it fails or is not
            a number, the crystal is a failed row.
        columns: name -> unit of each value.
        name: with a version, since equal names must give equal numbers; that of the
            function where left out; a lambda has none and needs one.
        workers: processes with a time limit; 0 computes in this process, without one.
        time_limit: seconds per crystal.

    Raises:
        DataError: it is no function, there is no column, or a lambda has no name.

    Example:
        >>> def volume_per_atom(structure):
        ...     return structure.volume / len(structure)
        >>> FunctionOracle(volume_per_atom, {"volume_per_atom": "angstrom^3"})
        FunctionOracle(volume_per_atom)
    """

    def __init__(
        self,
        function: Callable[[Structure], Any],
        columns: Mapping[str, str],
        *,
        name: str | None = None,
        workers: int = 0,
        time_limit: float = 60.0,
    ) -> None:
        if not callable(function) or not columns:
            raise DataError(
                "needed are a function of a structure and its columns as {name: unit}; "
                f"got {function!r} and {columns!r}."
            )
        super().__init__(workers=max(workers, 1), time_limit=time_limit)
        self.function, self.name = function, label(function, name)
        self._columns, self._here = dict(columns), not workers

    @property
    def columns(self) -> dict[str, str]:
        """Name -> unit of what the function gives."""
        return self._columns

    def job(self) -> Job:
        """The function, with its failures as words."""
        return FunctionJob(self.function, tuple(self._columns))

    def _computed(
        self, items: list[Structure]
    ) -> Iterator[tuple[int, Outcome | TaskFailed]]:
        if not self._here:
            return super()._computed(items)
        job = self.job()
        return ((k, job([item])[0]) for k, item in enumerate(items))
