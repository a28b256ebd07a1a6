"""Networks as people write them: each was refused, spoilt or crashed by a detail that is legal."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphpruning.architecture import load_architecture, save_architecture
from graphpruning.builder import builder
from graphpruning.classifier import require_scores
from graphpruning.common.errors import UserError
from graphpruning.judging import Judge, found_network
from graphpruning.latency_table import _input_shapes
from graphpruning.network.importance import Reordering, by_importance, in_order
from graphpruning.network.subnet import Subnet
from graphpruning.network.surgery import narrow
from graphpruning.network.trace import trace
from graphpruning.network.trainable import trainable
from graphpruning.network.zoo import initialise
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.pruningnet.terms import OtherTerms
from graphpruning.search.evaluator import Evaluator
from graphpruning.search.sliced import SlicedWeights

SIZE = (3, 32, 32)
IMAGES = torch.randn(8, *SIZE, generator=torch.Generator().manual_seed(0))


class Tiny(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, num_classes)

    def body(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn(self.conv(x))))))

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


class Slopes(Tiny):
    """One slope for all channels, and one filter over channels: parameters without channels."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.act, self.eca = nn.PReLU(), nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def body(self, x):
        x = self.act(self.bn(self.conv(x)))
        gate = self.eca(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return self.act(self.bn2(self.conv2(x * gate[:, :, None, None])))


def judge_of(base: nn.Module, graph) -> Judge:
    cut = SlicedWeights(base, graph, [IMAGES], 10, torch.Generator().manual_seed(0))
    labels = torch.zeros(8, dtype=torch.long)
    batches = [(IMAGES, labels)]
    return Judge(
        graph, cut, Evaluator(graph, cut, batches, batches, statistics_of=cut.statistics), base=base
    )


def test_what_has_no_channels_reaches_the_network_that_is_trained() -> None:
    base = Slopes().eval()
    with torch.no_grad():
        base.act.weight.fill_(0.9)
        base.eca.weight.copy_(torch.tensor([[[-2.0, 5.0, -2.0]]]))
    graph = trace(base, SIZE)
    assert set(graph.rest) == {"act.weight", "eca.weight"}
    for widths in (graph.full_widths, {"conv": 8, "conv2": 16}):
        judge = judge_of(base, graph)
        found = found_network(Slopes(), graph, widths, 0, judge).eval()
        assert found.act.weight.item() == pytest.approx(0.9)
        weights = judge.weights_of(widths)
        with torch.no_grad():
            judged = Subnet(graph).logits(
                IMAGES, weights, judge.evaluator.statistics(widths, weights)
            )
            torch.testing.assert_close(found(IMAGES), judged, rtol=1e-4, atol=1e-4)
        if widths == graph.full_widths:
            torch.testing.assert_close(judged, base(IMAGES), rtol=1e-4, atol=1e-4)


class Twice(Tiny):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.features = nn.Sequential(self.conv, self.bn, nn.ReLU(), self.conv2, self.bn2)

    def body(self, x):
        return self.features(x)


def test_a_module_under_two_names_is_saved_and_loaded(tmp_path: Path) -> None:
    model = Twice().eval()
    graph = trace(model, SIZE)
    widths = {name: width // 2 for name, width in graph.full_widths.items()}
    pruned = narrow(model, graph, widths)
    preprocessing = {"mean": [0.0] * 3, "std": [1.0] * 3, "pad": 0, "flip": True}
    preprocessing |= {"size": 32, "resize": 32, "smallest_area": 0.08}
    file = tmp_path / "architecture.json"
    save_architecture(
        file,
        tmp_path / "weights.safetensors",
        pruned,
        network=builder(Twice, 3),
        input_size=SIZE,
        widths=widths,
        preprocessing=preprocessing,
    )
    loaded = load_architecture(file, build=Twice)
    assert torch.equal(loaded(IMAGES), pruned(IMAGES))


class Blurred(Tiny):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        kernel = torch.ones(16, 1, 3, 3) / 9 * torch.arange(1.0, 17)[:, None, None, None]
        self.register_buffer("blur", kernel)

    def body(self, x):
        x = F.conv2d(F.relu(self.bn(self.conv(x))), self.blur, padding=1, groups=len(self.blur))
        return F.relu(self.bn2(self.conv2(x)))


def test_a_blur_is_inherited_in_the_new_order() -> None:
    base = Blurred().eval()
    graph = trace(base, SIZE)
    reordering = Reordering(graph, by_importance(base, graph))
    terms = OtherTerms(graph)
    terms.start_from(base, reordering)
    found = terms(graph.first_units(graph.full_widths))["blur"][0]
    order = by_importance(base, graph)["conv"]
    assert found.shape == (16, 1, 3, 3)
    assert torch.equal(found, base.blur[order]) and not torch.equal(found, base.blur)


class ByKeyword(Tiny):
    def body(self, x):
        return F.relu(self.bn2(self.conv2(input=F.relu(self.bn(input=self.conv(input=x))))))


class Functional(Tiny):
    def body(self, x):
        x = F.conv2d(x, self.conv.weight, self.conv.bias, self.conv.stride, self.conv.padding)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn(x)))))


