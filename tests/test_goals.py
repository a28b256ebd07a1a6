"""What users ask of `prune`: several budgets, a time, layers left alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphpruning.pruning as pruning
from graphpruning import UserError, load_architecture, prune
from graphpruning import latency_table as tables
from graphpruning.__main__ import main
from graphpruning.network.zoo import build
from tests.coloured_images import coloured_images

QUICK: dict[str, Any] = {
    "input_size": (3, 16, 16),
    "epochs": 1,
    "pruningnet_epochs": 1,
    "evaluations": 2,
    "batch_size": 16,
    "precision": "32-true",
}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in `photos`, a trained network's weights in `base.pth`."""
    made = tmp_path_factory.mktemp("photos")
    coloured_images(made / "photos")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.save(build("resnet8", 3).state_dict(), made / "base.pth")
    return made


@pytest.fixture(autouse=True)
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphpruning.export.find_spec", lambda name: None)  # seconds, tested apart


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_several_budgets_share_a_pruningnet_and_go_on_when_killed(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    budgets = ["75%", "0.4"]
    arguments = {**QUICK, "budget": budgets, "weights": folder / "base.pth"}

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pruning, "latency", lambda models, *_: [1.0 for _ in models])
        train = pruning._Job.train
        patch.setattr(
            pruning._Job,
            "train",
            lambda job, goal, *rest: (killed if goal.budget.name == "0.4" else train)(
                job, goal, *rest
            ),
        )
        with pytest.raises(Killed):
            prune("resnet8", folder / "photos", out=tmp_path / "out", **arguments)
    assert (tmp_path / "out/0.75/report.json").exists()
    assert not (tmp_path / "out/report.json").exists()
    first = (tmp_path / "out/0.75/weights.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"0\.75 holds the network of another run"):
        prune("resnet8", folder / "photos", out=tmp_path / "out", seed=1, **arguments)

    capsys.readouterr()
    report = prune("resnet8", folder / "photos", out=tmp_path / "out", **arguments)
    printed = capsys.readouterr().out
    assert "PruningNet: epoch" not in printed and printed.count("search: ") == 1
    assert (tmp_path / "out/0.75/weights.safetensors").read_bytes() == first
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"0.75", "0.4", "report.md", "report.json", "accuracy.png"}
    assert report == read(tmp_path / "out/report.json")
    for share, network in zip((0.75, 0.4), report["networks"], strict=True):
        own = read(tmp_path / "out" / network["folder"] / "report.json")
        assert network["top1"] == own["after"]["top1"] and own["before"] == {
            **report["before"],
            "latency_ms": own["before"]["latency_ms"],
        }
        assert 0.95 * share <= network["macs"] / report["before"]["macs"] <= share
        assert f"{network['macs']:,}" in (tmp_path / "out/report.md").read_text()
        model = load_architecture(tmp_path / "out" / network["folder"] / "architecture.json")
        assert sum(p.numel() for p in model.parameters()) == network["params"]


