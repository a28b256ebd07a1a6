"""What a stage checks and remembers before it works."""

import sys
from copy import deepcopy
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from experiments import analyse_pruningnet
from experiments.common.stage import Context, check_items
from experiments.common.study import parse
from graphpruning.common.errors import UserError
from tests import processes
from tests.experiments.test_pipeline import ENVIRONMENT

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw() -> dict[str, Any]:
    """The smoke study with a second model."""
    study: dict[str, Any] = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    study["models"] = ["resnet8", "resnet20"]
    study["networks"]["resnet20"] = deepcopy(study["networks"]["resnet8"])
    return study


def context(raw: dict[str, Any], **items: str) -> Context:
    return Context("some_stage", ("networks", "data"), parse(raw), items)


def test_a_checkpoint_depends_on_its_own_models_network(raw: dict[str, Any]) -> None:
    one, two = context(raw, model="resnet8"), context(raw, model="resnet20")
    of_all = context(raw)
    before = [held.fingerprint() for held in (one, two, of_all)]
    raw["networks"]["resnet8"] = {}
    after = [
        held.fingerprint()
        for held in (context(raw, model="resnet8"), context(raw, model="resnet20"), context(raw))
    ]
    assert [then == now for then, now in zip(before, after, strict=True)] == [False, True, False]


def test_a_checkpoint_depends_on_the_stages_own_file(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs as `__main__`, and every other module keeps its name."""
    own = tmp_path / "of_this_test.py"  # no module that another test imports
    own.write_text("one")
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec("experiments.of_this_test", None, origin=str(own))
    monkeypatch.setitem(sys.modules, "__main__", main)
    before = context(raw).fingerprint()
    assert context(raw).fingerprint() == before
    own.write_text("two")
    assert context(raw).fingerprint() != before


def test_a_checkpoint_depends_on_the_images_not_on_where_and_by_how_many_they_are_read(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = context(raw).fingerprint()
    raw["data"] |= {"root": "elsewhere", "workers": 3}
    assert context(raw).fingerprint() == before
    (tmp_path / "data/manifests").mkdir(parents=True)
    (tmp_path / "data/manifests/smoke.tsv.gz").write_bytes(b"a list")
    listed = context(raw).fingerprint()
    assert listed != before
    raw["data"]["seed"] = 1
    assert context(raw).fingerprint() != listed


def test_items_name_a_stage_and_its_files(raw: dict[str, Any]) -> None:
    held = context(raw, model="resnet8", conditioning="graph", seed="3")
    assert held.name == "some_stage@smoke-resnet8-graph-3"
    assert held.seed == 3
    assert held.folder("pruningnet") == Path("results/smoke/pruningnet/resnet8/graph/3")
    assert held.weights_file("final") == Path("models/smoke/final/resnet8/graph/3.safetensors")
    assert held.weights_of("graph") == Path("models/smoke/resnet8/3/graph.safetensors")
    assert held.checkpoints == Path("checkpoints/smoke/some_stage/resnet8-graph-3")


def test_replicates_do_not_go_on_from_each_others_checkpoints(raw: dict[str, Any]) -> None:
    one, two = (context(raw, model="resnet8", seed=seed) for seed in ("0", "1"))
    assert one.checkpoints != two.checkpoints
    assert one.fingerprint() != two.fingerprint()


def test_a_section_that_is_not_declared_cannot_be_used(raw: dict[str, Any]) -> None:
    """Else DVC would not know that the stage depends on it."""
    held = analyse_pruningnet.STAGE._context(parse(raw), {"model": "resnet8", "seed": "0"})
    assert held.study.analysis.trained == 2
    with pytest.raises(AssertionError, match="'search' is used but not declared"):
        _ = held.study.search


@pytest.mark.parametrize(
    ("item", "value", "says"),
    [
        ("model", "resnet9", "did you mean 'resnet8'"),
        ("method", "acm", "did you mean 'amc'"),
        ("budget", "0.6", "did you mean '0.5'"),
        ("seed", "2", "did you mean '"),
        ("seed", "00", "did you mean '0'"),
        ("conditioning", "grph", "did you mean 'graph'"),
    ],
)
def test_an_item_that_the_study_does_not_list(
    raw: dict[str, Any], item: str, value: str, says: str
) -> None:
    study = parse(raw)
    right = {"model": "resnet20", "method": "amc", "budget": "0.5", "seed": "1"}
    check_items({**right, "conditioning": "constant"}, study)
    with pytest.raises(UserError, match=f"{item}={value} is not in params.yaml: {says}"):
        check_items({**right, item: value}, study)


@pytest.mark.parametrize(
    ("further", "item", "says"),
    [
        ([1], {"training": "2"}, "training=2 is not in again of params.yaml: did you mean '1'"),
        (
            [1],
            {"method": "amc"},
            "method=amc is not in again of params.yaml: did you mean 'graphpruning'",
        ),
        ([], {}, "method=graphpruning is not in again of params.yaml: none is"),
    ],
)
def test_a_further_training_that_the_study_does_not_list(
    raw: dict[str, Any], further: list[int], item: dict[str, str], says: str
) -> None:
    items = {"method": "graphpruning", "seed": "0", "training": "1"}
    once = {"methods": ["graphpruning"], "trainings": [1]}
    check_items(items, parse({**raw, "again": once}))
    study = parse({**raw, "again": once if further else {"methods": [], "trainings": []}})
    with pytest.raises(UserError, match=says):
        check_items({**items, **item}, study)


COUNTED = """
import runpy, sys
from experiments.common import study_file
from graphpruning.common import validated

calls = []

def counted(module, name):
    whole = getattr(module, name)

    def call(*arguments):
        calls.append(name)
        return whole(*arguments)

    setattr(module, name, call)

counted(study_file, "read_study_file")
counted(validated, "validated")
for words in [], ["with", "title=Other"]:
    sys.argv = ["prepare", *words]
    runpy.run_module("experiments.prepare", run_name="__main__", alter_sys=True)
    made = open("results/smoke/study.json").read()
    print("read:", *sorted(calls), "title: Other" if '"title": "Other"' in made else "")
    calls.clear()
"""


def test_a_stage_reads_its_study_once(tmp_path: Path) -> None:
    """And checks it once more, if the command line changes it. One process runs it twice."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "studies/smoke.yaml").read_bytes())
    command = [sys.executable, "-c", COUNTED]
    done = processes.run(command, tmp_path, {**ENVIRONMENT, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines() if line.startswith("read:")] == [
        ["read:", "read_study_file", "validated"],
        ["read:", "read_study_file", "validated", "validated", "title:", "Other"],
    ]
