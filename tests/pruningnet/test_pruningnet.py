"""Features, aggregation and generated weights are those of the widths asked for."""

import pytest
import torch
from torch import Tensor

from graphpruning import SearchSpace, trace
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.zoo import build
from graphpruning.pruningnet import diagnostics
from graphpruning.pruningnet.aggregator import (
    BOTTLENECK,
    DAMPING,
    DEPTH,
    NORM,
    SIZE,
    GraphAggregator,
    conditioned,
)
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.pruningnet.features import FEATURES, NodeFeatures, block_ratios
from graphpruning.pruningnet.generator import WeightGenerator
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from tests.networks import Dense, network

INPUT = (3, 16, 16)


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(network("resnet8"), INPUT)


def test_features_lie_between_0_and_1_and_only_the_ratios_move(graph: ChannelGraph) -> None:
    features = NodeFeatures(graph)
    space = SearchSpace(graph)
    full, small = features(space.full), features(space.smallest)
    assert full.shape == (len(graph.layers), len(FEATURES))
    assert full.min() >= 0 and full.max() <= 1
    assert torch.equal(full[:, :-2], small[:, :-2])
    assert torch.equal(full[:, -2:], torch.ones(len(graph.layers), 2))
    row = [layer.name for layer in graph.layers].index("layer2.0.conv1")
    asked = features({**space.full, "conv1": 8, "layer2.0.conv1": 4})
    assert asked[row, -2:].tolist() == [8 / 16, 4 / 32]


def test_a_block_is_conditioned_by_in_mid_and_out(graph: ChannelGraph) -> None:
    ratios = dict(zip((layer.name for layer in graph.layers), block_ratios(graph), strict=True))
    assert ratios["conv1"] == ["conv1"]
    assert ratios["layer2.0.conv2"] == ["conv1", "layer2.0.conv1", "layer2.0.conv2"]
    assert ratios["layer2.0.shortcut.0"] == ratios["layer2.0.conv1"]


