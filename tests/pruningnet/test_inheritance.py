"""A PruningNet that begins with the base's weights computes what the base computes."""

import pytest
import torch
from torch import Tensor, nn

from graphpruning import SearchSpace, narrow, trace
from graphpruning.network.graph import ChannelGraph, Widths
from graphpruning.network.importance import Reordering, by_importance
from graphpruning.network.subnet import Statistics
from graphpruning.network.surgery import install
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.training.loop import parameter_groups
from graphpruning.training.recipe import Recipe
from tests.network.test_surgery import Constants
from tests.networks import ANY_KIND, NETWORKS, Dense, network

PLUS = "graphpruning-plus"


def base_of(name: str) -> tuple[nn.Module, ChannelGraph]:
    """The network in float64, with a tenth of its channels: the same ties at little cost."""
    size = (3, 32, 32) if name in NETWORKS else (3, 48, 48)
    if name == "dense":
        torch.manual_seed(0)
        model: nn.Module = Dense()
    elif name == "constants":
        torch.manual_seed(0)
        model, size = Constants(), (3, 4, 4)
    else:
        model = network(name)
        graph = trace(model, size)
        model = narrow(model, graph, SearchSpace(graph, divisor=8, smallest=0.1).smallest)
    model = model.eval().double()
    return model, trace(model, size)


def started(model: nn.Module, graph: ChannelGraph) -> PruningNet:
    """The PruningNet in float64, after its start."""
    torch.manual_seed(0)
    net = PruningNet(graph, PLUS)
    features = net.conditioning.node_features
    net.conditioning.node_features = lambda widths: features(widths).double()  # type: ignore
    net = net.double()
    net.start_from(model)
    return net


def statistics(model: nn.Module, graph: ChannelGraph, widths: Widths) -> Statistics:
    """Those of the base's batch normalisations, in the new order, of the first channels."""
    reordering, mask = Reordering(graph, by_importance(model, graph)), graph.first_units(widths)
    return {
        name: (norm.running_mean[index], norm.running_var[index])  # type: ignore[index]
        for name, channels in graph.norms.items()
        if isinstance(norm := model.get_submodule(name), nn.BatchNorm2d)
        for index in [reordering.sources(channels)[mask[channels]]]
    }


def scores(net: PruningNet, model: nn.Module, images: Tensor, widths: Widths) -> Tensor:
    graph = net.subnet.graph
    with torch.no_grad():
        return net.subnet.logits(images, net.weights(widths), statistics(model, graph, widths))


EVERY = [*NETWORKS, *ANY_KIND, "dense", "constants"]


@pytest.mark.parametrize("name", EVERY)
def test_at_full_widths_it_computes_what_the_base_computes(name: str) -> None:
    model, graph = base_of(name)
    net = started(model, graph)
    images = torch.randn(2, *graph.input_size, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
    found = scores(net, model, images, graph.full_widths)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v2", "densenet121", "dense"])
def test_at_other_widths_the_least_important_channels_have_gone(name: str) -> None:
    model, graph = base_of(name)
    net, order = started(model, graph), by_importance(model, graph)
    widths = SearchSpace(graph, divisor=2, smallest=0.3).sample(torch.Generator().manual_seed(1))
    keep = {
        group: order[group][: width // graph.prunable[group].unit].sort().values
        for group, width in widths.items()
    }
    images = torch.randn(2, *graph.input_size, dtype=torch.float64)
    with torch.no_grad():
        expected = narrow(model, graph, widths, keep)(images)
    torch.testing.assert_close(scores(net, model, images, widths), expected)


def test_at_the_start_features_do_not_matter_and_later_they_can() -> None:
    model, graph = base_of("resnet8")
    net = started(model, graph)
    images = torch.randn(4, *graph.input_size, dtype=torch.float64)
    for generator in net.generators:
        assert not generator.map[..., :-1].any() and generator.map[..., -1].any()
    net(images, graph.full_widths).square().mean().backward()
    gradients = [generator.map.grad for generator in net.generators]
    assert all(g is not None and g[..., :-1].any() for g in gradients)
    assert net.terms is not None
    assert all(value.grad is not None for value in net.terms.values)


def test_scales_and_shifts_count_as_norms() -> None:
    model, graph = base_of("convnext_tiny")  # whose layer scales have three dimensions
    net = started(model, graph)
    assert net.terms is not None
    recipe = Recipe(epochs=1, batch_size=1, lr=0.1, schedule="linear", weight_decay=1e-4)
    _, spared = parameter_groups(net, recipe)
    assert spared["weight_decay"] == 0
    assert {id(value) for value in net.terms.values} <= {id(p) for p in spared["params"]}


@pytest.mark.parametrize("name", ["resnet8", "constants"])
def test_saved_weights_need_no_base(name: str) -> None:
    model, graph = base_of(name)
    net = started(model, graph)
    other, _ = base_of(name)
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            tensor.mul_(2)
    again = PruningNet(trace(other, graph.input_size), PLUS).double()
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        for term, (value, shift) in net.terms(graph.first_units(graph.full_widths)).items():  # type: ignore[misc]
            found = again.terms(graph.first_units(graph.full_widths))[term]  # type: ignore[misc]
            assert torch.equal(found[0], value)
            assert shift is None or torch.equal(found[1], shift)


@pytest.mark.parametrize("name", ["resnet8", "constants"])
def test_a_found_network_gets_its_scales_shifts_and_constants(name: str) -> None:
    """Those in the PruningNet's order, of which the found network keeps the first ones."""
    model, graph = base_of(name)
    net = started(model, graph)
    widths = SearchSpace(graph, divisor=2).smallest
    found = narrow(model, graph, widths)
    with torch.no_grad():
        install(found, graph, net.weights(widths), statistics(model, graph, widths))
        images = torch.randn(2, *graph.input_size, dtype=torch.float64)
        torch.testing.assert_close(found(images), scores(net, model, images, widths))


def test_rows_of_the_paper_have_no_terms() -> None:
    _, graph = base_of("resnet8")
    net = PruningNet(graph, "graph")
    assert net.terms is None and not any("terms" in name for name in net.state_dict())
