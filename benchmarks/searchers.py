"""Every searcher against the truth: Channel-Bench-Macro's tables answer instead of a PruningNet.

    python -m benchmarks searchers --tables FOLDER [--download] [--seeds 100]

Two networks at 50 % and 25 % of their MACs; 25, 100 and 300 evaluations. A searcher is rewarded by
one training of a candidate (which of the three is drawn anew for each network in each seed); what
it finds, the candidate with the best reward, of our agent the one with the best estimate, is
measured by the mean of the other two, which its luck is not in. So the reward is as noisy as two
trainings of one network are unlike (0.16 points), and more evaluations end at the best noise: the
row `ceiling` shows it, which takes the best reward among the candidates that are best by an
additive model of all three trainings.

Candidates fill 90 % of their budget. With four levels a group, 98 % would leave 69 to 306 networks,
fewer than there are evaluations; 90 % leaves 637 to 1,619.

Writes `benchmarks/results/searchers.csv` and `searchers.png`, `searchers.pdf`. In the table
`true_top1` is the mean true accuracy of what is found, `rank` its place among all networks within
the budget, `area` the true accuracy of the best so far, averaged over the evaluations;
`minus_random`, `low`, `high` the mean paired difference of `true_top1` to random search with the
same seed and its 95 % interval (t); `late` the mean true accuracy of the last third of the
candidates, `distinct` the share of candidates that differ.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.harness import RESULTS, half_interval
from graphpruning.channel_bench import NETWORKS, Answers, ChannelBench
from graphpruning.common.files import atomic, write_text
from graphpruning.methods import METHODS, SearchSettings, Task, run
from graphpruning.network.graph import Widths
from graphpruning.network.zoo import seeded
from graphpruning.pruningnet.aggregator import conditioned
from graphpruning.search.history import Journal

BUDGETS = (0.5, 0.25)
EVALUATIONS = (25, 100, 300)
FILLED = 0.9
AGGREGATORS = 10
"""Untrained ones; replicates take turns, so that what they answer is computed once."""
PROCESSES = 2
CEILING = "ceiling"
SEARCHERS = {
    "random": METHODS["random"],
    "uniform": METHODS["uniform"],
    "evolution": METHODS["metapruning"],
    "ddpg": METHODS["amc"],
    "frozen": replace(METHODS["frozen"], state="hand-crafted"),  # it looks at neither
    "agent (hand-crafted)": METHODS["hand-crafted"],
    "agent (aggregated)": METHODS["graphpruning"],
    "predictor": METHODS["predictor"],
}
SLOW = {"ddpg": 12}
"""Searchers that are played with fewer seeds: a play takes ten times as long as others'."""
COLUMNS = (
    "network",
    "budget",
    "evaluations",
    "searcher",
    "seeds",
    "true_top1",
    "rank",
    "area",
    "minus_random",
    "low",
    "high",
    "late",
    "distinct",
)
Key = tuple[str, float, int, str]
"""Network, budget, evaluations and searcher."""


@dataclass(frozen=True)
class Play:
    """One search: its figures as in `COLUMNS`."""

    true_top1: float
    rank: float
    area: float
    late: float
    distinct: float


@cache
def _table(network: str, folder: Path) -> ChannelBench:
    torch.set_num_threads(1)
    return ChannelBench(network, folder, filled=FILLED)


@cache
def _features(network: str, folder: Path, seed: int) -> Callable[[Widths], Tensor]:
    """What an untrained aggregator says, each answer computed once."""
    space = _table(network, folder).space
    with seeded(seed):
        aggregator = conditioned(space.graph, "graph").eval()
    known: dict[tuple[int, ...], Tensor] = {}

    def features(widths: Widths) -> Tensor:
        asked = space.vector(widths)
        if asked not in known:
            with torch.no_grad():
                known[asked] = aggregator(widths)
        return known[asked]

    return features


def play(
    searcher: str, network: str, share: float, evaluations: int, seed: int, folder: Path
) -> Play:
    """Search once."""
    table = _table(network, folder)
    budget = int(share * table.space.macs(table.space.full))
    rewards = table.one_training(seed)
    if searcher == CEILING:
        judged, estimated = best_by_additive_model(table, budget)[:evaluations], None
    else:
        answers = Answers(table, rewards, evaluations)
        task = Task(
            SEARCHERS[searcher],
            table.space,
            budget,
            cast(Journal, answers),
            torch.Generator().manual_seed(seed),
            SearchSettings.scaled(evaluations),
            _features(network, folder, seed % AGGREGATORS),
        )
        run(task)
        judged, estimated = np.array(answers.history), answers.history.estimated
    within = table.macs <= budget
    return _figures(judged, rewards, table.other_trainings(seed), within, estimated)


