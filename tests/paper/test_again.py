"""Further final trainings of some methods: the reader, the tables' notes and costs, the report."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from graphpruning.common.errors import UserError
from paper import report, tables
from paper.macros import of_study
from paper.reader.results import read
from paper.table_main import main_results
from tests.paper.conftest import Study, copied_study

AGAIN = ("graphpruning", "amc")
KEY = ("resnet20", "amc", "0.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two trainings of each network, two more of AMC's and ours, a point and two above."""
    made = Study(
        tmp_path_factory.mktemp("again") / "made",
        methods=("graphpruning", "amc", "random"),
        seeds=(0, 1),
        candidates=4,
        final_trainings=2,
        second=True,
        again=AGAIN,
    ).write()
    assert tables.main([str(made)]) == 0
    return made


@pytest.fixture
def copied(folder, tmp_path):
    return copied_study(folder, tmp_path)


def without(copied):
    """The same study before anything was trained again."""
    before = copied.with_name("before") / copied.name
    copied_study(copied, before.parent)
    shutil.rmtree(before / "final/again")
    return read(before)


def test_an_accuracy_is_the_mean_over_all_trainings(copied):
    after, before = read(copied), without(copied)
    assert before.trainings == (2,) and after.trainings == (2, 4)
    for key, by_seed in after.final.items():
        for seed, one in by_seed.items():
            was = before.final[key][seed]
            if key[1] in AGAIN:  # four trainings, of which one is a point up, another two
                assert one.test_top1 == pytest.approx(was.test_top1 + (1 + 2) / 4)
                assert (one.trainings, len(one.runs)) == (4, 2)
            else:
                assert one == replace(was, architecture=one.architecture)
    stages = [run.stage for run in after.runs]
    assert "finetune_again@made-resnet20-amc-0.5-1" in stages and len(set(stages)) == len(stages)


def test_the_second_kind_has_no_further_trainings(copied):
    after, before = read(copied).second, without(copied).second
    assert after.trainings == (2,)
    assert after.test_top1(*KEY) == before.test_top1(*KEY)
    assert all(len(one.runs) == 1 for one in after.final[KEY].values())


def test_tables_say_which_networks_were_trained_how_often_and_what_it_cost(folder, copied):
    note = "A found network's accuracy is the mean of 4 final trainings (of 2: Random search); they"
    assert note in (folder / "tables/table3_main.md").read_text()
    assert "mean of 2 final trainings; they" in (folder / "tables/table3b_second.md").read_text()
    assert of_study(read(folder))["Trainings"] == "four times (twice: Random search)"
    cells = pd.read_csv(folder / "tables/table6_costs.csv").set_index(["method", "budget"])
    images = cells["training_images"].xs(0.5, level="budget")
    assert images["amc"] == 220_000 + 110_000 and images["random"] == 220_000
    seconds = cells["training_seconds"].xs(0.5, level="budget")
    assert seconds["amc"] == 24 + 12 and seconds["random"] == 24


def test_the_report_links_to_their_runs(folder):
    stages = main_results(read(folder)).stages
    of_amc = next(runs for runs in stages if "search_base@made-resnet20-amc-0.5-0" in runs)
    assert "finetune_again@made-resnet20-amc-0.5-1" in of_amc
    links = [report._link(run, of_amc) for run in of_amc]
    assert links == ["search 0", "search 1", "final 0", "again 0", "final 1", "again 1"]


def test_a_replicate_may_have_none_yet(copied):
    for path in (copied / "final/again").glob("*/*/*/1"):
        shutil.rmtree(path)
    found = read(copied)
    assert [one.trainings for one in found.final[KEY].values()] == [4, 2]
    assert tables.main([str(copied)]) == 0
    note = "of 2 or 4 final trainings (of 2: Random search), as many for all networks of a"
    assert note in (copied / "tables/table3_main.md").read_text()


def test_a_network_that_lacks_them_is_refused(copied):
    shutil.rmtree(copied / "final/again/resnet20/amc/0.5/1")
    with pytest.raises(UserError, match=r"amc/0.5/1/metrics.json .*missing, but other networks"):
        read(copied)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 3}, "another 'epochs' than the stage finetune's"),
        ({"initial": "inherited"}, "another 'initial' than the stage finetune's"),
        ({"test_top1": 50.0}, "trainings.csv .*another mean test_top1 of main"),
        ({"trainings": 3}, "trainings.csv .*not 3 of main in order, from number 2"),
        ({"budget": "0.25"}, "it is of method 'amc', budget '0.25'"),
        ({"method": None}, "method"),
    ],
)
def test_files_that_do_not_fit_are_refused(change, says, copied):
    path = copied / "final/again/resnet20/amc/0.5/1/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=rf"{says}.*dvc repro finetune_again@made-resnet20-amc-0.5"):
        read(copied)


def test_another_number_than_the_replicates_other_networks_have_is_refused(copied):
    folder = copied / "final/again/resnet20/amc/0.5/1"
    frame = pd.read_csv(folder / "trainings.csv").iloc[:1]
    frame.to_csv(folder / "trainings.csv", index=False, lineterminator="\n")
    top1 = float(frame["test_top1"].iloc[0])
    whole = json.loads((folder / "metrics.json").read_text())
    changed = {**whole, "trainings": 1, "test_top1": top1}
    (folder / "metrics.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="other 'trainings' than the replicate's other networks"):
        read(copied)
