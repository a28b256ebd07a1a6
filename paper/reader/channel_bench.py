"""The one reader of results/channel-bench, as `paper.reader.results` is of a study's."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from paper.reader.contents import DataFile, Look, Run, RunFile
from paper.reader.reading import (
    LABEL,
    PERCENT,
    POSITIVE,
    Columns,
    Count,
    Files,
    LineText,
    Number,
    OneOf,
    PlainName,
    PlainNames,
    Positive,
    Seeds,
    Text,
)
from paper.statistics import Estimate

STUDY = "channel-bench"
ANY, MACS, TRAINED = "any", "macs", "trained"
"""The whole space in place of a budget; and what else than a PruningNet rates networks: their MACs,
or one of their trainings."""
GENERATED = "generated"
REWARDS = (GENERATED, TRAINED)

_TAU = Number(-1, 1, optional=True)
"""None where all networks are rated alike."""
_WIDTHS = Text(1, 1000)
AGREEMENT: Columns = {
    "rated_by": LABEL,
    "budget": LABEL,
    "networks": POSITIVE,
    "tau": _TAU,
    "low": _TAU,
    "high": _TAU,
}
MARKS: Columns = {"budget": LABEL, "networks": POSITIVE, "median": PERCENT, "best": PERCENT}
SEARCHES: Columns = {
    "budget": LABEL,
    "reward": OneOf(REWARDS),
    "searcher": LABEL,
    "play": Number(0, 10**9, whole=True),
    "true_top1": PERCENT,
    "rank": POSITIVE,
    "reward_top1": PERCENT,
    "distinct": POSITIVE,
    "widths": _WIDTHS,
}
_BOUND = Number(-1000, 1000)
CURVES: Columns = {
    "budget": LABEL,
    "reward": OneOf(REWARDS),
    "searcher": LABEL,
    "evaluation": POSITIVE,
    "true_top1": PERCENT,
    "low": _BOUND,
    "high": _BOUND,
}


@dataclass(frozen=True)
class BenchFile:
    """study.json."""

    study: PlainName
    title: LineText
    models: PlainNames
    data: DataFile
    budgets: list[float]
    seeds: Seeds
    networks: dict[PlainName, LineText]
    searched: PlainNames
    source: PlainName
    conditionings: dict[PlainName, Look]


@dataclass(frozen=True)
class SearchedFile:
    """metrics.json of the stage search: how much was played, and how searchers look."""

    evaluations: Positive
    plays: Positive
    searchers: dict[LineText, Look]


@dataclass(frozen=True)
class NetFile:
    """A PruningNet's accuracies."""

    conditioning: LineText
    params: Positive
    epochs: Count
    search_top1_full: float
    search_top1_half: float
    search_top1_quarter: float
    search_top1_full_before_recalibration: float


@dataclass(frozen=True)
class Mark:
    """What there is within a budget: so many networks, their median and best true accuracy (%)."""

    networks: int
    median: float
    best: float


@dataclass(frozen=True)
class Find:
    """What a search found: true accuracy (%), and its rank among all networks of the budget; how
    many different networks it evaluated.
    """

    true_top1: float
    rank: int
    distinct: int


@dataclass(frozen=True)
class Searches:
    """What searchers find: finds by reward, searcher and budget, and then by play; `curves` has the
    columns above.
    """

    searched: SearchedFile
    finds: dict[tuple[str, str, str], dict[int, Find]]
    curves: pd.DataFrame


@dataclass(frozen=True)
class Network:
    """One network of the tables: its PruningNets, how far what rates networks agrees with the truth
    (Kendall's tau, by what rates and among which), what there is to be found by budget, and what
    searchers find, where they were asked.
    """

    label: str
    nets: dict[str, NetFile]
    agreement: dict[tuple[str, str], Estimate]
    marks: dict[str, Mark]
    searches: Searches | None


@dataclass(frozen=True)
class ChannelBenchResults:
    """What generated accuracies and searches are worth, measured by the tables' truth.

    Budgets are "0.5", ...; `networks` are by the name that the tables give them.
    """

    path: Path
    title: str
    budgets: list[str]
    source: str
    conditionings: dict[str, Look]
    networks: list[Network]
    runs: list[Run]

    @property
    def searched(self) -> dict[str, Searches]:
        """What searchers find, by network."""
        return {one.label: one.searches for one in self.networks if one.searches is not None}


