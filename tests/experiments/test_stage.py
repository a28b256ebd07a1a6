"""What a stage checks and remembers before it works."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from experiments.common.stage import Context, check_items, output
from experiments.common.study import load, parse
from graphpruning.common.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw() -> dict[str, Any]:
    """The smoke study with a second model."""
    study = load(ROOT / "studies/smoke.yaml")
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


def test_conditionings_name_a_stage_but_no_folder(raw: dict[str, Any]) -> None:
    held = context(raw, model="resnet8", conditionings="graph+none")
    assert held.name == "some_stage@smoke-resnet8-graph+none"
    assert output(held, "experiments.analyse_pruningnet") == Path("results/smoke/generated/resnet8")


@pytest.mark.parametrize(
    ("known", "says"), [(["graph", "block"], r"did you mean 'graph'\?"), ([], "there are none")]
)
def test_an_item_that_the_study_does_not_list(known: list[str], says: str) -> None:
    raw = {"pruningnet": {"conditionings": known}}
    check_items({"seeds": "0", "model": "a"}, {"models": ["a"]})
    with pytest.raises(UserError, match=f"conditioning=grph is not in params.yaml: {says}"):
        check_items({"conditioning": "grph"}, raw)
