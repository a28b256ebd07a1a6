"""The graph aggregator at rest, as a few dense products: what a search asks for at every step.

A graph of layers is small: PyTorch Geometric's many calls take longer than all of the arithmetic.
`GraphAggregator` remains the definition; while weights are learnt, it alone is used.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphpruning.network.graph import Widths
from graphpruning.pruningnet.aggregator import MIDDLE, NORM, SIZE, SPREAD, GraphAggregator
from graphpruning.pruningnet.features import RATIOS

Convolution = Callable[[Tensor], Tensor]
"""Of the layers' hidden features [layers, HIDDEN]."""


class DenseAggregator:
    """What `aggregator` says, with its weights as they are now: features [layers, SIZE] on the CPU.

    They are equal but for rounding. What widths do not change is computed here, once.
    """

    def __init__(self, aggregator: GraphAggregator) -> None:
        with torch.no_grad():
            nodes = aggregator.node_features
            fixed = nodes.fixed.to(aggregator.edge_index.device)
            self.parts = [part.cpu() for part in aggregator.lift(fixed).chunk(1 + RATIOS, dim=1)]
            index, weight = aggregator.edge_index.cpu(), aggregator.edge_weight
            # [target, source]: how often an edge is there, or the sum of its weights
            edges = torch.zeros(len(fixed), len(fixed))
            values = torch.ones(index.shape[1]) if weight is None else weight.cpu()
            edges.index_put_((index[1], index[0]), values, accumulate=True)
            self.convolutions = [_dense(one, edges) for one in aggregator.convolutions]
            self.head = _copy(aggregator.head.weight).T, _copy(aggregator.head.bias)
        self.nodes = nodes

    def __call__(self, widths: Widths) -> Tensor:
        """Return the aggregated features [layers, SIZE] of `widths`, layers in forward order."""
        with torch.inference_mode():
            ratios = (self.nodes.ratios(widths) - MIDDLE) / SPREAD
            hidden, *slopes = self.parts
            for slope, ratio in zip(slopes, ratios.split(1, dim=1), strict=True):
                hidden = torch.addcmul(hidden, slope, ratio)
            for convolution in self.convolutions:
                hidden = hidden + F.silu(convolution(hidden))
            weight, bias = self.head
            features = torch.addmm(bias, hidden, weight)
            scaled: Tensor = F.layer_norm(features, (SIZE,)) * (NORM / SIZE**0.5)
            return scaled


def _dense(convolution: Any, edges: Tensor) -> Convolution:
    """One of PyG's convolutions over `edges` [target, source], with default settings."""
    kinds = {"GCNConv": _gcn, "SAGEConv": _sage, "GATConv": _gat}
    return kinds[type(convolution).__name__](convolution, edges)


def _gcn(convolution: Any, edges: Tensor) -> Convolution:
    """A H W + b; A with loops and normalised, as the aggregator gives it to PyG."""
    weight, bias = _copy(convolution.lin.weight).T, _copy(convolution.bias)
    return lambda hidden: torch.addmm(bias, edges @ hidden, weight)


def _sage(convolution: Any, edges: Tensor) -> Convolution:
    """M H W + b + H W', where M takes the mean of what points to a layer."""
    mean = edges / edges.sum(dim=1, keepdim=True).clamp(min=1)
    weight, bias = _copy(convolution.lin_l.weight).T, _copy(convolution.lin_l.bias)
    own = _copy(convolution.lin_r.weight).T
    return lambda hidden: torch.addmm(bias, mean @ hidden, weight).addmm_(hidden, own)


def _gat(convolution: Any, edges: Tensor) -> Convolution:
    """softmax over sources of leaky_relu(s'HW of the source + t'HW of the target), HW, + b."""
    looped = edges.clone().fill_diagonal_(1).log()  # an edge that is not there: minus infinity
    weight, bias = _copy(convolution.lin.weight).T, _copy(convolution.bias)
    of_source, of_target = (
        _copy(getattr(convolution, name)).flatten() for name in ("att_src", "att_dst")
    )
    slope = convolution.negative_slope

    def attend(hidden: Tensor) -> Tensor:
        values = hidden @ weight
        scores = F.leaky_relu((values @ of_target)[:, None] + values @ of_source, slope)
        return torch.addmm(bias, (scores + looped).softmax(dim=1), values)

    return attend


def _copy(parameter: Tensor) -> Tensor:
    return parameter.detach().cpu().clone()
