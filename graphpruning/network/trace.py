"""From a network to its channel graph: `trace`.

The traced network runs on channel numbers instead of activations: each layer writes new numbers,
whatever only moves data (concatenation, shuffle, flatten) moves them, and where two tensors meet
(addition, product) the numbers that meet are tied. Tied numbers are units. Afterwards it runs a
second time, narrowed at random: if then any layer would read other channels than the graph says,
the network is refused, so that a wrong graph never comes out.
"""

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from graphpruning.common.errors import UnsupportedNetwork, UserError
from graphpruning.network.edges import edges_and_depths
from graphpruning.network.graph import ChannelGraph, Layer, UnitMask, kept
from graphpruning.network.units import Ledger, Units

_ELEMENTWISE_MODULES = (
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
_ELEMENTWISE = {
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


def trace(model: nn.Module, input_size: tuple[int, ...] = (3, 32, 32)) -> ChannelGraph:
    """Follow the channels of `model` on one image of `input_size` (channels, height, width).

    The network is looked at in evaluation mode and left as it was; it may be on any device, the
    meta device too. Raises `UnsupportedNetwork`, naming the module and the operation, for what is
    not known to keep channels apart, and `UserError` when the image does not fit.
    """
    size = tuple(input_size)
    module = _shaped_module(model, size)
    recorder = _Recorder(model, module)
    recorder.run(recorder.ledger.new(size[0], "the input image", fixed=True).expand(1, *size))
    _refuse_unused(model, recorder)
    units = recorder.ledger.units()
    _Replay(model, module, recorder, units).run(
        units.labels(recorder.ledger.numbers_of("the input image"))[None, :, None, None].expand(
            1, *size
        )
    )
    return _graph(model, module, recorder, units, size)


def _shaped_module(model: nn.Module, size: tuple[int, ...]) -> fx.GraphModule:
    """Trace in evaluation mode, then find every tensor's shape without computing anything."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        module = _symbolic(model)
        module.eval()
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            _Shapes(module).run(torch.zeros(1, *size, dtype=dtype, device=device))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"{type(model).__name__} does not run on an image of {size}: {_one_line(error)}"
        ) from error
    finally:
        for part, training in modes:
            part.training = training
    return module


class _Shapes(fx.Interpreter):
    """Writes the shape of every tensor to its node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A subclass of LayerNorm would otherwise be traced into a call with a constant size.
        return isinstance(m, nn.LayerNorm) or super().is_leaf_module(m, module_qualified_name)


def _symbolic(model: nn.Module) -> fx.GraphModule:
    before = set(vars(model))
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:  # torch.fx raises whatever the model's own code raises
        raise UnsupportedNetwork(
            f"{type(model).__name__} cannot be traced by torch.fx ({_one_line(error)}); make its "
            "control flow independent of the input, or trace the part that is convolutional"
        ) from error
    finally:
        for name in set(vars(model)) - before:  # torch.fx leaves constants of `forward` there
            delattr(model, name)


class _Flow(fx.Interpreter):
    """Runs the network on channel numbers; what they mean is up to the subclass.

    Every tensor is an int64 tensor of the shape that the activation has. Numbers may differ along
    one axis, the channels', and are views with stride 0 along the others where possible.
    `unexpected` is what an operation is called that fails.
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
            return self._refuse(self.unexpected)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        known = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        if target not in known:
            self._refuse("a constant made while the network runs (register it as a buffer)")
        numbers = self.direct(str(target), value)
        return numbers if value.numel() > 1 else 1

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.submodules[target]
        if len(_tensors((args, kwargs))) != 1 or not isinstance(args[0], Tensor):
            self._refuse(f"{type(module).__name__} with other than one tensor")
        x = args[0]
        if isinstance(module, nn.Conv2d):
            return self._convolution(str(target), module, x)
        if isinstance(module, nn.Linear):
            written = self.layer(str(target), module, self._along(x, -1))
            return written.expand(*x.shape[:-1], len(written))
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            self.norm(str(target), self._along(x, 1))
            return x
        if isinstance(module, nn.LayerNorm):
            return self._layer_norm(str(target), module, x)
        if isinstance(module, _ELEMENTWISE_MODULES):
            return x
        if isinstance(module, _POOLING_MODULES):
            return self._pooled(x)
        if isinstance(module, nn.Flatten):
            return _lean(module(x))
        if isinstance(module, nn.ChannelShuffle):
            parts = x.unflatten(1, (module.groups, -1))
            self._tie_parts(list(parts.unbind(1)), "shuffled")
            return _lean(parts.transpose(1, 2).flatten(1, 2))
        return self._refuse(type(module).__name__)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not _tensors((args, kwargs)):
            return super().call_function(target, args, kwargs)
        name = getattr(target, "__name__", str(target))
        if target in (torch.cat, torch.concat):
            return self._concatenated(*args, **kwargs)
        if target is F.pad:
            return self._padded(*args, **kwargs)
        if target is operator.getitem:
            return self._item(*args)
        return self._operation(name, args, kwargs, lambda: target(*args, **kwargs))

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        def native() -> Any:
            return getattr(args[0], target)(*args[1:], **kwargs)

        return self._operation(str(target), args, kwargs, native)

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        for x in _tensors(args):
            self.fix(_compact(x).flatten(), "the network's output")
        return args

    def _operation(self, name: str, args: Any, kwargs: Any, native: Callable[[], Any]) -> Any:
        if name in _SIZES:
            return native()
        if name in _ADDED or name in _MULTIPLIED:
            return self._met(_tensors((args, kwargs)), "added" if name in _ADDED else "multiplied")
        if len(_tensors((args, kwargs))) > 1:
            self._refuse(f"{name} of several tensors")
        if name in _ELEMENTWISE:
            return args[0]
        if name in _POOLING:
            return self._pooled(args[0])
        if name == "mean":
            return self._averaged(*args, **kwargs)
        if name == "chunk":
            return self._chunks(args[0], native(), constant=False, **self._dimension(args, kwargs))
        if name == "split":
            sizes = self.node.args[1] if len(self.node.args) > 1 else None
            constant = not isinstance(sizes, fx.Node)
            pieces = native()
            return self._chunks(args[0], pieces, constant, **self._dimension(args, kwargs))
        if name in ("view", "reshape"):
            sizes = self.node.args[1:]
            flat = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
            return self._reshaped(args[0], args[0].reshape(*args[1:], **kwargs), flat)
        if name in _MOVES:
            return _lean(native())
        return self._refuse(name)

    def _convolution(self, name: str, module: nn.Conv2d, x: Tensor) -> Tensor:
        if module.padding_mode != "zeros":
            self._refuse(f"a convolution with {module.padding_mode} padding")
        written = self.layer(name, module, self._along(x, 1))
        return self._spread(written)

    def _layer_norm(self, name: str, module: nn.LayerNorm, x: Tensor) -> Tensor:
        if len(module.normalized_shape) != 1:
            self._refuse("a layer normalisation over positions")
        if type(module) is not nn.LayerNorm and type(module).__name__ != "LayerNorm2d":
            self._refuse(type(module).__name__)
        self.norm(name, self._along(x, -1 if type(module) is nn.LayerNorm else 1))
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            self._refuse("pooling of a tensor without height and width")
        return self._spread(self._along(x, 1))

    def _padded(self, x: Tensor, pad: Any, *rest: Any, **kwargs: Any) -> Tensor:
        if len(pad) > 4 or x.ndim != 4:
            self._refuse("padding with new channels")
        return self._spread(self._along(x, 1))

    def _spread(self, numbers: Tensor) -> Tensor:
        """`numbers` [channels] at every position that this node's output has."""
        height, width = self.node.meta["shape"][2:]
        return numbers[None, :, None, None].expand(1, len(numbers), height, width)

    def _met(self, operands: list[Tensor], how: str) -> Tensor:
        """Two tensors meet element by element; a number or a single channel meets all."""
        if len(operands) == 1:
            return operands[0]
        shape = torch.broadcast_shapes(*(x.shape for x in operands))
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

    def _concatenated(self, tensors: Any, dim: int = 0, axis: int | None = None) -> Tensor:
        joined = _lean(torch.cat(tuple(tensors), dim if axis is None else axis))
        if sum(_varies(joined, axis) for axis in range(joined.ndim)) > 1:
            self._refuse("a concatenation that is not over channels")
        return joined

    def _averaged(
        self, x: Tensor, dim: Any = None, keepdim: bool = False, axis: Any = None
    ) -> Tensor:
        dim = axis if dim is None else dim
        axes = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
        if any(_varies(x, axis) for axis in axes):
            self._refuse("a mean over channels")
        return _lean(x.amin(dim=tuple(axes), keepdim=keepdim))

    def _dimension(self, args: Any, kwargs: Any) -> dict[str, int]:
        return {"dim": args[2] if len(args) > 2 else kwargs.get("dim", 0)}

    def _chunks(self, x: Tensor, pieces: Any, constant: bool, dim: int) -> tuple[Tensor, ...]:
        if _varies(x, dim):
            if constant or len({piece.shape for piece in pieces}) > 1:
                self.fix(_compact(x).flatten(), f"{self.node.name} splits at constant places")
            else:
                self._tie_parts(list(pieces), "parts of one split")
        return tuple(_lean(piece) for piece in pieces)

    def _reshaped(self, x: Tensor, result: Tensor, sizes: Any) -> Tensor:
        """An axis of constant size stays whole: what lies along it is tied."""
        result = _lean(result)
        varying = [axis for axis in range(result.ndim) if _varies(result, axis)]
        constant = [axis for axis in varying if isinstance(sizes[axis], int) and sizes[axis] > 0]
        if len(varying) == 1 and constant:
            self.fix(_compact(x).flatten(), f"{self.node.name} has a constant size")
        elif len(varying) > 1 and len(varying) - len(constant) != 1:
            self._refuse("a reshape of channels into several axes of unknown size")
        elif len(varying) > 1:
            for axis in constant:
                self._tie_parts(list(result.unbind(axis)), "shuffled")
        return result

    def _item(self, x: Any, index: Any) -> Any:
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
                    self._refuse("an operation on channels that lie along another axis")
                x = x.select(other, 0)
        return x

    def _refuse(self, what: str) -> Any:
        raise UnsupportedNetwork(
            f"{type(self.model).__name__}: {self.node.target} ({self.node.op}) is {what}, which is "
            f"not supported; supported are {_SUPPORTED}"
        )


class _Recorder(_Flow):
    """The first run: numbers are new channels, and everything is written down."""

    def __init__(self, model: nn.Module, module: fx.GraphModule) -> None:
        super().__init__(model, module)
        self.ledger = Ledger()
        self.sizes: dict[str, tuple[int, ...]] = {}
        self.constants: set[str] = set()
        self.weights: set[int] = set()

    def layer(self, name: str, module: nn.Module, numbers: Tensor) -> Tensor:
        if name in self.ledger.layers:
            self._refuse("a layer called twice")
        weight = module._parameters.get("weight")
        if weight is None:
            self._refuse("a layer whose weight is computed, as by weight normalisation")
        if id(weight) in self.weights:
            self._refuse("a layer that shares another one's weight")
        self.weights.add(id(weight))
        shape = self.node.meta["shape"]
        if isinstance(module, nn.Conv2d):
            self.sizes[name] = (shape[0] * shape[2], shape[3])
        else:
            image = len(shape) == 4 and shape[0] == 1
            self.sizes[name] = tuple(shape[1:3]) if image else (math.prod(shape[:-1]), 1)
        if isinstance(module, nn.Linear):
            written = self.ledger.new(module.out_features, name)
        else:
            assert isinstance(module, nn.Conv2d)
            written = self.ledger.new(module.out_channels, name)
            self._tie_convolution_groups(name, module, numbers, written)
        self.ledger.layers[name] = (numbers, written)
        return written

    def _tie_convolution_groups(
        self, name: str, module: nn.Conv2d, numbers: Tensor, written: Tensor
    ) -> None:
        if module.groups == 1:
            return
        if module.groups == module.in_channels:  # a filter belongs to the channel it filters
            filtered = numbers.repeat_interleave(module.out_channels // module.in_channels)
            of = self.ledger.owner(numbers)
            self.ledger.tie(filtered, written, f"{name} filters each channel of {of}")
            return
        why = f"{name} has {module.groups} convolution groups, which keep the same channels"
        for side in (numbers, written):
            parts = side.view(module.groups, -1)
            self.ledger.tie(parts[:1].expand_as(parts).flatten(), parts.flatten(), why)

    def norm(self, name: str, numbers: Tensor) -> None:
        if name in self.ledger.norms:
            self._refuse("a normalisation called twice")
        self.ledger.norms[name] = numbers

    def direct(self, name: str, value: Tensor) -> Tensor:
        if sum(size > 1 for size in value.shape) > 1:
            self._refuse("a parameter with more than one axis, used directly")
        if name not in self.ledger.direct:
            self.ledger.direct[name] = self.ledger.new(value.numel(), name)
        if not isinstance(value, nn.Parameter) or not all(_multiplies(u) for u in self.node.users):
            self.constants.add(name)
        return self.ledger.direct[name].view(value.shape)

    def tie(self, one: Tensor, other: Tensor, how: str) -> None:
        first, second = self.ledger.owner(one), self.ledger.owner(other)
        self.ledger.tie(one, other, f"{first} and {second} are {how}")

    def fix(self, numbers: Tensor, reason: str) -> None:
        self.ledger.fix(numbers, reason)


class _Replay(_Flow):
    """The second run: numbers are units, some are gone, and every layer must agree."""

    unexpected = "an operation that breaks when channels go"

    def __init__(
        self, model: nn.Module, module: fx.GraphModule, recorder: _Recorder, units: Units
    ) -> None:
        super().__init__(model, module)
        self.ledger, self.units = recorder.ledger, units
        self.mask = _random_mask(units)

    def _narrowed(self, numbers: Tensor) -> Tensor:
        labels = self.units.labels(numbers)
        return labels[kept(labels.clamp(min=-1), self.mask)]

    def layer(self, name: str, module: nn.Module, numbers: Tensor) -> Tensor:
        read, written = self.ledger.layers[name]
        self._agree(numbers, self._narrowed(read))
        return self._narrowed(written)

    def norm(self, name: str, numbers: Tensor) -> None:
        self._agree(numbers, self._narrowed(self.ledger.norms[name]))

    def direct(self, name: str, value: Tensor) -> Tensor:
        numbers = self._narrowed(self.ledger.direct[name])
        return numbers.view([len(numbers) if size > 1 else 1 for size in value.shape])

    def tie(self, one: Tensor, other: Tensor, how: str) -> None:
        self._agree(one, other)

    def fix(self, numbers: Tensor, reason: str) -> None:
        pass

    def _agree(self, one: Tensor, other: Tensor) -> None:
        if not torch.equal(one, other):
            self._refuse("an operation that mixes channels up when some go")


def _random_mask(units: Units) -> UnitMask:
    """Half of each group's units at random, at least one."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(units.count + 1, dtype=torch.bool)
    mask[-1] = True
    for group in units.groups:
        if group.prunable:
            number = group.width // group.unit
            chosen = torch.randperm(number, generator=generator)[: max(1, number // 2)]
            mask[group.first + chosen] = True
    return mask


def _refuse_unused(model: nn.Module, recorder: _Recorder) -> None:
    """A layer that evaluation does not run (an auxiliary head) could not be narrowed rightly."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and name not in recorder.ledger.layers:
            raise UnsupportedNetwork(
                f"{type(model).__name__}: the layer {name} is not used in evaluation mode; build "
                "the network without it (for auxiliary heads: aux_logits=False)"
            )


def _graph(
    model: nn.Module,
    module: fx.GraphModule,
    recorder: _Recorder,
    units: Units,
    size: tuple[int, ...],
) -> ChannelGraph:
    ledger = recorder.ledger
    edges, depths = edges_and_depths(module, ledger.layers.__contains__)
    layers = []
    for name, (read, written) in ledger.layers.items():
        part = model.get_submodule(name)
        described = _linear(part) if isinstance(part, nn.Linear) else _convolution(part)
        layers.append(
            Layer(
                name=name,
                **described,
                output_size=(recorder.sizes[name][0], recorder.sizes[name][1]),
                bias=part.bias is not None,
                depth=depths[name],
                block=_block(model, name),
                inputs=units.labels(read).clamp(min=-1),
                outputs=units.labels(written).clamp(min=-1),
                reads=units.group_names(read),
                writes=units.group_names(written),
            )
        )
    direct = {name: units.labels(x).clamp(min=-1) for name, x in ledger.direct.items()}
    return ChannelGraph(
        layers=tuple(layers),
        edges=tuple(edges),
        groups=units.groups,
        norms={name: units.labels(x).clamp(min=-1) for name, x in ledger.norms.items()},
        scales={n: x for n, x in direct.items() if n not in recorder.constants},
        constants={n: x for n, x in direct.items() if n in recorder.constants},
        input_size=size,
        module=module,
    )


def _linear(part: nn.Linear) -> dict[str, Any]:
    return {
        "kind": "linear",
        "in_channels": part.in_features,
        "out_channels": part.out_features,
        "kernel": (1, 1),
        "stride": (1, 1),
        "groups": 1,
    }


def _convolution(part: nn.Module) -> dict[str, Any]:
    assert isinstance(part, nn.Conv2d)
    if part.groups == 1:
        kind = "pointwise" if part.kernel_size == (1, 1) else "convolution"
    else:
        kind = "depthwise" if part.groups == part.in_channels else "grouped"
    return {
        "kind": kind,
        "in_channels": part.in_channels,
        "out_channels": part.out_channels,
        "kernel": (part.kernel_size[0], part.kernel_size[1]),
        "stride": (part.stride[0], part.stride[1]),
        "groups": part.groups,
    }


def _block(model: nn.Module, name: str) -> str:
    """The nearest enclosing module that is neither a plain sequence nor the whole network."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        enclosing = ".".join(parts[:end])
        if not isinstance(model.get_submodule(enclosing), nn.Sequential | nn.ModuleList):
            return enclosing
    return name


def _multiplies(node: fx.Node) -> bool:
    return node.target in (operator.mul, operator.imul, torch.mul, "mul", "mul_")


def _tensors(values: Any) -> list[Tensor]:
    """The tensors among (nested) arguments."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    if isinstance(values, Iterable) and not isinstance(values, str):
        return [x for value in values for x in _tensors(value)]
    return []


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
