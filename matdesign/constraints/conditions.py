"""The conditions that several constraints set a generator, joined into one set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matdesign.crystals.elements import is_pattern, parse_formula, parse_pattern
from matdesign.crystals.symmetry.find import spacegroup_number
from matdesign.errors import InfeasibleTarget


def merged(several: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return one set of conditions that asks for what each of several asks for.

    Lists of space groups or crystal systems are cut down to what they share; a formula
    stands for a pattern that it has.

    Args:
        several: what `Constraint.conditions` returns.

    Raises:
        InfeasibleTarget: two of them exclude each other.

    Example:
        >>> merged([{"spacegroup": [221, 225]}, {"spacegroup": 225, "n_atoms": 2}])
        {'spacegroup': [225], 'n_atoms': 2}
    """
    found: dict[str, Any] = {}
    for one in several:
        for name, value in one.items():
            if name not in found:
                found[name] = value
            elif name == "composition":
                found[name] = _formula(found[name], value)
            elif name == "n_atoms":
                if found[name] != value:
                    raise _clash(name, found[name], value)
            else:
                found[name] = _shared(name, found[name], value)
    return found


def _formula(*both: str) -> str:
    """Return the narrower of two compositions."""
    one, other = sorted(both, key=is_pattern)  # a formula first
    parse = parse_pattern if is_pattern(one) else parse_formula
    if is_pattern(other) and not is_pattern(one):
        counts = tuple(sorted(parse_formula(one).values(), reverse=True))
        same = counts == parse_pattern(other)
    else:
        same = parse(one) == parse(other)
    if not same:
        raise _clash("composition", *both)
    return one


def _shared(name: str, one: Any, other: Any) -> list[Any]:
    ones, others = _listed(one), _listed(other)
    if name == "spacegroup":  # a number and a symbol may name the same
        ones, others = ([*map(spacegroup_number, some)] for some in (ones, others))
    left = [value for value in ones if value in others]
    if not left:
        raise _clash(name, one, other)
    return left


def _listed(value: Any) -> Sequence[Any]:
    return [value] if isinstance(value, str | int) else list(value)


def _clash(name: str, one: Any, other: Any) -> InfeasibleTarget:
    return InfeasibleTarget(
        f"two constraints ask for different values of {name}: {one} and {other}. "
        "Drop one of them."
    )
