"""The graph has the layers, edges and groups that the network really has."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models

from graphpruning import SearchSpace, UnsupportedNetwork, UserError, narrow, trace
from graphpruning.network.zoo import build
from tests.networks import NETWORKS, SIZE, Dense, network


def test_groups_of_resnet20_are_three_stages_and_nine_middles() -> None:
    graph = trace(network("resnet20"), SIZE)
    groups = {group.id: group for group in graph.groups}
    assert len(graph.full_widths) == 12
    assert groups["conv1"].layers == tuple(["conv1"] + [f"layer1.{i}.conv2" for i in range(3)])
    assert groups["layer1.0.conv1"].layers == ("layer1.0.conv1",)
    assert "added" in groups["conv1"].reason
    assert not groups["fc"].prunable and "output" in groups["fc"].reason
    assert list(graph.full_widths) == [group.id for group in graph.groups if group.prunable]


def test_shortcut_edges_are_those_that_skip_a_deeper_branch() -> None:
    graph = trace(network("resnet8"), SIZE)
    flags = {(edge.source, edge.target): edge.shortcut for edge in graph.edges}
    assert flags["conv1", "layer1.0.conv1"] is False
    assert flags["layer1.0.conv2", "layer2.0.conv1"] is False
    assert flags["conv1", "layer2.0.conv1"] is True  # the identity around layer1.0
    assert flags["layer2.0.shortcut.0", "layer3.0.conv1"] is True  # a projection is one too


class Resized(nn.Module):
    """The last layer reads a branch that was brought to another's size, and divided by a third's
    number of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 6, 1)
        self.last = nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, other = self.first(x), self.other(x)
        parts = nn.functional.interpolate(y, size=other.shape[2:]).chunk(2, 1)
        return self.last(torch.cat(parts, 1) / (other.size(2) * other.size(3)))


def test_who_reads_a_size_alone_is_joined_by_no_edge() -> None:
    edges = trace(Resized(), (3, 8, 8)).edges
    assert [(edge.source, edge.target) for edge in edges] == [("first", "last")]


def test_depthwise_filters_share_the_group_of_their_input() -> None:
    graph = trace(network("mobilenet_v1"), SIZE)
    assert len(graph.full_widths) == 14
    for group in graph.groups[:-2]:
        kinds = [graph.layer(name).kind for name in group.layers]
        assert kinds[1] == "depthwise" and "filters each channel" in group.reason


def test_a_flattened_map_repeats_each_channel() -> None:
    graph = trace(Dense(), (3, 8, 8))
    assert graph.layer("fc").reads == ("one", "two")
    assert graph.layer("fc").inputs.tolist() == [unit for unit in range(10) for _ in range(16)]


def test_parts_of_a_grouped_convolution_keep_the_same_channels() -> None:
    graph = trace(network("resnext50_32x4d"), SIZE)
    group = graph.prunable["layer1.0.conv2"]
    assert (group.width, group.unit) == (128, 32) and "32 convolution groups" in group.reason
    units = graph.layer("layer1.0.conv2").outputs
    assert torch.equal(units.view(32, 4), units[:4].expand(32, 4))
    with pytest.raises(UserError, match="keeps 40 channels, but they only go 32 at a time"):
        graph.check({**graph.full_widths, group.id: 40})


def test_a_channel_shuffle_ties_what_must_stay_in_step() -> None:
    """Two halves, shuffled and split again: a channel, its partner, and both of the other half."""

    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.left, self.right = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.cat((self.one(x), self.two(x)), 1)
            count, channels, height, width = y.size()
            y = y.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous()
            left, right = y.view(count, channels, height, width).chunk(2, dim=1)
            return self.left(left) + self.right(right)

    graph = trace(Shuffled(), (3, 4, 4))
    group = graph.prunable["one"]
    assert (group.width, group.unit, group.layers) == (4, 2, ("one", "two"))
    assert graph.layer("one").outputs.tolist() == [0, 1, 0, 1]
    assert graph.layer("left").inputs.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", [*NETWORKS, "resnext50_32x4d", "densenet121", "regnet_y_400mf"])
def test_groups_equal_those_of_torch_pruning(name: str) -> None:
    """Torch-Pruning asks which layers lose channels with a layer: the same as ours."""
    import torch_pruning as tp

    model = network(name)
    graph = trace(model, SIZE)
    dependencies = tp.DependencyGraph().build_dependency(model, torch.zeros(1, *SIZE))
    names = {module: layer for layer, module in model.named_modules()}
    for group in graph.groups:
        if not group.prunable:
            continue
        module = model.get_submodule(group.layers[0])
        theirs = dependencies.get_pruning_group(module, tp.prune_conv_out_channels, idxs=[0])
        outputs = {
            names[dependency.target.module]
            for dependency, _ in theirs
            if re.search("out_channels|depthwise", dependency.handler.__name__)
            and isinstance(dependency.target.module, nn.Conv2d | nn.Linear)
        }
        assert outputs == set(group.layers)


def test_tracing_leaves_the_network_as_it_was() -> None:
    model = build("resnet8", 10).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace(model, SIZE)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


