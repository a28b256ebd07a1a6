"""The pipeline of Channel-Bench-Macro: from images to its tables and figure, at toy size."""

import csv
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch import Generator

from experiments.channel_bench import judge, prepare, score, search, train_pruningnet
from experiments.channel_bench.study import parse
from experiments.common.inputs import split, training_images
from experiments.common.stage import Context
from experiments.common.study_file import read_study_file
from graphpruning import channel_bench as tables
from graphpruning.common.budget import budget_in_macs
from graphpruning.common.errors import UserError
from graphpruning.methods import METHODS, SearchSettings, Task, run
from graphpruning.network.graph import Widths
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.search.history import Journal
from paper import channel_bench
from paper.reader.channel_bench import read
from tests.coloured_images import coloured_images
from tests.experiments.stages import work
from tests.made_up_tables import write_tables

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "channel_bench/params.yaml"
MODEL = "channel_bench_mobilenet"
BUDGET = 0.09
RESULTS = Path("results/channel-bench")


def study(**changes: Any) -> dict[str, Any]:
    """The committed study at toy size; changes replace whole sections."""
    raw: dict[str, Any] = yaml.safe_load(PARAMS.read_text())
    raw |= {"models": [MODEL], "networks": {MODEL: {}}, "seeds": [0]}
    raw["data"] |= {"search_images": 9, "calibration_images": 12, "recalibration_images": 6}
    raw["space"]["filled"] = 0.9
    raw["precision"] = "32-true"
    raw["pruningnet"]["recipe"] |= {"epochs": 0.5, "batch_size": 16, "warmup_epochs": 0}
    raw |= {"budgets": [BUDGET], "judged": {"candidates": 4, "within": 4}}
    raw["search"] = {"models": [MODEL], "source": "graph", "evaluations": 5, "plays": 2}
    return raw | changes


def searches(**changes: Any) -> dict[str, Any]:
    plan = {"models": [MODEL], "source": "graph", "evaluations": 5, "plays": 2}
    return plan | changes


def context(stage: Any, raw: dict[str, Any], **items: str) -> Context:
    made: Context = stage.STAGE._context(parse(raw), items)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the pipeline has run."""
    folder = tmp_path_factory.mktemp("bench")
    (coloured_images(folder / "images") / "val").rename(folder / "images/test")
    (folder / "tables").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CIFAR10_IMAGES", str(folder / "images"))
        patch.setenv("CHANNEL_BENCH", str(write_tables(folder / "tables", patch)))
        patch.setattr(score, "RESAMPLES", 50)  # of intervals whose ends nobody here looks at
        raw = study()
        work(prepare.STAGE, context(prepare, raw))
        for name in raw["pruningnet"]["conditionings"]:
            items = {"model": MODEL, "conditioning": name, "seed": "0"}
            for stage in (train_pruningnet, judge):
                work(stage.STAGE, context(stage, raw, **items))
        for stage in (score, search):
            work(stage.STAGE, context(stage, raw, model=MODEL, seed="0"))
        assert channel_bench.main([str(RESULTS)]) == 0
        yield folder


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scored(folder: Path, name: str) -> list[dict[str, str]]:
    stage = "scored" if name in ("agreement.csv", "marks.csv") else "searched"
    return rows(folder / RESULTS / stage / MODEL / "0" / name)


def test_its_searches_are_judged_by_networks_that_fill_the_budget(made: Path) -> None:
    by_source = rows(made / RESULTS / f"generated/{MODEL}/graph/0/generated.csv")
    filling = [row for row in by_source if row["budget"] == "0.09"]
    full = 211_281_920
    assert len(filling) == len({row["widths"] for row in filling}) > 5
    assert all(0.9 * BUDGET * full <= int(row["macs"]) <= BUDGET * full for row in filling)
    others = rows(made / RESULTS / f"generated/{MODEL}/block/0/generated.csv")
    assert [row["widths"] for row in others] == [row["widths"] for row in by_source][: len(others)]


def test_the_images_that_recalibrate_are_of_all_classes(made: Path) -> None:
    """The first calibration images do it; a folder's own order would make them of one class."""
    judging = context(judge, study(), model=MODEL, conditioning="graph", seed="0")
    images = training_images(judging)
    first = split(judging, "calibration")[: judging.study.data.recalibration_images]
    counts = torch.bincount(images.labels[first], minlength=len(images.classes))
    assert len(images.classes) > 1 and counts.max() - counts.min() <= 1


