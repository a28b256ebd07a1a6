"""The plan counts what a study will do; the numbers of a small study are computed by hand."""

import itertools
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments import plan, plan_speed
from experiments.common.study import Study, parse, read
from experiments.plan import Rates, Row
from experiments.plan_speed import Speeds, Work
from graphpruning.common.errors import UserError

ROOT = Path(__file__).parents[2]

# Multiply-accumulates of the smoke study's ResNet-8 (8, 16 and 32 channels) on 1x16x16 pixels.
STEM = 9 * 1 * 8 * 16**2
STAGE1 = 2 * 9 * 8 * 8 * 16**2
STAGE2 = (9 * 8 * 16 + 9 * 16 * 16 + 8 * 16) * 8**2
STAGE3 = (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32) * 4**2
FULL = STEM + STAGE1 + STAGE2 + STAGE3 + 32 * 10
COUNTS = ("networks", "trained_images", "evaluations", "evaluated_images", "macs")


def smoke(**changes: Any) -> Study:
    """The smoke study in which every width is the full one, with other sections."""
    raw = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    raw["space"] = {"divisor": None, "smallest": 1.0, "ratios": [1.0]}
    return parse({**raw, **changes})


def row(study: Study, stage: str) -> Row:
    (found,) = [row for row in plan.rows(study) if row.stage == stage]
    return found


def test_a_small_study_costs_what_a_hand_computes() -> None:
    train, search, test, candidate = 600 - 100, 100, 200, 50 + 100
    half, seeds = FULL // 2, 2  # all of it is done with either seed
    assert plan.rows(smoke()) == [
        # judged on the search split after each of three epochs and at the end, then on the test set
        Row(
            "train_base",
            "resnet8",
            seeds,
            seeds * 3 * train,
            seeds * (4 + 1),
            seeds * (4 * search + test),
            seeds * FULL * (3 * 3 * train + 4 * search + test),
        ),
        Row("correlation", "resnet8", 0, 0, 0, seeds * 3 * 60, seeds * FULL * 3 * 60),
        # four PruningNets, judged at three widths after each of three epochs, and once more; one
        # runs each image three times
        Row(
            "train_pruningnet",
            "resnet8",
            seeds * 4,
            seeds * 6 * 3 * train,
            seeds * 4 * 10,
            seeds * 4 * 10 * candidate,
            seeds * FULL * (3 * 6 * 3 * train + 4 * 10 * candidate),
        ),
        # by three PruningNets: four candidates, shuffled too, and three of the budget's; two of
        # these trained twice
        Row(
            "analyse_pruningnet",
            "resnet8",
            seeds * 4,
            seeds * 4 * train,
            seeds * (24 + 9 + 4),
            seeds * (33 * candidate + 4 * search),
            seeds * FULL * 24 * candidate
            + seeds * half * (9 * candidate + 4 * (3 * train + search)),
        ),
        # five methods with six evaluations
        Row("search", "resnet8", 0, 0, 60, 60 * candidate, half * 60 * candidate),
        # all begin with weights that are judged before; one has a teacher
        Row(
            "finetune",
            "resnet8",
            10,
            10 * train,
            10,
            10 * search + 10 * test,
            half * 10 * (3 * train + test + search) + seeds * FULL * train,
        ),
        # of one method, once more
        Row(
            "finetune_again",
            "resnet8",
            seeds,
            seeds * train,
            seeds,
            seeds * (search + test),
            seeds * half * (3 * train + test + search),
        ),
    ]


def test_a_model_has_its_own_budgets_recipes_and_weights() -> None:
    recipe = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())["final"]["recipe"]
    own = {
        "options": {"width": 8},
        "budgets": {"small": "0.2M"},
        "recipes": {"final": {**recipe, "epochs": 3}},
        "weights": "base.safetensors",
    }
    study = smoke(networks={"resnet8": own}, budgets=["small"])
    assert row(study, "finetune").trained_images == 10 * 3 * 500
    taught = 2 * FULL * 3 * 500
    assert row(study, "finetune").macs == 200_000 * (10 * (3 * 3 * 500 + 200 + 100)) + taught
    base = row(study, "train_base")
    assert (base.networks, base.trained_images, base.evaluated_images) == (0, 0, 2 * (100 + 200))


def test_a_study_with_one_seed_costs_half_of_one_with_two() -> None:
    """Nothing is shared between replicates."""
    for one, two in zip(plan.rows(smoke(seeds=[5])), plan.rows(smoke()), strict=True):
        assert [2 * getattr(one, key) for key in COUNTS] == [getattr(two, key) for key in COUNTS]


def test_what_begins_with_weights_is_judged_before_its_training() -> None:
    final = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())["final"]
    scratch = smoke(final={**final, "initial": "scratch"})
    before = row(scratch, "finetune").evaluated_images
    for initial in ("inherited", "generated"):
        found = row(smoke(final={**final, "initial": initial}), "finetune").evaluated_images
        assert found == before + (5 - 2) * 2 * 100  # two methods always begin with weights


