"""What the stages of this small pipeline read: channel_bench/params.yaml, strictly."""

from pathlib import Path
from typing import Any, cast

from pydantic.dataclasses import dataclass

from experiments.common.stage import Context
from experiments.common.study import (
    MANY,
    MOST_THREADS,
    DataSettings,
    ModelSettings,
    Precision,
    PruningNetTraining,
    check_text,
    check_within,
    ranges_of_data,
)
from experiments.common.study_file import root_folder
from graphpruning.channel_bench import NETWORKS, ChannelBench
from graphpruning.common.errors import UserError
from graphpruning.common.names import nearest, require_plain
from graphpruning.common.validated import STRICT, validated
from graphpruning.network.widths import SpaceSettings
from graphpruning.network.zoo import LARGEST_SEED
from graphpruning.pruningnet.conditionings import CONDITIONINGS

STUDY_FILE = Path("channel_bench/params.yaml")


@dataclass(frozen=True, config=STRICT)
class Judged:
    """How many random widths every PruningNet judges: of the whole space, and of each budget."""

    candidates: int
    within: int


@dataclass(frozen=True, config=STRICT)
class SearchPlan:
    """`plays` searches of every searcher for each of `models`, `evaluations` each, judged by the
    PruningNet `source`.
    """

    models: tuple[str, ...]
    source: str
    evaluations: int
    plays: int


@dataclass(frozen=True, config=STRICT)
class ChannelBenchStudy:
    """Networks of the tables, PruningNets for each, and what they are asked."""

    study: str
    title: str
    models: tuple[str, ...]
    networks: dict[str, ModelSettings]
    data: DataSettings
    space: SpaceSettings
    precision: Precision
    threads: int | None
    pruningnet: PruningNetTraining
    tables: str
    judged: Judged
    search: SearchPlan
    budgets: tuple[float, ...]
    seeds: tuple[int, ...]


def of(context: Context) -> ChannelBenchStudy:
    """The context's study, which is one of these."""
    return cast(ChannelBenchStudy, context.study)


def table_name(model: str) -> str:
    """What the tables call a network that is `model` here."""
    return next(name for name, built in NETWORKS.items() if built == model)


def truth(context: Context) -> ChannelBench:
    """The tables of the stage's network; `UserError` where they are not, or are others."""
    study = of(context)
    network = table_name(context.items["model"])
    return ChannelBench(network, root_folder(study.tables), filled=study.space.filled)


def parse(raw: Any, where: str = str(STUDY_FILE)) -> ChannelBenchStudy:
    """Turn plain data into a study; `UserError` for what does not fit."""
    study = validated(ChannelBenchStudy, raw, where)
    require_plain(study.study, f"{where}: study")
    if unknown := [name for name in study.models if name not in NETWORKS.values()]:
        raise UserError(
            f"{where}: models: {unknown[0]!r} is none of {', '.join(NETWORKS.values())}"
        )
    if set(study.networks) != set(study.models):
        raise UserError(f"{where}: networks: say how {' and '.join(study.models)} are built")
    check_text(study.title, study.data, where)
    names = study.pruningnet.conditionings
    for name in (*names, study.search.source):
        if name not in CONDITIONINGS:
            near = nearest(name, CONDITIONINGS)
            raise UserError(f"{where}: conditioning {name!r} is unknown; did you mean {near!r}?")
    if inheriting := [name for name in names if CONDITIONINGS[name].inherit]:
        raise UserError(f"{where}: {inheriting[0]} begins with a base, and none is trained here")
    if not set(study.search.models) <= set(study.models):
        raise UserError(f"{where}: search: models: searched can only be what models lists")
    if study.search.source not in names:
        raise UserError(f"{where}: search: source: {study.search.source!r} is not trained")
    for key, values in (
        ("models", study.models),
        ("search: models", study.search.models),
        ("budgets", study.budgets),
        ("seeds", study.seeds),
        ("conditionings", names),
    ):
        if not values or len(set(values)) < len(values):
            raise UserError(f"{where}: {key}: empty, or one stands twice")
    if len(study.seeds) != 1:
        raise UserError(f"{where}: seeds: {len(study.seeds)}, but tables are made of one replicate")
    if not study.tables.isprintable() or not study.tables:
        raise UserError(f"{where}: tables: {study.tables!r} is no path")
    check_within(
        where,
        {
            "threads": (study.threads, 1, MOST_THREADS),
            **ranges_of_data(study.data),
            **{f"seeds[{n}]": (seed, 0, LARGEST_SEED) for n, seed in enumerate(study.seeds)},
            **{f"budgets[{n}]": (share, 0.01, 1) for n, share in enumerate(study.budgets)},
            "judged: candidates": (study.judged.candidates, 3, MANY),
            "judged: within": (study.judged.within, 3, MANY),
            "search: evaluations": (study.search.evaluations, 2, MANY),
            "search: plays": (study.search.plays, 2, MANY),
        },
    )
    if not study.data.search_images:
        raise UserError(f"{where}: data: search_images: 0, but candidates are judged on them")
    return study
