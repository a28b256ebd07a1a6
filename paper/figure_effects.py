"""Figure 9 and README's first picture: what the verdicts rest on, as forest plots.

A line is an effect: its value, its 95 % interval, and its status by the rule of `paper.rule`.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from paper.claims import FINAL, SHORT, UNITS, Claim, claims
from paper.figure_style import DPI, GREY, PAGE, SMALL
from paper.reader.results import Results
from paper.rule import ABOVE, BELOW, MATTERS, OPEN, SAME, Effect, marks
from paper.wording import counted, interval, joined

_LOOKS: dict[str, tuple[str, str]] = {
    ABOVE: ("#009E73", "^"),
    SAME: ("#0072B2", "s"),
    BELOW: ("#D55E00", "v"),
    OPEN: ("#595959", "o"),
}
"""Colour and marker of a status; the colours are Okabe and Ito's."""
_BAND = "#e4e4e4"
_HEIGHT = 0.165
"""Inches of height that a line takes."""


@dataclass(frozen=True)
class _Line:
    """An effect with its status; without an effect the heading of a claim, with its verdict."""

    claim: str
    label: str
    status: str
    effect: Effect | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Lines of one key stand at one height."""
        return self.claim, self.label


def effects(results: Results) -> Figure:
    """Figure 9: a panel for each unit, in it the claims, and below each claim its effects."""
    judged = claims(results)
    panels = {unit: _lines(judged, unit) for unit in UNITS}
    panels = {unit: lines for unit, lines in panels.items() if lines}
    heights = [1 + len(lines) for lines in panels.values()]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(PAGE, 0.4 + 0.4 * len(panels) + _HEIGHT * sum(heights)),
        squeeze=False,
        height_ratios=heights,
        dpi=DPI,  # laid out as it is written: long labels end at the page's edge
    )
    for axis, (unit, lines) in zip(axes[:, 0], panels.items(), strict=True):
        _forest(axis, lines, _heights(lines))
        _say(axis, lines, _heights(lines))
        axis.set_xlabel(f"{results.ours.label} over others: {unit}" if unit == FINAL else unit)
    _legend(figure, [line for lines in panels.values() for line in lines])
    return figure


def across(studies: Sequence[Results]) -> Figure:
    """Differences in final test accuracy of several studies: a panel for each, side by side."""
    panels = [_lines(claims(results), FINAL) for results in studies]
    heights = _heights([line for lines in panels for line in lines])
    size = (PAGE, 1.3 + 1.1 * _HEIGHT * len(heights))
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True, dpi=DPI)
    for axis, results, lines in zip(axes[0], studies, panels, strict=True):
        _forest(axis, lines, heights)
        if len(panels) == 1:
            _say(axis, lines, heights)
        else:
            _say_verdicts(axis, lines, heights)
        title = textwrap.fill(results.title, 66 // len(panels), break_on_hyphens=False)
        axis.set_title(f"{title}\n({counted(len(results.seeds), 'replicate')})")
        axis.set_xlabel(f"{results.ours.label} minus the other (points)")
    ours = joined(list(dict.fromkeys(results.ours.label for results in studies)))
    what = f"Test accuracy of the networks that {ours} finds, minus that of others"
    figure.suptitle(what, fontweight="bold", fontsize="large")
    _legend(figure, [line for lines in panels for line in lines])
    return figure


def _lines(judged: Sequence[Claim], unit: str) -> list[_Line]:
    """From top to bottom; a claim without an effect of the unit has no heading."""
    lines = []
    for claim in judged:
        found = [
            _Line(claim.id, effect.label, status, effect)
            for effect, status in zip(claim.effects, marks(claim.effects), strict=True)
            if effect.unit == unit
        ]
        heading = _Line(claim.id, f"{claim.id}: {SHORT[claim.id]}", claim.verdict)
        lines += [heading, *found] if found else []
    return lines


def _heights(lines: Sequence[_Line]) -> dict[tuple[str, str], int]:
    """Where lines stand, counted downwards; those of one claim stand together."""
    keys = dict.fromkeys(line.key for line in lines)
    return {key: place for place, key in enumerate(sorted(keys, key=lambda key: key[0]))}


def _forest(axis: Axes, lines: Sequence[_Line], heights: dict[tuple[str, str], int]) -> None:
    """Values and intervals, with labels on the left."""
    for line in lines:
        if line.effect is None:
            continue
        height = heights[line.key]
        ends = (height - 0.5, height + 0.5)
        if line.effect.margin is not None:
            axis.fill_betweenx(ends, -line.effect.margin, line.effect.margin, color=_BAND, lw=0)
        axis.vlines(0, *ends, color=GREY, linewidth=0.9)
        found = line.effect.estimate
        colour, marker = _LOOKS[line.status]
        alone = math.isnan(found.low)
        axis.hlines(height, found.low, found.high, color=colour, linewidth=1.1)
        axis.plot(
            found.value,
            height,
            marker=marker,
            color=colour,
            markerfacecolor="white" if alone else colour,
            markersize=4.5,
        )
    axis.set_yticks(list(heights.values()), [label for _, label in heights])
    headings = [line.label for line in lines if line.effect is None]
    for text in axis.get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in headings else "normal")
    axis.set_ylim(max(heights.values()) + 0.6, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))


def _say(axis: Axes, lines: Sequence[_Line], heights: dict[tuple[str, str], int]) -> None:
    """On the right every value with its status, and every verdict."""
    for line in lines:
        words = line.status
        if line.effect:
            words = f"{interval(line.effect.estimate, 2, sign=True)}  {line.status}"
        axis.annotate(
            words,
            (1, heights[line.key]),
            (4, 0),
            xycoords=axis.get_yaxis_transform(),
            textcoords="offset points",
            va="center_baseline",
            color="black" if line.effect is None else _LOOKS[line.status][0],
            fontweight="bold" if line.effect is None else "normal",
            fontsize=SMALL + 0.5,
        )


def _say_verdicts(axis: Axes, lines: Sequence[_Line], heights: dict[tuple[str, str], int]) -> None:
    """Each claim's verdict beside its heading, where panels leave no room for more."""
    for line in lines:
        if line.effect is None:
            where = (0.5, heights[line.key])
            how = axis.get_yaxis_transform()
            axis.text(*where, line.status, transform=how, ha="center", va="center", weight="bold")


def _legend(figure: Figure, lines: Sequence[_Line]) -> None:
    """Statuses, what hollow means, and the band; of signs those that are there."""
    there = {line.status for line in lines if line.effect}
    signs: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, label=status)
        for status, (colour, marker) in _LOOKS.items()
        if status in there
    ]
    hollow: Any = {"markerfacecolor": "white", "linestyle": "none", "markersize": 4.5}
    if any(line.effect and math.isnan(line.effect.estimate.low) for line in lines):
        signs.append(Line2D([], [], color=GREY, marker="o", label="no interval", **hollow))
    signs.append(Patch(color=_BAND, label=f"± {MATTERS} points: too small to matter"))
    figure.legend(handles=signs, loc="outside lower center", ncols=len(signs), handlelength=2)
