"""The quantities that the tables and the claims share, computed from the results."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from paper.results import Correlation, Results, Row
from paper.statistics import Clusters, Estimate, kendall, mean, means, paired

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


def channels(correlation: Correlation, network: str, pair: str) -> pd.DataFrame:
    """Deeper channels of one kind of pair of layers in the trained or untrained network."""
    frame = correlation.channels
    return frame[(frame["network"] == network) & (frame["pair"] == pair)]


def clusters(frame: pd.DataFrame, column: str = "r2") -> Clusters:
    """A column of `channels`, whole deeper layers being the units of a resample."""
    return Clusters(frame[column], frame["deeper"])


def share_over(frame: pd.DataFrame, threshold: float) -> Estimate:
    """Share of the deeper channels of `channels` whose R² is above `threshold`."""
    return Clusters((frame["r2"] > threshold).astype(float), frame["deeper"]).estimate(means)


def movement(
    results: Results, model: str, conditioning: str, nearest: int, farthest: int | None = None
) -> Clusters:
    """Relative movement of groups `nearest` to `farthest` edges from the one that changed.

    The changed groups are the units of a resample.
    """
    frame = results.generated[model].influence
    far = frame["distance"] >= nearest
    if farthest is not None:
        far &= frame["distance"] <= farthest
    frame = frame[(frame["conditioning"] == conditioning) & far]
    return Clusters(frame["movement"], frame["changed"])


def candidates(results: Results, model: str, conditioning: str) -> pd.DataFrame:
    """Candidates with weights generated under `conditioning`, by MACs, smallest first."""
    frame = results.generated[model].candidates
    return frame[frame["conditioning"] == conditioning].sort_values(["macs", "candidate"])


def by_size(results: Results, model: str, conditioning: str) -> list[Estimate]:
    """Mean accuracy with generated weights in the four quarters of the candidates by MACs."""
    frame = candidates(results, model, conditioning)
    accuracies = frame["top1_generated"].to_numpy(dtype=float)
    return [mean(quarter) for quarter in np.array_split(accuracies, 4)]


def yardstick(results: Results, model: str) -> float:
    """Accuracy above which generated weights are reasonable (%); NaN without a search split."""
    top1 = results.base[model].search_top1
    return math.nan if top1 is None else REASONABLE * top1


def rank_correlation(results: Results, model: str, conditioning: str) -> Estimate:
    """Kendall's tau between accuracy with generated weights and after training from scratch."""
    frame = candidates(results, model, conditioning).dropna(subset="top1_trained")
    return kendall(frame["top1_generated"], frame["top1_trained"])


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
