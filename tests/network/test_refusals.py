"""What would make a wrong graph is refused by name, and the user's network is left as it was."""

from collections.abc import Callable
from functools import partial
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from graphpruning import UnsupportedNetwork, UserError, macs, narrow, params, trace
from graphpruning.network.reading import Reading

SIZE = (3, 8, 8)


class Small(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.body(x)).mean((2, 3)))


class Flip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(0)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m: m.conv.register_forward_pre_hook(lambda m, x: x[0].flip(1)), "conv .*pre-hook"),
        (lambda m: m.bn.register_forward_hook(lambda m, x, y: y * 0), r"bn \(BatchNorm2d\).* hook"),
        (lambda m: m.register_forward_hook(lambda m, x, y: y), "the network itself .* hook"),
        (
            lambda m: prune.l1_unstructured(m.conv, "weight", 0.5),
            "conv .*weight_orig.*prune.remove",
        ),
        (lambda m: prune.ln_structured(m.last, "weight", 0.5, 1, 0), "last .*weight_orig"),
        (lambda m: parametrize.register_parametrization(m.conv, "bias", Flip()), "conv .*of bias"),
        (lambda m: parametrizations.weight_norm(m.conv), "conv .*remove_parametrizations"),
        (lambda m: parametrizations.spectral_norm(m.last), "last .*remove_parametrizations"),
        (lambda m: spectral_norm(m.conv), "conv .*weight_orig.*remove_spectral_norm"),
        (lambda m: weight_norm(m.conv), "conv .*weight norm"),
        (lambda m: m.add_module("lazy", nn.LazyConv2d(4, 3)), "lazy .*no weight yet"),
    ],
)
def test_what_acts_on_the_side_is_refused_by_name(
    spoil: Callable[[nn.Module], object], says: str
) -> None:
    model = Small()
    spoil(model)
    state = {
        name: value.clone() for name, value in model.state_dict().items() if "lazy" not in name
    }
    with pytest.raises(UnsupportedNetwork, match=says) as refusal:
        trace(model, SIZE)
    assert "\n" not in str(refusal.value)
    for name, value in state.items():
        assert type(value) is Tensor and torch.equal(value, model.state_dict()[name])


def wrapped(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    before = layer.forward
    return lambda x: before(x) * 2


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m: setattr(m.conv, "forward", wrapped(m.conv)), "conv .* holds on to"),
        (lambda m: setattr(m.conv, "forward", partial(wrapped(m.conv))), "conv .* holds on to"),
        (
            lambda m: setattr(m.conv, "forward", MethodType(lambda _, x: m.last(x), m.conv)),
            "conv .* holds on to",
        ),
        (lambda m: setattr(m, "forward", wrapped(m)), "the network itself .* forward set on it"),
        (
            lambda m: setattr(m, "forward", MethodType(lambda m, x: m.fc(m.conv(x)), m)),
            "the network itself .* forward set on it",
        ),
    ],
)
def test_a_forward_around_the_networks_own_layers_is_refused(
    spoil: Callable[[nn.Module], object], says: str
) -> None:
    """Every copy would run the layers of the original."""
    model = Small()
    spoil(model)
    with pytest.raises(UnsupportedNetwork, match=says) as refusal:
        trace(model, SIZE)
    assert "\n" not in str(refusal.value)


def twice(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x * 2, layer.weight, layer.bias, padding=layer.padding)


def test_a_bound_forward_is_that_of_the_narrowed_layer_and_read_once() -> None:
    model = Small().eval()
    model.conv.forward = MethodType(twice, model.conv)  # type: ignore[method-assign]
    graph, images = trace(model, SIZE), torch.randn(2, *SIZE)
    torch.testing.assert_close(Reading(model, graph, (), print).run(images), model(images))
    narrowed = narrow(model, graph, dict.fromkeys(graph.prunable, 3)).train()
    narrowed(images).sum().backward()
    assert narrowed.conv.weight.grad is not None  # type: ignore[union-attr]