@pytest.mark.parametrize("kind", [ByKeyword, Functional])
def test_however_a_layer_is_called_it_is_timed_and_cut(kind) -> None:
    base, plain = kind().eval(), Tiny().eval()
    plain.load_state_dict(base.state_dict())
    graph, expected = trace(base, SIZE), trace(plain, SIZE)
    assert graph.describe() == expected.describe()
    assert _input_shapes(base, graph, 2) == _input_shapes(plain, expected, 2)
    widths = {"conv": 8, "conv2": 16}
    found, wanted = judge_of(base, graph), judge_of(plain, expected)
    for name, (weight, _) in wanted.weights_of(widths).items():
        assert torch.equal(found.weights_of(widths)[name][0], weight)


class Gamma(Tiny):
    """A scale for each channel, whose own method multiplies."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.gamma = nn.Parameter(torch.ones(1, 32, 1, 1))

    def body(self, x):
        return torch.mul(self.gamma, super().body(x)) + self.gamma.mul(super().body(x))


class Instance(Tiny):
    """A normalisation of single images that keeps running statistics."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.bn = nn.InstanceNorm2d(16, affine=True, track_running_stats=True)


@pytest.mark.parametrize("kind", [Gamma, Instance])
def test_a_subnet_computes_what_the_network_computes(kind) -> None:
    torch.manual_seed(0)
    base = kind().train()
    base(IMAGES)
    base.eval()
    graph = trace(base, SIZE)
    cut = SlicedWeights(base, graph, [], 10, torch.Generator(), reconstruct=False)
    weights = cut(graph.full_widths)
    if kind is Gamma:
        del weights["gamma"]  # of a PruningNet, where a scale is 1
    with torch.no_grad():
        found = Subnet(graph).logits(IMAGES, weights, cut.statistics(graph.full_widths))
        torch.testing.assert_close(found, base(IMAGES), rtol=1e-4, atol=1e-5)
        if kind is Instance:
            collected = Subnet(graph).recalibrate(weights, [(IMAGES, torch.zeros(8))])
            fresh = Instance().train()
            fresh.load_state_dict(base.state_dict())
            fresh.bn.momentum = 1.0
            fresh(IMAGES)
            torch.testing.assert_close(collected["bn"][0], fresh.bn.running_mean)
            torch.testing.assert_close(collected["bn"][1], fresh.bn.running_var)


class Keeps(Tiny):
    def forward(self, x):
        self.last = self.body(x)
        return self.fc(self.last.mean((2, 3)))


def test_a_network_that_keeps_a_result_of_its_last_run_is_copied() -> None:
    model = Keeps().eval()
    expected = model(IMAGES)
    assert not model.last.is_leaf
    assert torch.equal(builder(model)()(IMAGES), expected)
    graph = trace(model, SIZE)
    assert torch.equal(narrow(model, graph, graph.full_widths)(IMAGES), expected)


def wrapped(num_classes: int) -> nn.Module:
    return nn.DataParallel(Tiny(num_classes))


def compiled(num_classes: int) -> nn.Module:
    return torch.compile(Tiny(num_classes))


