"""Layers measured on this device: each once, as the network runs it, kept in a file."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from graphpruning import SearchSpace, UserError, narrow, trace
from graphpruning import latency_table as tables
from graphpruning.latency_table import LatencyTable
from tests.networks import SIZE, Dense, Random, network

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Measuring made up: a layer takes a microsecond an element of its weight and its output.

    A network takes twice that, and 5 ms. The list says how many calls were measured.
    """
    measured = []

    def milliseconds(module: nn.Module, images: torch.Tensor) -> float:
        kinds = (nn.Conv2d, nn.Linear)
        layers = [part for part in module.modules() if isinstance(part, kinds)]
        return sum(layer.weight.numel() for layer in layers) / 1000 + 0.001

    def alternately(calls, device, repeats):  # type: ignore[no-untyped-def]
        measured.extend(calls)
        for call in calls:
            call()
        return [milliseconds(call.func, call.args[0]) for call in calls]

    def latency(models, size, device, batch):  # type: ignore[no-untyped-def]
        measured.extend(models)
        return [5 + 2 * milliseconds(model, torch.zeros(1)) for model in models]

    monkeypatch.setattr(tables, "alternately", alternately)
    monkeypatch.setattr(tables, "latency", latency)
    return measured


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v1", "Dense", *range(8)])
def test_every_kind_of_layer_is_cut_to_any_widths_and_run(
    name: str | int, clock: list[int], tmp_path: Path
) -> None:
    """Weights of layers are bilinear in both widths, so their table says any network exactly."""
    model = Random(name) if isinstance(name, int) else Dense() if name == "Dense" else network(name)
    model.eval()
    space = SearchSpace(trace(model, SIZE), divisor=2, smallest=0.25)
    before = deepcopy(model.state_dict())
    resource = LatencyTable(tmp_path / "table.json", CPU).of(model, space)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    for seed in range(3):
        widths = space.sample(torch.Generator().manual_seed(seed))
        small = narrow(model, space.graph, widths)
        layers = [small.get_submodule(layer.name).weight for layer in space.graph.layers]
        expected = sum(weight.numel() for weight in layers) / 1000
        vectors = np.array([space.vector(widths)])
        assert resource.used(vectors)[0] / 1e6 == pytest.approx(5 + 2 * expected, rel=0.01)


def test_what_was_measured_is_not_measured_again(clock: list[int], tmp_path: Path) -> None:
    model = network("resnet8")
    space = SearchSpace(trace(model, SIZE), divisor=8)
    file = tmp_path / "folder" / "table.json"
    first = LatencyTable(file, CPU).of(model, space)
    count = len(clock)
    second = LatencyTable(file, CPU).of(model, space)
    assert count > 0 and len(clock) == count
    vectors = np.array([space.vector(space.full), space.vector(space.smallest)])
    assert (first.used(vectors) == second.used(vectors)).all()
    deeper = network("resnet20")  # shares shapes with ResNet-8: only what is new is measured
    other = SearchSpace(trace(deeper, SIZE), divisor=8)
    LatencyTable(file, CPU).of(deeper, other)
    fresh = LatencyTable(tmp_path / "fresh.json", CPU)
    before = len(clock)
    fresh.of(deeper, other)
    assert before - count < len(clock) - before


def test_a_layer_is_measured_with_its_normalisation_and_activation(tmp_path: Path) -> None:
    model = network("resnet8")
    grids = list(tables._grids(model, SearchSpace(trace(model, SIZE), divisor=8), batch=2))
    said = {grid.layer.name: grid.said for grid in grids}
    assert said["conv1"].endswith("+ BatchNorm2d + relu") and "2xCx32x32" in said["conv1"]
    assert said["layer1.0.conv2"].endswith("+ BatchNorm2d")  # the shortcut comes before its ReLU
    (grid,) = (grid for grid in grids if grid.layer.name == "layer1.0.conv1")
    module, images = grid._make(8, 16)
    assert isinstance(module, nn.Sequential)
    conv, norm, relu = module
    expected = torch.relu(norm(conv(images + 1)))
    torch.testing.assert_close(relu(norm(conv(images + 1))), expected)
    assert conv.weight.shape == (16, 8, 3, 3) and norm.num_features == 16
    assert model.layer1[0].conv1.in_channels == 16  # type: ignore[index, union-attr]


def test_a_table_of_another_machine_is_refused(clock: list[int], tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    model = network("resnet8")
    LatencyTable(file, CPU).of(model, SearchSpace(trace(model, SIZE), divisor=8))
    with pytest.raises(UserError, match="measured with batch 1, here it is 4: name another"):
        LatencyTable(file, CPU, batch=4)
    held = json.loads(file.read_text())
    file.write_text(json.dumps({**held, "setting": {**held["setting"], "device": "Z80"}}))
    with pytest.raises(UserError, match="measured with device Z80"):
        LatencyTable(file, CPU)
    file.write_text("[]")
    with pytest.raises(UserError, match="is no table of latencies"):
        LatencyTable(file, CPU)
    with pytest.raises(UserError, match="at least one image"):
        LatencyTable(tmp_path / "new.json", CPU, batch=0)


def test_real_times_rise_with_what_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured here: a whole network takes longer than one of a quarter of the channels."""
    monkeypatch.setattr(tables, "REPEATS", 5)
    monkeypatch.setattr(tables, "KNOTS", 2)
    convolutions = nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 128, 3, padding=1)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)
    model = nn.Sequential(*convolutions, nn.ReLU(), *pooled).eval()
    space = SearchSpace(trace(model, SIZE), divisor=16, smallest=0.25)
    timed = space.limited_by(LatencyTable(tmp_path / "table.json", CPU).of(model, space))
    assert 0 < 1.5 * timed.used(space.smallest) < timed.used(space.full)
