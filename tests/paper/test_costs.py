"""Table 6: what methods cost, by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from paper import clock
from paper.reader.results import read
from paper.table_costs import costs, equal_accuracy
from paper.table_main import main_results
from paper.wording import ABSENT, number
from tests.paper.conftest import Study, copied_study


@pytest.fixture(scope="module")
def table(found):
    return costs(found).csv.set_index(["method", "budget"])


def test_a_total_holds_the_base_and_the_pruningnet_that_a_method_uses(table):
    for method, uses in (("graphpruning", "pruningnet-graph"), ("metapruning", "pruningnet-block")):
        row = table.loc[method, "0.5"]
        for what in ("images", "seconds"):
            own = float(row[f"search_{what}"]) + float(row[f"training_{what}"])
            shared = [float(table.loc[name, ""][f"total_{what}"]) for name in ("base", uses)]
            assert float(row[f"total_{what}"]) == pytest.approx(own + sum(shared), abs=0.2)
    uniform = table.loc["uniform", "0.5"]  # has nothing to choose from
    assert float(uniform["total_images"]) == pytest.approx(275_000 + 2_000 + 220_000)
    amc = table.loc["amc", "0.5"]  # cuts the base, and has no PruningNet
    assert float(amc["total_images"]) == pytest.approx(275_000 + 120_000 + 220_000)


def test_macs_are_those_of_the_candidates_and_three_passes_of_a_training(table, found):
    searches = found.search["resnet20", "amc", "0.5"].values()
    judged = [one.images_seen * one.history["macs"].mean() / 1e9 for one in searches]
    row = table.loc["amc", "0.5"]
    assert float(row["search_gmacs"]) == pytest.approx(np.mean(judged), abs=0.06)
    macs = [one.macs for one in found.final["resnet20", "amc", "0.5"].values()]
    assert float(row["training_gmacs"]) == pytest.approx(
        3 * 220_000 * np.mean(macs) / 1e9, abs=0.06
    )
    plus = found.final["resnet20", "plus", "0.5"].values()  # has a teacher
    each = [220_000 * (3 * one.macs + found.network("resnet20").macs) / 1e9 for one in plus]
    assert float(table.loc["plus", "0.5"]["training_gmacs"]) == pytest.approx(
        np.mean(each), abs=0.06
    )
    assert (
        table.loc["pruningnet-graph", ""]["total_images"]
        and not table.loc["pruningnet-graph", ""]["training_gmacs"]
    )


def test_seconds_are_those_of_stages_that_one_machine_ran_without_a_break(results, tmp_path):
    folder = copied_study(results, tmp_path)
    seconds = {"0": 40.0, "1": 50.0, "2": 60.0}
    for seed, taken in seconds.items():
        path = folder / f"base/resnet20/{seed}/run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": taken}))

    def base(**changes):
        for seed, change in changes.items():
            path = folder / f"base/resnet20/{seed[1:]}/run.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | change))
        found = read(folder)
        note = next(note for note in main_results(found).notes if "Not counted" in note)
        shown = costs(found).csv.set_index("method").loc["base", "training_seconds"]
        assert f"{number(float(shown), 0) if shown else ABSENT} s" in note
        return shown

    hardware = json.loads((folder / "base/resnet20/0/run.json").read_text())["hardware"]
    elsewhere = {"hardware": hardware | {"accelerator": "a GPU"}}
    assert base() == "50.0"
    assert base(s2={"resumed": True}) == "45.0"
    assert base(s0=elsewhere) == "50.0"
    assert clock.machine(read(folder)).endswith(f"accelerator {hardware['accelerator']})")
    assert base(s1=elsewhere) == ""


def test_equal_accuracy_is_where_the_best_so_far_reaches_random_searchs_end(results, tmp_path):
    folder = copied_study(results, tmp_path)
    for path in folder.glob("search/resnet20/graphpruning/0.5/*/history.csv"):
        goal = json.loads(
            (folder / f"search/resnet20/random/0.5/{path.parent.name}/metrics.json").read_text()
        )["top1_search"]
        frame = pd.read_csv(path)
        reached = path.parent.name != "1"  # one replicate never gets there
        frame["top1"] = [goal - 1] * 6 + [goal - (0 if reached else 0.5)] + [goal - 2] * 53
        frame["best"] = frame["top1"].cummax()
        frame.loc[3, "widths"] = frame.loc[2, "widths"]  # comes again, and is not judged again
        frame.to_csv(path, index=False)
        metrics = json.loads((path.parent / "metrics.json").read_text())
        metrics["top1_search"] = frame["best"].iloc[-1]
        metrics["distinct"] = frame["widths"].nunique()
        metrics["images_seen"] = 1000 * metrics["distinct"]
        (path.parent / "metrics.json").write_text(json.dumps(metrics))
    found = read(folder)
    row = found.rows["graphpruning"]
    assert equal_accuracy(found, "resnet20", row, "0.5") == [(7, pytest.approx(6000))] * 2
    cells = costs(found).csv.set_index(["method", "budget"]).loc["graphpruning", "0.5"]
    assert (cells["equal_evaluations"], cells["equal_replicates"]) == ("7.0", "2")


def test_methods_that_rate_by_other_weights_are_not_compared(table):
    for method in ("amc", "metapruning", "no-edges"):
        assert table.loc[method, "0.5"]["equal_replicates"] == ""


def test_a_study_without_random_search_has_no_goal(tmp_path):
    found = read(Study(tmp_path / "few", methods=("graphpruning", "amc")).write())
    assert set(costs(found).csv["equal_evaluations"]) == {""}


def test_a_stage_that_was_paused_for_hours_does_not_move_the_seconds(results, tmp_path):
    folder = copied_study(results, tmp_path)
    before = read(folder)
    for path in (
        folder / "search/resnet20/amc/0.5/1/run.json",
        folder / "pruningnet/resnet20/graph/1/run.json",
    ):
        run = json.loads(path.read_text())
        longer = {name: 50_000.0 for name in ("seconds", "search_seconds") if name in run}
        path.write_text(json.dumps(run | longer))
    after = read(folder)
    for table in (main_results, costs):
        was, now = table(before).csv, table(after).csv
        for column in [name for name in was if name.endswith("seconds")]:
            moved = pd.to_numeric(now[column]) - pd.to_numeric(was[column])
            assert moved.abs().max() < 60
    assert "in the mean of its runs, of seconds the median" in " ".join(main_results(after).notes)