@pytest.fixture(scope="module")
def resnets() -> SearchSpace:
    """The widths of the tables' ResNet."""
    graph = trace(build("channel_bench_resnet"))
    return SearchSpace(graph, divisor=None, ratios=tables.RATIOS, filled=0.97)


@pytest.fixture(scope="module")
def filling(resnets: SearchSpace) -> set[tuple[int, ...]]:
    """Those that are judged within a quarter of its MACs."""
    return {resnets.vector(one) for one in judge._filling(resnets, 0.25, None, seed=0)}


@pytest.mark.parametrize("name", ["random", "metapruning", "predictor", "hand-crafted", "amc"])
def test_what_searchers_ask_about_was_judged(
    name: str, resnets: SearchSpace, filling: set[tuple[int, ...]]
) -> None:
    """In the ResNet's space some networks cannot come near a quarter of its MACs, and are met."""
    space = resnets
    asked: list[tuple[int, ...]] = []

    class Asked:
        evaluations, history = 80, tables.Judged()

        def __call__(self, widths: Widths) -> float:
            asked.append(space.vector(widths))
            self.history.append(len(asked))
            return float(len(asked) % 7 + sum(asked[-1]) / 1000)

    budget = budget_in_macs(0.25, space.macs(space.full))
    settings = SearchSettings.scaled(Asked.evaluations)
    generator = Generator().manual_seed(0)
    run(Task(METHODS[name], space, budget, cast(Journal, Asked()), generator, settings))
    assert set(asked) <= filling and len(filling) < 1000


def test_the_truth_agrees_with_itself_wholly_where_trainings_do(made: Path) -> None:
    """The made-up trainings differ by a constant, so one ranks networks as the others do."""
    taus = {
        (row["rated_by"], row["budget"]): float(row["tau"] or "nan")
        for row in scored(made, "agreement.csv")
    }
    assert taus["trained", "any"] == taus["trained", "0.09"] == 1
    assert {name for name, _ in taus} == {"graph", "constant", "block", "macs", "trained"}


def test_a_searcher_finds_what_the_tables_say_of_it(made: Path) -> None:
    """The made-up truth of widths is 51 points and the sum of their levels' places."""
    found = scored(made, "searches.csv")
    levels = channel_bench_levels()
    within = truths_within(BUDGET)
    for row in found:
        widths = [int(width) for width in row["widths"].split("-")]
        digits = [1 + of.index(width) for of, width in zip(levels, widths, strict=True)]
        truth = 51 + sum(digits)
        rank = int(row["rank"])
        if row["reward"] == "trained":  # of three trainings, the two that were no reward
            truth = (3 * truth - float(row["reward_top1"])) / 2
            assert 1 <= rank <= len(within)
        else:
            assert rank == 1 + int((within > truth).sum())
        assert float(row["true_top1"]) == truth
    assert {row["searcher"] for row in found} == set(search.SEARCHERS)
    assert {row["reward"] for row in found} == set(search.REWARDS)


def test_marks_are_of_all_networks_within_the_budget(made: Path) -> None:
    within = truths_within(BUDGET)
    (mark,) = scored(made, "marks.csv")
    assert int(mark["networks"]) == len(within) < 4**7
    assert float(mark["median"]) == np.median(within)
    assert float(mark["best"]) == within.max() < 51 + 4 * 7


def truths_within(share: float) -> NDArray[np.int64]:
    """The made-up truth of every network of the tables within the budget."""
    space = channel_bench_space()
    digits = np.array(list(itertools.product(range(4), repeat=len(space.levels))))
    widths = np.stack(
        [np.array(of)[digits[:, place]] for place, of in enumerate(space.levels.values())], axis=1
    )
    affordable = space.cost.macs(widths) <= budget_in_macs(share, space.macs(space.full))
    truths: NDArray[np.int64] = 51 + (1 + digits).sum(axis=1)[affordable]
    return truths


def channel_bench_space() -> SearchSpace:
    return SearchSpace(trace(build(MODEL), (3, 32, 32)), divisor=None, ratios=tables.RATIOS)


