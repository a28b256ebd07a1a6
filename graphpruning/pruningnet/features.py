"""From a width vector to node features: what each layer is, and how wide it is asked to be."""

import math

import numpy as np
import torch
from torch import Tensor

from graphpruning.network.cost import CostTable
from graphpruning.network.graph import ChannelGraph, Layer, Widths

KINDS = ("convolution", "grouped", "depthwise", "pointwise", "linear")
OCTAVES = 4
"""Frequencies of the waves that tell a layer's place: half a period over the depth, one, two, four.

Depth alone hardly tells neighbours apart, and then no aggregation can say whose width it saw
(position encodings: Vaswani et al. 2017, arXiv 1706.03762).
"""
FEATURES = (
    *KINDS,
    "kernel",
    "stride",
    "in",
    "out",
    "output size",
    "depth",
    "MACs",
    *(f"{wave} {octave}" for octave in range(OCTAVES) for wave in ("sin", "cos")),
    "ratio in",
    "ratio out",
)
RATIOS = 2
"""The last features: all that widths change."""


class NodeFeatures:
    """Features [layers, len(FEATURES)] of any width vector, each within [0, 1].

    The first columns describe the full network and never change; the last two are the shares of
    input and output channels kept by the widths asked about.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.table = CostTable(graph)
        self.fixed = _describe(graph)
        full = self.table.vector(graph.full_widths)[None]
        self.full_reads = self.table.count(self.table.reads, full)[0]
        self.full_writes = self.table.count(self.table.writes, full)[0]

    def __call__(self, widths: Widths) -> Tensor:
        """Return the features [layers, len(FEATURES)], float32 on the CPU."""
        return torch.cat([self.fixed, self.ratios(widths)], dim=1)

    def ratios(self, widths: Widths) -> Tensor:
        """Return the last of them [layers, RATIOS]: kept shares of input and output channels."""
        row = self.table.vector(widths)[None]
        read = self.table.count(self.table.reads, row)[0] / self.full_reads
        write = self.table.count(self.table.writes, row)[0] / self.full_writes
        return torch.from_numpy(np.stack([read, write], axis=1).astype(np.float32))


def _describe(graph: ChannelGraph) -> Tensor:
    """One row a layer, each column divided by its largest value."""
    rows = torch.tensor([_layer_row(layer) for layer in graph.layers], dtype=torch.float32)
    rows = rows / rows.amax(dim=0).clamp(min=1)
    one_hot = [[float(layer.kind == kind) for kind in KINDS] for layer in graph.layers]
    total = sum(layer.macs for layer in graph.layers)
    shares = torch.tensor([[layer.macs / total] for layer in graph.layers])
    return torch.cat([torch.tensor(one_hot), rows, shares, _waves(rows[:, -1:])], dim=1)


def _waves(depth: Tensor) -> Tensor:
    """Sine and cosine of `depth` [layers, 1] in [0, 1], one column each a frequency."""
    angles = depth * math.pi * 2 ** torch.arange(OCTAVES)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1) / 2 + 0.5


def _layer_row(layer: Layer) -> list[float]:
    kernel, stride, size = layer.kernel[0], layer.stride[0], layer.output_size[0]
    return [kernel, stride, layer.in_channels, layer.out_channels, size, layer.depth]


def block_ratios(graph: ChannelGraph) -> list[list[str]]:
    """For each layer the groups whose kept ratios condition it in MetaPruning.

    These are the groups that the layer's block reads or writes: one for a stem, two (in, out) for
    a plain layer or a depthwise-separable block, three (in, mid, out) for a residual block
    (liuzechun/MetaPruning, `models/resnet.py`, `models/mobilenet_v1.py`).
    """
    prunable = graph.prunable
    of_block: dict[str, list[str]] = {}
    for layer in graph.layers:
        groups = of_block.setdefault(layer.block, [])
        for group in (*layer.reads, *layer.writes):
            if group in prunable and group not in groups:
                groups.append(group)
    return [of_block[layer.block] for layer in graph.layers]
