"""Monotone rational-quadratic splines on a circle and on the line, with both directions.

Written here and not taken from zuko 1.6: its spline fixes the slope at both ends to one, so
that on a circle one point of every layer can be neither dense nor empty. Ours learns that
slope, equal on both sides, and gives value and slope in one pass in both directions.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from matdesign.crystals.geometry import wrap

LEAST = 0.01
"""Smallest width and height of a bin, as a share of the whole, and smallest slope."""

REACH = 5.0
"""Half the length of the part of the line that a spline bends."""


def circular_spline(
    x: Tensor, numbers: Tensor, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Return a monotone map of the circle of length 1 onto itself, and its log slope.

    A learned shift turns the circle, then a spline of K bins stretches some arcs and
    shrinks others. Value and slope agree where the circle closes, so a density that is
    carried through the map is continuous there.

    Equation:
        y = R(wrap(x + s)), with R(0) = 0, R(1) = 1 and R'(0) = R'(1)

    Args:
        x: positions in [0, 1), shape (...).
        numbers: K raw widths, K raw heights, K raw slopes and the shift s; all zero is the
            identity, shape (..., 3 K + 1).
        inverse: go from y to x.

    Returns:
        Positions in [0, 1), and the log of the slope of the map that was gone: of x -> y,
        or of y -> x if `inverse`, both of shape (...).

    Source:
        Rezende et al. 2020, arXiv 2002.02428, circular splines; Durkan et al. 2019, arXiv
        1906.04032, equations 4 to 8. Changed: the turn is a part of the map, and slopes
        are bounded on both sides.

    Example:
        >>> y, log_slope = circular_spline(torch.tensor([0.25]), torch.zeros(1, 13))
        >>> y.tolist(), log_slope.abs().max().item() < 1e-6
        ([0.25], True)
    """
    bins = (numbers.shape[-1] - 1) // 3
    widths, heights, slopes, shift = numbers.split([bins, bins, bins, 1], dim=-1)
    slopes = torch.cat([slopes, slopes[..., :1]], dim=-1)
    turn = shift.squeeze(-1)
    start = x if inverse else wrap(x + turn)
    end, log_slope = _spline(start, widths, heights, slopes, inverse)
    return wrap(end - turn) if inverse else wrap(end), log_slope


def line_spline(
    x: Tensor, numbers: Tensor, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Return a monotone map of the line onto itself, and its log slope.

    Equation:
        y = R(exp(a) x + b); R is a spline on [-5, 5] and the identity outside

    Args:
        x: any numbers, shape (...).
        numbers: K raw widths, K raw heights, K - 1 raw inner slopes, a and b; all zero is
            the identity, shape (..., 3 K + 1).
        inverse: go from y to x.

    Returns:
        Images, and the log of the slope of the map that was gone, both of shape (...).

    Source:
        Durkan et al. 2019, arXiv 1906.04032, with an affine map before the spline.
    """
    bins = (numbers.shape[-1] - 1) // 3
    sizes = [bins, bins, bins - 1, 1, 1]
    widths, heights, slopes, stretch, move = numbers.split(sizes, dim=-1)
    slopes = functional.pad(slopes, (1, 1))  # slope one where the identity takes over
    stretch, move = _bounded(stretch.squeeze(-1)), move.squeeze(-1)
    start = x if inverse else stretch.exp() * x + move
    inside = start.abs() < REACH
    unit = torch.where(inside, (start / REACH + 1) / 2, torch.full_like(start, 0.5))
    end, log_slope = _spline(unit, widths, heights, slopes, inverse)
    end = torch.where(inside, (2 * end - 1) * REACH, start)
    log_slope = torch.where(inside, log_slope, torch.zeros_like(log_slope))
    if inverse:
        return (end - move) * (-stretch).exp(), log_slope - stretch
    return end, log_slope + stretch


def _bounded(raw: Tensor) -> Tensor:
    """Return numbers between ln(LEAST) and -ln(LEAST) that are `raw` near zero."""
    return raw / (1 + (raw / math.log(LEAST)).abs())


def _spline(
    x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Return the spline of the unit interval at x, or its inverse, and the log slope.

    Args:
        x: in [0, 1], shape (...).
        widths: raw widths of K bins, shape (..., K).
        heights: raw heights, shape (..., K).
        slopes: raw slopes at the K + 1 knots, shape (..., K + 1).
        inverse: read x as a height.
    """
    k = widths.shape[-1]
    free = 1 - LEAST * k
    width = LEAST + free * _bounded(2 * widths).softmax(-1)
    height = LEAST + free * _bounded(2 * heights).softmax(-1)
    slope = _bounded(slopes).exp()
    left = functional.pad(width.cumsum(-1)[..., :-1], (1, 0))
    below = functional.pad(height.cumsum(-1)[..., :-1], (1, 0))
    edge = below if inverse else left
    at = (edge[..., 1:] <= x.unsqueeze(-1)).sum(-1)  # bin of each x
    table = torch.stack(
        [left, width, below, height, slope[..., :-1], slope[..., 1:]], dim=-2
    )  # (..., 6, K)
    index = at[..., None, None].expand(*at.shape, 6, 1)
    x0, w, y0, h, d0, d1 = table.gather(-1, index).squeeze(-1).unbind(-1)
    s = h / w
    bend = d0 + d1 - 2 * s
    if inverse:
        rise = x - y0
        a = h * (s - d0) + rise * bend
        b = h * d0 - rise * bend
        c = -s * rise
        root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
        z = (2 * c / (-b - root)).clamp(0, 1)
    else:
        z = ((x - x0) / w).clamp(0, 1)
    mixed = z * (1 - z)
    below_line = s + bend * mixed
    log_slope = (
        2 * s.log()
        + (d1 * z.square() + 2 * s * mixed + d0 * (1 - z).square()).log()
        - 2 * below_line.log()
    )
    if inverse:
        return x0 + z * w, -log_slope
    return y0 + h * (s * z.square() + d0 * mixed) / below_line, log_slope
