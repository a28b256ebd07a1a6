"""A traced network as a list of steps, to be run again and again without gradients.

`fx.Interpreter` does the same, but spends on each operation what a small layer takes to compute.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

Function = Callable[..., Any]

_IN_PLACE: dict[Any, Function] = {
    F.relu: torch.relu_,
    torch.relu: torch.relu_,
    nn.ReLU: torch.relu_,
    F.relu6: lambda x: F.relu6(x, inplace=True),
    nn.ReLU6: lambda x: F.relu6(x, inplace=True),
}


@dataclass(frozen=True)
class _Step:
    """`place` is where its result goes; `only` is the place of its argument, if it has one and
    nothing else. What lies at `last` is read by no later step."""

    node: fx.Node
    place: int
    only: int | None
    last: tuple[int, ...]


class Program:
    """The steps of `module`, a traced network without side effects."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.places = {node: place for place, node in enumerate(module.graph.nodes)}
        last_reader = {read: node for node in self.places for read in node.all_input_nodes}
        self.steps = []
        for node, place in self.places.items():
            last = tuple(self.places[read] for read, by in last_reader.items() if by is node)
            alone = len(node.args) == 1 and isinstance(node.args[0], fx.Node) and not node.kwargs
            only = self.places[node.args[0]] if alone else None
            self.steps.append(_Step(node, place, only, last))
        modules = dict(module.named_modules())
        self.in_place = {
            node: _IN_PLACE[kind]
            for node in self.places
            if (kind := _kind(node, modules)) in _IN_PLACE
            and len(node.args) == len(node.all_input_nodes) == 1
            and _may_be_overwritten(node.all_input_nodes[0], modules)
        }
        """Activations whose argument nobody else reads: they may replace it by their result."""

    def run(self, images: Tensor, functions: Mapping[fx.Node, Function]) -> Tensor:
        """Return the network's result for `images`; `functions` are what its modules and its
        parameters compute, called as their nodes call.
        """
        held: list[Any] = [None] * len(self.steps)
        result: Any = images
        for step in self.steps:
            node = step.node
            if node.op != "placeholder":
                own: Any = self.in_place.get(node) or functions.get(node) or node.target
                if step.only is not None and callable(own):
                    result = own(held[step.only])
                else:
                    result = self._called(node, own, held)
            held[step.place] = result
            for place in step.last:
                held[place] = None
        value: Tensor = result  # the last step is the output
        return value

    def _called(self, node: fx.Node, function: Any, held: list[Any]) -> Any:
        """The result of a node with any arguments."""
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda read: held[self.places[read]]
        )
        if node.op == "output":
            return args[0]
        if node in self.in_place:
            return function(args[0])
        if node.op == "call_method":
            return getattr(args[0], function)(*args[1:], **kwargs)
        return function(*args, **kwargs)


def _kind(node: fx.Node, modules: Mapping[str, nn.Module]) -> Any:
    """The function that a node calls, or the class of its module."""
    if node.op == "call_module":
        return type(modules[str(node.target)])
    return node.target if node.op == "call_function" else None


def _may_be_overwritten(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether its result is new memory, which a single node reads."""
    kind = _kind(node, modules)
    return len(node.users) == 1 and kind in (nn.Conv2d, nn.BatchNorm2d, operator.add, torch.add)
