"""Seconds that can be compared: those of stages that one machine ran without a break.

The machine is the one that ran most of a study's stages. A stage that was interrupted knows the
seconds of its last part alone.
"""

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from paper.reader.contents import Run
from paper.reader.results import Results
from paper.wording import counted


@lru_cache(maxsize=8)
def machine(results: Results) -> str:
    """The one whose seconds count."""
    return Counter(hardware(run) for run in results.runs).most_common(1)[0][0]


def hardware(run: Run) -> str:
    """The machine that a stage ran on."""
    found = run.hardware
    return f"{found.cpu} ({counted(found.cores, 'core')}, accelerator {found.accelerator})"


def typical(results: Results, taken: Iterable[tuple[Run | None, float]]) -> float:
    """Median of the seconds of runs; of what has no run, somebody's own results, they count as they
    are. NaN if none counts.

    A stage that was paused for hours, or had others beside it, would move a mean.
    """
    seconds = [
        found
        for run, found in taken
        if run is None or (hardware(run) == machine(results) and not run.resumed)
    ]
    known = [found for found in seconds if not math.isnan(found)]
    return float(np.median(known)) if known else math.nan
