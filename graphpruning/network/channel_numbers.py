"""Tensors of channel numbers: where they differ, and how they are kept small.

Such a tensor (int64) has the shape of an activation. The numbers differ along one axis as a rule,
the channels', and are repeated with stride 0 along all others.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def varies(x: Tensor, axis: int) -> bool:
    """Whether the numbers differ along `axis`."""
    if x.shape[axis] == 1 or x.stride(axis) == 0:
        return False
    for other in range(x.ndim):  # repeated numbers need no second look
        if other != axis and x.stride(other) == 0:
            x = x.narrow(other, 0, 1)
    return not torch.equal(x, x.narrow(axis, 0, 1).expand_as(x))


def varying(x: Tensor) -> list[int]:
    """All axes along which the numbers differ."""
    return [axis for axis in range(x.ndim) if varies(x, axis)]


def compact(x: Tensor) -> Tensor:
    """`x` with size 1 along every axis on which the numbers do not differ."""
    for axis in range(x.ndim):
        if not varies(x, axis):
            x = x.narrow(axis, 0, 1)
    return x


def lean(x: Tensor) -> Tensor:
    """The same tensor, with stride 0 along every axis on which the numbers do not differ."""
    return compact(x).expand(x.shape)


def tensors(values: Any) -> list[Tensor]:
    """The tensors among (nested) arguments."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    if isinstance(values, Iterable) and not isinstance(values, str):
        return [x for value in values for x in tensors(value)]
    return []
