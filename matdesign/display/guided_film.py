"""A film of a guided sampling: the previewed crystal, and what the guide saw and did."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from matdesign.crystals.batch import Crystals
from matdesign.display.plots import COLORS
from matdesign.display.plots_guidance import logged_steps
from matdesign.display.viewer import CrystalView
from matdesign.errors import DataError

WIDTH, LEFT, ROW = 640, 34, 13
"""Size of a strip in its own coordinates: width, room for numbers, height of one bar."""

Rows = Sequence[dict[str, Any]]
"""Steps of a guidance log."""


class GuidanceFilm(CrystalView):
    """A player whose frames are the steps of a guide.

    Above, the preview of the first crystal (with particles: of the one that holds the
    first place); below, one bar for each of the first crystals and each constraint: how
    far its preview is from being met, and what the guide then did.

    Args:
        steps: of one batch, with previews.
        particles: for each crystal.
        options: see `CrystalView`.
    """

    def __init__(self, steps: Rows, particles: int = 1, **options: Any) -> None:
        from pymatgen.core import Structure

        self.steps, self.particles = list(steps), particles
        structures = [
            Structure(p["lattice"], p["species"], p["frac"])
            for p in (row["preview"] for row in self.steps)
        ]
        labels = [
            f"t = {row['t']:.2f}  {one.composition.reduced_formula}: {said(row)}"
            for row, one in zip(self.steps, structures, strict=True)
        ]
        names = dict.fromkeys(name for row in self.steps for name in row["violation"])
        self.largest = {
            name: max(max(row["violation"][name]["each"]) for row in self._with(name))
            for name in names
        }
        settings: dict[str, Any] = {
            "slider": "generative time",
            "interval": 400,
            "height": 260,
        }
        super().__init__(structures, labels, images="none", **(settings | options))
        for n, frame in enumerate(self.data["frames"]):
            frame["beside"] = self.strip(n)

    def _with(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.steps if name in row["violation"]]

    def strip(self, n: int) -> str:
        """Return the bars of one frame as SVG.

        A bar is as long as the violation, on a scale that all frames share; a crystal
        that meets the constraint has no bar but a tick.

        Args:
            n: which frame.
        """
        row = self.steps[n]
        parts, words, top = [], [], 0
        for k, (name, largest) in enumerate(self.largest.items()):
            seen = row["violation"].get(name)
            many = len(self._with(name)[0]["violation"][name]["each"])
            parts.append(_text(LEFT, top + 12, f"{name} (longest bar: {largest:.3g})"))
            each = seen["each"] if seen else []
            parts += self._bars(each, largest, top + 20, COLORS[k % len(COLORS)])
            if seen:
                met = sum(v <= 0 for v in each)
                words.append(
                    f"{name}: {met} of {len(each)} met, mean {seen['mean']:.3g}"
                )
            else:
                parts.append(_text(LEFT, top + 32, "not known yet"))
                words.append(f"{name}: not known yet")
            top += 30 + many * ROW
        alt = f"At t = {row['t']:.2f}, {said(row)}. {'; '.join(words)}."
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
            f'font-family="sans-serif" font-size="12" role="img" '
            f'aria-label="{html.escape(alt)}">{"".join(parts)}</svg>'
        )

    def _bars(
        self, each: Sequence[float], largest: float, top: int, color: str
    ) -> list[str]:
        parts = []
        for i, value in enumerate(each):
            y = top + i * ROW
            if i % self.particles == 0:
                number = 1 + i // self.particles
                parts.append(_text(LEFT - 8, y + 9, str(number), "end"))
            if value <= 0:
                parts.append(_text(LEFT, y + 10, "✓"))
                continue
            wide = (WIDTH - LEFT - 10) * value / largest
            parts.append(
                f'<rect x="{LEFT}" y="{y + 1}" width="{wide:.1f}" height="{ROW - 4}" '
                f'fill="{color}"/>'
            )
        return parts


def film_guidance(made: Crystals, **options: Any) -> GuidanceFilm:
    """Return a film of the first batch of a guided sampling, from noise to data.

    The first batch is what the guide drew first; where a guide draws again what misses,
    not all of it is in `made`.

    Args:
        made: what a guided sampling returned.
        options: see `CrystalView`.

    Raises:
        DataError: the crystals carry no log of steps, or none with previews.
    """
    steps = [row for row in logged_steps(made, 0) if "preview" in row]
    if not steps:
        raise DataError(
            "the log of these crystals holds no previews; sample them again with a guide "
            "that acts between steps: print guide.plan(model)."
        )
    return GuidanceFilm(steps, made.info["guide"]["particles"], **options)


def said(row: dict[str, Any]) -> str:
    """Return what a guide did in one step, in words.

    Args:
        row: one step of a guidance log.
    """
    text = " and ".join(row["done"]) or "left alone"
    if "ess" in row:
        text += f"; {row['ess']:.1f} particles count"
    return text


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="#1d2129">'
        f"{html.escape(text)}</text>"
    )
