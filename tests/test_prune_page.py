"""What docs/prune.md says can be done, can be done; on a small network and by made-up times."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import graphpruning.pruning as pruning
from graphpruning import latency_table as tables
from graphpruning.__main__ import main
from graphpruning.methods import METHODS
from graphpruning.network.trace import trace
from graphpruning.network.zoo import build
from graphpruning.pruningnet.pruningnet import PruningNet
from tests.coloured_images import coloured_images
from tests.test_goals import QUICK

PAGE = (Path(__file__).parents[1] / "docs/prune.md").read_text()
COMMANDS = [
    shlex.split(command)[3:]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for command in block.replace("\\\n", " ").splitlines()
]


def test_the_page_has_its_commands() -> None:
    assert [command[command.index("--out") + 1] for command in COMMANDS] == [
        "several",
        "fast",
        "partly",
    ]


def test_the_methods_have_the_names_that_tables_give_them() -> None:
    named = dict(re.findall(r"^\| `([a-z][a-z-]+)` \| (.*?) \|", PAGE, re.MULTILINE))
    assert {"graphpruning", "graphpruning-plus", "amc", "constant", "predictor"} <= set(named)
    assert named == {name: METHODS[name].label for name in named}


@pytest.mark.parametrize(
    ("name", "source", "numbers"),
    [
        ("resnet18", "graph", 33),
        ("mobilenet_v2", "graph", 33),
        ("resnet18", "block", 33),
        ("resnet18", "constant", 1),
    ],
)
def test_a_pruningnet_has_as_many_numbers_as_it_says(name: str, source: str, numbers: int) -> None:
    """The gigabytes are those of weights times 33 times two, in four bytes each."""
    model = build(name, 10)
    with torch.no_grad():
        net = PruningNet(trace(model, (3, 32, 32)), source)
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    found = sum(p.numel() for p in net.parameters())
    assert found == pytest.approx(numbers * weights, rel=0.1)
    assert pruning.memory(net).startswith(f"{found:,} numbers, {found * 8 / 1e9:.1f} GB")


def test_the_gigabytes_of_the_page_are_those_of_the_networks_weights() -> None:
    text = " ".join(PAGE.split())
    for name, called in (("resnet18", "ResNet-18"), ("resnet50", "ResNet-50"), ("vgg16", "VGG-16")):
        with torch.device("meta"):
            weights = sum(p.numel() for p in torchvision.models.get_model(name).parameters())
        (said,) = re.findall(rf"(\d+) GB (?:of memory )?for a {called}", text)
        assert int(said) == round(weights * 33 * 8 / 1e9), name


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_a_command_runs(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ResNet-8 in the place of ResNet-18, which has a group of layers more."""
    coloured_images(tmp_path / "photos")
    torch.save(build("resnet8", 3).state_dict(), tmp_path / "resnet18.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("graphpruning.export.find_spec", lambda name: None)

    def times(models: list[nn.Module], *_: Any, rest: float = 1.0) -> list[float]:
        return [rest + sum(p.numel() for p in model.parameters()) / 20_000 for model in models]

    monkeypatch.setattr(
        tables, "alternately", lambda calls, *_: times([call.func for call in calls], rest=1e-6)
    )
    monkeypatch.setattr(tables, "latency", times)
    monkeypatch.setattr(pruning, "latency", times)
    words = [word.replace("layer4", "layer3") for word in command]
    words[words.index("resnet18")] = "resnet8"
    options = {key.replace("_", "-"): value for key, value in QUICK.items()}
    size = map(str, options.pop("input-size"))
    words += [*(f"--{key}={value}" for key, value in options.items()), "--input-size", *size]
    assert main([*words, "--method", "uniform"]) == 0
    out = tmp_path / command[-1]
    assert (out / "report.md").exists()
    if command[-1] == "several":
        assert {"0.75", "0.5", "0.25", "accuracy.png"} <= {path.name for path in out.iterdir()}
    if command[-1] == "fast":
        assert "The budget was 3 ms" in (out / "report.md").read_text()
        assert (out / "latency_table.json").exists()


def test_the_lines_of_python_leave_layers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    choices, levels = capsys.readouterr().out.splitlines()
    assert "layer1.0.conv1" in choices and "layer4" not in choices
    assert levels == "[32, 36, 40, 44, 48, 52, 56, 60, 64]"
