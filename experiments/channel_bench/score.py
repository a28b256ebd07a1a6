"""Hold generated accuracies against the truth that the tables have.

The tables state no licence and are not ours to publish: what is written are rank correlations and
marks, never the tables' rows.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from experiments.channel_bench.judge import judged
from experiments.channel_bench.study import STUDY_FILE, of, parse, truth
from experiments.common.inputs import write_csv
from experiments.common.stage import Context, Stage
from graphpruning.channel_bench import TRAININGS, ChannelBench
from graphpruning.common.budget import budget_in_macs
from graphpruning.common.files import write_json

RESAMPLES = 1000
Values = NDArray[np.float64]


def score(context: Context) -> None:
    """Write agreement.csv and marks.csv."""
    table = truth(context)
    found = {name: judged(context, name) for name in of(context).pruningnet.conditionings}
    into = context.folder("scored")
    write_csv(into / "agreement.csv", list(_agreements(table, found)))
    write_csv(into / "marks.csv", [_marks(table, share) for share in of(context).budgets])
    write_json(into / "metrics.json", {"network": table.network})


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


STAGE = Stage(
    score,
    folder="scored",
    sections=("networks", "space", "pruningnet", "budgets", "tables"),
    items=("model", "seed"),
    study_file=STUDY_FILE,
    parse=parse,
)

if __name__ == "__main__":
    STAGE.main()
