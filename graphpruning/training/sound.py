"""Tensors that are useless in any network, by name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphpruning.common.errors import one_line


def first_fault(tensors: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """Name the first tensor that no network can use, and say why; None if all are sound.

    `own` is the state dict of the network that they are for. What has another name or shape there
    is not looked at: a file can make it as large as it likes.
    """
    for name, tensor in tensors.items():
        wanted = own.get(name)
        if not (torch.is_tensor(tensor) and torch.is_tensor(wanted)):
            continue
        if tensor.shape == wanted.shape and (fault := _fault(name, tensor, wanted)):
            return f"{one_line(name)} {fault}"
    return None


def _fault(name: str, tensor: Tensor, wanted: Tensor) -> str | None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return "is no plain tensor (but sparse, quantised or without values)"
    # Whole numbers would be copied as they are, but are scaled ones of a quantised network.
    if wanted.is_floating_point() and not tensor.is_floating_point():
        return f"has the type {str(tensor.dtype).removeprefix('torch.')}, not floating point"
    # As 32 bits, which is what networks compute in: larger values become infinite there.
    values = tensor.float() if tensor.is_floating_point() else tensor
    if not values.isfinite().all():
        return "holds NaN" if values.isnan().any() else "holds infinite values"
    if name.endswith("running_var") and (values < 0).any():
        return "holds negative variances"
    return None
