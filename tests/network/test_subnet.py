"""Where `Subnet` computes a layer in another way than its module, the result is the same."""

import pytest
import torch
from torch import Tensor, nn

from graphpruning import trace
from graphpruning.network import subnet
from graphpruning.network.subnet import Subnet


class Strided(nn.Module):
    """A strided depthwise convolution between two others."""

    def __init__(self, stride: tuple[int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=stride, padding=1, groups=8)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.depthwise(self.first(x))).mean(dim=(2, 3))


@pytest.mark.parametrize("stride", [(2, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("size", [(9, 9), (8, 11)])
def test_a_strided_depthwise_convolution_is_the_same_at_stride_1(
    stride: tuple[int, int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Strided(stride)
    graph = trace(model, (3, *size))
    images = torch.randn(4, 3, *size)
    found = []
    for detour in (False, True):
        asked: list[bool] = []
        monkeypatch.setattr(
            subnet,
            "_is_slow_backward",
            lambda x, module, groups, d=detour, a=asked: (a.append(groups > 1), d and groups > 1)[
                1
            ],
        )
        weights = {
            layer.name: tuple(
                value.detach().clone().requires_grad_()
                for value in model.get_submodule(layer.name).parameters()
            )
            for layer in graph.layers
        }
        logits = Subnet(graph).logits(images, weights)  # type: ignore[arg-type]
        leaves = [value for pair in weights.values() for value in pair]
        found.append([logits, *torch.autograd.grad(logits.square().sum(), leaves)])
        assert any(asked)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_detour_is_for_bf16_training_on_cpus_alone() -> None:
    module = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
    x = torch.zeros(1, 8, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert subnet._is_slow_backward(x, module, 8)
        assert not subnet._is_slow_backward(x, module, 1)
        assert not subnet._is_slow_backward(x, nn.Conv2d(8, 8, 3, groups=8), 8)
        with torch.no_grad():
            assert not subnet._is_slow_backward(x, module, 8)
    assert not subnet._is_slow_backward(x, module, 8)
