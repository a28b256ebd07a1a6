"""A narrowed network computes what it should: nothing lost, nothing that pruning left behind."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.coverage import random_units, weights_of
from graphpruning import ChannelGraph, SearchSpace, macs, narrow, params, trace
from graphpruning.network.subnet import LayerWeights, Subnet
from graphpruning.network.surgery import install
from graphpruning.pruningnet.pruningnet import PruningNet
from tests.networks import ANY_KIND, NETWORKS, SIZE, Dense, Random, network

MIXING = "convnext_tiny"
EVERY = [*(name for name in (*NETWORKS, *ANY_KIND) if name != MIXING), MIXING]


@pytest.fixture(scope="module", params=EVERY)
def traced(request: pytest.FixtureRequest) -> tuple[nn.Module, ChannelGraph]:
    """A network and its graph; nobody changes them."""
    model = network(request.param)
    return model, trace(model, (3, 64, 64) if request.param in ANY_KIND else SIZE)


def test_full_width_is_bit_equal(traced: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = traced
    images = torch.randn(2, *graph.input_size, generator=torch.Generator().manual_seed(1))
    narrowed = narrow(model, graph, graph.full_widths)
    assert torch.equal(model(images), narrowed(images))
    assert not {id(p) for p in model.parameters()} & {id(p) for p in narrowed.parameters()}


def widths_of(graph: ChannelGraph, keep: dict[str, Tensor]) -> dict[str, int]:
    return {name: len(units) * graph.prunable[name].unit for name, units in keep.items()}


def check_removal(model: nn.Module, graph: ChannelGraph, keep: dict[str, Tensor]) -> None:
    """Zeroing what reads a channel, here in `model` itself, must equal removing the channel."""
    narrowed = narrow(model, graph, widths_of(graph, keep), keep)
    mask = graph.these_units(keep)
    with torch.no_grad():
        for layer in graph.layers:
            if layer.kind != "depthwise":
                gone = ~mask[layer.columns]
                model.get_submodule(layer.name).weight[:, gone] = 0  # type: ignore[index, operator]
    images = torch.randn(2, *graph.input_size, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(narrowed(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("traced", EVERY[: EVERY.index(MIXING)], indirect=True)
def test_removed_channels_are_those_whose_weights_are_zero(
    traced: tuple[nn.Module, ChannelGraph],
) -> None:
    """Not ConvNeXt: a layer norm without some channels has other statistics."""
    model, graph = traced
    check_removal(deepcopy(model), graph, random_units(graph, 2))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ([0, 0, 1], "different units, from 0 to 7"),
        ([0, 1, 8], "different units, from 0 to 7"),
        ([-1, 0, 1], "different units, from 0 to 7"),
        ([0, 1], "has another length than widths says: 3 units"),
        (None, "different groups"),
    ],
)
def test_units_that_are_not_there_are_refused(wrong: list[int] | None, says: str) -> None:
    """They would be others', or fewer than asked for."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 2, 3))
    graph = trace(model, (3, 9, 9))
    first, second = graph.prunable
    keep = {second: torch.arange(4)} | ({} if wrong is None else {first: torch.tensor(wrong)})
    with pytest.raises(ValueError, match=says):
        narrow(model, graph, {first: 3, second: 4}, keep=keep)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_any_small_network_loses_the_right_channels_and_costs_what_it_should(seed: int) -> None:
    model, size = Random(seed), (3, 6, 6)
    graph = trace(model, size)
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(1))
    assert torch.equal(narrow(model, graph, graph.full_widths)(images), model(images))
    keep = random_units(graph, seed)
    widths = widths_of(graph, keep)
    narrowed = narrow(model, graph, widths, keep)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        narrowed(images[:1])
    assert 2 * macs(graph, widths) == counter.get_total_flops()
    assert params(graph, widths) == sum(p.numel() for p in narrowed.parameters())
    check_removal(model, graph, keep)


