"""Operations that move channels to other places: what is tied, and what is fixed, by that.

Part of `Flow`, which has the words for numbers, nodes and what subclasses decide.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from graphpruning.common.errors import UnsupportedNetwork
from graphpruning.network import operations as known
from graphpruning.network.channel_numbers import compact, lean, varies, varying


class Places(fx.Interpreter):
    """Concatenation, splits, reshapes and indices of channel numbers.

    Args:
        model: the network itself, for the names of its parameters and buffers.
        module: what torch.fx made of it.
    """

    def __init__(self, model: nn.Module, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False  # a refusal is one line
        self.model = model
        self.node: fx.Node

    def tie(self, one: Tensor, other: Tensor, how: str) -> None:
        """These numbers [n], [n] stay or go together."""
        raise NotImplementedError

    def fix(self, numbers: Tensor, reason: str) -> None:
        """These numbers all stay."""
        raise NotImplementedError

    def _chunks(
        self, x: Tensor, pieces: Sequence[Tensor], constant: bool, axis: int
    ) -> tuple[Tensor, ...]:
        if varies(x, axis):
            if constant or len({piece.shape for piece in pieces}) > 1:
                self.fix(compact(x).flatten(), f"{self.node.name} splits at constant places")
            else:
                self._tie_parts(list(pieces), "parts of one split")
        return tuple(lean(piece) for piece in pieces)

    def _reshaped(self, x: Tensor, result: Tensor, sizes: Sequence[object]) -> Tensor:
        """An axis of constant size stays whole: what lies along it is tied."""
        result = lean(result)
        along = varying(result)
        constant = [axis for axis in along if _is_constant(sizes[axis])]
        if along and len(constant) == len(along):
            self.fix(compact(x).flatten(), f"{self.node.name} has a constant size")
        elif len(along) > 1 and len(along) - len(constant) != 1:
            self.refuse("a reshape of channels into several axes of unknown size")
        elif len(along) > 1:
            for axis in constant:
                self._tie_parts(list(result.unbind(axis)), "shuffled")
        return result

    def _split_axis(self, result: Tensor, x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
        """`unflatten`: one axis becomes several, of which the constant ones stay whole."""
        dim %= x.ndim
        asked = self.node.args[2] if len(self.node.args) > 2 else self.node.kwargs["sizes"]
        assert isinstance(asked, list | tuple)
        rest = [None] * (x.ndim - dim - 1)
        return self._reshaped(x, result, [*([None] * dim), *asked, *rest])

    def _unflattened(self, x: Tensor, module: nn.Unflatten) -> Tensor:
        result, sizes = module(x), tuple(module.unflattened_size)
        dim = int(module.dim) % x.ndim
        rest = [None] * (x.ndim - dim - 1)
        return self._reshaped(x, result, [*([None] * dim), *sizes, *rest])

    def _flat(self, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        return lean(x.flatten(start_dim, end_dim))

    def _item(self, x: Any, index: Any) -> Any:
        """`x[index]`, of a tensor or of a tuple."""
        if not isinstance(x, Tensor):
            return x[index]
        return self._item_of(x, x[index])

    def _item_of(self, x: Tensor, result: Tensor) -> Tensor:
        """Part of a tensor: one of several alike parts, or channels at constant places."""
        along, left = varying(x), varying(result)
        if left and len(left) < len(along):  # one part of those along another axis
            return lean(result)
        if along and left == along and _follows_widths(self.node.args[1:]):
            (axis,) = along
            parts = x.split(result.shape[axis], axis)
            is_part = any(torch.equal(result, part) for part in parts)
            if is_part and parts[-1].shape == parts[0].shape:
                self._tie_parts(list(parts), "parts of one tensor")
                return lean(result)
        if result.unique().numel() < x.unique().numel():
            self.fix(compact(x).flatten(), f"{self.node.name} takes channels by constant places")
        return lean(result)

    def _along_channels(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether `flip`, `roll` and the like work along the axis of the channels."""
        x, *rest = args
        dims = kwargs.get("dims", kwargs.get("dim"))
        if dims is None:
            dims = rest[-1] if name != "flip" or len(rest) == 1 else rest
        axes = [dims] if isinstance(dims, int) else dims
        return any(varies(x, axis) for axis in axes)

    def _tie_parts(self, parts: list[Tensor], how: str) -> None:
        for part in parts[1:]:
            self.tie(compact(parts[0]).flatten(), compact(part).flatten(), how)

    def _along(self, x: Tensor, axis: int) -> Tensor:
        """The numbers [channels] along `axis`, which are the same at all positions."""
        axis %= x.ndim
        for other in reversed(range(x.ndim)):
            if other != axis:
                if varies(x, other):
                    self.refuse("an operation on channels that lie along another axis")
                x = x.select(other, 0)
        return x

    def refuse(self, what: str) -> NoReturn:
        """Say that the operation at hand is `what`, which nobody follows."""
        target = getattr(self.node.target, "__name__", self.node.target)
        raise UnsupportedNetwork(
            f"{type(self.model).__name__}: {target} ({self.node.op}"
            f"{self._where()}) is {what}, which is not supported; supported are {known.SUPPORTED}"
        )

    def _where(self) -> str:
        """The module in whose `forward` the operation stands."""
        stack = self.node.meta.get("nn_module_stack")
        name = next(reversed(stack.values()))[0] if stack else ""
        return f" in {name}" if name and self.node.op != "call_module" else ""


def _follows_widths(index: object) -> bool:
    """Whether an index has sizes in it that follow when channels go."""
    if isinstance(index, slice):
        index = (index.start, index.stop, index.step)
    if isinstance(index, tuple | list):
        return any(map(_follows_widths, index))
    return isinstance(index, fx.Node)


def _is_constant(size: object) -> bool:
    """Whether a size in a reshape stands in the code, and is not to be inferred (-1)."""
    return isinstance(size, int) and size > 0