def channel_bench_levels() -> list[list[int]]:
    return list(channel_bench_space().levels.values())


def test_no_row_of_the_tables_is_written(made: Path) -> None:
    """Their authors state no licence: true accuracies stand only beside what a search found."""
    written = [path for path in (made / RESULTS).rglob("*.csv") if "tables" not in path.parts]
    columns = {path.name: path.read_text().split("\n")[0].split(",") for path in written}
    assert {name for name in columns if "true_top1" in columns[name]} == {
        "searches.csv",
        "curves.csv",
    }
    assert "widths" not in columns["curves.csv"]  # means over plays, of no network
    plays = Counter(
        (row["budget"], row["reward"], row["searcher"], row["play"])
        for row in scored(made, "searches.csv")
    )
    once = itertools.product(["0.09"], search.REWARDS, search.SEARCHERS, "01")
    assert plays == Counter(once)  # what a play ends with, and nothing that it saw before


def test_table_8_says_who_evaluates_the_same_networks_again(made: Path) -> None:
    """As DDPG does, whose evaluations they cost; uniform width, one network, is no search."""
    distinct: dict[str, list[int]] = {}
    for row in scored(made, "searches.csv"):
        distinct.setdefault(row["searcher"], []).append(int(row["distinct"]))
    again = {name for name, of in distinct.items() if max(of) > 1 and min(of) < 0.9 * 5}
    text = (made / RESULTS / "tables/table8_true_searches.md").read_text()
    assert {name for name in distinct if f"{search.LABELS[name]} evaluates" in text} == again
    assert distinct["uniform"] and "ddpg" in again


def test_tables_and_figure_are_made_from_the_results_alone(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "results/channel-bench"
    again.parent.mkdir()
    shutil.copytree(made / RESULTS, again)
    assert channel_bench.main([str(again)]) == 0
    for name in ("tables/table7_agreement.csv", "tables/table8_true_searches.tex"):
        assert (again / name).read_bytes() == (made / RESULTS / name).read_bytes()
    figure = "figures/figure10_true_accuracy.png"
    assert (again / figure).read_bytes() == (made / RESULTS / figure).read_bytes()


def test_a_network_that_nobody_searched_has_its_rows_of_table_7_alone(
    made: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "channel-bench"
    shutil.copytree(made / RESULTS, copied)
    other = "channel_bench_resnet"
    for kind in ("pruningnet", "generated", "scored"):
        shutil.copytree(copied / kind / MODEL, copied / kind / other)
    for path in copied.glob(f"*/{other}/**/run.json"):
        path.write_text(path.read_text().replace(MODEL, other))
    said = json.loads((copied / "study.json").read_text())
    said["models"].append(other)
    said["networks"][other] = "ResNet"
    (copied / "study.json").write_text(json.dumps(said))
    assert channel_bench.main([str(copied)]) == 0
    agreement = rows(copied / "tables/table7_agreement.csv")
    assert [row["network"] for row in agreement] == ["MobileNet"] * 5 + ["ResNet"] * 5
    assert {row["network"] for row in rows(copied / "tables/table8_true_searches.csv")} == {
        "MobileNet"
    }
    results = read(copied)
    assert "for the ResNet at 9 % of MACs" in channel_bench.agrees(results)
    assert "ResNet" not in channel_bench.finds(results)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("networks", {}, "networks are not those of models"),
        ("searched", [], "searched is empty or not of models"),
        ("searched", ["channel_bench_resnet"], "searched is empty or not of models"),
    ],
)
def test_a_study_file_that_contradicts_itself_is_refused(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    key: str,
    value: Any,
    says: str,
) -> None:
    copied = tmp_path / "channel-bench"
    shutil.copytree(made / RESULTS, copied)
    said = json.loads((copied / "study.json").read_text())
    (copied / "study.json").write_text(json.dumps(said | {key: value}))
    assert channel_bench.main([str(copied)]) == 2
    assert says in capsys.readouterr().err


