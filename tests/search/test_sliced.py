import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphpruning.network.subnet import Subnet
from graphpruning.network.surgery import narrow
from graphpruning.network.trace import trace
from graphpruning.search.sliced import SlicedWeights, _patches


class Mixed(nn.Module):
    """Every kind of layer, two concatenated groups, a flatten and batch normalisation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.left = nn.Conv2d(8, 6, 1)
        self.right = nn.Conv2d(8, 5, 3, stride=1, padding=1)
        self.join = nn.Conv2d(11, 7, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(7)
        self.hidden = nn.Linear(7 * 9, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.depthwise(F.relu(self.bn(self.stem(x))))
        x = F.relu(torch.cat([self.left(x), self.right(x)], 1))
        x = F.relu(self.bn2(self.join(x))).flatten(1)
        return self.head(F.relu(self.hidden(x)))


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    model = Mixed()
    for norm in (model.bn, model.bn2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    images = [torch.randn(40, 3, 6, 6) for _ in range(3)]
    with torch.no_grad():
        model(images[0])
    model.eval()
    return model, trace(model, (3, 6, 6)), images


def sliced(base, points=10, **options):
    model, graph, images = base
    return SlicedWeights(model, graph, images, points, torch.Generator().manual_seed(0), **options)


WIDTHS = {"stem": 5, "left": 3, "right": 4, "join": 3, "hidden": 7}


def test_full_widths_give_exactly_the_base(base):
    model, graph, images = base
    weights = sliced(base)(graph.full_widths)
    for layer in graph.layers:
        module = model.get_submodule(layer.name)
        assert torch.equal(weights[layer.name][0], module.weight)
    statistics = {
        name: (model.get_submodule(name).running_mean, model.get_submodule(name).running_var)
        for name in graph.norms
    }
    with torch.no_grad():
        run = Subnet(graph).logits(images[0], weights, statistics)
        torch.testing.assert_close(run, model(images[0]))


def test_channels_kept_are_those_read_with_the_largest_l1_norm(base):
    model, _, _ = base
    kept = sliced(base, reconstruct=False).kept(WIDTHS)
    read = {
        "stem": (model.left.weight.abs().sum((0, 2, 3)) + model.right.weight.abs().sum((0, 2, 3))),
        "left": model.join.weight[:, :6].abs().sum((0, 2, 3)),
        "right": model.join.weight[:, 6:].abs().sum((0, 2, 3)),
        "join": model.hidden.weight.view(12, 7, 9).abs().sum((0, 2)),
        "hidden": model.head.weight.abs().sum(0),
    }
    for group, width in WIDTHS.items():
        assert kept[group].tolist() == sorted(read[group].topk(width).indices.tolist())


def test_without_reconstruction_it_is_the_network_narrowed_to_the_kept_channels(base):
    model, graph, _ = base
    slices = sliced(base, reconstruct=False)
    narrowed = narrow(model, graph, WIDTHS, slices.kept(WIDTHS))
    weights = slices(WIDTHS)
    assert set(weights) == {layer.name for layer in graph.layers} | set(graph.norms)
    for name, (weight, bias) in weights.items():
        module = narrowed.get_submodule(name)
        assert torch.equal(weight, module.weight)
        assert bias is module.bias is None or torch.equal(bias, module.bias)


class OnePosition(nn.Module):
    """Each layer has one output position, so that every sample of it is known."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 9, 3)
        self.second = nn.Conv2d(9, 8, 1)
        self.third = nn.Conv2d(8, 6, 3, padding=1)  # only the middle of its kernel sees anything
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.second(F.relu(self.first(x))))
        return self.head(F.relu(self.third(x)).flatten(1))


def test_weights_are_the_least_squares_fit_to_the_base_outputs():
    torch.manual_seed(0)
    model = OnePosition().double()
    graph = trace(model, (2, 3, 3))
    images = [torch.randn(count, 2, 3, 3, dtype=torch.float64) for count in (50, 30)]
    slices = SlicedWeights(model, graph, images, 10, torch.Generator())
    widths = {"first": 5, "second": 4, "third": 3}
    kept, weights = slices.kept(widths), slices(widths)
    inputs = {}
    for name in ("second", "third", "head"):
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: inputs.__setitem__(name, args[0])
        )
    with torch.no_grad():
        model(torch.cat(images))
    for name, read, written in (
        ("second", "first", kept["second"]),
        ("third", "second", kept["third"]),
        ("head", "third", torch.arange(4)),
    ):
        full = model.get_submodule(name).weight.detach()[written]
        x = inputs[name]
        if name == "third":
            x = F.pad(x, (1, 1, 1, 1))
        y = x.flatten(1) @ full.flatten(1).T
        x = x[:, kept[read]].flatten(1)
        exact = torch.linalg.lstsq(x, y, driver="gelsd").solution
        fitted = weights[name][0].flatten(1).T
        torch.testing.assert_close(x @ fitted, x @ exact, rtol=1e-5, atol=1e-6)
        if name != "third":
            torch.testing.assert_close(fitted, exact, rtol=1e-5, atol=1e-6)


