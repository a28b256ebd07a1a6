"""Networks that several tests prune: each kind of tie between channels, small."""

import torch
from torch import nn

from graphpruning.network.zoo import build

SIZE = (3, 32, 32)
NETWORKS = ("resnet8", "resnet20", "mobilenet_v1", "resnet18", "mobilenet_v2", "vgg11_bn")


def network(name: str, seed: int = 0) -> nn.Module:
    """A network with random weights and random batch normalisation statistics, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(name, 10)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    assert tensor is not None
                    nn.init.normal_(tensor, 0.5, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


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
