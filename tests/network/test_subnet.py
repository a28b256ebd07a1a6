"""The quick ways to judge and to recalibrate, against the plain ones."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.coverage import weights_of
from graphpruning import ChannelGraph, SearchSpace, narrow, trace
from graphpruning.network import subnet as module_of_subnet
from graphpruning.network.subnet import LayerWeights, Statistics, Subnet, _Run
from graphpruning.network.surgery import install
from tests.networks import ANY_KIND, NETWORKS, SIZE, network


class Tangled(nn.Module):
    """A convolution that two read, activations of what others read, and a norm called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 1)
        self.alone = nn.BatchNorm2d(8, affine=False)
        self.shared = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.first(x)
        x = F.relu(self.shared(raw)) - raw
        y = self.alone(input=self.second(F.relu(x)))
        x = F.relu(y) + F.relu(x + y) + x
        result: Tensor = self.fc(F.relu6(self.shared(self.third(x))).mean((2, 3)))
        return result


def narrowed(
    model: nn.Module, size: tuple[int, ...]
) -> tuple[ChannelGraph, LayerWeights, Statistics]:
    """The graph, and weights and statistics at random widths that are all but trivial."""
    graph = trace(model, size)
    generator = torch.Generator().manual_seed(3)
    narrow_one = narrow(model, graph, SearchSpace(graph).sample(generator))
    with torch.no_grad():
        for module in narrow_one.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.running_mean, module.running_var, module.weight, module.bias):
                    if values is not None:
                        values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return graph, *weights_of(narrow_one, graph)


@pytest.mark.parametrize("name", [*NETWORKS, *ANY_KIND, "tangled"])
@torch.no_grad()
def test_judging_with_folded_normalisations_computes_what_the_plain_network_computes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 64 bits, in which rounding is far below what an error would do."""
    model = Tangled().eval() if name == "tangled" else network(name)
    size = (3, 64, 64) if name in ANY_KIND else SIZE
    graph, weights, statistics = narrowed(model, size)
    weights = {
        name: tuple(None if value is None else value.double() for value in pair)
        for name, pair in weights.items()
    }
    statistics = {name: (m.double(), v.double()) for name, (m, v) in statistics.items()}
    graph.module.double()
    monkeypatch.setattr(module_of_subnet, "AT_ONCE", 1)  # image by image
    subnet = Subnet(graph)
    images = torch.randn(2, *size, dtype=torch.float64)
    plain = subnet.logits(images, weights, statistics)
    before = {name: w.clone() for name, (w, _) in weights.items() if w is not None}
    kept = images.clone()
    torch.testing.assert_close(subnet.judging(weights, statistics)(images), plain)
    assert torch.equal(images, kept)
    assert all(torch.equal(weights[name][0], weight) for name, weight in before.items())


def test_only_a_normalisation_that_alone_reads_a_convolution_is_folded() -> None:
    found = Subnet(trace(Tangled().eval(), SIZE)).folds
    assert {layer.target: norm.target for layer, norm in found.items()} == {"second": "alone"}
    resnet = trace(network("resnet8"), SIZE)
    folds = Subnet(resnet).folds
    assert {str(norm.target) for norm in folds.values()} == resnet.norms.keys()


@pytest.mark.parametrize("name", [*NETWORKS, "tangled"])
@torch.no_grad()
def test_recalibration_step_by_step_is_that_of_the_interpreter_to_the_bit(name: str) -> None:
    graph, weights, _ = narrowed(Tangled().eval() if name == "tangled" else network(name), SIZE)
    images = torch.randn(8, *SIZE)
    subnet = Subnet(graph)
    expected: Statistics = {}
    _Run(subnet, weights, None, collect=expected).run(images)
    found = subnet.recalibrate(weights, [(images, images)])
    assert found.keys() == expected.keys()
    for norm, values in expected.items():
        assert all(map(torch.equal, found[norm], values))


def test_parts_of_a_batch_are_equal_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each other size costs new kernels."""
    subnet = Subnet(trace(network("resnet8"), SIZE))
    subnet.at_once = 150
    sizes = {
        count: [len(p) for p in subnet.parts(torch.zeros(count, 1))] for count in (250, 7, 331)
    }
    assert sizes == {250: [125, 125], 7: [7], 331: [111, 111, 109]}


@torch.no_grad()
def test_in_bf16_nothing_is_folded_so_that_accuracies_do_not_move() -> None:
    graph, weights, statistics = narrowed(network("resnet8"), SIZE)
    images = torch.randn(8, *SIZE)
    subnet = Subnet(graph)
    with torch.autocast("cpu", torch.bfloat16):
        expected = subnet.logits(images, weights, statistics)
        assert torch.equal(subnet.judging(weights, statistics)(images), expected)


@pytest.mark.parametrize(
    "random", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU]
)
@torch.no_grad()
def test_what_is_random_is_so_in_training_alone_whatever_mode_the_network_is_in(
    random: type[nn.Module],
) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), random()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    graph = trace(model.train(), SIZE)
    weights, statistics = weights_of(model, graph)
    images, subnet = torch.randn(4, *SIZE), Subnet(graph)
    trained = [subnet.logits(images, weights) for _ in range(2)]
    assert not torch.equal(*trained)
    judged = subnet.judging(weights, statistics)(images)
    plain = subnet.logits(images, weights, statistics)
    expected = model.eval()(images)
    torch.testing.assert_close(judged, expected)
    torch.testing.assert_close(plain, expected)


@torch.no_grad()
def test_a_norm_without_running_statistics_uses_those_of_the_batch_that_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module_of_subnet, "AT_ONCE", 1)  # a batch of another size is another one
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, 4)),
    )
    graph = trace(model, SIZE)
    found = narrow(model, graph, dict.fromkeys(graph.prunable, 5)).eval()
    weights, _ = weights_of(found, graph)
    images, subnet = torch.randn(4, *SIZE), Subnet(graph)
    statistics = subnet.recalibrate(weights, [(images, images)])
    assert statistics.keys() == {"4"}
    install(found, graph, weights, statistics)
    expected = found(images)
    torch.testing.assert_close(subnet.judging(weights, statistics)(images), expected)
    torch.testing.assert_close(subnet.logits(images, weights, statistics), expected)


def scaled(x: Tensor) -> Tensor:
    x *= 2
    return x


@pytest.mark.parametrize(
    ("first", "writes"),
    [
        (scaled, False),  # recorded as a product
        (lambda x: x.sub_(0.5), True),
        (lambda x: x.view(-1, *SIZE).mul_(3), True),
        (nn.ReLU(inplace=True), True),
        (lambda x: F.relu(x, inplace=True), True),
        (nn.ReLU(), False),
        (lambda x: x * 2, False),
        (lambda x: x - x.mean(1, keepdim=True), False),
        (lambda x: x - x.mean(1).unsqueeze(1), False),
    ],
)
def test_a_network_that_writes_into_its_images_does_not_change_those_that_judge(
    first: Callable[[Tensor], Tensor], writes: bool
) -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = first
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.act, self.fc = nn.ReLU(inplace=True), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.act(self.norm(self.conv(self.first(x)))).mean((2, 3)))

    model = Writing().eval()
    graph = trace(model, SIZE)
    net = Subnet(graph)
    assert net.writes == writes
    weights, statistics = weights_of(model, graph)
    images = torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(0))
    kept, expected = images.clone(), model(images.clone())
    with torch.no_grad():
        judge = net.judging(weights, statistics)
        for _ in range(2):
            for scores in (judge(images), net.logits(images, weights, statistics)):
                torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(images, kept)
