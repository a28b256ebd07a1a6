"""The PruningNet: weights for a sub-network of any width, trained jointly and from scratch."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphpruning.network.graph import ChannelGraph, Widths, cut_direct, direct_tensor, kept
from graphpruning.network.subnet import LayerWeights, Subnet
from graphpruning.network.widths import SearchSpace
from graphpruning.pruningnet.aggregator import conditioned
from graphpruning.pruningnet.generator import WeightGenerator


class PruningNet(nn.Module):
    """Conditioning, one weight generator a layer, and the network that runs their weights.

    Batch normalisation has no scale and shift; see `Subnet`.

    Args:
        graph: of the network whose weights are generated.
        conditioning: a name in `CONDITIONINGS`, such as "graph" (the graph aggregator), "none" (the
            same without edges) or "block" (MetaPruning's).
    """

    def __init__(self, graph: ChannelGraph, conditioning: str) -> None:
        super().__init__()
        features = conditioned(graph, conditioning)
        self.conditioning: nn.Module = features
        self.generators = nn.ModuleList(
            WeightGenerator(layer, size)
            for layer, size in zip(graph.layers, features.sizes, strict=True)
        )
        self.names = [layer.name for layer in graph.layers]
        self.subnet = Subnet(graph)

    def features(self, widths: Widths) -> Tensor:
        """Return the (aggregated) features [layers, size] of `widths`, layers in forward order."""
        result: Tensor = self.conditioning(widths)
        return result

    def weights(self, widths: Widths) -> LayerWeights:
        """Return generated weights for every layer, cropped to `widths`, in float32.

        Autocast is off: this part is bound by memory, and half precision would only round it.
        """
        device = next(self.parameters()).device.type
        with torch.autocast(device, enabled=False):
            graph = self.subnet.graph
            rows, mask = self.features(widths), graph.first_units(widths)
            generators = zip(self.names, self.generators, rows, strict=True)
            weights: LayerWeights = {
                name: generator(row[: generator.size], mask) for name, generator, row in generators
            }
            for name, channels in graph.constants.items():  # nobody generates these
                value = direct_tensor(graph.module, name).detach().to(rows.device)
                weights[name] = (cut_direct(value, kept(channels, mask)), None)
            return weights

    def forward(self, images: Tensor, widths: Widths) -> Tensor:
        """Return scores [batch, classes] of `images` [batch, channels, height, width] at `widths`.

        Batch normalisation uses this batch's statistics.
        """
        return self.subnet.logits(images, self.weights(widths))


class RandomWidthStep:
    """The training step: one random width vector a batch, uniform over the space's levels.

    Args:
        space: draws the widths.
        label_smoothing: share of the target that is spread evenly over all classes.
    """

    def __init__(self, space: SearchSpace, label_smoothing: float) -> None:
        self.space = space
        self.label_smoothing = label_smoothing

    def __call__(
        self, net: nn.Module, images: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """Return the loss (cross-entropy, a scalar) of the batch at widths from `generator`."""
        logits = net(images, self.space.sample(generator))
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
