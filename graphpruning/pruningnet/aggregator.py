"""From node features to what each layer's weights are generated from, and the agent's states.

All conditionings map widths to features [layers, size], where the layer's generator reads the
first `sizes[layer]` of its row: over the graph (GraphPruning), its ablations (fewer edges, other
convolutions, no features at all), and by the widths of a layer's own block (MetaPruning).
"""

import warnings
from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphpruning.network.graph import ChannelGraph, Edge, Widths
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.pruningnet.features import FEATURES, RATIOS, NodeFeatures, block_ratios

with warnings.catch_warnings():  # PyG scripts a few functions; that is not the user's concern
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    from torch_geometric import nn as convolutions
    from torch_geometric.nn.conv.gcn_conv import gcn_norm


HIDDEN, DEPTH, SIZE = 64, 4, 32
"""Channels of a graph convolution, how many there are, and the length of a layer's feature."""
NORM = 0.7
"""Length (Euclidean) of a layer's feature. Beside the constant 1 that a generator adds to it, this
is how much of a weight depends on widths, and of its learning rate."""
MIDDLE, SPREAD = 0.625, 0.25
"""Kept ratios are taken from the middle of a quarter to one, in units of about their deviation:
else what never changes would hide what does."""
DAMPING = 8.0
"""A feature's gradient is divided by this and the root of the number of weights that it generates.

It is a sum over them all: undivided it drives the units, within the first steps, to where no width
moves them."""
BOTTLENECK = 64
"""Length of a layer's feature in MetaPruning's inverted residual blocks."""
EDGES: dict[str, Callable[[Edge], bool]] = {
    "all": lambda edge: True,
    "none": lambda edge: False,
    "no-shortcuts": lambda edge: not edge.shortcut,
}
"""Which edges of the channel graph the aggregator uses."""


class GraphAggregator(nn.Module):
    """Graph convolutions over the channel graph: aggregated features [layers, SIZE].

    With GCN (Kipf and Welling, arXiv 1609.02907), node features X [layers, FEATURES] and learnt
    matrices W and biases b (left out here) they are

        H_0 = P(S) + P'(S) r_in + P''(S) r_out  (by layer, elementwise),
        H_i = H_i-1 + silu(A H_i-1 W_i)  for i from 1 to DEPTH,  A = D^-1/2 (E + I) D^-1/2,
        F = NORM (H W - mean) / |H W - mean|  by layer,

    where S are the node features that widths do not change and r the standardised kept ratios, P,
    P', P'' one perceptron's outputs, E the chosen edges in both directions, D the degrees of E + I.
    So each layer's ratios enter along directions of its own, and are not lost in a sum with others.
    Without any edge this is a perceptron that sees one node at a time.

    Gradients that reach it are damped (see `DAMPING`). Together with the residual sums and the
    fixed length of a feature that keeps the features alive. Generators start without any
    dependence on them (`flat`), so that all dependence on widths is learnt.

    Args:
        convolution: one of PyG's by name: `GCNConv`, `SAGEConv` (arXiv 1706.02216) or `GATConv`
            (arXiv 1710.10903).
        edges: a key of `EDGES`.
    """

    edge_index: Tensor
    edge_weight: Tensor | None
    damping: Tensor
    flat = True

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
        described = len(FEATURES) - RATIOS
        self.lift = nn.Sequential(
            nn.Linear(described, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, (1 + RATIOS) * HIDDEN)
        )
        self.convolutions = nn.ModuleList(layer(HIDDEN, HIDDEN, **settings) for _ in range(DEPTH))
        self.head = nn.Linear(HIDDEN, SIZE)
        weights = [layer.out_channels * layer.fan_in * prod(layer.kernel) for layer in graph.layers]
        damping = torch.tensor(weights, dtype=torch.float32).rsqrt()[:, None] / DAMPING
        self.register_buffer("damping", damping, persistent=False)
        self.register_buffer("edge_index", index, persistent=False)
        self.register_buffer("edge_weight", weight, persistent=False)

    def forward(self, widths: Widths) -> Tensor:
        """Return the aggregated features [layers, SIZE] of `widths`, layers in forward order."""
        nodes = self.node_features(widths).to(self.edge_index.device)
        ratios = (nodes[:, -RATIOS:] - MIDDLE) / SPREAD
        base, *slopes = self.lift(nodes[:, :-RATIOS]).chunk(1 + RATIOS, dim=1)
        moves = (slope * ratio for slope, ratio in zip(slopes, ratios.split(1, dim=1), strict=True))
        hidden = sum(moves, start=base)
        for convolution in self.convolutions:
            seen = convolution(hidden, self.edge_index, self.edge_weight)
            hidden = hidden + F.silu(seen)
        features: Tensor = F.layer_norm(self.head(hidden), (SIZE,)) * (NORM / SIZE**0.5)
        if features.requires_grad:
            features.register_hook(lambda gradient: (gradient * self.damping).to(gradient.dtype))
        return features


class NoConditioning(nn.Module):
    """Features of size 0: every layer's weights are learnt as they are, whatever the widths.

    The control of all others: a set of shared weights, as in slimmable networks (arXiv 1812.08928).
    """

    nothing: Tensor
    flat = True

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__()
        self.sizes = [0] * len(graph.layers)
        self.register_buffer("nothing", torch.zeros(len(graph.layers), 0), persistent=False)

    def forward(self, widths: Widths) -> Tensor:
        """Return features [layers, 0]."""
        return self.nothing


class BlockConditioning(nn.Module):
    """MetaPruning's (arXiv 1903.10258): of each layer ReLU(W r + b), learnt W [size, k], b [size].

    r [k] are the kept ratios of its block, see `block_ratios`. The size is `SIZE`, and `BOTTLENECK`
    in an inverted residual block: one with a depthwise layer and more than one other
    (liuzechun/MetaPruning, `mobilenetv2/training/mobilenet_v2.py`).
    """

    flat = False

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


def conditioned(graph: ChannelGraph, conditioning: str) -> "Conditioning":
    """Return what the row `conditioning` of the table of conditionings says, for `graph`."""
    row = CONDITIONINGS[conditioning]
    return AGGREGATORS[row.aggregator](graph, **row.options)


Conditioning = GraphAggregator | BlockConditioning | NoConditioning
AGGREGATORS: dict[str, Callable[..., Conditioning]] = {
    "GraphAggregator": GraphAggregator,
    "BlockConditioning": BlockConditioning,
    "NoConditioning": NoConditioning,
}
"""By the names that the table of conditionings calls them."""


def _both_directions(graph: ChannelGraph, chosen: Callable[[Edge], bool]) -> Tensor:
    position = {layer.name: index for index, layer in enumerate(graph.layers)}
    pairs = sorted(
        {(position[edge.source], position[edge.target]) for edge in graph.edges if chosen(edge)}
    )
    forward = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    return torch.cat([forward, forward.flip(0)], dim=1)
