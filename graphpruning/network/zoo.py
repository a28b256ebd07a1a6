"""Networks to prune: CIFAR's ResNets, MobileNetV1 and those of Channel-Bench-Macro are ours,
everything else torchvision's."""

import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from graphpruning.common.errors import UserError
from graphpruning.common.names import nearest
from graphpruning.network.timm_networks import PREFIX, constructor


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, Figure 2).

    Where the shape changes, the shortcut is a 1x1 convolution (the paper's option B): a padded
    identity would tie a stage's channels to a part of the next one's.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet for small images, 6n+2 layers (He et al. 2016, section 4.2).

    Stages of n blocks with width, 2 x width and 4 x width channels (the paper: 16, 32, 64).
    `stem_stride` 2 halves the resolution at once, which costs a quarter.
    """

    def __init__(
        self, depth: int, num_classes: int, in_channels: int, width: int = 16, stem_stride: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks = (depth - 2) // 6
        self.layer1 = self._stage(width, width, blocks, 1)
        self.layer2 = self._stage(width, 2 * width, blocks, 2)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, 2)
        self.fc = nn.Linear(4 * width, num_classes)
        initialise(self)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class DepthwiseSeparable(nn.Module):
    """A 3x3 depthwise and a 1x1 convolution, each with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False
        )
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.depthwise(x)), inplace=True)
        return F.relu(self.bn2(self.pointwise(y)), inplace=True)


