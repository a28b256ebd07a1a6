"""Networks that several tests prune: each kind of tie between channels, small."""

from unittest.mock import patch

import torch
from torch import nn
from torchvision import models
from torchvision.models.regnet import BlockParams
from torchvision.models.vgg import cfgs, make_layers

from graphpruning.network.zoo import build, weightless

SIZE = (3, 32, 32)
NETWORKS = ("resnet8", "resnet20", "mobilenet_v1", "resnet18", "mobilenet_v2", "vgg11_bn")
ANY_KIND = (
    "resnext50_32x4d",  # grouped convolutions
    "regnet_y_400mf",  # the same with squeeze-excite
    "mobilenet_v3_small",  # depthwise with squeeze-excite
    "densenet121",  # concatenation
    "shufflenet_v2_x0_5",  # chunk and channel shuffle
    "convnext_tiny",  # layer norm, linear over positions, layer scale
    "squeezenet1_1",  # a convolution as classifier
    "googlenet",  # four branches
)
CONVOLUTIONAL = [
    name for name in models.list_models(models) if not name.startswith(("vit", "swin", "maxvit"))
]
"""All convolutional classification models of torchvision."""


def on_meta(name: str) -> nn.Module:
    """A network of torchvision's without numbers, so that the largest costs nothing."""
    make = BlockParams.from_init_params.__func__  # type: ignore[attr-defined]

    def make_on_cpu(*args: object, **options: object) -> BlockParams:
        with torch.device("cpu"):  # RegNet computes its widths by tensors
            return make(BlockParams, *args, **options)

    with (
        patch.object(BlockParams, "from_init_params", make_on_cpu),
        patch.object(torch.Tensor, "normal_", lambda x, *_, **__: x),  # nothing there to draw
        torch.device("meta"),
    ):
        return build(name, 1000).eval()


def network(name: str, seed: int = 0) -> nn.Module:
    """A network with random weights and random batch normalisation statistics, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _vgg11_bn() if name == "vgg11_bn" else build(name, 10)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    assert tensor is not None
                    nn.init.normal_(tensor, 0.5, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):  # as made, 1e-6: the block would not count
                nn.init.normal_(parameter, 0.5, 0.2)
    return model.eval()


def _vgg11_bn() -> nn.Module:
    """With linear layers of 64 units; torchvision's have 4,096, and 120 million weights."""
    with weightless():
        model = build("vgg11_bn", 10)
    model.features = features = make_layers(cfgs["A"], batch_norm=True)
    for part in features:
        if isinstance(part, nn.Conv2d):  # as torchvision's
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    for place, sizes in {"0": (512 * 7 * 7, 64), "3": (64, 64), "6": (64, 10)}.items():
        model.get_submodule("classifier").add_module(place, nn.Linear(*sizes))
    return model


class Dense(nn.Module):
    """Concatenation, then a depthwise filter over both parts, then a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 6, 3, padding=1)
        self.both = nn.Conv2d(10, 10, 3, padding=1, groups=10)
        self.norm = nn.BatchNorm2d(10)
        self.fc = nn.Linear(10 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = torch.relu(self.one(x))
        both = torch.cat([one, self.two(one)], dim=1)
        both = nn.functional.adaptive_avg_pool2d(self.norm(self.both(both)), (4, 4))
        return self.fc(torch.flatten(both, 1))


class Random(nn.Module):
    """A small network drawn from a seed: residual, dense, depthwise and grouped parts at random."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)

        def draw(*choices: int) -> int:
            return choices[int(torch.randint(len(choices), (), generator=random))]

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            channels = draw(4, 8)
            self.stem = nn.Conv2d(3, channels, 3, padding=1)
            self.parts = nn.ModuleList()
            self.joins: list[str] = []
            for _ in range(draw(1, 2, 3)):
                join = ("add", "cat", "chain", "gate", "shuffle")[draw(0, 1, 2, 3, 4)]
                out = channels if join in ("add", "gate", "shuffle") else draw(4, 6, 8)
                groups = draw(1, 2) if out % 2 == 0 and channels % 2 == 0 else 1
                layers: list[nn.Module] = [nn.Conv2d(channels, out, 3, padding=1, groups=groups)]
                if draw(0, 1):
                    layers += [nn.BatchNorm2d(out), nn.ReLU()]
                if draw(0, 1):
                    layers.append(nn.Conv2d(out, out, 3, padding=1, groups=out))
                self.parts.append(nn.Sequential(*layers))
                self.joins.append(join)
                channels = channels + out if join == "cat" else out
            self.fc = nn.Linear(4 * channels, 5)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for part, join in zip(self.parts, self.joins, strict=True):
            y = part(x)
            if join == "add":
                x = x + y
            elif join == "cat":
                x = torch.cat([x, y], dim=1)
            elif join == "gate":
                x = x * torch.sigmoid(y.mean((2, 3), keepdim=True))
            elif join == "shuffle":
                count, channels, height, width = y.shape
                y = y.view(count, 2, channels // 2, height, width).transpose(1, 2)
                x = y.reshape(count, channels, height, width)
            else:
                x = y
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, (2, 2)), 1))