@pytest.mark.parametrize("method", ["uniform", "random"])
def test_what_is_found_keeps_to_a_budget_of_time_though_the_table_is_wrong(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """By made-up times: whoever is measured beside the whole network takes a tenth longer."""

    def milliseconds(module: nn.Module) -> float:
        kinds = (nn.Conv2d, nn.Linear)
        return sum(m.weight.numel() for m in module.modules() if isinstance(m, kinds)) / 1000

    def networks(models: list[nn.Module], *_: Any) -> list[float]:
        late = 1.1 if len(models) == 2 else 1
        return [1 + milliseconds(models[0]), *(late * (1 + milliseconds(m)) for m in models[1:])]

    monkeypatch.setattr(
        tables, "alternately", lambda calls, *_: [milliseconds(call.func) + 1e-6 for call in calls]
    )
    monkeypatch.setattr(tables, "latency", networks)
    monkeypatch.setattr(pruning, "latency", networks)
    arguments = {**QUICK, "budget": "40ms", "weights": folder / "base.pth", "method": method}
    report = prune("resnet8", folder / "photos", out=tmp_path / "out", **arguments)
    timed = report["time_budget"]
    assert timed["budget_ms"] == 40
    assert 0.95 * 40 <= timed["after"]["measured_ms"] <= 1.03 * 40
    assert abs(timed["after"]["error"]) < 0.01
    assert read(tmp_path / "out/latency_table.json")["checked"]


def test_a_budget_of_time_is_estimated_and_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By made-up times: a network takes 1 ms, and 1 us for each weight of a layer."""

    def milliseconds(module: nn.Module) -> float:
        kinds = (nn.Conv2d, nn.Linear)
        return sum(m.weight.numel() for m in module.modules() if isinstance(m, kinds)) / 1000

    def networks(models: list[nn.Module], *_: Any) -> list[float]:
        return [1 + milliseconds(model) for model in models]

    monkeypatch.setattr(
        tables, "alternately", lambda calls, *_: [milliseconds(call.func) + 1e-6 for call in calls]
    )
    monkeypatch.setattr(tables, "latency", networks)
    monkeypatch.setattr(pruning, "latency", networks)
    arguments = {**QUICK, "budget": "40ms", "weights": folder / "base.pth", "method": "random"}
    report = prune("resnet8", folder / "photos", out=tmp_path / "out", **arguments)
    timed = report["time_budget"]
    assert timed["budget_ms"] == 40 and report["settings"]["budget_ms"] == 40
    assert 0.95 * 40 <= timed["after"]["estimate_ms"] <= 1.01 * 40
    model = load_architecture(tmp_path / "out/architecture.json")
    assert timed["after"]["measured_ms"] == pytest.approx(1 + milliseconds(model), rel=1e-3)
    assert abs(timed["after"]["error"]) < 0.01 and abs(timed["before"]["error"]) < 0.01
    text = (tmp_path / "out/report.md").read_text()
    assert "The budget was 40 ms" in text and f"{timed['after']['measured_ms']:.3f} ms" in text
    table = tmp_path / "out/latency_table.json"
    assert read(table)["setting"]["batch"] == 1

    def refused(**changes: Any) -> str:
        changed = {**arguments, "latency_table": table, **changes}
        with pytest.raises(UserError) as refusal:
            prune("resnet8", folder / "photos", out=tmp_path / "other", **changed)
        return str(refusal.value)

    assert "more than the" in refused(budget="1s") and "of the whole network" in refused(
        budget="1s"
    )
    assert "a budget of 1.100 ms cannot be reached" in refused(budget="1.1ms")
    assert "measured with batch 1, here it is 8" in refused(batch=8)
    assert "device 'abacus' is not there" in refused(device="abacus")
    assert "at least one image" in refused(batch=0)


def test_the_command_line_keeps_and_limits_layers(folder: Path, tmp_path: Path) -> None:
    quick = [
        f"--{key.replace('_', '-')}={value}" for key, value in QUICK.items() if key != "input_size"
    ]
    command = [
        "prune",
        "--model=resnet8",
        f"--data={folder / 'photos'}",
        "--method=uniform",
        *quick,
    ]
    command += ["--input-size", "3", "16", "16", "--out", str(tmp_path / "out")]
    command += ["--budget", "60%", "--keep", "layer3.*", "--limit", "layer1.*=0.5:1"]
    assert main([*command, "--limit", "layer2.0.conv1=0.25:0.5"]) == 0
    report = read(tmp_path / "out/report.json")
    assert all(
        kept == full for group, (full, kept) in report["widths"].items() if "layer3" in group
    )
    assert report["widths"]["layer1.0.conv1"][1] >= 8
    assert report["widths"]["layer2.0.conv1"][1] <= 16
    assert report["settings"]["keep"] == ["layer3.*"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", "layer1.*"], "--limit 'layer1.*' is not LAYERS=LOW:HIGH"),
        (["--limit", "layer1.*=0.5"], "is not LAYERS=LOW:HIGH"),
        (["--limit", "layer1.*=1:0.5"], "the smaller one first"),
        (["--keep", "layer9.*"], "no layer matches 'layer9.*'; did you mean 'layer"),
        (["--budget", "50%", "0.5"], "budget: '0.5' stands twice"),
    ],
)
def test_what_has_no_sense_is_one_line(
    options: list[str], said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prune", "--model=resnet8", f"--data={folder / 'photos'}", "--budget=0.5"]
    command += ["--input-size", "3", "16", "16", "--out", str(tmp_path / "out"), *options]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()
