"""The graph has the layers, edges and groups that the network really has."""

import re

import pytest
import torch
from torch import nn

from graphpruning import UnsupportedNetwork, UserError, trace
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


def test_depthwise_filters_share_the_group_of_their_input() -> None:
    graph = trace(network("mobilenet_v1"), SIZE)
    assert len(graph.full_widths) == 14
    for group in graph.groups[:-2]:
        kinds = [graph.layer(name).kind for name in group.layers]
        assert kinds[1] == "depthwise" and "filters each channel" in group.reason


def test_a_flattened_map_repeats_each_channel() -> None:
    graph = trace(Dense(), (3, 8, 8))
    assert [(s.group, s.size, s.repeat) for s in graph.layer("fc").inputs] == [
        ("one", 4, 16),
        ("two", 6, 16),
    ]


@pytest.mark.parametrize("name", NETWORKS)
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


class _Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).transpose(1, 2)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (_Shuffled(), "transpose"),
        (nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), "2 groups"),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.LayerNorm((4, 8, 8))), "LayerNorm"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(model: nn.Module, says: str) -> None:
    channels = 3 if isinstance(model, _Shuffled) else 4
    with pytest.raises(UnsupportedNetwork, match=says) as refusal:
        trace(model, (channels, 8, 8))
    assert "\n" not in str(refusal.value)


def test_an_input_that_does_not_fit_is_one_line() -> None:
    with pytest.raises(UserError, match="does not run") as refusal:
        trace(network("resnet8"), (1, 32, 32))
    assert "\n" not in str(refusal.value)


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
