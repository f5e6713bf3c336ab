"""`check_constraint`: whether a constraint keeps what a guide relies on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint, listing
from matdesign.constraints.checking_steps import MASK_SITES, slope_errors, walks
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import wrap
from matdesign.errors import DataError

Verdict = Literal["passed", "failed", "loose", "none", "untested"]
"""What a check found. loose: right, but a guide draws more often; none: not offered."""

NEAR = 1e-3
"""Largest relative change of a violation that counts as the same."""


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
    checks: dict[str, Callable[[], tuple[Verdict, str]]] = {
        "has a sentence and a unit": lambda: _words(constraint),
        "violation: shape, >= 0, no NaN": lambda: _values(constraint, crystals),
        "satisfied where violation is 0": lambda: _agree(constraint, crystals),
        "each crystal alone": lambda: _alone(constraint, crystals),
        **{
            f"same after {name}": partial(_same, constraint, crystals, moved)
            for name, moved in _rewritten(crystals, rng).items()
        },
        "undecided reading is 0 where met": lambda: _soft(constraint, crystals),
        "gradient": lambda: _gradient(constraint, crystals, rng),
        "mask keeps what meets it": lambda: _keeps(constraint, crystals, rng),
        "mask leads to what meets it": lambda: _leads(constraint, crystals, rng),
        "projection arrives": lambda: _projection(constraint, crystals),
        "reward is highest where met": lambda: _reward(constraint, crystals),
    }
    rows = []
    for name, look in checks.items():
        try:
            verdict, detail = look()
        except Exception as problem:  # somebody's own code may fail in any way
            verdict, detail = "failed", f"raised {type(problem).__name__}: {problem}"
        rows.append(Finding(name, verdict, detail))
    return Findings(_sentence(constraint), tuple(rows))


def _sentence(one: Constraint) -> str:
    try:
        return str(one.sentence())
    except Exception:
        return type(one).__name__


def _words(one: Constraint) -> tuple[Verdict, str]:
    words = one.sentence()
    if not isinstance(words, str) or not words.strip() or not one.unit:
        return "failed", f"sentence {words!r}, unit {one.unit!r}"
    return "passed", f"in {one.unit}"


def _values(one: Constraint, crystals: Crystals) -> tuple[Verdict, str]:
    v = one.violation(crystals)
    if v.shape != (len(crystals),):
        return "failed", f"shape {tuple(v.shape)} for {len(crystals)} crystals"
    bad = v.isnan() | (v < 0)
    if bool(bad.any()):
        return "failed", _first(crystals, bad, v)
    return "passed", f"from {float(v.min()):.3g} to {float(v.max()):.3g} {one.unit}"


def _agree(one: Constraint, crystals: Crystals) -> tuple[Verdict, str]:
    v, met = one.violation(crystals), one.satisfied(crystals)
    if met.shape != (len(crystals),) or met.dtype != torch.bool:
        return "failed", f"satisfied gives {met.dtype}, shape {tuple(met.shape)}"
    wrong = met != (v == 0)
    if bool(wrong.any()):
        return "failed", _first(crystals, wrong, v, met)
    count = int(met.sum())
    if count in (0, len(crystals)):
        return "untested", f"{count} of {len(crystals)} meet it; give some of both"
    return "passed", f"{count} of {len(crystals)} meet it"


def _alone(one: Constraint, crystals: Crystals) -> tuple[Verdict, str]:
    few = crystals[:20]
    v = torch.cat([one.violation(few[[i]]) for i in range(len(few))])
    met = torch.cat([one.satisfied(few[[i]]) for i in range(len(few))])
    return _compare(one, few, v, met)


def _rewritten(crystals: Crystals, rng: torch.Generator) -> dict[str, Crystals]:
    """Return the crystals written down in other ways."""
    order = torch.rand(crystals.mask.shape, generator=rng) - 2.0 * crystals.mask
    order = order.argsort(1)
    shift = torch.rand(len(crystals), 1, 3, generator=rng)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=rng))[0]
    turn = turn * torch.linalg.det(turn).sign()
    extra = crystals.species.new_zeros(len(crystals), 2)
    blank = crystals.frac.new_zeros(len(crystals), 2, 3)
    place = order[..., None].expand(-1, -1, 3)
    return {
        "reordering sites": crystals.replace(
            species=crystals.species.gather(1, order),
            frac=crystals.frac.gather(1, place),
        ),
        "shifting all sites": crystals.replace(
            frac=wrap(crystals.frac + shift) * crystals.mask[..., None]
        ),
        "rotating the crystal": crystals.replace(lattice=crystals.lattice @ turn),
        "adding empty sites": crystals.replace(
            species=torch.cat([crystals.species, extra], 1),
            frac=torch.cat([crystals.frac, blank], 1),
        ),
    }


def _same(one: Constraint, crystals: Crystals, moved: Crystals) -> tuple[Verdict, str]:
    return _compare(one, crystals, one.violation(moved), one.satisfied(moved))


def _compare(
    one: Constraint, crystals: Crystals, v: Tensor, met: Tensor
) -> tuple[Verdict, str]:
    """Compare answers with those for the crystals as they stand."""
    before, held = one.violation(crystals), one.satisfied(crystals)
    near = torch.isclose(before, v.to(before), rtol=NEAR, atol=NEAR * one.scale)
    # at the very edge of a range rounding decides, and nothing else
    edge = torch.maximum(before, v.to(before)) < NEAR * one.scale
    wrong = ~near | ((met != held) & ~edge)
    if bool(wrong.any()):
        k = int(wrong.long().argmax())
        words = (
            f"{crystals.formulas[k]}: {float(before[k]):.4g}, then {float(v[k]):.4g}"
        )
        return "failed", f"{words} {one.unit}"
    return "passed", f"{len(crystals)} crystals"


def _soft(one: Constraint, crystals: Crystals) -> tuple[Verdict, str]:
    v, hard = one.violation(crystals.soft()), one.violation(crystals)
    if v.shape != hard.shape or bool((v.isnan() | (v < 0)).any()):
        return "failed", f"shape {tuple(v.shape)}, or a value below 0 or NaN"
    wrong = (hard == 0) & (v.to(hard) > NEAR * one.scale)
    if bool(wrong.any()):
        return "failed", _first(crystals, wrong, v, one.satisfied(crystals))
    same = torch.isclose(v.to(hard), hard, rtol=NEAR, atol=NEAR * one.scale)
    return "passed", f"the same number for {int(same.sum())} of {len(hard)}"


def _gradient(
    one: Constraint, crystals: Crystals, rng: torch.Generator
) -> tuple[Verdict, str]:
    worst, used, tried = slope_errors(one, crystals, rng)
    if worst and max(worst.values()) > 0.02:
        field = max(worst, key=worst.__getitem__)
        return "failed", f"by {field}: off by {worst[field]:.0%} of the slope"
    if not used:
        return "none", "a guide can use particles, masks or reject"
    return "passed", f"by {listing(used)}; {tried} slopes"


def _keeps(
    one: Constraint, crystals: Crystals, rng: torch.Generator
) -> tuple[Verdict, str]:
    small = crystals[crystals.n_atoms <= MASK_SITES]
    met = one.satisfied(small)
    if one.allowed(small.species[:1], small.mask[:1].long()) is None:
        return "none", "nothing to say about elements"
    good = small[met]
    if not len(good):
        return "untested", "no small crystal meets it"
    hide = (torch.rand(good.mask.shape, generator=rng) < 0.5) & good.mask
    hidden = good.species.masked_fill(hide, MASK)
    found = one.allowed(hidden, good.mask.long())
    assert found is not None
    own = found.gather(2, good.species[..., None])[..., 0] | ~good.mask
    if not bool(own.all()):
        return "failed", f"forbids {good.formulas[int((~own.all(1)).long().argmax())]}"
    return "passed", f"{len(good)} crystals with half their sites hidden"


def _leads(
    one: Constraint, crystals: Crystals, rng: torch.Generator
) -> tuple[Verdict, str]:
    small = crystals[crystals.n_atoms <= MASK_SITES][:40]
    if one.allowed(small.species[:1], small.mask[:1].long()) is None:
        return "none", "nothing to say about elements"
    made, lost, refused = walks(one, small, rng)
    tried = f"{len(small) - refused} crystals filled at random"
    missed = lost + int((~one.satisfied(made)).sum())
    if refused == len(small):
        return "untested", "the mask left nothing from the start"
    if missed:
        return "loose", f"{missed} of {tried} ended in a miss"
    return "passed", tried


def _projection(one: Constraint, crystals: Crystals) -> tuple[Verdict, str]:
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


def _reward(one: Constraint, crystals: Crystals) -> tuple[Verdict, str]:
    reward, met = one.reward(crystals), one.satisfied(crystals)
    if reward.shape != met.shape or bool(reward.isnan().any()):
        return "failed", f"shape {tuple(reward.shape)}, or NaN"
    if not bool(met.any()) or bool(met.all()):
        return "untested", "give crystals of both kinds"
    if float(reward[~met].max()) >= float(reward[met].min()):
        return "failed", "a crystal that misses has as much as one that meets it"
    return "passed", f"1 nat costs {one.scale:g} {one.unit}"


def _first(
    crystals: Crystals, wrong: Tensor, v: Tensor, met: Tensor | None = None
) -> str:
    """Return the first wrong crystal, in words."""
    k = int(wrong.long().argmax())
    said = "" if met is None else f", satisfied says {bool(met[k])}"
    return f"{crystals.formulas[k]}: violation {float(v[k]):.4g}{said}"
