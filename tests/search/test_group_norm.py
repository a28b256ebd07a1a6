"""Torch-Pruning in one shot: its widths are those that it leaves, within the budget."""

import sys
from copy import deepcopy

import pytest
import torch
import torch_pruning as tp
from torch import nn

from graphpruning import methods
from graphpruning.common.errors import UserError
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.search import group_norm


@pytest.fixture(scope="module", params=["resnet8", "mobilenet_v2"])
def pair(request) -> tuple[SearchSpace, nn.Module]:
    torch.manual_seed(0)
    model = build(request.param, 10)
    return SearchSpace(trace(model, (3, 32, 32)), divisor=8, smallest=0.25), model


def test_it_leaves_the_base_as_it_was_and_prunes_more_at_a_higher_ratio(pair):
    space, model = pair
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    macs = [space.macs(group_norm.pruned(space, model, ratio)) for ratio in (0.0, 0.3, 0.6, 0.99)]
    assert macs[0] == space.macs(space.full) > macs[1] > macs[2]
    assert macs[3] == space.macs(space.smallest)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_weak_channels_go_wherever_they_are(pair):
    """Three quarters of one group's filters are made tiny: that group keeps less than before."""
    space, model = pair
    weak = space.groups[2]
    before = group_norm.pruned(space, model, 0.3)[weak]
    weakened = deepcopy(model)
    with torch.no_grad():
        for layer in space.graph.layers:
            if weak == layer.group:
                weight = weakened.get_submodule(layer.name).weight
                weight[len(weight) // 4 :] *= 1e-3
    after = group_norm.pruned(space, weakened, 0.3)[weak]
    assert after < before


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_it_asks_once_within_the_budget(pair, share):
    space, model = pair
    budget = int(share * space.macs(space.full))
    asked = []
    group_norm.search(space, budget, lambda widths: asked.append(dict(widths)) or 50.0, model)
    (widths,) = asked
    assert 0.98 * budget <= space.macs(widths) <= budget
    space.graph.check(widths)


def test_widths_are_those_of_torch_pruning(pair):
    """At a low ratio, where its own bound does not matter, by its own counts of what it leaves."""
    space, model = pair
    fine = SearchSpace(space.graph, divisor=1, smallest=0.01)
    copy = deepcopy(model).eval()
    last = copy.get_submodule(space.graph.layers[-1].name)
    tp.pruner.BasePruner(
        copy,
        torch.zeros(1, 3, 32, 32),
        tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.3,
        global_pruning=True,
        ignored_layers=[last],
    ).step()
    found = group_norm.pruned(fine, model, 0.3)
    for layer in space.graph.layers:
        if layer.group in found:
            assert found[layer.group] == len(copy.get_submodule(layer.name).weight)


def test_a_group_that_is_weak_as_a_whole_goes_to_its_smallest_width(pair):
    """Its channels are alike, so all lie below the threshold at once; Torch-Pruning skips it."""
    space, model = pair
    weak = space.groups[2]
    alike = deepcopy(model)
    with torch.no_grad():
        for layer in space.graph.layers:
            if weak in (*layer.reads, *layer.writes):
                alike.get_submodule(layer.name).weight.fill_(0.01)
    widths = [group_norm.pruned(space, alike, ratio)[weak] for ratio in (0.3, 0.6, 0.99)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == space.smallest[weak]


def test_without_torch_pruning_the_method_is_refused(pair, monkeypatch):
    space, model = pair
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(UserError, match="group-norm needs Torch-Pruning: `pip install"):
        group_norm.search(space, space.macs(space.full) // 2, lambda widths: 0.0, model)


def test_torch_pruning_is_asked_once_however_many_ratios_are_tried(pair, monkeypatch):
    space, model = pair
    built = []
    build_dependency = tp.DependencyGraph.build_dependency
    monkeypatch.setattr(
        tp.DependencyGraph,
        "build_dependency",
        lambda self, *args, **named: built.append(1) or build_dependency(self, *args, **named),
    )
    group_norm.largest_within(space, space.macs(space.full) // 2, model)
    assert len(built) == 1


def test_a_network_that_torch_pruning_cannot_follow_is_refused_in_one_line():
    model = build("shufflenet_v2_x0_5", 10)
    space = SearchSpace(trace(model, (3, 32, 32)), divisor=8)
    with pytest.raises(UserError, match=r"cannot follow .* \(ZeroDivisionError: ") as refused:
        methods.require(methods.METHODS["group-norm"], space, model)
    assert "\n" not in str(refused.value)
    methods.require(methods.METHODS["random"], space, model)


def test_layers_left_alone_are_ignored(pair):
    space, model = pair
    kept = space.groups[2]
    space = SearchSpace(space.graph, divisor=8, smallest=0.25, keep=[kept])
    for ratio in (0.3, 0.99):
        assert group_norm.pruned(space, model, ratio)[kept] == space.full[kept]
