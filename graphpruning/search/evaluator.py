"""How accurate a candidate is on the search split."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
from torch import Tensor

from graphpruning.common.distributed import require_same, share, sum_over_ranks
from graphpruning.network.graph import ChannelGraph, Widths
from graphpruning.network.subnet import Batch, Batches, LayerWeights, Statistics, Subnet


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
        search: Sequence[Batch],
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
    def recalibration_images(self) -> int:
        """Images that give a candidate its statistics; counted by a pass over the batches."""
        return 0 if self.statistics_of else sum(len(labels) for _, labels in self.calibration)

    @cached_property
    def search_images(self) -> int:
        """Images of the search split; counted by a pass over the batches."""
        return sum(len(labels) for _, labels in self.search)

    @property
    def images_per_candidate(self) -> int:
        """Images that one candidate takes."""
        return self.recalibration_images + self.search_images

    @property
    def images_seen(self) -> int:
        return self.candidates * self.images_per_candidate

    def __call__(
        self, widths: Widths, recalibrated: bool = True, weights: LayerWeights | None = None
    ) -> float:
        """Return the accuracy of `widths` in percent, with `weights` in place of their own.

        Without recalibration every mean is 0 and every variance 1, as in a fresh network: the
        accuracy is then near chance, which is shown beside the real one.

        Raises:
            UserError: when the processes ask for different widths.
        """
        hits_on = self.hits_of(widths, recalibrated, weights)
        return percent(hits_on(range(len(self.search))))

    @torch.no_grad()
    def hits_of(
        self, widths: Widths, recalibrated: bool = True, weights: LayerWeights | None = None
    ) -> Callable[[Sequence[int]], Tensor]:
        """Begin to judge `widths`; return a function of numbers of batches of the search split.

        It returns which of their images the network gets right, bool [images], in their order, in
        all processes. Arguments and errors are those of `__call__`.
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
        with self.autocast():
            scores = self.subnet.judging(weights, statistics)
        self.candidates += 1

        @torch.no_grad()
        def hits_on(numbers: Sequence[int]) -> Tensor:
            own = {}
            with self.autocast():
                for place, number in share(numbers):
                    images, labels = self.search[number]
                    logits = scores(images)
                    best = logits.topk(min(self.top, logits.shape[1])).indices
                    own[place] = (best == labels[:, None]).any(dim=1)
            return _joined(own, len(numbers))

        return hits_on

    @torch.no_grad()
    def statistics(self, widths: Widths, weights: LayerWeights) -> Statistics:
        """Return the statistics of the network at `widths`, which has `weights`."""
        if self.statistics_of:
            return self.statistics_of(widths)
        with self.autocast():
            return self.subnet.recalibrate(weights, self.calibration)


def percent(hits: Tensor) -> float:
    """The share of what is true, in percent."""
    return 100 * int(hits.sum()) / len(hits)


def _joined(own: dict[int, Tensor], places: int) -> Tensor:
    """Put together what every process found [images] at its places, in the order of places."""
    sizes = torch.zeros(places, dtype=torch.int64)
    for place, found in own.items():
        sizes[place] = len(found)
    ends = sum_over_ranks(sizes).cumsum(0).tolist()
    whole = torch.zeros(ends[-1] if ends else 0, dtype=torch.int64)
    for place, found in own.items():
        whole[ends[place] - len(found) : ends[place]] = found.cpu()
    return sum_over_ranks(whole).bool()