def test_concatenation_and_flatten_are_cut_at_the_right_places() -> None:
    model = Dense().eval()
    graph = trace(model, (3, 8, 8))
    keep = {"one": torch.tensor([1, 3]), "two": torch.tensor([0, 4, 5])}
    narrowed = narrow(model, graph, {"one": 2, "two": 3}, keep)
    columns = torch.cat([torch.arange(16) + 16 * c for c in (1, 3, 4, 8, 9)])
    assert torch.equal(narrowed.get_submodule("fc").weight, model.fc.weight[:, columns])
    assert narrowed(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


@torch.no_grad()  # with gradients some convolutions go by a detour, and round otherwise
def test_subnet_computes_what_the_narrowed_network_computes(
    traced: tuple[nn.Module, ChannelGraph],
) -> None:
    model, graph = traced
    generator = torch.Generator().manual_seed(3)
    widths = SearchSpace(graph).sample(generator)
    narrowed = narrow(model, graph, widths)
    weights, statistics = weights_of(narrowed, graph)
    images = torch.randn(2, *graph.input_size, generator=generator)
    expected = narrowed(images)
    found = Subnet(graph).logits(images, weights, statistics)
    assert torch.equal(found, expected)
    other = deepcopy(narrowed)
    for tensor in (*other.parameters(), *other.buffers()):
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)  # nothing but what is installed can give the right numbers
    install(other, graph, weights, statistics)
    assert torch.equal(other(images), expected)


class Constants(nn.Module):
    """Buffers that normalise, a parameter that is added, one that multiplies, and one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))
        self.register_buffer("gain", torch.rand(6, 1, 1) + 0.5)
        self.one, self.two = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)
        self.added = nn.Parameter(torch.randn(6, 1, 1))
        self.scale = nn.Parameter(torch.randn(6, 1, 1))
        self.all = nn.Parameter(torch.tensor([2.0]))
        self.drop = nn.Dropout2d(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x - self.mean) * self.gain + self.added
        return self.two(self.drop(y * self.scale) * self.all).mean((2, 3))


def test_what_no_layer_owns_is_cut_and_kept() -> None:
    model, size = Constants().eval(), (3, 4, 4)
    graph = trace(model, size)
    assert list(graph.scales) == ["scale", "all"]
    assert list(graph.constants) == ["mean", "gain", "added"]
    widths = {"one": 4}
    narrowed = narrow(model, graph, widths)
    assert params(graph, widths) == sum(p.numel() for p in narrowed.parameters())
    net = PruningNet(graph, "graph")
    with torch.no_grad():
        weights = net.weights(widths)
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    model.train()  # a trained network's mode must not matter to a candidate
    found = Subnet(graph).logits(images, weights, {})
    install(narrowed, graph, weights, {})
    assert torch.equal(narrowed.mean, model.mean)
    assert torch.equal(narrowed.gain, model.gain[:4]) and torch.equal(
        narrowed.added, model.added[:4]
    )
    assert torch.equal(narrowed.scale, torch.ones(4, 1, 1))
    torch.testing.assert_close(found, narrowed.eval()(images))


def test_recalibration_equals_a_batch_normalisation_layer_on_the_same_batches() -> None:
    model = network("resnet8")
    graph = trace(model, SIZE)
    weights: LayerWeights = {
        name: (model.get_submodule(name).weight.detach(), model.get_submodule(name).bias)  # type: ignore[dict-item, operator, misc]
        for name in [*(layer.name for layer in graph.layers), *graph.norms]
    }
    generator = torch.Generator().manual_seed(4)
    batches = [torch.randn(8, *SIZE, generator=generator) for _ in range(3)]
    found = Subnet(graph).recalibrate(weights, [(images, images) for images in batches])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a cumulative average
            module.reset_running_stats()
    model.train()
    with torch.no_grad():
        for images in batches:
            model(images)
    for name, (mean, variance) in found.items():
        norm = model.get_submodule(name)
        torch.testing.assert_close(mean, norm.running_mean)
        torch.testing.assert_close(variance, norm.running_var)
