from hypothesis import given, settings
from hypothesis import strategies as st

from graphpruning.search.scaling import scaled


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    ratios=st.lists(st.floats(0.05, 1), min_size=6, max_size=6),
    share=st.floats(0.1, 1),
)
def test_no_larger_multiplier_meets_the_budget(space, ratios, share):
    least, most = space.macs(space.smallest), space.macs(space.full)
    budget = int(least + share * (most - least))
    wanted = dict(zip(space.groups, ratios, strict=True))
    tried = [
        {g: space.nearest(g, step / 500 * wanted[g]) for g in space.groups}
        for step in range(1, 10001, 5)
    ]
    best = max((w for w in tried if space.macs(w) <= budget), key=space.macs)
    found = scaled(space, wanted, budget)
    assert space.macs(best) <= space.macs(found) <= budget


def test_equal_ratios_stay_equal_and_a_full_budget_takes_all(space, half):
    full = space.macs(space.full)
    assert scaled(space, dict.fromkeys(space.groups, 0.3), full) == space.full
    found = scaled(space, dict.fromkeys(space.groups, 0.3), half)
    assert found == scaled(space, dict.fromkeys(space.groups, 1.0), half)
    shares = [width / space.full[group] for group, width in found.items()]
    assert max(shares) - min(shares) <= 4 / 16  # a level of the narrowest group
