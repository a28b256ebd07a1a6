"""What the stages of a study leave behind, typed: one class for each kind of result.

Accuracies are in percent, costs in MACs for one image, times in seconds. A class whose name ends
in `File` has the keys of a JSON file; the class after it adds the other files of the same folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import AfterValidator, Field

from paper.reader.columns import NETWORKS, PAIRS
from paper.reader.reading import (
    COUNT,
    CorrelationValue,
    Count,
    LabelText,
    LineText,
    Magnitude,
    OneOf,
    Percent,
    PlainName,
    PlainNames,
    Positive,
    Seconds,
    Seeds,
)

LAYER_KINDS = ("convolution", "grouped", "depthwise", "pointwise", "linear")
"""The kinds of layers in a graph, as `graphpruning.drawing` has them."""


# The study


def _check_even(dashes: tuple[float, ...]) -> tuple[float, ...]:
    if len(dashes) % 2:
        raise ValueError("not as many gaps as dashes")
    return dashes


_Dashes = Annotated[
    tuple[Annotated[float, Field(gt=0, le=100)], ...],
    Field(min_length=2, max_length=20),
    AfterValidator(_check_even),
]


@dataclass(frozen=True)
class Look:
    """What a method or a conditioning is called, and its colour, marker and line in a figure."""

    label: LabelText
    colour: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]
    marker: Annotated[str, OneOf(tuple("osD^v<>pPXhHd8*")).field]
    line: Literal["-", "--", "-.", ":"] | tuple[Magnitude, _Dashes]


@dataclass(frozen=True)
class MethodFile(Look):
    """A method in study.json, see `Row`."""

    source: LabelText
    state: LabelText
    searcher: LabelText
    kind: Annotated[str, OneOf(("ours", "baseline", "ablation", "beyond")).field]
    initial: Literal["scratch", "inherited", "generated"] | None
    distilled: bool
    stage: PlainName


@dataclass(frozen=True)
class Row(MethodFile):
    """A method: where a candidate's weights come from, what its search sees, who searches.

    `source` is a PruningNet's conditioning (graph, block, ...) or base; `kind` is ours, baseline,
    ablation, or beyond what the paper has; `initial` is what its final training begins with, None
    where the study says so; `distilled` says whether that training learns from the base as well;
    `stage` is the DVC stage of its search.
    """

    name: str


@dataclass(frozen=True)
class DataFile:
    """What study.json says of the images."""

    name: LabelText


@dataclass(frozen=True)
class FurtherFile:
    """Whose networks are trained further, and the numbers of these trainings."""

    methods: list[PlainName]
    trainings: list[Count]


@dataclass(frozen=True)
class StudyFile:
    """study.json: which files there are, and how the study and its parts are called.

    `analysed_budgets` are those of the analysis of PruningNets; older results leave them out, where
    they are `budgets`. Of `again` not all need be there, but no other further training counts: one
    that the study no longer asks for may be of another recipe. Older results leave it out, and
    those that are there count.
    """

    study: PlainName
    title: LineText
    models: PlainNames
    data: DataFile
    budgets: PlainNames
    methods: PlainNames
    seeds: Seeds
    analysed: PlainNames
    conditionings: dict[PlainName, Look]
    rows: dict[PlainName, MethodFile]
    reward: Literal["top1", "top5"] = "top1"
    analysed_budgets: PlainNames | None = None
    again: FurtherFile | None = None


# Every stage


@dataclass(frozen=True)
class Hardware:
    """The machine that a stage ran on."""

    cpu: LineText
    cores: Positive
    accelerator: LineText
    memory_gb: Magnitude | None = None
    processes: Positive | None = None


@dataclass(frozen=True)
class RunFile:
    """A stage's sidecar: what ran, where, with which versions, at what cost.

    `commit` is the repository's when the stage began, and `clean` says whether its code was as
    committed; older results name neither.
    """

    stage: LineText
    record: LineText
    command: LineText
    seconds: Seconds
    started: LineText
    resumed: bool
    hardware: Hardware
    precision: LineText
    versions: dict[LineText, LineText]
    images_seen: Count
    commit: LineText | None = None
    clean: bool | None = None
    search_seconds: Seconds | None = None  # of a search alone, without its start-up


@dataclass(frozen=True, kw_only=True)
class Run(RunFile):
    """The sidecar, and the seed of its replicate; None for the splits, which all share."""

    seed: int | None


# Each stage


@dataclass(frozen=True)
class ImagesFile:
    """Images in each split."""

    train: Count
    search: Count
    calibration: Count
    test: Count


@dataclass(frozen=True)
class SplitsFile:
    """Images in each split, and the classes."""

    dataset: LineText
    images: ImagesFile
    classes: Positive


@dataclass(frozen=True)
class Splits(SplitsFile):
    """The splits with the run that made them."""

    run: Run


@dataclass(frozen=True)
class Layer:
    """A layer of the graph: what it writes, and which layers are pruned with it."""

    name: LabelText
    kind: Annotated[str, OneOf(LAYER_KINDS).field]
    out: Positive
    group: LabelText


@dataclass(frozen=True)
class Group:
    """Layers that keep the same channels."""

    id: LabelText
    width: Positive
    layers: list[LabelText]
    prunable: bool


@dataclass(frozen=True)
class Graph:
    """The channel graph: layers and groups in forward order, edges (source, target, shortcut)."""

    layers: Annotated[list[Layer], Field(min_length=1)]
    edges: list[tuple[LabelText, LabelText, bool]]
    groups: list[Group]
    narrowed: None = None  # by `inspect`, for a network that was pruned: none of a study's is

    @cached_property
    def widths(self) -> dict[str, int]:
        """Full widths of layers."""
        return {layer.name: layer.out for layer in self.layers}

    @cached_property
    def prunable(self) -> dict[str, int]:
        """Full widths of prunable groups."""
        return {group.id: group.width for group in self.groups if group.prunable}

    @property
    def description(self) -> dict[str, Any]:
        """What `graphpruning.drawing` draws."""
        whole = asdict(self)
        del whole["narrowed"]
        return whole


@dataclass(frozen=True)
class WeightsFile:
    """Whose weights a network has that the study did not train."""

    source: LineText
    sha256: LineText


@dataclass(frozen=True)
class BaseFile:
    """The unpruned network of a model.

    `search_top1` is None without a search split. `weights` are somebody else's; None where the
    study trained its own, for `epochs`.
    """

    macs: Positive
    params: Positive
    test_top1: Percent
    test_top5: Percent
    search_top1: Percent | None
    epochs: Count
    weights: WeightsFile | None = None


@dataclass(frozen=True, kw_only=True)
class Base(BaseFile):
    """The unpruned network with its training curve (`BASE_TRAINING`) and graph."""

    curve: pd.DataFrame
    graph: Graph
    run: Run


@dataclass(frozen=True)
class Heatmap:
    """Absolute Pearson correlation [deeper channels, former channels] of one pair of layers."""

    network: Annotated[str, OneOf(NETWORKS).field]
    pair: Annotated[str, OneOf(PAIRS).field]
    former: LabelText
    deeper: LabelText
    matrix: Annotated[list[list[CorrelationValue]], Field(min_length=1)]


@dataclass(frozen=True)
class CorrelationFile:
    """How many pairs of layers were compared: none in a network without shortcuts.

    `controls` are the pairs of layers of different blocks, `borders` those next to each other on
    the two sides of a border, which older results have not. `ridge` are the strengths that
    validation chose from; one alone was fixed.
    """

    pairs: Count
    controls: Count
    ridge: Annotated[list[Magnitude], Field(min_length=1)]
    borders: Count = 0


@dataclass(frozen=True, kw_only=True)
class Correlation(CorrelationFile):
    """Per deeper channel the best match and R² given the former layer and its controls.

    The columns are `CHANNELS`; those of `across`, consecutive layers of neighbouring blocks, are
    `BORDERS`.
    """

    channels: pd.DataFrame
    across: pd.DataFrame
    heatmaps: list[Heatmap]
    run: Run


@dataclass(frozen=True)
class PruningNetFile:
    """Accuracies that a PruningNet's weights have, at full width and at a quarter of it."""

    params: Positive
    epochs: Count
    search_top1_full: Percent
    search_top1_quarter: Percent
    search_top1_full_before_recalibration: Percent