def test_samples_are_the_patches_that_the_convolution_reads():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)).double()
    x = torch.randn(5, 3, 9, 7, dtype=torch.float64)
    y = conv(x)
    patches = _patches(conv, x, y, 6, torch.Generator().manual_seed(0))
    outputs = (patches @ conv.weight.flatten(1).T + conv.bias).view(5, 6, 4)
    everywhere = y.flatten(2).transpose(1, 2)
    distance = torch.cdist(outputs, everywhere)
    assert distance.amin(dim=2).max() < 1e-6
    assert len(distance.argmin(dim=2).unique()) > 15  # not always the same positions


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_samples_at_a_border_are_padded_as_the_convolution_pads(mode):
    """By the full weights of such a layer they give its outputs, at every position."""
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode, bias=False).double()
    x = torch.randn(4, 2, 2, 2, dtype=torch.float64)  # all of its positions lie at borders
    y = conv(x)
    patches = _patches(conv, x, y, 50, torch.Generator().manual_seed(0)).view(4, 50, -1)
    found = patches @ conv.weight.flatten(1).T  # [images, points, filters]
    for image, outputs in zip(found, y.flatten(2).transpose(1, 2), strict=True):
        nearest = torch.cdist(outputs, image)  # [positions, points]
        assert (nearest.amin(0) < 1e-5).all() and (nearest.amin(1) < 1e-5).all()


def test_fewer_positions_than_columns_do_not_spoil_the_fit():
    """64 channels of 3 x 3 are 576 columns; 60 images have one position each. Outputs of other
    images stay near to those of the slice."""
    torch.manual_seed(0)
    mixed = nn.Conv2d(8, 64, 1)  # channels depend on each other, as they do in a trained network
    layers = mixed, nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 32, 1)
    model = nn.Sequential(*layers).eval()
    graph = trace(model, (8, 2, 2))
    seen, other = torch.randn(60, 8, 2, 2), torch.randn(200, 8, 2, 2)
    draw = torch.Generator().manual_seed(0)
    found = SlicedWeights(model, graph, [seen], 10, draw)
    plain = SlicedWeights(model, graph, [], 10, draw, reconstruct=False)
    widths = {**graph.full_widths, "0": 16}
    fitted, cut = found(widths), plain(widths)

    def error(weights):
        with torch.no_grad():
            return (Subnet(graph).logits(other, weights, {}) - model(other)).norm()

    assert error(fitted) < 2 * error(cut)  # 4.2 times without the ridge


def test_channel_that_repeats_another_costs_nothing(base):
    """Least squares moves a dropped copy's weights to the channel it was a copy of."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )
    with torch.no_grad():
        model[0].weight[4], model[0].bias[4] = 2 * model[0].weight[1], 2 * model[0].bias[1]
        model[2].weight[:, 4] *= 0.01  # so that this is the one that goes
    graph = trace(model, (3, 8, 8))
    images = torch.randn(64, 3, 8, 8)
    slices = SlicedWeights(model, graph, [images], 10, torch.Generator().manual_seed(0))
    widths = {"0": 5, "2": 5}
    assert 4 not in slices.kept(widths)["0"]
    with torch.no_grad():
        pruned = Subnet(graph).logits(images, slices(widths))
        torch.testing.assert_close(pruned, model(images), rtol=1e-4, atol=1e-5)


def test_dead_channels_do_not_break_the_fit():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )
    nn.init.constant_(model[0].bias, -100.0)
    graph = trace(model, (3, 8, 8))
    slices = SlicedWeights(model, graph, [torch.randn(4, 3, 8, 8)], 10, torch.Generator())
    weights = slices({"0": 3, "2": 3})
    assert all(weight.isfinite().all() for weight, _ in weights.values())


def test_model_is_left_in_its_mode_and_without_hooks(base):
    _, graph, images = base
    model = Mixed().train()
    before = model.bn.running_mean.clone()
    SlicedWeights(model, graph, images, 2, torch.Generator())
    assert model.training and model.bn.training
    assert torch.equal(model.bn.running_mean, before)
    assert not any(module._forward_hooks for module in model.modules())
