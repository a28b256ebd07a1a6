"""`inspect` says what a network is, for people and as JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graphpruning import UserError, describe
from graphpruning.__main__ import main
from graphpruning.inspection import read_widths, text, to_json

KEYS = ["model", "input_size", "macs", "params", "layers", "edges", "groups"]
CIFAR = ["--input-size", "3", "32", "32", "--num-classes", "10"]
ONE_LAYER = """
import torch

def small():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))

def wide(num_classes):
    return torch.nn.Sequential(torch.nn.Conv2d(3, num_classes, 3))

number = small().__class__.__name__
"""


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["inspect", *arguments]) == 0
    return capsys.readouterr().out


def test_json_has_the_promised_keys(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(output(capsys, "resnet20", *CIFAR, "--json"))
    assert [key for key in found if key != "smallest_macs"] == KEYS
    assert {"name", "kind", "in", "out", "kernel", "stride", "macs"} <= set(found["layers"][0])
    assert set(found["groups"][0]) == {"id", "width", "layers", "prunable", "reason"}
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"]) == 40_813_184
    assert ["conv1", "layer1.1.conv1", True] in found["edges"]
    assert ["conv1", "layer1.0.conv1", False] in found["edges"]


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [("resnet50", 4_089_184_256, 25_557_032), ("mobilenet_v2", 300_774_272, 3_504_872)],
)
def test_torchvision_networks_at_their_own_size(name: str, macs: int, params: int) -> None:
    found = describe(name)
    assert (found["macs"], found["params"]) == (macs, params)
    assert found["smallest_macs"] < 0.05 * macs


def test_the_text_marks_shortcuts_and_says_why_groups_are_tied(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = output(capsys, "resnet20", *CIFAR).splitlines()
    assert lines[2] == "40,813,184 MACs, 272,474 parameters"
    edges = [line.split() for line in lines if " -> " in line]
    assert ["conv1", "->", "layer1.1.conv1", "shortcut"] in edges
    assert ["conv1", "->", "layer1.0.conv1"] in edges
    assert sum(edge[-1] == "shortcut" for edge in edges) == 24
    reasons = lines[lines.index("layer2.0.conv2: 32 channels") :]
    assert "are added" in reasons[2]
    assert "fc: 10 channels, fixed" in lines


@pytest.mark.parametrize("nested", [False, True])
def test_widths_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nested: bool
) -> None:
    groups = describe("resnet8", (3, 32, 32), 10)["groups"]
    widths = {group["id"]: group["width"] // 2 for group in groups if group["prunable"]}
    file = tmp_path / "widths.json"
    file.write_text(json.dumps({"widths": widths} if nested else widths))
    found = json.loads(output(capsys, "resnet8", *CIFAR, "--widths", str(file), "--json"))
    half = describe("resnet8", (3, 32, 32), 10, widths)
    assert found["narrowed"] == half["narrowed"]
    assert 0.2 < found["narrowed"]["macs"] / found["macs"] < 0.3
    assert "conv1: 8 of 16 channels" in text(half)


def test_widths_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "widths.json"
    for content, message in (
        ("[1]", "does not map"),
        ('{"a": 1.5}', "does not map"),
        ("{", "not whole JSON"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            read_widths(file)
    with pytest.raises(UserError, match="'a' is unknown"):
        describe("resnet8", (3, 32, 32), 10, {"a": 8})


def test_a_function_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ONE_LAYER)
    command = [
        sys.executable,
        "-m",
        "graphpruning",
        "inspect",
        "mine:small",
        "--json",
        "--input-size",
        "3",
        "8",
        "8",
    ]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert (found["model"], found["macs"]) == ("mine:small", 36 * (27 * 8 + 8 * 4))


def test_functions_and_modules_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_too.py").write_text(ONE_LAYER)
    monkeypatch.syspath_prepend(tmp_path)
    assert describe("mine_too:wide", (3, 8, 8), 7)["layers"][0]["out"] == 7
    with pytest.raises(UserError, match="no function 'large'"):
        describe("mine_too:large")
    with pytest.raises(UserError, match="no function 'number'"):
        describe("mine_too:number")
    with pytest.raises(UserError, match="no module 'nowhere'"):
        describe("nowhere.at_all:small")


def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "resnet51"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: there is no network 'resnet51'; did you mean 'resnet56'?\n"
    assert captured.out == ""


def test_json_is_one_line_an_entry() -> None:
    found = describe("resnet8", (3, 32, 32), 10)
    written = to_json(found)
    assert json.loads(written) == json.loads(json.dumps(found))
    assert sum('"name": ' in line for line in written.splitlines()) == len(found["layers"])


def test_help_needs_no_torch() -> None:
    code = (
        "import contextlib, io, sys\nfrom graphpruning.__main__ import main\n"
        "for words in (['--help'], ['inspect', '--help'], ['prune', '--help']):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main(words)\n"
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False False\n"
