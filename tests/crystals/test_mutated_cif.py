"""Damaged CIFs with what must hold of each: `python tests/crystals/test_mutated_cif.py 500`.

A mutation that keeps the meaning must give the same crystal. Any other must be refused, or
give a crystal that agrees with what the damaged text states, as another parser reads it:
its cell, its listed sites, its formula and Z. One mutation alone may never cost an atom.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.io.cif import CifFile, CifWriter, str2float

from matdesign.crystals.io.cif import parse_cif
from matdesign.errors import DataError


@dataclass(frozen=True)
class Mutant:
    """A damaged text: the crystal that it was, what was done, and whether it matters."""

    name: str
    text: str
    whole: Structure
    kinds: tuple[str, ...]
    harmless: bool


def originals() -> list[tuple[str, str, Structure]]:
    """Return (name, text, crystal): with and without operators, several groups."""
    made = []
    for symbol, cell, species, points in (
        ("Fm-3m", (5.64, 5.64, 5.64, 90, 90, 90), "NaCl", [[0, 0, 0], [0.5, 0.5, 0.5]]),
        (
            "P4_2/mnm",
            (4.6, 4.6, 2.96, 90, 90, 90),
            "TiO",
            [[0, 0, 0], [0.305] * 2 + [0]],
        ),
        (
            "R-3c",
            (4.76, 4.76, 12.99, 90, 90, 120),
            "AlO",
            [[0, 0, 0.352], [0.306, 0, 0.25]],
        ),
        (
            "P2_1/c",
            (4.1, 5.2, 6.3, 90, 101, 90),
            "SiN",
            [[0.1, 0.2, 0.3], [0.6, 0.4, 0.1]],
        ),
        ("Fd-3m", (5.43, 5.43, 5.43, 90, 90, 90), "Si", [[0.125] * 3]),
        (
            "P1",
            (4.1, 5.2, 6.3, 81, 94, 103),
            "LiO",
            [[0.1, 0.2, 0.3], [0.9, 0.35, 0.6]],
        ),
    ):
        kinds = re.findall("[A-Z][a-z]?", species)
        lattice = Lattice.from_parameters(*cell)
        whole = Structure.from_spacegroup(symbol, lattice, kinds, points)
        made.append((f"{symbol} listed", str(CifWriter(whole)), whole))
        if symbol == "P1":
            continue
        text = str(CifWriter(whole, symprec=0.01))
        made.append((f"{symbol} operators", text, whole))
        bare = re.sub(r"loop_\s+_symmetry_equiv.*?(?=loop_)", "", text, flags=re.DOTALL)
        if symbol != "Fd-3m":  # the writer means origin choice 1, and does not say so
            made.append((f"{symbol} by its symbol", bare, whole))
    return made


# ---- mutations -----------------------------------------------------------------------

Mutation = Callable[[list[str], random.Random], list[str]]


def _delete(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines))
    return lines[:at] + lines[at + 1 :]


def _duplicate(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines))
    return [*lines[:at], lines[at], *lines[at:]]


def _swap(lines: list[str], rng: random.Random) -> list[str]:
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    made = list(lines)
    made[a], made[b] = made[b], made[a]
    return made


def _truncate(lines: list[str], rng: random.Random) -> list[str]:
    text = "\n".join(lines)
    return text[: rng.randrange(len(text))].split("\n")


def _flip(lines: list[str], rng: random.Random) -> list[str]:
    text = "\n".join(lines)
    at = rng.randrange(len(text))
    odd = "0123456789.-+_'\"#;$? \n,xyzHOCNabZ()/\N{MINUS SIGN}\xe9\t"
    return (text[:at] + rng.choice(odd) + text[at + 1 :]).split("\n")


def _number(lines: list[str], rng: random.Random) -> list[str]:
    text = "\n".join(lines)
    found = list(re.finditer(r"(?<![\w.])-?\d+\.?\d*(?![\w.])", text))
    if not found:
        return lines
    one = rng.choice(found)
    new = rng.choice(["0", "1", "2", "0.25", "-1", "90", "120", "1e9", "nan", "0.5(1)"])
    return (text[: one.start()] + new + text[one.end() :]).split("\n")


def _drop_loop(lines: list[str], rng: random.Random) -> list[str]:
    starts = [i for i, line in enumerate(lines) if line.strip() == "loop_"]
    start = rng.choice(starts or [0])
    end = min([i for i in starts if i > start], default=len(lines))
    return lines[:start] + lines[end:]


def _drop_word(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines))
    words = lines[at].split()
    if words:
        words.pop(rng.randrange(len(words)))
    return [*lines[:at], " ".join(words), *lines[at + 1 :]]


def _comment(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines) + 1)
    return [*lines[:at], "# loop_ data_y \xe9", "", *lines[at:]]


def _capitals(lines: list[str], rng: random.Random) -> list[str]:
    return [re.sub(r"(?<!\S)_\S+", lambda m: m[0].upper(), line) for line in lines]


def _returns(lines: list[str], rng: random.Random) -> list[str]:
    return [line + "\r" for line in lines]


def _dashes(lines: list[str], rng: random.Random) -> list[str]:
    return [
        re.sub(r"(?<=\s)0\.(\d+)", r"1.\1(3)", x) if "  1" in x else x for x in lines
    ]


def _dotted(lines: list[str], rng: random.Random) -> list[str]:
    return [line.replace("_cell_", "_cell.") for line in lines]


HARMFUL: list[Mutation] = [
    *(_delete, _duplicate, _swap, _truncate, _flip, _number, _drop_loop, _drop_word)
]
HARMLESS: list[Mutation] = [_comment, _capitals, _returns, _dashes, _dotted]


def mutants(count: int, seed: int = 0) -> Iterator[Mutant]:
    """Yield damaged texts: one in eight harmless, half of the rest damaged twice."""
    rng = random.Random(seed)
    whole = originals()
    for i in range(count):
        name, text, crystal = rng.choice(whole)
        harmless = i % 8 == 0
        lines = text.split("\n")
        kinds = []
        for _ in range(1 if harmless else rng.choice([1, 2])):
            mutate = rng.choice(HARMLESS if harmless else HARMFUL)
            if len(lines) > 1:
                lines = mutate(lines, rng)
            kinds.append(mutate.__name__[1:])
        yield Mutant(name, "\n".join(lines), crystal, tuple(kinds), harmless)


# ---- what must hold ------------------------------------------------------------------


def judge(one: Mutant) -> tuple[str, str]:
    """Return ("refused" | "right" | "wrong", why)."""
    try:
        found = parse_cif(one.text, "x.cif", 1000)
    except DataError as error:
        return ("wrong" if one.harmless else "refused"), str(error)
    except Exception as error:
        return "wrong", f"another error: {error!r}"
    if len(found) != 1:
        return "wrong", f"{len(found)} crystals"
    made = found[0][1]
    if one.harmless:
        return ("right", "") if _same(made, one.whole) else ("wrong", "another crystal")
    why = _disagrees(one.text, made)
    if not why and len(one.kinds) == 1 and len(made) < len(one.whole):
        why = f"{len(made)} atoms of {len(one.whole)}"
    return ("wrong", why) if why else ("right", "")


def _near(made: Structure, symbol: str, point: np.ndarray) -> bool:
    """Return whether an atom of the element lies within 0.06 angstrom of a point."""
    own = [site.frac_coords for site in made if site.specie.symbol == symbol]
    apart = np.array(own).reshape(-1, 3) - point
    far = np.linalg.norm((apart - apart.round()) @ made.lattice.matrix, axis=1)
    return bool((far < 0.06).any())


def _same(made: Structure, whole: Structure) -> bool:
    cells = np.allclose(made.lattice.parameters, whole.lattice.parameters, atol=1e-4)
    return (
        cells
        and made.composition == whole.composition
        and all(_near(made, s.specie.symbol, s.frac_coords) for s in whole)
    )


def _disagrees(text: str, made: Structure) -> str:
    """Return how a crystal disagrees with its text, as pymatgen's tokens have it."""
    plain = text.replace("\N{MINUS SIGN}", "-")
    try:
        blocks = [b.data for b in CifFile.from_str(plain).data.values()]
    except ZeroDivisionError:  # of pymatgen, where a loop has no columns
        return ""
    tags = {k.lower().replace(".", "_"): v for b in blocks for k, v in b.items()}
    cell = [float(str2float(tags[f"_cell_length_{a}"])) for a in "abc"]
    if not np.allclose(cell, made.lattice.abc, atol=1e-4):
        return f"cell {made.lattice.abc}, but the text says {cell}"
    points = [[str2float(v) for v in tags[f"_atom_site_fract_{a}"]] for a in "xyz"]
    kinds = tags.get("_atom_site_type_symbol", tags.get("_atom_site_label"))
    for kind, point in zip(kinds, np.array(points, float).T):
        symbol = re.match("[A-Z][a-z]?", kind)[0]
        if not _near(made, "H" if symbol == "D" else symbol, point):
            return f"{kind} at {point} is in the text, and not in the crystal"
    said = str(tags.get("_chemical_formula_sum", ""))
    if re.fullmatch(r"([A-Z][a-z]?[0-9]*\s*)+", said):
        try:
            stated = Composition(said)
        except ValueError:
            return ""
        if stated.reduced_formula != made.composition.reduced_formula:
            return f"{made.composition} against {said}"
        units = str(tags.get("_cell_formula_units_z", ""))
        if units.isdigit():
            reduced = made.composition.get_reduced_composition_and_factor()[1]
            whole = stated.num_atoms == len(made) and int(units) == 1
            if int(reduced) != int(units) and not whole:
                return f"Z is {reduced}, but the text says {units}"
    return ""


def test_a_damaged_cif_is_refused_or_right() -> None:
    counts: Counter[str] = Counter()
    for one in mutants(120):
        verdict, why = judge(one)
        assert verdict != "wrong", f"{one.name}, {one.kinds}: {why}\n{one.text}"
        counts[verdict] += 1
    assert min(counts["right"], counts["refused"]) > 20


@pytest.mark.slow
def test_many_damaged_cifs_are_refused_or_right() -> None:
    for one in mutants(500, seed=1):
        verdict, why = judge(one)
        assert verdict != "wrong", f"{one.name}, {one.kinds}: {why}\n{one.text}"


def main() -> None:
    """Judge many mutants; print counts and every wrong one."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    counts: Counter[str] = Counter()
    slowest = 0.0
    for i, one in enumerate(mutants(count)):
        begun = time.perf_counter()
        verdict, why = judge(one)
        slowest = max(slowest, time.perf_counter() - begun)
        counts[verdict] += 1
        if verdict == "wrong":
            print(f"{i}: {one.name}, {' and '.join(one.kinds)}: {why}")
    print(", ".join(f"{k} {v}" for k, v in sorted(counts.items())))
    print(f"slowest {slowest:.2f} s")


if __name__ == "__main__":
    main()
