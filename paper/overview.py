"""The method as one drawing: `python -m paper.overview` writes docs/method.png.

A residual block as a network, as a graph, its aggregated features, cropped weights, and the search
that asks for the accuracy of a width vector. It shows the idea and no result.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from graphpruning.common.files import atomic
from paper import command

PICTURE = Path(__file__).parents[1] / "docs/method.png"
SIZE = (10.3, 3.6)  # inches, which are the drawing's units too
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#606060"
STYLE: Any = {"font.family": "DejaVu Sans", "font.size": 9}

FEATURES = ((0.9, 0.35, 0.6, 0.2), (0.5, 0.8, 0.3, 0.7), (0.25, 0.6, 0.85, 0.45))
"""Lengths of the bars that stand for a layer's aggregated feature."""
KEPT = (4, 4, 5)
"""Channels kept of each layer's six; a and b are added, so they keep equally many."""
FULL = 6


def draw() -> Figure:
    """Return the whole drawing."""
    figure = Figure(figsize=SIZE)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    axes.set_axis_off()
    heads = ("network", "graph of layers", "aggregated features", "weights, cropped", "search")
    notes = (
        "a block with\na shortcut",
        "edges follow the data;\nshortcuts are edges too",
        "a GCN mixes each layer\nwith its neighbours",
        "the PruningNet generates\nthem for any widths",
        "an agent sets widths, layer\nby layer, within a budget",
    )
    for place, (head, note) in enumerate(zip(heads, notes, strict=True)):
        middle = 1 + 2 * place
        axes.text(middle, 3.3, head, ha="center", weight="bold", fontsize=10)
        axes.text(middle, 0.45, note, ha="center", va="center", color=GREY, fontsize=8)
    _network(axes, 1)
    _graph(axes, 3)
    _features(axes, 5)
    _weights(axes, 7)
    _search(axes, 9)
    for left, right in ((1.95, 2.4), (3.65, 4.1), (5.75, 6.3), (7.65, 8.1)):
        _arrow(axes, (left, 1.95), (right, 1.95), GREY)
    return figure


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=colour,
            linewidth=1.4,
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=0,
        )
    )


def _box(axes: Axes, x: float, y: float, text: str, colour: str, wide: float = 0.9) -> None:
    frame = FancyBboxPatch(
        (x - wide / 2, y - 0.17),
        wide,
        0.34,
        boxstyle="round,pad=0.02",
        facecolor="white",
        edgecolor=colour,
        linewidth=1.4,
    )
    axes.add_patch(frame)
    axes.text(x, y, text, ha="center", va="center", fontsize=8)


def _network(axes: Axes, x: float) -> None:
    for name, height in (("a", 2.8), ("b", 2.15), ("c", 1.1)):
        _box(axes, x, height, f"convolution {name}", BLUE, wide=1.05)
    axes.text(x, 1.62, "+", ha="center", va="center", fontsize=14, weight="bold")
    for top, bottom in ((2.61, 2.34), (1.96, 1.74), (1.52, 1.29)):
        _arrow(axes, (x, top), (x, bottom), GREY)
    _arrow(axes, (x + 0.54, 2.8), (x + 0.12, 1.62), RED, bend=-0.62)


def _graph(axes: Axes, x: float) -> None:
    nodes = ((x - 0.35, 2.75), (x + 0.3, 1.95), (x - 0.35, 1.15))
    (first, second, third) = nodes
    for one, other, colour in (
        (first, second, GREY),
        (second, third, GREY),
        (first, third, RED),
    ):
        axes.plot(
            *zip(one, other, strict=True),
            color=colour,
            linewidth=1.6,
            zorder=1,
            linestyle="--" if colour == RED else "-",
        )
    for name, (left, height) in zip("abc", nodes, strict=True):
        axes.plot(left, height, "o", markersize=20, color=BLUE, zorder=2)
        axes.text(left, height, name, ha="center", va="center", color="white", weight="bold")


def _features(axes: Axes, x: float) -> None:
    for name, lengths, height in zip("abc", FEATURES, (2.75, 1.95, 1.15), strict=True):
        axes.text(x - 0.62, height, name, ha="center", va="center", weight="bold", color=BLUE)
        for number, length in enumerate(lengths):
            bottom = height - 0.25 + 0.13 * number
            bar = Rectangle((x - 0.45, bottom), length, 0.1, color=GREEN)
            axes.add_patch(bar)


def _weights(axes: Axes, x: float) -> None:
    """Each layer's weight as a square, of which the widths in question keep a corner."""
    side = 0.58
    inputs = (FULL, *KEPT[:-1])
    for kept, read, height in zip(KEPT, inputs, (2.75, 1.95, 1.15), strict=True):
        left, top = x - side / 2, height + side / 2
        axes.add_patch(
            Rectangle((left, top - side), side, side, facecolor="#eeeeee", edgecolor=GREY)
        )
        wide, tall = side * read / FULL, side * kept / FULL
        axes.add_patch(Rectangle((left, top - tall), wide, tall, facecolor=ORANGE, edgecolor=GREY))


def _search(axes: Axes, x: float) -> None:
    _box(axes, x, 2.75, "agent", RED)
    _box(axes, x, 1.95, "widths 4, 4, 5", ORANGE, wide=1.1)
    _box(axes, x, 1.15, "accuracy", GREEN)
    _arrow(axes, (x, 2.55), (x, 2.16), GREY)
    _arrow(axes, (x, 1.75), (x, 1.36), GREY)
    _arrow(axes, (x + 0.48, 1.15), (x + 0.48, 2.75), GREY, bend=0.6)
    axes.text(x + 1.04, 1.95, "reward", fontsize=8, color=GREY, rotation=270, va="center")


def write(path: Path) -> None:
    """Write the drawing as PNG; the same bytes every time."""
    with mpl.rc_context(STYLE), atomic(path) as beside:
        draw().savefig(beside, dpi=160, metadata={"Software": "paper.overview"})


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return command.alone("Draw the overview of the method.", lambda: write(PICTURE), argv)


if __name__ == "__main__":
    sys.exit(main())
