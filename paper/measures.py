"""The quantities that the tables, figures and claims share, computed from the results.

Each is computed within every replicate; `paper.statistics.replicated` then makes one estimate.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from paper.reader.contents import Row
from paper.reader.results import Network, Results
from paper.statistics import (
    Clusters,
    Estimate,
    kendall,
    mean,
    means,
    medians,
    paired,
    replicated,
)

Kind = tuple[str, str]
"""Of which network (trained, untrained) and of which pairs (in_block, other_block) channels are."""
PAIRS = {"in_block": "same block", "other_block": "different blocks"}
THRESHOLDS = (0.5, 0.7, 0.9)
"""R² above which a channel counts as represented, in Table 1."""
LARGELY = 0.5
"""C1: a channel is largely representable when R² is above this: most of its variance."""
FAR = 2
"""C2: from this distance on, a group neither is nor reads the one that changed."""
REASONABLE = 0.5
"""C3: accuracy with generated weights is reasonable above this share of the base's.

MetaPruning's authors expect their PruningNet to reach about half.
"""
QUARTERS = 4
"""Parts of the candidates by MACs, in Table 2 and Figure 4."""


def channels(network: Network, kind: Kind) -> list[pd.DataFrame]:
    """Deeper channels of one kind of pair, a table for each replicate."""
    state, pair = kind
    frames = [correlation.channels for correlation in network.correlation.values()]
    return [frame[(frame["network"] == state) & (frame["pair"] == pair)] for frame in frames]


def kinds(network: Network) -> list[Kind]:
    """The kinds that a network's files have, in their order."""
    frame = next(iter(network.correlation.values())).channels
    different = frame[["network", "pair"]].drop_duplicates()
    return list(different.itertuples(index=False, name=None))


def share_over(network: Network, kind: Kind, threshold: float) -> Estimate:
    """Share of deeper channels whose R² is above `threshold`."""
    return replicated(
        [
            Clusters((frame["r2"] > threshold).astype(float), frame["deeper"]).estimate(means)
            for frame in channels(network, kind)
        ]
    )


def median(network: Network, kind: Kind, column: str = "r2") -> Estimate:
    """Median of a column over deeper channels."""
    return replicated([one.estimate(medians) for one in _by_layer(network, kind, column)])


def median_difference(network: Network, kind: Kind, other: Kind) -> Estimate:
    """Median R² of one kind minus that of another, of the same deeper layers."""
    return replicated(
        [
            one.difference(control, medians)
            for one, control in zip(
                _by_layer(network, kind), _by_layer(network, other), strict=True
            )
        ]
    )


def _by_layer(network: Network, kind: Kind, column: str = "r2") -> list[Clusters]:
    """A column of each replicate, whole deeper layers being the units of a resample."""
    return [Clusters(frame[column], frame["deeper"]) for frame in channels(network, kind)]


def movement(
    results: Results, model: str, conditioning: str, nearest: int, farthest: int | None = None
) -> Estimate | None:
    """Relative movement of groups `nearest` to `farthest` edges from the one that changed.

    None where the graph has no groups so far apart.
    """
    moved = _moved(results, model, conditioning, nearest, farthest)
    there = [one.estimate(means) for one in moved if one.groups]
    return replicated(there) if there else None


def movement_difference(
    results: Results, model: str, other: str, nearest: int, farthest: int | None = None
) -> Estimate:
    """Movement under our conditioning minus that under another, of the same changed groups."""
    ours = _moved(results, model, results.ours.source, nearest, farthest)
    theirs = _moved(results, model, other, nearest, farthest)
    return replicated([a.difference(b, means) for a, b in zip(ours, theirs, strict=True)])


def _moved(
    results: Results, model: str, conditioning: str, nearest: int, farthest: int | None
) -> list[Clusters]:
    """Movements of each replicate; the changed groups are the units of a resample."""
    found = []
    for seed in results.seeds:
        frame = results.generated[model, seed].influence
        far = frame["distance"].between(nearest, math.inf if farthest is None else farthest)
        frame = frame[(frame["conditioning"] == conditioning) & far]
        found.append(Clusters(frame["movement"], frame["changed"]))
    return found


