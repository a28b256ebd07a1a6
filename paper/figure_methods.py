"""Figures 5 to 7: what methods search, reach and keep."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paper import measures
from paper.captions import budget_name, rating
from paper.figure_style import (
    BAND,
    EDGE,
    HEATMAP,
    PAGE,
    SMALL,
    colour_bar,
    interval,
    look,
    reference,
)
from paper.reader.contents import Row
from paper.reader.results import GIVEN, Results
from paper.wording import number


def search_curves(results: Results) -> Figure:
    """Figure 5: the best candidate so far; methods that rate it by other weights stand apart."""
    panels = [(model, budget) for model in results.models for budget in results.budgets]
    searched = _different_searches(results)
    same = [row for row in searched if measures.same_weights(results, row)]
    other = [row for row in searched if row not in same]
    columns = {f"rated as by {results.ours.label}": same, "rated otherwise": other}
    columns = {whose: rows for whose, rows in columns.items() if rows}
    size = (PAGE, 1.1 + 2 * len(panels))
    figure, axes = plt.subplots(len(panels), len(columns), figsize=size, squeeze=False, sharex=True)
    for line, (model, budget) in zip(axes, panels, strict=True):
        for axis, (whose, rows) in zip(line, columns.items(), strict=True):
            for row in rows:
                _search_curve(axis, results, row, model, budget)
            axis.set_title(f"{model}, {budget_name(results, budget, model)}\n{whose}")
            axis.set(xlabel="candidates evaluated", ylabel="")
        line[0].set_ylabel(f"best {results.reward} so far (%)")
    lines = [line for axis in axes[0] for line in axis.get_lines()]
    figure.legend(handles=lines, loc="outside lower center", ncols=2)
    return figure


def _different_searches(results: Results) -> list[Row]:
    """Of methods that differ in their final training alone, the first; each that was given."""
    found: dict[tuple[str, ...], Row] = {}
    for row in results.rows.values():
        given = row.kind == GIVEN
        found.setdefault((row.name,) if given else (row.source, row.state, row.searcher), row)
    return list(found.values())


def _search_curve(axis: Axes, results: Results, row: Row, model: str, budget: str) -> None:
    """Mean over replicates, a band from the lowest to the highest; one evaluation is a marker."""
    searches = results.search[model, row.name, budget].values()
    best = [search.history.set_index("evaluation")["best"] for search in searches]
    # A search that ended early keeps its best.
    frame = pd.concat(best, axis=1, keys=range(len(best))).sort_index().ffill()
    every = max(1, len(frame) // 6)
    frame = frame.dropna(how="all")
    if frame.empty:  # of a user's method the search may not be known
        return
    sns.lineplot(
        x=frame.index,
        y=frame.mean(axis=1),
        estimator=None,
        markevery=(every // 2, every),
        label=f"{row.label} ({rating(results, row)})",
        legend=False,
        ax=axis,
        **look(row),
        **EDGE,
    )
    several = frame.where(frame.count(axis=1) > 1)  # one replicate has no band
    low, high = several.min(axis=1), several.max(axis=1)
    axis.fill_between(frame.index, low, high, color=row.colour, **BAND)


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
            axis.tick_params(labelleft=axis is line[1])
    return figure


def _tradeoff(axis: Axes, results: Results, model: str) -> None:
    """A method's means over replicates, joined from budget to budget, below the base network."""
    for name, row in results.rows.items():
        finals = [list(results.final[model, name, budget].values()) for budget in results.budgets]
        macs = [np.mean([final.macs / 1e6 for final in found]) for found in finals]
        top1 = [measures.test_top1(results, model, name, b).value for b in results.budgets]
        sns.lineplot(x=macs, y=top1, ax=axis, **look(row), **EDGE)
    base = measures.base_top1(results, model).value
    axis.plot(results.network(model).macs / 1e6, base, marker="*", color="black", markersize=8)
    reference(axis, base, "base network", "left")
    axis.margins(y=0.08)
    sizes = [results.budget_macs(model, budget) for budget in results.budgets]
    ticks = sorted({size / 1e6 for size in (*sizes, results.network(model).macs)})
    axis.set_xscale("log")  # budgets are shares, and lie close together beside the whole network
    axis.set_xticks(ticks, [number(tick, 1) for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="MACs (M, logarithmic)", ylabel="test top-1 (%)", title=model)


def _ranked(axis: Axes, results: Results, model: str, budget: str) -> None:
    """A method a line: its mean and interval, and each replicate just below."""
    frame = pd.DataFrame(
        [
            (row.label, top1, position + 0.3)
            for position, (name, row) in enumerate(results.rows.items())
            for top1 in results.test_top1(model, name, budget).values()
        ],
        columns=["method", "top1", "below"],
    )
    rows = results.rows.values()
    how: Any = {"hue": "method", "palette": [row.colour for row in rows], "legend": False}
    markers: Any = [row.marker for row in rows]
    sns.pointplot(
        frame,
        x="top1",
        y="method",
        errorbar=interval,
        markers=markers,
        markersize=5.5,
        linestyle="none",
        err_kws={"linewidth": 1},
        ax=axis,
        **how,
    )
    if frame["method"].duplicated().any():
        sns.scatterplot(frame, x="top1", y="below", s=6, linewidth=0, ax=axis, **how)
    axis.set(xlabel="test top-1 (%)", ylabel="", title=budget_name(results, budget, model))
    axis.margins(x=0.08)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.grid(axis="x", color="#dddddd", linewidth=0.5)


def kept_ratio(results: Results) -> Figure:
    """Figure 7: the widths that each method found, as shares of the full ones."""
    panels = [(model, budget) for model in results.models for budget in results.budgets]
    height = 0.8 + (0.4 + 0.17 * len(results.rows)) * len(panels)
    figure, axes = plt.subplots(len(panels), 1, figsize=(PAGE, height), squeeze=False)
    for (axis,), (model, budget) in zip(axes, panels, strict=True):
        kept = _kept(results, model, budget)
        room = kept.shape[1] <= 24  # for a number in each cell
        written: Any = {"annot": room, "fmt": ".0f", "annot_kws": {"fontsize": SMALL}}
        sns.heatmap(kept, vmax=100, ax=axis, **written, **HEATMAP)
        for text in axis.texts:  # seaborn's own choice is hard to read on green
            text.set_color("white" if float(text.get_text()) < 45 else "black")
        axis.set_title(f"{model}, {budget_name(results, budget, model)}")
        last = budget == results.budgets[-1]
        axis.tick_params(axis="x", labelbottom=last, labelsize=SMALL, rotation=90)
        axis.tick_params(length=0)
    colour_bar(figure, axes, "channels kept (%)")
    return figure


def _kept(results: Results, model: str, budget: str) -> pd.DataFrame:
    """Channels kept (%), mean over replicates; NaN for user-supplied results without widths."""
    full = pd.Series(results.network(model).graph.prunable)
    shares = {}
    for name, row in results.rows.items():
        found = results.search[model, name, budget].values()
        widths = pd.DataFrame([search.widths for search in found], columns=full.index)
        shares[row.label] = 100 * widths.mean() / full
    return pd.DataFrame(shares).T
