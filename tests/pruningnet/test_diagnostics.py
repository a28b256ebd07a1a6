"""The diagnostics tell a conditioning that acts from a dead one, and agree with what they say."""

import networkx
import pytest
import torch
from torch import Tensor

from graphpruning import SearchSpace, trace
from graphpruning.network.graph import ChannelGraph, Widths
from graphpruning.pruningnet import diagnostics
from graphpruning.pruningnet.diagnostics import Probe
from graphpruning.pruningnet.generator import WeightGenerator
from graphpruning.pruningnet.pruningnet import PruningNet
from tests.networks import network


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(network("resnet8"), (3, 16, 16))


@pytest.fixture(scope="module")
def vectors(graph: ChannelGraph) -> list[dict[str, int]]:
    space, generator = SearchSpace(graph), torch.Generator().manual_seed(3)
    return [space.sample(generator) for _ in range(400)]


def ratios(graph: ChannelGraph, vectors: list[dict[str, int]]) -> Tensor:
    """Kept ratios [vectors, groups]."""
    full = graph.full_widths
    rows = [[widths[group] / full[group] for group in full] for widths in vectors]
    return torch.tensor(rows, dtype=torch.float64)


def test_features_that_hold_all_widths_are_read_and_others_are_not(
    graph: ChannelGraph, vectors: list[dict[str, int]]
) -> None:
    told = ratios(graph, vectors)
    mixed = told @ torch.randn(told.shape[1], 32, dtype=torch.float64)
    noise = torch.randn(len(vectors), 32, dtype=torch.float64)
    for feature, low, high in ((mixed, 0.999, 1.0), (noise, -1.0, 0.1), (0 * mixed, -0.1, 0.0)):
        seen = feature[:, None].expand(-1, len(graph.layers), -1)
        found = diagnostics.probes(graph, seen, vectors)
        assert all(low <= probe.r2 <= high for probe in found)
        assert sum(probe.widths for probe in found) == len(graph.layers) * told.shape[1]


def test_a_feature_of_one_width_is_read_at_that_groups_distances_alone(
    graph: ChannelGraph, vectors: list[dict[str, int]]
) -> None:
    """Distances are those of a general graph library."""
    net = networkx.Graph([(edge.source, edge.target) for edge in graph.edges])
    group = "layer2.0.conv1"
    told = ratios(graph, vectors)[:, [list(graph.full_widths).index(group)]]
    seen = told[:, None].expand(-1, len(graph.layers), -1)
    for probe in diagnostics.probes(graph, seen, vectors):
        away = {
            other: min(
                networkx.shortest_path_length(net, probe.layer, layer)
                for layer in graph.prunable[other].layers
            )
            for other in graph.prunable
        }
        there = [other for other in away if away[other] == probe.distance]
        assert probe.widths == len(there)
        expected = (group in there) / len(there)
        assert probe.r2 == pytest.approx(expected, abs=0.1)


def test_a_group_of_one_level_is_not_asked_for(
    graph: ChannelGraph, vectors: list[dict[str, int]]
) -> None:
    stays = "layer2.0.conv1"
    fixed = [{**widths, stays: 32} for widths in vectors]
    seen = torch.zeros(len(fixed), len(graph.layers), 1, dtype=torch.float64)
    found = diagnostics.probes(graph, seen, fixed)
    assert sum(probe.widths for probe in found) == len(graph.layers) * (len(graph.prunable) - 1)
    assert max(probe.r2 for probe in found) < 0.1


def test_variation_is_the_deviation_over_the_length_of_the_mean() -> None:
    seen = torch.tensor([[[4.0, 0.0]], [[2.0, 0.0]]], dtype=torch.float64)
    assert diagnostics.feature_variation(seen) == pytest.approx(1 / 3)
    assert diagnostics.feature_variation(torch.zeros(5, 3, 0, dtype=torch.float64)) == 0


@pytest.mark.parametrize("conditioning", ["graph", "block", "constant"])
def test_weights_vary_as_full_weights_that_are_generated_one_by_one(
    graph: ChannelGraph, vectors: list[dict[str, int]], conditioning: str
) -> None:
    torch.manual_seed(0)
    net, some = PruningNet(graph, conditioning), vectors[:20]
    with torch.no_grad():
        for generator in net.generators:  # the graph's start without any dependence on widths
            assert isinstance(generator, WeightGenerator)
            generator.map.normal_()
    everything = graph.full_widths

    def full_weight(widths: Widths, name: str) -> Tensor:
        with torch.no_grad():
            return net.weights(everything, conditioned_on=widths)[name][0].double()

    shares = []
    for layer in graph.layers:
        weights = torch.stack([full_weight(widths, layer.name) for widths in some]).flatten(1)
        middle = weights.mean(dim=0)
        shares.append((weights - middle).square().sum(dim=1).mean().sqrt() / middle.norm())
    expected = float(torch.stack(shares).median())
    found = diagnostics.weight_variation(net, diagnostics.features(net, some))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert (found == 0) == (conditioning == "constant")


def test_one_line_names_a_collapse() -> None:
    for variation, probe, dead in (
        ((0.45, 0.44), (0.7, 0.7), False),
        ((0.005, 0.44), (0.7, 0.7), True),  # they hardly move
        ((0.016, 0.11), (0.04, 0.2), True),  # they tell nothing of far widths any more
        ((0.3, 0.3), (0.0, 0.01), False),  # they never did
        ((0.3, 0.3), (float("nan"), float("nan")), False),  # there are no far widths
    ):
        assert ("COLLAPSED" in diagnostics.health("graph", variation, probe, 0.03)) == dead
    healthy, told = (0.45, 0.44), (0.7, 0.7)
    assert "COLLAPSED" in diagnostics.health("graph", healthy, told, 0.0006)  # unheard
    assert "do not tell widths" in diagnostics.health("constant", (0.0, 0.0), (0.0, 0.0), 0.0)


def test_far_widths_count_alike_wherever_they_are() -> None:
    found = [Probe("a", 1, 5, 1.0), Probe("a", 2, 1, 0.8), Probe("b", 3, 3, 0.4)]
    assert diagnostics.far_r2(found) == pytest.approx((0.8 + 3 * 0.4) / 4)