@dataclass(frozen=True)
class PruningNet(PruningNetFile):
    """A trained PruningNet under one conditioning, with its training curve (`TRAINING`)."""

    curve: pd.DataFrame
    run: Run


ANY = "any"
"""In place of a budget: a candidate drawn from the whole space."""


@dataclass(frozen=True)
class GeneratedFile:
    """How many random widths were judged: `candidates` of the whole space, `within` each budget.

    `trained` of each budget's were trained from scratch, `trainings` times each.
    """

    candidates: Positive
    within: Count
    trained: Count
    trainings: Positive


@dataclass(frozen=True)
class Generated(GeneratedFile):
    """Candidates with generated weights, and what aggregated features say.

    `rated` has the columns `CANDIDATES`, `scratch` `TRAINED`, `probes` `PROBES` and `diagnostics`
    `DIAGNOSTICS`.
    """

    rated: pd.DataFrame
    scratch: pd.DataFrame
    probes: pd.DataFrame
    diagnostics: pd.DataFrame
    run: Run


@dataclass(frozen=True, kw_only=True)
class SearchFile:
    """The widths that a search found, and what finding them took.

    `distinct` are the different candidates among its evaluations, of which `estimated` were stopped
    in a race.

    For user-supplied results NaN and no widths stand for what their file does not have.
    """

    method: LineText
    budget: LineText
    budget_macs: Positive
    top1_search: Percent
    macs: Positive
    params: Positive
    evaluations: Annotated[float, Field(ge=1, le=COUNT.high, multiple_of=1)]
    images_seen: Annotated[float, Field(ge=0, le=COUNT.high, multiple_of=1)]
    distinct: Annotated[float, Field(ge=1, le=COUNT.high, multiple_of=1)]
    widths: dict[LabelText, Positive]
    estimated: Annotated[float, Field(ge=0, le=COUNT.high, multiple_of=1)] = 0


