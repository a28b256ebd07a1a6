"""Figures 1 to 7 as PDF and PNG: `python -m paper.figures results/STUDY`.

Widths are those of a two-column page: 3.3 in for one column, 7 in for both. Colours are Okabe and
Ito's, told apart by colour-blind readers, and never the only sign: markers, line styles or labels
say the same. Every file is byte-identical on every run and names this script as its creator.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graphpruning.common.files import atomic
from graphpruning.drawing import draw_graph
from paper import command, measures
from paper.captions import CONDITIONINGS, SOURCES, budget_name, shown
from paper.results import GIVEN, Heatmap, Network, Results, Row
from paper.statistics import mean
from paper.wording import number

COLUMN, PAGE = 3.3, 7.0
DPI = 200
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "pdf.fonttype": 42,
}
COLOURS = (  # Okabe and Ito's, then some of Tol's "muted", for studies of many methods
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
    "#999933",
    "#332288",
    "#757575",
    "#117733",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES: dict[str, Any] = {
    "graph": "-",
    "block": "--",
    "none": ":",
    "base": "-.",
    GIVEN: (0, (1, 1)),
    "no-shortcuts": (0, (5, 1)),
    "sage": (0, (3, 1, 1, 1)),
    "gat": (0, (3, 1, 1, 1, 1, 1)),
}
CONDITIONING_STYLE: Any = {
    "graph": (COLOURS[0], "o"),
    "block": (COLOURS[1], "s"),
    "none": (COLOURS[2], "^"),
    "no-shortcuts": (COLOURS[3], "D"),
    "sage": (COLOURS[4], "v"),
    "gat": (COLOURS[5], "P"),
}
GREY = "#757575"


_KINDS_OF_PAIRS = (
    ("trained", "in_block"),
    ("trained", "other_block"),
    ("untrained", "in_block"),
)


def correlation_heatmaps(results: Results) -> Figure:
    """Figure 1: pairs of layers of a network against both controls, and of a pretrained one."""
    networks = shown(results)
    most = 4 // max(1, len(networks))
    columns: list[tuple[Network, str] | None] = []  # None is the gap between two networks
    for network in networks:
        heatmaps = network.correlation.heatmaps
        inside = [h.deeper for h in heatmaps if (h.network, h.pair) == _KINDS_OF_PAIRS[0]]
        places = np.linspace(0, len(inside) - 1, min(most, len(inside))).round().astype(int)
        columns += [None] * bool(columns) + [(network, inside[i]) for i in places]
    figure, axes = plt.subplots(
        len(_KINDS_OF_PAIRS),
        len(columns),
        squeeze=False,
        figsize=(PAGE, 0.5 + 1.5 * len(_KINDS_OF_PAIRS)),
        width_ratios=[0.1 if column is None else 1 for column in columns],
    )
    image = None
    for line, (kind, pair) in zip(axes, _KINDS_OF_PAIRS, strict=True):
        for axis, column in zip(line, columns, strict=True):
            axis.set_axis_off()
            if column is None:
                continue
            network, deeper = column
            for heatmap in network.correlation.heatmaps:
                if (heatmap.network, heatmap.pair, heatmap.deeper) == (kind, pair, deeper):
                    image = _heatmap(axis, heatmap)
        line[0].text(
            -0.4,
            0.5,
            f"{kind},\n{measures.PAIRS[pair]}",
            rotation=90,
            ha="center",
            va="center",
            transform=line[0].transAxes,
            fontsize=7.5,
        )
    if len(networks) > 1:
        for axis, column, before in zip(axes[0], columns, [None, *columns], strict=False):
            if column and not before:
                axis.set_title(column[0].label, loc="left", weight="bold")
    if image is not None:
        bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=25, pad=0.02)
        bar.set_label("absolute Pearson correlation")
        bar.outline.set_linewidth(0.6)
    return figure


def _heatmap(axis: Axes, heatmap: Heatmap) -> matplotlib.image.AxesImage:
    matrix = np.asarray(heatmap.matrix)
    order = np.argsort(-matrix.max(axis=1), kind="stable")
    axis.set_axis_on()
    image = axis.imshow(matrix[order], vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(heatmap.former, labelpad=2, fontsize=6.5)
    axis.set_ylabel(heatmap.deeper, labelpad=2, fontsize=6.5)
    return image


def r2_distributions(results: Results) -> Figure:
    """Figure 2: per network, R² over all deeper channels with its band, and its median by layer."""
    networks = results.compared
    layers = [list(network.correlation.channels["deeper"].unique()) for network in networks]
    heights = [1.9 + 0.04 * max(map(len, names)) for names in layers]
    figure, axes = plt.subplots(
        len(networks), 2, figsize=(PAGE, 0.4 + sum(heights)), squeeze=False, height_ratios=heights
    )
    for (left, right), network, names in zip(axes, networks, layers, strict=True):
        frame = network.correlation.channels
        low = max(-0.5, min(0.0, float(frame["r2"].min())))
        for (kind, pair), part in frame.groupby(["network", "pair"], sort=False):
            colour = COLOURS[list(measures.PAIRS).index(str(pair))]
            style = "-" if kind == "trained" else "--"
            label = f"{kind}, {measures.PAIRS[str(pair)]}"
            thresholds = np.linspace(low, 1, _STEPS)
            shares = [measures.share_over(part, t).scaled(100) for t in thresholds]
            left.plot(
                thresholds,
                [share.value for share in shares],
                color=colour,
                linestyle=style,
                label=label,
            )
            left.fill_between(
                thresholds,
                [share.low for share in shares],
                [share.high for share in shares],
                color=colour,
                alpha=0.15 if kind == "trained" else 0.08,
                linewidth=0,
            )
            medians = part.groupby("deeper")["r2"].median().reindex(names)
            right.plot(
                np.arange(len(names)),
                medians,
                color=colour,
                linestyle=style,
                linewidth=0.7,
                marker="o" if kind == "trained" else "s",
                markersize=4,
                markerfacecolor=colour if kind == "trained" else "white",
            )
        for threshold in measures.THRESHOLDS:
            left.axvline(threshold, color=GREY, linestyle=":", linewidth=0.8)
        left.set(xlim=(low, 1), ylim=(0, 100), title=network.label)
        left.set(xlabel="R² of a deeper channel", ylabel="channels with a higher R² (%)")
        right.set(ylabel="median R²", title=f"{network.label}, by deeper layer")
        right.set_xticks(np.arange(len(names)), names, rotation=90, fontsize=6)
        if low < 0:
            right.set_ylim(bottom=max(-0.5, right.get_ylim()[0]))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


_STEPS = 61
"""Points of a curve over R²."""


def channel_graph(results: Results) -> Figure:
    """Figure 3: the first model's graph, one line a layer."""
    figure = draw_graph(results.base[results.models[0]].graph.description)
    figure.set_layout_engine("none")  # it has places of its own
    return figure


