"""How a number is written: fixed decimals, a real minus, an em dash where there is none; words."""

import math

from paper.statistics import Estimate

ABSENT = "—"
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)


def fixed(value: float, digits: int) -> str:
    """For CSV files: `digits` decimals, empty where there is no number, never -0."""
    if math.isnan(value):
        return ""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def number(value: float, digits: int, sign: bool = False) -> str:
    """For people: thousands apart, an em dash for NaN, with its sign if asked."""
    if math.isnan(value):
        return ABSENT
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''},.{digits}f}".replace("-", "−")


def interval(estimate: Estimate, digits: int, sign: bool = False) -> str:
    """Value [low, high]; the value alone where there is no interval."""
    value = number(estimate.value, digits, sign)
    if math.isnan(estimate.low):
        return value
    return f"{value} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def plus_minus(estimate: Estimate, digits: int) -> str:
    """Value ± half of its interval, for symmetric intervals where room is short."""
    value = number(estimate.value, digits)
    if math.isnan(estimate.low):
        return value
    return f"{value} ± {number(estimate.high - estimate.value, digits)}"


def joined(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(n: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def counting(n: int) -> str:
    """A small number as a word; `none` for 0."""
    return (WORDS[n] if n < len(WORDS) else str(n)) if n else "none"
