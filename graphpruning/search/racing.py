"""Judge candidates on a part of the images where that is enough to tell that they are behind.

Where a candidate is far from the best one, a few hundred images show it. So every candidate is
compared with the best one so far, image by image, after 1/16, 1/8, 1/4 and 1/2 of the search split,
and stopped when it is behind by more than chance explains. The test is McNemar's, in its exact
one-sided form: of the images that only one of the two gets right, as many would be the candidate's
as the best one's if both were equally good,

    p = P[Binomial(n, 1/2) >= b],   n: images that one alone gets right, b: the best one's of them,

and the candidate is stopped at p <= chance / looks (Bonferroni, so that in all its looks together
a candidate that gets as many of the whole split right is stopped with probability `chance` at
most). The best so far is also the luckiest on this split; one that is as good on other images may
look behind, and is stopped more often. The images must come in a random order. A race of this kind
is that of Maron and Moore 1997 and of Birattari et al. 2002.
"""

from itertools import pairwise
from math import ceil

import torch
from scipy.special import bdtrc
from torch import Tensor

from graphpruning.network.graph import Widths
from graphpruning.search.evaluator import Evaluator, percent
from graphpruning.search.history import Candidate

LOOKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the search split's batches after which a candidate may be stopped."""
CHANCE = 0.01
"""The most often that one as good as the best on the whole split may be stopped."""


class Race:
    """Answers as `evaluator` does, with less work where a candidate is behind.

    A candidate that is never behind is judged on the whole split and has the accuracy that
    `evaluator` says. That of one that is stopped is estimated by the best one's: it is lower by
    as much as on the images seen, a difference in which chance is less than in either accuracy. So
    an estimate is never the highest accuracy.

    All processes look at the same images, and stop alike.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.batches = len(evaluator.search)
        self.looks = sorted({ceil(share * self.batches) for share in LOOKS} - {self.batches})
        """Numbers of batches after which candidates are compared."""
        self._best: tuple[dict[str, int], Tensor] | None = None

    def __call__(self, widths: Widths, best: Candidate | None) -> tuple[float, int | None]:
        """Return the accuracy of `widths` in percent, and on how many images it was estimated.

        That is None where it was judged on the whole split, as `best` was, the best one so far.
        """
        others = None if best is None else self._hits_of(best)
        hits_on = self.evaluator.hits_of(widths)
        hits = torch.empty(0, dtype=torch.bool)
        for start, end in pairwise([0, *self.looks, self.batches]):
            hits = torch.cat([hits, hits_on(range(start, end))])
            if best is None or others is None or end == self.batches:
                continue
            there = others[: len(hits)]
            if by_chance(hits, there) <= CHANCE / len(self.looks):
                estimate = best.accuracy - percent(there) + percent(hits)
                return max(0.0, estimate), len(hits)
        accuracy = percent(hits)
        if best is None or accuracy > best.accuracy:
            self._best = dict(widths), hits
        return accuracy, None

    def _hits_of(self, best: Candidate) -> Tensor:
        """Which images the best candidate gets right; judged again if another process had done."""
        if self._best is None or self._best[0] != best.widths:
            hits = self.evaluator.hits_of(best.widths)(range(self.batches))
            self._best = best.widths, hits
        return self._best[1]


def by_chance(hits: Tensor, others: Tensor) -> float:
    """How probable it is, of two equally good networks, that one has so many hits fewer or more
    fewer: p of McNemar's exact one-sided test; both are bool [images].
    """
    behind, ahead = int((others & ~hits).sum()), int((hits & ~others).sum())
    return float(bdtrc(behind - 1, behind + ahead, 0.5)) if behind else 1.0
