"""How a budget is written: a share of the full network's MACs, MACs, or a time."""

from dataclasses import dataclass
from typing import Literal

from graphpruning.common.errors import UserError

_MACS = {"K": 1e3, "M": 1e6, "G": 1e9}
_MILLISECONDS = {"ms": 1.0, "us": 1e-3, "µs": 1e-3, "s": 1e3}


@dataclass(frozen=True)
class Budget:
    """A share of the full network's MACs up to 1, MACs, or milliseconds.

    `name` is how folders write it.
    """

    kind: Literal["share", "MACs", "ms"]
    amount: float
    name: str


def read_budget(budget: float | str) -> Budget:
    """Read a share ("50%", 0.5), MACs ("300M", "300K", "1.2G", 405600) or a time ("3ms").

    A bare number up to 1 is a share, a whole one above it MACs. Raises `UserError` for anything
    else.
    """
    text = str(budget).replace(" ", "")
    unit = next((unit for unit in _MILLISECONDS if text.endswith(unit)), "")
    number, last = text.removesuffix(unit), text[-1:].upper()
    try:
        if unit:
            found = Budget("ms", float(number) * _MILLISECONDS[unit], text.replace("µ", "u"))
        elif last == "%":
            share = float(text[:-1]) / 100
            found = Budget("share", share, f"{share:g}")
        elif last in _MACS:
            found = Budget("MACs", float(text[:-1]) * _MACS[last], text)
        else:
            value = float(text)
            whole = value > 1 and value == int(value)
            found = Budget("MACs" if whole else "share", value, f"{int(value) if whole else value}")
    except (ValueError, OverflowError):  # int(inf)
        found = Budget("share", -1, text)
    if not 0 < found.amount < float("inf") or (found.kind == "share" and found.amount > 1):
        raise UserError(
            f"budget {budget!r} is neither a share up to 1 (0.5, 50%), nor MACs (300M, 405600), "
            "nor a time (3ms)"
        )
    return found


def budget_in_macs(budget: float | str, full: int) -> int:
    """MACs of a budget that is a share of `full`, or absolute.

    Raises `UserError` for anything else, and for more than `full`.
    """
    found = read_budget(budget)
    if found.kind == "ms":
        raise UserError(f"budget {budget!r} is a time, where a share or MACs are expected")
    macs = found.amount * full if found.kind == "share" else found.amount
    if macs > full:
        raise UserError(f"budget {budget!r} is more than the {full:,} MACs of the whole network")
    return int(macs)
