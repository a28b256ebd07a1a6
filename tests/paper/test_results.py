"""Every file that a study promises is missed by name, with the stage that makes it."""

import json
import subprocess
import sys

import pytest

from graphpruning.common.errors import UserError
from paper.reader.results import read
from paper.tables import main
from tests.paper.conftest import Study, copied_study

PROMISED = {
    "study.json": "prepare@made",
    "splits/train.txt": "prepare@made",
    "splits/metrics.json": "prepare@made",
    "base/resnet20/0/metrics.json": "train_base@made-resnet20-0",
    "base/resnet20/1/graph.json": "train_base@made-resnet20-1",
    "base/resnet20/1/curve.csv": "train_base@made-resnet20-1",
    "correlation/resnet20/0/channels.csv": "correlation@made-resnet20-0",
    "correlation/resnet20/1/heatmaps.json": "correlation@made-resnet20-1",
    "pruningnet/resnet20/block/1/metrics.json": "train_pruningnet@made-resnet20-block-1",
    "generated/resnet20/0/candidates.csv": "analyse_pruningnet@made-resnet20-0",
    "generated/resnet20/1/trained.csv": "analyse_pruningnet@made-resnet20-1",
    "generated/resnet20/1/probes.csv": "analyse_pruningnet@made-resnet20-1",
    "generated/resnet20/1/diagnostics.csv": "analyse_pruningnet@made-resnet20-1",
    "search/resnet20/amc/0.5/0/metrics.json": "search_base@made-resnet20-amc-0.5-0",
    "search/resnet20/random/0.25/1/history.csv": "search_graph@made-resnet20-random-0.25-1",
    "search/resnet20/metapruning/0.5/1/run.json": "search_block@made-resnet20-metapruning-0.5-1",
    "final/resnet20/amc/0.5/0/metrics.json": "finetune@made-resnet20-amc-0.5-0",
    "final/resnet20/amc/0.5/1/architecture.json": "finetune@made-resnet20-amc-0.5-1",
    "final/resnet20/random/0.25/0/trainings.csv": "finetune@made-resnet20-random-0.25-0",
    "final/resnet20/uniform/0.25/1/curve.csv": "finetune@made-resnet20-uniform-0.25-1",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A study that has all of these, and reads fast."""
    return Study(
        tmp_path_factory.mktemp("small") / "made",
        methods=("graphpruning", "metapruning", "amc", "random", "uniform", "generated"),
        seeds=(0, 1),
        blocks=1,
        candidates=4,
    ).write()


@pytest.fixture
def copied(small, tmp_path):
    return copied_study(small, tmp_path)


def refusal(folder, capsys):
    """What the command line says of `folder`, in its one line."""
    assert main([str(folder)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert not (folder / "tables").exists()
    return line


@pytest.mark.parametrize(("name", "stage"), PROMISED.items())
def test_missing_file(copied, capsys, name, stage):
    (copied / name).unlink()
    maker = stage.split("@")[0]
    assert refusal(copied, capsys) == (
        f"{copied / name} is missing: the stage {maker} makes it (dvc repro {stage})"
    )


@pytest.mark.parametrize(
    ("name", "stage"), [item for item in PROMISED.items() if "architecture" not in item[0]]
)
def test_truncated_file(copied, capsys, name, stage):
    path = copied / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    line = refusal(copied, capsys)
    assert line.startswith(f"{path} is truncated or damaged (")
    assert line.endswith(f"makes it anew (dvc repro {stage})")


@pytest.mark.parametrize(
    "name",
    [
        "splits/train.txt",
        "base/resnet20/1/curve.csv",
        "correlation/resnet20/0/channels.csv",
        "generated/resnet20/1/candidates.csv",
        "generated/resnet20/0/trained.csv",
        "generated/resnet20/0/probes.csv",
        "generated/resnet20/0/diagnostics.csv",
        "pruningnet/resnet20/graph/1/curve.csv",
        "search/resnet20/amc/0.5/1/history.csv",
        "final/resnet20/amc/0.5/0/curve.csv",
        "final/resnet20/amc/0.5/0/trainings.csv",
    ],
)
def test_truncated_at_the_end_of_a_line(copied, name):
    """A file cut between two rows still parses; what it lacks is missed all the same."""
    path = copied / name
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match=f"{path.name} is truncated"):
        read(copied)


def test_a_cell_that_is_no_number(copied):
    path = copied / "correlation/resnet20/1/channels.csv"
    path.write_text(path.read_text().replace(",0,", ",zero,", 1))
    with pytest.raises(UserError, match="channel: "):
        read(copied)


def test_other_columns(copied):
    path = copied / "generated/resnet20/1/probes.csv"
    path.write_text(path.read_text().replace("distance", "edges", 1))
    with pytest.raises(UserError, match="columns"):
        read(copied)


def changed(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_replicate_that_is_not_there(copied):
    changed(copied / "study.json", seeds=[0, 1, 7])
    with pytest.raises(UserError, match=r"base/resnet20/7/metrics\.json is missing.*resnet20-7\)"):
        read(copied)


@pytest.mark.parametrize(
    ("name", "entries", "says"),
    [
        ("base/resnet20/1/metrics.json", {"macs": 7}, "other MACs or params than with the other"),
        ("base/resnet20/1/graph.json", {"edges": []}, "another graph than with the other seeds"),
        ("search/resnet20/amc/0.5/1/metrics.json", {"budget_macs": 10**9}, "another 'budget_macs'"),
        ("search/resnet20/amc/0.5/1/metrics.json", {"method": "random"}, "of method 'random'"),
        ("final/resnet20/amc/0.5/1/metrics.json", {"budget": "0.25"}, "of method 'amc', budget"),
        ("final/resnet20/amc/0.5/1/metrics.json", {"params": 7}, "than the search found"),
        ("final/resnet20/amc/0.5/1/architecture.json", {"macs": 7}, "than the search found"),
        ("final/resnet20/generated/0.5/1/metrics.json", {"initial": "scratch"}, "not 'generated'"),
        ("final/resnet20/amc/0.5/1/metrics.json", {"search_top1_before": 50.0}, "from scratch"),
        (
            "final/resnet20/amc/0.5/1/metrics.json",
            {"trainings": None},
            "than the replicate's other",
        ),
    ],
)
def test_a_file_of_another_run_is_refused(copied, name, entries, says):
    changed(copied / name, **entries)
    with pytest.raises(UserError, match=f"{name} is truncated or damaged .*{says}"):
        read(copied)


def test_every_replicate_is_read_by_its_seed(results, found):
    key = ("resnet20", "generated", "0.5")
    assert found.seeds == list(found.search[key]) == list(found.final[key]) == [0, 1, 2]
    for seed in found.seeds:
        path = results / f"final/resnet20/generated/0.5/{seed}/metrics.json"
        final = found.final[key][seed]
        assert final.test_top1 == json.loads(path.read_text())["test_top1"]
        assert final.search_top1_before == found.search[key][seed].top1_search
        assert final.run.stage.endswith(f"-{final.run.seed}") and final.run.seed == seed
    assert {run.seed for run in found.pretrained.runs} == {None, 0}


def test_final_trainings_that_do_not_give_the_stated_means_are_refused(copied):
    """Nor other ones than the study's, once each and in order."""
    folder = copied / "final/resnet20/amc/0.5/1"
    whole = (folder / "trainings.csv").read_text()
    for before, after, says in (
        ("main,0,scratch", "main,1,scratch", "not 1 of main in order"),
        ("main,0,scratch", "second,0,scratch", "not 1 of main in order"),
        ("scratch", "inherited", "'initial' is not always 'scratch'"),
        (",99.0", ",98.9", "another mean test_top5 of main"),
    ):
        (folder / "trainings.csv").write_text(whole.replace(before, after))
        with pytest.raises(UserError, match=f"trainings.csv is truncated or damaged .*{says}"):
            read(copied)


def test_results_from_before_several_trainings_are_read(copied):
    for path in (copied / "final").rglob("trainings.csv"):
        path.unlink()
    for path in (copied / "final").rglob("metrics.json"):
        whole = json.loads(path.read_text())
        del whole["trainings"], whole["second"]
        path.write_text(json.dumps(whole))
    found = read(copied)
    assert found.trainings == (1,) and found.second is None


def test_no_argument_is_argparses_refusal(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "results/STUDY" in capsys.readouterr().err


def test_paper_needs_neither_torch_nor_the_pipeline():
    code = (
        "import sys, paper.report; bad = {'torch', 'sacred', 'dvc', 'experiments'};"
        "sys.exit(str(bad & set(sys.modules)) if bad & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_of_images_is_called_what_the_title_says(copied):
    path = copied / "study.json"
    study = json.loads(path.read_text())
    study |= {"title": "ResNet-20 on CIFAR-10 (JPEG)", "data": {"name": "folder"}}
    path.write_text(json.dumps(study))
    assert read(copied).data == "CIFAR-10 (JPEG)"
    path.write_text(json.dumps(study | {"data": {"name": "cifar10"}}))
    assert read(copied).data == "cifar10"
