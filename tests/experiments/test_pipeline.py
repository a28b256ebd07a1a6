"""The smoke study through real `dvc repro`, in a copy of the repository."""

import atexit
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments import plan
from experiments.common.study import read
from experiments.preloaded import preloaded
from graphpruning import load_architecture
from graphpruning.training.datasets import load
from graphpruning.training.images import prepared
from graphpruning.training.preprocessing import Preprocessing
from tests import processes

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    # A copy of the repository keeps its bytecode, so that no stage compiles what one before it has.
    **{key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "OMP_NUM_THREADS": "1",  # at toy size a second thread only waits
    "GIT_CONFIG_GLOBAL": os.devnull,
}
RESULTS = Path("results/smoke")
MODEL = "resnet8"


@cache
def forked() -> dict[str, str]:
    """ENVIRONMENT, in which stages are forked, which saves seconds a stage: for tests whose subject
    is not the process (test_preloaded.py holds that both do the same).
    """
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(preloaded(ENVIRONMENT))


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return processes.run(command, folder, forked())


def copy_repository(target: Path) -> Path:
    """What git tracks or would track, as it is now, as a repository of its own.

    But without results, and without what DVC knows of them: it reads and writes all of dvc.lock
    whenever a stage has run, and what is there of other studies takes a second each time.
    """
    git = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = processes.run(git, ROOT, ENVIRONMENT).stdout
    for name in listed.split("\0"):
        path = ROOT / name
        left_out = name.startswith(("results/", "dvc.lock"))
        mine = not left_out or name.startswith("results/pretrained/")
        if path.is_file() and mine:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / name)
    shutil.copy(target / "studies/smoke.yaml", target / "params.yaml")
    processes.run(["git", "init", "-q"], target, ENVIRONMENT)
    return target


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the smoke study has run: up to the final trainings by one `dvc repro`, since
    each start of DVC takes a second, and what is left by `make repro`, in lanes.
    """
    folder = copy_repository(tmp_path_factory.mktemp("smoke"))
    by_one = run(folder, "dvc", "repro", "finetune")
    assert by_one.returncode == 0, by_one.stdout + by_one.stderr
    left = processes.run(["python", "-m", "experiments.repro"], folder, ENVIRONMENT)
    assert left.returncode == 0, left.stdout + left.stderr
    assert left.stdout.count("Running stage") == 2 * 4 + 3  # with each seed; and what shows all
    return folder


def metrics(folder: Path, kind: str) -> dict[Path, dict[str, Any]]:
    """What the stages of a kind leave; that of further final trainings is "final/again"."""
    top = folder / RESULTS / kind
    paths = [
        path for path in sorted(top.rglob("metrics.json")) if top / "again" not in path.parents
    ]
    return {path: json.loads(path.read_text()) for path in paths}


def test_every_table_and_figure_is_made(smoke: Path) -> None:
    tables = {path.name for path in (smoke / RESULTS / "tables").iterdir()}
    names = (
        "table1_correlation",
        "table2_generated_weights",
        "table2_conditioning",
        "table3_main",
        "table4_ablations",
        "table5_imagenet",
    )
    assert tables >= {f"{name}.{kind}" for name in names for kind in ("csv", "md", "tex")}
    figures = [path.name for path in (smoke / RESULTS / "figures").iterdir()]
    for number in range(1, 9):
        kinds = {Path(name).suffix for name in figures if name.startswith(f"figure{number}_")}
        assert kinds >= {".pdf", ".png"}
    assert "<html" in (smoke / RESULTS / "report.html").read_text()


def test_table3_has_a_row_for_every_method_and_budget(smoke: Path) -> None:
    study = yaml.safe_load((smoke / "params.yaml").read_text())
    with open(smoke / RESULTS / "tables/table3_main.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "model",
        "method",
        "budget",
        "macs",
        "macs_ratio",
        "params",
        "search_top1_before",
        "top1_mean",
        "top1_low",
        "top1_high",
        "seeds",
        "iqm",
        "iqm_low",
        "iqm_high",
        "improvement",
        "improvement_low",
        "improvement_high",
        "evaluations",
        "distinct",
        "search_seconds",
        "images_seen",
    ]
    assert len(rows) == 1 + len(study["methods"]) * len(study["budgets"])
    final = [*metrics(smoke, "final").values(), *metrics(smoke, "final/again").values()]
    for row in rows[1:]:
        accuracies = [found["test_top1"] for found in final if found["method"] == row["method"]]
        often = 1 + (row["method"] in study["again"]["methods"])
        assert len(accuracies) == often * len(study["seeds"]) == often * int(row["seeds"])
        mean = sum(accuracies) / len(accuracies)
        assert float(row["top1_mean"]) == pytest.approx(mean, abs=0.006)


def test_found_networks_use_98_to_100_percent_of_their_budget(smoke: Path) -> None:
    found = metrics(smoke, "search").values()
    study = yaml.safe_load((smoke / "params.yaml").read_text())
    assert len(found) == len(study["methods"]) * len(study["seeds"])
    for result in found:
        assert 0.98 * result["budget_macs"] <= result["macs"] <= result["budget_macs"]


def test_every_searcher_has_the_same_evaluations(smoke: Path) -> None:
    for result in metrics(smoke, "search").values():
        assert result["evaluations"] == 6


def test_an_ablation_is_judged_by_its_own_pruningnet_and_may_begin_with_its_weights(
    smoke: Path,
) -> None:
    for seed in ("0", "1"):
        final = {
            m["method"]: m for p, m in metrics(smoke, "final").items() if p.parent.name == seed
        }
        for name, found in final.items():
            assert found["initial"] == ("generated" if name == "generated" else "inherited")
            assert (found["search_top1_before"] is None) == (found["initial"] == "scratch")
        found = {
            m["method"]: m for p, m in metrics(smoke, "search").items() if p.parent.name == seed
        }
        assert {**found["generated"], "method": ""} == {**found["graphpruning"], "method": ""}
        # What the final training begins with is what the search has judged.
        assert final["generated"]["search_top1_before"] == found["generated"]["top1_search"]
        assert (smoke / f"models/smoke/resnet8/{seed}/graphpruning-plus.safetensors").exists()


def curve(folder: Path, of: str) -> list[dict[str, float]]:
    text = (folder / RESULTS / of / "curve.csv").read_text()
    return [
        {key: float(value) for key, value in row.items()}
        for row in csv.DictReader(text.splitlines())
    ]


CHANCE = 10.0  # percent: of ten classes


@pytest.mark.parametrize("seed", ["0", "1"])
def test_training_lowers_the_loss_and_leaves_a_base_well_above_chance(
    smoke: Path, seed: str
) -> None:
    losses = [row["train_loss"] for row in curve(smoke, f"base/{MODEL}/{seed}")]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.3
    base = json.loads((smoke / RESULTS / f"base/{MODEL}/{seed}/metrics.json").read_text())
    assert base["test_top1"] > 2.5 * CHANCE and base["search_top1"] > 2.5 * CHANCE


@pytest.mark.parametrize("seed", ["0", "1"])
@pytest.mark.parametrize("conditioning", ["graph", "block", "constant", "graphpruning-plus"])
def test_training_lowers_the_loss_of_every_pruningnet(
    smoke: Path, conditioning: str, seed: str
) -> None:
    """And its full network, with generated weights, is well above chance."""
    rows = curve(smoke, f"pruningnet/{MODEL}/{conditioning}/{seed}")
    losses = [row["train_loss"] for row in rows]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.1
    assert rows[-1]["search_top1_full"] > 2 * CHANCE


SEED_0 = r"/0(?=/|\.safetensors)"
RANDOM = ("base", "correlation", "pruningnet", "generated", "search", "final")
"""Folders of results in which something is drawn, be it only widths."""


def test_the_aggregator_of_every_replicate_lives(smoke: Path) -> None:
    """After training its features follow the widths, and tell those of layers far away."""
    for seed in ("0", "1"):
        folder = smoke / RESULTS / "generated/resnet8" / seed
        varied = {
            (row["conditioning"], row["network"]): float(row["feature_variation"])
            for row in csv.DictReader((folder / "diagnostics.csv").open())
        }
        assert varied["graph", "trained"] > 0.1
        assert varied["constant", "trained"] == 0
        far = [
            float(row["r2"])
            for row in csv.DictReader((folder / "probes.csv").open())
            if row["conditioning"] == "graph" and row["network"] == "trained"
            if int(row["distance"]) >= 2
        ]
        assert sum(far) / len(far) > 0.5


@pytest.mark.parametrize("kind", RANDOM)
def test_replicates_differ_in_all_that_is_random(smoke: Path, kind: str) -> None:
    ones = sorted((smoke / RESULTS / kind).rglob("0/*.csv"))
    assert ones
    for one in ones:
        two = one.parent.with_name("1") / one.name
        if one.read_text().count("\n") > 1:  # this network has no border between blocks
            assert one.read_bytes() != two.read_bytes(), one


def test_replicates_have_weights_of_their_own(smoke: Path) -> None:
    held = sorted((smoke / "models/smoke").rglob("*.safetensors"))
    ones = [path for path in held if re.search(SEED_0, str(path.relative_to(smoke)))]
    assert len(ones) == 1 + 4 + 5 + 5  # the base, PruningNets, and each method's two networks
    assert len(held) == 2 * len(ones)
    for one in ones:
        two = smoke / re.sub(SEED_0, "/1", str(one.relative_to(smoke)))
        assert one.read_bytes() != two.read_bytes(), one


def test_the_taken_away_network_has_the_accuracy_that_the_table_says(smoke: Path) -> None:
    path, result = next(iter(metrics(smoke, "final").items()))
    architecture = path.parent / "architecture.json"
    model = load_architecture(architecture)
    how = Preprocessing.from_dict(json.loads(architecture.read_text())["preprocessing"])
    right = total = 0
    with torch.no_grad():
        for images, labels in prepared(load("generated", "data", train=False), how, 50):
            right += int((model(images).argmax(dim=1) == labels).sum())
            total += len(labels)
    assert 100 * right / total == pytest.approx(result["test_top1"])


def test_the_search_split_is_held_out_of_training(smoke: Path) -> None:
    splits = {
        name: set((smoke / RESULTS / f"splits/{name}.txt").read_text().split())
        for name in ("train", "search", "calibration")
    }
    assert not splits["train"] & splits["search"]
    assert splits["calibration"] <= splits["train"]


def test_a_second_repro_runs_nothing(smoke: Path) -> None:
    """Nor does it restore anything from DVC's cache of runs: it would not say the last line."""
    again = run(smoke, "dvc", "repro")
    assert again.returncode == 0 and "Running stage" not in again.stdout
    assert again.stdout.endswith("Data and pipelines are up to date.\n"), again.stdout