def _figures(
    judged: NDArray[np.int64],
    rewards: NDArray[np.float64],
    truth: NDArray[np.float64],
    within: NDArray[np.bool_],
    estimated: int | None,
) -> Play:
    """`rewards`, `truth`, `within` (the budget): of every network of the table."""
    best = np.maximum.accumulate(rewards[judged])
    places = np.array([int(np.argmax(rewards[judged] == value)) for value in best])
    proposed = truth[judged]
    found = truth[judged[places[-1] if estimated is None else estimated]]
    return Play(
        true_top1=float(found),
        rank=1 + float((truth[within] > found).sum()),
        area=float(proposed[places].mean()),
        late=float(proposed[-max(1, len(proposed) // 3) :].mean()),
        distinct=len(set(judged.tolist())) / len(judged),
    )


def best_by_additive_model(table: ChannelBench, budget: int) -> NDArray[np.int64]:
    """The networks that fill `budget`, best first by least squares of the truth on their levels."""
    filling = np.flatnonzero((table.macs <= budget) & (table.macs >= FILLED * budget))
    vectors = np.array(table.vectors)[filling]
    columns = [np.ones(len(filling))]
    for position, group in enumerate(table.space.groups):
        columns += [vectors[:, position] == level for level in table.space.levels[group][1:]]
    design = np.stack(columns, axis=1).astype(np.float64)
    weights = np.linalg.lstsq(design, table.truth[filling], rcond=None)[0]
    order: NDArray[np.int64] = filling[np.argsort(-(design @ weights), kind="stable")]
    return order


def _cell(job: tuple[str, float, int, Path]) -> tuple[int, dict[Key, Play]]:
    """All searches of one network, budget and seed."""
    network, share, seed, folder = job
    plays = {}
    for evaluations, searcher in product(EVALUATIONS, (*SEARCHERS, CEILING)):
        if seed < SLOW.get(searcher, seed + 1):
            found = play(searcher, network, share, evaluations, seed, folder)
            plays[network, share, evaluations, searcher] = found
    return seed, plays


def plays(folder: Path, seeds: int) -> dict[Key, dict[int, Play]]:
    """Every searcher's plays by seed."""
    jobs = list(product(NETWORKS, BUDGETS, range(seeds), [folder]))
    found: dict[Key, dict[int, Play]] = defaultdict(dict)
    with get_context("spawn").Pool(PROCESSES) as pool:
        for seed, cell in pool.imap_unordered(_cell, jobs):
            for key, one in cell.items():
                found[key][seed] = one
    return found


def rows(found: dict[Key, dict[int, Play]]) -> Iterator[list[Any]]:
    """The table's rows in the order of `COLUMNS`."""
    cells = product(NETWORKS, BUDGETS, EVALUATIONS, (*SEARCHERS, CEILING))
    for network, share, evaluations, searcher in cells:
        mine = found[network, share, evaluations, searcher]
        random = found[network, share, evaluations, "random"]
        seeds = sorted(mine)
        figures = {
            name: float(np.mean([getattr(mine[seed], name) for seed in seeds]))
            for name in ("true_top1", "rank", "area", "late", "distinct")
        }
        paired = [mine[seed].true_top1 - random[seed].true_top1 for seed in seeds]
        mean, half = float(np.mean(paired)), half_interval(paired)
        yield [
            network,
            share,
            evaluations,
            searcher,
            len(seeds),
            f"{figures['true_top1']:.3f}",
            f"{figures['rank']:.1f}",
            f"{figures['area']:.3f}",
            *(f"{value:+.3f}" for value in (mean, mean - half, mean + half)),
            f"{figures['late']:.3f}",
            f"{figures['distinct']:.3f}",
        ]


LOOKS = {
    "uniform": ("#E69F00", "v"),
    "evolution": ("#D55E00", "s"),
    "ddpg": ("#009E73", "^"),
    "frozen": ("#AA4499", "d"),
    "agent (hand-crafted)": ("#882255", "<"),
    "agent (aggregated)": ("#0072B2", "o"),
    "predictor": ("#44AA99", "*"),
    CEILING: ("#757575", "_"),
}


def draw(table: list[dict[str, str]], path: Path) -> None:
    """A panel a network and budget: differences to random search, with intervals."""
    figure, axes = plt.subplots(
        2, 2, figsize=(9, 6.2), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (network, share) in zip(axes.flat, product(NETWORKS, BUDGETS), strict=True):
        for place, (searcher, (colour, marker)) in enumerate(LOOKS.items()):
            mine = [
                row
                for row in table
                if (row["network"], float(row["budget"]), row["searcher"])
                == (network, share, searcher)
            ]
            x = np.arange(len(mine)) + (place - (len(LOOKS) - 1) / 2) * 0.11
            middle, low, high = (
                np.array([float(row[name]) for row in mine])
                for name in ("minus_random", "low", "high")
            )
            axis.errorbar(
                x,
                middle,
                [middle - low, high - middle],
                fmt=marker,
                color=colour,
                label=searcher,
                capsize=2,
                markersize=5,
            )
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(f"{network} at {share:.0%} of MACs", fontsize=10)
        axis.set_xticks(range(len(EVALUATIONS)), [f"{count}" for count in EVALUATIONS])
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("evaluations")
    figure.supylabel("true top-1 minus random search's (points)", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    for suffix, more in (("png", {"dpi": 200}), ("pdf", {"metadata": {"CreationDate": None}})):
        with atomic(path.with_suffix(f".{suffix}")) as beside:
            figure.savefig(beside, format=suffix, **more)
    plt.close(figure)


def measure(folder: Path, download: bool, seeds: int) -> None:
    """Play everything and write the files; `UserError` for tables that are not there."""
    for network in NETWORKS:
        ChannelBench(network, folder, download)
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(rows(plays(folder, seeds)))
    write_text(RESULTS / "searchers.csv", text.getvalue())
    with open(RESULTS / "searchers.csv", encoding="utf-8") as file:
        draw(list(csv.DictReader(file)), RESULTS / "searchers.png")