def test_image_folders_are_listed(tmp_path: Path) -> None:
    for place, count in (("train/a", 300), ("train/b", 299), ("val/a", 30), ("val/b", 10)):
        (tmp_path / place).mkdir(parents=True)
        for number in range(count):
            (tmp_path / place / f"{number}.png").touch()  # not opened
    data = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())["data"]
    how = {**data["preprocessing"], "size": 16}
    data = {**data, "name": "folder", "root": str(tmp_path), "preprocessing": how}
    base = row(smoke(data=data), "train_base")
    assert (base.trained_images, base.evaluated_images) == (2 * 3 * 450, 2 * (4 * 100 + 40))
    full = FULL + 2 * STEM - 32 * (10 - 2)  # three colours, two classes
    assert base.macs == full * (3 * base.trained_images + base.evaluated_images)
    with pytest.raises(UserError, match="data: preprocessing: size is missing"):
        plan.rows(smoke(data={**data, "preprocessing": {**how, "size": None}}))
    with pytest.raises(UserError, match="did you mean 'folder'"):
        plan.rows(smoke(data={**data, "name": "folders"}))


def test_a_pruningnet_costs_the_mean_of_its_widths() -> None:
    study = smoke(space={"divisor": None, "smallest": 0.5, "ratios": [0.5, 1.0]})
    space = plan._space(study, "resnet8", plan._images(study, train=True))
    every = product(*space.levels.values())
    exact = [space.macs(dict(zip(space.groups, vector, strict=True))) for vector in every]
    alike = FULL + 5 * sum(exact) / len(exact)  # of six passes one is at full widths
    alike += space.macs(space.smallest) - sum(exact) / len(exact)  # and one at the smallest
    train, judged = 3 * 2 * 3 * 500, 2 * 4 * 10 * 150
    expected = train * alike + judged * sum(exact) / len(exact)
    assert row(study, "train_pruningnet").macs == pytest.approx(expected, rel=0.02)


def test_hours_are_bound_by_arithmetic_or_by_images() -> None:
    found = Row("finetune", "m", 1, 3600 * 100, 1, 3600 * 300, 3600 * 5 * 10**9)
    assert found.hours(Rates({"m": 2.0}, 1000.0, "")) == pytest.approx(2.5)
    assert found.hours(Rates({"m": 50.0}, 100.0, "")) == pytest.approx(2.0)


def test_a_study_says_what_it_is_expected_to_cost() -> None:
    for name in ("imagenet", "cifar10"):
        path = ROOT / "studies" / f"{name}.yaml"
        study = read(path)
        says = plan.summary(study, plan.rows(study), plan.nominal(study))
        assert f"# {says}" in path.read_text().splitlines()[:10]


def test_the_command_needs_no_data_and_states_its_assumptions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("IMAGENET_DIR", raising=False)
    rows = plan.rows(read(ROOT / "studies/imagenet.yaml"))
    monkeypatch.setattr(plan, "rows", lambda study: rows)  # for both commands: rates change none
    assert plan.main(["imagenet"]) == 0
    *_, assumes, summary = capsys.readouterr().out.splitlines()
    assert "30,000 GMAC/s, at most 2,500 images/s trained (nominal" in assumes
    hours = float(summary.split()[-2].replace(",", ""))
    assert plan.main(["imagenet", "--gmacs-per-second", "15000"]) == 0
    *_, assumes, slower = capsys.readouterr().out.splitlines()
    assert "15,000 GMAC/s (given)" in assumes
    assert float(slower.split()[-2].replace(",", "")) != hours