def test_aggregation_is_kipf_and_wellings(graph: ChannelGraph) -> None:
    """D^-1/2 (A + I) D^-1/2 X W, written out with a dense matrix."""
    torch.manual_seed(0)
    aggregator = GraphAggregator(graph)
    space = SearchSpace(graph)
    names = [layer.name for layer in graph.layers]
    adjacency = torch.eye(len(names))
    for edge in graph.edges:
        one, two = names.index(edge.source), names.index(edge.target)
        adjacency[one, two] = adjacency[two, one] = 1
    scale = adjacency.sum(dim=1).rsqrt()
    normal = scale[:, None] * adjacency * scale
    nodes = aggregator.node_features(space.smallest)
    read, write = ((nodes[:, -2:] - 0.625) / 0.25).unbind(dim=1)
    start, by_read, by_write = aggregator.lift(nodes[:, :-2]).chunk(3, dim=1)
    x = start + by_read * read[:, None] + by_write * write[:, None]
    for convolution in aggregator.convolutions:
        seen = normal @ convolution.lin(x) + convolution.bias
        x = x + seen * torch.sigmoid(seen)
    x = aggregator.head(x)
    x = x - x.mean(dim=1, keepdim=True)
    expected = NORM * x / x.norm(dim=1, keepdim=True)
    torch.testing.assert_close(aggregator(space.smallest), expected, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def bottlenecks() -> ChannelGraph:
    """MobileNetV2 with a quarter of its channels, which a PruningNet generates 16 times as soon."""
    return trace(build("mobilenet_v2", 10, width_mult=0.25), (3, 32, 32))


@pytest.mark.parametrize("name", ["graph", "bottlenecks"])
@pytest.mark.parametrize("conditioning", ["graph", "none", "no-shortcuts", "sage", "gat", "block"])
def test_settled_features_are_the_features_of_now(
    name: str, conditioning: str, request: pytest.FixtureRequest
) -> None:
    """By dense products where `features` goes by PyG, within rounding."""
    graph: ChannelGraph = request.getfixturevalue(name)
    torch.manual_seed(0)
    net = PruningNet(graph, conditioning)
    with torch.no_grad():
        for parameter in net.conditioning.parameters():  # biases begin at 0
            parameter.add_(0.1 * torch.randn_like(parameter))
    settled, space = net.settled_features(), SearchSpace(graph)
    generator = torch.Generator().manual_seed(0)
    drawn = [space.full, space.smallest, *(space.sample(generator) for _ in range(8))]
    for widths in drawn:
        torch.testing.assert_close(
            settled(widths), net.features(widths).detach(), rtol=0, atol=1e-5
        )


def test_a_features_gradient_is_damped_by_the_root_of_the_weights_it_generates(
    graph: ChannelGraph,
) -> None:
    torch.manual_seed(0)
    net = PruningNet(graph, "graph")
    aggregator, full = net.conditioning, graph.full_widths
    assert isinstance(aggregator, GraphAggregator)
    with torch.no_grad():
        counts = [net.weights(full)[name][0].numel() for name in net.names]
    roots = DAMPING * torch.tensor(counts)[:, None].sqrt()
    gradient = torch.randn(len(counts), SIZE)

    def reaches_the_head(undamped: bool) -> Tensor:
        net.zero_grad()
        divided = gradient / roots if undamped else gradient
        aggregator.damping.copy_(torch.ones_like(roots) if undamped else 1 / roots)
        (aggregator(full) * divided).sum().backward()
        assert aggregator.head.weight.grad is not None
        return aggregator.head.weight.grad.clone()

    torch.testing.assert_close(aggregator.damping, 1 / roots)
    torch.testing.assert_close(reaches_the_head(undamped=False), reaches_the_head(undamped=True))


def test_metaprunings_sizes_are_64_in_inverted_residuals_and_else_32(
    bottlenecks: ChannelGraph,
) -> None:
    graph = bottlenecks
    torch.manual_seed(0)
    net = PruningNet(graph, "block")
    sizes = {
        layer.name: generator.map.shape[-1] - 1
        for layer, generator in zip(graph.layers, net.generators, strict=True)
    }
    assert sizes["features.0.0"] == sizes["features.18.0"] == sizes["classifier.1"] == SIZE
    inside = {name: size for name, size in sizes.items() if ".conv." in name}
    assert {size for name, size in inside.items() if "features.1." not in name} == {BOTTLENECK}
    assert {size for name, size in inside.items() if "features.1." in name} == {SIZE}  # no middle
    with torch.no_grad():
        features = net.features(graph.full_widths)
    assert features.shape == (len(graph.layers), BOTTLENECK)
    assert not features[0, SIZE:].any() and features[5].any()


def _reached(graph: ChannelGraph, conditioning: str, changed: str) -> set[str]:
    """Layers whose feature moves when the width of the group `changed` does."""
    torch.manual_seed(0)
    features, full = conditioned(graph, conditioning), graph.full_widths
    difference = features({**full, changed: full[changed] // 2}) - features(full)
    rows = (difference.norm(dim=1) > 1e-6).nonzero().flatten().tolist()
    return {graph.layers[row].name for row in rows}


@pytest.mark.parametrize("conditioning", ["graph", "sage", "gat", "no-shortcuts", "none"])
def test_only_edges_carry_widths_to_other_layers(graph: ChannelGraph, conditioning: str) -> None:
    """Each convolution carries them an edge further, from layers that read or write the group."""
    group = "layer3.0.conv1"
    near = {layer.name for layer in graph.layers if group in (*layer.reads, *layer.writes)}
    for _ in range(DEPTH):
        near |= {
            other
            for edge in graph.edges
            if conditioning != "none" and not (conditioning == "no-shortcuts" and edge.shortcut)
            for one, other in ((edge.source, edge.target), (edge.target, edge.source))
            if one in near
        }
    assert _reached(graph, conditioning, group) == near


def test_without_shortcut_edges_fewer_layers_are_reached() -> None:
    graph = trace(network("resnet14"), INPUT)
    group = "layer2.0.conv1"
    assert _reached(graph, "no-shortcuts", group) < _reached(graph, "graph", group)


@pytest.mark.parametrize("name", ["layer2.0.conv1", "fc"])
def test_cropping_first_gives_the_crop_of_the_full_weight(graph: ChannelGraph, name: str) -> None:
    torch.manual_seed(0)
    layer, space = graph.layer(name), SearchSpace(graph)
    generator = WeightGenerator(layer, SIZE)
    feature = torch.randn(SIZE)
    full, full_bias = generator(feature, graph.first_units(space.full))
    small, small_bias = generator(feature, graph.first_units(space.smallest))
    torch.testing.assert_close(small, full[: small.shape[0], : small.shape[1]])
    assert (full_bias is None) == (small_bias is None) == (not layer.bias)
    if full_bias is not None and small_bias is not None:
        torch.testing.assert_close(small_bias, full_bias[: len(small_bias)])


def test_weights_of_concatenated_inputs_come_from_each_part() -> None:
    graph = trace(Dense(), (3, 8, 8))
    torch.manual_seed(0)
    net = PruningNet(graph, "graph")
    full, small = graph.full_widths, {"one": 2, "two": 3}
    feature = torch.randn(SIZE)
    generator = net.generators[[layer.name for layer in graph.layers].index("fc")]
    columns = torch.cat([torch.arange(32), 64 + torch.arange(48)])
    expected = generator(feature, graph.first_units(full))[0][:, columns]
    torch.testing.assert_close(generator(feature, graph.first_units(small))[0], expected)
    assert net(torch.zeros(2, 3, 8, 8), small).shape == (2, 5)


@pytest.fixture(scope="module")
def depthwise() -> ChannelGraph:
    """MobileNetV1 with a quarter of its channels."""
    return trace(build("mobilenet_v1", 10, width=0.25), INPUT)


@pytest.mark.parametrize(
    ("name", "conditioning"),
    [*(("graph", kind) for kind in sorted(CONDITIONINGS)), ("depthwise", "graph")],
)
def test_training_lowers_the_loss_at_every_width(
    name: str, conditioning: str, request: pytest.FixtureRequest
) -> None:
    graph: ChannelGraph = request.getfixturevalue(name)
    space = SearchSpace(graph, divisor=8)
    torch.manual_seed(0)
    net = PruningNet(graph, conditioning)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(32, *INPUT, generator=generator), torch.arange(32) % 4
    optimizer = torch.optim.SGD(net.parameters(), 0.05, 0.9)
    step = RandomWidthStep(space, label_smoothing=0.0)

    def mean_loss() -> float:
        draws = torch.Generator().manual_seed(5)
        with torch.no_grad():
            return sum(float(step(net, images, labels, draws)) for _ in range(5)) / 5

    before = mean_loss()
    for _ in range(12):
        loss = step(net, images, labels, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
    assert mean_loss() < before - 0.3


@pytest.mark.parametrize("conditioning", sorted(CONDITIONINGS))
def test_training_at_a_high_rate_leaves_the_features_alive(
    graph: ChannelGraph, conditioning: str
) -> None:
    torch.manual_seed(0)
    net = PruningNet(graph, conditioning)
    space = SearchSpace(graph)
    step = RandomWidthStep(space, 0.1)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(32, *INPUT, generator=generator), torch.arange(32) % 10
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9)
    for _ in range(60):
        optimizer.zero_grad()
        step(net, images, labels, generator).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
    drawn = [space.sample(generator) for _ in range(50)]
    torch.manual_seed(0)
    untrained = diagnostics.features(PruningNet(graph, conditioning), drawn)
    trained = diagnostics.features(net, drawn)
    before, after = map(diagnostics.feature_variation, (untrained, trained))
    if conditioning == "constant":
        assert after == before == 0
    else:
        assert after > max(0.05, before / 3)


def test_the_step_draws_its_widths_from_the_generator_alone(graph: ChannelGraph) -> None:
    torch.manual_seed(0)
    net = PruningNet(graph, "graph")
    images, labels = torch.randn(4, *INPUT), torch.arange(4)
    step = RandomWidthStep(SearchSpace(graph), 0.1)
    losses: list[Tensor] = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        losses.append(step(net, images, labels, torch.Generator().manual_seed(3)))
    assert torch.equal(losses[0], losses[1])


def test_features_that_autocast_made_can_be_differentiated():
    """`weights` turns autocast off, but whoever asks for features may have it on."""
    graph = trace(build("resnet8", 10, in_channels=1, width=8), (1, 16, 16))
    net = PruningNet(graph, "graph")
    with torch.autocast("cpu", torch.bfloat16):
        target = net.features(graph.full_widths)[:, 0].sum()
    target.backward()
    found = [parameter.grad for parameter in net.conditioning.parameters()]
    assert all(gradient is None or gradient.isfinite().all() for gradient in found)
    assert any(gradient is not None and gradient.any() for gradient in found)