def test_dvc_shows_metrics_and_plots(smoke: Path) -> None:
    base = f"{RESULTS}/base/{MODEL}/0"
    shown = run(smoke, "dvc", "metrics", "show", "--json")
    (found,) = json.loads(shown.stdout).values()
    of_base = found["data"][f"{base}/metrics.json"]["data"]
    assert (
        of_base["test_top1"] == json.loads((smoke / base / "metrics.json").read_text())["test_top1"]
    )
    searches = [name for name in found["data"] if "/search/" in name]
    assert all("top1_search" in found["data"][name]["data"] for name in searches) and searches

    drawn = run(smoke, "dvc", "plots", "show", "--out", "plots", "--json")
    plots = json.loads(drawn.stdout)["data"]
    curves = {f"{base}/curve.csv", f"{RESULTS}/search/{MODEL}/amc/0.5/0/history.csv"}
    assert curves <= set(plots) and not json.loads(drawn.stdout).get("errors")


def test_dvc_compares_a_run_with_the_one_before(smoke: Path) -> None:
    for command in (("add", "-A"), ("commit", "-qm", "smoke")):
        done = run(smoke, "git", "-c", "user.name=a", "-c", "user.email=a@b", *command)
        assert done.returncode == 0, done.stderr
    path = smoke / RESULTS / f"base/{MODEL}/0/metrics.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "test_top1": 12.5}))
    try:
        changed = json.loads(run(smoke, "dvc", "metrics", "diff", "--json").stdout)
        assert changed[str(path.relative_to(smoke))]["test_top1"]["new"] == 12.5
        (now, *_) = json.loads(run(smoke, "dvc", "exp", "show", "--json").stdout)
        shown = now["data"]["metrics"][str(path.relative_to(smoke))]["data"]
        assert shown["test_top1"] == 12.5
    finally:
        path.write_text(before)


