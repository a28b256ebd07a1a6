"""From node features to what each layer's weights are generated from, and the agent's states.

All conditionings map widths to features [layers, size], where the layer's generator reads the
first `sizes[layer]` of its row: over the graph (GraphPruning), its ablations (fewer edges, other
convolutions), and by the widths of a layer's own block (MetaPruning).
"""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphpruning.network.graph import ChannelGraph, Edge, Widths
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.pruningnet.features import FEATURES, NodeFeatures, block_ratios

with warnings.catch_warnings():  # PyG scripts a few functions; that is not the user's concern
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    from torch_geometric import nn as convolutions
    from torch_geometric.nn.conv.gcn_conv import gcn_norm


HIDDEN, SIZE = 64, 32
"""Channels of the aggregator's two layers; SIZE is the length of a layer's feature."""
BOTTLENECK = 64
"""Length of a layer's feature in MetaPruning's inverted residual blocks."""
LEAK = 0.1
"""Slope of the aggregator's activation below zero."""
EDGES: dict[str, Callable[[Edge], bool]] = {
    "all": lambda edge: True,
    "none": lambda edge: False,
    "no-shortcuts": lambda edge: not edge.shortcut,
}
"""Which edges of the channel graph the aggregator uses."""


class GraphAggregator(nn.Module):
    """Two graph convolutions over the channel graph: aggregated features [layers, SIZE].

    With GCN (Kipf and Welling, arXiv 1609.02907) they are

        f(A f(A X W1 + b1) W2 + b2), A = D^-1/2 (E + I) D^-1/2,

    where X [layers, FEATURES] are the node features of the widths, E the chosen edges in both
    directions, D the degrees of E + I, f a leaky ReLU, and W1, b1, W2, b2 are learnt. Without any
    edge this is a perceptron that sees one node at a time.

    Gradients reach the aggregator summed over all the weights that a feature generates: with a
    plain ReLU every unit is dead within an epoch, and the features no longer know of any width.
    Hence the leak.

    Args:
        convolution: one of PyG's by name: `GCNConv`, `SAGEConv` (arXiv 1706.02216) or `GATConv`
            (arXiv 1710.10903).
        edges: a key of `EDGES`.
    """

    edge_index: Tensor
    edge_weight: Tensor | None

    def __init__(
        self,
        graph: ChannelGraph,
        convolution: str = "GCNConv",
        edges: str = "all",
    ) -> None:
        super().__init__()
        self.sizes = [SIZE] * len(graph.layers)
        self.node_features = NodeFeatures(graph)
        index, weight = _both_directions(graph, EDGES[edges]), None
        settings = {}
        if convolution == "GCNConv":  # the graph stays, and so does its normalisation
            index, weight = gcn_norm(index, num_nodes=len(graph.layers))
            settings = {"normalize": False}
        layer = getattr(convolutions, convolution)
        self.first = layer(len(FEATURES), HIDDEN, **settings)
        self.second = layer(HIDDEN, SIZE, **settings)
        self.register_buffer("edge_index", index, persistent=False)
        self.register_buffer("edge_weight", weight, persistent=False)

    def forward(self, widths: Widths) -> Tensor:
        """Return the aggregated features [layers, SIZE] of `widths`, layers in forward order."""
        nodes = self.node_features(widths).to(self.edge_index.device)
        hidden = F.leaky_relu(self.first(nodes, self.edge_index, self.edge_weight), LEAK)
        return F.leaky_relu(self.second(hidden, self.edge_index, self.edge_weight), LEAK)


class BlockConditioning(nn.Module):
    """MetaPruning's (arXiv 1903.10258): of each layer ReLU(W r + b), learnt W [size, k], b [size].

    r [k] are the kept ratios of its block, see `block_ratios`. The size is `SIZE`, and `BOTTLENECK`
    in an inverted residual block: one with a depthwise layer and more than one other
    (liuzechun/MetaPruning, `mobilenetv2/training/mobilenet_v2.py`).
    """

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__()
        self.groups = block_ratios(graph)
        self.full = graph.full_widths
        kinds: dict[str, list[str]] = {}
        for layer in graph.layers:
            kinds.setdefault(layer.block, []).append(layer.kind)
        self.sizes = [
            BOTTLENECK
            if "depthwise" in kinds[layer.block] and len(kinds[layer.block]) > 2
            else SIZE
            for layer in graph.layers
        ]
        self.layers = nn.ModuleList(
            nn.Linear(len(groups), size)
            for groups, size in zip(self.groups, self.sizes, strict=True)
        )

    def forward(self, widths: Widths) -> Tensor:
        """Return the conditioning features [layers, largest size] of `widths`, 0 beyond a size."""
        device, longest = next(self.parameters()).device, max(self.sizes)
        rows = []
        for groups, linear in zip(self.groups, self.layers, strict=True):
            ratios = torch.tensor([widths[group] / self.full[group] for group in groups])
            row = torch.relu(linear(ratios.to(device)))
            rows.append(F.pad(row, (0, longest - len(row))))
        return torch.stack(rows)


def conditioned(graph: ChannelGraph, conditioning: str) -> "GraphAggregator | BlockConditioning":
    """Return what the row `conditioning` of the table of conditionings says, for `graph`."""
    row = CONDITIONINGS[conditioning]
    return AGGREGATORS[row.aggregator](graph, **row.options)


AGGREGATORS: dict[str, Callable[..., GraphAggregator | BlockConditioning]] = {
    "GraphAggregator": GraphAggregator,
    "BlockConditioning": BlockConditioning,
}
"""By the names that the table of conditionings calls them."""


def _both_directions(graph: ChannelGraph, chosen: Callable[[Edge], bool]) -> Tensor:
    position = {layer.name: index for index, layer in enumerate(graph.layers)}
    pairs = sorted(
        {(position[edge.source], position[edge.target]) for edge in graph.edges if chosen(edge)}
    )
    forward = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    return torch.cat([forward, forward.flip(0)], dim=1)
