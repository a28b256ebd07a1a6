"""Stages in two processes leave what one would leave.

Under a real torchrun where that is the subject; else forked, in the environment that it gives.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.common.processes import PROCESSES, spread_out
from graphpruning.common.errors import UserError
from tests import processes
from tests.experiments.ranks import launched, of_rank, run_by_two
from tests.experiments.test_pipeline import ENVIRONMENT, copy_repository, run
from tests.test_distributed import torchrun

RESULTS = Path("results/smoke")
WEIGHTS = Path("models/smoke")
# At this rate, rounding does not grow: see test_distributed.py.
TRAIN = [
    "experiments.train_base",
    "with",
    "model=resnet8",
    "seed=0",
    "base.recipe.lr=0.003",
    "base.recipe.epochs=2",
]
SEARCH = ["experiments.search", "with", "model=resnet8", "method=amc", "budget=0.5", "seed=0"]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a base that one process has trained."""
    folder = copy_repository(tmp_path_factory.mktemp("smoke"))
    for arguments in (["experiments.prepare"], TRAIN):
        done = run(folder, sys.executable, "-m", *arguments)
        assert done.returncode == 0, done.stderr
    return folder


def files(folder: Path) -> dict[Path, bytes]:
    """What a stage has left, but for the times that it took."""
    return {
        path.relative_to(folder): path.read_bytes()
        for top in (RESULTS, WEIGHTS, Path("checkpoints"))
        for path in (folder / top).rglob("*")
        if path.is_file() and path.name not in ("run.json", "cout.txt")
    }


def records(folder: Path) -> set[str]:
    return {path.name for path in (folder / "runs").iterdir()}


def require_one_more(folder: Path, before: set[str]) -> None:
    """Two processes make one Sacred run."""
    (new,) = records(folder) - before
    assert json.loads((folder / "runs" / new / "run.json").read_text())["status"] == "COMPLETED"


@pytest.fixture(scope="module")
def common() -> Iterator[dict[str, str]]:
    """The environment of two processes, but for what is of each."""
    with launched(ENVIRONMENT) as known:
        yield known


def test_a_training_stage_starts_several_processes_by_itself(smoke: Path) -> None:
    """So that the command, which DVC records, is the same on every machine."""
    base = RESULTS / "base/resnet8/0"
    one, known = files(smoke), records(smoke)
    environment = {**ENVIRONMENT, PROCESSES: "2"}
    done = processes.run([sys.executable, "-m", *TRAIN], smoke, environment)
    assert done.returncode == 0, done.stderr
    require_one_more(smoke, known)
    said = done.stdout
    two = files(smoke)
    assert said.count("epoch 1/2") == said.count("epoch 2/2") == 1
    assert set(one) == set(two)
    for name in (base / "metrics.json", base / "graph.json"):
        assert one[name] == two[name]
    (rows, other) = (
        list(csv.DictReader(held[base / "curve.csv"].decode().splitlines())) for held in (one, two)
    )
    for kind in ("train_loss", "train_top1", "search_top1"):
        values = [float(row[kind]) for row in rows]
        assert [float(row[kind]) for row in other] == pytest.approx(values, abs=1e-5)
    sidecar = json.loads((smoke / base / "run.json").read_text())
    assert sidecar["hardware"]["processes"] == 2
    assert sidecar["command"] == "python -m experiments.train_base with model=resnet8 seed=0"


def test_a_search_stage(smoke: Path, common: dict[str, str]) -> None:
    command = [sys.executable, "-m", *SEARCH]
    done = run(smoke, *command)
    assert done.returncode == 0, done.stderr
    one, known = files(smoke), records(smoke)
    run_by_two(command, smoke, common)
    require_one_more(smoke, known)
    assert files(smoke) == one
    assert RESULTS / "search/resnet8/amc/0.5/0/metrics.json" in one
    assert WEIGHTS / "searched/resnet8/amc/0.5/0.safetensors" in one


def test_a_refusal_is_one_line_and_ends_all(smoke: Path) -> None:
    before = files(smoke)
    done = torchrun("-m", *TRAIN, "base.recipe.batch_size=25", folder=smoke)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "batch_size 25 is not a multiple of the 2 processes" in line
    assert done.stderr.count("exitcode  : 2 ") == 2
    assert files(smoke) == before


@pytest.mark.parametrize("wanted", ["many", "0", "-1", "1.5"])
def test_no_number_of_processes_is_refused(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROCESSES, wanted)
    with pytest.raises(UserError, match=f"^{PROCESSES}={wanted}: say how many"):
        spread_out("experiments.train_base")


def test_a_stage_of_one_process_is_the_first_ones_alone(
    smoke: Path, common: dict[str, str]
) -> None:
    """It may unpack ImageNet for hours, longer than processes wait for each other."""
    before, known = files(smoke), records(smoke)
    sidecar = smoke / RESULTS / "splits/run.json"
    sidecar.unlink()
    ended = {}
    for rank in "10":  # neither waits for the other
        command = [sys.executable, "-m", "experiments.prepare"]
        done = processes.run(command, smoke, {**common, **of_rank(rank, 1)}, seconds=120)
        assert done.returncode == 0, done.stderr
        ended[rank] = (len(records(smoke) - known), sidecar.exists())
    assert ended == {"1": (0, False), "0": (1, True)}
    assert files(smoke) == before
    assert json.loads(sidecar.read_text())["hardware"]["processes"] == 1