@pytest.mark.parametrize("function", [wrapped, compiled])
def test_a_function_may_return_a_wrapped_network(function) -> None:
    assert type(builder(function, 3)()) is Tiny


def needs(width: int) -> nn.Module:
    return Tiny(width)


def breaks() -> nn.Module:
    raise AssertionError("no\nnetwork today")


class TupleInTraining(Tiny):
    def forward(self, x):
        maps = self.body(x)
        scores = self.fc(maps.mean((2, 3)))
        return (scores, maps) if self.training else scores


class Asserts(Tiny):
    def forward(self, x):
        assert x.shape[-1] == 224, "Input height doesn't match model (224)"
        return super().forward(x)


def test_what_a_function_or_network_does_wrong_is_said_in_a_line() -> None:
    for function, said in ((needs, "needs width"), (breaks, "AssertionError: no network today")):
        with pytest.raises(UserError, match=said) as refused:
            builder(function, 3)()
        assert "\n" not in str(refused.value)
    for place in ("./model:build", "../x:build", ":build"):
        with pytest.raises(UserError, match="is no module of Python"):
            builder(place)
    with pytest.raises(UserError, match="returns a tuple in training mode"):
        require_scores("mine", TupleInTraining(), SIZE, 3)
    with pytest.raises(UserError, match="has 3 outputs, but the data 5 classes"):
        require_scores("mine", Tiny(), SIZE, 5)
    require_scores("mine", Asserts(), SIZE, 3)  # `trace` says it
    with pytest.raises(UserError, match="Input height doesn't match"):
        trace(Asserts(), SIZE)
    with pytest.raises(UserError, match="ReLU has no convolution"):
        trace(nn.ReLU(), SIZE)


