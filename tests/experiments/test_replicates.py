"""A seed is a whole replicate: the stages of one seed give the same, whichever others there are."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import finetune, prepare, search, train_base, train_pruningnet
from experiments.common.stage import Stage
from experiments.common.study import parse
from tests.experiments.stages import work

ROOT = Path(__file__).parents[2]
MODEL = {"model": "resnet8"}
FOUND = {**MODEL, "method": "graphpruning", "budget": "0.5"}
STAGES: list[tuple[Stage, dict[str, str]]] = [
    (train_base.STAGE, MODEL),
    (train_pruningnet.STAGE, {**MODEL, "conditioning": "graph"}),
    (search.STAGE, FOUND),
    (finetune.STAGE, FOUND),
]


def smoke(*seeds: int) -> dict[str, Any]:
    """The smoke study with these seeds, one method and short trainings."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    raw["seeds"] = list(seeds)
    raw["methods"] = ["graphpruning"]
    raw["searches"] = {**{key: [] for key in raw["searches"]}, "graph": ["graphpruning"]}
    for section in ("base", "pruningnet", "final"):
        raw[section]["recipe"] = {**raw[section]["recipe"], "epochs": 1}
    return raw


def run(folder: Path, *seeds: int) -> dict[str, bytes]:
    """Run all stages of the study in `folder`; return what they leave but for times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = parse(smoke(*seeds))
        work(prepare.STAGE, prepare.STAGE._context(study, {}))
        for seed in seeds:
            for stage, items in STAGES:
                work(stage, stage._context(study, {**items, "seed": str(seed)}))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for top in ("results/smoke", "models/smoke")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file() and path.name not in ("run.json", "study.json")
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return run(tmp_path_factory.mktemp("both"), 0, 1)


def of_seed(files: dict[str, bytes], seed: int) -> dict[str, bytes]:
    """Files of one replicate, named without its seed."""
    marks = (f"/{seed}/", f"/{seed}.safetensors")
    return {
        name.replace(mark, mark.replace(str(seed), "SEED")): content
        for name, content in files.items()
        for mark in marks
        if mark in name
    }


def test_one_seed_alone_gives_what_it_gives_beside_others(
    both: dict[str, bytes], tmp_path: Path
) -> None:
    """So a study can get another seed later, and what is there stays."""
    alone = run(tmp_path, 1)
    assert of_seed(alone, 1) == of_seed(both, 1)
    assert {**both, **alone} == both  # the splits too


def test_replicates_differ_in_weights_curves_searches_and_final_networks(
    both: dict[str, bytes],
) -> None:
    one, two = of_seed(both, 0), of_seed(both, 1)
    assert one.keys() == two.keys()
    same = {name for name in one if one[name] == two[name]}
    assert all(name.endswith("graph.json") for name in same)  # the network, before any training
    for expected in (
        "models/smoke/resnet8/SEED/base.safetensors",
        "models/smoke/resnet8/SEED/graph.safetensors",
        "results/smoke/base/resnet8/SEED/curve.csv",
        "results/smoke/search/resnet8/graphpruning/0.5/SEED/history.csv",
        "models/smoke/searched/resnet8/graphpruning/0.5/SEED.safetensors",
        "models/smoke/final/resnet8/graphpruning/0.5/SEED.safetensors",
    ):
        assert expected in one and expected not in same
