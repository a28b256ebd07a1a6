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
    """

    label: str
    aggregator: str
    colour: str
    marker: str
    line: Line
    options: Mapping[str, Any] = field(default_factory=dict)


CONDITIONINGS = {
    "graph": Conditioning("graph", "GraphAggregator", "#0072B2", "o", "-"),
    "block": Conditioning("block", "BlockConditioning", "#D55E00", "s", "--"),
    "none": Conditioning("no edges", "GraphAggregator", "#009E73", "^", ":", {"edges": "none"}),
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
}

BASE_LINE: Line = "-."
"""Line of the methods that cut the trained base, and so use no PruningNet."""