def test_every_kind_of_work_is_timed_with_the_studys_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that ticks once a look: a step of 50 images takes a second, and so does a judgement
    of all images.
    """
    seen: set[int] = set()

    def ticking(*_: Any) -> Callable[[], float]:
        ticks = itertools.count()

        def clock() -> float:
            seen.add(torch.get_num_threads())
            return float(next(ticks))

        return clock

    monkeypatch.setattr(plan_speed, "_clock", ticking)
    monkeypatch.setattr(plan_speed, "STEPS", 2)  # each takes a second of this clock
    before = torch.get_num_threads()
    study = smoke(threads=3, space={"divisor": 2, "smallest": 0.25, "ratios": None})
    found = plan.measured(study)
    assert seen == {3} and torch.get_num_threads() == before
    assert found.speeds is not None
    of_model = found.speeds["resnet8"]
    assert of_model["training", "full"] == of_model["training", "0.5"] == 50
    assert of_model["pruningnet", "graphpruning-plus"] == 50  # of its batch, three passes or not
    assert of_model["judging", "any"] == of_model["cutting", "0.5"] == 50 + 100
    for row in plan.rows(study):
        assert row.work and {(work.kind, work.at) for work in row.work} <= set(of_model)


def test_measured_hours_are_the_sum_of_the_work() -> None:
    work = (Work("training", "0.5", 3600 * 100), Work("judging", "full", 3600 * 10))
    found = Row("finetune", "m", 1, 3600 * 100, 1, 3600 * 10, 10**15, work)
    speeds: Speeds = {("training", "0.5"): 50.0, ("judging", "full"): 100.0}
    assert found.hours(Rates({}, 1.0, "", {"m": speeds})) == pytest.approx(2.1)


def test_work_is_as_many_images_as_the_row_says() -> None:
    """But a PruningNet's pass three times over is one step, and a teacher's pass is judging."""
    for row in plan.rows(smoke()):
        trained = sum(work.images for work in row.work if work.kind == "training")
        judged = sum(work.images for work in row.work if work.kind in ("judging", "cutting"))
        if row.stage == "train_pruningnet":
            trained = sum(work.images for work in row.work if work.kind == "pruningnet")
            assert trained == 2 * 4 * 3 * 500
        else:
            assert trained == row.trained_images
        assert judged - row.evaluated_images == (2 * 500 if row.stage == "finetune" else 0)


def test_stages_side_by_side_take_less_time_on_the_clock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(plan, "lanes_for", lambda study: 2)
    monkeypatch.setattr(plan, "measured", lambda study: FAST)
    assert plan.main(["smoke", "--measure"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    found = re.search(r"([\d.]+) processor-hours, which are ([\d.]+) hours on the clock", said)
    assert found and said.endswith("(2 stages at a time; 4 s for the start of each of 41)")
    assert float(found[2]) == pytest.approx((float(found[1]) + 41 * 4 / 3600) / 2, rel=0.1)


class Everything(dict[tuple[str, str], float]):
    def __missing__(self, work: tuple[str, str]) -> float:
        return 10.0


FAST = Rates({}, 1.0, "measured", {"resnet8": Everything()})


def test_several_trainings_and_a_second_kind_are_counted() -> None:
    final = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())["final"]
    one = row(smoke(), "finetune")
    second = {"initial": "inherited", "recipe": {**final["recipe"], "epochs": 2}}
    none = {"methods": [], "trainings": []}
    more = row(smoke(final={**final, "trainings": 3, "second": second}, again=none), "finetune")
    assert more.networks == 2 * 3 * one.networks
    assert more.trained_images == 3 * (1 + 2) * one.trained_images
    assert more.evaluated_images == 2 * 3 * one.evaluated_images


def test_further_trainings_are_counted_as_the_first_ones_are() -> None:
    final = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())["final"]
    second = {"initial": "inherited", "recipe": {**final["recipe"], "epochs": 2}}
    study = smoke(final={**final, "second": second})
    again = {"methods": list(study.methods), "trainings": [1, 2, 3]}
    more = row(smoke(final={**final, "second": second}, again=again), "finetune_again")
    first = row(smoke(), "finetune")
    assert more.networks == 3 * first.networks and more.macs == 3 * first.macs
    assert more.trained_images == 3 * first.trained_images  # the second kind is not done again
    none = smoke(again={"methods": [], "trainings": []})
    assert row(none, "finetune_again").networks == 0
    assert plan.stages_of(study) - plan.stages_of(none) == len(study.seeds)


def test_a_pruningnets_own_recipe_and_the_analysiss_own_budgets_are_counted() -> None:
    raw = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    nets = raw["pruningnet"]
    own = {"graphpruning-plus": {**nets["recipe"], "epochs": 2}}
    study = smoke(pruningnet={**nets, "recipes": own})
    assert row(study, "train_pruningnet").trained_images == 2 * 500 * (3 * 3 + 3 * 2)
    study = smoke(analysis={**raw["analysis"], "budgets": [0.75, 0.5]})
    assert (
        row(study, "analyse_pruningnet").networks == 2 * row(smoke(), "analyse_pruningnet").networks
    )
    assert row(study, "search") == row(smoke(), "search")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cifr10"], "there is no studies/cifr10.yaml; did you mean 'cifar10'?"),
        (["smoke", "--gmacs-per-second", "0"], "'0' is not a number above 0"),
        (["smoke", "--gmacs-per-second", "fast"], "'fast' is not a number above 0"),
        (["smoke", "--measure", "--gmacs-per-second", "1"], "not allowed with"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    try:
        code = plan.main(arguments)
    except SystemExit as left:  # argparse's own refusal
        code = int(str(left.code))
    assert code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_a_budget_above_the_whole_network_is_refused() -> None:
    with pytest.raises(UserError, match=r"budget '1M' is more than the 772,416 MACs of"):
        plan.rows(smoke(budgets=["1M"]))
