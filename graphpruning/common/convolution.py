"""Convolutions that PyTorch runs badly on a CPU, computed another way with the same result.

Both faults are oneDNN's, and both are in the backward pass alone (seen with torch 2.14.1):

- The weight gradient of a strided 1x1 convolution over few channels (fewer than 8 with AVX2, 16
  with AVX-512) writes beyond its memory in fp32: the process dies, or worse, goes on
  (https://github.com/uxlfoundation/oneDNN/issues/6035). A 1x1 kernel reads the positions that its
  stride meets and no other, so picking these first and convolving densely is the same sum.
- The gradient of a strided depthwise convolution in bf16 takes many times as long as at stride 1
  (`python -m benchmarks pruningnet_step`). So it is run at stride 1, and some positions are kept.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Pair = int | tuple[int, ...]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """As `F.conv2d`, argument for argument; where that would fail or dawdle, by a detour."""
    down, across = _pair(stride)
    if (down, across) == (1, 1) or not _learns_on_a_cpu(input, weight):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if tuple(weight.shape[2:]) == (1, 1):
        some = _padded(input, padding)[:, :, ::down, ::across]
        return F.conv2d(some, weight, bias, 1, 0, 1, groups)
    if groups == input.shape[1] > 1 and torch.is_autocast_enabled("cpu"):
        every = F.conv2d(input, weight, bias, 1, padding, dilation, groups)
        return every[:, :, ::down, ::across].contiguous(memory_format=torch.channels_last)
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


class SoundConvolutions(TorchFunctionMode):
    """Inside the block every 2D convolution, of whatever module, goes through `conv2d`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (conv2d if func is F.conv2d else func)(*args, **(kwargs or {}))


def _learns_on_a_cpu(x: Tensor, weight: Tensor) -> bool:
    """A forward pass by itself has neither fault, nor has another device."""
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return learns and x.device.type == "cpu"


def _pair(value: Pair) -> tuple[int, int]:
    pair = (value,) * 2 if isinstance(value, int) else tuple(value)
    return pair[0], pair[-1]


def _padded(x: Tensor, padding: Pair | str) -> Tensor:
    """A 1x1 kernel needs no padding of its own for "same", which goes with stride 1 alone."""
    if isinstance(padding, str):
        return x
    high, wide = _pair(padding)
    return F.pad(x, (wide, wide, high, high)) if high or wide else x
