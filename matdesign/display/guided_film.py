"""A film of a guided sampling: the previewed crystal, and what the guide saw and did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matdesign.crystals.batch import Crystals
from matdesign.display.plots import COLORS
from matdesign.display.plots_guidance import logged_steps
from matdesign.display.viewer import CrystalView
from matdesign.errors import DataError
from matdesign.tables import render

ROW = 13
"""Height of one bar of a strip that is 640 wide."""

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
        seen: dict[str, list[Any]] = {}
        for row in self.steps:
            for name, one in row["violation"].items():
                seen.setdefault(name, []).append(one["each"])
        self.bars = {name: (max(map(max, x)), len(x[0])) for name, x in seen.items()}
        look: Any = {"slider": "generative time", "interval": 400, "height": 260}
        super().__init__(structures, labels, images="none", **(look | options))
        for n, frame in enumerate(self.data["frames"]):
            frame["beside"] = self.strip(n)

    def strip(self, n: int) -> str:
        """Return the bars of one frame as SVG.

        A bar is as long as the violation, on a scale that all frames share; a crystal
        that meets the constraint has no bar but a tick.

        Args:
            n: which frame.
        """
        row = self.steps[n]
        groups, words, top = [], [], 0
        for k, (name, (largest, many)) in enumerate(self.bars.items()):
            seen = row["violation"].get(name, {"each": [], "mean": 0.0})
            bars = [0.0 if v <= 0 else v / largest for v in seen["each"]]
            head = f"{name} (longest bar: {largest:.3g})"
            groups.append((head, top, COLORS[k % len(COLORS)], bars))
            met = f"{bars.count(0.0)} of {len(bars)} met, mean {seen['mean']:.3g}"
            words.append(f"{name}: {met if bars else 'not known yet'}")
            top += 30 + ROW * many
        alt = f"At t = {row['t']:.2f}, {said(row)}. {'; '.join(words)}."
        shown = {"height": top, "row": ROW, "particles": self.particles, "alt": alt}
        return render("strip", groups=groups, **shown)


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
    steps = [row for row in logged_steps(made) if "preview" in row]
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
