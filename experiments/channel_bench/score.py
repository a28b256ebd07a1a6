"""Hold generated accuracies and searches against the truth that the tables have.

The tables state no licence and are not ours to publish: what is written are rank correlations and
what searches found, never the tables' rows.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from torch import Generator, Tensor, no_grad

from experiments.channel_bench.study import STUDY_FILE, of, parse
from experiments.common.candidates import pruningnet
from experiments.common.inputs import full_network, training_images, write_csv
from experiments.common.stage import Context, Stage
from experiments.common.study_file import root_folder
from graphpruning.channel_bench import NETWORKS, TRAININGS, Answers, ChannelBench
from graphpruning.common.budget import budget_in_macs
from graphpruning.common.files import require_file, write_json
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
three trainings, which is drawn anew for each network in each play."""
RESAMPLES = 1000
Values = NDArray[np.float64]


def score(context: Context) -> None:
    """Write agreement.csv, searches.csv, curves.csv, marks.csv, and how searchers look."""
    model = context.items["model"]
    network = next(name for name, built in NETWORKS.items() if built == model)
    folder = root_folder(of(context).tables)
    table = ChannelBench(network, folder, filled=of(context).space.filled)
    judged = {name: _judged(context, name) for name in of(context).pruningnet.conditionings}
    into = context.folder("scored")
    write_csv(into / "agreement.csv", list(_agreements(table, judged)))
    write_csv(into / "marks.csv", [_marks(table, share) for share in of(context).budgets])
    searches, curves = _searches(context, table, judged[of(context).search.source])
    write_csv(into / "searches.csv", searches)
    write_csv(into / "curves.csv", curves)
    write_json(
        into / "metrics.json",
        {
            "network": network,
            "evaluations": of(context).search.evaluations,
            "plays": of(context).search.plays,
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


def _judged(context: Context, conditioning: str) -> pd.DataFrame:
    path = context.results.joinpath(
        "generated", context.items["model"], conditioning, context.items["seed"], "generated.csv"
    )
    require_file(path, "the stage judge")
    frame = pd.read_csv(path, dtype={"budget": str})
    frame["vector"] = [tuple(map(int, one.split("-"))) for one in frame["widths"]]
    return frame.drop_duplicates(["budget", "vector"])  # random widths may come twice


# Agreement


def _agreements(
    table: ChannelBench, judged: dict[str, pd.DataFrame]
) -> Iterator[dict[str, object]]:
    """Kendall's tau with the truth of generated accuracies, among networks of a kind.

    All PruningNets are compared on the networks that all of them judged. Beside them: MACs, as a
    control that knows nothing but size, and one training against the mean of the other two, which
    is how far the truth agrees with itself.
    """
    shared = set.intersection(*(set(_keys(frame)) for frame in judged.values()))
    first = next(iter(judged.values()))
    for budget in dict.fromkeys(first["budget"]):
        vectors = [vector for kind, vector in sorted(shared) if kind == budget]
        numbers = np.array([table.index(table.space.widths(vector)) for vector in vectors])
        for name, frame in judged.items():
            of = frame[frame["budget"] == budget].set_index("vector")["top1_generated"]
            yield _agreement(name, budget, of.loc[vectors].to_numpy(), table.truth[numbers])
        yield _agreement("macs", budget, table.macs[numbers].astype(float), table.truth[numbers])
        yield _ceiling(budget, table.accuracies[numbers])


def _keys(frame: pd.DataFrame) -> list[tuple[str, tuple[int, ...]]]:
    return list(zip(frame["budget"], frame["vector"], strict=True))


def _agreement(name: str, budget: str, said: Values, truth: Values) -> dict[str, object]:
    tau = stats.kendalltau(said, truth).statistic
    low, high = _interval(lambda of: stats.kendalltau(said[of], truth[of]).statistic, len(said))
    return _row(name, budget, len(said), tau, low, high)


def _ceiling(budget: str, accuracies: Values) -> dict[str, object]:
    """The mean over trainings of tau of one with the mean of the others."""

    def agreement(of: NDArray[np.int64]) -> float:
        chosen = accuracies[of]
        return float(
            np.mean(
                [
                    stats.kendalltau(
                        chosen[:, one], np.delete(chosen, one, axis=1).mean(axis=1)
                    ).statistic
                    for one in range(TRAININGS)
                ]
            )
        )

    count = len(accuracies)
    return _row("trained", budget, count, agreement(np.arange(count)), *_interval(agreement, count))


def _interval(statistic: Callable[[NDArray[np.int64]], float], count: int) -> tuple[float, float]:
    """Percentile bootstrap over networks."""
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(rng.integers(count, size=count)) for _ in range(RESAMPLES)])
    drawn = drawn[~np.isnan(drawn)]  # where all networks of a resample are rated alike
    if not len(drawn):
        return math.nan, math.nan
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _row(
    name: str, budget: str, count: int, tau: float, low: float, high: float
) -> dict[str, object]:
    values = {"tau": float(tau), "low": low, "high": high}
    written = {key: None if math.isnan(value) else value for key, value in values.items()}
    return {"rated_by": name, "budget": budget, "networks": count, **written}


def _marks(table: ChannelBench, share: float) -> dict[str, object]:
    """What there is to be found within a budget."""
    within = table.truth[table.macs <= budget_in_macs(share, int(table.macs.max()))]
    return {
        "budget": f"{share:g}",
        "networks": len(within),
        "median": float(np.median(within)),
        "best": float(within.max()),
    }


# Searches

Rows = list[dict[str, object]]


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
                    rewards = known if reward == "generated" else table.one_training(play)
                    answers = Answers(table, rewards, settings.evaluations)
                    _play(row, answers, share, play, features)
                    true.append(table.truth[answers.best_so_far()])
                    finds.append(_find(table, answers, share, reward, name, play))
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
    table: ChannelBench, answers: Answers, share: float, reward: str, name: str, play: int
) -> dict[str, object]:
    budget = budget_in_macs(share, int(table.macs.max()))
    found = answers.found
    return {
        "budget": f"{share:g}",
        "reward": reward,
        "searcher": name,
        "play": play,
        "true_top1": float(table.truth[found]),
        "rank": table.rank(table.space.widths(table.vectors[found]), budget),
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
    score,
    folder="scored",
    sections=(
        "networks",
        "data",
        "space",
        "threads",
        "pruningnet",
        "budgets",
        "tables",
        "search",
    ),
    items=("model", "seed"),
    study_file=STUDY_FILE,
    parse=parse,
)

if __name__ == "__main__":
    STAGE.main()
