"""How accurate a candidate is on the search split."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from graphpruning.network.graph import ChannelGraph, Widths
from graphpruning.network.subnet import LayerWeights, Statistics, Subnet

Batch = tuple[Tensor, Tensor]


class Evaluator:
    """Accuracy in percent of the network at given widths, with the weights of `weights_of`.

    Batch normalisation is recalibrated on the images of `calibration` (training images) for every
    candidate; accuracy is that on `search`, the search split. Batches are (images [batch,
    channels, height, width], labels [batch]) on the device of the weights; `autocast` opens the
    precision to run in. `images_seen` counts all images that went through a candidate.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        weights_of: Callable[[Widths], LayerWeights],
        calibration: Sequence[Batch],
        search: Sequence[Batch],
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.subnet = Subnet(graph)
        self.weights_of = weights_of
        self.calibration = calibration
        self.search = search
        self.autocast = autocast
        self.images_per_candidate = sum(len(labels) for _, labels in (*calibration, *search))
        self.images_seen = 0

    @torch.no_grad()
    def __call__(self, widths: Widths, recalibrated: bool = True) -> float:
        """Return the accuracy of `widths` in percent.

        Without recalibration every mean is 0 and every variance 1, as in a fresh network: the
        accuracy is then near chance, which is shown beside the real one.
        """
        weights = self.weights_of(widths)
        statistics = self.statistics(weights)
        if not recalibrated:
            statistics = {
                name: (torch.zeros_like(mean), torch.ones_like(variance))
                for name, (mean, variance) in statistics.items()
            }
        with self.autocast():
            hits = [
                (self.subnet.logits(images, weights, statistics).argmax(dim=1) == labels).sum()
                for images, labels in self.search
            ]
        self.images_seen += self.images_per_candidate
        return 100 * int(torch.stack(hits).sum()) / sum(len(labels) for _, labels in self.search)

    @torch.no_grad()
    def statistics(self, weights: LayerWeights) -> Statistics:
        """Return the recalibrated statistics of the network that has `weights`."""
        with self.autocast():
            return self.subnet.recalibrate(weights, (images for images, _ in self.calibration))
