"""CroppedSGD computes what clipped SGD on whole maps computes, without touching all of them."""

from copy import deepcopy
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphpruning import SearchSpace, trace
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.zoo import build
from graphpruning.pruningnet import cropped_sgd
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.generator import Index, add_outer, crop, gathered, product
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.training.checkpoint import Checkpoint
from graphpruning.training.datasets import load
from graphpruning.training.fabric import make_fabric
from graphpruning.training.loop import ClippedSGD, fit, parameter_groups
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe
from tests.networks import Dense, network

INPUT = (3, 8, 8)
RECIPE = Recipe(
    epochs=3,
    batch_size=50,
    images_per_epoch=200,
    lr=0.1,
    schedule="linear",
    weight_decay=1e-4,
    clip=5,
)


def graph_of(name: str) -> ChannelGraph:
    return trace(Dense() if name == "dense" else network(name), INPUT)


def in_float64(net: PruningNet) -> PruningNet:
    features = net.conditioning.node_features
    net.conditioning.node_features = lambda widths: features(widths).double()  # type: ignore
    return net.double()


def train(
    net: PruningNet, optimizer: Any, space: SearchSpace, rates: list[float], **beyond: bool
) -> None:
    """A step at each rate, the same images and widths whatever the optimizer."""
    generator = torch.Generator().manual_seed(0)
    dtype = next(net.parameters()).dtype
    step = RandomWidthStep(space, label_smoothing=0.1, **beyond)
    labels = torch.arange(16) % 4
    for rate in rates:
        images = torch.randn(16, *INPUT, generator=generator).to(dtype)
        for group in optimizer.param_groups:
            group["lr"] = rate
        step(net, images, labels, generator).backward()
        optimizer.step()
        optimizer.zero_grad()
    optimizer.settle()


def both(
    net: PruningNet,
    space: SearchSpace,
    rates: list[float],
    sandwich: bool = False,
    distil: bool = False,
    **how: Any,
) -> list[nn.Module]:
    """The net trained by plain SGD, and by ours."""
    recipe = Recipe(epochs=1, batch_size=1, lr=0.1, schedule="linear", **how)
    trained = []
    for kind in (ClippedSGD, "ours"):
        copy = deepcopy(net)
        make: Any = partial(CroppedSGD, copy) if kind == "ours" else kind
        optimizer = make(
            parameter_groups(copy, recipe),
            lr=0.1,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            max_norm=recipe.clip,
        )
        train(copy, optimizer, space, rates, sandwich=sandwich, distil=distil)
        trained.append(copy)
    return trained


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(
        float(((a - b).abs().max() / a.abs().max().clamp(min=1e-2)).detach()) for a, b in pairs
    )


@given(
    name=st.sampled_from(["resnet8", "dense"]),
    sandwich=st.booleans(),
    distil=st.booleans(),
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    nesterov=st.booleans(),
    decay=st.sampled_from([0.0, 1e-4, 0.05]),
    clip=st.sampled_from([None, 0.5, 1000.0]),
    rates=st.lists(st.floats(1e-3, 0.1), min_size=1, max_size=4),
)
@example("dense", False, False, 0.9, True, 0.05, 0.5, [0.005] * 60)  # F is renewed on the way
@example("dense", True, True, 0.9, True, 0.05, 0.1, [0.02] * 8)  # three uses, always clipped
@settings(max_examples=25, deadline=None)
def test_it_equals_clipped_sgd_on_whole_maps(
    name: str,
    sandwich: bool,
    distil: bool,
    momentum: float,
    nesterov: bool,
    decay: float,
    clip: float | None,
    rates: list[float],
) -> None:
    """However often a step uses a map: at one width vector, or at several that overlap."""
    graph = graph_of(name)
    torch.manual_seed(0)
    net = in_float64(PruningNet(graph, "graph"))
    plain, ours = both(
        net,
        SearchSpace(graph, divisor=2),
        rates,
        sandwich,
        distil,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
        weight_decay=decay,
        clip=clip,
    )
    assert largest_difference(plain, ours) < 1e-8


def test_in_float32_it_stays_within_rounding() -> None:
    """The bound is ten times what plain SGD itself moves by when its weights move by 6e-8."""
    graph = graph_of("dense")
    space = SearchSpace(graph, divisor=2)
    torch.manual_seed(0)
    net = PruningNet(graph, "graph")
    rates = [0.05 * (1 - step / 80) for step in range(80)]
    plain, ours = both(net, space, rates, clip=5)
    moved = deepcopy(net)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1 + 6e-8)
    disturbed, _ = both(moved, space, rates, clip=5)
    own = largest_difference(plain, disturbed)
    assert largest_difference(plain, ours) < max(10 * own, 1e-5)


@pytest.mark.parametrize("where", ["slices", "filters", "columns", "both"])
def test_products_are_those_of_the_crop(where: str) -> None:
    torch.manual_seed(0)
    map_ = torch.randn(6, 5, 3, 3, 4, dtype=torch.float64)
    feature = torch.randn(4, dtype=torch.float64, requires_grad=True)
    filters = torch.tensor([0, 2, 5]) if where in ("filters", "both") else slice(3)
    columns = torch.tensor([1, 4]) if where in ("columns", "both") else slice(2)
    place = (filters, columns)
    weight = product(crop(map_, place), feature)
    expected = map_[filters][:, columns] @ feature
    torch.testing.assert_close(weight, expected)
    pull = torch.randn_like(weight)
    (gradient,) = torch.autograd.grad(expected, feature, pull)
    torch.testing.assert_close(gathered(crop(map_, place), pull), gradient)
    leaf = map_.clone().requires_grad_()
    (leaf[filters][:, columns] @ feature.detach()).backward(pull)
    added = map_.clone()
    add_outer(added, place, pull, feature.detach())
    torch.testing.assert_close(added, map_ + leaf.grad)


