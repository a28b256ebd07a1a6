"""Somebody's own results stand beside a study's, and nothing of them is taken on trust."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest

from paper import compare
from paper.claims import claims
from paper.figure_methods import search_curves
from paper.reader.results import Results, read
from paper.table_ablations import ablations
from paper.table_main import differences, main_results
from paper.table_published import imagenet
from tests.paper.conftest import Study
from tests.paper.test_report import Page

BUDGETS = ("0.5", "0.25")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A study of few methods, layers and candidates, which is soon drawn."""
    folder = tmp_path_factory.mktemp("compare") / "made"
    methods = ("graphpruning", "amc", "random", "hand-crafted", "no-edges")
    return read(Study(folder, methods=methods, blocks=1, candidates=8).write())


def lines(study: Results, **changes: Any) -> list[dict[str, Any]]:
    """Results of a method called Mine: 1 point above ours, at the full budget."""
    rows = []
    for budget in BUDGETS:
        limit = study.budget_macs("resnet20", budget)
        for seed, trained in study.final["resnet20", "graphpruning", budget].items():
            rows.append(
                {
                    "method": "Mine",
                    "model": "resnet20",
                    "budget": budget,
                    "seed": seed,
                    "test_top1": trained.test_top1 + 1,
                    "macs": limit,
                    "params": 70_000,
                    **changes,
                }
            )
    return rows


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "mine.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_they_are_in_the_tables_and_paired_by_seed(study: Results, tmp_path: Path) -> None:
    compared = compare.with_given(study, written(tmp_path, lines(study)))
    table = main_results(compared)
    rows = table.csv[table.csv["method"] == "mine"]
    assert list(rows["budget"]) == list(BUDGETS) and set(rows["seeds"]) == {"3"}
    assert set(rows["evaluations"]) == {""}  # not given
    assert "Mine: as given in mine.csv." in table.notes
    shown = table.shown[table.shown["Method"] == "Mine"]
    assert set(shown["Search (s)"]) == {"—"}
    (row,) = [r for r in differences(compared).csv.to_dict("records") if r["method"] == "mine"]
    assert [row[f"difference{end}"] for end in ("", "_low", "_high")] == ["-1.000"] * 3
    assert imagenet(compared).csv.equals(imagenet(study).csv)  # other data
    mine = compared.rows["mine"]
    assert mine.colour not in {row.colour for row in study.rows.values()}
    assert mine.marker not in {row.marker for row in study.rows.values()}
    before, after = claims(study), claims(compared)
    assert [claim.verdict for claim in before] == [claim.verdict for claim in after]


@pytest.mark.parametrize("known", [{"top1_search": 61.5, "evaluations": 40}, {"evaluations": 40}])
def test_they_stand_below_the_ablations_and_where_their_search_ended(
    study: Results, tmp_path: Path, known: dict[str, float]
) -> None:
    compared = compare.with_given(study, written(tmp_path, lines(study, **known)))
    rows = [row for row in ablations(compared).csv.to_dict("records") if row["variant"] == "mine"]
    assert [row["at"] for row in rows] == [f"budget {b}" for b in BUDGETS for _ in range(3)]
    searched, area, final = rows[:3]
    assert searched["mean"] == ("61.5000" if "top1_search" in known else "")
    assert area["mean"] == searched["mean"]  # its last candidate is all that is known
    assert searched["difference"] == area["difference"] == ""  # it rates candidates in its own way
    assert final["difference"] == "-1.0000"
    points = [
        tuple(map(float, line.get_xydata()[0]))
        for axis in search_curves(compared).axes
        for line in axis.get_lines()
        if str(line.get_label()).startswith("Mine")
    ]
    assert points == ([(40, 61.5)] * len(BUDGETS) if "top1_search" in known else [])


