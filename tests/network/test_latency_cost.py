"""Time as a resource: what a table of layers says is a sum, and rises with every width."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphpruning import SearchSpace, UserError, trace
from graphpruning.network.latency_cost import Latency, LayerTimes, monotone
from tests.networks import SIZE, network
from tests.search.made_up_times import FACTOR, REMAINDER, layer_times, timed

NAMES = ("mobilenet_v1", "resnet8", "shufflenet_v2_x0_5")


@cache
def space_of(name: str) -> SearchSpace:
    return SearchSpace(trace(network(name), SIZE), divisor=4, smallest=0.25)


def by_hand(times: LayerTimes, read: int, written: int) -> float:
    """Bilinear interpolation, one pair of widths at a time."""

    def weights(knots: list[int], value: int) -> dict[int, float]:
        for low, high in itertools.pairwise(knots):
            if low <= value <= high:
                share = (value - low) / (high - low)
                return {knots.index(low): 1 - share, knots.index(high): share}
        return {0: 1.0} if value < knots[0] else {len(knots) - 1: 1.0}

    return sum(
        a * b * times.milliseconds[row, column]
        for row, a in weights(list(times.reads), read).items()
        for column, b in weights(list(times.writes), written).items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_estimate_is_the_sum_of_its_layers_times(name: str) -> None:
    space = space_of(name)
    times = layer_times(space)
    resource = timed(space).resource
    generator = torch.Generator().manual_seed(0)
    for widths in (space.full, space.smallest, *(space.sample(generator) for _ in range(5))):
        mask = space.graph.first_units(widths)
        expected = REMAINDER
        for layer, mine in zip(space.graph.layers, times, strict=True):
            read, written = (int(mask[units].sum()) for units in (layer.inputs, layer.outputs))
            expected += FACTOR * by_hand(mine, read, written)
        assert timed(space).used(widths) == pytest.approx(1e6 * expected, abs=1)
    vectors = np.array([space.vector(space.full), space.vector(space.smallest)])
    assert resource.used(vectors).tolist() == [
        timed(space).used(space.full),
        timed(space).used(space.smallest),
    ]


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(NAMES), st.integers(0, 5), st.data())
def test_a_wider_group_never_takes_less(name: str, seed: int, data: st.DataObject) -> None:
    """Even where measured times fall: they are replaced by the nearest that rise."""
    random = np.random.default_rng(seed)
    space = space_of(name)
    noisy = [
        LayerTimes(
            t.reads, t.writes, t.milliseconds * random.uniform(0.5, 1.5, t.milliseconds.shape)
        )
        for t in layer_times(space, seed)
    ]
    timed_space = space.limited_by(Latency(space.cost, noisy))
    widths = space.sample(torch.Generator().manual_seed(seed))
    group = data.draw(st.sampled_from(space.groups))
    used = [timed_space.used({**widths, group: level}) for level in space.levels[group]]
    assert used == sorted(used)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=4, max_size=4), min_size=1, max_size=5),
)
def test_rising_tables_stay_and_others_become_the_nearest(rows: list[list[int]]) -> None:
    table = np.array(rows, dtype=float)
    found = monotone(table)
    assert (np.diff(found, axis=0) >= 0).all() and (np.diff(found, axis=1) >= 0).all()
    rising = np.sort(np.sort(table, axis=0), axis=1)
    np.testing.assert_allclose(monotone(rising), rising)
    # Nearest: towards any other rising table the distance does not fall.
    for other in (rising, np.full_like(table, table.mean())):
        assert ((table - found) * (other - found)).sum() <= 1e-3 * (1 + np.abs(table).max() ** 2)


def test_a_time_that_cannot_be_reached_is_said_in_milliseconds() -> None:
    space = timed(space_of("resnet8"))
    least = space.used(space.smallest)
    with pytest.raises(UserError, match=rf"{least / 1e6:,.3f} ms \(0\.\d+ of the full one\)"):
        space.require(least - 1)
    space.require(least)
