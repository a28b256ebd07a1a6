"""Every file that a study promises is missed by name, with the stage that makes it."""

import json
import subprocess
import sys

import pytest

from graphpruning.common.errors import UserError
from paper.results import read
from paper.tables import main
from tests.paper.conftest import Study, copied_study

PROMISED = {
    "study.json": "prepare@made",
    "splits/train.txt": "prepare@made",
    "splits/metrics.json": "prepare@made",
    "base/resnet20/metrics.json": "train_base@made-resnet20",
    "base/resnet20/graph.json": "train_base@made-resnet20",
    "base/resnet20/curve.csv": "train_base@made-resnet20",
    "correlation/resnet20/channels.csv": "correlation@made-resnet20",
    "correlation/resnet20/heatmaps.json": "correlation@made-resnet20",
    "pruningnet/resnet20/block/metrics.json": "train_pruningnet@made-resnet20-block",
    "generated/resnet20/candidates.csv": "analyse_pruningnet@made-resnet20-graph+block+none",
    "generated/resnet20/influence.csv": "analyse_pruningnet@made-resnet20-graph+block+none",
    "search/resnet20/amc/0.5/0+1+2/metrics.json": "search_base@made-resnet20-amc-0.5-0+1+2",
    "search/resnet20/random/0.25/0+1+2/history.csv": (
        "search_graph@made-resnet20-random-0.25-0+1+2"
    ),
    "search/resnet20/metapruning/0.5/0+1+2/run.json": (
        "search_block@made-resnet20-metapruning-0.5-0+1+2"
    ),
    "final/resnet20/amc/0.5/0+1+2/metrics.json": "finetune@made-resnet20-amc-0.5-0+1+2",
    "final/resnet20/amc/0.5/0+1+2/architectures/seed-2.json": (
        "finetune@made-resnet20-amc-0.5-0+1+2"
    ),
    "final/resnet20/uniform/0.25/0+1+2/curve.csv": "finetune@made-resnet20-uniform-0.25-0+1+2",
}


@pytest.fixture
def copied(results, tmp_path):
    return copied_study(results, tmp_path)


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
    ("name", "stage"), [item for item in PROMISED.items() if "architectures" not in item[0]]
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
        "base/resnet20/curve.csv",
        "correlation/resnet20/channels.csv",
        "generated/resnet20/candidates.csv",
        "generated/resnet20/influence.csv",
        "pruningnet/resnet20/graph/curve.csv",
        "search/resnet20/amc/0.5/0+1+2/history.csv",
        "final/resnet20/amc/0.5/0+1+2/curve.csv",
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
    path = copied / "correlation/resnet20/channels.csv"
    path.write_text(path.read_text().replace(",0,", ",zero,", 1))
    with pytest.raises(UserError, match="channel: "):
        read(copied)


def test_other_columns(copied):
    path = copied / "generated/resnet20/influence.csv"
    path.write_text(path.read_text().replace("movement", "moved", 1))
    with pytest.raises(UserError, match="columns"):
        read(copied)


def test_a_seed_that_is_not_there(copied):
    path = copied / "final/resnet20/amc/0.5/0+1+2/metrics.json"
    value = json.loads(path.read_text())
    del value["seeds"]["1"]
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"seeds \[0, 2\], not \[0, 1, 2\]"):
        read(copied)


def test_seeds_of_several_stages_are_joined(results, tmp_path):
    study = Study(tmp_path / "split", methods=("graphpruning",), seeds=("0", "1+2"))
    found = read(study.write())
    key = ("resnet20", "graphpruning", "0.5")
    assert sorted(found.test_top1(*key)) == sorted(found.search[key].seeds) == [0, 1, 2]
    assert {run.stage.rpartition("-")[2] for run in found.final[key].runs.values()} == {"0", "1+2"}


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


def test_a_folder_of_images_is_called_what_the_title_says(results, tmp_path):
    copied = copied_study(results, tmp_path)
    path = copied / "study.json"
    study = json.loads(path.read_text())
    study |= {"title": "ResNet-20 on CIFAR-10 (JPEG)", "data": {"name": "folder"}}
    path.write_text(json.dumps(study))
    assert read(copied).data == "CIFAR-10 (JPEG)"
    path.write_text(json.dumps(study | {"data": {"name": "cifar10"}}))
    assert read(copied).data == "cifar10"
