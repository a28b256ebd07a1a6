"""A conditioning and a method are a row each: with one line in each table, a study uses them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.experiments.test_pipeline import copy_repository, run

RESULTS = Path("results/smoke")
CONDITIONING = """
CONDITIONINGS["halved"] = Conditioning(
    "no edges over there", "GraphAggregator", "#112233", "8", (0, (2, 2)), {"edges": "none"}
)
"""
METHOD = """
METHODS["halved"] = Method(
    "Somebody's search", "halved", "nothing", "random", "baseline", "#445566", "H"
)
"""


def with_the_rows(raw: dict[str, Any]) -> dict[str, Any]:
    """The smoke study with one seed and no more than the new rows and what a report needs."""
    listed = {**{key: [] for key in raw["searches"]}, "graph": ["graphpruning"], "own": ["halved"]}
    recipes = {
        part: {**raw[part], "recipe": {**raw[part]["recipe"], "epochs": 1}}
        for part in ("base", "pruningnet", "final")
    }
    recipes["pruningnet"]["conditionings"] = ["graph", "halved"]
    return {
        **raw,
        **recipes,
        "seeds": [0],
        "methods": ["graphpruning", "halved"],
        "again": {"methods": [], "trainings": []},
        "searches": listed,
        "analysis": {**raw["analysis"], "conditionings": ["graph", "halved"]},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a row in each table, in which the study has run."""
    folder = copy_repository(tmp_path_factory.mktemp("rows"))
    for table, row in (
        ("graphpruning/pruningnet/conditionings.py", CONDITIONING),
        ("graphpruning/methods.py", METHOD),
    ):
        with open(folder / table, "a", encoding="utf-8") as file:
            file.write(row)
    study = with_the_rows(yaml.safe_load((folder / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    done = run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_study_json_tells_tables_and_figures_of_them(project: Path) -> None:
    about = json.loads((project / RESULTS / "study.json").read_text())
    assert about["conditionings"]["halved"] == {
        "label": "no edges over there",
        "colour": "#112233",
        "marker": "8",
        "line": [0, [2, 2]],
    }
    row = about["rows"]["halved"]
    assert (row["label"], row["source"], row["kind"]) == ("Somebody's search", "halved", "baseline")
    assert (row["stage"], row["line"]) == ("search_own", [0, [2, 2]])


def test_its_pruningnet_judges_its_search_and_its_network_is_trained(project: Path) -> None:
    assert (project / "models/smoke/resnet8/0/halved.safetensors").exists()
    for stage in ("search", "final"):
        where = project / RESULTS / stage / "resnet8/halved/0.5/0/metrics.json"
        assert json.loads(where.read_text())["method"] == "halved"


@pytest.mark.parametrize("label", ["Somebody's search", "no edges over there"])
def test_tables_and_report_have_their_labels(project: Path, label: str) -> None:
    tables = [path.read_text() for path in (project / RESULTS / "tables").glob("*.md")]
    assert any(label in table for table in tables)
    report = (project / RESULTS / "report.html").read_text()
    assert label in report or label.replace("'", "&#39;") in report