class Unregistered(Small):
    def __init__(self) -> None:
        super().__init__()
        self.gains = [nn.Parameter(torch.ones(1))]

    def body(self, x: Tensor) -> Tensor:
        return super().body(x) * self.gains[0]


class LiveBranch(Small):
    """Adds its input where the numbers of channels happen to agree."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(8, 16, 1)
        self.back = nn.Conv2d(16, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        x = super().body(x)
        y = self.wide(x)
        if self.wide.in_channels == self.wide.out_channels:
            y = y + x
        return self.back(y)


class SharedNorm(Small):
    """Two normalisations with one scale."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(8)
        self.other.weight = self.bn.weight

    def body(self, x: Tensor) -> Tensor:
        return self.other(super().body(x))


class LiveSize(Small):
    """Has the full network's number of channels in its code."""

    def body(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x.view(-1, self.conv.out_channels * 64).view(-1, self.conv.out_channels, 8, 8)


class WidthTwice(Small):
    def body(self, x: Tensor) -> Tensor:
        return super().body(x) * self.bn.weight.view(1, -1, 1, 1)


class OnlyOneImage(Small):
    def body(self, x: Tensor) -> Tensor:
        return super().body(x).view(1, -1, 8, 8)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (LiveBranch, "takes another way when it is narrowed: back becomes add"),
        (SharedNorm, "other .* shares another one's weight, that of bn"),
        (WidthTwice, "a parameter of bn, used directly too"),
        (OnlyOneImage, "runs on one image and not on two"),
        (Unregistered, "a parameter that is none of the network's own"),
    ],
)
def test_code_that_would_go_another_way_is_refused(model: type[Small], says: str) -> None:
    with pytest.raises(UnsupportedNetwork, match=says):
        trace(model(), SIZE)


def test_a_live_attribute_that_follows_is_no_fault() -> None:
    """`narrow` sets `out_channels`; its own code then says the same of fewer channels."""
    graph = trace(LiveSize(), SIZE)
    assert "conv" not in graph.prunable


class Squeezes(Small):
    """Of one channel, `squeeze` takes the channels too."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.body(x)).mean((2, 3), keepdim=True)
        return self.fc(x.squeeze())


def test_a_width_at_which_the_network_breaks_is_refused_before_it_is_handed_out() -> None:
    graph = trace(Squeezes(), SIZE)
    two = narrow(Squeezes(), graph, {"conv": 1, "last": 2}).eval()
    assert two(torch.zeros(3, *SIZE)).shape == (3, 4)
    with pytest.raises(UnsupportedNetwork, match="narrowed"):
        narrow(Squeezes(), graph, {"conv": 1, "last": 1})


def test_a_width_that_happens_to_equal_the_images_is_refused() -> None:
    class Agrees(Small):
        def body(self, x: Tensor) -> Tensor:
            y = super().body(x)
            return y + x if self.conv.in_channels == self.conv.out_channels else y

    graph = trace(Agrees(), SIZE)
    narrow(Agrees(), graph, {"conv": 4, "last": 3})
    with pytest.raises(UnsupportedNetwork, match="takes another way when it is narrowed"):
        narrow(Agrees(), graph, {"conv": 3, "last": 3})


class Leaves(Small):
    """Keeps what it saw, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.seen += 1
        self.feature = self.body(x)
        return self.fc(self.last(self.feature).mean((2, 3)))


def test_a_network_that_remembers_is_left_as_it_was() -> None:
    model = Leaves().train()
    before = set(vars(model))
    trace(model, SIZE)
    assert set(vars(model)) == before and model.steps == 0 and model.seen == 0 and model.training


