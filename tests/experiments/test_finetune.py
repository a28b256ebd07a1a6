"""Final trainings: several of one network, and a second kind of them."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml

from experiments import (
    analyse_pruningnet,
    finetune,
    finetune_again,
    prepare,
    search,
    train_base,
    train_pruningnet,
)
from experiments.common.study import Study, parse
from graphpruning.search import racing
from graphpruning.training import datasets, loop
from tests.experiments.stages import work

ROOT = Path(__file__).parents[2]
REPLICATE = {"model": "resnet8", "seed": "0"}
METHODS = ("graphpruning", "generated")
MEASURED = ("initial", "search_top1_before", "test_top1", "test_top5", "epochs")


def study(trainings: int = 1, initial: str = "scratch", second: str | None = None) -> Study:
    """The smoke study with two methods; its second kind of final training has two epochs."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    raw["seeds"], raw["methods"] = [0], list(METHODS)
    raw["searches"] = {**{key: [] for key in raw["searches"]}, "graph": list(METHODS)}
    for section in ("base", "pruningnet"):
        raw[section]["recipe"] = {**raw[section]["recipe"], "epochs": 1}
    raw["again"] = {"methods": [], "trainings": []}
    final = raw["final"] | {"initial": initial, "trainings": trainings}
    if second:
        longer = {**final["recipe"], "epochs": 2}
        final["second"] = {"initial": second, "recipe": longer}
    return parse({**raw, "final": final})


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the networks are found."""
    folder = tmp_path_factory.mktemp("finetune")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        work(prepare.STAGE, prepare.STAGE._context(study(), {}))
        work(train_base.STAGE, train_base.STAGE._context(study(), REPLICATE))
        items = {"model": "resnet8", "conditioning": "graph", "seed": "0"}
        work(train_pruningnet.STAGE, train_pruningnet.STAGE._context(study(), items))
        for method in METHODS:
            work(search.STAGE, search.STAGE._context(study(), items_of(method)))
    return folder


def items_of(method: str) -> dict[str, str]:
    return {"model": "resnet8", "method": method, "budget": "0.5", "seed": "0"}


Left = dict[str, Any]
"""What the stage leaves: by file, JSON and CSV as data, and the weights as bytes."""


@pytest.fixture(scope="module")
def left(searched: Path) -> Callable[[str, Study], Left]:
    """What the stage leaves undisturbed, for a method and a study, and what it does ("events"); it
    runs once for each.
    """
    known: list[tuple[str, Study, Left]] = []

    def left(method: str, chosen: Study) -> Left:
        for of_method, of_study, found in known:
            if (of_method, of_study) == (method, chosen):
                return found
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(searched)
            events = recorded(patch)
            found = {**trained(method, chosen), "events": events}
        known.append((method, chosen, found))
        return found

    return left


def trained(method: str, chosen: Study) -> Left:
    """Run the stage, and read what it leaves."""
    work(finetune.STAGE, finetune.STAGE._context(chosen, items_of(method)))
    folder = Path(f"results/smoke/final/resnet8/{method}/0.5/0")
    weights = Path(f"models/smoke/final/resnet8/{method}/0.5/0.safetensors").read_bytes()
    return {
        "metrics": json.loads((folder / "metrics.json").read_text()),
        "trainings": list(csv.DictReader((folder / "trainings.csv").read_text().splitlines())),
        "run": json.loads((folder / "run.json").read_text()),
        "network": [
            weights,
            (folder / "curve.csv").read_bytes(),
            (folder / "architecture.json").read_bytes(),
        ],
    }


def test_several_trainings_differ_and_the_first_is_the_only_one_of_a_study_with_one(
    left: Callable[[str, Study], Left],
) -> None:
    one, three = (left("graphpruning", study(count)) for count in (1, 3))
    assert one["network"] == three["network"]
    assert one["trainings"] == three["trainings"][:1]
    assert (one["metrics"]["trainings"], one["metrics"]["second"]) == (1, None)
    top1 = [float(row["test_top1"]) for row in three["trainings"]]
    assert one["metrics"]["test_top1"] == top1[0] and len(set(top1)) > 1
    assert three["metrics"]["test_top1"] == pytest.approx(fmean(top1), abs=1e-3)
    assert three["run"]["images_seen"] == 3 * one["run"]["images_seen"]


def test_further_trainings_are_those_that_a_larger_number_would_have_given(
    searched: Path, left: Callable[[str, Study], Left], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And they leave what is there as it is."""
    monkeypatch.chdir(searched)
    for method, further in zip(METHODS, ((1, 2), (1,)), strict=True):
        more, one = left(method, study(1 + len(further))), trained(method, study())
        for number in further:
            items = {**items_of(method), "training": str(number)}
            work(finetune_again.STAGE, finetune_again.STAGE._context(study(), items))
            folder = Path(f"results/smoke/final/again/resnet8/{method}/0.5/0/{number}")
            metrics = json.loads((folder / "metrics.json").read_text())
            row = more["trainings"][number]
            assert row["initial"] == metrics["initial"]
            assert float(row["test_top1"]) == pytest.approx(metrics["test_top1"], abs=1e-4)
            assert float(row["test_top5"]) == pytest.approx(metrics["test_top5"], abs=1e-4)
            run = json.loads((folder / "run.json").read_text())
            assert run["images_seen"] == one["run"]["images_seen"]
            assert run["stage"] == f"finetune_again@smoke-resnet8-{method}-0.5-0-{number}"
        now = Path(f"results/smoke/final/resnet8/{method}/0.5/0/trainings.csv")
        assert list(csv.DictReader(now.read_text().splitlines())) == one["trainings"]
    assert not list(Path("checkpoints").rglob("*.pt"))


