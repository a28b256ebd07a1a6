"""Who reads whose output: the edges of the channel graph, from the traced operations alone."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphpruning.network.graph import Edge

_ADDITIONS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_CONCATENATIONS: tuple[Any, ...] = (torch.cat, torch.concat)


@dataclass(frozen=True)
class _Origin:
    """Where a tensor comes from: the layers that wrote it, and how deep it is.

    `sources` maps a layer to True where every way from it to here is a shortcut.
    """

    sources: dict[str, bool]
    depth: int


def edges_and_depths(
    module: fx.GraphModule, is_layer: Callable[[str], bool]
) -> tuple[list[Edge], dict[str, int]]:
    """Return all edges in forward order, and each layer's depth.

    A layer is joined to every layer that reads its output through operations without channels of
    their own; who reads the size of a tensor alone does not read its data. At an addition or a
    concatenation the branches that are shallower than the deepest are its shortcuts.
    """
    origins: dict[fx.Node, _Origin] = {}
    edges: list[Edge] = []
    depths: dict[str, int] = {}
    for node in module.graph.nodes:
        if node.meta.get("of_sizes"):
            continue
        operands = [origins[each] for each in node.all_input_nodes if each in origins]
        depth = max((operand.depth for operand in operands), default=0)
        name = str(node.target)
        joins = node.target in _ADDITIONS or node.target in _CONCATENATIONS
        sources = _merged(operands, depth, joins)
        if node.op == "call_module" and is_layer(name):
            edges += [
                Edge(source, name, flag) for source, flag in sources.items() if source != name
            ]
            sources, depth = {name: False}, depth + 1
            depths.setdefault(name, depth)  # a layer that is called twice stands where it is first
        origins[node] = _Origin(sources, depth)
    return edges, depths


def _merged(operands: list[_Origin], deepest: int, joins: bool) -> dict[str, bool]:
    """Union of the operands' sources; shallower operands are shortcuts where branches join."""
    merged: dict[str, bool] = {}
    for operand in operands:
        for source, flag in operand.sources.items():
            shortcut = flag or (joins and operand.depth < deepest)
            merged[source] = merged.get(source, True) and shortcut
    return merged
