"""Predictors of accuracy that are small neural networks, each an ensemble of `MEMBERS`.

All members are trained at once, on the same vectors, from weights of their own; they are one
network whose weights have an axis of members. A mean over members is what is predicted, their
standard deviation its uncertainty.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import to_dense_adj, to_undirected

from graphpruning.network.cost import Counts
from graphpruning.network.graph import ChannelGraph
from graphpruning.pruningnet.features import RATIOS, NodeFeatures

Values = NDArray[np.float64]
MEMBERS = 4
HIDDEN = 32
FEWEST, MOST, PER_STEP = 40, 300, 4
"""Steps of AdamW: the fewest and one more for every so many vectors, up to the most. A longer
training on few vectors learns their luck by heart."""
BATCH = 64
"""Vectors in a step; all of them where there are no more."""
RATE = 0.01
"""The learning rate at the start, from where it falls to 0."""
CHUNK = 100
"""Vectors that are predicted at once."""


class Linear(nn.Module):
    """A linear map [members, rows, size] -> [members, rows, out] of each member."""

    def __init__(self, size: int, out: int, generator: Generator) -> None:
        super().__init__()
        weight = torch.randn(MEMBERS, size, out, generator=generator) / size**0.5
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(MEMBERS, 1, out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Ensemble:
    """Fits a network [vectors, ...] -> [members, vectors] to standardised accuracies, with
    AdamW's weight decay `decay`.
    """

    def __init__(self, network: nn.Module, decay: float, generator: Generator) -> None:
        self.network, self.decay, self.generator = network, decay, generator

    def fit(self, inputs: Tensor, accuracies: Values) -> None:
        """Train on `inputs` [n, ...], by the mean squared error."""
        y = torch.tensor(accuracies, dtype=torch.float32)
        self.level, self.spread = float(y.mean()), float(y.std(correction=0)) or 1.0
        y = (y - self.level) / self.spread
        steps = min(MOST, FEWEST + len(y) // PER_STEP)
        optimizer = torch.optim.AdamW(self.network.parameters(), RATE, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            chosen = torch.randperm(len(y), generator=self.generator)[:BATCH]
            loss = (self.network(inputs[chosen]) - y[chosen]).square().mean(dim=1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> tuple[Values, Values]:
        """Mean and standard deviation [n] over the members."""
        found = torch.cat([self.network(part) for part in inputs.split(CHUNK)], dim=1).double()
        mean, deviation = found.mean(dim=0), found.std(dim=0)
        return self.level + self.spread * mean.numpy(), self.spread * deviation.numpy()


class Perceptron:
    """Two hidden layers on features [n, size] of width vectors."""

    decay = 5.0

    def __init__(self, features: Callable[[Counts], Values], seed: int) -> None:
        self.features, self.seed = features, seed

    def fit(self, vectors: Counts, accuracies: Values) -> None:
        x = self._inputs(vectors)
        generator = Generator().manual_seed(self.seed)
        self.ensemble = Ensemble(_Layers(x.shape[1], generator), self.decay, generator)
        self.ensemble.fit(x, accuracies)

    def predict(self, vectors: Counts) -> tuple[Values, Values]:
        return self.ensemble.predict(self._inputs(vectors))

    def _inputs(self, vectors: Counts) -> Tensor:
        return torch.tensor(self.features(vectors), dtype=torch.float32)


class _Layers(nn.Module):
    def __init__(self, size: int, generator: Generator) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Linear(size, HIDDEN, generator),
            nn.SiLU(),
            Linear(HIDDEN, HIDDEN, generator),
            nn.SiLU(),
            Linear(HIDDEN, 1, generator),
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x.expand(MEMBERS, *x.shape))
        return found[:, :, 0]


@dataclass(frozen=True)
class Nodes:
    """A network's layers as a predictor sees them: `fixed` [layers, size] describe them at full
    width, `mixing` [layers, layers] is what a graph convolution multiplies by.
    """

    features: NodeFeatures
    fixed: Tensor
    mixing: Tensor

    @classmethod
    def of(cls, graph: ChannelGraph, edges: bool) -> "Nodes":
        """Those of `graph`; without `edges` no layer sees another."""
        features = NodeFeatures(graph)
        return cls(
            features, features.fixed, _mixing(graph) if edges else torch.eye(len(graph.layers))
        )

    def ratios(self, vectors: Counts) -> Tensor:
        """Logarithms of the shares of input and output channels kept [n, layers, 2]."""
        table = self.features.table
        read = table.count(table.reads, vectors) / self.features.full_reads
        write = table.count(table.writes, vectors) / self.features.full_writes
        return torch.tensor(np.log2(np.stack([read, write], axis=2)) + 1, dtype=torch.float32)


def _mixing(graph: ChannelGraph) -> Tensor:
    """PyG's normalisation for `GCNConv`, of the edges in both directions, as a matrix."""
    position = {layer.name: index for index, layer in enumerate(graph.layers)}
    pairs = [(position[edge.source], position[edge.target]) for edge in graph.edges]
    count = len(graph.layers)
    joined = to_undirected(torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T, num_nodes=count)
    edges, weights = gcn_norm(joined, num_nodes=count)
    matrix: Tensor = to_dense_adj(edges, edge_attr=weights, max_num_nodes=count)[0]
    return matrix


