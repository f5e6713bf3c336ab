"""Which operators a CIF means by its symbols, number and lists, and in what setting."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import gemmi
import numpy as np

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

_SUFFIX = re.compile(
    r"\s*(?::\s*|\s[(]?origin\s*(?:choice)?\s*|(?<=\s)(?=[HRSZ]$))([12HRSZ])[)]?$",
    re.IGNORECASE,
)
"""What may follow a symbol: ":2", "(origin choice 2)", and " H", " R", " S", " Z"."""

_EXTENSION = {"S": "1", "Z": "2"}
"""The database ICSD calls origin choice 1 S and choice 2, at a centre, Z."""


@dataclass(frozen=True)
class Group:
    """The operators of one space group in one setting, centring included.

    Args:
        name: what to call it in messages.
        number: 1 to 230; 0 where the list of operators is of a magnetic group.
        rotations: shape (operations, 3, 3); x -> R x + t on fractional coordinates.
        translations: shape (operations, 3), in [0, 1).
    """

    name: str
    number: int
    rotations: Array
    translations: Array

    @property
    def key(self) -> frozenset[bytes]:
        """The operators as a set, to compare two groups."""
        whole = np.concatenate(
            [self.rotations.reshape(-1, 9), self.translations * 24], axis=1
        )
        return frozenset(row.tobytes() for row in np.round(whole).astype(np.int8))


def groups(tags: dict[str, list[str]], name: str) -> list[Group]:
    """Return the groups that a data block may mean, the likeliest first.

    A list of operators is one group. A symbol without a setting may be several: origin
    choice 2 comes before 1, hexagonal before rhombohedral axes, unique axis b before c
    and a. The cell and what else the file states choose among them.

    Args:
        tags: data name -> values, as `cif` collects them.
        name: what to call the file in messages.

    Raises:
        DataError: a group that cannot be resolved, or symbol, number and operators that
            contradict each other.

    Source:
        Tables and parsers of symbols, Hall symbols and triplets: gemmi (Wojdyr 2022,
        JOSS 7, 4200).
    """
    symbol, hall, number = (_first(tags, names) for names in (_SYMBOLS, _HALL, _NUMBERS))
    if _MAGNETIC in tags:
        return [_listed(_magnetic(tags), name)]
    listed = next((tags[tag] for tag in _LISTS if tag in tags), None)
    if listed is not None and not set(listed) <= {"?", "."}:
        made = _listed(listed, name)
        named = _named(symbol, hall, number, name, strict=False)
        _compare(made, named, name)
        return [made]
    named = _named(symbol, hall, number, name, strict=True)
    if named:
        return named
    for tag, values in tags.items():
        about = tag.startswith(("_symmetry_", "_space_group_", "_cell_modulation_"))
        if about and not set(values) <= {"?", "."}:
            raise DataError(
                f"{name} states a symmetry that cannot be resolved: it has `{tag}` "
                f"({values[0]}), but no symbol, number or list of operators that "
                "says which. Add one, or export the file in P1 with all atoms."
            )
    return [_listed(["x,y,z"], name)]


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
    for tag in names:
        if tag in tags and tags[tag][0] not in ("?", ".", ""):
            return tags[tag][0]
    return ""


def _magnetic(tags: dict[str, list[str]]) -> list[str]:
    """Return the operators of a magnetic group x its centrings, time left out."""

    def plain(triplets: list[str]) -> list[gemmi.Op]:
        return [_op(",".join(one.split(",")[:3])) for one in triplets]

    shifts = plain(tags.get(_CENTRINGS, ["x,y,z"]))
    return [(shift * op).triplet() for shift in shifts for op in plain(tags[_MAGNETIC])]


def _op(triplet: str) -> gemmi.Op:
    try:
        return gemmi.Op(triplet.strip().lower())
    except (RuntimeError, ValueError) as error:
        raise DataError(f"the operator {triplet!r} cannot be read ({error})") from error


def _listed(triplets: list[str], name: str) -> Group:
    """Return the group of a list of operators; a list that is no group is refused."""
    try:
        ops = list({op.triplet(): op for op in (_op(t).wrap() for t in triplets)}.values())
    except DataError as error:
        raise DataError(f"{name}: {error}. Correct it, or export the file again.") from None
    rotations = np.array([op.rot for op in ops]) // 24
    translations = np.array([op.tran for op in ops])
    if len(ops) > 192 or not _closed(rotations, translations):
        raise DataError(
            f"{name}: its {len(ops)} operators do not form a group: some are missing or "
            "wrong. Fetch or export the file again."
        )
    number = _number_of(ops, rotations, translations)
    return Group(f"of its {len(ops)} operators", number, rotations, translations / 24)


def _closed(rotations: Array, translations: Array) -> bool:
    """Return whether operators hold the identity and all of their products."""
    turned = np.einsum("aij,bjk->abik", rotations, rotations).reshape(-1, 9)
    moved = np.einsum("aij,bj->abi", rotations, translations) + translations[:, None]
    own = np.concatenate([rotations.reshape(-1, 9), translations], axis=1)
    products = np.concatenate([turned, moved.reshape(-1, 3) % 24], axis=1)
    known = {row.tobytes() for row in own.astype(np.int64)}
    return {row.tobytes() for row in products.astype(np.int64)} <= known


def _number_of(ops: list[gemmi.Op], rotations: Array, translations: Array) -> int:
    """Return the number of a group's type, also in settings that no table has."""
    import spglib

    found = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(ops))
    if found is not None:
        return int(found.number)
    kind = spglib.get_spacegroup_type_from_symmetry(rotations, translations / 24)
    return int(kind.number) if kind is not None else 0


