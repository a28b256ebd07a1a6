"""graphpruning-plus through its stages: from the base's weights, and taught by the base."""

import csv
import json
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import finetune, prepare, search, train_base, train_pruningnet
from experiments.common.study import parse
from graphpruning.methods import METHODS
from tests import processes
from tests.experiments.ranks import launched, run_by_two
from tests.experiments.stages import work
from tests.experiments.test_pipeline import (
    ENVIRONMENT,
    _has_begun,
    _wait_for,
    copy_repository,
    forked,
    run,
)

PLUS = "graphpruning-plus"
RESULTS, WEIGHTS = Path("results/smoke"), Path("models/smoke/resnet8/0")
NET = RESULTS / f"pruningnet/resnet8/{PLUS}/0"
WITH = ["with", "model=resnet8", "seed=0"]
TRAIN = ["experiments.train_pruningnet", *WITH, f"conditioning={PLUS}"]


def with_plus(raw: dict[str, Any]) -> dict[str, Any]:
    """The smoke study with this row alone; its PruningNet trains for two epochs."""
    lists = {**{key: [] for key in raw["searches"]}, "own": [PLUS]}
    training = {"conditionings": [PLUS], "recipe": {**raw["pruningnet"]["recipe"], "epochs": 2}}
    final = {**raw["final"], "distillation": {"weight": 0.7, "temperature": 2.0}}
    analysis = {**raw["analysis"], "conditionings": [PLUS]}
    again: dict[str, Any] = {"methods": [], "trainings": []}
    changed = {"pruningnet": training, "analysis": analysis, "final": final, "again": again}
    return {**raw, **changed, "seeds": [0], "methods": [PLUS], "searches": lists}


def stage(folder: Path, *arguments: str) -> str:
    done = run(folder, sys.executable, "-m", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the row has been trained, searched and trained again."""
    folder = copy_repository(tmp_path_factory.mktemp("plus"))
    raw = with_plus(yaml.safe_load((folder / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    study, model, seed = parse(raw), {"model": "resnet8"}, {"seed": "0"}
    net, found = {"conditioning": PLUS}, {"method": PLUS, "budget": "0.5"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for module, items in (  # in this process, since a stage's start takes seconds
            (prepare, {}),
            (train_base, model | seed),
            (train_pruningnet, model | net | seed),
            (search, model | found | seed),
            (finetune, model | found | seed),
        ):
            work(module.STAGE, module.STAGE._context(study, items))
    return folder


def test_the_found_network_began_with_the_bases_weights(project: Path) -> None:
    final = RESULTS / f"final/resnet8/{PLUS}/0.5/0"
    found = json.loads((project / final / "metrics.json").read_text())
    assert found["initial"] == "inherited" and found["search_top1_before"] is not None
    (row,) = csv.DictReader((project / final / "curve.csv").read_text().splitlines())
    assert float(row["train_top1"]) > 0  # as without a teacher


def test_the_base_teaches_the_found_network_as_much_as_the_study_says(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without weight it trains to the very bits of a network that has no teacher."""
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns(".git", ".dvc"))
    monkeypatch.chdir(tmp_path / "copy")
    raw = yaml.safe_load(Path("params.yaml").read_text())
    items = {"model": "resnet8", "method": PLUS, "budget": "0.5", "seed": "0"}
    weights = Path(f"models/smoke/final/resnet8/{PLUS}/0.5/0.safetensors")

    def trained(weight: float) -> bytes:
        raw["final"]["distillation"]["weight"] = weight
        work(finetune.STAGE, finetune.STAGE._context(parse(raw), items))
        return weights.read_bytes()

    taught, untaught = trained(0.7), trained(0.0)
    assert taught == (project / weights).read_bytes() != untaught
    alone = replace(METHODS[PLUS], distilled=False)
    monkeypatch.setitem(METHODS, PLUS, alone)
    assert trained(0.7) == untaught


def test_study_json_says_that_it_goes_beyond_the_paper(project: Path) -> None:
    row = json.loads((project / RESULTS / "study.json").read_text())["rows"][PLUS]
    assert row["kind"] == "beyond" and row["distilled"] is True
    assert row["stage"] == "search_own" and row["initial"] == "inherited"


def test_its_training_counts_each_pass_of_an_image(project: Path) -> None:
    sidecar = json.loads((project / NET / "run.json").read_text())
    images = len((project / RESULTS / "splits/train.txt").read_text().split())
    assert sidecar["images_seen"] == 3 * 2 * (images // 50) * 50


def killed(project: Path) -> bytes:
    """End the training by SIGKILL after its first epoch; return what it had left undisturbed."""
    undisturbed = (project / WEIGHTS / f"{PLUS}.safetensors").read_bytes()
    process = processes.start([sys.executable, "-m", *TRAIN], project, forked())
    _wait_for(lambda: _has_begun(project / "checkpoints/smoke"), process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return undisturbed


def test_a_killed_training_goes_on_to_the_same_weights(project: Path) -> None:
    undisturbed = killed(project)
    stage(project, *TRAIN)
    assert json.loads((project / NET / "run.json").read_text())["resumed"] is True
    assert (project / WEIGHTS / f"{PLUS}.safetensors").read_bytes() == undisturbed


def test_it_does_not_go_on_from_a_checkpoint_of_another_base(project: Path) -> None:
    base = project / WEIGHTS / "base.safetensors"
    before, own = base.read_bytes(), killed(project)
    stage(project, "experiments.train_base", *WITH, "base.recipe.epochs=1")
    try:
        said = stage(project, *TRAIN)
        assert "of a run with other inherited, ignored: starting anew" in said
        assert json.loads((project / NET / "run.json").read_text())["resumed"] is False
        assert (project / WEIGHTS / f"{PLUS}.safetensors").read_bytes() != own
    finally:
        base.write_bytes(before)


def test_two_processes_train_as_one(project: Path) -> None:
    """At a rate at which rounding does not grow, see test_distributed.py."""
    slow = ["pruningnet.recipe.lr=0.0003", "pruningnet.recipe.epochs=1"]
    curves = []
    for again in (lambda: stage(project, *TRAIN, *slow), lambda: by_two(project, *slow)):
        again()
        (row,) = csv.DictReader((project / NET / "curve.csv").read_text().splitlines())
        curves.append(row)
    one, two = curves
    assert float(two["train_loss"]) == pytest.approx(float(one["train_loss"]), abs=1e-5)
    for key in ("search_top1_full", "search_top1_half", "search_top1_quarter"):
        assert float(two[key]) == pytest.approx(float(one[key]), abs=2)  # two images


def by_two(project: Path, *changes: str) -> None:
    with launched(ENVIRONMENT) as common:
        run_by_two([sys.executable, "-m", *TRAIN, *changes], project, common)
    assert json.loads((project / NET / "run.json").read_text())["hardware"]["processes"] == 2