def test_everything_is_written_beside_the_study(
    study: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in study.path.rglob("*") if path.is_file()}
    widths = " ".join(str(width) for width in study.network("resnet20").graph.prunable.values())
    own = written(tmp_path, lines(study, widths=widths, evaluations=10, search_seconds=3.5))
    assert compare.main([str(study.path), str(own)]) == 0
    folder = study.path / "compare/mine"
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    text = (folder / "report.html").read_text()
    assert ">Mine</td>" in text and "as given in mine.csv" in text
    for link in Page(text).links:
        is_record = "records/" in link  # the fixture keeps only some of their files
        assert link.startswith("#") or is_record or (folder / unquote(link)).is_file(), link
    assert len(list((folder / "figures").iterdir())) == 18
    assert len(list((folder / "tables").iterdir())) == 21
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "AMC"}, "there is a method 'AMC' already: rename yours"),
        ({"method": "Base"}, "there is a method 'Base' already: rename yours"),
        ({"model": "resnet21"}, "line 2: the study has no model 'resnet21', but resnet20"),
        ({"macs": 10**12}, "line 2: 1,000,000,000,000 MACs are more than the budget of"),
        ({"test_top1": "good"}, "line 2: test_top1 is 'good', not a number"),
        ({"test_top1": ""}, "line 2: test_top1 is '', not a number"),
        ({"seed": 1}, "line 3 has a seed a second time"),
        ({"seed": 0.5}, "line 2: seed is '0.5', not a whole number"),
        ({"macs": "4.2"}, "line 2: macs is '4.2', not a whole number"),
        ({"widths": "1 2"}, "line 2: widths are not"),
        ({"widths": " ".join(["999"] * 6)}, "6 whole numbers up to ["),
        ({"top1": 3}, "has an unknown column 'top1'; known: method, model"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    study: Results, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    path = written(tmp_path, lines(study, **change))
    with pytest.raises(compare.UserError) as refusal:
        compare.with_given(study, path)
    (line,) = str(refusal.value).splitlines()
    assert line.startswith(str(path)) and says in line


def test_the_command_says_a_refusal_and_no_more(
    study: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, lines(study, seed=1))
    assert compare.main([str(study.path), str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{path}: line 3 has a seed a second time\n"


def test_a_method_must_have_every_budget(study: Results, tmp_path: Path) -> None:
    half = [line for line in lines(study) if line["budget"] == "0.5"]
    with pytest.raises(compare.UserError, match=r"no line for model resnet20, budget 0\.25"):
        compare.with_given(study, written(tmp_path, half))


def test_seeds_of_the_study_stay_those_that_it_ran(study: Results, tmp_path: Path) -> None:
    more = [{**line, "seed": line["seed"] + 7} for line in lines(study)]
    assert compare.with_given(study, written(tmp_path, more)).seeds == study.seeds == [0, 1, 2]


def test_lines_that_no_table_would_show_are_refused(study: Results, tmp_path: Path) -> None:
    extra = {**lines(study)[0], "budget": "0.3"}
    with pytest.raises(compare.UserError, match=r"line 8: the study has no budget '0.3', but 0.5"):
        compare.with_given(study, written(tmp_path, [*lines(study), extra]))


@pytest.mark.parametrize(("text", "says"), [("", "cannot be read"), ("method\n", "no column")])
def test_a_file_without_a_table_is_refused(
    study: Results, tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(compare.UserError, match=says):
        compare.with_given(study, path)
    with pytest.raises(compare.UserError, match="cannot be read"):
        compare.with_given(study, tmp_path / "none.csv")


def test_the_example_of_the_docs_fits_its_study(tmp_path: Path) -> None:
    page = Path("docs/studies.md").read_text()
    (example,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    (tmp_path / "my_results.csv").write_text(example)
    fashion = read(Path("results/fashion"))
    compared = compare.with_given(fashion, tmp_path / "my_results.csv")
    assert compared.rows["mine"].label == "Mine"
    assert compared.path == Path("results/fashion/compare/my_results")