def test_tables_are_the_same_without_data_and_weights(smoke: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke / "results", tmp_path / "results")
    shutil.copytree(smoke / "paper", tmp_path / "paper")
    tables = tmp_path / RESULTS / "tables"
    before = {path.name: path.read_bytes() for path in tables.iterdir()}
    shutil.rmtree(tables)
    made = run(tmp_path, sys.executable, "-m", "paper.tables", str(RESULTS))
    assert made.returncode == 0, made.stderr
    assert {path.name: path.read_bytes() for path in tables.iterdir()} == before


def test_records_name_neither_the_host_nor_its_folders(smoke: Path) -> None:
    records = [path for path in (smoke / RESULTS / "records").rglob("*") if path.is_file()]
    sidecars = [
        json.loads(p.read_text())
        for p in (smoke / RESULTS).rglob("run.json")
        if "records" not in p.parts
    ]
    assert len(sidecars) == 1 + 2 * (1 + 1 + 4 + 1 + 5 + 5 + 1)
    known = yaml.safe_load((smoke / "dvc.lock").read_text())["stages"]
    assert {sidecar["stage"] for sidecar in sidecars} <= set(known)
    assert len(known) == plan.stages_of(read(smoke / "params.yaml"))
    for sidecar in sidecars:
        record = smoke / RESULTS / sidecar["record"]
        assert json.loads((record / "run.json").read_text())["status"] == "COMPLETED"
        assert {"config.json", "cout.txt", "metrics.json"} <= {p.name for p in record.iterdir()}
    for path in [*records, *(smoke / RESULTS).rglob("run.json")]:
        text = path.read_text()
        assert str(smoke) not in text and str(Path.home()) not in text, path
        assert f'"{socket.gethostname()}"' not in text, path