def test_random_search_minus_itself_is_nothing(made: Path) -> None:
    results = read(made / RESULTS)
    for budget in results.budgets:
        for reward in ("generated", "trained"):
            found = results.searched["MobileNet"]
            same = channel_bench.minus(found, reward, "random", "random", budget)
            assert same.value == same.low == same.high == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("agreement.csv", "macs,any", "size,any", "other raters or budgets"),
        ("agreement.csv", "trained,any,4,1,", "trained,any,4,7,", "is not a number from -1 to 1"),
        ("marks.csv", "0.09", "0.5", "other budgets"),
        ("searches.csv", "0.09,trained,random,0", "0.09,trained,uniform,0", "not 2 plays"),
        ("curves.csv", "frozen", "thawed", "other searchers"),
        ("metrics.json", '"plays": 2', '"plays": 0', "plays"),
    ],
)
def test_a_damaged_result_is_refused_by_name(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    old: str,
    new: str,
    says: str,
) -> None:
    copied = tmp_path / "channel-bench"
    shutil.copytree(made / RESULTS, copied)
    stage = "score" if name in ("agreement.csv", "marks.csv") else "search"
    path = copied / {"score": "scored", "search": "searched"}[stage] / MODEL / "0" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert channel_bench.main([str(copied)]) == 2
    refusal = capsys.readouterr().err
    assert name in refusal and says in refusal and "Traceback" not in refusal
    assert f"(dvc repro channel_bench/dvc.yaml:{stage}@channel_bench_mobilenet-0)" in refusal


def test_a_killed_judge_goes_on_from_its_journal(made: Path) -> None:
    items = {"model": MODEL, "conditioning": "constant", "seed": "0"}
    before = (made / RESULTS / f"generated/{MODEL}/constant/0/generated.csv").read_bytes()
    asked = 0

    class Killed(Exception):
        pass

    def evaluate(self: Any, widths: Any, *rest: Any) -> float:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise Killed
        return float(original(self, widths, *rest))

    from graphpruning.search.evaluator import Evaluator

    original = Evaluator.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "__call__", evaluate)
        with pytest.raises(Killed):
            judge.judge(context(judge, study(), **items))
        asked = -100
        resumed = context(judge, study(), **items)
        judge.judge(resumed)
    assert resumed.resumed and asked == -100 + 8 - 3
    assert (made / RESULTS / f"generated/{MODEL}/constant/0/generated.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"models": ["resnet20"]}, "models: 'resnet20' is none of channel_bench_mobilenet"),
        ({"networks": {}}, "networks: say how"),
        ({"budgets": []}, "budgets: empty"),
        ({"seeds": [0, 0]}, "seeds: empty, or one stands twice"),
        ({"tables": ""}, "tables: '' is no path"),
        ({"judged": {"candidates": 1, "within": 4}}, "judged: candidates: 1 does not lie"),
        ({"seeds": [0, 1]}, "seeds: 2, but tables are made of one replicate"),
        ({"search": searches(source="none")}, "'none' is not trained"),
        ({"search": searches(source="graf")}, "did you mean 'graph'?"),
        ({"search": searches(models=[])}, "search: models: empty, or one stands twice"),
        ({"search": searches(models=["channel_bench_resnet"])}, "only be what models lists"),
        ({"serch": 1}, "did you mean 'search'?"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says.replace("?", r"\?").replace("(", r"\(")):
        parse(study(**changes))


def test_a_pruningnet_that_begins_with_a_base_is_refused() -> None:
    raw = study()
    raw["pruningnet"]["conditionings"] = ["graph", "graphpruning-plus"]
    with pytest.raises(UserError, match="begins with a base, and none is trained here"):
        parse(raw)


def test_the_committed_study_reads() -> None:
    found = parse(read_study_file(PARAMS), str(PARAMS))
    assert found.pruningnet.conditionings == ("graph", "constant", "block")


def test_dvc_lists_what_the_stages_leave(made: Path) -> None:
    pipeline = yaml.safe_load((ROOT / "channel_bench/dvc.yaml").read_text())["stages"]
    assert list(pipeline) == ["prepare", "train_pruningnet", "judge", "score", "search"]
    for name in ("splits/run.json", f"scored/{MODEL}/0/run.json", f"searched/{MODEL}/0/run.json"):
        sidecar = json.loads((made / RESULTS / name).read_text())
        assert sidecar["stage"].split("@")[0] in pipeline
    truth = np.array([float(row["true_top1"]) for row in scored(made, "curves.csv")])
    assert np.isfinite(truth).all()
