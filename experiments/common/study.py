"""A study: what `dvc repro` needs to know, made of the library's own settings.

`read` checks a study file whole. An unknown key or value is an error that names where it stands and
the nearest known one.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic.dataclasses import dataclass as checked_dataclass

from experiments.common.resources import Resources
from experiments.common.study_file import PARAMS, check_names, read_study_file
from graphpruning.common.budget import budget_in_macs as macs_of
from graphpruning.common.errors import UserError
from graphpruning.common.names import nearest
from graphpruning.common.validated import STRICT, validated
from graphpruning.judging import Reconstruction
from graphpruning.methods import METHODS, Initial, SearchSettings
from graphpruning.network.widths import SpaceSettings
from graphpruning.network.zoo import LARGEST_SEED
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.training.distillation import Distillation
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe

FEWEST = 4
"""Images of the correlation analysis: half of them, and a part of that half, can be taken."""
Part = Literal["base", "pruningnet", "analysis", "final", "second"]
Precision = Literal["auto", "32-true", "bf16-mixed"]
MOST_THREADS = 1024
MOST_ACTIONS = 10**4
MANY = 10**9
"""More than anybody means: a typing error, which would otherwise end in a lack of memory."""
SEARCHES = ("graph", "block", "none", "base", "own")
"""Where candidates' weights come from; dvc.yaml has a search stage for each. A method under "own"
has a PruningNet of its own, of the same name."""


@dataclass(frozen=True)
class ModelSettings:
    """One model: how it is built, and where it differs from the rest of the study.

    `options` go to `zoo.build`. `budgets` says how many MACs a budget's label ("large") means for
    this model. `recipes` replace the study's. `weights`, torchvision's or a file's as
    `training.pretrained` takes them, are those of a base that is trained already.
    """

    options: dict[str, Any] = field(default_factory=dict)
    budgets: dict[str, float | str] = field(default_factory=dict)
    recipes: dict[Part, Recipe] = field(default_factory=dict)
    weights: str | None = None


@dataclass(frozen=True)
class DataSettings:
    """Which images. `files` is what DVC watches; `search_images` are held out of training,
    equally many of each class.

    Of `calibration_images`, which are part of training, the first `recalibration_images` give every
    candidate its batch normalisation statistics. `seed` draws the splits, which are the same for
    all replicates.

    `root` may hold environment variables. `workers` processes decode image files.
    """

    name: str
    root: str
    files: str
    search_images: int
    calibration_images: int
    recalibration_images: int
    seed: int
    preprocessing: Preprocessing
    workers: int = 0


@dataclass(frozen=True)
class BaseTraining:
    """Training of the unpruned network."""

    recipe: Recipe


@dataclass(frozen=True)
class CorrelationSettings:
    """Images, and positions per image, that the correlation analysis samples."""

    images: int
    positions: int

    def __post_init__(self) -> None:
        if self.images < FEWEST:
            raise UserError(
                f"images: {self.images} are too few to fit one half and score the other: at least "
                f"{FEWEST}"
            )


@dataclass(frozen=True)
class PruningNetTraining:
    """Training of the PruningNets, one a conditioning, all by the same recipe.

    Those named in `recipes` have one of their own: a step of some costs several passes, which a
    shorter training makes good.
    """

    conditionings: tuple[str, ...]
    recipe: Recipe
    recipes: dict[str, Recipe] = field(default_factory=dict)


@dataclass(frozen=True)
class AnalysisSettings:
    """What the PruningNets of `conditionings` are asked.

    They judge `candidates` random widths of the whole space and `within` of each budget. The first
    `trained` of each budget are trained from scratch too, `trainings` times each, by `recipe`.
    `budgets` are the analysis's own; null: the study's.
    """

    conditionings: tuple[str, ...]
    candidates: int
    within: int
    trained: int
    trainings: int
    recipe: Recipe
    budgets: tuple[float | str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class SearchSection(SearchSettings):
    """`evaluations` candidates for every searcher (a uniform width is only one).

    `reward` is what a candidate is judged by. `base_statistics` are the batch normalisations' of
    weights cut out of the base: recalibrated, as for every other candidate, or kept, as in AMC.
    """

    evaluations: int
    reward: Literal["top1", "top5"] = "top1"
    base_statistics: Literal["recalibrated", "kept"] = "recalibrated"


@dataclass(frozen=True)
class SecondTraining:
    """Another way to train the found networks, and what it begins with."""

    initial: Initial
    recipe: Recipe


@dataclass(frozen=True)
class FinalTraining:
    """Training of the found networks, and what it begins with where the method does not say.

    Each network is trained `trainings` times, and as often in a `second` way, if there is one.
    `distillation` is of the methods whose networks learn from the base too.
    """

    initial: Initial
    recipe: Recipe
    trainings: int = 1
    second: SecondTraining | None = None
    distillation: Distillation = field(default_factory=Distillation)


@dataclass(frozen=True)
class FurtherTrainings:
    """Final trainings beside those of `final`, of the networks that `methods` found, by number.

    `final` has the first numbers, from 0. Each number is a stage of its own, so a study that has
    not decided is carried on with them alone.
    """

    methods: tuple[str, ...]
    trainings: tuple[int, ...]


@checked_dataclass(frozen=True, config=STRICT)
class Study:
    """Everything that `dvc repro` needs to know.

    Each of `seeds` is a whole replicate. A stage takes `threads` processor threads (null: one a
    core, and then stages run one by one). `resources` is what
    a cluster gives to a stage of each kind ("default": to the others).
    """

    study: str
    title: str
    models: tuple[str, ...]
    networks: dict[str, ModelSettings]
    data: DataSettings
    space: SpaceSettings
    precision: Precision
    threads: int | None
    base: BaseTraining
    correlation: CorrelationSettings
    pruningnet: PruningNetTraining
    analysis: AnalysisSettings
    search: SearchSection
    reconstruction: Reconstruction
    final: FinalTraining
    again: FurtherTrainings
    budgets: tuple[float | str, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    searches: dict[str, tuple[str, ...]]
    resources: dict[str, Resources] = field(default_factory=dict)


def read(path: Path = PARAMS) -> Study:
    """Read a study file and check it whole; `UserError` for what does not fit."""
    return parse(read_study_file(path), str(path))


def parse(raw: Any, where: str = str(PARAMS)) -> Study:
    """Turn plain data into a `Study`."""
    check_names(raw, where)
    study = validated(Study, raw, where)
    _check_names(study, where)
    _check_methods(study, where)
    _check_ranges(study, where)
    _check_beginnings(study, where)
    _check_networks(study, where)
    return study


def _check_names(study: Study, where: str) -> None:
    """No list is empty, and nothing stands twice in one."""
    lists: dict[str, tuple[Any, ...]] = {
        "models": study.models,
        "budgets": tuple(map(budget_name, study.budgets)),
        "seeds": study.seeds,
        "methods": study.methods,
        "pruningnet: conditionings": study.pruningnet.conditionings,
        "analysis: conditionings": study.analysis.conditionings,
        "analysis: budgets": tuple(map(budget_name, analysed_budgets(study))),
    }
    may_be_empty: dict[str, tuple[Any, ...]] = {
        "again: methods": study.again.methods,
        "again: trainings": study.again.trainings,
    }
    for key, names in {**lists, **may_be_empty}.items():
        if not names and key not in may_be_empty:
            raise UserError(f"{where}: {key}: the list is empty")
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{where}: {key}: {str(twice[0])!r} stands twice: remove one")
    check_text(study.title, study.data, where)


def check_text(title: str, data: DataSettings, where: str) -> None:
    """Refuse a title or a path with line feeds and the like."""
    for key, path in (("root", data.root), ("files", data.files)):
        if not path or not path.isprintable():
            raise UserError(f"{where}: data: {key}: {path!r} is no path")
    if not title or not title.isprintable():
        raise UserError(f"{where}: title: {title!r} is no line of text")


def _check_methods(study: Study, where: str) -> None:
    """`searches` lists every method once, under weights that the study makes."""
    trained = study.pruningnet.conditionings
    for name in trained:
        if name not in CONDITIONINGS:
            near = nearest(name, CONDITIONINGS)
            raise UserError(
                f"{where}: pruningnet: conditionings: {name!r} is unknown; did you mean {near!r}?"
            )
    for name in study.pruningnet.recipes:
        if name not in trained:
            raise UserError(
                f"{where}: pruningnet: recipes: {name!r} is not among pruningnet: conditionings; "
                f"did you mean {nearest(name, trained)!r}?"
            )
    for source in study.searches:
        if source not in SEARCHES:
            near = nearest(source, SEARCHES)
            raise UserError(f"{where}: searches: unknown key {source!r}; did you mean {near!r}?")
    if missing := [source for source in SEARCHES if source not in study.searches]:
        raise UserError(f"{where}: searches: key {missing[0]!r} is missing; its list may be empty")
    listed = sorted(method for methods in study.searches.values() for method in methods)
    if listed != sorted(study.methods):
        raise UserError(f"{where}: `methods` and the lists under `searches` name other methods")
    for source, methods in study.searches.items():
        for method in methods:
            needed = method if source == "own" else source
            if needed not in ("base", *trained):
                raise UserError(
                    f"{where}: searches: {source}: {method} needs the PruningNet {needed!r}: "
                    "add it to pruningnet: conditionings"
                )
    for name in study.analysis.conditionings:
        if name not in trained:
            raise UserError(
                f"{where}: analysis: conditionings: {name!r} is not among pruningnet: conditionings"
            )
    if bool(study.again.methods) != bool(study.again.trainings):
        raise UserError(f"{where}: again: one list is empty: fill both, or none")
    for name in study.again.methods:
        if name not in study.methods:
            raise UserError(
                f"{where}: again: methods: {name!r} is not among the study's methods; "
                f"did you mean {nearest(name, study.methods)!r}?"
            )


def _check_beginnings(study: Study, where: str) -> None:
    """Searches that begin at random do not end there: else they are random search by name."""
    searchers = {METHODS[name].searcher for name in study.methods if name in METHODS}
    search = study.search
    for searcher, key, begins in (
        ("evolution", "evolution: population", search.evolution.population),
        ("predictor", "predictor: warmup", search.predictor.warmup),
    ):
        if searcher in searchers and begins >= search.evaluations:
            raise UserError(
                f"{where}: search: {key}: {begins} random candidates are all that a search of "
                f"{search.evaluations} evaluations judges: give {search.evaluations - 1} or less"
            )


def _check_ranges(study: Study, where: str) -> None:
    """Every number lies where it means something; parts fit into their whole."""
    data, search, analysis = study.data, study.search, study.analysis
    agent, ddpg, evolution = search.agent, search.ddpg, search.evolution
    predictor = search.predictor
    smallest_population = max(1, evolution.parents, evolution.mutations + evolution.crossovers)
    calibration = data.calibration_images
    check_within(
        where,
        {
            "threads": (study.threads, 1, MOST_THREADS),
            **ranges_of(data, study.correlation),
            **{f"seeds[{n}]": (seed, 0, LARGEST_SEED) for n, seed in enumerate(study.seeds)},
            "analysis: candidates": (analysis.candidates, 2, MANY),
            "analysis: within": (analysis.within, 1, MANY),
            "analysis: trained": (analysis.trained, 1, analysis.within),
            "analysis: trainings": (analysis.trainings, 1, MANY),
            "search: evaluations": (search.evaluations, 2, MANY),
            "search: agent: warmup_episodes": (agent.warmup_episodes, 1, search.evaluations - 1),
            "search: agent: prior": (agent.prior, 1e-6, MANY),
            "search: agent: scale": (agent.scale, 0, MANY),
            "search: agent: trust": (agent.trust, 0, 1),
            "search: agent: grid": (agent.grid, 2, MOST_ACTIONS),
            "search: ddpg: warmup_episodes": (ddpg.warmup_episodes, 1, search.evaluations - 1),
            "search: ddpg: noise_decay": (ddpg.noise_decay, 0, 1),
            "search: evolution: population": (evolution.population, smallest_population, MANY),
            "search: evolution: parents": (evolution.parents, 1, MANY),
            "search: evolution: mutations": (evolution.mutations, 0, MANY),
            "search: evolution: crossovers": (evolution.crossovers, 0, MANY),
            "search: evolution: mutation_probability": (evolution.mutation_probability, 0, 1),
            "search: predictor: warmup": (predictor.warmup, 2, MANY),
            "search: predictor: pool": (predictor.pool, 1, MANY),
            "search: predictor: scale": (predictor.scale, 0, MANY),
            "search: predictor: trust": (predictor.trust, 0, 1),
            "reconstruction: images": (study.reconstruction.images, 1, calibration),
            "reconstruction: points": (study.reconstruction.points, 1, MANY),
            "final: trainings": (study.final.trainings, 1, MANY),
            **{
                f"again: trainings[{n}]": (number, study.final.trainings, MANY)
                for n, number in enumerate(study.again.trainings)
            },
            "final: distillation: weight": (study.final.distillation.weight, 0, 1),
            "final: distillation: temperature": (study.final.distillation.temperature, 0.01, MANY),
        },
    )


Range = tuple[float | None, float, float]
"""A value, and the least and the most that it may be; no value is always right."""


def ranges_of(data: DataSettings, correlation: CorrelationSettings) -> dict[str, Range]:
    """The ranges of two sections that studies with a correlation analysis have."""
    return {
        **ranges_of_data(data),
        "correlation: images": (correlation.images, 1, data.calibration_images),
        "correlation: positions": (correlation.positions, 1, MANY),
    }


def ranges_of_data(data: DataSettings) -> dict[str, Range]:
    """The ranges of a section that every study has."""
    return {
        "data: search_images": (data.search_images, 0, MANY),
        "data: calibration_images": (data.calibration_images, 1, MANY),
        "data: recalibration_images": (data.recalibration_images, 1, data.calibration_images),
        "data: seed": (data.seed, 0, LARGEST_SEED),
        "data: workers": (data.workers, 0, MOST_THREADS),
    }


def check_within(where: str, ranges: dict[str, Range]) -> None:
    """Raise `UserError` for the first value outside of its range."""
    for key, (value, least, most) in ranges.items():
        if value is not None and not least <= value <= most:
            raise UserError(f"{where}: {key}: {value} does not lie between {least} and {most}")


def _check_networks(study: Study, where: str) -> None:
    """Every model has an entry, and every budget means MACs for it."""
    budgets = list(dict.fromkeys((*study.budgets, *analysed_budgets(study))))
    names = [budget_name(budget) for budget in budgets]
    for model in study.models:
        if model not in study.networks:
            raise UserError(f"{where}: networks has no entry for the model {model!r}")
        network = study.networks[model]
        for label in network.budgets:
            if label not in names:
                raise UserError(
                    f"{where}: networks: {model}: budgets: {label!r} is not among the study's "
                    f"budgets, {', '.join(names)}"
                )
        for budget in budgets:
            try:
                budget_in_macs(network, budget, 2**62)  # the size shows when it is built
            except UserError as refusal:
                raise UserError(
                    f"{where}: networks: {model}: {refusal}; a label needs an entry in its budgets"
                ) from None


def recipe(study: Study, part: Part, model: str) -> Recipe:
    """The recipe of a part of the study for `model`: its own, else the study's.

    "second" is the second kind of final training, which the study must have.
    """
    assert part in get_args(Part)
    section = study.final.second if part == "second" else getattr(study, part)
    assert section is not None
    own: Recipe = study.networks[model].recipes.get(part, section.recipe)
    return own


def pruningnet_recipe(study: Study, model: str, conditioning: str) -> Recipe:
    """The recipe of one PruningNet: the conditioning's own, else as `recipe` says."""
    own = study.pruningnet.recipes.get(conditioning)
    return own or recipe(study, "pruningnet", model)


def analysed_budgets(study: Study) -> tuple[float | str, ...]:
    """The budgets within which PruningNets are analysed."""
    return study.budgets if study.analysis.budgets is None else study.analysis.budgets


def budget_in_macs(network: ModelSettings, budget: float | str, full: int) -> int:
    """MACs of a budget for `network`: as the library's, or a label that the network explains."""
    return macs_of(network.budgets.get(budget_name(budget), budget), full)


def budget_name(budget: float | str) -> str:
    """A budget as stage names and folders write it: "0.5", "1", "316M"."""
    return budget if isinstance(budget, str) else f"{budget:g}"
