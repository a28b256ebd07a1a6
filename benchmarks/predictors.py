"""Predictors of accuracy against the truth of Channel-Bench-Macro's tables.

    python -m benchmarks predictors --tables FOLDER [--download] [--draws 20]

A predictor is told one training's accuracy of n random width vectors of a network (which of the
three is drawn anew for each vector in each draw), and asked about the others. Two questions: about
the same network, and about the other one, whose accuracies it was never told. The second can only
be answered by what does not know groups by their place: `graph`, the same network without edges,
and `shared ridge`, on five features that any network has. `MACs` rates vectors by their cost alone,
and is told nothing.

Writes `benchmarks/results/predictors.csv`, `predictors.png` and `predictors.pdf`. In the table, of
the network `asked` by a predictor that was `told` about `n` vectors of one: `tau` is Kendall's tau
between predicted and true accuracy (the mean of all three trainings) over 2,000 vectors that it
was not told; `tau_within` over all those that take 40 to 50 % of MACs; `top1` the true accuracy of
the one of these that it rates best, `regret` how much better the best of them is. Each is a mean
over the draws, `_low` and `_high` are its 95 % interval (t); `_minus` is the mean paired difference
to ridge (for the other network: to the shared ridge) with the same vectors.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partial
from io import StringIO
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.harness import RESULTS, half_interval
from graphpruning.channel_bench import NETWORKS, ChannelBench
from graphpruning.common.files import atomic, write_text
from graphpruning.network.cost import Counts
from graphpruning.network.widths import SearchSpace
from graphpruning.neural_predictor import GraphNetwork
from graphpruning.predictor import PREDICTORS, Ridge

COUNTS = (20, 50, 100, 300, 1000)
HELD_OUT = 2000
BUDGET, BAND = 0.5, 0.4
PROCESSES = 2
MACS, SHARED = "MACs", "shared ridge"
ACROSS = (SHARED, "graph", "no-edges", MACS)
MEASURES = ("tau", "tau_within", "top1", "regret")
COLUMNS = (
    *("asked", "told", "n", "predictor", "draws"),
    *(f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high")),
    *(f"{measure}_minus{end}" for measure in MEASURES[:3] for end in ("", "_low", "_high")),
)
Values = NDArray[np.float64]
Key = tuple[str, str, int, str]
"""Network asked about, network told about, n, predictor."""


@cache
def _table(network: str, folder: Path) -> ChannelBench:
    torch.set_num_threads(1)
    return ChannelBench(network, folder)


class SharedFeatures:
    """Features [n, 5] of width vectors that any network has: the mean logarithm of the kept shares
    of output channels over all layers and over the first, middle and last third of them, and the
    logarithm of the share of MACs.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.cost = space.cost
        full = self.cost.vector(space.full)[None]
        self.widths = self.cost.count(self.cost.writes, full)
        self.macs = int(self.cost.macs(full)[0])

    def __call__(self, vectors: Counts) -> Values:
        logarithms = np.log2(self.cost.count(self.cost.writes, vectors) / self.widths)
        means = [part.mean(axis=1) for part in np.array_split(logarithms, 3, axis=1)]
        macs = np.log2(self.cost.macs(vectors) / self.macs)
        return np.stack([logarithms.mean(axis=1), *means, macs], axis=1)


def scored(
    table: ChannelBench, told: NDArray[np.int64], rate: Callable[[Counts], Values]
) -> dict[str, float]:
    """The measures of a rating of width vectors, which was `told` about some of them."""
    order = np.random.default_rng(0).permutation(len(table.truth))
    unseen = order[~np.isin(order, told)][:HELD_OUT]
    share = table.macs / table.space.macs(table.space.full)
    band = np.flatnonzero((share >= BAND) & (share <= BUDGET))
    asked = np.union1d(unseen, band)
    rating = np.full(len(share), np.nan)
    rating[asked] = rate(np.array(table.vectors)[asked])
    unseen_band = np.setdiff1d(band, told)
    top1 = float(table.truth[band[rating[band].argmax()]])
    return {
        "tau": _tau(rating[unseen], table.truth[unseen]),
        "tau_within": _tau(rating[unseen_band], table.truth[unseen_band]),
        "top1": top1,
        "regret": float(table.truth[band].max()) - top1,
    }


def _tau(rating: Values, truth: Values) -> float:
    return float(stats.kendalltau(rating, truth).statistic) if np.ptp(rating) else 0.0


def _of_network(job: tuple[str, int, Path]) -> dict[Key, dict[str, float]]:
    """All predictors that are told about one network, in one draw."""
    network, draw, folder = job
    mine = _table(network, folder)
    (other,) = (_table(name, folder) for name in NETWORKS if name != network)
    accuracies = mine.one_training(draw)
    drawn = np.random.default_rng(draw).permutation(len(accuracies))
    vectors, nothing = np.array(mine.vectors), np.zeros(0, dtype=np.int64)
    found = {(network, "", 0, MACS): scored(mine, nothing, _macs(mine))}
    for count in COUNTS:
        told = drawn[:count]
        for kind, make in PREDICTORS.items():
            predictor = make(mine.space, draw)
            predictor.fit(vectors[told], accuracies[told])
            found[network, network, count, kind] = scored(mine, told, _mean(predictor.predict))
            if isinstance(predictor, GraphNetwork):
                answer = _mean(partial(predictor.predict_of, other.space.graph))
                found[other.network, network, count, kind] = scored(other, nothing, answer)
        ridge = Ridge(SharedFeatures(mine.space))
        ridge.fit(vectors[told], accuracies[told])
        found[network, network, count, SHARED] = scored(mine, told, _mean(ridge.predict))
        ridge.features = SharedFeatures(other.space)
        found[other.network, network, count, SHARED] = scored(other, nothing, _mean(ridge.predict))
    return found


