"""The study file is read strictly: what does not fit is named, with the nearest that does."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.study import Study, budget_in_macs, load, parse, seed_list
from graphpruning import methods
from graphpruning.errors import UserError

ROOT = Path(__file__).parents[2]
DESK = ROOT / "studies" / "desk.yaml"


def changed(path: str, value: Any) -> dict[str, Any]:
    """The desk study with one value changed; `path` is dotted."""
    raw: dict[str, Any] = yaml.safe_load(DESK.read_text())
    *parents, last = path.split(".")
    place = raw
    for parent in parents:
        place = place[parent]
    place[last] = value
    return raw


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_committed_studies_are_whole_and_fit_on_a_screen(study: Path) -> None:
    raw = load(study)
    assert raw["study"] == study.stem
    assert isinstance(parse(raw), Study)
    methods.check_sources({k: tuple(v) for k, v in raw["searches"].items()})
    lines = study.read_text().splitlines()
    assert len(lines) <= 90 and lines[0].startswith("#")


def test_the_default_study_is_desk() -> None:
    assert (ROOT / "params.yaml").read_text() == DESK.read_text()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("budget", [0.5], "unknown key 'budget'; did you mean 'budgets'"),
        ("search.evaluation", 3, "unknown key 'evaluation'; did you mean 'evaluations'"),
        ("base.recipe.learning_rate", 1, "unknown key 'learning_rate'"),
        ("precision", "bf16", "'bf16' is unknown; did you mean 'bf16-mixed'"),
        ("pruningnet.conditionings", ["grap"], "did you mean 'graph'"),
        ("base.recipe.schedule", "cosin", "did you mean 'cosine'"),
        ("base.recipe.lr", -1, "lr is -1"),
        ("base.recipe.epochs", "three", "'three'"),
        ("search.evaluations", 4.5, "int is expected, not 4.5"),
        ("search.evaluations", True, "int is expected, not True"),
        ("data.flip", 1, "bool is expected"),
        ("models", "resnet20", "a list is expected"),
        ("models", ["resnet56"], "networks has no entry for the model 'resnet56'"),
        ("space", 4, "a mapping is expected"),
        ("budgets", [1.5], "1.5"),
        ("budgets", ["316X"], "316X"),
        ("seeds", ["0,1"], "0,1"),
        ("methods", ["amc"], "`methods` and the lists under `searches`"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(path: str, value: Any, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(changed(path, value))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_key_is_named() -> None:
    raw = yaml.safe_load(DESK.read_text())
    del raw["search"]["evaluations"]
    with pytest.raises(UserError, match="search: key 'evaluations' is missing"):
        parse(raw)


def test_files_that_are_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1,")
    with pytest.raises(UserError, match="not YAML") as refusal:
        load(tmp_path / "params.yaml")
    assert "\n" not in str(refusal.value)


def test_methods_name_the_nearest_and_their_source() -> None:
    with pytest.raises(UserError, match="did you mean 'metapruning'"):
        methods.method("meta-pruning")
    with pytest.raises(UserError, match="amc stands under 'graph'; its place is 'base'"):
        methods.check_sources({"graph": ("amc",)})


def test_budgets_and_seeds() -> None:
    assert budget_in_macs(0.5, 1000) == 500
    assert budget_in_macs("0.25", 1000) == 250
    assert budget_in_macs("316M", 1) == 316_000_000
    assert budget_in_macs("1.5G", 1) == 1_500_000_000
    assert seed_list("0+1+2") == [0, 1, 2] and seed_list("7") == [7]
