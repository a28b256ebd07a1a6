"""Run a network on channel numbers instead of activations: what each operation does to them.

`Flow` says what is known of operations (which keep channels apart, which move them, which tie
them). What the numbers mean, and what happens at a layer, is up to its subclasses in `runs.py`.
"""

import operator
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import Target

from graphpruning.common.errors import UserError
from graphpruning.network import operations as known
from graphpruning.network.channel_numbers import compact, lean, tensors, varies, varying
from graphpruning.network.graph import OUTPUT
from graphpruning.network.leaves import Convolution, Norm, each_channel
from graphpruning.network.places import Places

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
"""What an operation is given: tensors of numbers, sizes, axes and the like."""

Axes = int | Sequence[int] | None

_Pair = namedtuple("_Pair", ["values", "indices"])


class Flow(Places):
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

    def made(self, count: int) -> Tensor:
        """`count` numbers that this node makes and that all stay: padding, a mean of channels."""
        raise NotImplementedError

    def filtered(self, numbers: Tensor, macs: int) -> None:
        """Each channel of `numbers` costs `macs` multiply-accumulates that no layer counts."""
        raise NotImplementedError

    def mixed(self) -> None:
        """At this node each number depends on others, as in a mean over channels."""

    def scaled(self, numbers: tuple[float, ...]) -> None:
        """Here a tensor meets numbers, some of which may be computed from sizes."""
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
        numbers = self.direct(str(target), value)
        return numbers if value.numel() > 1 else 1

    def call_module(self, target: Target, args: Args, kwargs: Kwargs) -> Any:
        name = str(target)
        module = self.submodules[name]
        given = [*args, *kwargs.values()]
        if len(tensors(given)) != 1 or not isinstance(given[0], Tensor):
            self.refuse(f"{type(module).__name__} with other than one tensor")
        x: Tensor = given[0]
        if isinstance(module, Convolution):
            return self._spread(self.layer(name, module, self._along(x, 1)), x)
        if isinstance(module, nn.Linear):
            written = self.layer(name, module, self._along(x, -1))
            return written.expand(*x.shape[:-1], len(written))
        if isinstance(module, Norm):
            return self._norm(name, module, x)
        if isinstance(module, nn.Conv1d):
            return self._across(module, x)
        if isinstance(module, nn.PReLU):
            return self._prelu(name, module, x)
        if isinstance(module, known.ELEMENTWISE_MODULES):
            return x
        if isinstance(module, known.COUPLED_MODULES):
            return self._coupled(x, getattr(module, "dim", 1))  # Softmax2d's is 1
        if isinstance(module, known.POOLING_MODULES):
            return self._pooled(x)
        if isinstance(module, nn.Flatten | nn.Unflatten):
            return (
                self._unflattened(x, module)
                if isinstance(module, nn.Unflatten)
                else self._flat(x, module.start_dim, module.end_dim)
            )
        if isinstance(module, nn.ChannelShuffle):
            parts = x.unflatten(1, (module.groups, -1))
            self._tie_parts(list(parts.unbind(1)), "shuffled")
            return lean(parts.transpose(1, 2).flatten(1, 2))
        if isinstance(module, nn.PixelShuffle):
            return self._pixels(x, module.upscale_factor)
        self.refuse(type(module).__name__)

    def call_function(self, target: Target, args: Args, kwargs: Kwargs) -> Any:
        if not tensors((args, kwargs)):
            result = super().call_function(target, args, kwargs)
            if isinstance(result, Tensor):
                self.refuse("a tensor made while the network runs (register it as a buffer)")
            return result
        assert callable(target)
        name = getattr(target, "__name__", str(target))
        if target in (torch.cat, torch.concat):
            return self._concatenated(*args, **kwargs)
        if target is F.pad:
            return self._padded(*args, **kwargs)
        if target is F.pixel_shuffle:
            return self._pixels(*args, **kwargs)
        if target is each_channel:
            return self._each_channel(args[0], args[1])
        if target is operator.getitem:
            return self._item(*args)
        if target is getattr and not isinstance(args[0], Tensor):
            return getattr(*args)
        return self._operation(name, args, kwargs, lambda: target(*args, **kwargs))

    def call_method(self, target: Target, args: Args, kwargs: Kwargs) -> Any:
        name = str(target)
        if not tensors((args, kwargs)):  # of a shape, say
            return super().call_method(target, args, kwargs)
        return self._operation(
            name, args, kwargs, lambda: getattr(args[0], name)(*args[1:], **kwargs)
        )

    def output(self, target: Target, args: Args, kwargs: Kwargs) -> Any:
        for x in tensors(args):
            self.fix(compact(x).flatten(), OUTPUT)
        return args

    def _operation(self, name: str, args: Args, kwargs: Kwargs, native: Callable[[], Any]) -> Any:
        """A function or method of tensors; `native` calls it on the numbers."""
        given = tensors((args, kwargs))
        if name in known.RANDOM_IN_TRAINING:
            self._refuse_random(name, args, kwargs)
        if name in known.MEETS_NUMBERS:
            self.scaled(tuple(x for x in (*args, *kwargs.values()) if isinstance(x, int | float)))
        if name in known.SIZES and not (name == "getattr" and args[1] in ("data", "T", "mT")):
            return native()
        if name in ("mT", "T") or (name == "getattr" and args[1] != "data"):
            return lean(native())
        if name in known.ADDED or name in known.MULTIPLIED:
            return self._met(given, "added" if name in known.ADDED else "multiplied")
        if name in known.COMPARED and len(given) > 1:
            return self._met(given, "compared")
        if name in known.ELEMENTWISE or name in known.COMPARED - known.REDUCED or name == "getattr":
            if len(given) > 1 and name not in known.LIKE_THE_FIRST:
                return self._met(given, "compared")
            return given[0]
        if name in known.REDUCED:
            return self._reduced(name, *args, **kwargs)
        if name in known.COUPLED:
            place = 2 if name == "normalize" else 1
            dim = kwargs.get("dim", args[place] if len(args) > place else 1)
            return self._coupled(given[0], 1 if name == "local_response_norm" else dim)
        if name in known.POOLING and len(given) == 1:
            return self._pooled(given[0])
        if name in ("chunk", "split", "tensor_split"):
            sizes = self.node.args[1] if len(self.node.args) > 1 else None
            constant = name != "chunk" and not isinstance(sizes, fx.Node)
            return self._chunks(args[0], native(), constant, _axis(args, kwargs, 2))
        if name in ("view", "reshape"):
            sizes = self.node.args[1:]
            flat = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
            return self._reshaped(args[0], args[0].reshape(*args[1:], **kwargs), flat)
        if name in ("view_as", "reshape_as"):
            return self._reshaped(args[0], args[0].reshape(args[1].shape), [None] * args[1].ndim)
        if name == "unflatten":
            return self._split_axis(native(), *args, **kwargs)
        if name == "flatten":
            return self._flat(*args, **kwargs)
        if name == "expand_as":
            return args[0].expand(args[1].shape)
        if name in known.MOVED and (len(given) == 1 or name == "stack"):
            if name == "stack":  # what is stacked has one shape, so equally many channels
                self._met(given, "stacked")
            result = native()
            return tuple(map(lean, result)) if isinstance(result, tuple) else lean(result)
        if name in known.IN_ORDER and not self._along_channels(name, args, kwargs):
            return given[0]
        if name in ("select", "narrow"):
            return self._item_of(args[0], native())
        if name in ("matmul", "bmm") and len(given) == 2:
            return self._product(*given)
        if len(given) > 1:
            self.refuse(f"{name} of several tensors")
        self.refuse(name)

    def _refuse_random(self, name: str, args: Args, kwargs: Kwargs) -> None:
        """What is random is so in training alone; else a network has no accuracy of its own."""
        place, usual = known.RANDOM_IN_TRAINING[name]
        by_place = args[place] if len(args) > place else usual
        if kwargs.get("training", kwargs.get("train", by_place)):
            self.refuse("random in evaluation mode too (pass training=self.training)")

    # Layers and what goes with them.

    def _norm(self, name: str, module: Norm, x: Tensor) -> Tensor:
        last = isinstance(module, nn.LayerNorm)
        if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
            self.refuse("a layer normalisation over positions")
        numbers = self._along(x, -1 if last else 1)
        if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
            self._tie_parts(
                list(numbers.view(module.num_groups, -1).unbind(0)),
                f"in {module.num_groups} normalisation groups, which keep the same channels",
            )
        if last or isinstance(module, nn.GroupNorm):
            self.mixed()
        self.norm(name, numbers)
        return x

    def _coupled(self, x: Tensor, dim: Any) -> Tensor:
        """A softmax and the like: every number stays in its place, in proportion to others."""
        if varies(x, dim):
            self.mixed()
        return x

    def _prelu(self, name: str, module: nn.PReLU, x: Tensor) -> Tensor:
        if module.num_parameters > 1:
            slopes = self.direct(f"{name}.weight", module.weight)
            self.tie(self._along(x, 1), slopes, "multiplied")
        return x

    def _across(self, module: nn.Conv1d, x: Tensor) -> Tensor:
        """One filter that slides over the channels (ECA) is the same however many there are."""
        kernel, padding = module.kernel_size[0], module.padding
        same = padding == "same" or (isinstance(padding, tuple) and 2 * padding[0] == kernel - 1)
        slides = (module.in_channels, module.out_channels) == (1, 1) and same
        if not slides or module.stride != (1,) or module.dilation != (1,):
            self.refuse("a one-dimensional convolution other than one filter over all channels")
        self.mixed()
        self.filtered(self._along(x, -1), kernel)
        return x

    def _each_channel(self, x: Tensor, weight: Tensor) -> Tensor:
        """A blur: every channel is filtered by itself, by no layer."""
        numbers, filters = self._along(x, 1), compact(weight).flatten()
        if len(filters) > 1:
            self.tie(numbers, filters, "multiplied")
        height, width = self.node.meta["shape"][2:]
        self.filtered(numbers, weight.shape[2] * weight.shape[3] * height * width)
        return self._spread(numbers, x)

    # Positions.

    def _pooled(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            self.refuse("pooling of a tensor without height and width")
        return self._spread(self._along(x, 1), x)

    def _padded(
        self, x: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None
    ) -> Tensor:
        if x.ndim != 4:
            self.refuse("padding of a tensor without height and width")
        before, after = (*pad, 0, 0, 0, 0, 0, 0)[4:6]
        if any(pad[6:]) or before < 0 or after < 0:
            self.refuse("padding of another axis")
        numbers = self._along(x, 1)
        if before or after:
            new = self.made(before + after)
            numbers = torch.cat((new[:before], numbers, new[before:]))
        return self._spread(numbers, x)

    def _spread(self, numbers: Tensor, x: Tensor) -> Tensor:
        """`numbers` [channels] at every position of this node's output, for the images of `x`."""
        height, width = self.node.meta["shape"][2:]
        return numbers[None, :, None, None].expand(len(x), len(numbers), height, width)

    def _pixels(self, x: Tensor, factor: int) -> Tensor:
        """Blocks of factor x factor channels become one channel's positions."""
        parts = self._along(x, 1).view(-1, factor * factor)
        self._tie_parts(list(parts.unbind(1)), "positions of one channel")
        return self._spread(parts[:, 0], x)

    # Where tensors meet.

    def _met(self, operands: list[Tensor], how: str) -> Tensor:
        """Tensors meet element by element; a number or a single channel meets all."""
        result = operands[0]
        for other in operands[1:]:
            result = self._pair_met(result, other, how)
        return result

    def _pair_met(self, first: Tensor, second: Tensor, how: str) -> Tensor:
        shape = np.broadcast_shapes(first.shape, second.shape)  # torch's imports SymPy
        one, other = first.expand(shape), second.expand(shape)
        for its, original in ((other, first), (one, second)):
            original = original.reshape((1,) * (len(shape) - original.ndim) + original.shape)
            if any(
                original.shape[axis] == 1 < shape[axis] and varies(its, axis)
                for axis in range(len(shape))
            ):
                self.fix(original.flatten(), f"one channel of {self.node.name} meets all others")
                return its
        for axis in range(len(shape)):
            if not varies(one, axis) and not varies(other, axis):
                one, other = one.narrow(axis, 0, 1), other.narrow(axis, 0, 1)
        self.tie(one.flatten(), other.flatten(), how)
        return first.expand(shape)

    def _concatenated(
        self, tensors: Iterable[Tensor], dim: int = 0, axis: int | None = None
    ) -> Tensor:
        """Over channels they stand side by side; over positions those of all tensors are tied."""
        parts = tuple(tensors)
        dim = (dim if axis is None else axis) % parts[0].ndim
        joined = lean(_side_by_side(parts, dim))
        if len(varying(joined)) < 2:
            return joined
        if any(varies(part, dim) for part in parts):  # channels among positions, as of boxes
            self.fix(joined.flatten(), f"{self.node.name} joins channels and positions")
            return joined
        first = parts[0].narrow(dim, 0, 1)
        for part in parts[1:]:
            self.tie(compact(first).flatten(), compact(part).flatten(), "concatenated")
        return first.expand(joined.shape)

    def _reduced(
        self,
        name: str,
        x: Tensor,
        *rest: Any,
        dim: Axes = None,
        keepdim: bool = False,
        axis: Axes = None,
        **kwargs: Any,
    ) -> Any:
        """Over positions channels stay; over parts they meet; over channels nothing is left."""
        if name in ("norm", "vector_norm"):  # the first is the kind of norm
            rest = rest[1:]
        dim = axis if dim is None else dim
        if rest and not isinstance(rest[0], bool):
            dim, *flags = rest
            keepdim = flags[-1] if flags else keepdim
        axes = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
        axes = sorted({one % x.ndim for one in axes})
        along = [one for one in axes if varies(x, one)]
        if along and len(along) == len(varying(x)):
            self.mixed()
            x = self.made(1).view((1,) * x.ndim).expand(x.shape)
        for one in along if len(along) < len(varying(x)) else ():
            self._tie_parts(list(x.unbind(one)), "added")
        result = lean(x.amin(dim=tuple(axes), keepdim=keepdim))
        return _Pair(result, result) if name in known.IN_PAIRS and dim is not None else result

    def _product(self, one: Tensor, other: Tensor) -> Tensor:
        """A sum over positions, weighted: channels stay, on one side of the product."""
        if one.ndim < 2 or other.ndim < 2 or varies(one, -1) or varies(other, -2):
            self.refuse("a product that sums over channels")
        shape = (
            *np.broadcast_shapes(one.shape[:-2], other.shape[:-2]),
            one.shape[-2],
            other.shape[-1],
        )
        if varying(one) and varying(other):
            self.refuse("a product of channels with channels")
        numbers = (one[..., :1] if varying(one) else other[..., :1, :]).expand(shape)
        channels = compact(numbers).flatten()  # a single one, where neither side has channels
        self.filtered(channels, numbers.numel() // len(channels) * one.shape[-1])
        return numbers


def _side_by_side(parts: Sequence[Tensor], dim: int) -> Tensor:
    """`torch.cat`, which would have repeated numbers in memory."""
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    for axis in range(len(shape)):
        if axis != dim and all(part.stride(axis) == 0 for part in parts):
            parts = [part.narrow(axis, 0, 1) for part in parts]
    return torch.cat(tuple(parts), dim).expand(shape)


def _axis(args: Args, kwargs: Kwargs, position: int) -> int:
    """The axis that an operation is given at `position` or by name."""
    axis: int = args[position] if len(args) > position else kwargs.get("dim", 0)
    return axis
