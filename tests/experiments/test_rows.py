"""A conditioning and a method are a row each: with one line in each table, a study uses them."""

import importlib
import json
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from experiments.common.study import parse
from experiments.pipeline import steps_to_run
from graphpruning.methods import METHODS, Method
from graphpruning.pruningnet.conditionings import CONDITIONINGS, Conditioning
from paper import figures
from tests.experiments.stages import work
from tests.experiments.test_pipeline import copy_repository

RESULTS = Path("results/smoke")
CONDITIONING = Conditioning(
    "no edges over there", "GraphAggregator", "#112233", "8", (0, (2, 2)), {"edges": "none"}
)
METHOD = Method("Somebody's search", "halved", "nothing", "random", "baseline", "#445566", "H")


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
        "analysis": {**raw["analysis"], "conditionings": ["graph", "halved"], "trainings": 1},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the repository in which the study has run, with a row in each table.

    All that `dvc repro` would run has, in its order, but in this process, and figures are PNG
    alone: the report shows these.
    """
    folder = copy_repository(tmp_path_factory.mktemp("rows"))
    raw = with_the_rows(yaml.safe_load((folder / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONDITIONINGS, "halved", CONDITIONING)
        patch.setitem(METHODS, "halved", METHOD)
        patch.setattr(figures, "save", partial(figures.save, endings=[".png"]))
        patch.chdir(folder)
        with Repo() as repo:
            commands = {stage.addressing: stage.cmd for stage in repo.index.stages}
        for name in steps_to_run():
            said = commands[name]
            for command in [said] if isinstance(said, str) else said:
                run_here(command, raw)
        yield folder


def run_here(command: str, raw: dict[str, Any]) -> None:
    """Do what `python -m MODULE WORDS` does."""
    python, option, module, *words = shlex.split(command)
    assert (python, option) == ("python", "-m")
    program = importlib.import_module(module)
    if hasattr(program, "STAGE"):
        assert words[:1] in ([], ["with"])
        items = dict(word.split("=") for word in words[1:])
        assert set(program.STAGE.items) == set(items)
        work(program.STAGE, program.STAGE._context(parse(raw), items))
    else:
        assert (program.main(words) if words else program.main()) == 0, command


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