def _named(
    symbol: str, hall: str, number: str, name: str, *, strict: bool
) -> list[Group]:
    """Return the groups of a Hall symbol, a Hermann-Mauguin symbol or a number."""
    found: list[Group] = []
    said = f"symbol {symbol!r}" if symbol else f"number {number}"
    if hall:
        try:
            found = [_tabulated(gemmi.symops_from_hall(hall), f"{hall} (Hall)")]
        except (RuntimeError, ValueError):
            said = f"Hall symbol {hall!r}"
    if not found and (symbol or number):
        found = [
            _tabulated(one.operations(), one.xhm()) for one in _settings(symbol or number)
        ]
    if strict and not found and (symbol or number or hall):
        raise DataError(
            f"{name}: its space group cannot be resolved: got the {said}. Write it as "
            "in the International Tables, such as 'F d -3 m :2', or list the operators."
        )
    if found and (number or symbol):
        numbers = {one.number for one in _settings(symbol)} if symbol else set()
        stated = numbers | ({int(number)} if number.isdigit() else {-1} if number else set())
        if stated and stated != {found[0].number}:
            raise DataError(
                f"{name} contradicts itself about its space group: symbol {symbol!r}, "
                f"Hall symbol {hall!r}, number {number!r}. Correct what is wrong."
            )
    return found


@cache
def _settings(symbol: str) -> list[gemmi.SpaceGroup]:
    """Return the settings of the tables that a symbol or a number may mean."""
    plain = symbol.replace("_", "")
    suffix = _SUFFIX.search(plain)
    wanted = ""
    if suffix:
        plain = plain[: suffix.start()]
        wanted = _EXTENSION.get(suffix[1].upper(), suffix[1].upper())
    full = re.sub(r"(?<= )(?:21?/|4[1-3]?/(?=. -?3))", "", plain)  # 4/n 2/m 2/m
    base = gemmi.find_spacegroup_by_name(plain) or gemmi.find_spacegroup_by_name(full)
    short = re.sub(r"\s", "", plain).lower()
    table = [
        one
        for one in gemmi.spacegroup_table()
        if (base is not None and one.hm == base.hm)
        or (3 <= one.number <= 15 and _short(one) == short)
    ]
    table = [one for one in table if wanted in ("", one.ext)]
    return sorted(table, key=lambda one: "2H1R\x00".index(one.ext))


def _short(one: gemmi.SpaceGroup) -> str:
    """Return a monoclinic symbol without the axes that carry no symmetry."""
    return "".join(word for word in one.hm.split() if word != "1").lower()


def _tabulated(ops: gemmi.GroupOps, name: str) -> Group:
    flat = [op.wrap() for op in ops]
    rotations = np.array([op.rot for op in flat]) // 24
    translations = np.array([op.tran for op in flat])
    number = _number_of(flat, rotations, translations)
    return Group(name, number, rotations, translations / 24)


def _compare(made: Group, named: list[Group], name: str) -> None:
    """Refuse operators of another group, or of another setting, than the symbol's."""
    if not named or made.key in {one.key for one in named}:
        return
    ops = [gemmi.Op(t) for t in _triplets(made)]
    other = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(ops))
    if made.number == named[0].number and other is None:
        return  # a basis or an origin that no symbol can name
    raise DataError(
        f"{name} contradicts itself: its symbol or number says {named[0].name} (no. "
        f"{named[0].number}), but its {len(ops)} operators are those of "
        f"{other.xhm() if other else 'another setting'} (no. {made.number}). Correct "
        "one of them, or export the file in P1 with all atoms."
    )


def _triplets(group: Group) -> list[str]:
    made = []
    for rotation, shift in zip(group.rotations, group.translations):
        op = gemmi.Op("x,y,z")
        op.rot = (rotation * 24).tolist()
        op.tran = np.round(shift * 24).astype(int).tolist()
        made.append(op.triplet())
    return made