class MobileNetV1(nn.Module):
    """MobileNet (Howard et al. 2017, Table 1): 568.7M MACs at 224 px, 1,000 classes.

    `width` multiplies every channel count; `strides` are those of the stem and the 13 blocks.
    """

    CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        width: float = 1.0,
        strides: tuple[int, ...] = STRIDES,
    ) -> None:
        super().__init__()
        channels = [int(width * full) for full in self.CHANNELS]
        self.conv1 = nn.Conv2d(in_channels, channels[0], 3, strides[0], 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        pairs = zip(channels[:-1], channels[1:], strides[1:], strict=True)
        self.blocks = nn.Sequential(*(DepthwiseSeparable(*pair) for pair in pairs))
        self.fc = nn.Linear(channels[-1], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class InvertedResidual(nn.Module):
    """A 1x1, a 3x3 depthwise and a 1x1 convolution, and a shortcut where the shape stays
    (Sandler et al. 2018), with ReLU as in Channel-Bench-Macro or with another activation.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        channels: int,
        stride: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.expand(x)))
        z: Tensor = self.bn3(self.project(self.activation(self.bn2(self.depthwise(y)))))
        return z + x if self.has_shortcut else z


class ChannelBenchMobileNet(nn.Module):
    """The MobileNet of Channel-Bench-Macro (Su et al. 2021, arXiv 2105.10533; `model.py`).

    At 32 px and full width 211.3M MACs. Its seven groups, in forward order the digits of a key of
    the tables, have 128, 768, 768, 768, 256, 1536 and 1024 channels.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 128, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(128)
        shapes = ((128, 768, 128, 1), (128, 768, 128, 1), (128, 768, 256, 2), (256, 1536, 256, 1))
        self.blocks = nn.Sequential(*(InvertedResidual(*shape) for shape in shapes))
        self.conv2 = nn.Conv2d(256, 1024, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1024)
        self.fc = nn.Linear(1024, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        x = F.relu(self.bn2(self.conv2(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class MetaPruningMobileNetV2(nn.Module):
    """The full MobileNetV2 of MetaPruning's lists (Liu et al. 2019; its `mobilenet_v2.py`).

    Wider than the usual one, with a 1x1 convolution in front of the first block too: 569.5M MACs
    at 224 px, 1,000 classes.
    """

    CHANNELS = (44, 22, *(33,) * 2, *(44,) * 3, *(88,) * 4, *(132,) * 3, *(224,) * 3, 448)
    """Of the stem and the 17 blocks, which expand what they read sixfold, the first not at all."""
    HALVING = (2, 4, 7, 14)
    """Blocks that halve the resolution."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels = self.CHANNELS
        self.conv1 = nn.Conv2d(in_channels, channels[0], 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        blocks = []
        for number in range(1, len(channels)):
            read = channels[number - 1]
            hidden = read if number == 1 else 6 * read
            stride = 2 if number in self.HALVING else 1
            blocks.append(InvertedResidual(read, hidden, channels[number], stride, F.relu6))
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(channels[-1], 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.fc = nn.Linear(1280, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu6(self.bn1(self.conv1(x))))
        x = F.relu6(self.bn2(self.conv2(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class ChannelBenchBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut is the identity, and absent where the shape changes."""

    def __init__(self, in_channels: int, hidden: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + x if self.has_shortcut else y)


class ChannelBenchResNet(nn.Module):
    """The ResNet of Channel-Bench-Macro (Su et al. 2021, arXiv 2105.10533; `model.py`).

    At 32 px and full width 1,436.2M MACs. Its seven groups, in forward order the digits of a key of
    the tables, have 256, 256, 256, 512, 512, 512 and 512 channels.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 256, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(256)
        shapes = ((256, 256, 256, 1),) * 2 + ((256, 512, 512, 2),) + ((512, 512, 512, 1),) * 2
        self.blocks = nn.Sequential(*(ChannelBenchBlock(*shape) for shape in shapes))
        self.fc = nn.Linear(512, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def initialise(model: nn.Module) -> None:
    """Draw fresh weights for every layer from PyTorch's global generator (He et al. 2015).

    Used for the zoo's networks, and for a narrowed network that is trained from scratch: what it
    was cut from had other fan-outs.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif reset := _reset(module):
            reset()


def _reset(module: nn.Module) -> Callable[[], None] | None:
    """How a module draws its weights: as PyTorch's class does, or by a method of its own.

    None where its own method asks for arguments, which nobody here knows.
    """
    for base in type(module).__mro__:
        if base.__module__.startswith("torch.") and hasattr(base, "reset_parameters"):
            return partial(base.reset_parameters, module)
    own = getattr(module, "reset_parameters", None)
    if own is None:
        return None
    try:
        inspect.signature(own).bind()
    except (TypeError, ValueError):
        return None
    found: Callable[[], None] = own
    return found


LARGEST_SEED = 2**63 - 1
"""Of PyTorch's generators, which count with a sign."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights come from PyTorch's global generator: seed it here, and only here."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _resnet(depth: int) -> Callable[..., nn.Module]:
    def build_resnet(num_classes: int, in_channels: int, **options: Any) -> nn.Module:
        return CifarResNet(depth, num_classes, in_channels, **options)

    build_resnet.__signature__ = inspect.signature(CifarResNet)  # type: ignore[attr-defined]
    return build_resnet


ZOO: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": _resnet(depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "mobilenet_v1": MobileNetV1,
    "metapruning_mobilenet_v2": MetaPruningMobileNetV2,
    "channel_bench_mobilenet": ChannelBenchMobileNet,
    "channel_bench_resnet": ChannelBenchResNet,
}


AUXILIARY = ("googlenet", "inception_v3")
MOST_WEIGHTS, MOST_TENSORS, MOST_CHANNELS = 2 * 10**9, 4000, 2**17
"""Of a network without memory, and of each of its tensors: three times what torchvision's have."""
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What PyTorch raises for numbers that a constructor or a layer does not check."""


def build(name: str, num_classes: int = 10, in_channels: int = 3, **options: Any) -> nn.Module:
    """Build a network by name, with fresh weights: ours (`ZOO`), torchvision's, or `timm.NAME`.

    Initial weights are drawn from PyTorch's global generator. Raises `UserError` for a name or
    an option that does not exist, naming the nearest, and for values that give no network.
    """
    if name in ZOO:
        known = list(inspect.signature(ZOO[name]).parameters)
        for option, value in options.items():
            if option not in known:
                near = nearest(option, known)
                raise UserError(f"{name} has no option {option!r}; did you mean {near!r}?")
            if isinstance(value, str):
                raise UserError(f"{name}: {option} is the text {value!r}, not a number")
        arguments = {"num_classes": num_classes, "in_channels": in_channels, **options}
        return _constructed(name, ZOO[name], arguments)
    if name.startswith(PREFIX):
        if options:
            raise UserError(
                f"{name}: {next(iter(options))} is no option; timm's networks have none"
            )
        arguments = {"num_classes": num_classes, "in_channels": in_channels}
        return _constructed(name, constructor(name.removeprefix(PREFIX)), arguments)
    from torchvision import models  # half a second that our own networks need not pay

    if name not in models.list_models(models):
        near = nearest(name, [*ZOO, *models.list_models(models)])
        raise UserError(f"there is no network {name!r}; did you mean {near!r}?")
    if in_channels != 3:
        raise UserError(f"{name} is torchvision's and reads 3 channels, not {in_channels}")
    if name in AUXILIARY:  # heads for training alone: they are no part of what is pruned
        options = {"aux_logits": False, "init_weights": False, **options}
    if "weights" in options:  # they would be downloaded
        raise UserError(f"{name}: weights is no option; a network is built with fresh ones")
    arguments = {"weights": None, "num_classes": num_classes, **options}
    return _constructed(name, models.get_model_builder(name), arguments)


def _constructed(name: str, make: Callable[..., nn.Module], arguments: dict[str, Any]) -> nn.Module:
    """Call a constructor; whatever it raises for its arguments is a `UserError`, and so is a layer
    without channels.
    """
    given = {option: value for option, value in arguments.items() if value is not None}
    what = textwrap.shorten(f"{name} cannot be built with {given}", 300)
    try:
        with warnings.catch_warnings():
            # PyTorch says of a layer without channels what is said below.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            model = make(**arguments)
    except FAULTS as error:
        reason = textwrap.shorten(str(error), 200) or type(error).__name__
        raise UserError(f"{what}: {reason}") from error
    for parameter, value in model.named_parameters():
        if not value.numel():
            raise UserError(f"{what}: {parameter} would be empty, {list(value.shape)}")
    return model


@contextmanager
def weightless() -> Iterator[None]:
    """Inside the block a network's weights have shapes and no memory (they are on the meta device).

    Raises `UserError` as soon as they are more than `MOST_WEIGHTS` or in more than `MOST_TENSORS`
    tensors, so that a loop that never ends does; and for more than `MOST_CHANNELS` channels.
    """
    with _Weightless():
        yield


class _Weightless(TorchFunctionMode):
    """Not `torch.device("meta")`: RegNet computes its widths by tensors, which need their values.

    Of what constructors call, these functions make weights, and no other does.
    """

    MAKES = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn))

    def __init__(self) -> None:
        super().__init__()
        self.numbers = self.tensors = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func not in self.MAKES:
            return func(*args, **(kwargs or {}))
        made = func(*args, **{**(kwargs or {}), "device": "meta"})
        self.numbers += made.numel()
        self.tensors += 1
        limits = (
            ("weights", self.numbers, MOST_WEIGHTS),
            ("tensors of weights", self.tensors, MOST_TENSORS),
            ("channels in a layer", max(made.shape, default=0), MOST_CHANNELS),
        )
        for what, found, most in limits:
            if found > most:
                raise UserError(f"the network has more than {most:,} {what}: choose a smaller one")
        return made
