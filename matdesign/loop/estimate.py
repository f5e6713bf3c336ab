"""What a campaign will cost, said before it starts."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import psutil

from matdesign.errors import InfeasibleTarget
from matdesign.loop.oracle import PotentialOracle
from matdesign.loop.potential import Potential
from matdesign.loop.relax import relax

if TYPE_CHECKING:
    from matdesign.loop.campaign import Campaign

FORCES = 50
"""Force calls of a usual relaxation."""


def estimate(campaign: Campaign) -> str:
    """Return oracle calls, seconds and memory of what is left of a campaign, as text.

    Draws a few crystals with the campaign's guide. The cost of a call is the mean so far;
    before the first, that of 50 force calls where the oracle is the potential.

    Accuracy:
        Within a factor of two or so: cells differ in size, and crystals that are dropped
        before the oracle make more iterations.
    """
    calls, oracle = campaign.left, campaign.oracle
    drawn = math.ceil(calls / campaign.batch) * campaign.propose
    few = min(8, campaign.propose)
    sample, _, how = campaign._drawing(0)
    began, made = time.perf_counter(), None
    try:
        made = sample(few, **{**how, "seed": 0}).to("cpu")
    except InfeasibleTarget:
        pass  # the iterations will say so
    drawing = (time.perf_counter() - began) / few * drawn
    spent = campaign.table().get("seconds")
    each = math.nan if spent is None else float(spent.mean())
    workers = getattr(oracle, "workers", 1)
    if spent is None and isinstance(oracle, PotentialOracle) and made is not None:
        potential = Potential(oracle.weights, oracle.device)
        sound = [i for i, why in enumerate(oracle.refusals(made)) if not why]
        some = [made.structure(i) for i in sound]
        began = time.perf_counter()
        relax(some, potential, steps=0)  # six energies and a force call, never an error
        taken = (time.perf_counter() - began) / 3
        each = taken / len(some) * FORCES if some else math.nan
    asking = each * calls / workers
    said = f"{asking:.0f} s in {workers} processes" if each == each else "not known"
    memory = psutil.Process().memory_info().rss / 2**30
    return (
        f"estimate: {calls} oracle calls; drawing {drawn} crystals {drawing:.0f} s, "
        f"evaluating {said}; memory {memory:.1f} GiB here, about as much in each process"
    )
