"""What the stages of a study leave behind, typed: one class for each kind of result.

Accuracies are in percent, costs in MACs for one image, times in seconds. The columns of the CSV
files stand here too.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from paper.reading import (
    CORRELATION,
    COUNT,
    LABEL,
    MAGNITUDE,
    PERCENT,
    POSITIVE,
    Columns,
    Number,
    OneOf,
)

CONDITIONINGS = ("graph", "block", "none", "no-shortcuts", "sage", "gat")
"""What a PruningNet can be conditioned on; tables and figures have a name and a style for each."""
LAYER_KINDS = ("convolution", "grouped", "depthwise", "pointwise", "linear")
"""The kinds of layers in a graph, as `graphpruning.drawing` has them."""
NETWORKS = ("trained", "untrained")
PAIRS = ("in_block", "other_block")

CHANNELS: Columns = {
    "network": OneOf(NETWORKS),
    "pair": OneOf(PAIRS),
    "former": LABEL,
    "deeper": LABEL,
    "channel": COUNT,
    "best_match": CORRELATION,
    "r2": Number(-1e30, 1 + 1e-6),
}
TRAINING: Columns = {
    "epoch": POSITIVE,
    "lr": MAGNITUDE,
    "train_loss": MAGNITUDE,
    "search_top1_full": PERCENT,
    "search_top1_half": PERCENT,
    "search_top1_quarter": PERCENT,
}
BASE_TRAINING: Columns = {
    "epoch": POSITIVE,
    "lr": MAGNITUDE,
    "train_loss": MAGNITUDE,
    "train_top1": PERCENT,
    "search_top1": PERCENT,
}
CANDIDATES: Columns = {
    "candidate": COUNT,
    "macs": POSITIVE,
    "conditioning": OneOf(CONDITIONINGS),
    "top1_generated": PERCENT,
    "top1_trained": Number(0, 100, optional=True),  # only some candidates are trained
}
INFLUENCE: Columns = {
    "conditioning": OneOf(CONDITIONINGS),
    "changed": LABEL,
    "observed": LABEL,
    "distance": POSITIVE,
    "movement": MAGNITUDE,
}
HISTORY: Columns = {
    "seed": COUNT,
    "evaluation": POSITIVE,
    "macs": POSITIVE,
    "top1": PERCENT,
    "best": PERCENT,
}
FINAL_TRAINING: Columns = {
    "seed": COUNT,
    "epoch": POSITIVE,
    "lr": MAGNITUDE,
    "train_loss": MAGNITUDE,
    "train_top1": PERCENT,
}


@dataclass(frozen=True)
class Run:
    """A stage's sidecar: what ran, where, with which versions, at what cost."""

    stage: str
    record: str
    command: str
    seconds: float
    started: str
    resumed: bool
    hardware: dict[str, Any]
    precision: str
    versions: dict[str, str]
    images_seen: int
    seconds_by_seed: dict[int, float]


@dataclass(frozen=True)
class Row:
    """A method: where a candidate's weights come from, what its search sees, who searches.

    `source` is a PruningNet's conditioning (graph, block, ...) or base; `kind` is ours, baseline
    or ablation.
    """

    name: str
    label: str
    source: str
    state: str
    searcher: str
    kind: str

    @property
    def place(self) -> str:
        """Under which of the study's `searches` it stands, as in `graphpruning.methods`."""
        return "ablations" if self.source == self.name else self.source


@dataclass(frozen=True)
class Splits:
    """Images in each split, and the classes."""

    dataset: str
    images: dict[str, int]
    classes: int
    run: Run


@dataclass(frozen=True)
class Graph:
    """The channel graph: edges are (source, target, shortcut).

    `widths` are the full widths of layers, `groups` those of prunable groups, both in forward
    order; `description` is the whole file, from which the graph is drawn.
    """

    widths: dict[str, int]
    edges: tuple[tuple[str, str, bool], ...]
    groups: dict[str, int]
    description: dict[str, Any]


@dataclass(frozen=True)
class Base:
    """The unpruned network of a model.

    `search_top1` is None without a search split. `weights` (`source`, `sha256`) are somebody
    else's; None where the study trained its own, for `epochs`.
    """

    macs: int
    params: int
    test_top1: float
    test_top5: float
    search_top1: float | None
    epochs: int
    weights: dict[str, str] | None
    curve: pd.DataFrame
    graph: Graph
    run: Run


@dataclass(frozen=True)
class Heatmap:
    """Absolute Pearson correlation [deeper channels, former channels] of one pair of layers."""

    network: str
    pair: str
    former: str
    deeper: str
    matrix: list[list[float]]


@dataclass(frozen=True)
class Correlation:
    """Per deeper channel the best match and R² of one pair of layers (columns `CHANNELS`).

    `pairs` is 0, and all else empty, for a network without blocks with shortcuts.
    """

    pairs: int
    channels: pd.DataFrame
    heatmaps: list[Heatmap]
    run: Run


@dataclass(frozen=True)
class PruningNet:
    """A trained PruningNet under one conditioning; `before_recalibration` is at full width."""

    params: int
    epochs: int
    full: float
    quarter: float
    before_recalibration: float
    curve: pd.DataFrame
    run: Run


@dataclass(frozen=True)
class Generated:
    """Candidates with generated weights (`CANDIDATES`), and movements (`INFLUENCE`)."""

    candidates: pd.DataFrame
    influence: pd.DataFrame
    run: Run


@dataclass(frozen=True)
class Found:
    """The widths that one seed's search found, and what finding them took.

    Of a method that was given, NaN and no widths stand for what its file does not have.
    """

    top1_search: float
    macs: int
    params: int
    evaluations: float
    images_seen: float
    seconds: float
    widths: dict[str, int]


@dataclass(frozen=True)
class Search:
    """A method's search at one budget, by seed; `history` has the columns `HISTORY`."""

    budget_macs: int
    seeds: dict[int, Found]
    history: pd.DataFrame
    runs: dict[int, Run]


@dataclass(frozen=True)
class Trained:
    """A found network after final training."""

    test_top1: float
    test_top5: float
    macs: int
    params: int
    epochs: int
    architecture: str


@dataclass(frozen=True)
class Final:
    """A method's final networks at one budget, by seed."""

    initial: str
    seeds: dict[int, Trained]
    runs: dict[int, Run]
