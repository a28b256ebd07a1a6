"""A network's graph as a figure, from `inspect`'s data alone: one line a layer, shortcuts beside.

Layers stand in forward order, in one to three columns of a page that is seven inches wide. Edges
between neighbouring lines are straight; all others run in lanes to the left, one lane for all
edges of a layer, and go on from the foot of a column to the head of the next.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, PathPatch, Rectangle
from matplotlib.path import Path as Line

from graphpruning.common.errors import UserError
from graphpruning.common.files import atomic

PAGE = 7.0
ENDINGS = (".pdf", ".png", ".svg")
# Okabe and Ito's colours, told apart by colour-blind readers; shapes say the same.
KINDS = {
    "convolution": ("s", "#0072B2"),
    "grouped": ("P", "#CC79A7"),
    "depthwise": ("D", "#E69F00"),
    "pointwise": ("o", "#009E73"),
    "linear": ("^", "#56B4E9"),
}
SHORTCUT, PLAIN, LABEL = "#D55E00", "#404040", "#202020"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 6,
    "pdf.fonttype": 42,
    "svg.hashsalt": "graphpruning",
}
_NAME, _NUMBER, _LETTER = 0.19, 0.3, 0.045
"""Inches from a marker to its name, for the number of channels, and for a letter of a name."""


def draw(description: Mapping[str, Any], path: str | Path) -> None:
    """Write the figure of `draw_graph` to `path`, whose ending is .pdf, .png or .svg.

    The same description gives the same bytes. Raises `UserError` for another ending.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{path}: a drawing ends in {', '.join(ENDINGS)}, not {path.suffix!r}")
    creator = {"Creator": "graphpruning.drawing"}
    dated = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    kind = "Software" if path.suffix.lower() == ".png" else "Creator"
    figure = draw_graph(description)
    with atomic(path) as beside, mpl.rc_context(_STYLE):
        figure.savefig(
            beside, dpi=200, metadata={kind: creator["Creator"], **dated[path.suffix.lower()]}
        )


def draw_graph(description: Mapping[str, Any]) -> Figure:
    """Draw `describe`'s data (or a study's `graph.json`): layers, edges, groups and widths.

    A layer's marker says its kind, its bar and number how many channels it writes; layers with
    the same letter are tied, a group without a letter is one layer. With the entry `narrowed` the
    bar's dark part is what these widths keep.
    """
    page = _Page(description)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(page.column * page.columns, page.height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, page.column * page.columns), ylim=(page.height, 0))
        axes.set_axis_off()
        page.edges(axes)
        for number in range(len(page.layers)):
            page.layer(axes, number)
        page.legend(figure)
    return figure


