"""The correlation analysis finds what was put in, and nothing where nothing is."""

from typing import Any

import pytest
import torch
from torch import nn

from graphpruning import trace
from graphpruning.correlation import (
    Fit,
    Pair,
    Representation,
    Ridge,
    _Sampler,
    borders,
    correlation,
    pairs,
    representations,
)
from tests.networks import network


def test_correlation_equals_numpys() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    x[:, 4] = x[:, 0] * 2 + 1
    expected = torch.corrcoef(x.T)
    torch.testing.assert_close(correlation(x, x), expected)
    assert correlation(torch.ones(9, 1), torch.randn(9, 1)).item() == 0


def of_images(samples: torch.Tensor) -> torch.Tensor:
    """[samples, channels] as [images, 4 positions, channels]."""
    return samples.unflatten(0, (-1, 4))


def test_ridge_explains_a_linear_map_and_not_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(6, 3, generator=generator, dtype=torch.float64)
    assert (Ridge(of_images(x)).r2(of_images(y)) > 0.999).all()
    assert Ridge(of_images(x)).r2(of_images(noise)).abs().max() < 0.02


def test_the_strength_that_validation_chooses_keeps_noise_from_being_fitted() -> None:
    """With as many channels as samples to fit, a weak ridge fits noise and explains nothing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 180, generator=generator, dtype=torch.float64)
    y = x[:, :2] + 2 * torch.randn(400, 2, generator=generator, dtype=torch.float64)
    ridge = Ridge(of_images(x))
    weak = ridge.fitting.r2(y[:200], 1e-5, x[200:], y[200:])
    assert weak.max() < -1 < -0.2 < ridge.r2(of_images(y)).min()


def test_a_channel_counts_alike_at_any_scale_and_a_constant_one_not_at_all() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=generator, dtype=torch.float64)
    y = x[:, :2] + torch.randn(400, 2, generator=generator, dtype=torch.float64)
    scaled = x * torch.tensor([1e-4, 1.0, 50.0, 3.0, 1e3]) + 7
    more = torch.cat([scaled, torch.full((400, 1), 3.0)], dim=1)
    expected = Ridge(of_images(x)).r2(of_images(y))
    torch.testing.assert_close(Ridge(of_images(more)).r2(of_images(y)), expected)
    assert Ridge(of_images(x)).r2(torch.ones(100, 4, 1)).item() == 0


def test_pairs_lie_inside_blocks_with_a_shortcut_and_controls_before_them() -> None:
    graph = trace(network("resnet20"), (3, 32, 32))
    found = pairs(graph)
    inside = [(pair.former, pair.deeper) for pair in found if pair.kind == "in_block"]
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    assert inside == [(f"{block}.conv1", f"{block}.conv2") for block in blocks]
    controls: dict[str, list[str]] = {}
    for pair in found:
        if pair.kind == "other_block":
            former, deeper = graph.layer(pair.former), graph.layer(pair.deeper)
            assert former.block != deeper.block and former.output_size == deeper.output_size
            assert former.depth < deeper.depth
            controls.setdefault(pair.deeper, []).append(pair.former)
    assert controls["layer1.1.conv2"] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert len(controls["layer3.2.conv2"]) == 5  # two of each earlier block, and the projection
    # The first block at a resolution has no earlier layer of another block beside it.
    assert set(blocks) - {name.rsplit(".", 1)[0] for name in controls} == {"layer2.0", "layer3.0"}


def test_borders_are_as_near_as_two_layers_of_a_block() -> None:
    graph = trace(network("resnet20"), (3, 32, 32))
    found = [(pair.former, pair.deeper) for pair in borders(graph)]
    assert found == [
        (f"layer{stage}.{block}.conv2", f"layer{stage}.{block + 1}.conv1")
        for stage in (1, 2, 3)
        for block in (0, 1)
    ]
    edges = {(edge.source, edge.target) for edge in graph.edges if not edge.shortcut}
    assert set(found) <= edges
    for name in ("vgg11_bn", "mobilenet_v1"):
        assert borders(trace(network(name), (3, 32, 32))) == []


def test_what_is_judged_beside_changes_no_number() -> None:
    """The positions that are looked at do not depend on how many pairs there are."""
    model = network("resnet20")
    graph = trace(model, (3, 16, 16))
    images = [torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(1))]
    wanted = pairs(graph)
    alone, beside = (
        representations(model, graph, each, images, 4, torch.Generator().manual_seed(0))
        for each in (wanted, [*wanted, *borders(graph)])
    )
    for one, two in zip(alone, beside, strict=False):
        assert all(torch.equal(one.fits[name].r2, two.fits[name].r2) for name in one.fits)


def test_mobilenet_v2_has_ten_blocks_with_a_shortcut() -> None:
    graph = trace(network("mobilenet_v2"), (3, 32, 32))
    inside = [p for p in pairs(graph) if p.kind == "in_block"]
    blocks = {pair.former.rsplit(".conv", 1)[0] for pair in inside}
    assert blocks == {f"features.{n}" for n in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)}
    assert len(inside) == 20


def test_networks_without_shortcuts_have_no_pairs() -> None:
    for name in ("vgg11_bn", "mobilenet_v1"):
        graph = trace(network(name), (3, 32, 32))
        assert pairs(graph) == []


def test_a_deeper_layer_that_repeats_the_former_is_fully_represented() -> None:
    model = network("resnet8")
    graph = trace(model, (3, 16, 16))
    block = model.get_submodule("layer1.0")
    nn.init.dirac_(block.conv2.weight)  # type: ignore[arg-type, union-attr]
    block.bn1 = nn.BatchNorm2d(16).eval()  # type: ignore[assignment]
    # ReLU would hide half of it: shift the former layer's outputs above zero.
    block.bn1.bias.data += 10  # type: ignore[union-attr, operator]
    generator = torch.Generator().manual_seed(0)
    wanted = [p for p in pairs(graph) if p.deeper == "layer1.0.conv2"][:1]
    images = torch.randn(64, 3, 16, 16, generator=generator)
    model.train()
    (whole,) = representations(model, graph, wanted, images.split(32), 4, generator)
    assert model.training
    found = whole.fits["own"]
    assert found.best_match.min() > 0.999 and found.r2.min() > 0.99
    torch.testing.assert_close(found.matrix.diagonal(), torch.ones(16).double(), atol=1e-3, rtol=0)


def test_the_same_seed_gives_the_same_numbers() -> None:
    model = network("resnet8")
    graph = trace(model, (3, 16, 16))
    images = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    runs = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        wanted = pairs(graph)
        runs.append(representations(model, graph, wanted, [images], 4, generator))
    for one, two in zip(*runs, strict=True):
        assert one.pair == two.pair
        assert all(torch.equal(one.fits[name].r2, two.fits[name].r2) for name in one.fits)
        assert one.fits["own"].r2.shape == (graph.layer(one.pair.deeper).out_channels,)


@pytest.mark.parametrize("kind", ["in_block", "other_block"])
def test_maps_of_other_sizes_are_averaged_to_the_smaller(kind: str) -> None:
    graph = trace(network("resnet18"), (3, 64, 64))
    found = pairs(graph)
    judged = representations(
        network("resnet18"),
        graph,
        [p for p in found if p.kind == kind][:4],
        [torch.randn(8, 3, 64, 64)],
        2,
        torch.Generator().manual_seed(0),
    )
    assert all(torch.isfinite(fit.r2).all() for one in judged for fit in one.fits.values())


def test_the_size_of_a_batch_changes_nothing() -> None:
    model = network("resnet8")
    graph = trace(model, (3, 16, 16))
    wanted = pairs(graph)
    images = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    whole, parted = (
        representations(
            model, graph, wanted, images.split(size), 4, torch.Generator().manual_seed(0)
        )
        for size in (20, 7)
    )
    for one, two in zip(fits(whole), fits(parted), strict=True):
        torch.testing.assert_close(one.r2, two.r2, atol=1e-3, rtol=0)
        torch.testing.assert_close(one.matrix, two.matrix, atol=1e-4, rtol=0)


def fits(found: list[Representation]) -> list[Fit]:
    return [fit for one in found for fit in one.fits.values()]


def test_the_other_output_is_that_after_normalisation_and_activation() -> None:
    """Against hooks, in a network that adds in place: the second layer's ends before the sum."""
    model = network("resnet18").eval()
    graph = trace(model, (3, 32, 32))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    block = model.get_submodule("layer1.0")
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _, __, output: seen.update({name: output.clone()})

    for name in ("conv1", "conv2", "bn1", "bn2"):
        block.get_submodule(name).register_forward_hook(keep(name))
    wanted = [(f"layer1.0.{name}", (8, 8)) for name in ("conv1", "conv2")]
    sampler = _Sampler(model, graph, wanted)
    sampler.chosen = {(8, 8): torch.arange(64)[None, None].expand(2, 1, 64)}
    sampler.run(images)
    expected = {
        ("own", "conv1"): seen["conv1"],
        ("own", "conv2"): seen["conv2"],
        ("activated", "conv1"): seen["bn1"].relu(),
        ("activated", "conv2"): seen["bn2"],
    }
    for (output, name), maps in expected.items():
        (found,) = sampler.parts[output, f"layer1.0.{name}", (8, 8)]
        torch.testing.assert_close(found, maps.flatten(2).transpose(1, 2))


class Everywhere(nn.Module):
    """Linear layers that work on every position of a map [N, H, W, C], as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.wide = nn.Linear(6, 8)
        self.same = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.wide(self.stem(x).permute(0, 2, 3, 1))
        return self.same(wide.permute(0, 3, 1, 2))


def test_a_linear_layer_over_positions_is_a_map() -> None:
    model = Everywhere()
    nn.init.dirac_(model.same.weight)
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = [Pair("in_block", "wide", "same"), Pair("in_block", "stem", "wide")]
    graph = trace(model, (3, 8, 8))
    repeated, mapped = (
        one.fits["own"]
        for one in representations(
            model, graph, wanted, images.split(20), 8, torch.Generator().manual_seed(0)
        )
    )
    assert repeated.matrix.shape == (8, 8) and repeated.matrix.diagonal().min() > 0.999
    assert mapped.matrix.shape == (8, 6) and mapped.r2.min() > 0.99
