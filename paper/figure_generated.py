"""Figures 4 and 8: what PruningNets generate, and what their features tell of the widths."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper import measures
from paper.captions import budget_name
from paper.figure_style import EDGE, GREY, PAGE, SMALL, look, reference
from paper.reader.results import Results
from paper.rule import MATTERS
from paper.wording import number


def generated_accuracy(results: Results) -> Figure:
    """Figure 4: accuracy with generated weights against MACs, and per budget against training."""
    models, budgets = results.models, results.analysed_budgets
    figure, axes = plt.subplots(
        len(models),
        1 + len(budgets),
        figsize=(PAGE, 0.7 + 2.4 * len(models)),
        squeeze=False,
        width_ratios=[1.4, *[1] * len(budgets)],
    )
    for (left, *right), model in zip(axes, models, strict=True):
        for conditioning in results.analysed:
            _by_size(left, results, model, conditioning)
        bases = [measures.base_search_top1(results, model, seed) for seed in results.seeds]
        half = measures.REASONABLE * float(np.mean(bases))
        _half_of_base(left, half)
        left.set(xlabel="MACs (% of the base network)", title=f"{model}, all sizes")
        left.set(ylabel="top-1 with generated weights (%)")
        for axis, budget in zip(right, budgets, strict=True):
            _against_training(axis, results, model, budget)
    lines = axes[0, 0].get_legend_handles_labels()
    columns = min(len(results.analysed), 6)
    figure.legend(*lines, title="PruningNet", loc="outside upper center", ncols=columns)
    return figure


def _half_of_base(axis: Axes, half: float) -> None:
    """A line at this accuracy; where it would press the points together, an arrow towards it."""
    low, high = axis.get_ylim()
    if half > low - (high - low):
        reference(axis, half, "half of the base network", "right")
        return
    said = f"↓ half of the base: {number(half, 0)} %"
    axis.text(0.98, 0.02, said, transform=axis.transAxes, ha="right", va="bottom", color=GREY)
    axis.set_ylim(low - 0.15 * (high - low), high)


def _by_size(axis: Axes, results: Results, model: str, conditioning: str) -> None:
    """One PruningNet's candidates as points; a line joins the means of quarters by MACs."""
    net = results.conditionings[conditioning]
    full = results.network(model).macs / 100
    frames = [measures.candidates(results, model, conditioning, seed) for seed in results.seeds]
    frame = pd.concat(frames, ignore_index=True)
    sns.scatterplot(
        x=frame["macs"] / full,
        y=frame["top1_generated"],
        s=10,
        alpha=0.45,
        color=net.colour,
        marker=net.marker,
        legend=False,
        linewidth=0,
        ax=axis,
    )
    sizes = measures.quarters(results, model, conditioning, "macs")
    means = measures.quarters(results, model, conditioning, "top1_generated")
    sns.lineplot(
        x=[size.value / full for size in sizes],
        y=[mean.value for mean in means],
        label=net.label,
        legend=False,
        ax=axis,
        **look(net),
        **EDGE,
    )


