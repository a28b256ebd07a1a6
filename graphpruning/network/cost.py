"""MACs and parameters of one width vector, or of a hundred thousand, from a table of layers.

MACs are multiply-accumulates of convolution and linear layers for one image (no bias, no batch
normalisation, activation or pooling): exactly half of what `FlopCounterMode` counts.
"""

import numpy as np
from numpy.typing import NDArray

from graphpruning.network.graph import ChannelGraph, Segment, Widths

Counts = NDArray[np.int64]


class CostTable:
    """The layers of a graph as a few matrices, so that costs are products.

    Every width is linear in the width vector `w` [groups]: a layer reads `reads @ w + read_fixed`
    channels and writes `writes @ w + write_fixed`.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.groups = list(graph.full_widths)
        layers = graph.layers
        self.reads, self.read_fixed = self._linear([layer.inputs for layer in layers])
        self.writes, self.write_fixed = self._linear([layer.outputs for layer in layers])
        self.norms, self.norm_fixed = self._linear(list(graph.norms.values()))
        self.depthwise = np.array([layer.kind == "depthwise" for layer in layers])
        self.kernel = np.array([layer.kernel[0] * layer.kernel[1] for layer in layers])
        self.positions = np.array([layer.output_size[0] * layer.output_size[1] for layer in layers])
        self.bias = np.array([layer.bias for layer in layers], dtype=np.int64)
        affine = [graph.module.get_submodule(name).weight is not None for name in graph.norms]
        self.affine = np.array(affine, dtype=np.int64)

    def _linear(self, channels: list[tuple[Segment, ...]]) -> tuple[Counts, Counts]:
        matrix = np.zeros((len(channels), len(self.groups)), dtype=np.int64)
        fixed = np.zeros(len(channels), dtype=np.int64)
        for row, segments in enumerate(channels):
            for segment in segments:
                if segment.group in self.groups:
                    matrix[row, self.groups.index(str(segment.group))] += segment.repeat
                else:
                    fixed[row] += segment.size * segment.repeat
        return matrix, fixed

    def vector(self, widths: Widths) -> Counts:
        """Return `widths` as a row [groups] in the table's order."""
        return np.array([widths[group] for group in self.groups], dtype=np.int64)

    def layer_macs(self, matrix: Counts) -> Counts:
        """MACs of each layer [vectors, layers] for width vectors `matrix` [vectors, groups]."""
        read = matrix @ self.reads.T + self.read_fixed
        write = matrix @ self.writes.T + self.write_fixed
        return np.where(self.depthwise, 1, read) * write * (self.kernel * self.positions)

    def macs(self, matrix: Counts) -> Counts:
        """MACs [vectors] for width vectors `matrix` [vectors, groups]."""
        result: Counts = self.layer_macs(matrix).sum(axis=1)
        return result

    def params(self, matrix: Counts) -> Counts:
        """Parameters [vectors]: weights, biases and batch normalisation's scale and shift."""
        read = matrix @ self.reads.T + self.read_fixed
        write = matrix @ self.writes.T + self.write_fixed
        layers = (np.where(self.depthwise, 1, read) * self.kernel + self.bias) * write
        norms = 2 * self.affine * (matrix @ self.norms.T + self.norm_fixed)
        result: Counts = layers.sum(axis=1) + norms.sum(axis=1)
        return result


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
