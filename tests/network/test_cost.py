"""MACs and parameters: known values, PyTorch's own counter, one by one and all at once."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from graphpruning import SearchSpace, macs, narrow, params, trace
from graphpruning.network.cost import CostTable
from graphpruning.network.graph import kept
from graphpruning.network.zoo import build, weightless
from tests.networks import CONVOLUTIONAL, NETWORKS, SIZE, network, on_meta


@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        ("mobilenet_v1", {}, 568.7),
        ("mobilenet_v1", {"width": 0.75}, 325.4),
        ("mobilenet_v1", {"width": 0.5}, 149.5),
        ("mobilenet_v1", {"width": 0.25}, 41.0),
        ("mobilenet_v2", {}, 300.8),
        ("resnet50", {}, 4089.2),
    ],
)
def test_known_macs_on_imagenet(name: str, options: dict[str, float], millions: float) -> None:
    with weightless():
        model = build(name, 1000, **options)
    graph = trace(model, (3, 224, 224))
    assert macs(graph, graph.full_widths) / 1e6 == pytest.approx(millions, abs=0.05)


def test_metaprunings_published_resnet50_of_1g() -> None:
    """Its ids choose among 31 scales: stem, three stages' outputs, 16 middle widths.

    The published parameter count leaves batch normalisation out.
    """
    with weightless():
        model = build("resnet50", 1000)
    graph = trace(model, (3, 224, 224))
    ids = [19, 9, 15, 13, 10, 9, 10, 6, 9, 13, 11, 12, 7, 18, 7, 13, 12, 10, 19, 18]
    scale = [(10 + 3 * i) / 100 for i in range(31)]
    widths = {"conv1": int(64 * scale[ids[0]])}
    outputs = dict(zip(("layer1", "layer2", "layer3"), ids[1:4], strict=True))
    blocks = [
        (s, b)
        for s, n in (("layer1", 3), ("layer2", 4), ("layer3", 6), ("layer4", 3))
        for b in range(n)
    ]
    middle = dict(zip(blocks, ids[4:], strict=True))
    for group, full in graph.full_widths.items():
        if group == "conv1":
            continue
        stage, block, layer = group.split(".")[:3]
        if layer in ("conv1", "conv2"):
            widths[group] = int(full * scale[middle[stage, int(block)]])
        else:
            widths[group] = int(full * scale[outputs[stage]]) if stage in outputs else full
    assert macs(graph, widths) / 1e6 == pytest.approx(1027.6, abs=0.05)
    mask = graph.first_units(widths)
    norms = sum(2 * len(kept(channels, mask)) for channels in graph.norms.values())
    assert (params(graph, widths) - norms) / 1e6 == pytest.approx(10.53, abs=0.005)


def test_amcs_published_mobilenet_v1() -> None:
    with weightless():
        model = build("mobilenet_v1", 1000)
    graph = trace(model, (3, 224, 224))
    channels = [24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752]
    widths = dict(zip(graph.full_widths, channels, strict=True))
    assert macs(graph, widths) / 1e6 == pytest.approx(293.9, abs=0.05)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_widths_cost_what_the_narrowed_network_costs(name: str) -> None:
    model = network(name)
    graph = trace(model, SIZE)
    space = SearchSpace(graph, divisor=3, smallest=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        widths = space.sample(generator)
        narrowed = narrow(model, graph, widths)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            narrowed(torch.zeros(1, *SIZE))
        assert 2 * macs(graph, widths) == counter.get_total_flops()
        assert params(graph, widths) == sum(p.numel() for p in narrowed.parameters())


def same(x: Tensor, *given: Any) -> Tensor:
    """In place of `F.batch_norm`, of which nothing is counted and which takes PyTorch half of the
    time of a run on the meta device.
    """
    mean, variance, weight, bias, *_ = given
    assert {len(each) for each in (mean, variance, weight, bias)} == {x.shape[1]}
    return x


def test_torchvision_has_68_convolutional_networks() -> None:
    assert len(CONVOLUTIONAL) == 68


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_every_network_of_torchvision_is_narrowed_and_counted_exactly(name: str) -> None:
    size = (3, 96, 96)
    model = on_meta(name)
    graph = trace(model, size)
    widths = SearchSpace(graph, divisor=1, smallest=0.05).sample(torch.Generator().manual_seed(0))
    narrowed = narrow(model, graph, widths)
    with (
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        patch.object(F, "batch_norm", same),
    ):
        narrowed(torch.zeros(1, *size, device="meta"))
    assert 2 * macs(graph, widths) == counter.get_total_flops()
    assert params(graph, widths) == sum(p.numel() for p in narrowed.parameters())
    assert macs(graph, widths) < macs(graph, graph.full_widths)


class _Folded(nn.Module):
    """Positions on the axis of the batch, on four axes, and two images made of one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.rows, self.parts = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y = self.again(torch.cat((y, y), 0)).permute(0, 2, 3, 1)
        count, height, width, channels = y.shape
        rows = self.rows(y.reshape(count * height, width, channels))
        return self.parts(rows.view(count, height // 2, 2, width, rows.shape[2]))


def test_positions_on_any_axis_count() -> None:
    model = _Folded()
    graph = trace(model, (3, 4, 4))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 4, 4))
    assert 2 * macs(graph, graph.full_widths) == counter.get_total_flops()


def test_many_width_vectors_cost_what_each_costs_alone() -> None:
    graph = trace(network("resnet20"), SIZE)
    table, space = CostTable(graph), SearchSpace(graph)
    generator = torch.Generator().manual_seed(0)
    samples = [space.sample(generator) for _ in range(50)]
    matrix = np.stack([table.vector(widths) for widths in samples])
    assert table.macs(matrix).tolist() == [macs(graph, widths) for widths in samples]
    assert table.params(matrix).tolist() == [params(graph, widths) for widths in samples]
    assert (table.layer_macs(matrix).sum(axis=1) == table.macs(matrix)).all()
