"""Run a network on channel numbers instead of activations: what each operation does to them.

`Flow` says what is known of operations (which keep channels apart, which move them, which tie
them). What the numbers mean, and what happens at a layer, is up to its subclasses in `runs.py`.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import Target

from graphpruning.common.errors import UnsupportedNetwork, UserError

ELEMENTWISE_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Tanh,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)
ELEMENTWISE = {
    "relu",
    "relu_",
    "relu6",
    "leaky_relu",
    "elu",
    "silu",
    "gelu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "sigmoid",
    "sigmoid_",
    "tanh",
    "dropout",
    "dropout2d",
    "stochastic_depth",
    "contiguous",
    "clone",
    "float",
}
_POOLING_MODULES = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Upsample,
    nn.ZeroPad2d,
)
_POOLING = {
    "max_pool2d",
    "boolean_dispatch",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "interpolate",
}
_ADDED = {"add", "iadd", "add_", "sub", "isub", "sub_"}
_MULTIPLIED = {"mul", "imul", "mul_", "truediv", "itruediv", "div", "div_"}
_MOVES = {"transpose", "permute", "flatten", "unsqueeze", "squeeze"}
_SIZES = {"size", "dim", "getattr", "numel"}
_SUPPORTED = (
    "convolution (grouped, depthwise), linear, batch and layer normalisation, per-channel scale, "
    "activations, pooling, addition, product, concatenation, chunk, split, reshape, transpose, "
    "flatten and mean over positions"
)


Args = tuple[Any, ...]
Kwargs = dict[str, Any]
"""What an operation is given: tensors of numbers, sizes, axes and the like."""

Axes = int | Sequence[int] | None


class Flow(fx.Interpreter):
    """Runs a traced network on channel numbers; what they mean is up to the subclass.

    Every tensor is an int64 tensor of the shape that the activation has. Numbers may differ along
    one axis, the channels', and are views with stride 0 along the others where possible.
    `unexpected` is what an operation is called that fails. Needs the shape of every activation in
    `node.meta["shape"]`. Raises `UnsupportedNetwork` for an operation that is not known.

    Args:
        model: the network itself, for the names of its parameters and buffers.
        module: what torch.fx made of it.
    """

    unexpected = "an operation in a form that is not known"

    def __init__(self, model: nn.Module, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False  # a refusal is one line
        self.model = model
        self.node: fx.Node

    # What the subclass decides.

    def layer(self, name: str, module: nn.Module, numbers: Tensor) -> Tensor:
        """Numbers that the layer `name` writes when it reads `numbers`."""
        raise NotImplementedError

    def norm(self, name: str, numbers: Tensor) -> None:
        """The normalisation `name` works on `numbers`."""
        raise NotImplementedError

    def direct(self, name: str, value: Tensor) -> Tensor:
        """Numbers of a parameter or buffer that is used directly, in its own shape."""
        raise NotImplementedError

    def tie(self, one: Tensor, other: Tensor, how: str) -> None:
        """These numbers [n], [n] stay or go together."""
        raise NotImplementedError

    def fix(self, numbers: Tensor, reason: str) -> None:
        """These numbers all stay."""
        raise NotImplementedError

    # One method a kind of node.

    def run_node(self, n: fx.Node) -> Any:
        self.node = n
        try:
            return super().run_node(n)
        except UserError:
            raise
        except Exception:  # arguments in a form, or sizes, that nothing here expects
            self.refuse(self.unexpected)

    def get_attr(self, target: Target, args: Args, kwargs: Kwargs) -> Tensor | int:
        value = super().get_attr(target, args, kwargs)
        known = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        if target not in known:
            self.refuse("a constant made while the network runs (register it as a buffer)")
        numbers = self.direct(str(target), value)
        return numbers if value.numel() > 1 else 1

    def call_module(self, target: Target, args: Args, kwargs: Kwargs) -> Tensor:
        name = str(target)
        module = self.submodules[name]
        if len(_tensors((args, kwargs))) != 1 or not isinstance(args[0], Tensor):
            self.refuse(f"{type(module).__name__} with other than one tensor")
        x: Tensor = args[0]
        if isinstance(module, nn.Conv2d):
            return self._convolution(name, module, x)
        if isinstance(module, nn.Linear):
            written = self.layer(name, module, self._along(x, -1))
            return written.expand(*x.shape[:-1], len(written))
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            self.norm(name, self._along(x, 1))
            return x
        if isinstance(module, nn.LayerNorm):
            return self._layer_norm(name, module, x)
        if isinstance(module, ELEMENTWISE_MODULES):
            return x
        if isinstance(module, _POOLING_MODULES):
            return self._pooled(x)
        if isinstance(module, nn.Flatten):
            return _lean(module(x))
        if isinstance(module, nn.ChannelShuffle):
            parts = x.unflatten(1, (module.groups, -1))
            self._tie_parts(list(parts.unbind(1)), "shuffled")
            return _lean(parts.transpose(1, 2).flatten(1, 2))
        self.refuse(type(module).__name__)

    def call_function(self, target: Target, args: Args, kwargs: Kwargs) -> Any:
        if not _tensors((args, kwargs)):
            return super().call_function(target, args, kwargs)
        name = getattr(target, "__name__", str(target))
        if target in (torch.cat, torch.concat):
            return self._concatenated(*args, **kwargs)
        if target is F.pad:
            return self._padded(*args, **kwargs)
        if target is operator.getitem:
            return self._item(*args)
        assert callable(target)
        return self._operation(name, args, kwargs, lambda: target(*args, **kwargs))

    def call_method(self, target: Target, args: Args, kwargs: Kwargs) -> Any:
        name = str(target)
        return self._operation(
            name, args, kwargs, lambda: getattr(args[0], name)(*args[1:], **kwargs)
        )

    def output(self, target: Target, args: Args, kwargs: Kwargs) -> Any:
        for x in _tensors(args):
            self.fix(_compact(x).flatten(), "the network's output")
        return args

    def _operation(self, name: str, args: Args, kwargs: Kwargs, native: Callable[[], Any]) -> Any:
        """A function or method of tensors; `native` calls it on the numbers."""
        if name in _SIZES:
            return native()
        if name in _ADDED or name in _MULTIPLIED:
            return self._met(_tensors((args, kwargs)), "added" if name in _ADDED else "multiplied")
        if len(_tensors((args, kwargs))) > 1:
            self.refuse(f"{name} of several tensors")
        if name in ELEMENTWISE:
            return args[0]
        if name in _POOLING:
            return self._pooled(args[0])
        if name == "mean":
            return self._averaged(*args, **kwargs)
        if name == "chunk":
            return self._chunks(args[0], native(), False, _split_axis(args, kwargs))
        if name == "split":
            sizes = self.node.args[1] if len(self.node.args) > 1 else None
            constant = not isinstance(sizes, fx.Node)
            return self._chunks(args[0], native(), constant, _split_axis(args, kwargs))
        if name in ("view", "reshape"):
            sizes = self.node.args[1:]
            flat = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
            return self._reshaped(args[0], args[0].reshape(*args[1:], **kwargs), flat)
        if name in _MOVES:
            return _lean(native())
        self.refuse(name)

    def _convolution(self, name: str, module: nn.Conv2d, x: Tensor) -> Tensor:
        if module.padding_mode != "zeros":
            self.refuse(f"a convolution with {module.padding_mode} padding")
        written = self.layer(name, module, self._along(x, 1))
        return self._spread(written)

    def _layer_norm(self, name: str, module: nn.LayerNorm, x: Tensor) -> Tensor:
        if len(module.normalized_shape) != 1:
            self.refuse("a layer normalisation over positions")
        if type(module) is not nn.LayerNorm and type(module).__name__ != "LayerNorm2d":
            self.refuse(type(module).__name__)
        self.norm(name, self._along(x, -1 if type(module) is nn.LayerNorm else 1))
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            self.refuse("pooling of a tensor without height and width")
        return self._spread(self._along(x, 1))

    def _padded(self, x: Tensor, pad: Sequence[int], *rest: Any, **kwargs: Any) -> Tensor:
        if len(pad) > 4 or x.ndim != 4:
            self.refuse("padding with new channels")
        return self._spread(self._along(x, 1))

    def _spread(self, numbers: Tensor) -> Tensor:
        """`numbers` [channels] at every position that this node's output has."""
        height, width = self.node.meta["shape"][2:]
        return numbers[None, :, None, None].expand(1, len(numbers), height, width)

    def _met(self, operands: list[Tensor], how: str) -> Tensor:
        """Two tensors meet element by element; a number or a single channel meets all."""
        if len(operands) == 1:
            return operands[0]
        shape = np.broadcast_shapes(*(x.shape for x in operands))  # torch's imports SymPy
        one, other = (x.expand(shape) for x in operands)
        for its, original in ((other, operands[0]), (one, operands[1])):
            original = original.reshape((1,) * (len(shape) - original.ndim) + original.shape)
            if any(
                original.shape[axis] == 1 < shape[axis] and _varies(its, axis)
                for axis in range(len(shape))
            ):
                self.fix(original.flatten(), f"one channel of {self.node.name} meets all others")
                return its
        for axis in range(len(shape)):
            if not _varies(one, axis) and not _varies(other, axis):
                one, other = one.narrow(axis, 0, 1), other.narrow(axis, 0, 1)
        self.tie(one.flatten(), other.flatten(), how)
        return operands[0].expand(shape)

    def _concatenated(
        self, tensors: Iterable[Tensor], dim: int = 0, axis: int | None = None
    ) -> Tensor:
        joined = _lean(torch.cat(tuple(tensors), dim if axis is None else axis))
        if sum(_varies(joined, axis) for axis in range(joined.ndim)) > 1:
            self.refuse("a concatenation that is not over channels")
        return joined

    def _averaged(
        self, x: Tensor, dim: Axes = None, keepdim: bool = False, axis: Axes = None
    ) -> Tensor:
        dim = axis if dim is None else dim
        axes = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
        if any(_varies(x, axis) for axis in axes):
            self.refuse("a mean over channels")
        return _lean(x.amin(dim=tuple(axes), keepdim=keepdim))

    def _chunks(
        self, x: Tensor, pieces: Sequence[Tensor], constant: bool, axis: int
    ) -> tuple[Tensor, ...]:
        if _varies(x, axis):
            if constant or len({piece.shape for piece in pieces}) > 1:
                self.fix(_compact(x).flatten(), f"{self.node.name} splits at constant places")
            else:
                self._tie_parts(list(pieces), "parts of one split")
        return tuple(_lean(piece) for piece in pieces)

    def _reshaped(self, x: Tensor, result: Tensor, sizes: Sequence[object]) -> Tensor:
        """An axis of constant size stays whole: what lies along it is tied."""
        result = _lean(result)
        varying = [axis for axis in range(result.ndim) if _varies(result, axis)]
        constant = [axis for axis in varying if _is_constant(sizes[axis])]
        if len(varying) == 1 and constant:
            self.fix(_compact(x).flatten(), f"{self.node.name} has a constant size")
        elif len(varying) > 1 and len(varying) - len(constant) != 1:
            self.refuse("a reshape of channels into several axes of unknown size")
        elif len(varying) > 1:
            for axis in constant:
                self._tie_parts(list(result.unbind(axis)), "shuffled")
        return result

    def _item(self, x: Any, index: Any) -> Any:
        """`x[index]`, of a tensor or of a tuple."""
        if not isinstance(x, Tensor):
            return x[index]
        result = x[index]
        if result.unique().numel() < x.unique().numel():
            self.fix(_compact(x).flatten(), f"{self.node.name} takes channels by constant places")
        return _lean(result)

    def _tie_parts(self, parts: list[Tensor], how: str) -> None:
        for part in parts[1:]:
            self.tie(_compact(parts[0]).flatten(), _compact(part).flatten(), how)

    def _along(self, x: Tensor, axis: int) -> Tensor:
        """The numbers [channels] along `axis`, which are the same at all positions."""
        axis %= x.ndim
        for other in reversed(range(x.ndim)):
            if other != axis:
                if _varies(x, other):
                    self.refuse("an operation on channels that lie along another axis")
                x = x.select(other, 0)
        return x

    def refuse(self, what: str) -> NoReturn:
        """Say that the operation at hand is `what`, which nobody follows."""
        raise UnsupportedNetwork(
            f"{type(self.model).__name__}: {self.node.target} ({self.node.op}) is {what}, which is "
            f"not supported; supported are {_SUPPORTED}"
        )