@dataclass(frozen=True, kw_only=True)
class Search(SearchFile):
    """A search with its candidates (`HISTORY`); no run stands behind user-supplied results."""

    seconds: float
    history: pd.DataFrame
    run: Run | None


INITIALS = ("scratch", "inherited", "generated")
Initial = Annotated[str, OneOf(INITIALS).field]
"""What a final training begins with."""


@dataclass(frozen=True)
class SecondFile:
    """The same found network after final trainings of the second kind, as in `FinalFile`."""

    initial: Initial
    search_top1_before: Percent | None
    test_top1: Percent
    test_top5: Percent
    epochs: Positive


@dataclass(frozen=True)
class FinalFile:
    """A found network after its final trainings; accuracies are means over these.

    `search_top1_before` is its accuracy on the search split before that; None from scratch.
    `trainings` is None in results from before there could be several. `second` is what as many
    trainings of another kind give, if the study has one.
    """

    method: LineText
    budget: LineText
    initial: Initial
    search_top1_before: Percent | None
    test_top1: Percent
    test_top5: Percent
    macs: Positive
    params: Positive
    epochs: Positive
    trainings: Positive | None = None
    second: SecondFile | None = None


@dataclass(frozen=True)
class AgainFile:
    """One further final training of the main kind; its number follows those of `FinalFile`.

    `widths` are those of the network that was trained.
    """

    method: LineText
    budget: LineText
    training: Positive
    initial: Initial
    search_top1_before: Percent | None
    test_top1: Percent
    test_top5: Percent
    epochs: Positive
    widths: dict[str, Positive]


@dataclass(frozen=True, kw_only=True)
class Again(AgainFile):
    """The same with its run."""

    run: Run


@dataclass(frozen=True, kw_only=True)
class Final(FinalFile):
    """A final network with the name of its architecture file, empty for user-supplied results.

    Where it was trained `again`, accuracies are means over all trainings, and `trainings` is their
    number. `each` is the top-1 accuracy of every training of the main kind, by its number; empty
    where only the mean is known.
    """

    architecture: str
    run: Run | None
    each: Mapping[int, float] = field(default_factory=dict)
    again: tuple[Again, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """The runs of all its trainings."""
        return [run for run in (self.run, *(one.run for one in self.again)) if run]

    def with_further(self, again: Sequence[Again]) -> "Final":
        """The same with its further trainings."""
        first, count = self.trainings or 1, (self.trainings or 1) + len(again)

        def over_all(what: str) -> float | None:
            each = [getattr(one, what) for one in again]
            mine = getattr(self, what)
            return None if mine is None else (first * mine + sum(each)) / count

        measured = ("search_top1_before", "test_top1", "test_top5")
        means: dict[str, Any] = {what: over_all(what) for what in measured}
        each = {**self.each, **{one.training: one.test_top1 for one in again}}
        return replace(self, **means, trainings=count, each=each, again=tuple(again))


@dataclass(frozen=True)
class ArchitectureFile:
    """An architecture file, as far as a search's result stands in it."""

    format: Positive
    network: dict[str, Any]
    input_size: list[Positive]
    widths: dict[str, Positive]
    macs: Positive
    params: Positive
    weights: dict[str, Any]
