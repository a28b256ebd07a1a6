"""What `prune` is given, as it needs it, or a refusal in a line.

Notebooks hold numbers of NumPy, and much else.
"""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any

from graphpruning.architecture_file import Entry, check_image
from graphpruning.common.errors import UserError, brief


def image(size: object) -> tuple[int, ...]:
    """Channels, height and width."""
    given = list(size) if isinstance(size, Sequence) else size
    mend = "give channels, height and width, such as 3 224 224"
    return check_image(Entry("prune", given, "input size", mend))


def whole(name: str, value: object, least: int, why: str) -> int:
    """A whole number of at least so much."""
    if not isinstance(value, Integral):
        raise UserError(f"{name} is {brief(value)}; it is a whole number")
    if value < least:
        raise UserError(f"{name} is {value}; {why}")
    return int(value)


def share(name: str, value: object) -> float:
    """A number above 0 and up to 1."""
    if not isinstance(value, Real):
        raise UserError(f"{name} is {brief(value)}; it is a number above 0 and up to 1")
    if not 0 < (found := float(value)) <= 1:
        raise UserError(f"{name} is {value}; it is above 0 and up to 1")
    return found


def of_channels(name: str, values: object) -> tuple[float, ...] | None:
    """Numbers by channel; one alone is that of one channel."""
    if values is None:
        return None
    given: list[Any] = [values] if isinstance(values, Real | str) else []
    if isinstance(values, Iterable) and not isinstance(values, str):
        given = list(values)
    if not given or not all(isinstance(value, Real) for value in given):
        raise UserError(f"{name} is {brief(values)}: give a number for each channel")
    return tuple(map(float, given))


def patterns(name: str, values: object) -> tuple[str, ...]:
    """Patterns of layers; one alone is one pattern, not a pattern for each of its letters."""
    if isinstance(values, str):
        return (values,)
    given = tuple(values) if isinstance(values, Iterable) else (values,)
    if not all(isinstance(each, str) for each in given):
        raise UserError(f"{name} is {brief(values)}: give names or patterns of layers")
    return given


def limits(limit: Mapping[str, object]) -> dict[str, tuple[float, float]]:
    """By pattern the least and the largest share."""
    found = {}
    for pattern, shares in limit.items():
        pair = list(shares) if isinstance(shares, Sequence) else []
        if len(pair) != 2 or not all(isinstance(share, Real) for share in pair):
            raise UserError(
                f"limit of {pattern!r} is {brief(shares)}: give the least and the largest share, "
                "such as (0.5, 1)"
            )
        found[pattern] = (float(pair[0]), float(pair[1]))
    return found


def require_file(weights: object) -> None:
    """Raise `UserError` for weights that are no name of a file, such as a state dict."""
    if not isinstance(weights, str | PathLike | None):
        raise UserError(
            f"weights is a {type(weights).__name__}; give a file, or load them into the network "
            "and give that"
        )
