"""An oracle from a Python function or a formula: any number that a crystal has."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from matdesign.errors import DataError
from matdesign.loop.jobs import FunctionJob, Job, Outcome, Plain
from matdesign.loop.worker_oracle import WorkerOracle
from matdesign.loop.workers import TaskFailed

if TYPE_CHECKING:
    from pymatgen.core import Structure

QUANTITIES: dict[str, Callable[[Structure], float]] = {
    "volume": lambda one: float(one.volume),
    "density": lambda one: float(one.density),
    "mass": lambda one: float(one.composition.weight),
    "n_atoms": len,
}
"""What a formula can use, in angstrom^3, g/cm^3, u and atoms of the cell."""

FUNCTIONS: dict[str, Callable[..., float]] = {
    "sqrt": math.sqrt, "exp": math.exp, "log": math.log, "abs": abs, "min": min, "max": max
}  # fmt: skip

OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Pow: operator.pow, ast.USub: operator.neg,
}  # fmt: skip


class FunctionOracle(WorkerOracle):
    """What a function says of a crystal, or a formula.

    Args:
        function: takes a pymatgen `Structure` and gives a number, a pair (number,
            standard deviation), or a dict of these by column; or a formula such as
            `"(volume / n_atoms - 12)**2 + Cu"` of volume, density, mass, n_atoms and,
            by symbols of elements, atomic fractions. Where it fails or is not a number,
            the crystal is a failed row.
        columns: name -> unit of each value.
        name: with a version, since equal names must give equal numbers; that of the
            function or the formula where left out; a lambda or `partial` needs one.
        workers: processes with a time limit; 0 computes in this process, without one.
        time_limit: seconds per crystal.

    Raises:
        DataError: the formula is none, there is no column, or a lambda or `partial` has no name.

    Example:
        >>> FunctionOracle("volume / n_atoms", {"volume_per_atom": "angstrom^3"})
        FunctionOracle(volume / n_atoms)
    """

    def __init__(
        self,
        function: Callable[[Structure], Any] | str,
        columns: Mapping[str, str],
        *,
        name: str | None = None,
        workers: int = 0,
        time_limit: float = 60.0,
    ) -> None:
        if not columns:
            raise DataError("a function has columns: give them as {name: unit}.")
        super().__init__(
            workers=max(workers, 1),
            time_limit=time_limit,
            batch=1,
            guards=None,
            hull=None,
            memory_limit=None,
            executor=None,
        )
        self.function = function
        self._columns = dict(columns)
        self._here = not workers
        self._compute = _formula(function) if isinstance(function, str) else function
        text = (
            function if isinstance(function, str) else getattr(function, "__name__", "")
        )
        self.label = name or text or type(function).__name__
        if self.label in ("<lambda>", "partial"):
            raise DataError(f"a {self.label} has no name of its own: give `name=`.")

    @property
    def columns(self) -> dict[str, str]:
        """Name -> unit of what the function gives."""
        return self._columns

    @property
    def name(self) -> str:
        """What was given, or the function's own name."""
        return self.label

    def job(self) -> Job:
        """The function, with its failures as words."""
        return FunctionJob(self._compute, tuple(self._columns))

    def to_dict(self) -> dict[str, Any] | None:
        """Return what makes this oracle again; None for a function."""
        if not isinstance(self.function, str):
            return None
        workers = 0 if self._here else self.workers
        words = {
            "function": self.function,
            "columns": self._columns,
            "name": self.label,
        }
        return {**words, "workers": workers, "time_limit": self.time_limit}

    @classmethod
    def from_dict(cls, words: dict[str, Any]) -> FunctionOracle:
        """Return the oracle of `to_dict`."""
        return cls(**words)

    def _computed(
        self, items: list[Plain]
    ) -> Iterator[tuple[int, Outcome | TaskFailed]]:
        if not self._here:
            return super()._computed(items)
        job = self.job()
        return ((k, job([item])[0]) for k, item in enumerate(items))


def _formula(text: str) -> Callable[[Structure], float]:
    """Return a formula as a function of a crystal; only arithmetic is understood."""
    from pymatgen.core import Element

    def known(name: str) -> float:
        if name not in QUANTITIES and not Element.is_valid_symbol(name):
            raise LookupError(name)
        return 1.0

    try:
        tree = ast.parse(text, mode="eval").body
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id not in FUNCTIONS:
                known(node.id)
        _value(tree, known)
    except (ArithmeticError, ValueError):
        pass  # it is a formula, without a value for these numbers
    except (SyntaxError, AttributeError, LookupError, TypeError):
        raise DataError(
            f"not a formula: got {text!r}. Use numbers, + - * / **, "
            f"{', '.join(FUNCTIONS)}, {', '.join(QUANTITIES)} and symbols of elements; "
            "or give a function."
        ) from None

    def compute(structure: Structure) -> float:
        content = structure.composition
        return _value(
            tree,
            lambda name: (
                QUANTITIES[name](structure)
                if name in QUANTITIES
                else content.get_atomic_fraction(name)
            ),
        )

    return compute


def _value(node: Any, named: Callable[[str], float]) -> float:
    """Return the value of a part of a formula."""
    kind = type(node)
    if kind is ast.Constant and type(node.value) in (int, float):
        return float(node.value)
    if kind is ast.Name:
        return named(node.id)
    if kind is ast.Call:
        return FUNCTIONS[node.func.id](*(_value(one, named) for one in node.args))
    parts = (node.operand,) if kind is ast.UnaryOp else (node.left, node.right)
    return OPERATORS[type(node.op)](*(_value(one, named) for one in parts))
