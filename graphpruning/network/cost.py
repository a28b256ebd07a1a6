"""MACs and parameters of one width vector, or of a hundred thousand, from a table of layers.

MACs are multiply-accumulates of convolution and linear layers for one image (no bias, no batch
normalisation, activation or pooling): exactly half of what `FlopCounterMode` counts.
"""

import numpy as np
from numpy.typing import NDArray
from torch import nn

from graphpruning.network.graph import (
    FIXED,
    ChannelGraph,
    Channels,
    Group,
    Widths,
    direct_tensor,
)

Counts = NDArray[np.int64]


class CostTable:
    """The layers of a graph as a few matrices, so that costs are products.

    Every count of channels is linear in the number of units that each group keeps, and so in the
    width vector `w` [groups]: a layer's filters have `columns @ u + fixed` columns for the units
    `u = w // unit`, and so on. A layer then has

        columns x filters x kernel x positions  MACs and
        (columns x kernel + bias) x filters     parameters.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.groups = list(graph.prunable)
        self.unit = np.array([group.unit for group in graph.prunable.values()], dtype=np.int64)
        layers = graph.layers
        self.columns = self._linear([layer.columns for layer in layers])
        self.reads = self._linear([layer.inputs for layer in layers])
        self.writes = self._linear([layer.outputs for layer in layers])
        self.norms = self._linear(list(graph.norms.values()))
        learnt = {
            name: channels
            for name, channels in (graph.scales | graph.constants).items()
            if isinstance(direct_tensor(graph.module, name), nn.Parameter)
        }
        self.direct = self._linear(list(learnt.values()))
        of_each = [
            direct_tensor(graph.module, name).numel() // len(learnt[name]) for name in learnt
        ]
        self.of_each = np.array(of_each, dtype=np.int64)
        self.filters = self._linear([channels for channels, _ in graph.filters.values()])
        self.each = np.array([macs for _, macs in graph.filters.values()], dtype=np.int64)
        self.kernel = np.array([layer.kernel[0] * layer.kernel[1] for layer in layers])
        self.positions = np.array([layer.output_size[0] * layer.output_size[1] for layer in layers])
        self.bias = np.array([layer.bias for layer in layers], dtype=np.int64)
        norms = [graph.module.get_submodule(name) for name in graph.norms]
        affine = [(norm.weight is not None) + (norm.bias is not None) for norm in norms]
        self.affine = np.array(affine, dtype=np.int64)

    def _linear(self, channels: list[Channels]) -> tuple[Counts, Counts]:
        """Per tensor the channels that each unit of each group has in it, and those that stay."""
        groups = list(self.graph.prunable.values())
        of_unit = np.repeat(np.arange(len(groups)), [group.width // group.unit for group in groups])
        matrix = np.zeros((len(channels), len(groups)), dtype=np.int64)
        fixed = np.zeros(len(channels), dtype=np.int64)
        for row, units in enumerate(channels):
            prunable = units[units != FIXED].numpy()
            fixed[row] = len(units) - len(prunable)
            np.add.at(matrix[row], of_unit[prunable], 1)
        return matrix // self.unit_counts(groups), fixed

    @staticmethod
    def unit_counts(groups: list[Group]) -> Counts:
        """How many units each group has at full width [groups]."""
        return np.array([group.width // group.unit for group in groups], dtype=np.int64)

    def vector(self, widths: Widths) -> Counts:
        """Return `widths` as a row [groups] in the table's order."""
        return np.array([widths[group] for group in self.groups], dtype=np.int64)

    def count(self, tensors: tuple[Counts, Counts], matrix: Counts) -> Counts:
        """Channels [vectors, tensors] that stay at width vectors `matrix` [vectors, groups]."""
        per_unit, fixed = tensors
        # NumPy has no fast product of whole numbers; in float64 one of channel counts is exact.
        counted = (matrix // self.unit).astype(np.float64) @ per_unit.T.astype(np.float64)
        result: Counts = counted.astype(np.int64) + fixed
        return result

    def layer_macs(self, matrix: Counts) -> Counts:
        """MACs of each layer [vectors, layers] for width vectors `matrix` [vectors, groups]."""
        columns, filters = self.count(self.columns, matrix), self.count(self.writes, matrix)
        result: Counts = columns * filters * (self.kernel * self.positions)
        return result

    def macs(self, matrix: Counts) -> Counts:
        """MACs [vectors] for width vectors `matrix` [vectors, groups]."""
        result: Counts = self.layer_macs(matrix).sum(axis=1)
        return result + self.count(self.filters, matrix) @ self.each

    def params(self, matrix: Counts) -> Counts:
        """Parameters [vectors]: of layers, of normalisations, used directly, and all others."""
        columns, filters = self.count(self.columns, matrix), self.count(self.writes, matrix)
        layers = (columns * self.kernel + self.bias) * filters
        norms = self.affine * self.count(self.norms, matrix)
        direct = self.of_each * self.count(self.direct, matrix)
        result: Counts = layers.sum(axis=1) + norms.sum(axis=1) + direct.sum(axis=1)
        return result + sum(self.graph.rest.values())


def macs(graph: ChannelGraph, widths: Widths) -> int:
    """Multiply-accumulates of one image at `widths`; `UserError` when the widths do not fit."""
    graph.check(widths)
    table = CostTable(graph)
    return int(table.macs(table.vector(widths)[None])[0])


def params(graph: ChannelGraph, widths: Widths) -> int:
    """Parameters of the network at `widths`; `UserError` when the widths do not fit."""
    graph.check(widths)
    table = CostTable(graph)
    return int(table.params(table.vector(widths)[None])[0])
