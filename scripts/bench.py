"""Measure what pages, cards and records state, one benchmark by name.

    python scripts/bench.py quality --data mp_20_dev.parquet
    python scripts/bench.py NAME --help

Names:
    cases          hits per oracle call of case studies, and of what they must beat
    guidance       what each guidance method buys, by constraint and family
    guidance-cost  what guides cost in seconds and network evaluations
    hull           do the crystals of the Materials Project lie on the shipped hull?
    learning       what generators learn from rewards, and what a second predictor says
    loop           oracle calls until the best crystals of a table are found
    quality        our generators, published ones and baselines on reduced MP-20
    speed          a cold start, sampling and training of every shipped generator
"""

import re
import sys

from bench.engine import run

NAMES = re.findall("^    ([a-z-]+)  ", __doc__, re.M)


def main(given: list[str]) -> int:
    """Run a benchmark; return the exit code."""
    if not given or given[0] not in NAMES:
        print(f"usage: bench.py NAME ...\n\n{__doc__}")
        return 0 if given in ([], ["-h"], ["--help"]) else 2
    return run(given[0], given[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