def candidates(results: Results, model: str, conditioning: str, seed: int) -> pd.DataFrame:
    """A replicate's candidates with weights generated under `conditioning`, smallest first."""
    frame = results.generated[model, seed].candidates
    return frame[frame["conditioning"] == conditioning].sort_values(["macs", "candidate"])


def quarters(results: Results, model: str, conditioning: str, column: str) -> list[Estimate]:
    """Mean of a column of the candidates in each quarter by MACs."""
    return [
        replicated([mean(part[column]) for part in parts])
        for parts in _quarters(results, model, conditioning)
    ]


def margins(results: Results, model: str, conditioning: str) -> list[Estimate]:
    """Accuracy with generated weights over the yardstick, in each quarter by MACs."""
    found = []
    for parts in _quarters(results, model, conditioning):
        over = [
            mean(part["top1_generated"]).above(yardstick(results, model, seed))
            for seed, part in zip(results.seeds, parts, strict=True)
        ]
        found.append(replicated(over))
    return found


def _quarters(results: Results, model: str, conditioning: str) -> Iterable[list[pd.DataFrame]]:
    """For each quarter the candidates of every replicate."""
    frames = [candidates(results, model, conditioning, seed) for seed in results.seeds]
    places = [np.array_split(np.arange(len(frame)), QUARTERS) for frame in frames]
    for quarter in range(QUARTERS):
        yield [frame.iloc[place[quarter]] for frame, place in zip(frames, places, strict=True)]


def yardstick(results: Results, model: str, seed: int) -> float:
    """Accuracy above which generated weights are reasonable (%); NaN without a search split."""
    top1 = results.base[model, seed].search_top1
    return math.nan if top1 is None else REASONABLE * top1


def rank_correlation(results: Results, model: str, conditioning: str) -> Estimate:
    """Kendall's tau between accuracy with generated weights and after training from scratch."""
    frames = [trained(results, model, conditioning, seed) for seed in results.seeds]
    return replicated([kendall(f["top1_generated"], f["top1_trained"]) for f in frames])


def trained(results: Results, model: str, conditioning: str, seed: int) -> pd.DataFrame:
    """Those of a replicate's candidates that were also trained from scratch."""
    return candidates(results, model, conditioning, seed).dropna(subset="top1_trained")


def base_top1(results: Results, model: str) -> Estimate:
    """Test accuracy of the base network."""
    return mean([results.base[model, seed].test_top1 for seed in results.seeds])


def test_top1(results: Results, model: str, method: str, budget: str) -> Estimate:
    """Test accuracy of a method's final networks."""
    return mean(list(results.test_top1(model, method, budget).values()))


def test_difference(results: Results, model: str, other: str, budgets: list[str]) -> Estimate:
    """Our final test accuracy minus the other method's, paired by seed, mean over budgets."""
    return _difference(results.test_top1, results.ours.name, model, other, budgets)


def search_difference(results: Results, model: str, other: str, budgets: list[str]) -> Estimate:
    """The same for the best candidate's accuracy on the search split.

    It compares methods only where both rate candidates with the same weights.
    """
    return _difference(results.search_top1, results.ours.name, model, other, budgets)


def _difference(
    top1: Callable[[str, str, str], dict[int, float]],
    ours: str,
    model: str,
    other: str,
    budgets: list[str],
) -> Estimate:
    def over_budgets(method: str) -> dict[int, float]:
        per_budget = [top1(model, method, budget) for budget in budgets]
        seeds = set.intersection(*(set(one) for one in per_budget))
        return {seed: float(np.mean([one[seed] for one in per_budget])) for seed in seeds}

    return paired(over_budgets(ours), over_budgets(other))


def same_weights(results: Results, row: Row) -> bool:
    """Whether a method rates candidates with the weights that ours does."""
    return row.source == results.ours.source


def state_ablations(results: Results) -> list[Row]:
    """Ablations that differ from ours in what the search sees, and in nothing else."""
    ours = results.ours
    return [
        row
        for row in results.of_kind("ablation")
        if same_weights(results, row) and row.searcher == ours.searcher and row.state != ours.state
    ]


def edge_ablations(results: Results) -> list[Row]:
    """Ablations whose PruningNet aggregates nothing."""
    return [row for row in results.of_kind("ablation") if row.source == "none"]
