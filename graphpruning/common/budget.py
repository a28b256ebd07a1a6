"""How a budget is written: a share of the full network's MACs, or MACs."""

from graphpruning.common.errors import UserError


def budget_in_macs(budget: float | str, full: int) -> int:
    """MACs of a budget: a share of `full` (0.5), or absolute ("316M", "1.0G").

    Raises `UserError` for anything else, and for more than `full`.
    """
    text = str(budget)
    scale = {"M": 1e6, "G": 1e9}.get(text[-1:])
    try:
        macs = float(text[:-1]) * scale if scale else float(text) * full
    except ValueError:
        macs = -1
    if not 0 < macs < float("inf") or (not scale and float(text) > 1):
        raise UserError(f"budget {budget!r} is neither a share up to 1 nor MACs such as '316M'")
    if macs > full:
        raise UserError(f"budget {budget!r} is more than the {full:,} MACs of the whole network")
    return int(macs)
