"""How much of a deeper channel the former layer explains: the quantities of claim 1.

Each is computed within every replicate; `paper.statistics` then makes one estimate of them.
"""

from collections.abc import Iterable

import pandas as pd

from paper.reader.results import Network
from paper.statistics import (
    Clusters,
    Estimate,
    Statistic,
    difference_over_replicates,
    means,
    medians,
    over_replicates,
)

Kind = tuple[str, str]
"""Of which network (trained, untrained) and of which pairs (in_block, other_block, border) channels
are."""
PAIRS = {"in_block": "same block", "other_block": "other blocks", "border": "next block"}
KINDS: tuple[Kind, ...] = (
    ("trained", "in_block"),
    ("trained", "other_block"),
    ("untrained", "in_block"),
    ("untrained", "other_block"),
)
BORDERS: tuple[Kind, ...] = (("trained", "border"), ("untrained", "border"))
OUTPUTS = {"own": "own", "activated": "activated"}
"""Of a layer: its own output, and that after normalisation and activation."""
_R2 = {
    ("in_block", "own"): "r2",
    ("other_block", "own"): "control_r2",
    ("in_block", "activated"): "r2_activated",
    ("other_block", "activated"): "control_r2_activated",
    ("border", "own"): "r2",
    ("border", "activated"): "r2_activated",
}
_MATCH = {"in_block": "best_match", "other_block": "control_match", "border": "best_match"}
THRESHOLDS = (0.5, 0.7, 0.9)
"""R² above which a channel counts as represented, in Table 1."""
LARGELY = 0.5
"""C1: a channel is largely representable when R² is above this: most of its variance."""


def channels(network: Network, kind: Kind, output: str = "own") -> list[pd.DataFrame]:
    """Deeper channels with their `r2` and best `match`, a table for each replicate.

    Of pairs of different blocks both are the mean over the deeper layer's controls; channels of
    layers without a control are left out. Pairs at a border are consecutive layers of neighbouring
    blocks.
    """
    state, pair = kind
    names = {_R2[pair, output]: "r2", _MATCH[pair]: "match"}
    found = []
    for correlation in network.correlation.values():
        table = correlation.across if pair == "border" else correlation.channels
        frame = table[table["network"] == state]
        if pair == "border" and frame.empty:
            continue  # a replicate from before they were judged
        found.append(frame[["deeper", *names]].rename(columns=names).dropna())
    return found


def outputs(network: Network) -> list[str]:
    """The outputs that a network's layers were judged by."""
    inside = KINDS[0]
    return [name for name in OUTPUTS if len(channels(network, inside, name)[0])]


def kinds(network: Network) -> list[Kind]:
    """The kinds of channels that a network has: without any control those of its blocks alone."""
    return [kind for kind in KINDS if len(channels(network, kind)[0])]


def borders(network: Network) -> list[Kind]:
    """The kinds of channels at the borders of blocks, where a replicate has them."""
    return [kind for kind in BORDERS if channels(network, kind)]


def shares_over(
    network: Network, kind: Kind, thresholds: Iterable[float], output: str = "own"
) -> list[Estimate]:
    """Share of deeper channels whose R² is above each threshold."""
    found = [Clusters(f["r2"], f["deeper"]) for f in channels(network, kind, output)]
    return [over_replicates(found, _share_above(threshold)) for threshold in thresholds]


def _share_above(threshold: float) -> Statistic:
    return lambda groups, draws: means([(g > threshold).astype(float) for g in groups], draws)


def median(network: Network, kind: Kind, output: str = "own", column: str = "r2") -> Estimate:
    """Median of a column over deeper channels."""
    found = [Clusters(f[column], f["deeper"]) for f in channels(network, kind, output)]
    return over_replicates(found, medians)


def over_controls(network: Network, output: str = "own") -> Estimate:
    """Median over channels of R² minus the mean R² over the controls of the same channel."""
    found = []
    for correlation in network.correlation.values():
        frame = correlation.channels
        frame = frame[(frame["network"] == "trained") & (frame["controls"] > 0)]
        more = (frame[_R2["in_block", output]] - frame[_R2["other_block", output]]).dropna()
        found.append(Clusters(more, frame.loc[more.index, "deeper"]))
    return over_replicates(found, medians)


def over_borders(network: Network, output: str = "own") -> Estimate:
    """Median R² minus that of consecutive layers of neighbouring blocks.

    Of blocks alone whose first layer is the deeper one at such a border, in the replicates where
    these were judged.
    """
    inside, across = [], []
    for correlation in network.correlation.values():
        near = correlation.across[correlation.across["network"] == "trained"]
        if near.empty:
            continue
        frame = correlation.channels[correlation.channels["network"] == "trained"]
        frame = frame[frame["former"].isin(set(near["deeper"]))]
        inside.append(Clusters(frame[_R2["in_block", output]], frame["deeper"]))
        across.append(Clusters(near[_R2["border", output]], near["deeper"]))
    return difference_over_replicates(inside, across, medians)


def over_untrained(network: Network, output: str = "own") -> Estimate:
    """Median R² minus that of the same layers untrained, whose channels are others."""
    trained, untrained = (
        [Clusters(f["r2"], f["deeper"]) for f in channels(network, (state, "in_block"), output)]
        for state in ("trained", "untrained")
    )
    return difference_over_replicates(trained, untrained, medians)


def controls(network: Network) -> dict[str, int]:
    """How many controls each deeper layer has."""
    frame = next(iter(network.correlation.values())).channels
    return {
        layer: int(count) for layer, count in zip(frame["deeper"], frame["controls"], strict=True)
    }


def fixed_strength(network: Network) -> float | None:
    """The ridge strength where validation had none to choose; None where it chose."""
    (strength, *others) = next(iter(network.correlation.values())).ridge
    return None if others else strength
