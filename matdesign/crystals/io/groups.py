"""Which operators a CIF means by its lists, symbols and number, and in what setting."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import gemmi
import numpy as np

from matdesign.crystals.symmetry.find import settings
from matdesign.errors import DataError

Array = np.ndarray[Any, Any]

_LISTS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_MAGNETIC = "_space_group_symop_magn_operation_xyz"
_CENTRINGS = "_space_group_symop_magn_centering_xyz"
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_SYMBOLS = (
    "_space_group_name_h-m_alt",
    "_space_group_name_h-m_full",
    "_space_group_name_h-m",
    "_symmetry_space_group_name_h-m",
)
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")


@dataclass(frozen=True)
class Group:
    """The operators of one space group in one setting, centring included.

    Args:
        name: what to call it in messages.
        number: 1 to 230; 0 where it cannot be told.
        tabulated: whether the tables have this setting.
        triplets: the operators as text, such as "-x,y+1/2,z".
        rotations: shape (operations, 3, 3); x -> R x + t on fractional coordinates.
        translations: shape (operations, 3), in [0, 1).
    """

    name: str
    number: int
    tabulated: bool
    triplets: frozenset[str]
    rotations: Array
    translations: Array


def groups(tags: dict[str, list[str]], name: str) -> list[Group]:
    """Return the groups that a data block may mean, the likeliest first.

    A list of operators is one group, and so is a Hall symbol. Another symbol or a
    number without a setting may be several: origin choice 2 comes before 1, hexagonal
    before rhombohedral axes, unique axis b before c and a. The cell, and what else the
    file states, choose among them.

    Args:
        tags: data name -> values, as `cif` collects them.
        name: what to call the file in messages.

    Raises:
        DataError: a group that cannot be resolved, or operators, symbols and number
            that contradict each other.

    Source:
        Tables, and parsers of triplets and symbols: gemmi (Wojdyr 2022, JOSS 7, 4200).
    """
    if _MAGNETIC in tags:  # operators x centrings, time left out
        ops, shifts = (
            [",".join(value.split(",")[:3]) for value in tags.get(tag, ["x,y,z"])]
            for tag in (_MAGNETIC, _CENTRINGS)
        )
        return [_listed(ops, shifts, name)]
    listed = [v for tag in _LISTS for v in tags.get(tag, []) if v not in "?."]
    hall, symbol, number = (
        _first(tags, names) for names in (_HALL, _SYMBOLS, _NUMBERS)
    )
    said = [
        [_listed(listed, ["x,y,z"], name)] if listed else [],
        _of_hall(hall) if hall else [],
        _of_symbol(symbol) if symbol else [],
        _of_symbol(number) if number else [],
    ]
    found = next((one for one in said if one), [])
    if not found:
        _check_nothing_stated(tags, name)
        return [_listed(["x,y,z"], ["x,y,z"], name)]
    for other in said:
        if not other:
            continue
        shared = {g.triplets for g in found} & {g.triplets for g in other}
        # a number says no setting; a basis or origin that no table has, no symbol can
        any_setting = other is said[3] or not found[0].tabulated
        if other[0].number != found[0].number or not (shared or any_setting):
            raise DataError(
                f"{name} contradicts itself about its space group: {found[0].name} (no. "
                f"{found[0].number}), but also {other[0].name} (no. {other[0].number}). "
                "Correct one of them, or export the file in P1 with all atoms."
            )
    return found


def misfit(group: Group, rows: Array) -> float:
    """Return how much the operators change the metric of a cell.

    Equation:
        largest |R^T G R - G|_ij / sqrt(G_ii G_jj), with G the metric tensor; 0.01 is
        half a percent of a length, or 0.6 degrees.
    """
    metric = rows @ rows.T
    scale = np.sqrt(np.outer(np.diag(metric), np.diag(metric)))
    turned = np.einsum("nki,kl,nlj->nij", group.rotations, metric, group.rotations)
    return float((np.abs(turned - metric) / scale).max())


def _first(tags: dict[str, list[str]], names: tuple[str, ...]) -> str:
    """Return the first value that is given under one of several names, or ""."""
    values = (tags[tag][0] for tag in names if tag in tags)
    return next((value for value in values if value not in ("?", ".", "")), "")


def _check_nothing_stated(tags: dict[str, list[str]], name: str) -> None:
    """Refuse a symmetry that is stated in a way which says no group."""
    for tag, values in tags.items():
        about = ("_symmetry_", "_space_group_", "_parent_space_group_")
        if tag.startswith(about) and not set(values) <= {"?", "."}:
            raise DataError(
                f"{name}: its space group cannot be resolved: got `{tag}` "
                f"{values[0]!r}. Write the symbol as in the International Tables, such "
                "as 'F d -3 m :2', or list the operators."
            )


def _op(triplet: str, name: str) -> gemmi.Op:
    try:
        return gemmi.Op(triplet.lower())
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{name}: the operator {triplet!r} cannot be read ({error}). Correct it, or "
            "export the file again."
        ) from error


def _listed(triplets: list[str], shifts: list[str], name: str) -> Group:
    """Return the group of listed operators x shifts; a list that is no group is refused."""
    ops = [_op(b, name) * _op(a, name) for b in shifts for a in triplets]
    whole = gemmi.GroupOps(ops)
    try:
        whole.add_missing_elements()
    except RuntimeError:  # more than any space group has
        whole = gemmi.GroupOps([])
    if {op.wrap().triplet() for op in whole} != {op.wrap().triplet() for op in ops}:
        raise DataError(
            f"{name}: its {len(ops)} operators do not form a group: some are missing or "
            "wrong. Fetch or export the file again."
        )
    return _group(ops)


def _of_hall(hall: str) -> list[Group]:
    try:
        return [_group(gemmi.symops_from_hall(hall), f"{hall} (Hall)")]
    except (RuntimeError, ValueError):
        return []


@cache
def _of_symbol(symbol: str) -> list[Group]:
    """Return the settings of the tables that a symbol or a number may mean."""
    return [_group(one.operations(), one.xhm()) for one in settings(symbol)]


def _group(ops: Iterable[gemmi.Op], name: str = "") -> Group:
    """Return operators as a group, each once; without a name, as the tables call it."""
    import spglib

    once = {op.triplet(): op for op in (op.wrap() for op in ops)}
    rotations = np.array([op.rot for op in once.values()]) // 24
    translations = np.array([op.tran for op in once.values()]) / 24
    found = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(list(once.values())))
    known = found is not None and len(once) == len(list(found.operations()))
    if known:
        name, number = name or found.xhm(), found.number
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its way of errors
            kind = spglib.get_spacegroup_type_from_symmetry(rotations, translations)
        number = 0 if kind is None else kind.number
        name = name or f"its {len(once)} operators"
    return Group(name, number, known, frozenset(once), rotations, translations)
