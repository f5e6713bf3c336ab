"""`check_constraint`: whether a constraint keeps what a guide relies on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint, listing
from matdesign.constraints.unfinished import Orbits
from matdesign.crystals.batch import Crystals, SoftCrystals, generator
from matdesign.crystals.elements import MASK, MAX_Z
from matdesign.crystals.geometry import wrap
from matdesign.errors import DataError

Verdict = Literal["passed", "failed", "loose", "none", "untested"]
"""What a check found. loose: right, but a guide draws more often; none: not offered."""

Found = tuple[Verdict, str]

NEAR = 1e-3
"""Largest relative change of a violation that counts as the same."""

MASK_SITES = 8
"""Most atoms of a cell on which masks are tried."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: what was asked.
        verdict: see `Verdict`.
        detail: on which crystal it failed and how, or how many were tried.
    """

    check: str
    verdict: Verdict
    detail: str


@dataclass(frozen=True)
class Findings:
    """All checks of one constraint; prints as a table, true where none failed.

    Args:
        constraint: its sentence.
        rows: one for each check.
    """

    constraint: str
    rows: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The checks that failed."""
        return tuple(row.check for row in self.rows if row.verdict == "failed")

    def __bool__(self) -> bool:
        return not self.failed

    def __repr__(self) -> str:
        lines = [f"{self.constraint}: {len(self.failed)} checks failed"]
        lines += [f"  {r.verdict:<9}{r.check:<34}{r.detail}" for r in self.rows]
        return "\n".join(lines)


def check_constraint(
    constraint: Constraint, crystals: Crystals, *, seed: int = 0
) -> Findings:
    """Return whether a constraint keeps its promises, tried on real crystals.

    What a guide relies on, whatever the family: `satisfied` and `violation` agree;
    neither depends on how a crystal is written down or on its neighbours in a batch;
    gradients are those of finite differences; masks never forbid a crystal that meets
    the constraint; projections arrive. Give crystals of which some meet the constraint
    and some do not: on others most promises are empty.

    Args:
        constraint: a single one.
        crystals: finished crystals; 20 to 200 are enough.
        seed: of permutations, shifts, directions and hidden sites.

    Returns:
        A table that prints, and is true where no check failed.

    Raises:
        DataError: the first argument is not a constraint, or there are no crystals.

    Accuracy:
        Tests, not proofs. Slopes are compared within 2 %, points at which the slope
        jumps are left out; masks are tried on cells of at most 8 atoms.

    Example:
        >>> import matdesign as design
        >>> train = design.load("perovskites", split="train")[:60]
        >>> bool(check_constraint(design.Density(3, 6), train))
        True
    """
    if not isinstance(constraint, Constraint):
        raise DataError(
            f"check_constraint needs a constraint; got {constraint!r}. Write a class "
            "with violation, satisfied and sentence, and give one of its objects."
        )
    if not len(crystals):
        raise DataError("check_constraint got no crystals; give 20 to 200 real ones.")
    rng = generator(seed)
    checks: dict[str, Callable[[], Found]] = {
        "violation: shape, >= 0, no NaN": lambda: _values(constraint, crystals),
        "satisfied where violation is 0": lambda: _agree(constraint, crystals),
        "each crystal alone": lambda: _alone(constraint, crystals[:20]),
        **{
            f"same after {name}": partial(_same, constraint, crystals, moved)
            for name, moved in _rewritten(crystals, rng).items()
        },
        "undecided reading is 0 where met": lambda: _soft(constraint, crystals),
        "gradient": lambda: _gradient(constraint, crystals[:40], rng),
        "mask keeps what meets it": lambda: _keeps(constraint, crystals, rng),
        "mask leads to what meets it": lambda: _leads(constraint, crystals, rng),
        "projection arrives": lambda: _projection(constraint, crystals),
    }
    rows = []
    for name, look in checks.items():
        try:
            verdict, detail = look()
        except Exception as problem:  # somebody's own code may fail in any way
            verdict, detail = "failed", f"raised {type(problem).__name__}: {problem}"
        rows.append(Finding(name, verdict, detail))
    return Findings(constraint.sentence(), tuple(rows))


def _values(one: Constraint, crystals: Crystals) -> Found:
    v = one.violation(crystals)
    if v.shape != (len(crystals),):
        return "failed", f"shape {tuple(v.shape)} for {len(crystals)} crystals"
    bad = v.isnan() | (v < 0)
    if bool(bad.any()):
        return "failed", _first(crystals, bad, v)
    return "passed", f"from {float(v.min()):.3g} to {float(v.max()):.3g} {one.unit}"