class TrainsMore(Small):
    """Has a normalisation that only training runs."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.BatchNorm2d(8)

    def body(self, x: Tensor) -> Tensor:
        y = super().body(x)
        return self.aux(y) if self.training else y


def test_a_layer_that_only_training_runs_is_refused() -> None:
    with pytest.raises(
        UnsupportedNetwork, match="aux is not used in evaluation mode, but in train"
    ):
        trace(TrainsMore(), SIZE)


class ReadsMore(Small):
    """Multiplies by a parameter, or adds a buffer, when it trains."""

    def __init__(self, value: Tensor, learnt: bool = True) -> None:
        super().__init__()
        if learnt:
            self.more = nn.Parameter(value)
        else:
            self.register_buffer("more", value)

    def body(self, x: Tensor) -> Tensor:
        y = super().body(x)
        return y * self.more if self.training else y


@pytest.mark.parametrize(("learnt", "kind"), [(True, "parameter"), (False, "buffer")])
def test_a_tensor_that_only_training_reads_is_refused(learnt: bool, kind: str) -> None:
    with pytest.raises(UnsupportedNetwork, match=f"the {kind} more is not read in evaluation mode"):
        trace(ReadsMore(torch.ones(8, 1, 1), learnt), SIZE)


def test_one_number_that_only_training_reads_meets_any_number_of_channels() -> None:
    model = ReadsMore(torch.full((1,), 2.0))
    graph = trace(model, SIZE)
    narrowed = narrow(model, graph, dict.fromkeys(graph.prunable, 3)).train()
    narrowed(torch.randn(2, *SIZE)).sum().backward()
    assert narrowed.more.grad is not None  # type: ignore[union-attr]


class AlwaysOfBatch(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        means = self.running_mean, self.running_var
        return F.batch_norm(x, *means, self.weight, self.bias, True, 0.1, self.eps)


class AlwaysOfImage(nn.InstanceNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        means = self.running_mean, self.running_var
        return F.instance_norm(x, *means, self.weight, self.bias)


class Then(Small):
    def __init__(self, norm: nn.Module, then: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.bn, self.then = norm, then  # type: ignore[assignment]

    def body(self, x: Tensor) -> Tensor:
        return self.then(super().body(x))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Then(AlwaysOfBatch(8)), "bn normalises by .*; call it with training=self.training"),
        (
            Then(AlwaysOfImage(8, track_running_stats=True)),
            "bn normalises by .*; call it with use_input_stats=self.training",
        ),
        (Then(nn.BatchNorm2d(8), F.dropout), "dropout .* is random in evaluation mode too"),
        (
            Then(nn.BatchNorm2d(8), lambda x: F.alpha_dropout(x, 0.5, training=True)),
            "alpha_dropout .* is random in evaluation mode too",
        ),
        (
            Then(nn.BatchNorm2d(8), lambda x: torch.dropout(x, 0.5, True)),
            "dropout .* is random in evaluation mode too",
        ),
    ],
)
def test_a_network_whose_scores_are_not_its_own_is_refused(model: nn.Module, says: str) -> None:
    with pytest.raises(UnsupportedNetwork, match=says) as refusal:
        trace(model, SIZE)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "model",
    [
        Then(nn.BatchNorm2d(8), lambda x: F.dropout(x, 0.5, training=False)),
        Then(AlwaysOfImage(8)),
        Then(nn.BatchNorm2d(8, track_running_stats=False)),
        Then(nn.InstanceNorm2d(8, track_running_stats=True)),
    ],
)
def test_its_like_whose_scores_are_its_own_is_followed(model: nn.Module) -> None:
    assert trace(model, SIZE).prunable.keys() == {"conv", "last"}


@pytest.mark.parametrize(
    "part", [nn.BatchNorm2d(8), nn.PReLU(8), nn.ConvTranspose2d(8, 8, 3), nn.Conv2d(8, 2, 1)]
)
def test_a_layer_that_nothing_runs_stays_and_is_counted(part: nn.Module) -> None:
    model = Small()
    model.add_module("aux", part)
    graph = trace(model, SIZE)
    small = dict.fromkeys(graph.prunable, 3)
    narrowed = narrow(model, graph, small)
    for widths, network in ((graph.full_widths, model), (small, narrowed)):
        assert params(graph, widths) == sum(p.numel() for p in network.parameters())
    narrowed.train()(torch.randn(2, *SIZE)).sum().backward()
    for name, value in part.state_dict().items():
        assert torch.equal(narrowed.get_submodule("aux").state_dict()[name], value)


class Extra(Small):
    """Has a parameter that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(16))