def generated_accuracy(results: Results) -> Figure:
    """Figure 4: accuracy with generated weights against MACs, and against training."""
    models = results.models
    figure, axes = plt.subplots(
        len(models), 2, figsize=(PAGE, 0.3 + 2.4 * len(models)), squeeze=False
    )
    for (left, right), model in zip(axes, models, strict=True):
        base = results.base[model]
        for conditioning in results.analysed:
            colour, marker = CONDITIONING_STYLE[conditioning]
            frame = measures.candidates(results, model, conditioning)
            share = 100 * frame["macs"].to_numpy() / base.macs
            accuracy = frame["top1_generated"].to_numpy()
            label = CONDITIONINGS[conditioning]
            left.scatter(share, accuracy, s=9, color=colour, marker=marker, alpha=0.45, linewidth=0)
            quarters = [
                (part.mean(), np.mean(values))
                for part, values in zip(
                    np.array_split(share, 4), np.array_split(accuracy, 4), strict=True
                )
                if len(part)
            ]
            left.plot(*zip(*quarters, strict=True), color=colour, marker=marker, label=label)
            known = frame.dropna(subset="top1_trained")
            tau = measures.rank_correlation(results, model, conditioning)
            right.scatter(
                known["top1_trained"],
                known["top1_generated"],
                s=14,
                color=colour,
                marker=marker,
                alpha=0.8,
                linewidth=0,
                label=f"{label}: τ = {number(tau.value, 2)}",
            )
        half = measures.yardstick(results, model)
        left.axhline(half, color=GREY, linestyle="--", linewidth=0.9)
        left.annotate(
            "half of the base network",
            (1, half),
            (-2, 2),
            color=GREY,
            xycoords=left.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
        )
        left.set(xlabel="MACs (% of the base network)", title=model)
        left.set(ylabel="top-1 with generated weights (%)")
        right.set(xlabel="top-1 after training from scratch (%)", title=model)
        right.set(ylabel="top-1 with generated weights (%)")
        left.legend(title="PruningNet", title_fontsize=7)
        bottom, top = right.get_ylim()
        right.set_ylim(bottom, top + 0.4 * (top - bottom))  # room for the legend above the points
        right.legend(title="PruningNet", title_fontsize=7, loc="upper left")
    return figure