def read(path: Path) -> ChannelBenchResults:
    """Read the folder; `UserError` for a file that is missing, damaged, or of something else."""
    prepare = _files(path, "prepare")
    study = prepare.json("study.json", BenchFile)
    if set(study.networks) != set(study.models):
        raise prepare.damaged("study.json", "networks are not those of models")
    if not study.searched or not set(study.searched) <= set(study.models):
        raise prepare.damaged("study.json", "searched is empty or not of models")
    runs = [_run(prepare, "splits", None)]
    networks = [_network(path, study, model, runs) for model in study.models]
    return ChannelBenchResults(
        path,
        study.title,
        _budgets(study),
        study.source,
        study.conditionings,
        networks,
        runs,
    )


def _budgets(study: BenchFile) -> list[str]:
    return [f"{share:g}" for share in study.budgets]


def _network(path: Path, study: BenchFile, model: str, runs: list[Run]) -> Network:
    """Read what is of one network, and append its stages' runs."""
    seed = study.seeds[0]
    nets = {}
    for name in study.conditionings:
        trained = _files(path, "train_pruningnet", model, name, seed)
        nets[name] = trained.json(f"pruningnet/{model}/{name}/{seed}/metrics.json", NetFile)
        runs.append(_run(trained, f"pruningnet/{model}/{name}/{seed}", seed))
        judge = _files(path, "judge", model, name, seed)
        runs.append(_run(judge, f"generated/{model}/{name}/{seed}", seed))
    score = _files(path, "score", model, seed)
    folder = f"scored/{model}/{seed}"
    runs.append(_run(score, folder, seed))
    budgets = _budgets(study)
    agreement = score.csv(f"{folder}/agreement.csv", AGREEMENT)
    raters = {*study.conditionings, MACS, TRAINED}
    asked = {(rater, budget) for rater in raters for budget in (ANY, *budgets)}
    if set(zip(agreement["rated_by"], agreement["budget"], strict=True)) != asked:
        raise score.damaged(f"{folder}/agreement.csv", "other raters or budgets than study.json's")
    marks = score.csv(f"{folder}/marks.csv", MARKS)
    if list(marks["budget"]) != budgets:
        raise score.damaged(f"{folder}/marks.csv", "other budgets than study.json's")
    return Network(
        study.networks[model],
        nets,
        {
            (str(row.rated_by), str(row.budget)): Estimate(
                float(row.tau), float(row.low), float(row.high), int(row.networks)
            )
            for row in _rows(agreement)
        },
        {
            str(row.budget): Mark(int(row.networks), float(row.median), float(row.best))
            for row in _rows(marks)
        },
        _searches(path, study, model, runs) if model in study.searched else None,
    )


def _searches(path: Path, study: BenchFile, model: str, runs: list[Run]) -> Searches:
    seed = study.seeds[0]
    search = _files(path, "search", model, seed)
    folder = f"searched/{model}/{seed}"
    searched = search.json(f"{folder}/metrics.json", SearchedFile)
    runs.append(_run(search, folder, seed))
    finds = search.csv(f"{folder}/searches.csv", SEARCHES)
    played = finds.groupby(["budget", "reward", "searcher"]).size()
    if len(played) != len(study.budgets) * len(REWARDS) * len(searched.searchers) or any(
        played != searched.plays
    ):
        raise search.damaged(
            f"{folder}/searches.csv", f"not {searched.plays} plays of each searcher"
        )
    curves = search.csv(f"{folder}/curves.csv", CURVES)
    if set(curves["searcher"]) != set(searched.searchers):
        raise search.damaged(f"{folder}/curves.csv", "other searchers than metrics.json's")
    return Searches(searched, _finds(finds), curves)


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    return frame.itertuples(index=False)


def _finds(frame: pd.DataFrame) -> dict[tuple[str, str, str], dict[int, Find]]:
    found: dict[tuple[str, str, str], dict[int, Find]] = {}
    for row in _rows(frame):
        plays = found.setdefault((row.reward, row.searcher, row.budget), {})
        plays[int(row.play)] = Find(float(row.true_top1), int(row.rank), int(row.distinct))
    return found


def _files(path: Path, stage: str, *items: object) -> Files:
    """The files of a stage, which this pipeline calls without the study's name."""
    files = Files(path, STUDY, stage, *items)
    of_matrix = f"@{'-'.join(map(str, items))}" if items else ""
    files.target = f"channel_bench/dvc.yaml:{stage}{of_matrix}"
    return files


def _run(files: Files, folder: str, seed: int | None) -> Run:
    sidecar = files.json(f"{folder}/run.json", RunFile)
    if sidecar.stage != files.stage:
        raise files.damaged(f"{folder}/run.json", f"it is of {sidecar.stage}")
    return Run(**vars(sidecar), seed=seed)