def _tensors(values: Any) -> list[Tensor]:
    """The tensors among (nested) arguments."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    if isinstance(values, Iterable) and not isinstance(values, str):
        return [x for value in values for x in _tensors(value)]
    return []


def _split_axis(args: Args, kwargs: Kwargs) -> int:
    """The axis that `chunk` and `split` cut."""
    axis: int = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    return axis


def _is_constant(size: object) -> bool:
    """Whether a size in a reshape stands in the code, and is not to be inferred (-1)."""
    return isinstance(size, int) and size > 0


def _varies(x: Tensor, axis: int) -> bool:
    """Whether the numbers differ along `axis`."""
    if x.shape[axis] == 1 or x.stride(axis) == 0:
        return False
    for other in range(x.ndim):  # repeated numbers need no second look
        if other != axis and x.stride(other) == 0:
            x = x.narrow(other, 0, 1)
    return not torch.equal(x, x.narrow(axis, 0, 1).expand_as(x))


def _compact(x: Tensor) -> Tensor:
    """`x` with size 1 along every axis on which the numbers do not differ."""
    for axis in range(x.ndim):
        if not _varies(x, axis):
            x = x.narrow(axis, 0, 1)
    return x


def _lean(x: Tensor) -> Tensor:
    """The same tensor, with stride 0 along every axis on which the numbers do not differ."""
    return _compact(x).expand(x.shape)
