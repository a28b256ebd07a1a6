"""The one reader of a study file (`params.yaml`): typed and strict.

An unknown key or value is an error that names where it stands and the nearest known one.
`python -m experiments.common.study KEY` prints one value (`data.name`), for the Makefile. With
`--check` it prints nothing: DVC runs that before every command that has values of the study in it.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.common.study_file import read_study_file
from experiments.common.typed import nearest, typed
from graphpruning.common.budget import budget_in_macs as macs_of
from graphpruning.common.errors import UserError
from graphpruning.common.names import require_plain
from graphpruning.training.recipe import Recipe

PARAMS = Path("params.yaml")

Conditioning = Literal["graph", "block", "none", "no-shortcuts", "sage", "gat"]
Part = Literal["base", "pruningnet", "final"]
LARGEST_SEED = 2**63 - 1
MOST_THREADS = 1024
MOST_PIXELS = 8192
MANY = 10**9
"""More than anybody means: a typing error, which would otherwise end in a lack of memory."""
SOURCES = ("graph", "block", "none", "base", "ablations")
"""Where candidates' weights come from, a search stage each; each of the ablations has a PruningNet
of its own, of the same name."""


@dataclass(frozen=True)
class Network:
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
class Data:
    """Which images. `files` is what DVC watches; `search_images` are held out of training,
    equally many of each class.

    Of `calibration_images`, which are part of training, the first `recalibration_images` give every
    candidate its batch normalisation statistics.

    `root` may hold environment variables. Image files are resized to `resize` pixels on the shorter
    side and cut to the central `size`; in training a random part of at least `smallest_area` of
    the area is cut out instead (null: `pad` and crop). `workers` processes decode them.
    """

    name: str
    root: str
    files: str
    search_images: int
    calibration_images: int
    recalibration_images: int
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int
    flip: bool
    size: int | None = None
    resize: int | None = None
    smallest_area: float | None = None
    workers: int = 0


@dataclass(frozen=True)
class Space:
    """Levels of each group: multiples of `divisor` from `smallest` x full on, or `ratios`.

    Candidates use at least the share `filled` of a budget (0: as little as they like).
    """

    divisor: int | None
    smallest: float
    ratios: tuple[float, ...] | None
    filled: float = 0.98


@dataclass(frozen=True)
class Base:
    """Training of the unpruned network."""

    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Correlation:
    """Images and positions per image that the correlation analysis samples."""

    images: int
    positions: int
    seed: int


@dataclass(frozen=True)
class PruningNets:
    """Training of the PruningNets, one a conditioning, all by the same recipe."""

    conditionings: tuple[Conditioning, ...]
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Analysis:
    """Random candidates judged with generated weights; the first `trained` also from scratch.

    `conditionings` names the PruningNets that one stage judges: ["graph+block+none"].
    """

    conditionings: tuple[str, ...]
    candidates: int
    trained: int
    seed: int


@dataclass(frozen=True)
class Agent:
    """DDPG's settings that follow the number of evaluations; the others are AMC's."""

    warmup_episodes: int
    noise_decay: float


@dataclass(frozen=True)
class Evolution:
    """Sizes of MetaPruning's generations."""

    population: int
    parents: int
    mutations: int
    crossovers: int
    mutation_probability: float


@dataclass(frozen=True)
class Reconstruction:
    """Base images and output positions per image from which AMC re-fits sliced weights."""

    images: int
    points: int


@dataclass(frozen=True)
class Search:
    """`evaluations` candidates for every searcher (a uniform width is only one).

    `reward` is what a candidate is judged by. `base_statistics` are the batch normalisations' of
    weights cut out of the base: recalibrated, as for every other candidate, or kept, as in AMC.
    """

    evaluations: int
    agent: Agent
    evolution: Evolution
    reconstruction: Reconstruction
    reward: Literal["top1", "top5"] = "top1"
    base_statistics: Literal["recalibrated", "kept"] = "recalibrated"


@dataclass(frozen=True)
class Final:
    """Training of the found networks: from fresh weights, or from those that the search used."""

    initial: Literal["scratch", "searched"]
    recipe: Recipe


@dataclass(frozen=True)
class Study:
    """Everything that `dvc repro` needs to know.

    A stage takes `threads` processor threads (null: one a core, and then stages run one by one).
    Every list but `models` is empty in a study that ends after the correlation.
    """

    study: str
    title: str
    models: tuple[str, ...]
    networks: dict[str, Network]
    data: Data
    space: Space
    precision: Literal["auto", "32-true", "bf16-mixed"]
    threads: int | None
    base: Base
    correlation: Correlation
    pruningnet: PruningNets
    analysis: Analysis
    search: Search
    final: Final
    budgets: tuple[float | str, ...]
    seeds: tuple[str, ...]
    methods: tuple[str, ...]
    searches: dict[str, tuple[str, ...]]


def load(path: Path = PARAMS) -> dict[str, Any]:
    """Read a study file as plain data and check it whole; `UserError` for what does not fit."""
    raw = read_study_file(path)
    parse(raw, str(path))
    result: dict[str, Any] = raw
    return result