def _agree(one: Constraint, crystals: Crystals) -> Found:
    v, met = one.violation(crystals), one.satisfied(crystals)
    if met.shape != (len(crystals),) or met.dtype != torch.bool:
        return "failed", f"satisfied gives {met.dtype}, shape {tuple(met.shape)}"
    wrong = met != (v == 0)
    if bool(wrong.any()):
        said = bool(met[int(wrong.long().argmax())])
        return "failed", f"{_first(crystals, wrong, v)}, satisfied says {said}"
    count = int(met.sum())
    if count in (0, len(crystals)):
        return "untested", f"{count} of {len(crystals)} meet it; give some of both"
    return "passed", f"{count} of {len(crystals)} meet it"


def _rewritten(crystals: Crystals, rng: torch.Generator) -> dict[str, Crystals]:
    """Return the crystals written down in other ways."""
    order = torch.rand(crystals.mask.shape, generator=rng) - 2.0 * crystals.mask
    order = order.argsort(1)
    shift = torch.rand(len(crystals), 1, 3, generator=rng)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=rng))[0]
    turn = turn * torch.linalg.det(turn).sign()
    pad = torch.nn.functional.pad
    return {
        "reordering sites": crystals.replace(
            species=crystals.species.gather(1, order),
            frac=crystals.frac.gather(1, order[..., None].expand(-1, -1, 3)),
        ),
        "shifting all sites": crystals.replace(
            frac=wrap(crystals.frac + shift) * crystals.mask[..., None]
        ),
        "rotating the crystal": crystals.replace(lattice=crystals.lattice @ turn),
        "adding empty sites": crystals.replace(
            species=pad(crystals.species, (0, 2)), frac=pad(crystals.frac, (0, 0, 0, 2))
        ),
    }


def _alone(one: Constraint, crystals: Crystals) -> Found:
    each = [crystals[[i]] for i in range(len(crystals))]
    v = torch.cat([one.violation(some) for some in each])
    return _compare(one, crystals, v, torch.cat([one.satisfied(some) for some in each]))


def _same(one: Constraint, crystals: Crystals, moved: Crystals) -> Found:
    return _compare(one, crystals, one.violation(moved), one.satisfied(moved))


def _compare(one: Constraint, crystals: Crystals, v: Tensor, met: Tensor) -> Found:
    """Compare answers with those for the crystals as they stand."""
    before, met_before = one.violation(crystals), one.satisfied(crystals)
    near = torch.isclose(before, v.to(before), rtol=NEAR, atol=NEAR * one.scale)
    # at the very edge of a range rounding decides, and nothing else
    edge = torch.maximum(before, v.to(before)) < NEAR * one.scale
    wrong = ~near | ((met != met_before) & ~edge)
    if bool(wrong.any()):
        k = int(wrong.long().argmax())
        return "failed", f"{_first(crystals, wrong, before)}, then {float(v[k]):.4g}"
    return "passed", f"{len(crystals)} crystals"


def _soft(one: Constraint, crystals: Crystals) -> Found:
    v, hard = one.violation(crystals.soft()), one.violation(crystals)
    if v.shape != hard.shape or bool((v.isnan() | (v < 0)).any()):
        return "failed", f"shape {tuple(v.shape)}, or a value below 0 or NaN"
    wrong = (hard == 0) & (v.to(hard) > NEAR * one.scale)
    if bool(wrong.any()):
        return "failed", _first(crystals, wrong, v)
    return "passed", f"{int((hard == 0).sum())} crystals that meet it"


