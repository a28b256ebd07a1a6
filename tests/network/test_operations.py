"""What each operation does to channels: the narrowed network is what it must equal."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from benchmarks.coverage import check
from graphpruning import macs, trace
from graphpruning.common.errors import UnsupportedNetwork, UserError

SIZE = (3, 8, 8)


class Between(nn.Module):
    """Two convolutions, of which the second is added to a third, and `operation` between them."""

    def __init__(self, operation: Callable[[Tensor], Tensor], channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.operation = operation
        self.last = nn.Conv2d(channels, 6, 3, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.operation(self.first(x)))
        return self.fc(y.mean((2, 3)))


class ECA(nn.Module):
    """Wang et al., arXiv 1910.03151: a filter over the channels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3)).unsqueeze(-1).transpose(-1, -2)).transpose(-1, -2)
        return x * y.unsqueeze(-1).sigmoid()


class SpatialAttention(nn.Module):
    """Woo et al., arXiv 1807.06521: the mean and the largest of all channels, at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        most = x.max(1, keepdim=True)[0]
        return x * self.conv(torch.cat((x.mean(1, keepdim=True), most), 1)).sigmoid()


class Selective(nn.Module):
    """Li et al., arXiv 1903.06586: two branches, stacked, weighted by a softmax and added."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.weigh = nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.stack((self.left(x), self.right(x)), 1)
        pooled = y.sum(1).mean((2, 3), keepdim=True)
        weights = self.weigh(pooled).view(y.size(0), 2, -1, 1, 1).softmax(1)
        return (y * weights).sum(1)


class Interleaved(nn.Module):
    """Two branches whose channels take turns, or follow each other, by `stack` and `flatten`."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack((self.left(x), self.right(x)), self.axis).flatten(1, 2)


class Blur(nn.Module):
    """Zhang, arXiv 1904.11486: a constant filter for every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 8
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filter", (row[:, None] * row).repeat(8, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(x, self.filter, stride=2, groups=self.groups(x))

    def groups(self, x: Tensor) -> Any:
        """How many channels there are, as its code says it."""
        return self.channels


class BlurOfShape(Blur):
    def groups(self, x: Tensor) -> Any:
        return x.shape[1]


class BlurOfSize(Blur):
    def groups(self, x: Tensor) -> Any:
        return x.size(1)


class BlurOfFilter(Blur):
    def groups(self, x: Tensor) -> Any:
        return self.filter.shape[0]


class SamePadding(nn.Conv2d):
    """TensorFlow's "same": computed from the image that it sees."""

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for length, kernel, stride in zip(
            x.shape[-2:], self.weight.shape[-2:], self.stride, strict=True
        ):
            whole = max((-(length // -stride) - 1) * stride + kernel - length, 0)
            sides = [whole // 2, whole - whole // 2, *sides]
        if any(side > 0 for side in sides):
            x = F.pad(x, sides)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Scaled(nn.Module):
    """Multiplies by a number that is computed from a buffer, and by one that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.tensor(0.5))
        self.gain = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.share + 2) * self.share + x * (self.gain - 1)


class Grn(nn.Module):
    """Woo et al., arXiv 2301.00808: each channel in proportion to the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(2, 3), keepdim=True)
        share = size / (size.mean(1, keepdim=True) + 1e-6)
        shape = (1, -1, 1, 1)
        return x + torch.addcmul(self.beta.view(shape), self.gamma.view(shape), x * share)


class Context(nn.Module):
    """Cao et al., arXiv 1904.11492: a weighted mean over positions, as a product of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        mask = self.mask(x).view(count, 1, height * width).softmax(-1)
        context = x.view(count, channels, height * width) @ mask.transpose(1, 2)
        return x + context.unsqueeze(-1)


class Standardising(nn.Conv2d):
    """Qiao et al., arXiv 1903.10520, with the gain of Brock et al., arXiv 2101.08692."""

    def __init__(self) -> None:
        super().__init__(8, 6, 3, padding=1)
        self.gain, self.scale = nn.Parameter(torch.ones(6, 1, 1, 1)), 0.3

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        factor = (self.gain * self.scale).view(-1)
        weight = F.batch_norm(
            rows, None, None, weight=factor, training=True, momentum=0.0, eps=1e-6
        )
        weight = weight.reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class NormAct(nn.BatchNorm2d):
    """A normalisation with its activation, as timm's."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.ndim == 4, "expected four dimensions"
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps
        )
        return F.silu(x)


class ChannelsLast(nn.LayerNorm):
    """A layer normalisation over the channels of an image."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ShareLayer(nn.Module):
    """One convolution and one normalisation, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.avg_pool2d(self.norm(self.conv(x)), 2)))


class Inherits(nn.Conv2d):
    """A subclass that changes nothing."""


def option_a(x: Tensor) -> Tensor:
    """He et al. 2016 on CIFAR: a shortcut that fills up with zeros."""
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))


