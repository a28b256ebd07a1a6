"""PruningNets may be analysed within budgets that nothing is searched within."""

import json

import pandas as pd
import pytest

from paper import measures, tables
from paper.figure_generated import generated_accuracy
from paper.reader.results import read
from tests.paper.conftest import Study


@pytest.fixture
def folder(tmp_path):
    return Study(
        tmp_path / "made",
        methods=("graphpruning", "amc"),
        budgets=(0.25,),
        seeds=(0,),
        blocks=1,
        candidates=8,
        analysed_budgets=(0.5, 0.25),
    ).write()


def test_rank_correlation_table_and_figure_are_within_them(folder):
    results = read(folder)
    assert (results.budgets, results.analysed_budgets) == (["0.25"], ["0.5", "0.25"])
    each = [
        measures.tau_at(results, "resnet20", "graph", budget).value for budget in ("0.5", "0.25")
    ]
    tau = measures.rank_correlation(results, "resnet20", "graph").value
    assert tau == pytest.approx(sum(each) / 2)
    assert tables.main([str(folder)]) == 0
    table = pd.read_csv(folder / "tables/table2_generated_weights.csv")
    trained = json.loads((folder / "generated/resnet20/0/metrics.json").read_text())["trained"]
    assert set(table["tau_candidates"]) == {2 * trained}
    titles = [axis.get_title() for axis in generated_accuracy(results).axes]
    assert titles[1:] == ["50 % of MACs", "25 % of MACs"]


def test_older_results_were_analysed_within_the_studys_budgets(tmp_path):
    folder = Study(
        tmp_path / "made", methods=("graphpruning",), seeds=(0,), blocks=1, candidates=8
    ).write()
    study = json.loads((folder / "study.json").read_text())
    del study["analysed_budgets"]
    (folder / "study.json").write_text(json.dumps(study))
    results = read(folder)
    assert results.analysed_budgets == results.budgets == ["0.5", "0.25"]