def test_a_stage_by_hand_records_where_sacreds_flag_says(smoke: Path) -> None:
    """The README's command, for this study's model."""
    arguments = ["experiments.train_base", "with", f"model={MODEL}", "seed=0", "-F", "my_runs"]
    done = run(smoke, sys.executable, "-m", *arguments)
    assert done.returncode == 0, done.stderr
    (record,) = [path for path in (smoke / "my_runs").iterdir() if path.name != "_sources"]
    assert json.loads((record / "run.json").read_text())["status"] == "COMPLETED"


STAGE_COMMANDS = {
    "train_base": (
        ["experiments.train_base", "with", f"model={MODEL}", "seed=1"],
        f"base/{MODEL}/1",
    ),
    "train_pruningnet": (
        ["experiments.train_pruningnet", "with", f"model={MODEL}", "conditioning=graph", "seed=1"],
        f"pruningnet/{MODEL}/graph/1",
    ),
    "search": (
        [
            "experiments.search",
            "with",
            f"model={MODEL}",
            "method=graphpruning",
            "budget=0.5",
            "seed=1",
        ],
        f"search/{MODEL}/graphpruning/0.5/1",
    ),
}


@pytest.mark.parametrize("stage", STAGE_COMMANDS)
def test_a_killed_stage_goes_on_to_the_same_metrics(smoke: Path, stage: str) -> None:
    """The search is short, so it runs by itself: a forked one is ended a moment later."""
    arguments, folder = STAGE_COMMANDS[stage]
    path = smoke / RESULTS / folder / "metrics.json"
    undisturbed = path.read_bytes()
    path.unlink()
    command = [sys.executable, "-m", *arguments]
    environment = ENVIRONMENT if stage == "search" else forked()
    process = processes.start(command, smoke, environment)
    _wait_for(lambda: _has_begun(smoke / "checkpoints/smoke"), process)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert "was killed (SIGKILL)" in said, said
    assert not path.exists(), "the stage was done before it could be killed"
    resumed = run(smoke, *command)
    assert resumed.returncode == 0, resumed.stderr
    assert path.read_bytes() == undisturbed
    assert json.loads(path.with_name("run.json").read_text())["resumed"] is True
    assert not [p for p in (smoke / "checkpoints/smoke").rglob("*") if p.is_file()]


