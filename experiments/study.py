"""The one reader of a study file (`params.yaml`): typed and strict.

An unknown key or value is an error that names where it stands and the nearest known one.
`python -m experiments.study KEY` prints one value (`data.name`), for the Makefile.
"""

import difflib
import math
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from graphpruning.budget import budget_in_macs as macs_of
from graphpruning.errors import UserError
from graphpruning.training.recipe import Recipe

PARAMS = Path("params.yaml")

Conditioning = Literal["graph", "block", "none", "no-shortcuts", "sage", "gat"]
Part = Literal["base", "pruningnet", "final"]
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
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the repository's root") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    parse(raw, str(path))
    result: dict[str, Any] = raw
    return result


def parse(raw: Any, where: str = str(PARAMS)) -> Study:
    """Turn plain data into a `Study`."""
    study: Study = _read(Study, raw, where)
    for seeds in study.seeds:
        seed_list(seeds)
    _check_methods(study, where)
    _check_lists(study, where)
    _check_ranges(study, where)
    _check_networks(study, where)
    return study


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
    """Counts that must be there, and parts that must fit into their whole."""
    data, search, analysis = study.data, study.search, study.analysis
    within: dict[str, tuple[int | None, float]] = {
        "threads": (study.threads, math.inf),
        "data: recalibration_images": (data.recalibration_images, data.calibration_images),
        "data: size": (data.size, math.inf if data.resize is None else data.resize),
        "data: resize": (data.resize, math.inf),
        "correlation: images": (study.correlation.images, data.calibration_images),
        "search: reconstruction: images": (search.reconstruction.images, data.calibration_images),
        "analysis: trained": (analysis.trained, analysis.candidates),
        "search: agent: warmup_episodes": (search.agent.warmup_episodes, search.evaluations - 1),
    }
    for key, (value, most) in within.items():
        if value is not None and not 1 <= value <= most:
            upto = f"lie between 1 and {most}" if most < math.inf else "reach 1"
            raise UserError(f"{where}: {key}: {value} does not {upto}")
    if data.smallest_area is not None and not 0 < data.smallest_area <= 1:
        raise UserError(
            f"{where}: data: smallest_area: {data.smallest_area} is no share above 0 and up to 1"
        )
    if data.workers < 0:
        raise UserError(f"{where}: data: workers: {data.workers} is below 0")


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
    try:
        return [int(seed) for seed in str(seeds).split("+")]
    except ValueError:
        raise UserError(f"seeds: {seeds!r} is not of the form '0' or '0+1+2'") from None


def _read(kind: Any, value: Any, where: str) -> Any:
    """Check `value` against a type annotation and build it; errors say where."""
    if is_dataclass(kind):
        return _read_fields(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{where}: {value!r} is unknown; {nearest(value, arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: a list is expected, not {value!r}")
        return tuple(_read(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: a mapping is expected, not {value!r}")
        return {
            _read(arguments[0], str(k), where): _read(arguments[1], v, f"{where}: {k}")
            for k, v in value.items()
        }
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{where}: {kind.__name__} is expected, not {value!r}")
    return float(value) if kind is float else value


def _read_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return _read(kinds[0], value, where)  # its error says more than "X or null is expected"
    for kind in kinds:
        try:
            return _read(kind, value, where)
        except UserError:
            continue
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise UserError(f"{where}: {names} is expected, not {value!r}")


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: a mapping is expected, not {value!r}")
    hints = get_type_hints(kind)
    for key in value:
        if key not in hints:
            raise UserError(f"{where}: unknown key {key!r}; {nearest(key, hints)}")
    required = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    if missing := [name for name in required if name not in value]:
        raise UserError(f"{where}: key {missing[0]!r} is missing")
    values = {key: _read(hints[key], v, f"{where}: {key}") for key, v in value.items()}
    try:
        return kind(**values)
    except UserError as refusal:  # a recipe checks its values itself
        raise UserError(f"{where}: {refusal}") from None


def nearest(word: Any, known: Any) -> str:
    """A question that names the nearest known word."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], 1, 0)
    return f"did you mean {near[0]!r}?"


def main(arguments: list[str]) -> int:
    """Print one value of the study, after checking all of it."""
    if len(arguments) != 1:
        print("usage: python -m experiments.study KEY", file=sys.stderr)
        return 2
    try:
        study = load()
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
