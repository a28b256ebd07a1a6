"""A latency table made up: a search space with time as its resource, and what its layers take."""

import numpy as np

from graphpruning.network.latency_cost import Latency, LayerTimes
from graphpruning.network.widths import SearchSpace

REMAINDER, FACTOR = 0.25, 2.0


def layer_times(space: SearchSpace, seed: int = 0) -> list[LayerTimes]:
    """Of each layer times that rise unevenly with both widths, at three or four of them a side."""
    random = np.random.default_rng(seed)
    ends = np.array([space.vector(space.smallest), space.vector(space.full)])
    reads, writes = (space.cost.count(side, ends) for side in (space.cost.reads, space.cost.writes))
    found = []
    for number in range(len(space.graph.layers)):
        rows = np.unique(np.linspace(*reads[:, number], 3).astype(int))
        columns = np.unique(np.linspace(*writes[:, number], 4).astype(int))
        steps = random.exponential(0.05, (len(rows), len(columns)))
        times = 0.02 + steps.cumsum(axis=0).cumsum(axis=1)
        found.append(LayerTimes(rows.tolist(), columns.tolist(), times))
    return found


def timed(space: SearchSpace, seed: int = 0) -> SearchSpace:
    """`space` with such times as its resource."""
    times = layer_times(space, seed)
    return space.limited_by(Latency(space.cost, times, FACTOR, REMAINDER))
