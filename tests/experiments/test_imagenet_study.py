"""The ImageNet study, made small, through real `dvc repro` on a miniature ILSVRC."""

import csv
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from paper import figures, report
from tests.experiments.test_pipeline import copy_repository, forked
from tests.miniature import build

RESULTS = Path("results/imagenet")
TABLES = "tables@imagenet"
CLASSES, TRAIN, VAL = 4, 12, 5  # images of each class; the first has 2 x TRAIN
SMALL = {"epochs": 1, "batch_size": 12, "lr": 0.05, "schedule": "linear"}
SMALLER = {
    "models": ["mobilenet_v1"],
    "networks.mobilenet_v1": {
        "options": {"width": 0.25},
        "budgets": {"small": "0.5M"},
        "recipes": {"final": {**SMALL, "epochs": 2}},
    },
    "data.search_images": 3 * CLASSES,
    "data.calibration_images": 4 * CLASSES,
    "data.recalibration_images": 2 * CLASSES,
    "data.preprocessing.size": 32,
    "data.preprocessing.resize": 40,
    "data.workers": 1,
    "precision": "32-true",
    "base.recipe": SMALL,
    "correlation.images": CLASSES,
    "pruningnet.conditionings": ["graph"],
    "pruningnet.recipe": SMALL,
    "analysis.conditionings": ["graph"],
    "analysis.candidates": 3,
    "analysis.within": 2,
    "analysis.trained": 1,
    "search.evaluations": 4,
    "search.agent.warmup_episodes": 2,
    "search.ddpg.warmup_episodes": 2,
    "search.evolution": {
        "population": 2,
        "parents": 1,
        "mutations": 1,
        "crossovers": 1,
        "mutation_probability": 0.1,
    },
    "reconstruction.images": CLASSES,
    "analysis.recipe": SMALL,
    "final.recipe": SMALL,
    "budgets": ["small"],
    "methods": ["graphpruning", "amc"],
    "searches.graph": ["graphpruning"],
    "searches.block": [],
}


def run(folder: Path, images: Path | None, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in forked().items() if key != "IMAGENET_DIR"}
    if images is not None:
        environment["IMAGENET_DIR"] = str(images)
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def make_smaller(study: Path) -> None:
    """Replace values of the study; what it has not is an error."""
    raw = yaml.safe_load(study.read_text())
    for path, value in SMALLER.items():
        *parents, last = path.split(".")
        place = raw
        for parent in parents:
            place = place[parent]
        assert last in place, path
        place[last] = value
    study.write_text(yaml.safe_dump(raw, sort_keys=False))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the small ImageNet study has run, up to its tables.

    Figures and report are made in this process, as PNG alone: the report shows these.
    """
    folder = copy_repository(tmp_path_factory.mktemp("imagenet"))
    images = folder.with_name("ILSVRC")
    build(images, CLASSES, TRAIN, VAL)
    make_smaller(folder / "studies/imagenet.yaml")
    (folder / "params.yaml").write_bytes((folder / "studies/imagenet.yaml").read_bytes())
    refused = run(folder, None, sys.executable, "-m", "experiments.prepare")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert "IMAGENET_DIR" in refused.stderr
    done = run(folder, images, "dvc", "repro", TABLES)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(figures, "save", partial(figures.save, endings=[".png"]))
        assert figures.main([str(RESULTS)]) == report.main([str(RESULTS)]) == 0
    return folder


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_every_class_gives_equally_many_images_to_the_search(project: Path) -> None:
    splits = read(project / RESULTS / "splits/metrics.json")
    assert splits["classes"] == CLASSES
    assert splits["images"]["test"] == VAL * CLASSES
    assert set(splits["class_counts"]["search"].values()) == {3}
    left = sorted(splits["class_counts"]["train"].values())
    assert left == [*[TRAIN - 3] * (CLASSES - 1), 2 * TRAIN - 3]


def test_every_method_finds_and_trains_a_network_of_the_labels_macs(project: Path) -> None:
    for method in SMALLER["methods"]:
        where = Path("mobilenet_v1") / method / "small/0/metrics.json"
        search = read(project / RESULTS / "search" / where)
        assert search["budget_macs"] == 500_000
        found = read(project / RESULTS / "final" / where)
        assert 490_000 <= found["macs"] <= 500_000
        assert found["epochs"] == 2, "the model's own recipe"
        assert 0 <= found["test_top1"] <= found["test_top5"] == 100  # of four classes


def test_the_report_is_made_and_table3_has_a_row_for_every_method(project: Path) -> None:
    assert "<html" in (project / RESULTS / "report.html").read_text()
    with open(project / RESULTS / "tables/table3_main.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} >= set(SMALLER["methods"])


def test_a_clone_without_the_images_has_nothing_to_run(project: Path) -> None:
    again = run(project, None, "dvc", "repro", TABLES)
    assert again.returncode == 0 and "Running stage" not in again.stdout, again.stdout