def _gradient(one: Constraint, crystals: Crystals, rng: torch.Generator) -> Found:
    """Compare gradients with differences to both sides along a random way.

    Elements are made undecided first, so that their probabilities may move.
    """
    soft = crystals.soft()
    known, there = soft.species.flatten(0, 1).any(0), soft.mask[..., None]
    other = torch.rand(soft.species.shape, generator=rng, dtype=torch.float64) * known
    p = 0.7 * soft.species.double() + 0.3 * other / other.sum(-1, keepdim=True)
    start = [p * there, soft.frac.double(), soft.lattice.double()]
    way = [torch.randn(x.shape, generator=rng, dtype=x.dtype) for x in start]
    way[0] = way[0] * (start[0] > 0)  # probabilities keep their sum
    way[0] = way[0] - start[0] * way[0].sum(-1, keepdim=True)
    way[1] = way[1] * there

    def violation(fields: list[Tensor]) -> Tensor:
        return one.violation(SoftCrystals(fields[0], fields[1], fields[2], soft.mask))

    leaves = [x.clone().requires_grad_() for x in start]
    found: tuple[Tensor | None, ...] = (None,) * 3
    with torch.enable_grad():
        v = violation(leaves)
        if v.requires_grad:
            found = torch.autograd.grad(v.sum(), leaves, allow_unused=True)
    grads = [torch.zeros_like(x) if g is None else g for x, g in zip(start, found)]
    here, h = v.detach(), 1e-6 if v.dtype == torch.float64 else 1e-3
    right = (violation([x + h * w for x, w in zip(start, way)]) - here) / h
    left = (here - violation([x - h * w for x, w in zip(start, way)])) / h
    each = [(g * w).flatten(1).sum(1) for g, w in zip(grads, way, strict=True)]
    slope = torch.stack(each).sum(0).to(here)
    size = right.abs().maximum(left.abs()).maximum(slope.abs())
    smooth = here.isfinite() & ((right - left).abs() <= 0.01 * size + 1e-9)
    off, largest = (slope - (right + left) / 2).abs()[smooth], size[smooth]
    if len(off) and largest.max() > 1e-6 and off.max() > 0.02 * largest.max():
        return "failed", f"off by {off.max() / largest.max():.0%} of the slope"
    names = ("species", "coordinates", "cell")
    used = [name for name, g in zip(names, grads, strict=True) if bool(g.any())]
    if not used:
        return "none", "a guide can use particles, masks or reject"
    return "passed", f"by {listing(used)}; {len(off)} slopes"


def _keeps(one: Constraint, crystals: Crystals, rng: torch.Generator) -> Found:
    small = crystals[crystals.n_atoms <= MASK_SITES]
    if one.allowed(Orbits(small.species[:1], small.mask[:1].long())) is None:
        return "none", "nothing to say about elements"
    good = small[one.satisfied(small)]
    if not len(good):
        return "untested", "no small crystal meets it"
    hide = (torch.rand(good.mask.shape, generator=rng) < 0.5) & good.mask
    hidden = good.species.masked_fill(hide, MASK)
    found = one.allowed(Orbits(hidden, good.mask.long()))
    assert found is not None
    own = found.gather(2, good.species[..., None])[..., 0] | ~good.mask
    if not bool(own.all()):
        return "failed", f"forbids {good.formulas[int((~own.all(1)).long().argmax())]}"
    return "passed", f"{len(good)} crystals with half their sites hidden"


def _leads(one: Constraint, crystals: Crystals, rng: torch.Generator) -> Found:
    """Fill crystals one site after the other with what the mask allows at random."""
    small = crystals[crystals.n_atoms <= MASK_SITES][:40]
    there = small.mask
    within = torch.zeros(MAX_Z + 1, dtype=torch.bool)
    within[small.species[there]] = True
    species = torch.where(there, MASK, 0)
    alive = torch.ones(len(small), dtype=torch.bool)
    for site in range(there.shape[1]):
        found = one.allowed(Orbits(species, there.long(), within=within))
        if found is None:
            return "none", "nothing to say about elements"
        alive &= found[:, site].any(1) | ~there[:, site]
        if not site:
            begun = int(alive.sum())
        rows = (there[:, site] & alive).nonzero().squeeze(1)
        if len(rows):
            drawn = torch.multinomial(found[rows, site].double(), 1, generator=rng)
            species[rows, site] = drawn.squeeze(1)
    made = Crystals(species[alive], small.frac[alive], small.lattice[alive])
    missed = begun - int(one.satisfied(made).sum())
    tried = f"{begun} crystals filled at random"
    if not begun:
        return "untested", "the mask left nothing from the start"
    return (
        ("loose", f"{missed} of {tried} ended in a miss")
        if missed
        else ("passed", tried)
    )


def _projection(one: Constraint, crystals: Crystals) -> Found:
    soft = crystals.soft()
    moved = one.project(soft)
    if moved is None:
        return "none", "no exact projection"
    before, after = one.violation(soft), one.violation(moved)
    left = after > NEAR * (one.scale + before)
    if bool(left.any()):
        return "failed", _first(crystals, left, after)
    pairs = ((moved.lattice, soft.lattice), (moved.frac, soft.frac))
    stay = [torch.isclose(a, b, atol=1e-5).flatten(1).all(1) for a, b in pairs]
    stray = (before == 0) & ~(stay[0] & stay[1])
    if bool(stray.any()):
        return "failed", f"moves {crystals.formulas[int(stray.long().argmax())]}, met"
    return "passed", f"{int((before > 0).sum())} moved, {int((before == 0).sum())} left"


def _first(crystals: Crystals, wrong: Tensor, v: Tensor) -> str:
    """Return the first wrong crystal, in words."""
    k = int(wrong.long().argmax())
    return f"{crystals.formulas[k]}: violation {float(v[k]):.4g}"
