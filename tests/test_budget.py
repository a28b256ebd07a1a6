"""Budgets as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphpruning import UserError
from graphpruning.common.budget import budget_in_macs, read_budget
from graphpruning.goals import read_budgets


@pytest.mark.parametrize(
    ("written", "macs"),
    [
        ("50%", 500_000_000),
        ("50 %", 500_000_000),
        (0.5, 500_000_000),
        ("0.5", 500_000_000),
        (1, 1_000_000_000),
        ("100%", 1_000_000_000),
        ("300M", 300_000_000),
        ("300m", 300_000_000),
        ("300K", 300_000),
        ("300k", 300_000),
        ("0.9G", 900_000_000),
        ("405600", 405_600),
        (405_600, 405_600),
        (405_600.0, 405_600),
        ("4e5", 400_000),
    ],
)
def test_shares_and_macs(written: float | str, macs: int) -> None:
    assert budget_in_macs(written, 1_000_000_000) == macs


@pytest.mark.parametrize(
    ("written", "milliseconds"), [("3ms", 3), ("0.5 ms", 0.5), ("250us", 0.25), ("0.02s", 20)]
)
def test_times(written: str, milliseconds: float) -> None:
    assert read_budget(written).kind == "ms"
    assert read_budget(written).amount == pytest.approx(milliseconds)
    with pytest.raises(UserError, match="is a time, where"):
        budget_in_macs(written, 1000)


@pytest.mark.parametrize(
    "wrong",
    ["half", "", "%", "M", "ms", "-3M", "0", 0, -0.5, 1.5, "120%", "nan", "infM", "inf", "1..2G"],
)
def test_what_is_no_budget_is_refused(wrong: float | str) -> None:
    with pytest.raises(UserError, match="is neither a share"):
        read_budget(wrong)


@given(st.floats(0.001, 1), st.integers(1000, 10**12))
def test_a_share_is_the_same_however_it_is_written(share: float, full: int) -> None:
    assert budget_in_macs(share, full) == budget_in_macs(repr(share), full) == int(share * full)


def test_names_are_those_of_folders() -> None:
    names = [budget.name for budget in read_budgets(["75%", "0.5", 0.25, "300M", 405600, "3 ms"])]
    assert names == ["0.75", "0.5", "0.25", "300M", "405600", "3ms"]


def test_a_budget_that_stands_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"budget: 0\.5 stands twice"):
        read_budgets(["50%", 0.5])
    with pytest.raises(UserError, match="at least one"):
        read_budgets([])


def test_more_than_the_whole_network_is_refused() -> None:
    with pytest.raises(UserError, match="more than the 1,000 MACs of the whole"):
        budget_in_macs("2K", 1000)