class Unsaved(Tiny):
    """A gain for each channel that the state leaves out."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.register_buffer("gain", torch.arange(1.0, 17).view(1, 16, 1, 1), persistent=False)

    def body(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn(self.conv(x))) * self.gain)))


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [1, 5, 10, 15]])
def test_a_buffer_that_the_state_leaves_out_is_loaded_as_it_was_cut(
    tmp_path: Path, chosen: list[int]
) -> None:
    model = Unsaved().eval()
    graph = trace(model, SIZE)
    keep = {"conv": torch.tensor(chosen), "conv2": torch.arange(32)}
    widths = {name: len(units) for name, units in keep.items()}
    pruned = narrow(model, graph, widths, keep)
    assert pruned.gain.flatten().tolist() == [1 + number for number in chosen]
    preprocessing = {"mean": [0.0] * 3, "std": [1.0] * 3, "pad": 0, "flip": True}
    save_architecture(
        tmp_path / "architecture.json",
        tmp_path / "weights.safetensors",
        pruned,
        network=builder(Unsaved, 3),
        input_size=SIZE,
        widths=widths,
        preprocessing=preprocessing | {"size": 32, "resize": 32},
    )
    loaded = load_architecture(tmp_path / "architecture.json", build=Unsaved)
    assert torch.equal(loaded(IMAGES), pruned(IMAGES))


class BorrowedBias(Tiny):
    def body(self, x):
        x = self.conv(x) + self.conv2.bias[:16, None, None]
        return F.relu(self.bn2(self.conv2(F.relu(self.bn(x)))))


class TiedBias(Tiny):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.more = nn.Conv2d(32, 32, 1)
        self.more.bias = self.conv2.bias

    def body(self, x):
        return self.more(super().body(x))


class SharedStatistics(Tiny):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.again = nn.BatchNorm2d(32)
        self.again.running_mean = self.bn2.running_mean

    def body(self, x):
        return self.again(super().body(x))


@pytest.mark.parametrize("kind", [BorrowedBias, TiedBias, SharedStatistics])
def test_what_two_layers_share_is_refused_and_not_cut_twice(kind) -> None:
    with pytest.raises(UserError, match=r"shares another one's|used directly too"):
        trace(kind(), SIZE)


class SlopesOfChannels(Tiny):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.act = nn.PReLU(16)
        nn.init.constant_(self.act.weight, 0.7)

    def body(self, x):
        return F.relu(self.bn2(self.conv2(self.act(self.bn(self.conv(x))) * 0.5)))


def test_slopes_that_a_product_follows_are_no_scale() -> None:
    base = SlopesOfChannels().eval()
    graph = trace(base, SIZE)
    assert not graph.scales and set(graph.constants) == {"act.weight"}
    widths = {"conv": 8, "conv2": 16}
    net = PruningNet(graph, "graph")
    assert net(IMAGES, widths).shape == (8, 3)
    found = found_network(SlopesOfChannels(), graph, widths, 0, judge_of(base, graph))
    assert found.act.weight.tolist() == pytest.approx([0.7] * 8)


class ByNumberOfChannels(Tiny):
    def body(self, x):
        x = F.relu(self.bn(self.conv(x)))
        return F.relu(self.bn2(self.conv2(x / math.sqrt(x.size(1)))))


class ByNumberOfPositions(Tiny):
    def body(self, x):
        x = F.relu(self.bn(self.conv(x)))
        return F.relu(self.bn2(self.conv2(x / math.sqrt(x.size(2)))))


@pytest.mark.parametrize("kind", [ByNumberOfChannels, ByNumberOfPositions])
def test_a_division_by_the_number_of_channels_mixes_them(kind) -> None:
    assert bool(trace(kind(), SIZE).mixing) == (kind is ByNumberOfChannels)


class Normalised(Tiny):
    def body(self, x):
        x = F.local_response_norm(F.relu(self.bn(self.conv(x))), 5, alpha=1.0)
        return F.relu(self.bn2(self.conv2(x)))


@pytest.mark.parametrize(("kind", "free"), [(Tiny, 2), (Slopes, 1), (Normalised, 0)])
def test_a_pruningnet_that_inherits_begins_as_the_base(kind, free: int) -> None:
    base = kind().train()
    base(IMAGES)
    base.eval()
    if kind is Slopes:
        with torch.no_grad():
            base.eca.weight.copy_(torch.tensor([[[-2.0, 5.0, -2.0]]]))
    graph = trace(base, SIZE)
    net = PruningNet(graph, "graphpruning-plus")
    net.start_from(base)
    assert len(graph.prunable.keys() - in_order(graph)) == free
    base.train()  # a PruningNet normalises by the batch
    torch.testing.assert_close(net(IMAGES, graph.full_widths), base(IMAGES), rtol=1e-3, atol=1e-3)


class OwnReset(Tiny):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.gain = nn.Parameter(torch.ones(16, 1, 1))

    def reset_parameters(self, deviation):
        raise AssertionError("nobody knows the deviation")

    def body(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn(self.conv(x))) * self.gain)))


class Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.zeros(16, 1, 1))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.by)

    def forward(self, x):
        return x + self.by


class Shifted(Tiny):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.shift = Shift()

    def body(self, x):
        return F.relu(self.bn2(self.conv2(self.shift(self.bn(self.conv(x))))))


def test_a_modules_own_reset_is_called() -> None:
    """Else a training from scratch would begin with what was learnt."""
    trained = Shifted().eval()
    nn.init.constant_(trained.shift.by, 5.0)
    graph = trace(trained, SIZE)
    found = found_network(trained, graph, {"conv": 8, "conv2": 16}, 0, None)
    assert found.shift.by.shape == (8, 1, 1) and not found.shift.by.any()


class OwnLinear(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


def test_fresh_weights_are_drawn_as_pytorch_does() -> None:
    graph = trace(OwnReset().eval(), SIZE)
    found_network(OwnReset(), graph, {"conv": 8, "conv2": 16}, 0, None)
    layer = OwnLinear(4, 4)
    assert not layer.weight.any()
    initialise(layer)
    assert layer.weight.all()


class CountsImages(Tiny):
    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)).reshape(len(x), -1))


def test_a_number_of_images_in_the_code_is_named() -> None:
    with pytest.raises(UserError, match=r"one image and not on two: .* write x\.size\(0\)"):
        trace(CountsImages(), SIZE)


class ExtraState(Tiny):
    def get_extra_state(self):
        return {"steps": 3}


def test_a_state_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(UserError, match="_extra_state is a dict, and a file of weights holds"):
        trainable(ExtraState())
