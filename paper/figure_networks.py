"""Figures 1 to 3: the layers of networks, their channels' correlation and R², and a graph."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphpruning.drawing import draw_graph
from paper import representation
from paper.captions import shown
from paper.figure_style import BAND, EDGE, GREY, HEATMAP, PAGE, SMALL, colour_bar
from paper.reader.contents import Heatmap
from paper.reader.results import Network, Results

_KINDS: dict[representation.Kind, dict[str, Any]] = {
    # Dark for a trained network, bright for an untrained one.
    ("trained", "in_block"): {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    ("trained", "other_block"): {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    ("untrained", "in_block"): {"color": "#56B4E9", "marker": "^", "linestyle": "-."},
    ("untrained", "other_block"): {"color": "#E69F00", "marker": "D", "linestyle": ":"},
}


def correlation_heatmaps(results: Results) -> Figure:
    """Figure 1: pairs of layers of a network against both controls, and of a pretrained one."""
    kinds = list(_KINDS)[:3]
    networks = shown(results)
    columns = [(n, layer) for n in networks for layer in _spread(n, 4 // len(networks))]
    size = (PAGE, 0.7 + 1.5 * len(kinds))
    figure, axes = plt.subplots(len(kinds), len(columns), squeeze=False, figsize=size)
    for line, kind in zip(axes, kinds, strict=True):
        for axis, (network, layer) in zip(line, columns, strict=True):
            _heatmap(axis, _heatmaps(network).get((*kind, layer)))
        line[0].set_ylabel(f"{_said(kind)}\n\n{line[0].get_ylabel()}")
    for axis, (network, _) in zip(axes[0], columns, strict=True):
        axis.set_title(network.label.replace(" (", "\n("))
    colour_bar(figure, axes, "absolute Pearson correlation")
    return figure


def _heatmaps(network: Network) -> dict[tuple[str, str, str], Heatmap]:
    """Those of the first replicate, by kind and deeper layer."""
    correlation = next(iter(network.correlation.values()))
    return {(found.network, found.pair, found.deeper): found for found in correlation.heatmaps}


def _spread(network: Network, most: int) -> list[str]:
    """At most so many deeper layers, from the first to the last; such as have a control, if any."""
    inside, control = list(_KINDS)[:2]
    of_kind = {
        kind: [layer for *found, layer in _heatmaps(network) if tuple(found) == kind]
        for kind in (inside, control)
    }
    layers = of_kind[control] or of_kind[inside]
    places = np.linspace(0, len(layers) - 1, min(most, len(layers)))
    return [layers[place] for place in places.round().astype(int)]


def _heatmap(axis: Axes, heatmap: Heatmap | None) -> None:
    """Deeper channels are rows, those with the best match on top; None where there is no pair."""
    if heatmap is None:
        axis.set(xticks=[], yticks=[])
        axis.text(0.5, 0.5, "no control", ha="center", va="center", transform=axis.transAxes)
        return
    matrix = np.asarray(heatmap.matrix)
    best_first = np.argsort(-matrix.max(axis=1), kind="stable")
    # As seaborn's heatmap, which would draw the whole figure each time to see whether labels touch.
    axis.pcolormesh(matrix[best_first], vmin=0, vmax=1, cmap=HEATMAP["cmap"], rasterized=True)
    axis.set(xlim=(0, matrix.shape[1]), ylim=(matrix.shape[0], 0), xticks=[], yticks=[])
    sns.despine(ax=axis, left=True, bottom=True)
    axis.set_xlabel(heatmap.former, labelpad=2, fontsize=SMALL)
    axis.set_ylabel(heatmap.deeper, labelpad=2, fontsize=SMALL)


def r2_distributions(results: Results) -> Figure:
    """Figure 2: per network, R² over all deeper channels with its band, and its median by layer."""
    networks = results.compared
    frames = [pd.concat(representation.channels(n, next(iter(_KINDS)))) for n in networks]
    heights = [1.9 + 0.04 * frame["deeper"].str.len().max() for frame in frames]
    size = (PAGE, 0.4 + sum(heights))
    figure, axes = plt.subplots(
        len(networks), 2, figsize=size, squeeze=False, height_ratios=heights
    )
    for (left, right), network, frame in zip(axes, networks, frames, strict=True):
        _shares(left, network, max(-0.5, min(0.0, frame["r2"].min())))
        _medians(right, network, list(frame["deeper"].unique()))
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=4)
    return figure


def _shares(axis: Axes, network: Network, lowest: float) -> None:
    """The share of channels above each R², and the band of its interval."""
    thresholds = np.linspace(lowest, 1, 61)
    for kind in representation.kinds(network):
        found = representation.shares_over(network, kind, thresholds)
        shares = [estimate.scaled(100) for estimate in found]
        style = {key: _KINDS[kind][key] for key in ("color", "linestyle")}
        values = [share.value for share in shares]
        how: Any = {"estimator": None, "label": _said(kind), "legend": False, "ax": axis, **style}
        sns.lineplot(x=thresholds, y=values, **how)
        low, high = [share.low for share in shares], [share.high for share in shares]
        axis.fill_between(thresholds, low, high, color=style["color"], **BAND)
    for threshold in representation.THRESHOLDS:
        axis.axvline(threshold, color=GREY, linestyle=":", linewidth=0.8)
    axis.set(xlim=(lowest, 1), ylim=(0, 100), title=network.label)
    axis.set(xlabel="R² of a deeper channel", ylabel="channels with a higher R² (%)")


def _medians(axis: Axes, network: Network, names: list[str]) -> None:
    """The median R² of each deeper layer; where their names would touch, not all are written."""
    thin: Any = {"linewidth": 0.7, "markersize": 4.5, "errorbar": None, **EDGE}
    for kind in representation.kinds(network):
        parts = representation.channels(network, kind)
        medians = pd.concat([part.groupby("deeper")["r2"].median() for part in parts])
        sns.pointplot(
            medians.reset_index(), x="deeper", y="r2", order=names, ax=axis, **_KINDS[kind], **thin
        )
    axis.set(xlabel="", ylabel="median R²", title=f"{network.label}, by deeper layer")
    axis.set_ylim(bottom=max(-0.5, axis.get_ylim()[0]))
    every = -(-len(names) // 32)
    axis.set_xticks(range(0, len(names), every), names[::every], rotation=90, fontsize=SMALL)


def _said(kind: representation.Kind) -> str:
    state, pair = kind
    return f"{state}, {representation.PAIRS[pair]}"


def channel_graph(results: Results) -> Figure:
    """Figure 3: the first model's graph, one line a layer."""
    figure = draw_graph(results.network(results.models[0]).graph.description)
    figure.set_layout_engine("none")  # it has places of its own
    return figure
