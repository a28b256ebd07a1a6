"""Write down what a network does with an image, as a graph of torch.fx: `symbolic_trace`.

torch.fx calls the network's `forward` with a proxy in the image's place, which records what happens
to it. Ours also carries a value, a tensor of zeros that is one number in memory. So Python may
branch on shapes as it likes (`if y.shape == x.shape`), while a size that goes into an operation
(`x.view(x.size(0), -1)`) stays what it was computed from, and follows when channels go.

What runs is a twin of the network without numbers: the network itself is never touched.
"""

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Target
from torch.fx.proxy import Attribute

from graphpruning.common.errors import UnsupportedNetwork, UserError, reason
from graphpruning.network.channel_numbers import tensors
from graphpruning.network.copies import copied
from graphpruning.network.leaves import as_called, base_of, is_leaf
from graphpruning.network.refusals import refuse_what_acts_on_the_side
from graphpruning.network.shapes import known_shape, shape_of_function, shape_of_module

Size = tuple[int, ...]

_CONCRETE = (bool, str, type(None), torch.layout, torch.memory_format)
"""What no channel count goes into: such a value is used as it is."""
_ASK_FOR_NUMBERS = {"item", "tolist", "numpy", "nonzero", "unique", "allclose", "equal"}
_NEVER_WIDTHS = {"dim", "ndimension", "ndim", "is_contiguous", "is_floating_point", "element_size"}


def symbolic_trace(model: nn.Module, size: Size, training: bool = False) -> fx.GraphModule:
    """Return the operations of `model` in evaluation mode on one image of `size`.

    In `training` mode they are those on two images, since normalisations refuse a single number.
    Layers and normalisations are `call_module` nodes, also where the network calls a function with
    their weights. Every node that makes a tensor has its shape in `node.meta["shape"]`; one that
    makes none, but a size or what is computed from sizes, is marked in `node.meta["of_sizes"]`.

    Raises:
        UnsupportedNetwork: when Python's control flow needs the image's numbers, or something acts
            on the side (hooks, parametrisations).
        UserError: when the network does not run on such an image.
    """
    refuse_what_acts_on_the_side(model)
    graph, standardised = operations(model, twin(model), size, training)
    module = fx.GraphModule(model, graph)
    module.meta["standardised"] = standardised
    return module


def operations(
    model: nn.Module, run: nn.Module, size: Size, training: bool = False
) -> tuple[fx.Graph, Any]:
    """Return the graph of `symbolic_trace`, and what layers do with their weights before (`meta`).

    `run` is what runs in the place of `model`, and is changed: a twin of it, or a copy.
    """
    tracer = _Tracer((2 if training else 1, *size))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            graph = tracer.trace(run.train(training))
    except UserError:
        raise
    except Exception as error:  # whatever the model's own code raises
        _refuse(model, size, error, error is tracer.fault)
    for node, value in tracer.values.items():
        if isinstance(value, Tensor):
            node.meta["shape"] = tuple(value.shape)
        elif type(value) is int:
            node.meta["number"] = value
        node.meta["of_sizes"] = not tensors(value)
    _drop_unused_sizes(graph)
    return graph, as_called(model, graph, training)