def if_shapes_agree(x: Tensor) -> Tensor:
    y = x.relu()
    return x + y if y.shape == x.shape and len(x.shape) == 4 else y


FOLLOWED: list[tuple[str, Callable[[Tensor], Tensor], int]] = [
    ("PReLU with a slope for each channel", nn.PReLU(8), 8),
    ("PReLU with one slope", nn.PReLU(), 8),
    ("activations", nn.Sequential(nn.Softplus(), nn.SELU(), nn.CELU(), nn.LogSigmoid()), 8),
    ("clamp, pow, neg, exp", lambda x: (-x.clamp(0, 6)).exp().pow(2).detach().to(x.dtype), 8),
    ("expand and expand_as", lambda x: x + x.amax((2, 3), keepdim=True).expand_as(x), 8),
    ("a sum over positions", lambda x: x * x.sum((2, 3))[:, :, None, None], 8),
    ("stack and sum", lambda x: torch.stack((x, x.relu()), 1).sum(1), 8),
    ("stack and take one", lambda x: torch.stack((x, x.tanh()), 1)[:, 1], 8),
    ("softmax over channels", lambda x: x.softmax(1), 8),
    ("softmax over positions", lambda x: x * x.flatten(2).softmax(-1).view_as(x), 8),
    ("F.normalize", lambda x: F.normalize(x, dim=1), 8),
    ("zeros as new channels", option_a, 16),
    ("reflected and replicated borders", lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), 8),
    ("a transposed convolution", nn.ConvTranspose2d(8, 6, 3, 2, 1, 1), 6),
    ("one in groups", nn.ConvTranspose2d(8, 4, 2, 2, groups=2), 4),
    ("a pixel shuffle", nn.PixelShuffle(2), 2),
    ("a group normalisation", nn.GroupNorm(2, 8), 8),
    ("a group normalisation of one group", nn.GroupNorm(1, 8), 8),
    ("an instance normalisation", nn.InstanceNorm2d(8, affine=True), 8),
    ("a local response normalisation", nn.LocalResponseNorm(3), 8),
    ("an upsampling", nn.Upsample(scale_factor=2), 8),
    ("a resize to another's size", lambda x: F.interpolate(x, size=x.shape[-2:]), 8),
    ("chunks", lambda x: sum(part * n for n, part in enumerate(x.chunk(2, 1), 1)), 4),
    ("splits of unequal sizes", lambda x: torch.cat(x.split([2, 6], 1)[::-1], 1), 8),
    ("halves by their size", lambda x: x[:, : x.size(1) // 2] + x[:, x.size(1) // 2 :], 4),
    ("the last half", lambda x: x[:, x.size(1) // 2 :], 4),
    ("a half in the middle", lambda x: x[:, x.size(1) // 4 : -(x.size(1) // 4)], 4),
    ("a half from a quarter on", lambda x: x[:, x.size(1) // 4 :][:, : x.size(1) // 2], 4),
    ("channels that take turns", Interleaved(2), 8),
    ("channels that are stacked", Interleaved(1), 8),
    ("the larger of two", lambda x: torch.maximum(x, x.flip(2)), 8),
    ("a concatenation over positions", lambda x: torch.cat((x, x.relu()), 2), 8),
    ("a concatenation from behind", lambda x: torch.concat([x, x.relu()], dim=-3), 16),
    ("a concatenation by another name", lambda x: torch.cat((x, x), axis=1), 16),
    ("a concatenation by names alone", lambda x: torch.cat(tensors=x.chunk(2, 1), dim=1), 8),
    ("where", lambda x: torch.where(x > 1, x, x * 0.1), 8),
    ("repeat", lambda x: x.repeat(1, 2, 1, 1), 16),
    ("a shuffle by unflatten", lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2), 8),
    ("a branch on shapes", if_shapes_agree, 8),
    ("ECA", ECA(), 8),
    ("spatial attention", SpatialAttention(), 8),
    ("selective kernels", Selective(), 8),
    ("numbers in buffers", Scaled(), 8),
    ("a blur", Blur(), 8),
    ("a blur of x.shape[1] groups", BlurOfShape(), 8),
    ("a blur of x.size(1) groups", BlurOfSize(), 8),
    ("a blur of as many groups as filters", BlurOfFilter(), 8),
    ("padding computed from the image", SamePadding(8, 5, 3, 2), 5),
    ("a depthwise one", SamePadding(8, 8, 3, 2, groups=8), 8),
    ("a global response normalisation", Grn(), 8),
    ("a global context", Context(), 8),
    ("a normalisation with its activation", NormAct(8), 8),
    ("a layer normalisation of channels", ChannelsLast(8), 8),
    ("a weight that is standardised", Standardising(), 6),
    ("a layer called twice", ShareLayer(), 8),
    ("a subclass that inherits", Inherits(8, 7, 3), 7),
    ("SyncBatchNorm", nn.SyncBatchNorm(8), 8),
    ("FrozenBatchNorm2d", FrozenBatchNorm2d(8), 8),
    ("batch statistics alone", nn.BatchNorm2d(8, track_running_stats=False), 8),
    (
        "a convolution with reflected borders",
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        8,
    ),
    ("a circular one", nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), 8),
    ("same padding", nn.Conv2d(8, 8, 3, padding="same"), 8),
]


@pytest.mark.parametrize(
    ("operation", "channels"), [x[1:] for x in FOLLOWED], ids=[x[0] for x in FOLLOWED]
)
def test_what_is_followed_is_narrowed_rightly(
    operation: Callable[[Tensor], Tensor], channels: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = check(Between(deepcopy(operation), channels), SIZE)
    assert found.ours == "exact", found.reason


FREE = (
    *("zeros as new channels", "splits of unequal sizes"),
    *("a half in the middle", "a half from a quarter on"),
)


@pytest.mark.parametrize(
    ("operation", "channels"),
    [x[1:] for x in FOLLOWED if x[0] not in FREE],
    ids=[x[0] for x in FOLLOWED if x[0] not in FREE],
)
def test_what_is_followed_leaves_something_to_prune(
    operation: Callable[[Tensor], Tensor], channels: int
) -> None:
    """A graph in which every channel is fixed would pass any comparison."""
    assert "first.0" in trace(Between(operation, channels), SIZE).prunable


def test_layers_written_as_functions_have_the_names_of_their_modules() -> None:
    graph = trace(Between(SamePadding(8, 5, 3, 2), 5), SIZE)
    assert [layer.name for layer in graph.layers] == ["first.0", "operation", "last", "fc"]
    assert list(trace(Between(NormAct(8)), SIZE).norms) == ["first.1", "operation"]


def test_zeros_for_missing_channels_stay_and_the_others_go() -> None:
    graph = trace(Between(option_a, 16), SIZE)
    reads = graph.layer("last").inputs.tolist()
    assert reads[:4] == reads[12:] == [-1] * 4 and reads[4:12] == list(range(8))


class Positions(nn.Module):
    """Attention by the channels' mean: products in which no side has channels, and one has."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1)
        near = torch.bmm(mean, mean.transpose(1, 2)).softmax(-1)
        return near.unsqueeze(1) @ x


def test_products_without_channels_cost_what_pytorch_counts() -> None:
    """`check` compares MACs at full and at random widths."""
    found = check(Between(Positions()), SIZE)
    assert found.ours == "exact", found.reason


class ManyFilters(nn.Module):
    """Two filters of its own for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.ones(16, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filters, padding=1, groups=8)


def test_several_filters_of_no_layer_for_each_channel_are_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="conv2d of several tensors"):
        trace(Between(ManyFilters(), 16), SIZE)


@pytest.mark.parametrize("operation", [ECA(), Blur(), Context()])
def test_what_filters_channels_without_being_a_layer_costs_too(
    operation: Callable[[Tensor], Tensor],
) -> None:
    graph = trace(Between(operation), SIZE)
    assert graph.macs == macs(graph, graph.full_widths) == graph.describe()["macs"]
    assert graph.macs > sum(layer.macs for layer in graph.layers)


def test_positions_of_a_layer_that_is_called_twice_are_those_of_both_calls() -> None:
    layer = trace(Between(ShareLayer()), SIZE).layer("operation.conv")
    assert layer.output_size == (8 * 8 + 4 * 4, 1)


class CutAsOther(nn.Module):
    """Takes as many channels of one layer as another one has."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(x)
        return self.wide(x)[:, : y.size(1)] * y.mean(1, keepdim=True)


class OwnPadding(nn.Conv2d):
    """Pads by itself, and leaves the module's own padding out of the call."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, [self.padding[0]] * 4, mode="reflect")
        return F.conv2d(x, self.weight, self.bias, self.stride)


class WithoutBias(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=self.padding)


@pytest.mark.parametrize(
    ("layer", "key"),
    [(OwnPadding(8, 6, 3, padding=1), "padding"), (WithoutBias(8, 6, 3, padding=1), "bias")],
)
def test_what_a_call_leaves_out_is_not_taken_from_the_module(layer: nn.Module, key: str) -> None:
    with pytest.raises(UnsupportedNetwork, match=f"with another {key} than its own"):
        trace(Between(layer, 6), SIZE)


class Upwards(nn.Module):
    """A U-Net's call: as large as what the decoder's other input is."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(8, 8, 3, 2, 1), nn.ConvTranspose2d(8, 6, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x), output_size=x.shape[-2:])


def test_a_transposed_convolution_that_is_told_its_size_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="output_size, which is not followed"):
        trace(Between(Upwards(), 6), SIZE)


def test_a_width_that_follows_another_layers_is_refused() -> None:
    """At equal shares of both layers nothing would show."""
    with pytest.raises(UnsupportedNetwork, match=r"breaks when channels go|mixes channels up"):
        trace(Between(CutAsOther(), 6), SIZE)
