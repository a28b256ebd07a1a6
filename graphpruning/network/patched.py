"""A `forward` that was set on a module itself instead of being written in its class."""

from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn


def has_own_forward(module: nn.Module) -> bool:
    """Whether calling the module does something else than its class says."""
    own = vars(module).get("forward")
    if isinstance(own, MethodType) and own.__self__ is module:
        return own.__func__ is not type(module).forward
    return own is not None


def holds_on(module: nn.Module, model: nn.Module) -> bool:
    """Whether the module's own `forward` is a function around parts of `model`.

    Such a function is the same one in every copy of the network, and runs the original's layers
    there. Bound methods and partials are made anew, for the copy's.
    """
    if "forward" not in vars(module):
        return False
    parts = {id(part) for part in model.modules()} | {id(tensor) for tensor in model.parameters()}
    return any(id(held) in parts for held in _enclosed(vars(module)["forward"], set()))


def _enclosed(value: Any, seen: set[int]) -> Iterator[Any]:
    """The modules and tensors that stay what they are when `value` is copied."""
    if isinstance(value, partial):
        for each in (value.func, *value.args, *value.keywords.values()):
            yield from _enclosed(each, seen)
    elif isinstance(value, MethodType):
        yield from _enclosed(value.__func__, seen)
    elif isinstance(value, FunctionType):
        for held in _of_function(value):
            yield from _reached(held, seen)


def _of_function(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


def _reached(value: Any, seen: set[int]) -> Iterator[Any]:
    """All modules and tensors that lie in what a function holds."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module | Tensor):
        yield value
    elif isinstance(value, MethodType):
        yield from _reached(value.__self__, seen)
        yield from _reached(value.__func__, seen)
    elif isinstance(value, partial):
        for each in (value.func, *value.args, *value.keywords.values()):
            yield from _reached(each, seen)
    elif isinstance(value, FunctionType):
        for each in _of_function(value):
            yield from _reached(each, seen)
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _reached(each, seen)
