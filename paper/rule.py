"""The rule by which a claim's effects become one verdict; written down before the evidence.

How wide the effects' intervals are is said in `paper.measures`; that those of final networks are
no narrower than the noise of single trainings came after a look at it (paper/claims.md).

An effect is a number that the claim says is above zero, with its 95 % interval. Each one is

- *equivalent* to zero if it is a difference in accuracy and both of two one-sided tests (TOST)
  reject at 5 % that it is as large as `MATTERS`: its 90 % interval lies within ± 0.2 points;
- else *above* zero if its 95 % interval lies above zero (a one-sided test at 2.5 %);
- else *below* zero if its one-sided test rejects at 2.5 % after Holm's correction over all effects
  of the claim, of all models;
- else *open*; so is every effect without an interval.

A claim with one or more effects **does not hold** if one of them is below; else it is
**undecided** if one is open; else it is **equivalent** if one is equivalent; else all are above,
and it **holds**. Holding and equivalence need every effect, so they need no correction; one effect
below is enough for the contrary, so that needs Holm's. A sentence or mark for one effect of several
is no verdict, and is corrected both ways (`said`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paper.statistics import Estimate

HOLDS, EQUIVALENT, FAILS, UNDECIDED = "holds", "equivalent", "does not hold", "undecided"
ABOVE, SAME, BELOW, OPEN = "above", "equivalent", "below", "open"
MATTERS = 0.2
"""The smallest difference in accuracy that matters, in percentage points."""
MOST_REPLICATES = 1000
"""Further than this nobody looks."""
ONE_SIDED = 0.025
"""Level of the tests that an effect is above or below zero: that of a 95 % interval."""
TOST_LEVEL = 0.9
"""Of the interval that two one-sided tests at 5 % amount to."""


@dataclass(frozen=True)
class Effect:
    """What a claim says is above zero; `margin` is what is too small to matter, None for any.

    `label` says to people what it is, `unit` what it is measured in.
    """

    estimate: Estimate
    margin: float | None = None
    label: str = ""
    unit: str = ""


def verdict(effects: Sequence[Effect]) -> str:
    """Holds, equivalent, does not hold or undecided; undecided without any effect."""
    found = statuses(effects)
    for status, said in ((BELOW, FAILS), (OPEN, UNDECIDED), (SAME, EQUIVALENT)):
        if status in found:
            return said
    return HOLDS if found else UNDECIDED


def replicates_to_decide(effects: Sequence[Effect]) -> int | None:
    """How many replicates, if further ones are like those that there are, would decide a claim
    that is undecided; None where `MOST_REPLICATES` would not.
    """
    there = max((e.estimate.n for e in effects if math.isfinite(e.estimate.df)), default=0)
    for n in range(there, MOST_REPLICATES + 1) if there > 1 else ():
        if verdict(of_replicates(effects, n)) != UNDECIDED:
            return n
    return None


def of_replicates(effects: Sequence[Effect], n: int) -> list[Effect]:
    """The effects as `n` replicates like these would show them."""
    return [replace(effect, estimate=effect.estimate.of_replicates(n)) for effect in effects]


def said(effects: Sequence[Effect]) -> list[str]:
    """What each effect is where it is stated alone ("better than this baseline"): some of several
    lie above zero by chance, too, so that above needs Holm's correction as below does.
    """
    found = statuses(effects)
    if len(effects) == 1:
        return found
    corrected = holm([effect.estimate.p_above for effect in effects])
    return [
        OPEN if status == ABOVE and p >= ONE_SIDED else status
        for status, p in zip(found, corrected, strict=True)
    ]


def marks(effects: Sequence[Effect]) -> list[str]:
    """What each effect of a claim is marked as: `said`, but where the claim holds, which needs
    every effect and so no correction, above.
    """
    return statuses(effects) if verdict(effects) == HOLDS else said(effects)


def statuses(effects: Sequence[Effect]) -> list[str]:
    """What each of a claim's effects is: equivalent, above, below or open."""
    corrected = holm([effect.estimate.p_below for effect in effects])
    return [_status(effect, p) for effect, p in zip(effects, corrected, strict=True)]


def _status(effect: Effect, p_below: float) -> str:
    found = effect.estimate
    if math.isnan(found.low):
        return OPEN
    if effect.margin is not None:
        low, high = found.at(TOST_LEVEL)
        if -effect.margin < low and high < effect.margin:
            return SAME
    if found.low > 0:
        return ABOVE
    return BELOW if p_below < ONE_SIDED else OPEN


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the same order; NaN stays, and counts as a test too."""
    order = sorted(range(len(p_values)), key=lambda i: (math.isnan(p_values[i]), p_values[i]))
    corrected = [math.nan] * len(p_values)
    least = 0.0
    for place, i in enumerate(order):
        if not math.isnan(p_values[i]):
            least = max(least, min(1.0, (len(p_values) - place) * p_values[i]))
            corrected[i] = least
    return corrected
