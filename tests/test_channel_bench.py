"""The reader of Channel-Bench-Macro; the tables themselves are not committed."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from graphpruning import channel_bench
from graphpruning.channel_bench import ChannelBench
from graphpruning.common.errors import UserError
from graphpruning.network.cost import params
from tests.made_up_tables import accuracies, write_tables


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        yield write_tables(tmp_path_factory.mktemp("tables"), patch)


@pytest.fixture
def own_tables(tables: Path, tmp_path: Path) -> Path:
    """A copy, for a test that damages them."""
    return shutil.copytree(tables, tmp_path / "own")


@pytest.fixture(scope="module")
def read(tables: Path) -> Callable[[str], ChannelBench]:
    """Read a network's table, once for all tests."""
    return cache(lambda network: ChannelBench(network, tables))


def widths_of(table: ChannelBench, key: str) -> dict[str, int]:
    digits = zip(table.space.groups, key, strict=True)
    return {group: table.space.levels[group][int(digit) - 1] for group, digit in digits}


@pytest.mark.parametrize(
    ("network", "key", "macs", "parameters"),
    [
        ("MobileNet", "1111111", 14_285_312, 125_418),
        ("MobileNet", "4444444", 211_281_920, 1_804_170),
        ("MobileNet", "1234123", 37_928_448, 325_610),
        ("MobileNet", "4321432", 122_364_928, 1_081_738),
        ("MobileNet", "2414132", 62_485_504, 447_370),
        ("MobileNet", "3131424", 90_552_320, 909_354),
        ("ResNet", "1111111", 90_096_896, 963_658),
        ("ResNet", "4444444", 1_436_226_560, 15_356_170),
        ("ResNet", "1234123", 245_810_432, 2_735_050),
        ("ResNet", "4321432", 813_372_416, 8_276_362),
        ("ResNet", "2414132", 359_499_008, 3_400_714),
        ("ResNet", "3131424", 732_713_984, 8_790_474),
    ],
)
def test_macs_and_parameters_are_those_of_the_tables(
    read: Callable[[str], ChannelBench], network: str, key: str, macs: int, parameters: int
) -> None:
    """Six of 16,384 each; all of 200 random ones agreed when this was written."""
    table = read(network)
    widths = widths_of(table, key)
    assert table.space.macs(widths) == macs == table.macs[table.index(widths)]
    assert params(table.space.graph, widths) == parameters


def test_accuracies_are_found_by_widths(read: Callable[[str], ChannelBench]) -> None:
    table = read("MobileNet")
    assert all(len(levels) == 4 for levels in table.space.levels.values())
    widths = widths_of(table, "1421313")
    number = table.index(widths)
    assert table.accuracies[number].tolist() == accuracies("1421313")
    assert table.truth[number] == 50 + 15 + 1
    assert dict(zip(table.space.groups, table.vectors[number], strict=True)) == widths


def test_one_training_is_drawn_for_each_network_from_the_seed(
    read: Callable[[str], ChannelBench],
) -> None:
    table = read("ResNet")
    drawn = table.one_training(3) - table.accuracies[:, 0]
    assert [round(float((drawn == training).mean()), 1) for training in range(3)] == [0.3] * 3
    np.testing.assert_array_equal(table.one_training(3), table.one_training(3))
    assert not np.array_equal(table.one_training(3), table.one_training(4))
    rest = table.accuracies.sum(axis=1) - table.one_training(3)
    np.testing.assert_allclose(table.other_trainings(3), rest / 2)


def test_the_luck_of_what_is_chosen_is_not_in_its_truth(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where trainings are chance alone, the best reward is worth as much as any network; by the
    mean of all trainings, its own among them, it would seem better."""
    table = ChannelBench("ResNet", tables)
    chance = np.random.default_rng(0).normal(90, 1, table.accuracies.shape)
    monkeypatch.setattr(table, "accuracies", chance)
    chosen = [int(table.one_training(seed).argmax()) for seed in range(50)]
    true = [table.other_trainings(seed)[one] for seed, one in enumerate(chosen)]
    assert abs(np.mean(true) - 90) < 0.4
    assert chance[chosen].mean() > 91


def test_rank_counts_the_better_ones_within_the_budget(read: Callable[[str], ChannelBench]) -> None:
    """Truth is the sum of digits here: seven keys have one digit 3 and else 4."""
    table = read("MobileNet")
    full = table.space.macs(table.space.full)
    assert table.rank(widths_of(table, "4444444"), full) == 1
    assert table.rank(widths_of(table, "4443444"), full) == 2
    assert table.rank(widths_of(table, "4442444"), full) == 1 + 1 + 7
    least = table.space.macs(table.space.smallest)
    assert table.rank(table.space.smallest, least) == 1


def refused(*arguments: object, **named: object) -> str:
    with pytest.raises(UserError) as refusal:
        ChannelBench(*arguments, **named)  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_what_is_no_table_is_refused_in_one_line(own_tables: Path) -> None:
    assert "did you mean 'MobileNet'" in refused("mobilnet", own_tables)
    path = own_tables / "Results_ResNet.json"
    path.write_text("{}")
    said = refused("ResNet", own_tables)
    assert str(path) in said and "SHA-256" in said
    path.unlink()
    assert str(path) in refused("ResNet", own_tables)


def test_a_table_that_is_missing_is_downloaded_and_checked(
    own_tables: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder in the place of the authors' repository."""
    monkeypatch.setattr(channel_bench, "SOURCE", own_tables.as_uri())
    other = tmp_path_factory.mktemp("empty") / "downloaded"
    assert ChannelBench("ResNet", other, download=True).truth.max() == 50 + 28 + 1
    (own_tables / "Results_MobileNet.json").write_text("<html>")
    assert "SHA-256" in refused("MobileNet", other, download=True)
    (own_tables / "Results_MobileNet.json").unlink()
    assert "is not to be had" in refused("MobileNet", other, download=True)
    assert [path.name for path in other.iterdir()] == ["Results_ResNet.json"]
