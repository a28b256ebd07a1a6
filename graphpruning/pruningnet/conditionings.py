"""The table of conditionings: what a PruningNet makes its features from.

A conditioning is a row here and nowhere else. The table is plain data, so that those who only need
the names (the study's reader, `prepare`) import neither torch nor PyG for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Line = str | tuple[int, tuple[int, ...]]
"""A line style as matplotlib takes it: "-", or an offset and the lengths of dashes and gaps."""


@dataclass(frozen=True)
class Conditioning:
    """One row.

    `label` is its name in tables; `colour`, `marker` and `line` are its looks in figures. Methods
    whose candidates it judges have the same `line`. `aggregator` is a class of
    `pruningnet.aggregator`, made with the channel graph and `options`.

    What goes beyond the paper, in how the PruningNet is trained: `sandwich`: a step runs the full
    widths and the smallest ones beside random ones. `distil`: the full widths run in every step,
    and the others learn their scores instead of the labels. `inherit`: training begins with the
    base's weights.
    """

    label: str
    aggregator: str
    colour: str
    marker: str
    line: Line
    options: Mapping[str, Any] = field(default_factory=dict)
    sandwich: bool = False
    distil: bool = False
    inherit: bool = False

    @property
    def full_passes(self) -> int:
        """How often a training step runs the full widths; narrow ones teach nobody."""
        return int(self.sandwich or self.distil)

    @property
    def passes(self) -> int:
        """How often a training step runs its images: at the full, smallest and random widths."""
        return self.full_passes + int(self.sandwich) + 1


CONDITIONINGS = {
    "graph": Conditioning("graph", "GraphAggregator", "#0072B2", "o", "-"),
    "block": Conditioning("block", "BlockConditioning", "#D55E00", "s", "--"),
    "none": Conditioning("no edges", "GraphAggregator", "#009E73", "^", ":", {"edges": "none"}),
    "constant": Conditioning("constant", "NoConditioning", "#000000", "X", (0, (1, 3))),
    "no-shortcuts": Conditioning(
        "no shortcut edges",
        "GraphAggregator",
        "#CC79A7",
        "D",
        (0, (5, 1)),
        {"edges": "no-shortcuts"},
    ),
    "sage": Conditioning(
        "GraphSAGE",
        "GraphAggregator",
        "#E69F00",
        "v",
        (0, (3, 1, 1, 1)),
        {"convolution": "SAGEConv"},
    ),
    "gat": Conditioning(
        "GAT",
        "GraphAggregator",
        "#56B4E9",
        "P",
        (0, (3, 1, 1, 1, 1, 1)),
        {"convolution": "GATConv"},
    ),
    "graphpruning-plus": Conditioning(
        "graph, plus",
        "GraphAggregator",
        "#A6761D",
        "d",
        (0, (8, 2, 2, 2)),
        sandwich=True,
        distil=True,
        inherit=True,
    ),
}

BASE_LINE: Line = "-."
"""Line of the methods that cut the trained base, and so use no PruningNet."""
