"""PruningNet and search on each kind of network: one training step, one candidate, one episode."""

import numpy as np
import pytest
import torch
from torch import nn

from graphpruning import SearchSpace, narrow, trace
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.search.environment import PruningEnv
from graphpruning.search.evaluator import Evaluator
from graphpruning.search.sliced import SlicedWeights
from graphpruning.search.states import AggregatedState, HandCraftedState, State
from tests.networks import network

NAMES = (
    "resnet18",
    "resnext50_32x4d",
    "mobilenet_v3_small",
    "densenet121",
    "shufflenet_v2_x0_5",
    "convnext_tiny",
)
INPUT = (3, 48, 48)


def small(name: str) -> nn.Module:
    """The network with a quarter of its channels: the same kinds of ties at little cost."""
    model = network(name)
    graph = trace(model, INPUT)
    return narrow(model, graph, SearchSpace(graph, divisor=8, smallest=0.25).smallest).eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_and_a_candidate(name: str) -> None:
    model = small(name)
    graph = trace(model, INPUT)
    space = SearchSpace(graph, divisor=2, smallest=0.3)
    torch.manual_seed(0)
    net = PruningNet(graph, "graph")
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(6, *INPUT, generator=generator), torch.arange(6)
    loss = RandomWidthStep(space, 0.1)(net, images, labels, generator)
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [part.map.grad for part in net.generators]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    # A squeeze of two channels can be dead behind its ReLU: nearly all layers, not all.
    assert sum(bool(g.any()) for g in gradients if g is not None) > 0.9 * len(gradients)

    budget = space.macs(space.full) // 2
    batches = [(images, labels)]
    sliced = SlicedWeights(model, graph, [images], 4, torch.Generator().manual_seed(0))
    kinds: list[tuple[Evaluator, State]] = [
        (
            Evaluator(graph, net.weights, batches, batches),
            AggregatedState(space, budget, net.features),
        ),
        (Evaluator(graph, sliced, batches, batches), HandCraftedState(space, budget)),
    ]
    for evaluator, state in kinds:
        environment = PruningEnv(space, budget, state, evaluator)
        environment.reset()
        done = False
        while not done:
            _, reward, done, _, info = environment.step(np.array([0.6], dtype=np.float32))
        assert 0 <= reward <= 1
        assert 0.9 * budget <= info["macs"] <= budget
    assert sliced(space.full).keys() >= {layer.name for layer in graph.layers}


@pytest.mark.parametrize("name", NAMES)
def test_sliced_weights_at_full_width_are_the_networks_own(name: str) -> None:
    model = small(name)
    graph = trace(model, INPUT)
    images = torch.randn(4, *INPUT, generator=torch.Generator().manual_seed(1))
    sliced = SlicedWeights(model, graph, [images], 4, torch.Generator().manual_seed(0))
    weights = sliced(graph.full_widths)
    statistics = {
        norm: (part.running_mean, part.running_var)
        for norm in graph.norms
        if isinstance(part := model.get_submodule(norm), nn.BatchNorm2d)
    }
    evaluator = Evaluator(graph, sliced, [], [])
    with torch.no_grad():
        found = evaluator.subnet.logits(images, weights, statistics)  # type: ignore[arg-type]
        assert torch.equal(found, model(images))