def search_curves(results: Results) -> Figure:
    """Figure 5: the best candidate so far; methods that rate it by other weights stand apart."""
    panels = [(model, budget) for model in results.models for budget in results.budgets]
    searched = _different_searches(results)
    same = [row for row in searched if measures.same_weights(results, row)]
    other = [row for row in searched if row not in same]
    columns = {f"rated as by {results.ours.label}": same, "rated otherwise": other}
    columns = {whose: rows for whose, rows in columns.items() if rows}
    figure, axes = plt.subplots(
        len(panels),
        len(columns),
        figsize=(PAGE, 1.1 + 1.9 * len(panels)),
        squeeze=False,
        sharex=True,
    )
    for line, (model, budget) in zip(axes, panels, strict=True):
        for axis, (whose, rows) in zip(line, columns.items(), strict=True):
            for row in rows:
                history = results.search[model, row.name, budget].history
                if not history.empty:
                    _search_curve(axis, results, row, history)
            axis.set_title(f"{model}, {budget_name(results, budget, model)}, {whose}")
        line[0].set_ylabel(f"best {results.reward} so far (%)")
    for axis in axes[-1]:
        axis.set_xlabel("candidates evaluated")
    handles = {
        label: handle
        for axis in axes[0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=2, handlelength=3
    )
    return figure


def _different_searches(results: Results) -> list[Row]:
    """Of methods that differ in their final training alone, the first; each that was given."""
    found: dict[tuple[str, ...], Row] = {}
    for row in results.rows.values():
        given = row.kind == GIVEN
        found.setdefault((row.name,) if given else (row.source, row.state, row.searcher), row)
    return list(found.values())


def _search_curve(axis: Axes, results: Results, row: Row, history: pd.DataFrame) -> None:
    """Mean over seeds, and a band from the lowest to the highest; one evaluation is a marker."""
    colour, marker = _style(results, row.name)
    best = history.pivot(index="evaluation", columns="seed", values="best").ffill()
    every = max(1, len(best) // 6)
    axis.plot(
        best.index,
        best.mean(axis=1),
        color=colour,
        linestyle=LINES[row.source],
        marker=marker,
        markevery=(every // 2, every),
        label=f"{row.label} ({SOURCES[row.source]})",
    )
    axis.fill_between(
        best.index, best.min(axis=1), best.max(axis=1), color=colour, alpha=0.13, linewidth=0
    )


def accuracy_macs(results: Results) -> Figure:
    """Figure 6: final accuracy against MACs, and per budget with intervals."""
    models, budgets = results.models, results.budgets
    figure, axes = plt.subplots(
        len(models),
        1 + len(budgets),
        figsize=(PAGE, 0.4 + 2.3 * len(models)),
        squeeze=False,
        width_ratios=[1.5, *[1] * len(budgets)],
    )
    for line, model in zip(axes, models, strict=True):
        _tradeoff(line[0], results, model)
        for axis, budget in zip(line[1:], budgets, strict=True):
            _ranked(axis, results, model, budget)
            if axis is not line[1]:
                axis.set_yticklabels([])
    return figure


def _tradeoff(axis: Axes, results: Results, model: str) -> None:
    base = results.base[model]
    for name in results.rows:
        colour, marker = _style(results, name)
        points = []
        for budget in results.budgets:
            found = results.final[model, name, budget].seeds.values()
            top1 = mean([trained.test_top1 for trained in found])
            points.append((float(np.mean([trained.macs for trained in found])) / 1e6, top1))
        points.sort(key=lambda point: point[0])
        macs = [x for x, _ in points]
        bars = np.array([[top1.value - top1.low, top1.high - top1.value] for _, top1 in points])
        axis.errorbar(
            macs,
            [top1.value for _, top1 in points],
            yerr=np.nan_to_num(bars).T,
            color=colour,
            marker=marker,
            linestyle=LINES[results.rows[name].source],
            elinewidth=0.8,
        )
    axis.axhline(base.test_top1, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
    axis.plot(base.macs / 1e6, base.test_top1, marker="*", color="black", markersize=8)
    axis.set(xlabel="MACs (M)", ylabel="test top-1 (%)", title=model)


def _ranked(axis: Axes, results: Results, model: str, budget: str) -> None:
    names = list(results.rows)
    for position, name in enumerate(names):
        colour, marker = _style(results, name)
        seeds = list(results.test_top1(model, name, budget).values())
        top1 = mean(seeds)
        if top1.n > 1:
            axis.plot([top1.low, top1.high], [position] * 2, color=colour, linewidth=1)
            axis.plot(seeds, [position + 0.28] * len(seeds), ".", color=colour, markersize=2.5)
        axis.plot(top1.value, position, color=colour, marker=marker, markersize=5)
    axis.set_yticks(range(len(names)), [results.rows[name].label for name in names])
    title = budget_name(results, budget, model)
    axis.set(ylim=(len(names) - 0.4, -0.6), xlabel="test top-1 (%)", title=title)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.grid(axis="x", color="#dddddd", linewidth=0.5)
    axis.set_axisbelow(True)


def kept_ratio(results: Results) -> Figure:
    """Figure 7: the widths that each method found, as shares of the full ones."""
    panels = [(model, budget) for model in results.models for budget in results.budgets]
    rows = len(results.rows)
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(PAGE, 0.8 + (0.35 + 0.17 * rows) * len(panels)), squeeze=False
    )
    image = None
    for (axis,), (model, budget) in zip(axes, panels, strict=True):
        full = results.base[model].graph.groups
        ratio = 100 * np.array(
            [
                [
                    np.mean([found.widths.get(group, np.nan) / width for found in seeds])
                    for group, width in full.items()
                ]
                for seeds in (
                    results.search[model, name, budget].seeds.values() for name in results.rows
                )
            ]
        )
        image = axis.imshow(ratio, vmin=0, vmax=100, cmap="viridis", aspect="auto")
        if len(full) <= _WRITTEN:
            for (y, x), value in np.ndenumerate(ratio):
                if np.isnan(value):  # a method that was given without its widths
                    continue
                ink = "white" if value < 60 else "black"
                axis.text(x, y, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=6)
        axis.set_yticks(range(rows), [row.label for row in results.rows.values()])
        last = budget == results.budgets[-1]
        axis.set_xticks(range(len(full)), list(full) if last else [], rotation=90, fontsize=6)
        axis.set_title(f"{model}, {budget_name(results, budget, model)}")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    if image is not None:
        bar = figure.colorbar(image, ax=axes, aspect=30, pad=0.015, shrink=0.7)
        bar.set_label("channels kept (%)")
        bar.outline.set_linewidth(0.6)
    return figure


_WRITTEN = 24
"""Up to this many groups a cell is wide enough for its number."""


def _style(results: Results, method: str) -> tuple[str, str]:
    """Colour and marker of a method, the same in every figure; no two methods share both."""
    again, position = divmod(list(results.rows).index(method), len(COLOURS))
    return COLOURS[position], MARKERS[(position + again) % len(MARKERS)]


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "figure1_correlation_heatmaps": correlation_heatmaps,
    "figure2_r2_distributions": r2_distributions,
    "figure3_graph": channel_graph,
    "figure4_generated_accuracy": generated_accuracy,
    "figure5_search_curves": search_curves,
    "figure6_accuracy_macs": accuracy_macs,
    "figure7_kept_ratio": kept_ratio,
}


def drawn(results: Results) -> list[str]:
    """Names of the figures that a study has: the first three are of its networks."""
    names = list(FIGURES) if results.rows else list(FIGURES)[:3]
    return names if results.compared else names[2:]


def write(results: Results) -> None:
    """Write the study's figures into results/STUDY/figures."""
    for name in drawn(results):
        with matplotlib.rc_context(STYLE):
            figure = FIGURES[name](results)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, so that both forms are alike
            path = results.path / "figures" / name
            for ending, made_by in _METADATA.items():
                with atomic(path.with_suffix(ending)) as beside:
                    figure.savefig(beside, metadata={"Title": name, **made_by})
            plt.close(figure)


_METADATA: dict[str, dict[str, str | None]] = {
    # A date would make every run's bytes differ.
    ".pdf": {"Creator": "paper/figures.py", "CreationDate": None},
    ".png": {"Source": "paper/figures.py", "Software": None},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return command.run("Make figures 1 to 7 from a study's results.", write, argv)


if __name__ == "__main__":
    sys.exit(main())
