"""The PruningNet: weights for a sub-network of any width, trained jointly and from scratch."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphpruning.network.graph import ChannelGraph, Widths, cut_direct, direct_tensor, kept
from graphpruning.network.importance import Reordering, by_importance, in_order
from graphpruning.network.leaves import filters
from graphpruning.network.subnet import LayerWeights, Subnet
from graphpruning.network.widths import SearchSpace
from graphpruning.pruningnet.aggregator import GraphAggregator, conditioned
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.pruningnet.dense import DenseAggregator
from graphpruning.pruningnet.generator import WeightGenerator
from graphpruning.pruningnet.terms import OtherTerms


class PruningNet(nn.Module):
    """Conditioning, one weight generator a layer, and the network that runs their weights.

    Batch normalisation has no scale and shift (see `Subnet`), unless the conditioning inherits:
    then it has `terms`, and `start_from` is to be called before training.

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
            WeightGenerator(layer, size, features.flat)
            for layer, size in zip(graph.layers, features.sizes, strict=True)
        )
        self.names = [layer.name for layer in graph.layers]
        self.subnet = Subnet(graph)
        self.terms = OtherTerms(graph) if CONDITIONINGS[conditioning].inherit else None

    def start_from(self, base: nn.Module) -> None:
        """Begin with the weights of the trained `base`, which is the network of the graph.

        The maps' constant terms are its weights, and everything else in them is 0. The channels of
        a group are put in order of importance (see `by_importance`), where their order does not
        matter (see `in_order`). So the network computes what
        `base` computes at full widths, and at others what is left of it without the least
        important channels. Batch normalisation's statistics are not taken.
        """
        assert self.terms is not None, "the conditioning does not inherit"
        graph = self.subnet.graph
        ordered = in_order(graph)
        order = {n: u for n, u in by_importance(base, graph).items() if n not in ordered}
        reordering = Reordering(graph, order)
        for layer, generator in zip(graph.layers, self.generators, strict=True):
            assert isinstance(generator, WeightGenerator)
            module = base.get_submodule(layer.name)
            weight, bias = filters(module), module._parameters["bias"]
            rows, columns = (
                reordering.sources(channels).to(weight.device)
                for channels in (layer.outputs, layer.columns)
            )
            generator.start_at(weight[rows][:, columns], None if bias is None else bias[rows])
        self.terms.start_from(base, reordering)

    def features(self, widths: Widths) -> Tensor:
        """Return the (aggregated) features [layers, size] of `widths`, layers in forward order."""
        result: Tensor = self.conditioning(widths)
        return result

    def settled_features(self) -> Callable[[Widths], Tensor]:
        """Return what `features` does with the weights as they are now, but for rounding: fast,
        for a search, which asks at every step. A later training does not reach it.
        """
        at_rest = self.conditioning
        return DenseAggregator(at_rest) if isinstance(at_rest, GraphAggregator) else self.features

    def weights(self, widths: Widths, conditioned_on: Widths | None = None) -> LayerWeights:
        """Return generated weights for every layer, cropped to `widths`, in float32.

        They are generated from the features of `widths`, or of others, which shows what features
        are worth. Autocast is off: this part is bound by memory, and half precision would only
        round it.
        """
        device = next(self.parameters()).device.type
        with torch.autocast(device, enabled=False):
            graph = self.subnet.graph
            rows = self.features(widths if conditioned_on is None else conditioned_on)
            mask = graph.first_units(widths)
            generators = zip(self.names, self.generators, rows, strict=True)
            weights: LayerWeights = {
                name: generator(row[: generator.size], mask) for name, generator, row in generators
            }
            for name, channels in graph.constants.items():  # nobody generates these
                value = direct_tensor(graph.module, name).detach().to(rows.device)
                weights[name] = (cut_direct(value, kept(channels, mask)), None)
            if self.terms is not None:
                weights |= self.terms(mask)
            return weights

    def forward(self, images: Tensor, *widths: Widths) -> Tensor:
        """Return scores [batch, classes] of `images` [batch, channels, height, width] at `widths`.

        Those at several widths stand below one another, [number of widths x batch, classes]. Batch
        normalisation uses this batch's statistics.
        """
        return torch.cat([self.subnet.logits(images, self.weights(one)) for one in widths])


class RandomWidthStep:
    """The training step: one random width vector a batch, uniform over the space's levels.

    With the sandwich rule (Yu and Huang, arXiv 1903.05134) every batch runs at the full widths and
    the smallest ones too; the loss is the mean over all. With in-place distillation (the same) the
    others learn what the full widths, which learn from the labels, say of the batch: the targets
    are the softmax of their scores, which get no gradient from it. The source adds the losses up
    and takes two random widths.

    Args:
        space: draws the widths.
        label_smoothing: share of the target that is spread evenly over all classes.
        sandwich, distil: as in the table of conditionings; with `distil` alone a batch runs at the
            full widths and the random ones.
    """

    def __init__(
        self,
        space: SearchSpace,
        label_smoothing: float,
        *,
        sandwich: bool = False,
        distil: bool = False,
    ) -> None:
        self.space = space
        self.label_smoothing = label_smoothing
        self.distil = distil
        self.others = [space.smallest] if sandwich else []
        self.full = [space.full] if sandwich or distil else []

    def __call__(
        self, net: nn.Module, images: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """Return the loss (cross-entropy, a scalar) of the batch at widths from `generator`."""
        widths = [*self.full, *self.others, self.space.sample(generator)]
        scores = net(images, *widths).float().chunk(len(widths))
        learning = scores[:1] if self.distil else scores  # from the labels
        losses = [
            F.cross_entropy(one, labels, label_smoothing=self.label_smoothing) for one in learning
        ]
        said = scores[0].detach().softmax(dim=1)
        losses += [F.cross_entropy(one, said) for one in scores[len(learning) :]]
        return torch.stack(losses).mean()
