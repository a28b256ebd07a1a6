"""The benchmark of the predictors scores and draws; on made-up tables, which are additive."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as bench
from benchmarks import predictors
from benchmarks.predictors import ACROSS, COLUMNS, COUNTS, MACS, SHARED, SharedFeatures
from graphpruning.channel_bench import NETWORKS, ChannelBench
from graphpruning.predictor import PREDICTORS
from tests.made_up_tables import write_tables


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    predictors._table.cache_clear()
    return write_tables(tmp_path, monkeypatch)


def rating(table: ChannelBench, values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Answers with what `values` [networks] say."""
    return lambda vectors: np.array(
        [values[table.index(table.space.widths(row))] for row in vectors]
    )


def test_a_perfect_rating_has_no_regret_and_one_turned_round_is_wrong(tables: Path) -> None:
    table = ChannelBench("MobileNet", tables)
    told = np.arange(100)
    right = predictors.scored(table, told, rating(table, table.truth))
    assert [right["tau"], right["tau_within"]] == pytest.approx([1.0, 1.0])
    assert right["regret"] == 0
    within = (table.macs >= 0.4 * table.macs.max()) & (table.macs <= 0.5 * table.macs.max())
    assert right["top1"] == table.truth[within].max()
    wrong = predictors.scored(table, told, rating(table, -table.truth))
    assert wrong["tau"] == pytest.approx(-1.0)
    assert wrong["regret"] == table.truth[within].max() - table.truth[within].min()


def test_what_was_told_is_not_asked(tables: Path) -> None:
    """A rating that is right of what was told alone orders nothing else."""
    table = ChannelBench("MobileNet", tables)
    told = np.random.default_rng(1).permutation(len(table.truth))[:8000]
    values = np.random.default_rng(2).random(len(table.truth))
    values[told] = table.truth[told]
    for measure in ("tau", "tau_within"):
        assert abs(predictors.scored(table, told, rating(table, values))[measure]) < 0.05
        assert predictors.scored(table, told[:0], rating(table, values))[measure] > 0.1


def test_all_predictors_answer_both_questions(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And find out that the made-up tables are additive, some better than others."""
    monkeypatch.setattr(predictors, "COUNTS", (20,))
    found = predictors._of_network(("MobileNet", 0, tables))
    assert {key[3] for key in found if key[:2] == ("MobileNet",) * 2} == {*PREDICTORS, SHARED}
    assert {key[3] for key in found if key[:2] == ("ResNet", "MobileNet")} | {MACS} == {*ACROSS}
    assert found["MobileNet", "MobileNet", 20, "ridge"]["tau"] > 0.5
    assert (
        found["MobileNet", "MobileNet", 20, "ridge"]
        == (predictors._of_network(("MobileNet", 0, tables))["MobileNet", "MobileNet", 20, "ridge"])
    )


def test_shared_features_are_logarithms_of_shares(tables: Path) -> None:
    space = ChannelBench("ResNet", tables).space
    full, half = (np.array([[level[i] for level in space.levels.values()]]) for i in (3, 1))
    features = SharedFeatures(space)
    np.testing.assert_allclose(features(full), 0)
    assert features(half).shape == (1, 5)
    thirds = features(half)[0, :4]
    assert (thirds[:3] == pytest.approx([-1] * 3, abs=0.5)) and thirds[0] > -1.0
    assert features(half)[0, 4] == pytest.approx(
        np.log2(space.macs(space.widths(half[0])) / space.macs(space.full))
    )


def test_differences_are_paired_by_draw(tmp_path: Path) -> None:
    """To ridge within a network, to the shared ridge across; and they can be drawn."""
    found = {}
    for told in NETWORKS:
        found[told, "", 0, MACS] = [
            {"tau": 0.5, "tau_within": 0.0, "top1": 90.0, "regret": 1.0}
        ] * 2
        for asked in NETWORKS:
            for count in COUNTS:
                for kind in (*PREDICTORS, SHARED) if asked == told else ACROSS[:3]:
                    better = 0.0 if kind in ("ridge", SHARED) else 0.1
                    found[asked, told, count, kind] = [
                        {
                            "tau": 0.2 * d + better * d,
                            "tau_within": 0.1,
                            "top1": 90.0 + d,
                            "regret": 1.0 - d,
                        }
                        for d in range(2)
                    ]
    table = [dict(zip(COLUMNS, map(str, row), strict=True)) for row in predictors.rows(found)]
    for row in table:
        plain = row["predictor"] in ("ridge", SHARED, MACS)
        assert float(row["tau_minus"]) == pytest.approx(0.0 if plain else 0.05)
    half = 12.7062 * 0.1 / 2  # t of 1 degree of freedom, differences 0 and 0.1
    row = next(row for row in table if row["predictor"] == "gp")
    assert float(row["tau_minus_high"]) == pytest.approx(0.05 + half, abs=1e-3)
    predictors.draw(table, tmp_path / "predictors.png")
    assert (tmp_path / "predictors.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "predictors.pdf").read_bytes().startswith(b"%PDF")


def test_what_is_missing_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["predictors"]) == 2
    assert bench.main(["predictors", "--tables", str(tmp_path)]) == 2
    assert bench.main(["predictors", "--tables", str(tmp_path), "--draws", "1"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all(line.startswith("error: ") for line in said)
    assert "needs --tables" in said[0] and "--draws is 1" in said[2]


def test_the_committed_table_is_whole() -> None:
    with open(predictors.RESULTS / "predictors.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    keys = {(row["asked"], row["told"], row["n"], row["predictor"]) for row in rows}
    assert len(keys) == len(rows) == 2 * (1 + len(COUNTS) * (len(PREDICTORS) + 4))
    for row in rows:
        for measure in predictors.MEASURES:
            low, mean, high = (float(row[measure + end]) for end in ("_low", "", "_high"))
            assert low <= mean <= high