def twin(model: nn.Module) -> nn.Module:
    """A copy of the network with zeros for its numbers, which take no memory.

    Single numbers are as they are, because Python may compute with them.
    """
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        empty = _zeros(tensor.shape, dtype)
        if not (tensor.ndim or tensor.is_meta):
            empty = tensor.detach().to("cpu", dtype, copy=True)
        memo[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
    try:
        return copied(model, memo)
    except Exception as error:
        raise UnsupportedNetwork(
            f"{type(model).__name__} cannot be copied ({reason(error)}): a network must survive "
            "copy.deepcopy"
        ) from error


class _Tracer(fx.Tracer):
    """Records operations, and computes each one's value beside it."""

    proxy_buffer_attributes = True

    def __init__(self, size: Size) -> None:
        super().__init__(autowrap_modules=(math,))
        self.size = size
        self.values: dict[fx.Node, Any] = {}
        self.owned: set[int] = set()
        self.names: dict[int, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.modules: dict[str, nn.Module] = {}
        self.computing = False
        self.fault: Exception | None = None  # of an operation, not of Python's code around it

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        tensors = (*root.named_parameters(), *root.named_buffers())
        self.owned = {id(t) for _, t in tensors}
        # A single number in a buffer may be a counter: it counts in the twin, and nobody sees it.
        watched = [(name, t) for name, t in tensors if t.ndim or isinstance(t, nn.Parameter)]
        self.names = {id(t): name for name, t in reversed(watched)}
        self.tensors = dict(tensors)
        self.modules = dict(root.named_modules(remove_duplicate=False))
        return super().trace(root, concrete_args)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """The image alone; whatever else `forward` takes keeps its default."""
        return root_fn, [self.root, self.create_proxy("placeholder", "image", (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.computing:
            return forward(*args, **kwargs)
        if is_leaf(m) and base_of(m) is not None and not args:
            args, kwargs = tuple(kwargs.values()), {}  # what they take is called `input` in all
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """A parameter or buffer that `forward` reads is a node too."""
        name = self.names.get(id(attr_val)) if isinstance(attr_val, Tensor) else None
        if self.computing or name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor) and id(a) not in self.owned:
            where = f"{type(self.root).__name__}: {self._where()}"
            if isinstance(a, nn.Parameter):
                raise UnsupportedNetwork(
                    f"{where} uses a parameter that is none of the network's own (a plain list "
                    "does not register it, nn.ParameterList does)"
                )
            if a.numel() == 1:
                return a.item()
            raise UnsupportedNetwork(
                f"{where} uses a constant made while the network runs (register it as a buffer)"
            )
        return super().create_arg(a)

    def create_proxy(
        self,
        kind: str,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
        proxy_factory_fn: Any = None,
    ) -> Any:
        given, named = self.create_arg(args), self.create_arg(kwargs)
        value = self._value(kind, target, args, kwargs)
        if isinstance(value, _CONCRETE) or target in _NEVER_WIDTHS:
            return value
        if target == "size" and _is_kernel(given):
            return value
        node = self.create_node(kind, target, given, named, name, type_expr)
        self.values[node] = value
        return _Number(node, self) if isinstance(value, int | float) else _Valued(node, self)

    def _value(self, kind: str, target: Target, args: Any, kwargs: Any) -> Any:
        """What this operation gives, in shape and type."""
        if kind == "placeholder":
            return _zeros(self.size)
        if kind == "get_attr":
            return self.tensors[str(target)]
        if target in _ASK_FOR_NUMBERS:
            self.refuse_numbers()
        self.computing = True
        try:
            module = self.modules[str(target)] if kind == "call_module" else None
            shape = known_shape(module or target, self._plain(args, whole=False), kwargs)
            if shape is not None:
                return _zeros(shape)
            values, named = self._plain(args), self._plain(kwargs)
            if module is not None:
                return _lean(shape_of_module(module, *values, **named))
            if kind == "call_method":
                return _lean(getattr(values[0], str(target))(*values[1:], **named))
            return _lean(shape_of_function(target, values, named))
        except Exception as error:
            self.fault = error
            raise
        finally:
            self.computing = False

    def _plain(self, arguments: Any, whole: bool = True) -> Any:
        """Arguments with values for proxies; `whole` in memory, as changes in place need them."""
        if isinstance(arguments, fx.Proxy):
            return self._plain(self.values[arguments.node], whole)
        if isinstance(arguments, Tensor):
            return torch.zeros_like(arguments) if whole and arguments.ndim else arguments
        if isinstance(arguments, tuple | list):
            plain = [self._plain(each, whole) for each in arguments]
            if hasattr(arguments, "_fields"):
                return type(arguments)(*plain)
            return type(arguments)(plain)
        if isinstance(arguments, dict):
            return {key: self._plain(each) for key, each in arguments.items()}
        if isinstance(arguments, slice):
            parts = (arguments.start, arguments.stop, arguments.step)
            return slice(*(self._plain(part) for part in parts))
        return arguments

    def refuse_numbers(self) -> NoReturn:
        """Say that the network's code needs to know an image's numbers."""
        raise UnsupportedNetwork(
            f"{type(self.root).__name__}: {self._where()} asks for the image's numbers; make its "
            "control flow independent of them"
        )

    def _where(self) -> str:
        return self.scope.module_path or "its forward"


class _Valued(fx.Proxy):
    """A recorded tensor, shape or tuple, whose value answers whatever Python asks."""

    tracer: _Tracer

    @property
    def _held(self) -> Any:
        return self.tracer.values[self.node]

    def __getattr__(self, k: str) -> Any:
        found = getattr(self._held, k)  # what the value does not have, nobody has
        if callable(found):
            return Attribute(self, k)
        if k in _NEVER_WIDTHS:
            return found
        if k == "shape" and self.node.op == "get_attr" and len(found) > 2:
            return (self.size(0), self.size(1), *found[2:])  # a kernel's size is what it is
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self._held)))  # type: ignore[index]

    def __contains__(self, item: Any) -> bool:
        return any(item == each for each in self)

    def __bool__(self) -> bool:
        value = self._held
        if isinstance(value, Tensor):
            self.tracer.refuse_numbers()
        return bool(value)


class _Number(_Valued):
    """A number computed from shapes: where Python needs one, it is one."""

    __iter__ = None  # type: ignore[assignment]  # asked whether it is iterable, it says no

    def __index__(self) -> int:
        return operator.index(self._held)

    def __int__(self) -> int:
        return int(self._held)

    def __float__(self) -> float:
        return float(self._held)

    def __round__(self, digits: int | None = None) -> Any:
        return round(self._held, digits)

    def __ceil__(self) -> int:
        return math.ceil(float(self._held))

    def __trunc__(self) -> int:
        return math.trunc(float(self._held))


def _is_kernel(given: tuple[Any, ...]) -> bool:
    """Whether `size` asks for a side of a weight's kernel, which no pruning changes."""
    of, *axis = given
    return isinstance(of, fx.Node) and of.op == "get_attr" and axis > [1]


def _drop_unused_sizes(graph: fx.Graph) -> None:
    """Sizes that Python looked at, and no operation uses. (An unused tensor may be in place.)"""
    for node in reversed(graph.nodes):
        if not node.users and "shape" not in node.meta and node.op not in ("output", "placeholder"):
            graph.erase_node(node)


def _zeros(shape: Size, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros of a shape, one in memory."""
    return torch.zeros((), dtype=dtype).expand(shape)


def _lean(value: Any) -> Any:
    """The same with tensors of zeros that are one number in memory."""
    if isinstance(value, Tensor):
        return _zeros(value.shape, value.dtype)
    if isinstance(value, tuple | list):
        lean = [_lean(each) for each in value]
        if isinstance(value, torch.Size):
            return torch.Size(lean)
        return type(value)(*lean) if hasattr(value, "_fields") else type(value)(lean)
    return value


def _refuse(model: nn.Module, size: Size, error: Exception, inside: bool) -> NoReturn:
    """Say whether the network does not run at all, or cannot be recorded."""
    name = type(model).__name__
    failure: Exception | None = error if inside else None
    if failure is None:
        try:
            with torch.no_grad():
                twin(model).eval()(torch.zeros(1, *size))
        except Exception as found:
            failure = found
    if failure is not None:
        raise UserError(
            f"{name} does not run on an image of {size}: {reason(failure)}"
        ) from failure
    raise UnsupportedNetwork(
        f"{name} cannot be traced by torch.fx ({reason(error)}); make its control flow "
        "independent of the image's numbers, or trace the part that is convolutional"
    ) from error
