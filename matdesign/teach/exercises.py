"""Checks for the book's exercises: they name the input that failed, never the answer.

A check is made of a right answer and of inputs (`exercise`), or, where the answer may
differ from ours, of cases that are judged one by one (`checked`). It ends in a verdict,
whatever it is given.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

Case = tuple[str, tuple[Any, ...], Callable[[Any], str]]
"""Which input in words, the arguments, and the judge of the answer."""

Inputs = Mapping[str, tuple[Any, ...]] | Iterable[tuple[Any, ...]]
"""Arguments of each call, by name or not."""


@dataclass(frozen=True)
class Verdict:
    """What a check found; true when the answer is right.

    Args:
        right: whether every input gave what it must.
        text: which input failed and how, or how many passed.
    """

    right: bool
    text: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.text}"


def checked(cases: Callable[[], Iterable[Case]]) -> Callable[[Any], Verdict]:
    """Return the check of an exercise: a function's answers to all cases, judged.

    Args:
        cases: yields the cases; its name and docstring become those of the check.
    """

    def check(answer: Any) -> Verdict:
        if not callable(answer):
            return Verdict(False, f"give the function itself; got {shown(answer)}.")
        passed = 0
        for where, given, judge in cases():
            wrong = _wrong(answer, given, judge)
            if wrong:
                return Verdict(False, f"for {where}: {wrong}")
            passed += 1
        return Verdict(True, f"all {passed} inputs.")

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(check, name, getattr(cases, name))
    return check


def exercise(
    inputs: Callable[[], Inputs],
    judge: Callable[..., str] | None = None,
    **settings: Any,
) -> Callable[[Callable[..., Any]], Callable[[Any], Verdict]]:
    """Return a decorator that makes a check of a right answer.

    Args:
        inputs: gives the arguments of each call; where it has no name they describe it.
        judge: (right answer, what came back, **settings) -> what is wrong with the
            second, "" where it is right; `near` where left out.
        **settings: of the judge.

    Example:
        >>> @exercise(lambda: [(2,), (3,)])
        ... def check_square(n):
        ...     return n * n
        >>> check_square(lambda n: n + 2)
        Not yet: for n = 3: your answer is 5, which is not right.
    """

    def made(right: Callable[..., Any]) -> Callable[[Any], Verdict]:
        names = list(inspect.signature(right).parameters)

        @wraps(right)
        def cases() -> Iterable[Case]:
            calls = inputs()
            if not isinstance(calls, Mapping):
                calls = {_told(names, given): given for given in calls}
            for text, given in calls.items():
                yield text, given, partial(judge or near, right(*given), **settings)

        return checked(cases)

    return made


def _told(names: list[str], given: tuple[Any, ...]) -> str:
    """Return the arguments of a call in words: large tensors by their shape."""
    told = []
    for name, one in zip(names, given, strict=True):
        if isinstance(one, Tensor) and one.numel() > 4:
            told.append(f"{name} of shape {tuple(one.shape)}")
        elif isinstance(one, Tensor):
            told.append(f"{name} = {one.numpy().round(4).tolist()}")
        elif not callable(one):
            told.append(f"{name} = {one}"[:80])
    return ", ".join(told)


def _wrong(
    answer: Callable[..., Any], given: tuple[Any, ...], judge: Callable[[Any], str]
) -> str:
    try:
        got = answer(*map(_own, given))
    except Exception as problem:  # a learner's function may fail in any way
        return f"it raised {type(problem).__name__}: {problem}"
    if got is None or got is Ellipsis:
        return "it gave nothing back; end it with a return."
    if isinstance(got, str):
        return f"it gave the text {got!r}; numbers are asked for."
    try:
        return judge(got)
    except Exception:  # and its answer may be of any kind
        return (
            f"it gave {shown(got)}, which cannot be compared with what is asked for. "
            "Look at the text of the exercise: what should it give back?"
        )


def _own(given: Any) -> Any:
    """Return a copy, so that an answer cannot change the input of the next call."""
    wants_gradient = isinstance(given, Tensor) and given.requires_grad
    return given if wants_gradient else copy.deepcopy(given)


def shown(got: Any) -> str:
    """Return a short description of an answer."""
    text = " ".join(repr(got).split())
    return f"{type(got).__name__} {text[:80]}{'...' if len(text) > 80 else ''}"


# ---- judges ---------------------------------------------------------------------------


def numbers(got: Any) -> Tensor:
    """Return an answer as a float64 tensor; raises where it is not real numbers."""
    if not isinstance(got, Tensor):
        return torch.as_tensor(np.asarray(got, dtype=float), dtype=torch.float64)
    if got.is_complex():
        raise TypeError("complex numbers")
    return got.detach().double()


def number(got: Any) -> float:
    """Return an answer as one number; raises where it is not one."""
    return float(numbers(got).reshape(()) if numbers(got).numel() == 1 else math.nan)


def _alike(want: Any, got: Any) -> tuple[Tensor, Tensor, str]:
    """Return both as numbers, and what is wrong with the shape of the second."""
    right, have = numbers(want), numbers(got)
    if right.numel() == have.numel() == 1:
        have = have.reshape(right.shape)
    wrong = f"give numbers of shape {tuple(right.shape)}; got {tuple(have.shape)}."
    return right, have, "" if have.shape == right.shape else wrong


def near(want: Any, got: Any, off: float = 1e-4, hint: str = "") -> str:
    """Judge numbers: the right shape, and each within a distance.

    Args:
        want: the right answer.
        got: what came back.
        off: largest difference; in units of the number where that is above 1.
        hint: said where a number is wrong.
    """
    right, have, wrong = _alike(want, got)
    if wrong:
        return wrong
    far = ((have - right).abs() / right.abs().clamp(min=1)).nan_to_num(torch.inf)
    if not have.numel() or bool((far <= off).all()):
        return ""
    at = np.unravel_index(int(far.argmax()), far.shape)
    entry = f"entry {', '.join(map(str, at))} of " if at else ""
    what = f"{entry}your answer is {float(have[at]):.4g}, which is not right."
    return f"{what} {hint}".strip()


def whole(want: float, got: Any, slack: float = 0.0, hint: str = "") -> str:
    """Judge one whole number; 1.9 is not 1.

    Args:
        want: the right answer.
        got: what came back.
        slack: share of the number by which it may be off.
        hint: said where it is wrong.
    """
    have = number(got)
    if not have.is_integer():
        return f"a whole number is asked for; got {shown(got)}."
    near_enough = abs(have - want) <= slack * want
    return "" if near_enough else f"{have:g} is not right. {hint}".strip()


def on_circle(want: Tensor, got: Any, off: float) -> str:
    """Judge fractional coordinates: in [0, 1), and the right point.

    Args:
        want: the right answer, or another number of the same point.
        got: what came back.
        off: largest distance on the circle.
    """
    right, have, wrong = _alike(want, got)
    if wrong:
        return wrong
    outside = ~((have >= 0) & (have < 1))
    if bool(outside.any()):
        return f"{float(have[outside][0])!r} is not in [0, 1)."
    far = ((have - right + 0.5) % 1 - 0.5).abs()
    at = int(far.argmax())
    if float(far[at]) <= off:
        return ""
    return f"{float(have[at]):.4g}, entry {at} of your answer, is another point."


def sets(want: list[set[Any]] | set[Any], got: Any, what: str) -> str:
    """Judge sets: no member too many, none lacking.

    Args:
        want: the right answer.
        got: what came back.
        what: the answer is a list with one set for each of these; if it is one set of
            numbers, what that is called.
    """
    one = isinstance(want, set)
    right = [want] if one else want
    have = [numbers(list(got)).flatten().tolist()] if one else got
    if len(have) != len(right):
        return f"give one set for each of {len(right)} {what}s; got {len(have)}."
    for k, (mine, all_of_it) in enumerate(zip(map(set, have), right, strict=True), 1):
        place = what if one else f"{what} {k}"
        if mine - all_of_it:
            return f"{min(mine - all_of_it)} does not belong to {place}."
        if all_of_it - mine:
            return f"something is missing from {place}."
    return ""
