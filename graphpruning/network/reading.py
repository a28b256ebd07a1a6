"""A network that runs and shows what its layers read and write."""

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, fx, nn

from graphpruning.network.graph import ChannelGraph
from graphpruning.network.leaves import plain, standardised_layers

Show = Callable[[str, nn.Module, Tensor, Tensor], None]
"""Called with a layer's name, its module, what it reads and what it writes."""


class Reading(fx.Interpreter):
    """Runs `model`, of which `graph` is the graph, and shows each of the `wanted` layers.

    Hooks would miss a layer whose weights are used by a function instead of a call of the module.
    """

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, wanted: Collection[str], show: Show
    ) -> None:
        super().__init__(fx.GraphModule(model, graph.module.graph))
        self.standardised = standardised_layers(graph.module)
        self.wanted = wanted
        self.show = show

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        module = self.submodules[target]
        output = plain(module, args[0], self.standardised.get(target))
        if target in self.wanted:
            self.show(target, module, args[0], output)
        return output
