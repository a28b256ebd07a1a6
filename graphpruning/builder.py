"""A network by name, or by a function of the user's: `package.module:function`."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from graphpruning.common.errors import UserError, reason
from graphpruning.network import zoo
from graphpruning.network.copies import copied
from graphpruning.network.refusals import unwrapped
from graphpruning.network.trainable import trainable

Build = Callable[..., nn.Module]
"""A function without arguments, or taking `num_classes`, that returns a network."""


@dataclass(frozen=True)
class Builder:
    """Makes a network as often as it is asked to; `description` is what a file keeps of it.

    A description has `name` and the options of `zoo.build`, or `function` (the function's
    `package.module:function`) and the arguments that it is called with.
    """

    build: Build
    description: dict[str, Any]

    @property
    def name(self) -> str:
        """The network's name, or its function's."""
        return str(self.description.get("name") or self.description["function"])

    def __call__(self) -> nn.Module:
        """Return the network as training needs it: in 32 bits, and no part of it frozen.

        Its weights are drawn from PyTorch's global generator. Raises `UserError` as `as_given`.
        """
        return trainable(self.as_given())

    def as_given(self) -> nn.Module:
        """Return the network as it is built, in the CPU's memory: of what a user's function returns
        a copy. `UserError` when that is no network.
        """
        key = "name" if "name" in self.description else "function"
        arguments = {name: value for name, value in self.description.items() if name != key}
        if key == "name":
            return self.build(self.description["name"], **arguments)
        model = self._built(arguments)
        if not isinstance(model, nn.Module):
            raise UserError(
                f"{self.description['function']} returned a {type(model).__name__}, "
                "not a torch.nn.Module"
            )
        return _own_copy(unwrapped(model))

    def _built(self, arguments: dict[str, Any]) -> Any:
        """What the user's function returns; whatever it raises is said in a line."""
        name = self.description["function"]
        needed = [
            parameter.name
            for parameter in _parameters(self.build).values()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            and parameter.name not in arguments
        ]
        if needed:
            raise UserError(
                f"{name} needs {', '.join(needed)}: give a function without arguments, or with "
                "num_classes alone"
            )
        try:
            return self.build(**arguments)
        except UserError:
            raise
        except Exception as error:  # its own code raises whatever it likes
            raise UserError(f"{name} raised {type(error).__name__}: {reason(error)}") from error


def builder(
    model: str | Build | nn.Module, num_classes: int = 1000, in_channels: int = 3
) -> Builder:
    """Return what builds `model`: a name that `zoo.build` knows, a user's function or its name.

    A function that takes `num_classes` gets it; a network is copied as it is. The name
    `package.module:function` is imported, which runs the user's code. Raises `UserError` for a
    module or function that is not there.
    """
    if isinstance(model, nn.Module):
        return Builder(lambda: model, {"function": _named(type(model))})
    if isinstance(model, str) and ":" not in model:
        named = {"name": model, "num_classes": num_classes, "in_channels": in_channels}
        return Builder(zoo.build, named)
    function = imported(model) if isinstance(model, str) else model
    description: dict[str, Any] = {
        "function": model if isinstance(model, str) else _named(function)
    }
    if "num_classes" in _parameters(function):
        return Builder(function, {**description, "num_classes": num_classes})
    return Builder(function, description)


def imported(place: str) -> Build:
    """Import `package.module:function`."""
    module_name, _, function_name = place.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(
            f"{place}: {module_name!r} is no module of Python: `folder.model:build` is the "
            "function build in folder/model.py"
        )
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{place}: there is no module {error.name!r}; run from the folder that holds it, "
            "or put that folder on PYTHONPATH"
        ) from None
    except Exception as error:  # its own code raises whatever it likes
        raise UserError(f"{place}: {type(error).__name__}: {reason(error)}") from error
    function = getattr(found, function_name, None)
    if not callable(function):
        raise UserError(f"{place}: {module_name} has no function {function_name!r}")
    result: Build = function
    return result


def _own_copy(model: nn.Module) -> nn.Module:
    """A user's function may return a network that it keeps, and that lies on a GPU."""
    own = copied(model)
    on_meta = any(tensor.is_meta for tensor in (*own.parameters(), *own.buffers()))
    return own if on_meta else own.cpu()


def _named(function: Build) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _parameters(function: Build) -> Any:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some callables written in C do not tell
        return {}
