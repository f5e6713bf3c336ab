"""Which candidates are tried, in an order that may be cut anywhere.

Candidates come in blocks (one chemical system or composition with its polymorphs), the
blocks are shuffled, so a build that stops early is a fair sample of the whole plan.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

from pymatgen.core import Composition

from databuild import perovskite
from databuild.candidates import Candidate, Prototype, library
from databuild.chemistry import (
    ANIONS,
    CATIONS,
    RARE,
    TABLES,
    balanced,
    by_charge,
    entries,
)

Block = list[Candidate]


def perovskite_plan(seed: int = 1) -> list[Candidate]:
    """Cubic crystals of every composition; of one in twelve also up to seven children."""
    rng = random.Random(seed)
    universe, famous = perovskite.compositions(), entries("perovskites")
    rng.shuffle(universe)
    plan: Block = []
    for k, (a, b, x) in enumerate(universe):
        roles = (("A", a), ("B", b), ("X", x))
        kinds = ["cubic"]
        if k % 12 == 0 or [a, b, x] in famous:
            kinds += ["P4mm", "I4mcm", "R-3c", "R3m", "Pnma"]
            kinds += ["Imma", "P4mbm"] if k % 12 or k % 24 == 0 else []
        plan += [Candidate(f"perovskite-{kind}", roles) for kind in kinds]
    return plan


def prototype_plan(seed: int = 2) -> list[Candidate]:
    """The plan of the `prototypes` set, without repeats: three quarters charge-balanced."""
    rng = random.Random(seed)
    pool = list(library().values())
    blocks = _binary_systems(pool, rng, 330)
    blocks += _ternary_compositions(pool, rng)
    blocks += _scattered(pool, rng, 5200)
    blocks += _metal_systems(pool, rng, 130)
    blocks += _elements(pool, rng)
    rng.shuffle(blocks)
    blocks = _namesakes(pool) + _famous(pool, rng) + blocks
    ordered: dict[str, Candidate] = {}
    for candidate in itertools.chain.from_iterable(blocks):
        ordered.setdefault(candidate.identity, candidate)
        if candidate.kind == "ionic" and rng.random() < 0.04:
            rattled = Candidate(candidate.prototype, candidate.substitution, "rattled")
            if _size(library()[candidate.prototype]) <= 8:
                ordered.setdefault(rattled.identity, rattled)
    return list(ordered.values())


def _size(prototype: Prototype) -> int:
    return len(prototype.structure)


def _draw(pool: Sequence[Prototype], count: int, rng: random.Random) -> list[Prototype]:
    """Prototypes without repeats, small cells first: weight 1 / n_atoms."""
    rest = list(pool)
    out: list[Prototype] = []
    while rest and len(out) < count:
        weights = [1 / _size(p) for p in rest]
        out.append(rest.pop(rng.choices(range(len(rest)), weights)[0]))
    return out


def _pick(symbols: Sequence[str], rng: random.Random) -> str:
    """One symbol; rare ones are drawn a third as often."""
    while True:
        symbol = rng.choice(symbols)
        if symbol not in RARE or rng.random() < 1 / 3:
            return symbol


def _assignments(
    prototype: Prototype, charges: dict[str, int]
) -> Iterator[tuple[tuple[str, str], ...]]:
    """Ways to put the elements of `charges` on the roles that balance."""
    roles, amounts = prototype.roles, prototype.amounts
    for symbols in itertools.permutations(charges, len(roles)):
        named = {s: amounts[r] for r, s in zip(roles, symbols, strict=True)}
        if balanced(charges, named):
            yield tuple(zip(roles, symbols, strict=True))


def _binary_systems(
    pool: Sequence[Prototype], rng: random.Random, count: int
) -> list[Block]:
    """Cation-anion systems, each with many prototypes at every balanced formula."""
    binary = [p for p in pool if len(p.roles) == 2 and _size(p) <= 12]
    cations = [s for s in CATIONS if s not in ("C", "S", "Se", "Te", "P", "As")]
    systems = dict.fromkeys(
        tuple(name.split("-")) for name in TABLES["binaries"].split()
    )
    while len(systems) < count:
        systems[_pick(cations, rng), _pick(list(ANIONS), rng)] = None
    blocks = []
    for cation, anion in systems:
        block: Block = []
        for charge in CATIONS[cation]:
            charges = {cation: charge, anion: ANIONS[anion][0]}
            fitting = [p for p in binary if any(_assignments(p, charges))]
            for prototype in _draw(fitting, 7, rng):
                pairs = rng.choice(list(_assignments(prototype, charges)))
                block.append(Candidate(prototype.label, pairs))
        blocks.append(block)
    return blocks


def _namesakes(pool: Sequence[Prototype]) -> list[Block]:
    """Every charge-balanced prototype with its own elements, but no carbon."""
    blocks: list[Block] = []
    for prototype in pool:
        roles = prototype.roles
        states = [CATIONS.get(role, ()) + ANIONS.get(role, ()) for role in roles]
        named = (dict(zip(roles, q, strict=True)) for q in itertools.product(*states))
        if any(len(q) > 1 and balanced(q, prototype.amounts) for q in named):
            pairs = tuple((role, role) for role in roles)
            blocks.append([Candidate(prototype.label, pairs)])
    return blocks


def _famous(pool: Sequence[Prototype], rng: random.Random) -> list[Block]:
    """Well known ternary compounds with every prototype of their formula."""
    blocks: list[Block] = []
    for words in entries("ternaries"):
        target = Composition("".join(words))
        block: Block = []
        for prototype in pool:
            if prototype.stoichiometry != target.anonymized_formula:
                continue
            for symbols in itertools.permutations(e.symbol for e in target):
                pairs = tuple(zip(prototype.roles, symbols, strict=True))
                amounts = {s: prototype.amounts[r] for r, s in pairs}
                if Composition(amounts).reduced_formula == target.reduced_formula:
                    block.append(Candidate(prototype.label, pairs))
        blocks.append(rng.sample(block, min(len(block), 14)))
    return blocks


def _ternary_compositions(pool: Sequence[Prototype], rng: random.Random) -> list[Block]:
    """Ternary compositions, each with several prototypes and both assignments."""
    blocks = []
    for stoichiometry, count in TABLES["drawn"].items():
        alike = [p for p in pool if p.stoichiometry == stoichiometry]
        family = [p for p in alike if _size(p) <= 16]
        for _ in range(count):
            first = rng.choice(family)
            pairs, charges = _balanced_draw(first, rng)
            if not pairs:
                continue
            block: Block = []
            for prototype in _draw(family, 4, rng):
                ways = list(_assignments(prototype, charges))
                for way in rng.sample(ways, min(len(ways), 2)):
                    block.append(Candidate(prototype.label, way))
            blocks.append(block)
    return blocks


def _balanced_draw(
    prototype: Prototype, rng: random.Random
) -> tuple[tuple[tuple[str, str], ...], dict[str, int]]:
    """A random balanced substitution, or nothing after 400 tries.

    Signs are drawn too: two anions on a ternary prototype make a mixed-anion crystal.
    """
    roles, amounts = prototype.roles, prototype.amounts
    charges_known = [q for q in by_charge() if q < 5 or rng.random() < 0.5]
    for _ in range(400):
        charge = {role: rng.choice(charges_known) for role in roles}
        if sum(charge[r] * amounts[r] for r in roles) != 0:
            continue
        symbols = {role: _pick(by_charge()[charge[role]], rng) for role in roles}
        if len(set(symbols.values())) < len(roles):
            continue
        charges = {symbols[r]: charge[r] for r in roles}
        if balanced(charges, {symbols[r]: amounts[r] for r in roles}):
            return tuple(sorted(symbols.items())), charges
    return (), {}


def _scattered(
    pool: Sequence[Prototype], rng: random.Random, count: int
) -> list[Block]:
    """Single crystals over all prototypes that balance, small cells more often."""
    several = [p for p in pool if len(p.roles) >= 2]
    several = [p for p in several if _balanced_draw(p, rng)[0]]
    weights = [(4 if len(p.roles) > 2 else 1) * _size(p) ** -0.75 for p in several]
    blocks: list[Block] = []
    while len(blocks) < count:
        prototype = rng.choices(several, weights)[0]
        pairs, _ = _balanced_draw(prototype, rng)
        if pairs:
            blocks.append([Candidate(prototype.label, pairs)])
    return blocks


def _metal_systems(
    pool: Sequence[Prototype], rng: random.Random, count: int
) -> list[Block]:
    """Systems of two metals at several formulas, and ternary Heusler-like crystals."""
    metals = TABLES["metals"].split()
    small = [p for p in pool if len(p.roles) == 2 and _size(p) <= 9]
    formulas = ("AB", "AB2", "AB3", "A2B3", "AB5", "AB4")
    blocks: list[Block] = []
    for _ in range(count):
        first, second = rng.sample(metals, 2)
        block: Block = []
        for formula, number in zip(formulas, (4, 3, 3, 1, 1, 1), strict=True):
            family = [p for p in small if p.stoichiometry == formula]
            for prototype in _draw(family, number, rng):
                symbols = rng.sample((first, second), 2)
                pairs = tuple(zip(prototype.roles, symbols, strict=True))
                block.append(Candidate(prototype.label, pairs, kind="metallic"))
        blocks.append(block)
    three = [p for p in pool if len(p.roles) == 3 and _size(p) <= 6]
    for _ in range(2 * count):
        prototype = rng.choice(three)
        pairs = tuple(zip(prototype.roles, rng.sample(metals, 3), strict=True))
        blocks.append([Candidate(prototype.label, pairs, kind="metallic")])
    return blocks


def _elements(pool: Sequence[Prototype], rng: random.Random) -> list[Block]:
    """Elements in a few small structure types; carbon is left out (slow)."""
    simple = [p for p in pool if len(p.roles) == 1 and _size(p) <= 4]
    skip = {"C", "H", "N", "O", "F", "Cl"}
    return [
        [
            Candidate(p.label, ((p.roles[0], symbol),), kind="element")
            for p in _draw(simple, 5, rng)
        ]
        for symbol in TABLES["elements"].split()
        if symbol not in skip
    ]
