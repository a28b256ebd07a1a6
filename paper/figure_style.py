"""How every figure looks and is written: sizes, fonts and lines for print, the same bytes each run.

Widths are those of a two-column page: 3.3 in for one column, 7 in for both. A method and a
PruningNet have one colour, marker and line in all figures, so that colour is never the only sign.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphpruning.common.files import atomic
from paper.reader.contents import Look
from paper.statistics import mean

PAGE = 7.0
DPI = 200
SMALL = 6.5
"""Points of the smallest letters."""
STYLE: Any = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("paper", font_scale=0.8),  # 7 points and more
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the same on every machine
    "legend.frameon": False,
    "legend.handlelength": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.width": 0.6,
    "ytick.major.size": 3,
    "lines.markersize": 5.5,
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "pdf.fonttype": 42,
}
GREY = "#757575"
HEATMAP: Any = {"vmin": 0, "cmap": "viridis", "cbar": False}
BAND: Any = {"alpha": 0.13, "linewidth": 0}
EDGE: Any = {"markeredgecolor": "white", "markeredgewidth": 0.4}
"""Parts markers that overlap."""


def look(styled: Look) -> dict[str, Any]:
    """Colour, marker and line of a method or a PruningNet, as study.json has them."""
    return {"color": styled.colour, "marker": styled.marker, "linestyle": styled.line}


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Our interval of a mean, for seaborn to draw instead of one of its own."""
    found = mean(list(values))
    return found.low, found.high


def reference(axis: Axes, height: float, text: str, side: str) -> None:
    """A dashed line across the axis, with what it stands for on its left or right end."""
    axis.axhline(height, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
    end, away = (0, 3) if side == "left" else (1, -3)
    where: Any = {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points"}
    axis.annotate(text, (end, height), (away, 2), ha=side, color=GREY, **where)


def colour_bar(figure: Figure, axes: Any, label: str) -> None:
    """One bar for all heat maps of a figure."""
    image = axes[0, 0].collections[0]
    bar = figure.colorbar(image, ax=axes, label=label, shrink=0.6, aspect=25, pad=0.015)
    bar.outline.set_visible(False)


def save(figure: Figure, path: Path, endings: Sequence[str] = (".pdf", ".png")) -> None:
    """Write PDF and PNG, or one of them, and close the figure."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, so that both forms are alike
    for ending in endings:
        with atomic(path.with_suffix(ending)) as beside:
            figure.savefig(beside, metadata={"Title": path.name, **_METADATA[ending]})
    plt.close(figure)


_METADATA: dict[str, dict[str, str | None]] = {
    # A date would make every run's bytes differ.
    ".pdf": {"Creator": "paper/figures.py", "CreationDate": None},
    ".png": {"Source": "paper/figures.py", "Software": None},
}