def test_parameters_outside_the_graph_are_counted_at_every_width() -> None:
    model = Extra()
    graph = trace(model, SIZE)
    assert params(graph, graph.full_widths) == sum(p.numel() for p in model.parameters())
    small = dict.fromkeys(graph.prunable, 3)
    assert params(graph, small) == sum(p.numel() for p in narrow(model, graph, small).parameters())


def test_a_narrowed_network_runs_in_training_mode() -> None:
    graph = trace(Small(), SIZE)
    narrowed = narrow(Small(), graph, dict.fromkeys(graph.prunable, 3)).train()
    narrowed(torch.randn(2, *SIZE)).sum().backward()
    assert all(p.grad is not None for p in narrowed.parameters())


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Conv3d(3, 8, 3)), r"0 is a Conv3d.*videos"),
        (nn.Sequential(nn.Conv1d(3, 8, 3)), r"0 is a Conv1d.*sequences"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), "linear layers and no convolution"),
        (nn.Conv2d(3, 8, 3), "Conv2d is a layer by itself"),
        (nn.ConvTranspose2d(3, 8, 3), "ConvTranspose2d is a layer by itself"),
        (torch.jit.script(nn.Conv2d(3, 8, 3)), "compiled by torch.jit"),
        (lambda x: x, "a network is an nn.Module; this is function"),
        (
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(16)),
            r"does not run on an image of \(3, 8",
        ),
    ],
)
def test_what_is_no_network_of_images_is_refused(model: nn.Module, says: str) -> None:
    with pytest.raises(UserError, match=says) as refusal:
        trace(model, SIZE)
    assert "\n" not in str(refusal.value)


def test_an_exported_program_is_refused() -> None:
    exported = torch.export.export(Small().eval(), (torch.zeros(1, *SIZE),))
    with pytest.raises(UserError, match=r"ExportedProgram .*give the nn\.Module it was made from"):
        trace(exported, SIZE)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_network_is_unwrapped(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = Small().eval()
    graph = trace(wrap(model), SIZE)
    assert [layer.name for layer in graph.layers] == ["conv", "last", "fc"]
    narrowed = narrow(wrap(model), graph, graph.full_widths)
    images = torch.randn(2, *SIZE)
    assert type(narrowed) is Small and torch.equal(narrowed(images), model(images))


class Flags(Small):
    """Takes more than images, and returns more than scores."""

    def forward(  # type: ignore[override]
        self, x: Tensor, features: bool = True, *rest: Tensor, scale: float = 1.0, **more: Tensor
    ) -> dict[str, Tensor | list[Tensor]]:
        assert x.shape[1] == 3, "colour images"
        y = self.body(x)
        found: dict[str, Tensor | list[Tensor]] = {"out": self.fc(self.last(y).mean((2, 3)))}
        return {**found, "features": [y]} if features else found


def test_other_arguments_keep_their_defaults_and_outputs_may_be_nested() -> None:
    graph = trace(Flags(), SIZE)
    assert list(graph.prunable) == ["last"]  # what is returned stays whole
    narrowed = narrow(Flags(), graph, {"last": 2}).eval()(torch.zeros(2, *SIZE))
    assert narrowed["out"].shape == (2, 4) and narrowed["features"][0].shape == (2, 8, 8, 8)


def test_log_softmax_at_the_end_is_followed() -> None:
    """As in PyTorch's own MNIST example."""

    class Mnist(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
            self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
            self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
            x = self.dropout1(nn.functional.max_pool2d(x, 2))
            x = self.dropout2(torch.relu(self.fc1(torch.flatten(x, 1))))
            return nn.functional.log_softmax(self.fc2(x), dim=1)

    graph = trace(Mnist(), (1, 28, 28))
    assert list(graph.prunable) == ["conv1", "conv2", "fc1"]
    assert macs(graph, graph.full_widths) == 26 * 26 * 288 + 24 * 24 * 18432 + 9216 * 128 + 1280