def _has_begun(checkpoints: Path) -> bool:
    """A first epoch, or a first answer of the search, has been saved."""
    files = [path for path in checkpoints.rglob("*") if not path.name.startswith(".")]
    if any(path.suffix == ".pt" for path in files):
        return True  # a name with a dot is still being written
    journals = [path for path in files if path.suffix == ".jsonl"]
    return any(journal.read_text().count("\n") > 1 for journal in journals)


def _wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the stage ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def refusal(folder: Path, *arguments: str) -> str:
    """The one line that a stage says before it exits with code 2."""
    refused = run(folder, sys.executable, "-m", *arguments)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    lines = [line for line in refused.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), refused.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("update", "says"),
    [
        ("base.recipe.lr=1e9", "loss is"),
        ("base.recipe.epoch=1", "did you mean 'epochs'"),
        ("data.name=fashion_mnist", "train-images-idx3-ubyte is missing: `python -m"),
    ],
)
def test_a_stage_refuses_in_one_line(smoke: Path, update: str, says: str) -> None:
    results = smoke / RESULTS / f"base/{MODEL}/1/metrics.json"
    before = results.read_bytes()
    assert says in refusal(smoke, *STAGE_COMMANDS["train_base"][0], update)
    assert results.read_bytes() == before


def test_an_unreachable_budget_says_the_smallest(smoke: Path) -> None:
    params = smoke / "params.yaml"
    whole = params.read_text()
    params.write_text(whole.replace("budgets: [0.5]", "budgets: [0.01]"))
    arguments = [*STAGE_COMMANDS["search"][0][:-2], "budget=0.01", "seed=0"]
    try:
        assert "the smallest network" in refusal(smoke, *arguments)
    finally:
        params.write_text(whole)
    assert not (smoke / RESULTS / "search" / MODEL / "graphpruning/0.01").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["seed=2"], "seed=2 is not in params.yaml: did you mean '"),
        ([], "experiments.train_base: say `with seed=...`"),
        (["seeds=0"], "with seeds=0: this stage does not read 'seeds'; did you mean 'seed'?"),
    ],
)
def test_a_stage_takes_one_seed_of_the_study(smoke: Path, words: list[str], says: str) -> None:
    assert says in refusal(smoke, "experiments.train_base", "with", f"model={MODEL}", *words)


def test_a_checkpoint_of_another_network_is_refused(smoke: Path) -> None:
    path = smoke / "models/smoke" / MODEL / "1/graph.safetensors"
    kept = path.read_bytes()
    path.unlink()
    shutil.copy(path.with_name("base.safetensors"), path)
    try:
        assert "another network" in refusal(smoke, *STAGE_COMMANDS["search"][0])
    finally:
        path.unlink()
        path.write_bytes(kept)


def test_the_study_is_read_before_anything_runs(smoke: Path) -> None:
    params, runs = smoke / "params.yaml", list((smoke / "runs").iterdir())
    whole = params.read_text()
    params.write_text("study: smoke\nbudget: [0.5]\n")
    try:
        assert "did you mean 'budgets'" in refusal(smoke, "experiments.prepare")
    finally:
        params.write_text(whole)
    assert list((smoke / "runs").iterdir()) == runs