def _macs(table: ChannelBench) -> Callable[[Counts], Values]:
    return lambda vectors: table.space.cost.macs(vectors).astype(np.float64)


def _mean(
    predict: Callable[[Counts], tuple[Values, Values]],
) -> Callable[[Counts], Values]:
    return lambda vectors: predict(vectors)[0]


def scores(folder: Path, draws: int) -> dict[Key, list[dict[str, float]]]:
    """Every predictor's measures, draws in order."""
    jobs = list(product(NETWORKS, range(draws), [folder]))
    found: dict[Key, list[dict[str, float]]] = defaultdict(list)
    with get_context("spawn").Pool(PROCESSES) as pool:
        for one in pool.imap(_of_network, jobs):
            for key, measures in one.items():
                found[key].append(measures)
    return found


def rows(found: dict[Key, list[dict[str, float]]]) -> Iterator[list[Any]]:
    """The table's rows in the order of `COLUMNS`."""
    for (asked, told, count, kind), draws in found.items():
        base = "ridge" if asked == told else SHARED
        beside = found.get((asked, told, count, base), draws)
        cells: list[float] = []
        for measure in MEASURES:
            cells += _interval([draw[measure] for draw in draws])
        for measure in MEASURES[:3]:
            pairs = zip(draws, beside, strict=True)
            cells += _interval([mine[measure] - theirs[measure] for mine, theirs in pairs])
        yield [asked, told, count, kind, len(draws), *(f"{cell:.4f}" for cell in cells)]


def _interval(values: list[float]) -> tuple[float, float, float]:
    """The mean, and the ends of its 95 % interval."""
    mean, half = float(np.mean(values)), half_interval(values)
    return mean, mean - half, mean + half


LOOKS = {
    "ridge": ("#000000", "o"),
    "gp": ("#0072B2", "s"),
    "perceptron": ("#CC79A7", "v"),
    "graph": ("#009E73", "^"),
    "no-edges": ("#D55E00", "X"),
    SHARED: ("#757575", "D"),
}
PANELS = {
    "tau": "Kendall's tau, all",
    "tau_within": "Kendall's tau, 40 to 50 % of MACs",
    "top1": "true top-1 of the best rated (%)",
}


def draw(table: list[dict[str, str]], path: Path) -> None:
    """A row a question, a column a measure; means with intervals against n."""
    questions = [(asked, told) for told in NETWORKS for asked in (told, *NETWORKS)]
    questions = sorted(set(questions), key=lambda pair: (pair[0] != pair[1], pair[0]))
    figure, axes = plt.subplots(4, 3, figsize=(9, 10), sharex=True, layout="constrained")
    for line, (asked, told) in zip(axes, questions, strict=True):
        for axis, measure in zip(line, PANELS, strict=True):
            for place, (kind, (colour, marker)) in enumerate(LOOKS.items()):
                mine = [
                    row
                    for row in table
                    if (row["asked"], row["told"], row["predictor"]) == (asked, told, kind)
                ]
                middle, low, high = (
                    np.array([float(row[measure + end]) for row in mine])
                    for end in ("", "_low", "_high")
                )
                axis.errorbar(
                    [int(row["n"]) * 1.06 ** (place - 2.5) for row in mine],
                    middle,
                    [middle - low, high - middle],
                    color=colour,
                    marker=marker,
                    label=kind,
                    linewidth=1,
                    markersize=4,
                    capsize=2,
                )
            (macs,) = (
                float(row[measure])
                for row in table
                if (row["asked"], row["predictor"]) == (asked, MACS)
            )
            axis.axhline(macs, color="#757575", linestyle=":", linewidth=1)
            axis.set_xscale("log")
            axis.set_xticks(COUNTS, [str(count) for count in COUNTS])
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(asked if asked == told else f"{asked},\nlearnt from {told}")
    for axis, title in zip(axes[0], PANELS.values(), strict=True):
        axis.set_title(title, fontsize=10)
    axes[-1, 1].set_xlabel("measured width vectors (dotted: rated by MACs alone)")
    handles = {
        label: handle
        for axis in (axes[0, 0], axes[-1, 0])
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=6, frameon=False)
    for suffix, more in (("png", {"dpi": 200}), ("pdf", {"metadata": {"CreationDate": None}})):
        with atomic(path.with_suffix(f".{suffix}")) as beside:
            figure.savefig(beside, format=suffix, **more)
    plt.close(figure)


def measure(folder: Path, download: bool, draws: int) -> None:
    """Measure everything and write the files; `UserError` for tables that are not there."""
    for network in NETWORKS:
        ChannelBench(network, folder, download)
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(rows(scores(folder, draws)))
    write_text(RESULTS / "predictors.csv", text.getvalue())
    with open(RESULTS / "predictors.csv", encoding="utf-8") as file:
        draw(list(csv.DictReader(file)), RESULTS / "predictors.png")
