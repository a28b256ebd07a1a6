"""How accurate a candidate is on the search split."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import chain

import torch

from graphpruning.common.distributed import require_same, share, sum_over_ranks
from graphpruning.network.graph import ChannelGraph, Widths
from graphpruning.network.subnet import Batches, LayerWeights, Statistics, Subnet


class Evaluator:
    """Accuracy in percent of the network at given widths, with the weights of `weights_of`.

    100 x (images whose label is among the `top` best scores) / images

    Batch normalisation is recalibrated for every candidate, see `Subnet.recalibrate`. Batches are
    (images [batch, channels, height, width], labels [batch]) on the device of the weights.
    `images_seen` counts all images that went through a candidate.

    Several processes all ask for the same candidate and are given the same batches. Each runs its
    share of them, and all get the accuracy that a single process would find, to the last bit.

    Args:
        weights_of: returns the weights of widths.
        calibration: batches of training images, to recalibrate on; their labels are not read.
        search: batches of the search split, which the accuracy is that of.
        autocast: opens the precision to run in.
        top: 5 where a label among the five best scores counts.
        statistics_of: returns the statistics of widths; with it nothing is recalibrated.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        weights_of: Callable[[Widths], LayerWeights],
        calibration: Batches,
        search: Batches,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        *,
        top: int = 1,
        statistics_of: Callable[[Widths], Statistics] | None = None,
    ) -> None:
        self.subnet = Subnet(graph)
        self.weights_of = weights_of
        self.calibration = calibration
        self.search = search
        self.autocast = autocast
        self.top = top
        self.statistics_of = statistics_of
        self.candidates = 0

    @cached_property
    def images_per_candidate(self) -> int:
        """Images that one candidate takes; counted by a pass over the batches, when asked for."""
        recalibrating = () if self.statistics_of else self.calibration
        return sum(len(labels) for _, labels in chain(recalibrating, self.search))

    @property
    def images_seen(self) -> int:
        return self.candidates * self.images_per_candidate

    @torch.no_grad()
    def __call__(
        self, widths: Widths, recalibrated: bool = True, weights: LayerWeights | None = None
    ) -> float:
        """Return the accuracy of `widths` in percent, with `weights` in place of their own.

        Without recalibration every mean is 0 and every variance 1, as in a fresh network: the
        accuracy is then near chance, which is shown beside the real one.

        Raises:
            UserError: when the processes ask for different widths.
        """
        require_same(
            widths.values(),
            "the processes no longer search the same widths: "
            "let machines of one kind, with the same versions, work together",
        )
        weights = self.weights_of(widths) if weights is None else weights
        statistics = self.statistics(widths, weights)
        if not recalibrated:
            statistics = {
                name: (torch.zeros_like(mean), torch.ones_like(variance))
                for name, (mean, variance) in statistics.items()
            }
        hits, count = [], 0
        with self.autocast():
            scores = self.subnet.judging(weights, statistics)
            for _, (images, labels) in share(self.search):
                logits = scores(images)
                best = logits.topk(min(self.top, logits.shape[1])).indices
                hits.append((best == labels[:, None]).sum())
                count += len(labels)
        self.candidates += 1
        all_hits, all_images = sum_over_ranks(torch.tensor([int(sum(hits)), count])).tolist()
        return float(100 * all_hits / all_images)

    @torch.no_grad()
    def statistics(self, widths: Widths, weights: LayerWeights) -> Statistics:
        """Return the statistics of the network at `widths`, which has `weights`."""
        if self.statistics_of:
            return self.statistics_of(widths)
        with self.autocast():
            return self.subnet.recalibrate(weights, self.calibration)
