"""Several final trainings and a second kind of them: the reader, Table 3b, and the report."""

import json

import pandas as pd
import pytest

from graphpruning.common.errors import UserError
from paper import report, tables
from paper.captions import captions
from paper.compare import with_given
from paper.reader.results import read
from paper.table_main import main_results, second_results
from tests.paper.conftest import Study, copied_study, stand_in_figures
from tests.paper.test_compare import written

KEY = ("resnet20", "amc", "0.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = Study(
        tmp_path_factory.mktemp("second") / "made",
        methods=("graphpruning", "amc", "generated"),
        seeds=(0, 1),
        blocks=1,
        candidates=4,
        final_trainings=2,
        second=True,
    ).write()
    stand_in_figures(made)
    for program in (tables, report):
        assert program.main([str(made)]) == 0
    return made


def test_the_second_kind_is_the_same_study_with_other_accuracies(folder):
    first = read(folder)
    second = first.second
    assert second is not None and second.second is None
    assert first.trainings == second.trainings == (2,)
    for seed in (0, 1):
        path = folder / f"final/resnet20/amc/0.5/{seed}/metrics.json"
        stated = json.loads(path.read_text())["second"]
        one = second.final[KEY][seed]
        assert (one.test_top1, one.epochs) == (stated["test_top1"], 2)
        assert (one.initial, one.search_top1_before) == ("inherited", stated["search_top1_before"])
        assert one.macs == first.final[KEY][seed].macs
    assert second.search == first.search and list(second.rows) == list(first.rows)


def test_its_table_has_the_columns_of_table_3_and_its_own_accuracies(folder):
    one, two = (
        pd.read_csv(folder / f"tables/{name}.csv").set_index(["method", "budget"])
        for name in ("table3_main", "table3b_second")
    )
    assert list(one) == list(two) and list(one.index) == list(two.index)
    found = [key for key in one.index if key[0] != "base"]
    gained = two.loc[found, "top1_mean"] - one.loc[found, "top1_mean"]
    assert gained.to_list() == pytest.approx([1.0] * len(found), abs=2e-3)
    assert two.loc["amc", "search_top1_before"].notna().all()
    assert two.loc["base"].equals(one.loc["base"])


def test_its_caption_says_what_differs_and_the_note_how_many_trainings(folder):
    text = captions(read(folder))["table3b_second"].text
    assert (
        "another way: 2 epochs from the base's weights, cut and fitted again, where Table 3 has "
        "4 epochs from scratch."
    ) in text
    assert "from generated weights begins in both tables with the weights" in text
    for name in ("table3_main", "table3b_second"):
        said = (folder / f"tables/{name}.md").read_text()
        assert "A found network's accuracy is the mean of 2 final trainings" in said


def test_replicates_may_differ_in_how_often_their_networks_were_trained(folder, tmp_path):
    """The accuracies stay, since what is added is the mean; a network alone must not differ."""
    copied = copied_study(folder, tmp_path)
    before = read(copied)
    names = sorted(copied.glob("final/*/*/*/1/trainings.csv"))
    for name in names:
        frame = pd.read_csv(name)
        more = frame.groupby("kind", as_index=False).mean(numeric_only=True).assign(training=2)
        more = more.merge(frame[["kind", "initial"]].drop_duplicates())
        frame = pd.concat([frame, more]).sort_values(["kind", "training"])
        frame.to_csv(name, index=False, lineterminator="\n")
        metrics = name.with_name("metrics.json")
        metrics.write_text(metrics.read_text().replace('"trainings": 2', '"trainings": 3'))
        if name != names[-1]:
            with pytest.raises(UserError, match="other 'trainings' than the replicate's other"):
                read(copied)
    after = read(copied)
    assert after.trainings == (2, 3)
    for key, by_seed in before.final.items():
        for seed, one in by_seed.items():
            assert after.final[key][seed].test_top1 == one.test_top1
    assert tables.main([str(copied)]) == 0
    assert (
        "the mean of 2 or 3 final trainings, as many for all networks of a replicate"
        in (copied / "tables/table3_main.md").read_text()
    )


def test_the_report_has_it_once_and_below_table_3(folder):
    page = (folder / "report.html").read_text()
    places = [page.index(f'id="{name}"') for name in ("table3_main", "table3b_second", "tables")]
    assert places == sorted(places) and page.count('id="table3b_second"') == 1


def test_a_study_with_one_kind_has_no_such_table(tabled, found):
    assert found.second is None
    assert not (tabled / "tables/table3b_second.csv").exists()
    assert "is the mean of" not in (tabled / "tables/table3_main.md").read_text()


def test_somebodys_own_results_stand_in_table_3_alone(folder, tmp_path):
    first = read(folder)
    rows = [
        {
            "method": "Mine",
            "model": "resnet20",
            "budget": budget,
            "seed": seed,
            "test_top1": 90.0,
            "macs": first.budget_macs("resnet20", budget),
            "params": 70_000,
        }
        for budget in first.budgets
        for seed in first.seeds
    ]
    compared = with_given(first, written(tmp_path, rows))
    assert "mine" in set(main_results(compared).csv["method"])
    assert compared.trainings == first.trainings
    assert "mine" not in set(second_results(compared.second).csv["method"])