@dataclass(frozen=True)
class _Page:
    """Places in inches, from the top left corner."""

    description: Mapping[str, Any]

    @cached_property
    def layers(self) -> list[Mapping[str, Any]]:
        return list(self.description["layers"])

    @cached_property
    def number(self) -> dict[str, int]:
        return {layer["name"]: number for number, layer in enumerate(self.layers)}

    @cached_property
    def columns(self) -> int:
        return 1 if len(self.layers) <= 30 else 2 if len(self.layers) <= 130 else 3

    @property
    def column(self) -> float:
        """Width of a column."""
        return PAGE / max(self.columns, 2)

    @cached_property
    def rows(self) -> int:
        return -(-len(self.layers) // self.columns)

    @cached_property
    def step(self) -> float:
        """Height of a line: a page has room for 70 of the smallest."""
        return min(0.155, max(0.125, 9.0 / self.rows))

    @cached_property
    def top(self) -> float:
        return 0.12 + 0.14 * self.legend_rows + self.step

    @property
    def legend_rows(self) -> int:
        return 2 if self.columns == 1 else 1

    @property
    def height(self) -> float:
        return self.top + (self.rows + 0.6) * self.step

    @cached_property
    def lanes(self) -> dict[str, int]:
        """A lane for each layer with edges to other than the next line; short ones come first."""
        reach: dict[int, int] = {}
        for source, target, _ in self.description["edges"]:
            start, end = self.number[source], self.number[target]
            if not self.neighbours(start, end):
                reach[start] = max(end, reach.get(start, 0))
        taken: list[list[tuple[int, int]]] = []
        lanes = {}
        for start, end in sorted(reach.items(), key=lambda item: (item[1] - item[0], item[0])):
            for lane in range(len(taken) + 1):
                if lane == len(taken):
                    taken.append([])
                if all(end <= other or start >= last for other, last in taken[lane]):
                    taken[lane].append((start, end))
                    lanes[self.layers[start]["name"]] = lane
                    break
        return lanes

    @cached_property
    def lane_step(self) -> float:
        return min(0.09, 0.3 * self.column / (max(self.lanes.values(), default=0) + 1))

    @cached_property
    def marker(self) -> float:
        """Where markers stand in a column."""
        return 0.2 + self.lane_step * (max(self.lanes.values(), default=-1) + 1)

    @cached_property
    def bar(self) -> float:
        """Length of the widest layer's bar: what the names leave."""
        names = _LETTER * max(len(layer["name"]) for layer in self.layers)
        return min(1.0, max(0.3, self.column - self.marker - _NAME - names - _NUMBER - 0.1))

    @cached_property
    def letters(self) -> dict[str, str]:
        """A letter for each group of several layers."""
        names = [a + b for a in ("", *string.ascii_uppercase) for b in string.ascii_uppercase]
        tied = [group["id"] for group in self.description["groups"] if len(group["layers"]) > 1]
        return dict(zip(tied, names, strict=False))

    def neighbours(self, start: int, end: int) -> bool:
        return end == start + 1 and end % self.rows != 0

    def position(self, number: int) -> tuple[float, float]:
        """The marker of a layer."""
        column, row = divmod(number, self.rows)
        return column * self.column + self.marker, self.top + (row + 0.5) * self.step

    def edges(self, axes: Axes) -> None:
        """Draw every edge; those of one layer and one kind share a line down their lane."""
        beyond: dict[tuple[int, bool], list[int]] = {}
        for source, target, shortcut in self.description["edges"]:
            start, end = self.number[source], self.number[target]
            if self.neighbours(start, end):
                (x, above), (_, below) = self.position(start), self.position(end)
                self._arrow(axes, Line([(x, above), (x, below - 0.045)]), shortcut)
            else:
                beyond.setdefault((start, shortcut), []).append(end)
        for (start, shortcut), ends in beyond.items():
            self._trunk(axes, start, max(ends), shortcut)
            for end in ends:
                self._branch(axes, start, end, shortcut)

    def _lane(self, start: int, column: int) -> float:
        lane = self.lanes[self.layers[start]["name"]]
        return column * self.column + self.marker - 0.06 - self.lane_step * (lane + 1)

    def _trunk(self, axes: Axes, start: int, end: int, shortcut: bool) -> None:
        """From a layer into its lane and down to just above `end`, column by column."""
        first, last = start // self.rows, end // self.rows
        for column in range(first, last + 1):
            lane = self._lane(start, column)
            points = [(lane, self.top - 0.4 * self.step)]
            codes = [Line.MOVETO]
            if column == first:
                x, above = self.position(start)
                points = [
                    (x - 0.04, above),
                    (lane + self.bend, above),
                    (lane, above),
                    (lane, above + self.bend),
                ]
                codes = [Line.MOVETO, Line.LINETO, Line.CURVE3, Line.CURVE3]
            foot = self.top + (self.rows + 0.4) * self.step
            points.append((lane, self.position(end)[1] - self.bend if column == last else foot))
            path = Line(points, [*codes, Line.LINETO])
            axes.add_patch(PathPatch(path, fill=False, **_look(shortcut)))

    def _branch(self, axes: Axes, start: int, end: int, shortcut: bool) -> None:
        """Out of a lane to a layer."""
        lane = self._lane(start, end // self.rows)
        x, y = self.position(end)
        points = [(lane, y - self.bend), (lane, y), (lane + self.bend, y), (x - 0.05, y)]
        codes = [Line.MOVETO, Line.CURVE3, Line.CURVE3, Line.LINETO]
        self._arrow(axes, Line(points, codes), shortcut)

    @cached_property
    def bend(self) -> float:
        """Radius of an edge's corners."""
        return min(0.45 * self.step, self.lane_step)

    def _arrow(self, axes: Axes, line: Line, shortcut: bool) -> None:
        look = {**_look(shortcut), "linestyle": "solid"}
        arrow = FancyArrowPatch(
            path=line,
            arrowstyle="-|>,head_length=1.6,head_width=0.8",
            mutation_scale=1,
            shrinkA=0,
            shrinkB=0,
            facecolor=look["edgecolor"],
            **look,
        )
        axes.add_patch(arrow)

    def layer(self, axes: Axes, number: int) -> None:
        layer = self.layers[number]
        x, y = self.position(number)
        right = (number // self.rows + 1) * self.column - 0.08
        bar = right - self.bar
        shape, colour = KINDS[layer["kind"]]
        axes.plot(
            x,
            y,
            marker=shape,
            color=colour,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.3,
            zorder=4,
        )
        text: Any = {"va": "center_baseline", "color": LABEL, "zorder": 5}
        axes.text(
            x + 0.12,
            y,
            self.letters.get(layer["group"], ""),
            weight="bold",
            ha="center",
            fontsize=5,
            **text,
        )
        most = int((bar - _NUMBER - x - _NAME) / _LETTER)
        axes.text(x + _NAME, y, _shortened(layer["name"], most), **text)
        widest = max(layer["out"] for layer in self.layers)
        kept = self.description.get("narrowed", {}).get("widths", {}).get(layer["group"])
        kept = layer["out"] if kept is None else kept
        full, part = (self.bar * channels / widest for channels in (layer["out"], kept))
        axes.text(bar - 0.05, y, str(kept), ha="right", **text)
        thick = 0.5 * self.step
        for length, alpha in ((full, 0.3), (part, 1.0)):
            corner = (bar, y - thick / 2)
            axes.add_patch(Rectangle(corner, length, thick, color=colour, alpha=alpha, linewidth=0))

    def legend(self, figure: Figure) -> None:
        handles = [
            Line2D([], [], color=PLAIN, linewidth=0.9, label="edge"),
            Line2D([], [], color=SHORTCUT, linewidth=0.8, linestyle=(0, (4, 1)), label="shortcut"),
        ]
        present = {layer["kind"] for layer in self.layers}
        for kind, (shape, colour) in KINDS.items():
            if kind in present:
                handles.append(
                    Line2D(
                        [], [], linestyle="", marker=shape, color=colour, markersize=4.5, label=kind
                    )
                )
        if self.letters:
            handles.append(
                Line2D(
                    [],
                    [],
                    linestyle="",
                    marker="$A$",
                    color=LABEL,
                    markersize=4.5,
                    label="tied layers",
                )
            )
        per_row = -(-len(handles) // self.legend_rows)
        figure.legend(
            handles=handles,
            loc="upper center",
            ncols=per_row,
            frameon=False,
            borderaxespad=0.2,
            columnspacing=1.2,
            handletextpad=0.5,
        )


def _look(shortcut: bool) -> dict[str, Any]:
    return {
        "edgecolor": SHORTCUT if shortcut else PLAIN,
        "linewidth": 0.6 if shortcut else 0.8,
        "linestyle": (0, (4, 1)) if shortcut else "solid",
        "zorder": 1 if shortcut else 2,
    }


def _shortened(name: str, most: int) -> str:
    """The end of a name says most."""
    return name if len(name) <= most else "…" + name[1 - most :]