class GraphNetwork:
    """Graph convolutions over the channel graph, whose sum over layers is the accuracy.

    It knows a layer by `NodeFeatures` alone, and so can be asked about another network's widths
    (`predict_of`). Without `edges` it is a sum of one function of each layer's features.
    """

    decay = 1.0

    def __init__(self, graph: ChannelGraph, seed: int, edges: bool = True) -> None:
        self.nodes, self.seed, self.edges = Nodes.of(graph, edges), seed, edges

    def fit(self, vectors: Counts, accuracies: Values) -> None:
        generator = Generator().manual_seed(self.seed)
        self.network = _Convolutions(self.nodes, generator)
        self.ensemble = Ensemble(self.network, self.decay, generator)
        self.ensemble.fit(self.nodes.ratios(vectors), accuracies)

    def predict(self, vectors: Counts) -> tuple[Values, Values]:
        return self._predict(self.nodes, vectors)

    def predict_of(self, graph: ChannelGraph, vectors: Counts) -> tuple[Values, Values]:
        """`predict` for width vectors of another network."""
        return self._predict(Nodes.of(graph, self.edges), vectors)

    def _predict(self, nodes: Nodes, vectors: Counts) -> tuple[Values, Values]:
        self.network.nodes = nodes
        return self.ensemble.predict(nodes.ratios(vectors))


class _Convolutions(nn.Module):
    """[n, layers, 2] ratios -> [members, n], with two graph convolutions on the way.

        H_0 = P(S) + P'(S) r_in + P''(S) r_out (by layer, elementwise),
        H_i = H_i-1 + silu(A H_i-1 W_i),   accuracy = mean over layers of H_2 w

    as in `GraphAggregator`: S are the features that widths do not change, A is `Nodes.mixing`.
    """

    def __init__(self, nodes: Nodes, generator: Generator) -> None:
        super().__init__()
        self.nodes = nodes
        self.lift = nn.Sequential(
            Linear(nodes.fixed.shape[1], HIDDEN, generator),
            nn.SiLU(),
            Linear(HIDDEN, (1 + RATIOS) * HIDDEN, generator),
        )
        self.convolutions = nn.ModuleList(Linear(HIDDEN, HIDDEN, generator) for _ in range(2))
        self.head = Linear(HIDDEN, 1, generator)

    def forward(self, ratios: Tensor) -> Tensor:
        count, layers, _ = ratios.shape
        fixed = self.nodes.fixed.expand(MEMBERS, *self.nodes.fixed.shape)
        base, into, out = self.lift(fixed)[:, None].chunk(1 + RATIOS, dim=3)
        hidden = base + into * ratios[None, :, :, :1] + out * ratios[None, :, :, 1:]
        for convolution in self.convolutions:
            mixed = torch.matmul(self.nodes.mixing, hidden)
            seen = convolution(mixed.reshape(MEMBERS, count * layers, HIDDEN))
            hidden = hidden + F.silu(seen.view_as(hidden))
        found: Tensor = self.head(hidden.mean(dim=2))
        return found[:, :, 0]