class _Counting(nn.Module):
    """Counts its passes and adds noise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes.add_(1)  # type: ignore[operator,union-attr]
        return self.conv(images) + torch.rand(()).item()


def test_tracing_moves_no_buffer_and_no_random_number() -> None:
    model, state = _Counting(), torch.get_rng_state()
    trace(model, SIZE)
    assert model.passes == 0 and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float64, None), (torch.float16, "cpu"), (torch.float32, "meta")]
)
def test_defaults_of_pytorch_change_no_graph_and_stay(
    dtype: torch.dtype, device: str | None
) -> None:
    given, expected = network("resnet8"), trace(network("resnet8"), SIZE)
    drawn = [SearchSpace(expected).sample(torch.Generator().manual_seed(0))]
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        graph = trace(given, SIZE)
        drawn.append(SearchSpace(graph).sample(torch.Generator().manual_seed(0)))
        small = narrow(given, graph, drawn[1])
        assert torch.get_default_dtype() == dtype
        assert torch.get_default_device() == torch.device(device or "cpu")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert graph.describe() == expected.describe() and drawn[0] == drawn[1]
    assert {(p.dtype, p.device.type) for p in small.parameters()} == {(torch.float32, "cpu")}


class _Odd(nn.Module):
    """A convolution, then `operation` on its four channels."""

    def __init__(self, operation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(4, 4, 1)
        self.operation = operation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.operation(self.conv(x)))


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (lambda x: x.cumsum(1), "cumsum"),
        (lambda x: x.transpose(1, 2), "another axis"),
        (lambda x: torch.cat((x[:, :, :2], x.transpose(1, 2)[:, :, 2:]), 2), "another axis"),
        (lambda x: x.flip(1), "flip"),
        (lambda x: x[:, [0, 1, 2, 3]], "breaks when channels go"),
        (lambda x: x.permute(dims=(0, 2, 3, 1)).reshape(x.shape), "in a form that is not known"),
        (lambda x: x.roll(1, 1), "roll"),
        (lambda x: x.sort(1)[0], "sort"),
        (lambda x: torch.einsum("bchw,bchw->bchw", x, x), "einsum of several"),
        (lambda x: (x.flatten(2) @ x.flatten(2).mT @ x.flatten(2)).view(x.shape), "channels"),
        (lambda x: x + torch.zeros(x.shape), "a tensor made while the network runs"),
        (nn.LayerNorm((4, 4, 4)), "over positions"),
        (lambda x: x.reshape(1, x.shape[1] // 2, x.shape[1] // 2, 4, 4).flatten(1, 2), "several"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    operation: Callable[[torch.Tensor], torch.Tensor], says: str
) -> None:
    with pytest.raises(UnsupportedNetwork, match=says) as refusal:
        trace(_Odd(operation), (3, 4, 4))
    assert "\n" not in str(refusal.value)
    assert "supported are" in str(refusal.value)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (lambda x: torch.cat(x.split(2, 1), 1), "splits at constant places"),
        (lambda x: x.reshape(-1, 4, 8, 8), "constant size"),
        (lambda x: torch.cat((x[:, :1], x[:, 1:]), 1), "constant places"),
    ],
)
def test_channels_at_constant_places_are_not_prunable(
    operation: Callable[[torch.Tensor], torch.Tensor], reason: str
) -> None:
    graph = trace(_Odd(operation), (3, 8, 8))
    assert not graph.full_widths
    assert reason in graph.groups[0].reason


def test_layers_that_share_a_weight_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    model[1].weight = model[0].weight
    with pytest.raises(UnsupportedNetwork, match="shares another one's weight"):
        trace(model, (3, 4, 4))


def test_tensors_given_by_name_are_tied_too() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.add(self.one(x), other=self.two(x))
            return self.last(torch.cat((y, y), axis=1)).mean(axis=(2, 3))

    assert list(trace(Named(), (3, 4, 4)).full_widths) == ["one"]


def test_a_constant_leaves_nothing_behind_in_the_network() -> None:
    model = _Odd(lambda x: x * torch.linspace(0, 1, 4).view(1, 4, 1, 1))
    before = set(vars(model))
    with pytest.raises(UnsupportedNetwork):
        trace(model, (3, 4, 4))
    assert set(vars(model)) == before


def test_one_channel_that_meets_all_stays() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mask = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 1, 1)
            self.last = nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.conv(x) * torch.sigmoid(self.mask(x)))

    graph = trace(Attention(), (3, 4, 4))
    assert list(graph.full_widths) == ["conv"]


def test_a_layer_that_evaluation_does_not_run_is_refused() -> None:
    model = models.googlenet(weights=None, aux_logits=True, init_weights=False)
    with pytest.raises(UnsupportedNetwork, match=r"aux1\S* is not used in evaluation.*aux_logits"):
        trace(model, (3, 64, 64))


def test_an_input_that_does_not_fit_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="does not run") as refusal:
        trace(network("resnet8"), (1, 32, 32))
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""


def test_widths_that_do_not_fit_are_refused() -> None:
    graph = trace(network("resnet8"), SIZE)
    for wrong, says in (
        ({**graph.full_widths, "conv9": 3}, "'conv9' is unknown"),
        ({"conv1": 16}, "missing"),
        ({**graph.full_widths, "conv1": 17}, "17 of 16"),
        ({**graph.full_widths, "conv1": 0}, "0 of 16"),
    ):
        with pytest.raises(UserError, match=says):
            graph.check(wrong)
