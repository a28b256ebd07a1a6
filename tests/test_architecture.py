"""A found network travels as JSON and safetensors, and comes back as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graphpruning import (
    SearchSpace,
    UserError,
    load_architecture,
    macs,
    narrow,
    save_architecture,
    trace,
)
from graphpruning.__main__ import main
from graphpruning.architecture import read_architecture, save_weightless
from graphpruning.builder import builder
from tests.networks import SIZE, network


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    model = network("resnet8")
    graph = trace(model, SIZE)
    widths = SearchSpace(graph).sample(torch.Generator().manual_seed(0))
    narrowed = narrow(model, graph, widths).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_architecture(
        tmp_path / "found/network.json",
        tmp_path / "weights/network.safetensors",
        narrowed,
        network={"name": "resnet8", "num_classes": 10, "in_channels": 3},
        input_size=SIZE,
        widths=widths,
        preprocessing={"mean": [0.5]},
    )
    return tmp_path / "found/network.json", narrowed


def test_it_computes_the_same(saved: tuple[Path, torch.nn.Module]) -> None:
    path, narrowed = saved
    loaded = load_architecture(path)
    images = torch.randn(2, *SIZE)
    torch.testing.assert_close(loaded(images), narrowed(images))
    assert type(loaded) is type(network("resnet8")) and not loaded.training
    assert all(torch.equal(narrowed.state_dict()[k], v) for k, v in loaded.state_dict().items())


def test_a_graph_of_other_images_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = network("resnet8")
    graph = trace(model, (3, 16, 16))
    with pytest.raises(UserError, match=r"graph is that of images \[3, 16, 16\], but input_size"):
        save_architecture(
            tmp_path / "network.json",
            tmp_path / "network.safetensors",
            model,
            network={"name": "resnet8", "num_classes": 10, "in_channels": 3},
            input_size=SIZE,
            widths=graph.full_widths,
            preprocessing={},
            graph=graph,
        )
    assert not any(tmp_path.iterdir())


def test_the_description_is_data(saved: tuple[Path, torch.nn.Module]) -> None:
    path, _ = saved
    description = json.loads(path.read_text())
    graph = trace(network("resnet8"), SIZE)
    assert description["macs"] == macs(graph, description["widths"])
    assert description["weights"]["file"] == "../weights/network.safetensors"
    assert description["preprocessing"] == {"mean": [0.5]}


def test_files_of_the_first_format_are_read(saved: tuple[Path, torch.nn.Module]) -> None:
    path, narrowed = saved
    _rewrite(path, format=1)
    images = torch.randn(1, *SIZE)
    torch.testing.assert_close(load_architecture(path)(images), narrowed(images))


def test_class_names_are_kept_and_may_be_missing(
    saved: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    path, narrowed = saved
    assert "classes" not in json.loads(path.read_text())
    names = ["T-shirt", "Hemd (weiß)", *(f"class {number}" for number in range(8))]
    _rewrite(path, classes=names)
    assert read_architecture(path)["classes"] == names
    images = torch.randn(1, *SIZE)
    torch.testing.assert_close(load_architecture(path)(images), narrowed(images))
    _rewrite(path, classes=names[:9])
    with pytest.raises(UserError, match="classes has 9 names, but the network 10 outputs"):
        read_architecture(path)


def plain(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, num_classes, 8))


def test_a_users_own_function_is_called_only_when_it_is_given(tmp_path: Path) -> None:
    make = builder(plain, num_classes=5)
    model, path = make(), tmp_path / "own.json"
    narrowed = narrow(model, trace(model, (3, 10, 10)), {"0": 7})
    save_architecture(
        path,
        tmp_path / "own.safetensors",
        narrowed,
        network=make,
        input_size=(3, 10, 10),
        widths={"0": 7},
        preprocessing={},
    )
    described = json.loads(path.read_text())["network"]
    assert described == {"function": f"{__name__}:plain", "num_classes": 5}
    with pytest.raises(UserError, match="build=lambda num_classes: model"):
        load_architecture(path)
    images = torch.randn(2, 3, 10, 10)
    loaded = load_architecture(path, build=plain)
    torch.testing.assert_close(loaded(images), narrowed(images))
    with pytest.raises(UserError, match="not a torch"):
        load_architecture(path, build=lambda num_classes: num_classes)  # type: ignore[arg-type]


def test_a_network_that_was_given_is_loaded_as_the_refusal_says(tmp_path: Path) -> None:
    model, path = plain(5), tmp_path / "own.json"
    narrowed = narrow(model, trace(model, (3, 10, 10)), {"0": 7})
    save_architecture(
        path,
        tmp_path / "own.safetensors",
        narrowed,
        network=builder(model),
        input_size=(3, 10, 10),
        widths={"0": 7},
        preprocessing={},
    )
    with pytest.raises(UserError, match="build=lambda: model"):
        load_architecture(path)
    images = torch.randn(2, 3, 10, 10)
    loaded = load_architecture(path, build=lambda: model)
    torch.testing.assert_close(loaded(images), narrowed(images))


def _rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_bad_files_are_refused_in_one_line(saved: tuple[Path, torch.nn.Module]) -> None:
    path, _ = saved
    weights = path.parent / "../weights/network.safetensors"
    widths = json.loads(path.read_text())["widths"]
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(UserError, match="SHA-256"):
        load_architecture(path)
    with pytest.raises(UserError, match="does not hold the weights") as refusal:
        load_architecture(path, weights)
    assert "\n" not in str(refusal.value)
    weights.write_bytes(whole)
    _rewrite(path, widths={**widths, "conv1": 16})
    with pytest.raises(UserError, match="does not hold the weights") as refusal:
        load_architecture(path)
    assert "\n" not in str(refusal.value)
    _rewrite(path, widths={**widths, "conv1": 99})
    with pytest.raises(UserError, match="99 of 16"):
        load_architecture(path)
    _rewrite(path, widths=widths, format=3)
    with pytest.raises(UserError, match="format 1 to 2"):
        load_architecture(path)
    _rewrite(path, format=2)
    weights.unlink()
    with pytest.raises(UserError, match="is missing"):
        load_architecture(path)
    with pytest.raises(UserError, match="missing"):
        load_architecture(path.with_name("other.json"))


def test_loading_leaves_the_global_generator_alone(saved: tuple[Path, torch.nn.Module]) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load_architecture(saved[0])
    assert torch.equal(torch.rand(1), expected)


@pytest.fixture
def weightless(tmp_path: Path) -> Path:
    path = tmp_path / "widths.json"
    graph = trace(network("resnet8"), SIZE)
    save_weightless(
        path,
        network={"name": "resnet8", "num_classes": 10, "in_channels": 3},
        input_size=SIZE,
        widths=SearchSpace(graph).sample(torch.Generator().manual_seed(0)),
        preprocessing={"mean": [0.5]},
    )
    return path


def test_without_weights_a_network_is_fresh_and_as_wide_as_it_is_said_to_be(
    weightless: Path,
) -> None:
    description = json.loads(weightless.read_text())
    assert description["weights"] is None
    torch.manual_seed(0)
    first, second = load_architecture(weightless), load_architecture(weightless)
    torch.manual_seed(0)
    again = load_architecture(weightless)
    assert not first.training and first(torch.zeros(1, *SIZE)).isfinite().all()
    assert sum(p.numel() for p in first.parameters()) == description["params"]
    weights = [model.get_parameter("conv1.weight") for model in (first, second, again)]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])


def test_weights_that_are_given_are_loaded_where_the_file_names_none(
    saved: tuple[Path, torch.nn.Module],
) -> None:
    path, narrowed = saved
    weights = path.parent / json.loads(path.read_text())["weights"]["file"]
    _rewrite(path, weights=None)
    images = torch.randn(2, *SIZE)
    torch.testing.assert_close(load_architecture(path, weights)(images), narrowed(images))


def test_a_file_without_weights_that_was_altered_is_refused(weightless: Path) -> None:
    described = json.loads(weightless.read_text())
    wrong = {
        "macs": described["macs"] + 1,
        "params": described["params"] - 1,
        "input_size": [3, 64, 64],
        "widths": {**described["widths"], "conv1": 1},
        "network": {**described["network"], "num_classes": 11},
    }
    for key, value in wrong.items():
        _rewrite(weightless, **{**described, key: value})
        with pytest.raises(UserError, match=r"widths\.json: (macs|params) is .* altered"):
            load_architecture(weightless)


def test_a_fresh_network_takes_memory_up_to_a_bound(
    weightless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphpruning.architecture.MOST_FRESH", 10**4)
    with pytest.raises(UserError, match=r"the full network has [\d,]+ weights, more than 10,000"):
        load_architecture(weightless)


def test_a_fresh_network_is_not_exported(
    weightless: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = weightless.with_suffix(".onnx")
    assert main(["export", str(weightless), "--onnx", str(onnx)]) == 2
    assert "names no weights to export" in capsys.readouterr().err and not onnx.exists()
