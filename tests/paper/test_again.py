"""Further final trainings of some methods: the reader, the tables' notes and costs, the report."""

import json
import shutil

import pandas as pd
import pytest

from graphpruning.common.errors import UserError
from paper import measures, report, tables
from paper.captions import captions
from paper.macros import of_study
from paper.reader.results import read
from paper.table_main import differences, main_results
from tests.paper.conftest import Study, copied_study

AGAIN = ("graphpruning", "amc", "generated")
KEY = ("resnet20", "amc", "0.5")
STAGE = "finetune_again@made-resnet20-amc-0.5-1-3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two trainings of each network, three more of some: a point, two and three above."""
    made = Study(
        tmp_path_factory.mktemp("again") / "made",
        methods=("graphpruning", "amc", "random", "generated"),
        seeds=(0, 1),
        blocks=1,
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
    assert before.trainings == (2,) and after.trainings == (2, 5)
    for key, by_seed in after.final.items():
        for seed, one in by_seed.items():
            was = before.final[key][seed]
            if key[1] in AGAIN:
                assert one.test_top1 == pytest.approx(was.test_top1 + (1 + 2 + 3) / 5)
                assert one.test_top5 == pytest.approx(was.test_top5 + (0.1 + 0.2 + 0.3) / 5)
                if was.search_top1_before is not None:
                    before_all = was.search_top1_before + (1 + 2 + 3) / 5
                    assert one.search_top1_before == pytest.approx(before_all)
                assert (one.trainings, len(one.runs)) == (5, 4)
            else:
                assert one == was
    stages = [run.stage for run in after.runs]
    assert STAGE in stages and len(set(stages)) == len(stages)


def test_a_difference_is_of_the_trainings_that_both_have(copied):
    """Further trainings are better by a point and more, which only some methods have."""
    after, before = read(copied), without(copied)
    for other, same in (("random", True), ("amc", False)):
        one, was = (
            measures.test_difference(r, "resnet20", other, ["0.5"]) for r in (after, before)
        )
        ours, theirs = (
            after.test_top1("resnet20", name, "0.5") for name in ("graphpruning", other)
        )
        of_all = sum(ours[seed] - theirs[seed] for seed in (0, 1)) / 2
        assert one.value == pytest.approx(was.value)  # what is added is the same for all
        assert (one.value == pytest.approx(of_all)) is not same
        wins = [
            measures.test_improvement(r, "resnet20", other, ["0.5"]).value for r in (after, before)
        ]
        assert wins[0] == wins[1]
    contrasts = [measures.test_contrasts(r, "resnet20", ["random", "amc"]) for r in (after, before)]
    assert contrasts[0]["amc"].value == pytest.approx(contrasts[1]["amc"].value)


def test_the_second_kind_has_no_further_trainings(copied):
    after, before = read(copied).second, without(copied).second
    assert after.trainings == (2,)
    assert after.test_top1(*KEY) == before.test_top1(*KEY)
    assert all(len(one.runs) == 1 for one in after.final[KEY].values())
    found = captions(read(copied))
    assert STAGE.startswith(found["table3_main"].stages)
    assert not STAGE.startswith(found["table3b_second"].stages)


def test_tables_say_which_networks_were_trained_how_often(folder):
    note = "the mean of 5 final trainings (of Random search: 2); they differ"
    for name in ("table3_main", "table4_ablations"):
        assert note in (folder / f"tables/{name}.md").read_text()
    assert note in " ".join(differences(read(folder)).notes)
    assert "mean of 2 final trainings; they" in (folder / "tables/table3b_second.md").read_text()
    assert of_study(read(folder))["Trainings"] == "five times (twice: Random search)"


def test_what_makes_an_accuracy_more_exact_is_no_cost_of_a_method(folder, copied):
    costs = (folder / "tables/table6_costs.md").read_text()
    assert "Further final trainings, which some methods' networks have, are not counted." in costs
    cells = pd.read_csv(folder / "tables/table6_costs.csv").set_index(["method", "budget"])
    images = cells["training_images"].xs(0.5, level="budget")
    assert images["amc"] == images["random"] == 220_000
    macros, before = of_study(read(copied)), of_study(without(copied))
    assert macros["FinalSeconds"] == before["FinalSeconds"]


def test_the_report_links_to_their_runs(folder):
    stages = main_results(read(folder)).stages
    of_amc = next(runs for runs in stages if "search_base@made-resnet20-amc-0.5-0" in runs)
    assert STAGE in of_amc
    links = [report._link(run, of_amc) for run in of_amc]
    of_seed = [[f"final {seed}", *(f"again {seed}, {n}" for n in (2, 3, 4))] for seed in (0, 1)]
    assert links == ["search 0", "search 1", *of_seed[0], *of_seed[1]]


def test_only_those_count_that_the_study_asks_for(copied):
    """Others may be of another recipe: no stage makes them again when it changes."""
    study = json.loads((copied / "study.json").read_text())
    for again, trainings in (
        ({"methods": ["amc"], "trainings": [2, 4]}, {"amc": 4, "graphpruning": 2}),
        ({"methods": [], "trainings": []}, {"amc": 2, "graphpruning": 2}),
        (None, {"amc": 5, "graphpruning": 5}),  # as in older results
    ):
        (copied / "study.json").write_text(json.dumps({**study, "again": again}))
        found = read(copied)
        for name, count in trainings.items():
            by_seed = found.final["resnet20", name, "0.5"]
            assert {one.trainings for one in by_seed.values()} == {count}


def test_a_replicate_may_have_none_yet(copied):
    for path in (copied / "final/again").glob("*/*/*/1"):
        shutil.rmtree(path)
    found = read(copied)
    assert [one.trainings for one in found.final[KEY].values()] == [5, 2]
    assert tables.main([str(copied)]) == 0
    note = (
        "mean of 2 or 5 final trainings (of Random search: 2), as many for all networks of one "
        "method in a replicate; they"
    )
    assert note in (copied / "tables/table3_main.md").read_text()


@pytest.mark.parametrize("what", ["1", "1/3", "1/3/metrics.json", "1/3/run.json"])
def test_a_network_that_lacks_some_is_refused(what, copied):
    path = copied / "final/again/resnet20/amc/0.5" / what
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=r"amc/0.5/1/./.*json is missing.*dvc repro finetune_again"):
        read(copied)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 3}, "another 'epochs' than the stage finetune's"),
        ({"initial": "inherited"}, "another 'initial' than the stage finetune's"),
        ({"search_top1_before": 55.0}, "'search_top1_before' is a number, but it began"),
        ({"training": 4}, "'training' is 4, not 3"),
        ({"widths": {"conv1": 1}}, "other 'widths' than the search found"),
        ({"budget": "0.25"}, "it is of method 'amc', budget '0.25'"),
        ({"method": None}, "method"),
    ],
)
def test_files_that_do_not_fit_are_refused(change, says, copied):
    path = copied / "final/again/resnet20/amc/0.5/1/3/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=rf"{says}.*dvc repro {STAGE}"):
        read(copied)


def test_a_number_that_the_first_trainings_have_is_refused(copied):
    for path in (copied / "final/again").glob("*/*/*/*/4"):
        path.rename(path.with_name("1"))
        metrics = path.with_name("1") / "metrics.json"
        metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "training": 1}))
    with pytest.raises(UserError, match="the stage finetune has the trainings below 2 itself"):
        read(copied)
