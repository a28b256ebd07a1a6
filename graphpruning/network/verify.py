"""A narrowed network goes the same way as the full one: it has the operations that were traced."""

from typing import Any

from torch import fx, nn

from graphpruning.common.errors import UnsupportedNetwork, UserError
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.refusals import refuse_what_acts_on_the_side
from graphpruning.network.symbolic import operations, twin


def require_same_operations(narrowed: nn.Module, graph: ChannelGraph, is_twin: bool) -> None:
    """Raise `UnsupportedNetwork` where `narrowed`, by its own code, does something else.

    A `forward` may branch on numbers of channels, or have sizes of the full network in it. Then the
    narrowed network would not be the one that was traced, searched and judged. One that is a twin,
    which nobody wants afterwards, is run itself.
    """
    name = type(narrowed).__name__
    try:
        refuse_what_acts_on_the_side(narrowed)
        run = narrowed if is_twin else twin(narrowed)
        found, standardised = operations(narrowed, run, graph.input_size)
    except UserError as refusal:
        raise UnsupportedNetwork(
            f"{name} does not run when it is narrowed: a size or a branch in its code is made for "
            f"the full widths ({refusal})"
        ) from refusal
    full = list(graph.module.graph.nodes)
    small = list(found.nodes)
    same: dict[fx.Node, fx.Node] = {}
    for one, other in zip(full, small, strict=False):
        if not _alike(one, other, same):
            raise UnsupportedNetwork(
                f"{name} takes another way when it is narrowed: {_where(one)} becomes "
                f"{_where(other)}; make its code independent of the numbers of channels"
            )
        same[one] = other
    if len(full) != len(small) or standardised != graph.module.meta["standardised"]:
        raise UnsupportedNetwork(
            f"{name} has other operations when it is narrowed ({len(small)} for {len(full)}); make "
            "its code independent of the numbers of channels"
        )


def _alike(one: fx.Node, other: fx.Node, same: dict[fx.Node, fx.Node]) -> bool:
    ranks = [len(node.meta.get("shape", ())) for node in (one, other)]
    return (
        (one.op, one.target) == (other.op, other.target)
        and ranks[0] == ranks[1]
        and _equal(one.args, other.args, same)
        and _equal(one.kwargs, other.kwargs, same)
    )


def _equal(one: Any, other: Any, same: dict[fx.Node, fx.Node]) -> bool:
    """Whether arguments are the same, with the same nodes in the same places."""
    if isinstance(one, fx.Node):
        return same.get(one) is other
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(
            _equal(a, b, same) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k], same) for k in one)
    if isinstance(one, slice):
        return all(_equal(getattr(one, k), getattr(other, k), same) for k in _SLICE)
    return bool(one == other)


_SLICE = ("start", "stop", "step")


def _where(node: fx.Node) -> str:
    """An operation, and the module in whose `forward` it stands."""
    what = getattr(node.target, "__name__", str(node.target))
    stack = node.meta.get("nn_module_stack")
    inside = next(reversed(stack.values()))[0] if stack else ""
    return f"{what} in {inside}" if inside and node.op != "call_module" else what