def _against_training(axis: Axes, results: Results, model: str, budget: str) -> None:
    """Candidates of one budget that were trained too; the legend has tau within the budget."""
    for conditioning in results.analysed:
        net = results.conditionings[conditioning]
        frames = [
            measures.trained(results, model, conditioning, seed, budget) for seed in results.seeds
        ]
        frame = pd.concat(frames, ignore_index=True)
        tau = measures.tau_at(results, model, conditioning, budget)
        sns.scatterplot(
            x=frame["top1_trained"],
            y=frame["top1_generated"],
            s=16,
            color=net.colour,
            marker=net.marker,
            linewidth=0,
            label=f"τ = {number(tau.value, 2)}",
            ax=axis,
        )
    axis.set(xlabel="top-1 trained\nfrom scratch (%)", ylabel="")
    axis.set_title(budget_name(results, budget, model))
    bottom, top = axis.get_ylim()
    lines = -(-len(results.analysed) // 2)
    taken = 0.06 + 0.09 * lines  # by the legend, above the points
    axis.set_ylim(bottom, top + taken / (1 - taken) * (top - bottom))
    axis.legend(loc="upper left", handlelength=0.8, ncols=2, columnspacing=0.8, handletextpad=0.3)


ACROSS = 4
"""Panels beside each other in Figure 8."""


def conditioning(results: Results) -> Figure:
    """Figure 8: probe R² by distance, trained against untrained, and right minus shuffled."""
    names = results.analysed
    across = min(ACROSS, max(2, len(names)))
    lines = -(-len(names) // across)
    rows = [(model, line) for model in results.models for line in [*range(lines), None]]
    heights = [1.5 if line is not None else 0.5 + 0.2 * len(names) for _, line in rows]
    figure = plt.figure(figsize=(PAGE, 0.6 + sum(height + 0.35 for height in heights)))
    grid = figure.add_gridspec(len(rows), across, height_ratios=heights)
    for place, (model, line) in enumerate(rows):
        if line is None:
            _helps(figure.add_subplot(grid[place, :]), results, model)
            continue
        first = None
        for column, name in enumerate(names[line * across : (line + 1) * across]):
            axis = figure.add_subplot(grid[place, column], sharey=first)
            _told(axis, results, model, name)
            axis.tick_params(labelleft=column == 0)
            axis.set_ylabel("probe R²" if column == 0 else "")
            first = first or axis
    dark: Any = {"color": GREY, "marker": "o", "linestyle": "-"}
    handles = [
        Line2D([], [], label="trained", **dark),
        Line2D([], [], label="untrained", **dark | _HOLLOW),
    ]
    figure.legend(handles=handles, title="aggregator", loc="outside upper center", ncols=2)
    return figure


_HOLLOW: Any = {"linestyle": ":", "markerfacecolor": "white", "markeredgewidth": 0.9}


def _told(axis: Axes, results: Results, model: str, name: str) -> None:
    """One PruningNet's probe R² by distance; bars are the intervals of the tables."""
    net = results.conditionings[name]
    for network, style in (("trained", {}), ("untrained", _HOLLOW)):
        found = {
            place: measures.probe(results, model, name, network, *ends)
            for place, ends in enumerate(measures.DISTANCES.values())
        }
        there = {place: estimate for place, estimate in found.items() if estimate is not None}
        values = [estimate.value for estimate in there.values()]
        shift = -0.08 if network == "trained" else 0.08
        places = [place + shift for place in there]
        drawn = {"color": net.colour, "marker": net.marker, "linestyle": "-"} | style
        axis.plot(places, values, markersize=4.5, linewidth=1, **drawn)
        for place, estimate in zip(places, there.values(), strict=True):
            axis.vlines(
                place, estimate.low, estimate.high, color=net.colour, linewidth=0.8, zorder=1
            )
    axis.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    axis.set(title=f"{model}, {net.label}", xlabel="edges from layer to width")
    axis.set_xticks(
        range(len(measures.DISTANCES)),
        [label.replace(" or more", "+") for label in measures.DISTANCES],
    )
    axis.set_xlim(-0.4, len(measures.DISTANCES) - 0.6)


def _helps(axis: Axes, results: Results, model: str) -> None:
    """Right minus shuffled conditioning with its interval, a line for each PruningNet."""
    for place, name in enumerate(results.analysed):
        net = results.conditionings[name]
        found = measures.right_minus_shuffled(results, model, name)
        axis.hlines(place, found.low, found.high, color=net.colour, linewidth=1)
        axis.plot(found.value, place, marker=net.marker, color=net.colour, markersize=5.5, **EDGE)
    axis.axvspan(-MATTERS, MATTERS, color="#eeeeee", zorder=0)
    axis.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    labels = [results.conditionings[name].label for name in results.analysed]
    axis.set_yticks(range(len(labels)), labels, fontsize=SMALL)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set(xlabel="top-1 with right minus shuffled conditioning (points)", title=model)
