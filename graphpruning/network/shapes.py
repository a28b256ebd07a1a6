"""The shape of what an operation makes: of layers and elementwise ones without doing them.

Every other operation is done on zeros, which is quick. (PyTorch's meta device would tell all
shapes, but loading what that stands on takes longer than tracing a ResNet-50.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphpruning.common.errors import UnsupportedNetwork
from graphpruning.network.leaves import ARGUMENTS, Convolution, base_of
from graphpruning.network.operations import (
    ADDED,
    ELEMENTWISE,
    ELEMENTWISE_MODULES,
    MULTIPLIED,
    TYPES,
)

Size = tuple[int, ...]

_SAME = (ELEMENTWISE - TYPES) | ADDED | MULTIPLIED


def known_shape(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Size | None:
    """The shape of what a module, function or method makes, where it follows from its tensors'.

    So the largest image costs as little as a small one. None where the operation has to be done.
    """
    if target in (torch.cat, torch.concat):
        return _joined(args, kwargs)
    given = [each for each in args if isinstance(each, Tensor)]
    if kwargs or not given or not all(each.is_floating_point() for each in given):
        return None
    if isinstance(target, nn.Module):
        same = isinstance(target, (*ELEMENTWISE_MODULES, nn.BatchNorm2d))
        if isinstance(target, nn.BatchNorm2d) and target.num_features != given[0].shape[1]:
            return None  # PyTorch says what is wrong
        return tuple(given[0].shape) if same and len(args) == 1 else None
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if name not in _SAME or not all(isinstance(each, Tensor | int | float) for each in args):
        return None
    return np.broadcast_shapes(*(each.shape for each in given))


def _joined(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Size | None:
    """The shape of tensors side by side; None where PyTorch has something to say."""
    dim = next(iter(kwargs.values()), args[1] if len(args) > 1 else 0)
    if not args or kwargs.keys() - {"dim", "axis"} or len(args) + len(kwargs) > 2:
        return None
    parts = args[0]
    if not isinstance(parts, list | tuple) or not isinstance(dim, int):
        return None
    if not all(isinstance(x, Tensor) and x.is_floating_point() for x in parts):
        return None
    shapes = [list(x.shape) for x in parts]
    ranks = {len(shape) for shape in shapes}
    if len(ranks) != 1 or not -min(ranks) <= dim < min(ranks):
        return None
    whole = sum(shape[dim] for shape in shapes)
    for shape in shapes:
        shape[dim] = whole
    return tuple(shapes[0]) if all(shape == shapes[0] for shape in shapes) else None


def shape_of_module(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Zeros of the shape of `module(*args, **kwargs)`, a module that is one operation."""
    if base_of(module) is None or not isinstance(module, Convolution | nn.Linear):
        return module(*args, **kwargs)
    x = args[0] if args else next(iter(kwargs.values()))
    weight = module.weight
    if isinstance(module, nn.Linear):
        return _linear(x, weight)
    if module.padding_mode != "zeros":
        x = F.pad(x[:, :1], module._reversed_padding_repeated_twice, module.padding_mode).expand(
            -1, x.shape[1], -1, -1
        )
        padding: Any = 0
    else:
        padding = module.padding
    named = {"stride": module.stride, "padding": padding, "dilation": module.dilation}
    if isinstance(module, nn.ConvTranspose2d):
        if len(args) > 1 or kwargs.get("output_size") is not None:
            raise UnsupportedNetwork(
                "a transposed convolution is called with an output_size, which is not followed: "
                "build it with the output_padding that gives this size"
            )
        named["output_padding"] = module.output_padding
        return _convolution(F.conv_transpose2d, x, weight, module.groups, named)
    return _convolution(F.conv2d, x, weight, module.groups, named)


def shape_of_function(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Zeros of the shape of `function(*args, **kwargs)`."""
    if function not in (F.linear, F.conv2d, F.conv_transpose2d):
        return function(*args, **kwargs)
    given = {**dict(zip(ARGUMENTS[function], args, strict=False)), **kwargs}
    x, weight = given.pop("input"), given.pop("weight")
    given.pop("bias", None)
    if function is F.linear:
        return _linear(x, weight)
    return _convolution(function, x, weight, given.pop("groups", 1), given)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"a linear layer of {weight.shape[1]} inputs is given {x.shape[-1]}")
    return x[..., :1].expand(*x.shape[:-1], len(weight))


def _convolution(
    function: Any, x: Tensor, weight: Tensor, groups: int, named: Mapping[str, Any]
) -> Tensor:
    """One channel, convolved, has the positions of all."""
    transposed = function is F.conv_transpose2d
    reads = weight.shape[0] if transposed else weight.shape[1] * groups
    writes = weight.shape[1] * groups if transposed else weight.shape[0]
    if x.ndim != 4 or x.shape[1] != reads:
        raise ValueError(f"a convolution of {reads} channels is given {list(x.shape)}")
    one = function(x[:, :1], torch.zeros(1, 1, *weight.shape[2:]), **named)
    result: Tensor = one.expand(-1, writes, -1, -1)
    return result
