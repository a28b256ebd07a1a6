"""Copies of networks as `copy.deepcopy` makes them, but faster."""

import copy
from typing import Any

from torch import Tensor, nn

_SHARED = (bool, int, float, str, type(None))


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Return what `copy.deepcopy(model, memo)` returns.

    Most of a network are PyTorch's own layers, and most of such a layer are a dozen empty
    dictionaries for hooks, on each of which `deepcopy` spends microseconds. They are copied here
    by hand, everything else by `deepcopy`, which finds them in its memo. It refuses a result that a
    network keeps of its last run (`self.features = x`); such a tensor is copied as numbers alone.
    """
    memo = {} if memo is None else memo
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    for module in model.modules():
        if id(module) in memo:  # something of a layer before leads to it
            continue
        if type(module).__module__.startswith("torch.nn.modules.") and not module._modules:
            _copy_layer(module, memo)
    result: nn.Module = copy.deepcopy(model, memo)
    return result


def _copy_layer(layer: nn.Module, memo: dict[int, Any]) -> None:
    """Put a copy into the memo, before its own values: a method set on a layer is bound to it."""
    result = memo[id(layer)] = type(layer).__new__(type(layer))
    result.__dict__.update({name: _value(value, memo) for name, value in vars(layer).items()})


def _value(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _SHARED or (kind is tuple and all(type(each) in _SHARED for each in value)):
        return value
    if isinstance(value, dict | set) and not value:
        return kind()
    if kind is dict:  # parameters and buffers, mostly
        return {key: _value(each, memo) for key, each in value.items()}
    return copy.deepcopy(value, memo)