def parse(raw: Any, where: str = str(PARAMS)) -> Study:
    """Turn plain data into a `Study`."""
    study: Study = typed(Study, raw, where)
    _check_names(study, where)
    _check_methods(study, where)
    _check_lists(study, where)
    _check_ranges(study, where)
    _check_networks(study, where)
    return study


def _check_names(study: Study, where: str) -> None:
    """What becomes part of a command, a stage's name or a path is a plain name, and stands once.

    DVC puts these values into its commands, which a shell runs.
    """
    budgets = tuple(budget_name(budget) for budget in study.budgets)
    names: dict[str, tuple[str, ...]] = {
        "study": (study.study,),
        "models": study.models,
        "networks": tuple(study.networks),
        "budgets": budgets,
        "seeds": study.seeds,
        "methods": study.methods,
        "pruningnet: conditionings": study.pruningnet.conditionings,
        "analysis: conditionings": study.analysis.conditionings,
    }
    for model, network in study.networks.items():
        names[f"networks: {model}: options"] = tuple(network.options)
        names[f"networks: {model}: budgets"] = tuple(network.budgets)
    for source, methods in study.searches.items():
        names[f"searches: {source}"] = methods
    for key, listed in names.items():
        for name in listed:
            require_plain(name, f"{where}: {key}")
        _require_once(listed, f"{where}: {key}")
    seeds = [seed for joined in study.seeds for seed in seed_list(joined)]
    _require_once(tuple(map(str, seeds)), f"{where}: seeds")
    for key, path in (("root", study.data.root), ("files", study.data.files)):
        if not path or not path.isprintable():
            raise UserError(f"{where}: data: {key}: {path!r} is no path")
    if not study.title or not study.title.isprintable():
        raise UserError(f"{where}: title: {study.title!r} is no line of text")


def _require_once(names: tuple[str, ...], where: str) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{where}: {twice[0]!r} stands twice: remove one")


def _check_methods(study: Study, where: str) -> None:
    """`searches` lists every method once, under weights that the study makes."""
    for source in study.searches:
        if source not in SOURCES:
            raise UserError(
                f"{where}: searches: unknown key {source!r}; {nearest(source, SOURCES)}"
            )
    if missing := [source for source in SOURCES if source not in study.searches]:
        raise UserError(f"{where}: searches: key {missing[0]!r} is missing; its list may be empty")
    listed = sorted(method for methods in study.searches.values() for method in methods)
    if listed != sorted(study.methods):
        raise UserError(f"{where}: `methods` and the lists under `searches` name other methods")
    trained = study.pruningnet.conditionings
    for source, methods in study.searches.items():
        for method in methods:
            needed = method if source == "ablations" else source
            if needed not in ("base", *trained):
                raise UserError(
                    f"{where}: searches: {source}: {method} needs the PruningNet {needed!r}: "
                    "add it to pruningnet: conditionings"
                )
    if len(study.analysis.conditionings) > 1:
        raise UserError(f"{where}: analysis: conditionings: join them to one, such as 'graph+none'")
    for name in (name for joined in study.analysis.conditionings for name in joined.split("+")):
        if name not in trained:
            raise UserError(
                f"{where}: analysis: conditionings: {name!r} is not among pruningnet: conditionings"
            )


def _check_lists(study: Study, where: str) -> None:
    """A study goes to its end, or ends after the correlation: no list is empty, or all are."""
    for key, listed in (("models", study.models), ("data: mean", study.data.mean)):
        if not listed:
            raise UserError(f"{where}: {key}: the list is empty")
    lists = {
        "pruningnet: conditionings": study.pruningnet.conditionings,
        "analysis: conditionings": study.analysis.conditionings,
        "budgets": study.budgets,
        "seeds": study.seeds,
        "methods": study.methods,
    }
    empty = [key for key, listed in lists.items() if not listed]
    if empty and len(empty) < len(lists):
        raise UserError(
            f"{where}: {empty[0]}: the list is empty; only a study that ends after the correlation "
            f"may have that, and there all of these are empty: {'; '.join(lists)}"
        )


