"""The rule by which a claim's effects become one verdict; written down before the evidence, but for
what paper/claims.md lists.

How wide the effects' intervals are is said in `paper.measures`.

An effect is a number that the claim says is above zero, with its 95 % interval. Each one is

- *equivalent* to zero if it is a difference in accuracy and both of two one-sided tests (TOST)
  reject at 5 % that it is as large as `MATTERS`: its 90 % interval lies within ± 0.2 points;
- else *above* zero if its 95 % interval lies above zero (a one-sided test at 2.5 %);
- else *below* zero if its one-sided test rejects at 2.5 % after Holm's correction over all effects
  of the claim, of all models;
- else *open*; so is every effect without an interval.

A claim without any effect is **not tested**. With effects it **does not hold** if one of them is
below; else it is **undecided** if one is open. Else it **holds** if all are above, is
**equivalent** if every difference in accuracy is equivalent, and **holds in part** if some of these
are above and others equivalent. Holding and equivalence need every effect, so they need no
correction. One effect below is enough for the contrary, and holding in part says of single effects
what they are: so these need Holm's, with which all may be above after all, or one open. A sentence
or mark for one effect of several is no verdict, and is corrected, too (`said`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paper.statistics import Estimate

HOLDS, IN_PART, EQUIVALENT = "holds", "holds in part", "equivalent"
FAILS, UNDECIDED, UNTESTED = "does not hold", "undecided", "not tested"
ABOVE, SAME, BELOW, OPEN = "above", "equivalent", "below", "open"
MATTERS = 0.2
"""The smallest difference in accuracy that matters, in percentage points."""
MOST_REPLICATES = 1000
"""Further than this nobody looks."""
ONE_SIDED = 0.025
"""Level of the tests that an effect is above or below zero: that of a 95 % interval."""
TOST = 0.05
"""Level of each of the two one-sided tests of equivalence: that of a 90 % interval."""


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
    """One of the six words above."""
    if not effects:
        return UNTESTED
    found = statuses(effects)
    if BELOW in found:
        return FAILS
    if OPEN in found:
        return UNDECIDED
    if SAME not in found:
        return HOLDS
    if all(status == SAME for effect, status in zip(effects, found, strict=True) if effect.margin):
        return EQUIVALENT
    found = said(effects)
    return UNDECIDED if OPEN in found else IN_PART if SAME in found else HOLDS


def replicates_to_decide(effects: Sequence[Effect]) -> int | None:
    """How many replicates would decide an undecided claim if its effects kept their values; None
    where `MOST_REPLICATES` would not.

    They will not keep them: with so many, the chance of a decision is about one half.
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
    lie above zero or within the margin by chance, too, so these need Holm's correction as below
    does.
    """
    found = statuses(effects)
    if len(effects) == 1:
        return found
    above = holm([effect.estimate.p_above for effect in effects])
    margins = [effect for effect in effects if effect.margin is not None]
    same = iter(holm([_p_same(effect) for effect in margins]))
    return [
        _corrected(status, p_above, math.nan if effect.margin is None else next(same))
        for effect, status, p_above in zip(effects, found, above, strict=True)
    ]


def _corrected(status: str, p_above: float, p_same: float) -> str:
    if status == SAME and p_same < TOST:
        return SAME
    if status in (ABOVE, SAME):
        return ABOVE if p_above < ONE_SIDED else OPEN
    return status


def marks(effects: Sequence[Effect]) -> list[str]:
    """What each effect of a claim is marked as: `said`, but where the verdict needs every effect,
    and so no correction, what it is by itself.
    """
    return statuses(effects) if verdict(effects) in (HOLDS, EQUIVALENT) else said(effects)


def statuses(effects: Sequence[Effect]) -> list[str]:
    """What each of a claim's effects is: equivalent, above, below or open."""
    corrected = holm([effect.estimate.p_below for effect in effects])
    return [_status(effect, p) for effect, p in zip(effects, corrected, strict=True)]


def _status(effect: Effect, p_below: float) -> str:
    found = effect.estimate
    if math.isnan(found.low):
        return OPEN
    if effect.margin is not None:
        low, high = found.at(1 - 2 * TOST)
        if -effect.margin < low and high < effect.margin:
            return SAME
    if found.low > 0:
        return ABOVE
    return BELOW if p_below < ONE_SIDED else OPEN


def _p_same(effect: Effect) -> float:
    """P-value of the two one-sided tests that an effect is smaller than its margin either way."""
    assert effect.margin is not None
    found = effect.estimate
    return max(found.above(-effect.margin).p_above, found.above(effect.margin).p_below)


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
