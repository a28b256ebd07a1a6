"""What every searcher finds, by the truth that the tables have.

A search looks its answers up: of the networks that fill a budget, all were judged before.
"""

from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from torch import Generator, Tensor, no_grad

from experiments.channel_bench.judge import judged
from experiments.channel_bench.study import STUDY_FILE, of, parse, truth
from experiments.common.candidates import pruningnet
from experiments.common.inputs import full_network, training_images, write_csv
from experiments.common.stage import Context, Stage
from graphpruning.channel_bench import Answers, ChannelBench
from graphpruning.common.budget import budget_in_macs
from graphpruning.common.files import write_json
from graphpruning.methods import METHODS, Method, SearchSettings, Task, run
from graphpruning.network.graph import Widths
from graphpruning.search.history import Journal

SEARCHERS = {
    "random": METHODS["random"],
    "uniform": METHODS["uniform"],
    "evolution": METHODS["metapruning"],
    "ddpg": METHODS["amc"],
    "frozen": METHODS["frozen"],
    "agent (hand-crafted)": METHODS["hand-crafted"],
    "agent (aggregated)": METHODS["graphpruning"],
    "predictor": METHODS["predictor"],
}
LABELS = {
    "random": "random",
    "uniform": "uniform width",
    "evolution": "evolution (MetaPruning's)",
    "ddpg": "DDPG (AMC's)",
    "frozen": "agent that never learns",
    "agent (hand-crafted)": "agent, hand-crafted states",
    "agent (aggregated)": "agent, aggregated states",
    "predictor": "predictor",
}
"""What tables and figures call them; colour and marker are the rows'."""
REWARDS = ("generated", "trained")
"""What a search is told of a candidate: its accuracy with generated weights, or that of one of its
three trainings, which is drawn anew for each network in each play. The truth is then the mean of
the other two: the best reward is also the luckiest, and luck is no truth.
"""
Values = NDArray[np.float64]
Rows = list[dict[str, object]]


def search(context: Context) -> None:
    """Write searches.csv, curves.csv, and how searchers look."""
    table = truth(context)
    settings = of(context).search
    searches, curves = _searches(context, table, judged(context, settings.source))
    into = context.folder("searched")
    write_csv(into / "searches.csv", searches)
    write_csv(into / "curves.csv", curves)
    write_json(
        into / "metrics.json",
        {
            "evaluations": settings.evaluations,
            "plays": settings.plays,
            "searchers": {
                name: {
                    "label": LABELS[name],
                    "colour": row.colour,
                    "marker": row.marker,
                    "line": "-",
                }
                for name, row in SEARCHERS.items()
            },
        },
    )


def _searches(context: Context, table: ChannelBench, judged: pd.DataFrame) -> tuple[Rows, Rows]:
    """Every play's find, and the mean curves of true accuracy."""
    settings = of(context).search
    features = _features(context)
    known = np.full(len(table.vectors), np.nan)
    for vector, top1 in zip(judged["vector"], judged["top1_generated"], strict=True):
        known[table.index(table.space.widths(vector))] = top1
    finds: Rows = []
    curves: Rows = []
    for share in of(context).budgets:
        for reward in REWARDS:
            for name, row in SEARCHERS.items():
                true = []
                for play in range(settings.plays):
                    rewards, measure = known, table.truth
                    if reward == "trained":
                        rewards, measure = table.one_training(play), table.other_trainings(play)
                    answers = Answers(table, rewards, settings.evaluations)
                    _play(row, answers, share, play, features)
                    true.append(measure[answers.best_so_far()])
                    which = {"budget": f"{share:g}", "reward": reward, "searcher": name}
                    finds.append(which | {"play": play} | _find(table, answers, measure, share))
                curves += _curve(np.array(true), share, reward, name)
                print(f"{reward}, {share:.0%}: {name} played {settings.plays} times")
    return finds, curves


def _features(context: Context) -> Callable[[Widths], Tensor]:
    """The trained aggregator's features of any widths, each answer computed once."""
    full = full_network(context, training_images(context))
    net = pruningnet(context, full, of(context).search.source)

    @cache
    def answer(vector: tuple[tuple[str, int], ...]) -> Tensor:
        with no_grad():
            return net.features(dict(vector))

    return lambda widths: answer(tuple(widths.items()))


def _play(
    row: Method,
    answers: Answers,
    share: float,
    seed: int,
    features: Callable[[Widths], Tensor],
) -> None:
    space = answers.table.space
    task = Task(
        row,
        space,
        budget_in_macs(share, space.macs(space.full)),
        cast(Journal, answers),
        Generator().manual_seed(seed),
        SearchSettings.scaled(answers.evaluations),
        features,
    )
    run(task)


def _find(
    table: ChannelBench, answers: Answers, measure: Values, share: float
) -> dict[str, object]:
    """What a play found; `measure` is the truth [networks]."""
    budget = budget_in_macs(share, int(table.macs.max()))
    found = answers.found
    return {
        "true_top1": float(measure[found]),
        "rank": table.rank(table.space.widths(table.vectors[found]), budget, measure),
        "reward_top1": float(answers.rewards[found]),
        "distinct": len(set(answers.history)),
        "widths": "-".join(map(str, table.vectors[found])),
    }


def _curve(true: Values, share: float, reward: str, name: str) -> Rows:
    """Mean over plays [plays, evaluations] with its t-interval, where there are several points."""
    plays = len(true)
    half = stats.t.ppf(0.975, plays - 1) * true.std(axis=0, ddof=1) / plays**0.5
    middle = true.mean(axis=0)
    return [
        {
            "budget": f"{share:g}",
            "reward": reward,
            "searcher": name,
            "evaluation": number + 1,
            "true_top1": float(middle[number]),
            "low": float(middle[number] - half[number]),
            "high": float(middle[number] + half[number]),
        }
        for number in range(true.shape[1])
    ]


STAGE = Stage(
    search,
    folder="searched",
    sections=("networks", "data", "space", "threads", "budgets", "tables", "search"),
    items=("model", "seed"),
    study_file=STUDY_FILE,
    parse=parse,
)

if __name__ == "__main__":
    STAGE.main()