def test_fresh_weights_of_each_training_are_their_own(
    searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those of the second kind are drawn again from the same seeds."""
    begins = started(monkeypatch)
    monkeypatch.chdir(searched)
    trained("graphpruning", study(2, second="scratch"))
    main, second = begins[:2], begins[2:]
    assert main[0] != main[1] and second == main


def started(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list that each training adds the sum of its first weights to."""
    begins: list[float] = []
    whole = finetune.fit

    def fit(fabric: Any, model: Any, *more: Any, **named: Any) -> Any:
        begins.append(sum(weight.abs().sum().item() for weight in model.parameters()))
        return whole(fabric, model, *more, **named)

    monkeypatch.setattr(finetune, "fit", fit)
    return begins


def test_the_second_kind_is_what_a_study_with_it_alone_would_measure(
    left: Callable[[str, Study], Left],
) -> None:
    both = left("graphpruning", study(2, second="inherited"))
    scratch = left("graphpruning", study(2))
    assert both["network"] == scratch["network"]
    for key in MEASURED:
        assert both["metrics"][key] == scratch["metrics"][key]
    second = both["metrics"]["second"]
    assert set(second) == set(MEASURED)
    assert (second["initial"], second["epochs"]) == ("inherited", 2)
    assert second["search_top1_before"] is not None
    assert [(row["kind"], row["training"], row["initial"]) for row in both["trainings"]] == [
        ("main", "0", "scratch"),
        ("main", "1", "scratch"),
        ("second", "0", "inherited"),
        ("second", "1", "inherited"),
    ]
    (top1,) = {fmean(float(r["test_top1"]) for r in both["trainings"] if r["kind"] == "second")}
    assert second["test_top1"] == pytest.approx(top1, abs=1e-3)


def recorded(patch: pytest.MonkeyPatch) -> list[str]:
    """What a stage does, in order: it reads images ("train", "test"), and has trained ("fit")."""
    seen: list[str] = []
    of_loader, of_finetune = datasets.LOADERS["generated"], finetune.fit

    def load(root: Path, train: bool) -> Any:
        seen.append("train" if train else "test")
        return of_loader(root, train)

    def fit(*arguments: Any, **named: Any) -> Any:
        records = of_finetune(*arguments, **named)
        seen.append("fit")
        return records

    patch.setitem(datasets.LOADERS, "generated", load)
    patch.setattr(finetune, "fit", fit)
    return seen


def test_pruningnet_analysis_and_search_never_read_the_test_images(
    searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What decides on widths sees training images alone; the search split is held out of them."""
    events = recorded(monkeypatch)
    monkeypatch.chdir(searched)
    chosen = study()
    least = replace(chosen.analysis, conditionings=("graph",), trained=1, trainings=1)
    chosen = replace(chosen, analysis=least)
    for stage, items in (
        (train_pruningnet.STAGE, {"model": "resnet8", "conditioning": "graph", "seed": "0"}),
        (analyse_pruningnet.STAGE, REPLICATE),
        (search.STAGE, items_of("graphpruning")),
    ):
        work(stage, stage._context(chosen, items))
        assert "train" in events and "test" not in events, stage.module
        events.clear()


def test_the_test_images_are_read_once_for_each_training_and_after_it(
    left: Callable[[str, Study], Left],
) -> None:
    events = left("graphpruning", study(2, second="inherited"))["events"]
    assert [event for event in events if event != "train"] == 4 * ["fit", "test"]


def test_what_a_method_begins_with_holds_for_both_kinds(
    left: Callable[[str, Study], Left],
) -> None:
    found = left("generated", study(second="inherited"))
    assert {row["initial"] for row in found["trainings"]} == {"generated"}
    assert found["metrics"]["initial"] == found["metrics"]["second"]["initial"] == "generated"


@pytest.mark.parametrize("ended", [1, 2, 3])
def test_a_killed_stage_goes_on_at_the_training_that_it_was_in(
    searched: Path,
    left: Callable[[str, Study], Left],
    monkeypatch: pytest.MonkeyPatch,
    ended: int,
) -> None:
    """Of two epochs and two trainings each; what was trained before the end is not repeated."""
    monkeypatch.chdir(searched)
    chosen = study(2, second="inherited")
    whole = left("graphpruning", chosen)
    epochs: list[int] = []
    of_loop = loop._Run.epoch

    def epoch(run: Any, number: int, bar: Any) -> Any:
        if len(epochs) == ended + 1 and not resumed:
            raise KeyboardInterrupt
        epochs.append(number)
        return of_loop(run, number, bar)

    monkeypatch.setattr(loop._Run, "epoch", epoch)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        trained("graphpruning", chosen)
    resumed = True
    again = trained("graphpruning", chosen)
    assert epochs == [1, 1, 1, 2, 1, 2]  # none twice: main, main, second, second
    assert again["run"]["resumed"] is True and not whole["run"]["resumed"]
    assert all(again[part] == whole[part] for part in ("metrics", "trainings", "network"))


def test_a_raced_search_says_how_many_accuracies_are_estimates(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a chance so high that whatever is behind is stopped; what is found is judged whole."""
    shutil.copytree(searched, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(racing, "CHANCE", 3.6)
    chosen = study()
    raced = replace(chosen, search=replace(chosen.search, racing=True))
    found = {}
    for name, each in (("whole", chosen), ("raced", raced)):
        work(search.STAGE, search.STAGE._context(each, items_of("graphpruning")))
        folder = Path("results/smoke/search/resnet8/graphpruning/0.5/0")
        found[name] = json.loads((folder / "metrics.json").read_text())
    assert "estimated" not in found["whole"] and 0 < found["raced"]["estimated"] < 6
    assert found["raced"]["images_seen"] < found["whole"]["images_seen"]
    assert found["raced"]["top1_search"] == round(found["raced"]["top1_search"])  # of 100 images
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    at = [float(row["top1"]) for row in rows]
    assert found["raced"]["top1_search"] in at and float(rows[-1]["best"]) == max(at)
