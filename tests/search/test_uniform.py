import numpy as np
import pytest

from graphpruning.common.errors import UserError
from graphpruning.search import uniform


@pytest.mark.parametrize("share", [0.2, 0.5, 0.75, 1.0])
def test_no_larger_multiplier_meets_the_budget(space, share):
    budget = int(share * space.macs(space.full))
    widths = uniform.largest_uniform(space, budget)
    assert space.macs(widths) <= budget
    for multiplier in np.linspace(0.2, 1, 401):
        other = {group: space.nearest(group, multiplier) for group in space.groups}
        if space.macs(other) > space.macs(widths):
            assert space.macs(other) > budget


def test_it_asks_once_about_filled_widths(space, half, journal):
    opened = journal(lambda widths: 50.0, 1)
    uniform.search(space, half, opened)
    assert 0.98 * half <= opened.history.best.macs <= half


def test_unreachable_budget_is_refused(space):
    with pytest.raises(UserError, match="cannot be reached"):
        uniform.largest_uniform(space, space.macs(space.smallest) - 1)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5, 0.7, 0.9])
def test_filling_leaves_the_widths_as_uniform_as_the_levels_allow(space, share):
    budget = int(share * space.macs(space.full))
    uniform_widths = uniform.largest_uniform(space, budget)
    widths = uniform.filled_uniform(space, budget)
    assert space.filled * budget <= space.macs(widths) <= budget
    raised = {
        group: space.levels[group].index(widths[group])
        - space.levels[group].index(uniform_widths[group])
        for group in space.groups
    }
    assert set(raised.values()) <= {0, 1}


def test_levels_that_are_too_coarse_for_that_are_filled_all_the_same(space):
    budget = int(0.13 * space.macs(space.full))
    widths = uniform.filled_uniform(space, budget)
    assert space.filled * budget <= space.macs(widths) <= budget
