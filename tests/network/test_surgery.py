"""A narrowed network computes what it should: nothing lost, nothing that pruning left behind."""

import pytest
import torch
from torch import nn

from graphpruning import SearchSpace, narrow, trace
from graphpruning.network.subnet import LayerWeights, Subnet
from graphpruning.network.surgery import install
from tests.networks import NETWORKS, SIZE, Dense, network


@pytest.mark.parametrize("name", NETWORKS)
def test_full_width_is_bit_equal(name: str) -> None:
    model = network(name)
    graph = trace(model, SIZE)
    images = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1))
    narrowed = narrow(model, graph, graph.full_widths)
    assert torch.equal(model(images), narrowed(images))
    assert not {id(p) for p in model.parameters()} & {id(p) for p in narrowed.parameters()}


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v1", "vgg11_bn"])
def test_removed_channels_are_those_whose_weights_are_zero(name: str) -> None:
    """Zeroing what reads a channel must equal removing the channel."""
    model = network(name)
    graph = trace(model, SIZE)
    generator = torch.Generator().manual_seed(2)
    keep = {
        group: torch.randperm(full, generator=generator)[: max(1, full // 2)].sort().values
        for group, full in graph.full_widths.items()
    }
    narrowed = narrow(model, graph, {g: len(index) for g, index in keep.items()}, keep)
    with torch.no_grad():
        for layer in graph.layers:
            if layer.kind == "depthwise":
                continue
            weight, offset = model.get_submodule(layer.name).weight, 0
            for segment in layer.inputs:
                if segment.group in keep:
                    gone = torch.ones(segment.size, dtype=torch.bool)
                    gone[keep[segment.group]] = False
                    columns = offset + gone.repeat_interleave(segment.repeat).nonzero().flatten()
                    weight[:, columns] = 0  # type: ignore[index, operator]
                offset += segment.size * segment.repeat
    images = torch.randn(2, *SIZE, generator=generator)
    torch.testing.assert_close(narrowed(images), model(images), rtol=1e-4, atol=1e-4)


def test_concatenation_and_flatten_are_cut_at_the_right_places() -> None:
    model = Dense().eval()
    graph = trace(model, (3, 8, 8))
    keep = {"one": torch.tensor([1, 3]), "two": torch.tensor([0, 4, 5])}
    narrowed = narrow(model, graph, {"one": 2, "two": 3}, keep)
    columns = torch.cat([torch.arange(16) + 16 * c for c in (1, 3, 4, 8, 9)])
    assert torch.equal(narrowed.get_submodule("fc").weight, model.fc.weight[:, columns])
    assert narrowed(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


@pytest.mark.parametrize("name", NETWORKS)
def test_subnet_computes_what_the_narrowed_network_computes(name: str) -> None:
    model = network(name)
    graph = trace(model, SIZE)
    generator = torch.Generator().manual_seed(3)
    widths = SearchSpace(graph).sample(generator)
    narrowed = narrow(model, graph, widths)
    weights: LayerWeights = {}
    for name_ in [*(layer.name for layer in graph.layers), *graph.norms]:
        module = narrowed.get_submodule(name_)
        weights[name_] = (module.weight.detach(), module.bias)  # type: ignore[assignment, operator]
    statistics = {
        norm: (module.running_mean, module.running_var)
        for norm in graph.norms
        for module in [narrowed.get_submodule(norm)]
    }
    images = torch.randn(2, *SIZE, generator=generator)
    expected = narrowed(images)
    found = Subnet(graph).logits(images, weights, statistics)  # type: ignore[arg-type]
    assert torch.equal(found, expected)
    other = narrow(network(name, seed=9), graph, widths)
    install(other, graph, weights, statistics)  # type: ignore[arg-type]
    assert torch.equal(other(images), expected)


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
