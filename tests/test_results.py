"""The committed results are the committed tables; desk's are whole and within their budgets."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from paper import report, tables
from paper.verdicts import COMMITTED

ROOT = Path(__file__).parents[1]
DESK = ROOT / "results/desk"


def sidecars() -> list[Path]:
    return [path for path in DESK.rglob("run.json") if "records" not in path.parts]


def test_the_base_is_accurate_enough_to_be_worth_pruning() -> None:
    assert json.loads((DESK / "base/resnet20/0/metrics.json").read_text())["test_top1"] >= 90


def test_most_found_networks_come_near_to_the_base() -> None:
    base = json.loads((DESK / "base/resnet20/0/metrics.json").read_text())["test_top1"]
    for budget, points in (("0.5", 0.7), ("0.25", 1.5)):
        found = [
            json.loads(path.read_text())["test_top1"]
            for path in (DESK / "final/resnet20").glob(f"*/{budget}/0/metrics.json")
        ]
        near = [top1 for top1 in found if base - top1 <= points]
        assert len(near) > len(found) / 2 >= 3, (base, found)


def test_found_networks_meet_and_use_their_budgets() -> None:
    found = sorted((DESK / "search").rglob("metrics.json"))
    study = json.loads((DESK / "study.json").read_text())
    assert len(found) == len(study["methods"]) * len(study["budgets"]) * len(study["seeds"])
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())["search"]
    for path in found:
        result = json.loads(path.read_text())
        assert result["budget_macs"] == int(float(result["budget"]) * 8_523_968)
        assert 0.98 * result["budget_macs"] <= result["macs"] <= result["budget_macs"]
        once = result["method"] in ("uniform", "group-norm")
        assert result["evaluations"] == (1 if once else settings["evaluations"])


@pytest.mark.parametrize("study", COMMITTED)
def test_tables_and_report_of_the_committed_results_are_the_committed_ones(
    study: str, tmp_path: Path
) -> None:
    for name in {study, "pretrained"}:
        left_out = shutil.ignore_patterns("tables", "report.html")
        shutil.copytree(ROOT / "results" / name, tmp_path / "results" / name, ignore=left_out)
    for program in (tables, report):
        assert program.main([str(tmp_path / "results" / study)]) == 0
    made, committed = (
        {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
        | {"report.html": (folder / "report.html").read_bytes()}
        for folder in (root / "results" / study for root in (tmp_path, ROOT))
    )
    assert [name for name in committed if made.get(name) != committed[name]] == []
    assert made.keys() == committed.keys()


def test_every_number_has_an_undisturbed_run_and_its_record() -> None:
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert {json.loads(path.read_text())["stage"] for path in sidecars()} == {
        stage
        for stage in stages
        if "@desk" in stage and not stage.startswith(("fetch", "tables", "figures", "report"))
    }
    for path in sidecars():
        sidecar = json.loads(path.read_text())
        assert sidecar["resumed"] is False
        assert (DESK / sidecar["record"] / "config.json").exists()


def test_json_is_strict() -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    paths = [path for path in DESK.rglob("*.json") if "records" not in path.parts]
    assert len(paths) > 50
    for path in paths:
        json.loads(path.read_text(), parse_constant=refuse)