def _check_ranges(study: Study, where: str) -> None:
    """Every number lies where it means something; parts fit into their whole."""
    data, space, search = study.data, study.space, study.search
    agent, evolution = search.agent, search.evolution
    analysis, fit_again = study.analysis, search.reconstruction
    smallest_population = max(1, evolution.parents, evolution.mutations + evolution.crossovers)
    within: dict[str, tuple[float | None, float, float]] = {
        "threads": (study.threads, 1, MOST_THREADS),
        "data: search_images": (data.search_images, 0, MANY),
        "data: calibration_images": (data.calibration_images, 1, MANY),
        "data: recalibration_images": (data.recalibration_images, 1, data.calibration_images),
        "data: seed": (data.seed, 0, LARGEST_SEED),
        "data: pad": (data.pad, 0, MOST_PIXELS),
        "data: size": (data.size, 1, data.resize or MOST_PIXELS),
        "data: resize": (data.resize, 1, MOST_PIXELS),
        "data: workers": (data.workers, 0, MOST_THREADS),
        "space: divisor": (space.divisor, 1, MANY),
        "space: filled": (space.filled, 0, 1),
        "base: seed": (study.base.seed, 0, LARGEST_SEED),
        "correlation: images": (study.correlation.images, 1, data.calibration_images),
        "correlation: positions": (study.correlation.positions, 1, MANY),
        "correlation: seed": (study.correlation.seed, 0, LARGEST_SEED),
        "pruningnet: seed": (study.pruningnet.seed, 0, LARGEST_SEED),
        "analysis: candidates": (analysis.candidates, 1, MANY),
        "analysis: trained": (analysis.trained, 1, analysis.candidates),
        "analysis: seed": (analysis.seed, 0, LARGEST_SEED),
        "search: evaluations": (search.evaluations, 2, MANY),
        "search: agent: warmup_episodes": (agent.warmup_episodes, 1, search.evaluations - 1),
        "search: agent: noise_decay": (agent.noise_decay, 0, 1),
        "search: evolution: population": (evolution.population, smallest_population, MANY),
        "search: evolution: parents": (evolution.parents, 1, MANY),
        "search: evolution: mutations": (evolution.mutations, 0, MANY),
        "search: evolution: crossovers": (evolution.crossovers, 0, MANY),
        "search: evolution: mutation_probability": (evolution.mutation_probability, 0, 1),
        "search: reconstruction: images": (fit_again.images, 1, data.calibration_images),
        "search: reconstruction: points": (fit_again.points, 1, MANY),
    }
    for key, (value, least, most) in within.items():
        if value is not None and not least <= value <= most:
            raise UserError(f"{where}: {key}: {value} does not lie between {least} and {most}")
    shares = {f"space: ratios[{n}]": ratio for n, ratio in enumerate(space.ratios or ())}
    shares["space: smallest"] = space.smallest
    if data.smallest_area is not None:
        shares["data: smallest_area"] = data.smallest_area
    for key, share in shares.items():
        if not 0 < share <= 1:
            raise UserError(f"{where}: {key}: {share} is no share above 0 and up to 1")
    for number, deviation in enumerate(data.std):
        if not deviation > 0:
            raise UserError(f"{where}: data: std[{number}]: {deviation} is not above 0")


def _check_networks(study: Study, where: str) -> None:
    """Every model has an entry, and every budget means MACs for it."""
    names = [budget_name(budget) for budget in study.budgets]
    for model in study.models:
        if model not in study.networks:
            raise UserError(f"{where}: networks has no entry for the model {model!r}")
        network = study.networks[model]
        for label in network.budgets:
            if label not in names:
                raise UserError(
                    f"{where}: networks: {model}: budgets: {label!r} is not among the study's "
                    f"budgets, {', '.join(names) or 'which are none'}"
                )
        for budget in study.budgets:
            try:
                budget_in_macs(network, budget, sys.maxsize)  # the size shows when it is built
            except UserError as refusal:
                raise UserError(
                    f"{where}: networks: {model}: {refusal}; a label needs an entry in its budgets"
                ) from None


def recipe(study: Study, part: Part, model: str) -> Recipe:
    """The recipe of a part of the study for `model`: its own, else the study's."""
    section: Base | PruningNets | Final = getattr(study, part)
    return study.networks[model].recipes.get(part, section.recipe)


def budget_in_macs(network: Network, budget: float | str, full: int) -> int:
    """MACs of a budget for `network`: as the library's, or a label that the network explains."""
    return macs_of(network.budgets.get(budget_name(budget), budget), full)


def budget_name(budget: float | str) -> str:
    """A budget as stage names and folders write it: "0.5", "1", "316M"."""
    return budget if isinstance(budget, str) else f"{budget:g}"


def seed_list(seeds: str) -> list[int]:
    """The seeds that one stage runs one after the other: "0+1+2" is [0, 1, 2]."""
    if not re.fullmatch(r"[0-9]{1,19}(\+[0-9]{1,19})*", str(seeds)):
        raise UserError(f"seeds: {seeds!r} is not of the form '0' or '0+1+2'")
    found = [int(seed) for seed in str(seeds).split("+")]
    if max(found) > LARGEST_SEED:
        raise UserError(f"seeds: {max(found)} does not lie between 0 and {LARGEST_SEED}")
    return found


def main(arguments: list[str]) -> int:
    """Print one value of the study, or with `--check` none, after checking all of it."""
    if len(arguments) != 1:
        print("usage: python -m experiments.common.study KEY | --check", file=sys.stderr)
        return 2
    try:
        study = load()
        if arguments == ["--check"]:
            return 0
        for part in arguments[0].split("."):
            if not isinstance(study, dict) or part not in study:
                raise UserError(f"{PARAMS} has no {arguments[0]!r}")
            study = study[part]
    except UserError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    print(study)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
