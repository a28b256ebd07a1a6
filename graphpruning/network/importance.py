"""Which channels of a trained network matter most, and the network's channels in that order."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphpruning.network.graph import FIXED, ChannelGraph, Channels
from graphpruning.network.leaves import filters


@torch.no_grad()
def by_importance(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return each prunable group's units (int64, numbered within it), the most important first.

    The importance of a channel is the L1 norm of the weights by which it is read, summed over all
    layers that read it but the depthwise ones, which only pass it on. A unit's is that of its
    channels.
    """
    norms = torch.zeros(len(graph.first_units(graph.full_widths)))
    for layer in graph.layers:
        weight = filters(model.get_submodule(layer.name))
        if layer.kind != "depthwise":
            # [parts of a grouped convolution, filters, columns, kernel]
            parts = weight.abs().flatten(2) if weight.ndim > 2 else weight.abs()[..., None]
            columns = parts.view(layer.groups, -1, *parts.shape[1:]).sum(dim=(1, 3))
            norms.index_add_(0, layer.inputs % len(norms), columns.flatten().cpu().float())
    return {
        name: norms[group.first : group.first + group.width // group.unit].argsort(
            descending=True, stable=True
        )
        for name, group in graph.prunable.items()
    }


def in_order(graph: ChannelGraph) -> set[str]:
    """Prunable groups whose channels depend on their neighbours, so that their order matters: a
    filter that slides over channels (ECA) reads them, or a local response normalisation.
    """
    found: set[str] = set()
    for node in graph.module.graph.nodes:
        part = graph.module.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(part, nn.LocalResponseNorm) or node.target is F.local_response_norm:
            return set(graph.prunable)
        if isinstance(part, nn.Conv1d):
            channels, _ = graph.filters[node.name]
            for name, group in graph.prunable.items():
                last = group.first + group.width // group.unit
                if ((group.first <= channels) & (channels < last)).any():
                    found.add(name)
    return found


class Reordering:
    """Every group's channels in another order, the same one in all layers of the group.

    The network computes what it did, because whoever reads a channel finds it in its new place.

    Args:
        order: of each prunable group, its units in the new order, as `by_importance` gives it.
    """

    def __init__(self, graph: ChannelGraph, order: Mapping[str, Tensor]) -> None:
        self.units = torch.arange(len(graph.first_units(graph.full_widths)))
        self.units[FIXED] = FIXED
        for name, units in order.items():
            first = graph.prunable[name].first
            self.units[first : first + len(units)] = first + units

    def sources(self, channels: Channels) -> Tensor:
        """Return int64 [channels]: which of a tensor's channels goes to each place.

        A unit may have several channels in a tensor (a flattened image, a grouped convolution):
        the first one goes where the first one of the other unit was, and so on.
        """
        result = torch.empty_like(channels)
        result[self.units[channels].argsort(stable=True)] = channels.argsort(stable=True)
        return result