PLACES: list[tuple[Index, Index]] = [
    (slice(3), slice(5)),
    (slice(6), slice(2)),
    (torch.tensor([0, 2, 5]), slice(4)),
    (slice(5), torch.tensor([1, 4])),
    (torch.tensor([1, 2, 4]), torch.tensor([0, 1])),
    (torch.tensor([4]), torch.tensor([3])),
]


@pytest.mark.parametrize("chosen", [*combinations(range(6), 2), *combinations(range(6), 3)])
def test_the_norm_of_several_uses_is_that_of_their_sum(chosen: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    map_, whole = torch.zeros(6, 5, 3, 3, 4).double(), torch.zeros(6, 5, 3, 3, 4).double()
    uses = []
    for place in (PLACES[number] for number in chosen):
        gradient = torch.randn(crop(map_, place).shape[:-1], dtype=torch.float64)
        feature = torch.randn(4, dtype=torch.float64)
        uses.append(cropped_sgd._Use(map_, place, gradient, feature))
        add_outer(whole, place, gradient, feature)
    torch.testing.assert_close(cropped_sgd._norm(uses), whole.norm())


def test_uses_that_cancel_have_no_norm() -> None:
    gradient, feature = torch.randn(3, 3), torch.randn(4)
    place = slice(3), slice(3)
    uses = [
        cropped_sgd._Use(torch.zeros(3, 3, 4), place, g, feature) for g in (gradient, -gradient)
    ]
    assert 0 <= cropped_sgd._norm(uses) < 1e-2


def test_what_a_step_does_not_use_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of("resnet8")
    net = PruningNet(graph, "graph")
    optimizer = CroppedSGD(net, [{"params": list(net.parameters())}], lr=0.1, momentum=0.9)
    smallest = SearchSpace(graph).smallest
    monkeypatch.setattr(SearchSpace, "sample", lambda self, generator: smallest)
    monkeypatch.setattr(CroppedSGD, "settle", lambda self: None)
    layer = next(g for g in optimizer.generators if g.layer.name == "layer2.0.conv2")
    before = layer.map.clone()
    train(net, optimizer, SearchSpace(graph), [0.1, 0.1])
    used = (slice(smallest[layer.layer.group]), slice(smallest["layer2.0.conv1"]))
    untouched = torch.ones(layer.map.shape, dtype=torch.bool)
    crop(untouched, used)[:] = False
    assert torch.equal(layer.map[untouched], before[untouched])
    assert not torch.equal(crop(layer.map, used), crop(before, used))
    assert layer.map.grad is None


def test_closing_gives_the_maps_back() -> None:
    graph = graph_of("resnet8")
    space = SearchSpace(graph)
    net = PruningNet(graph, "graph")
    optimizer = CroppedSGD(net, [{"params": list(net.parameters())}], lr=0.1, momentum=0.9)
    train(net, optimizer, space, [0.1])
    with torch.no_grad():
        lent = net.weights(space.full)
    optimizer.close()
    again = net.weights(space.full)
    for name, (weight, _) in again.items():
        torch.testing.assert_close(weight, lent[name][0])
    sum(weight.sum() for weight, _ in again.values()).backward()  # type: ignore[union-attr]
    assert all(isinstance(g.map.grad, Tensor) for g in optimizer.generators)


def test_renewal_keeps_rounding_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, F becomes singular: the test would not notice a bound that is never reached."""
    graph = graph_of("dense")
    torch.manual_seed(0)
    net = PruningNet(graph, "graph")
    space = SearchSpace(graph, divisor=2)
    monkeypatch.setattr(cropped_sgd, "WORST_CONDITION", float("inf"))
    plain, ours = both(net, space, [0.05] * 150, momentum=0.7)
    assert not largest_difference(plain, ours) < 0.1


@pytest.mark.parametrize("conditioning", ["graph", "graphpruning-plus"])
def test_training_goes_on_from_a_checkpoint_to_the_same_bits(
    tmp_path: Path, conditioning: str
) -> None:
    images = load("generated", tmp_path, train=True)
    one_channel = Preprocessing(mean=(0.5,), std=(0.3,), pad=1, flip=False)
    base = build("resnet8", 10, in_channels=1)
    graph = trace(base, images.shape)
    space, row = SearchSpace(graph), CONDITIONINGS[conditioning]

    started: list[PruningNet] = []

    def run(checkpoint: Checkpoint | None, stop: int = 0) -> PruningNet:
        torch.manual_seed(0)
        net = PruningNet(graph, conditioning)
        if row.inherit:
            net.start_from(base)
        started.append(net)

        def on_epoch(epoch: int) -> dict[str, float]:
            if epoch == stop:
                raise KeyboardInterrupt
            return {}

        fit(
            make_fabric("32-true", accelerator="cpu"),
            net,
            images,
            one_channel,
            RECIPE,
            0,
            name="net",
            step=RandomWidthStep(space, 0.1, sandwich=row.sandwich, distil=row.distil),
            optimizer=partial(CroppedSGD, net),
            on_epoch=on_epoch,
            checkpoint=checkpoint,
        )
        return net

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(tmp_path / "net.pt", {}), stop=2)
    assert all(parameter.requires_grad for parameter in started[-1].parameters())
    resumed = run(Checkpoint(tmp_path / "net.pt", {}))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
