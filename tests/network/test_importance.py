"""Channels in order of importance: which they are, and where each goes."""

import pytest
import torch

from graphpruning import trace
from graphpruning.network.importance import Reordering, by_importance
from tests.networks import Dense, network


def test_the_most_important_channel_is_the_one_read_with_the_largest_l1_norm() -> None:
    torch.manual_seed(0)
    model = Dense()
    order = by_importance(model, trace(model, (3, 8, 8)))
    flat = model.fc.weight.abs().view(5, 10, 16).sum((0, 2))
    one = flat[:4] + model.two.weight.abs().sum((0, 2, 3))
    assert order["one"].tolist() == one.argsort(descending=True).tolist()
    assert order["two"].tolist() == flat[4:].argsort(descending=True).tolist()


@pytest.mark.parametrize("name", ["dense", "resnet8", "resnext50_32x4d", "shufflenet_v2_x0_5"])
def test_each_channel_moves_once_and_within_its_unit(name: str) -> None:
    model = Dense() if name == "dense" else network(name)
    graph = trace(model, (3, 32, 32))
    generator = torch.Generator().manual_seed(0)
    order = {
        name: torch.randperm(group.width // group.unit, generator=generator)
        for name, group in graph.prunable.items()
    }
    reordering = Reordering(graph, order)
    for layer in graph.layers:
        for channels in (layer.inputs, layer.outputs, layer.columns):
            sources = reordering.sources(channels)
            assert sources.sort().values.tolist() == list(range(len(channels)))
            assert torch.equal(channels[sources], reordering.units[channels])
    name, group = next(iter(graph.prunable.items()))
    moved = reordering.units[group.first : group.first + len(order[name])] - group.first
    assert torch.equal(moved, order[name])
