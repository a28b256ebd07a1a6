"""The benchmark of the searchers plays, counts and draws; on made-up tables."""

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as bench
from benchmarks import searchers
from benchmarks.searchers import CEILING, COLUMNS, SEARCHERS, Play, play
from graphpruning.channel_bench import NETWORKS
from graphpruning.methods import ONE_SHOT
from graphpruning.methods import SEARCHERS as ALL
from tests.made_up_tables import write_tables

BUDGET = 0.5


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    searchers._table.cache_clear()
    return write_tables(tmp_path, monkeypatch)


def test_every_searcher_that_proposes_many_candidates_is_played() -> None:
    played = {row.searcher for row in SEARCHERS.values()}
    assert played == {*ALL} - {"group-norm"}
    assert {"agent", "ddpg"} <= played and "group-norm" in ONE_SHOT


@pytest.mark.parametrize("searcher", [*SEARCHERS, CEILING])
def test_a_play_is_told_in_figures(searcher: str, tables: Path) -> None:
    found = play(searcher, "MobileNet", BUDGET, 12, 0, tables)
    assert found == play(searcher, "MobileNet", BUDGET, 12, 0, tables)
    assert 58 <= found.area <= found.true_top1 + 2 and found.rank >= 1
    assert 0 < found.distinct <= 1
    assert found.late >= 58
    if searcher not in ("uniform", "ddpg"):
        assert found.distinct == 1


def test_the_ceiling_knows_the_truth(tables: Path) -> None:
    """Which is additive in these tables, so its first candidate is the best that fills."""
    table = searchers._table("MobileNet", tables)
    budget = table.space.macs(table.space.full) // 2
    order = searchers.best_by_additive_model(table, budget)
    filling = (table.macs <= budget) & (table.macs >= searchers.FILLED * budget)
    assert set(order) == set(np.flatnonzero(filling))
    assert table.truth[order[0]] == table.truth[filling].max()


def test_differences_are_paired_with_random_search_of_the_same_seed(tmp_path: Path) -> None:
    """Also where a searcher was played with fewer seeds; and they can be drawn."""
    figures = {"rank": 2.0, "area": 70.0, "late": 70.0, "distinct": 1.0}
    cells = [
        (network, share, evaluations)
        for network in NETWORKS
        for share in searchers.BUDGETS
        for evaluations in searchers.EVALUATIONS
    ]
    found = {
        (*cell, searcher): {
            seed: Play(70.0 + 10 * seed + (searcher != "random") * (1 + seed % 2), **figures)
            for seed in range(2 if searcher == "ddpg" else 4)
        }
        for cell in cells
        for searcher in (*SEARCHERS, CEILING)
    }
    table = [dict(zip(COLUMNS, map(str, row), strict=True)) for row in searchers.rows(found)]
    by_name = {row["searcher"]: row for row in table[: len(SEARCHERS) + 1]}
    assert by_name["random"]["minus_random"] == "+0.000"
    assert by_name["evolution"]["minus_random"] == by_name["ddpg"]["minus_random"] == "+1.500"
    assert (by_name["evolution"]["seeds"], by_name["ddpg"]["seeds"]) == ("4", "2")
    half = 3.1824 * 0.57735 / 2  # t of 3 degrees of freedom, standard deviation of 1, 2, 1, 2
    assert float(by_name["evolution"]["high"]) == pytest.approx(1.5 + half, abs=1e-3)
    searchers.draw(table, tmp_path / "searchers.png")
    assert (tmp_path / "searchers.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "searchers.pdf").read_bytes().startswith(b"%PDF")


def test_tables_that_are_missing_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["searchers"]) == 2
    assert bench.main(["searchers", "--tables", str(tmp_path)]) == 2
    assert bench.main(["searchers", "--tables", str(tmp_path), "--seeds", "1"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all(line.startswith("error: ") for line in said)
    assert "Results_MobileNet.json" in said[1] and "--seeds is 1" in said[2]


def test_the_committed_table_is_whole() -> None:
    with open(searchers.RESULTS / "searchers.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 * 2 * 3 * (len(SEARCHERS) + 1)
    assert {row["searcher"] for row in rows} == {*SEARCHERS, CEILING}
    for row in rows:  # a mean of differences is the difference of means, where seeds are the same
        if row["seeds"] == rows[0]["seeds"]:
            key = [row[name] for name in ("network", "budget", "evaluations")]
            (random,) = (
                other
                for other in rows
                if [other[name] for name in ("network", "budget", "evaluations")] == key
                and other["searcher"] == "random"
            )
            apart = float(row["true_top1"]) - float(random["true_top1"])
            assert float(row["minus_random"]) == pytest.approx(apart, abs=0.0021)


def test_a_uniform_width_beats_every_searcher_on_one_of_the_two_networks() -> None:
    """As README, docs and the write-up say of the committed table."""
    with open(searchers.RESULTS / "searchers.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for network, sign in (("ResNet", 1), ("MobileNet", -1)):
        found: dict[tuple[str, str], dict[str, float]] = {}
        for row in rows:
            if row["network"] == network:
                cell = found.setdefault((row["budget"], row["evaluations"]), {})
                cell[row["searcher"]] = float(row["true_top1"])
        assert len(found) == 6
        for tops in found.values():
            uniform = tops.pop("uniform")
            assert all(sign * (uniform - other) > 0 for other in tops.values())
