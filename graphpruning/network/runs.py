"""The two runs on channel numbers: the first writes the ties down, the second checks them."""

import math
import operator
from collections.abc import Iterator
from itertools import cycle

import torch
from torch import Tensor, fx, nn

from graphpruning.network.flow import Flow
from graphpruning.network.graph import UnitMask, direct_axis, kept
from graphpruning.network.leaves import Convolution, Norm, standardised_layers
from graphpruning.network.units import Ledger, Units

SHARES = (5 / 8, 3 / 8, 7 / 8, 1 / 2, 3 / 4)
"""Of its first units that a group keeps when graphs are checked, one group after the other."""


class Recorder(Flow):
    """The first run: numbers are new channels, and everything is written down.

    `ledger` holds numbers and ties, `sizes` each layer's positions (height, width), `constants`
    the names of buffers and parameters that are used directly and do more than multiply, `filters`
    the channels, and the MACs for each, of what filters channels without being a layer, `mixing`
    the operations in which each channel depends on others.
    """

    def __init__(self, model: nn.Module, module: fx.GraphModule) -> None:
        super().__init__(model, module)
        self.ledger = Ledger()
        self.standardised = standardised_layers(module)
        self.sizes: dict[str, tuple[int, int]] = {}
        self.constants: set[str] = set()
        self.filters: dict[str, tuple[Tensor, int]] = {}
        self.mixing: list[str] = []
        self.scalars: dict[str, tuple[float, ...]] = {}  # that a node's tensor meets
        self.owners: dict[int, str] = {}  # of weights, by their id

    def layer(self, name: str, module: nn.Module, numbers: Tensor) -> Tensor:
        self._owns(name, module)
        height, width = self._positions(module)
        if name in self.ledger.layers:  # the same filters once more
            read, written = self.ledger.layers[name]
            self.tie(read, numbers, "read by the same layer")
            before = self.sizes[name]
            self.sizes[name] = (before[0] * before[1] + height * width, 1)
            return written
        self.sizes[name] = (height, width)
        if isinstance(module, nn.Linear):
            written = self.ledger.new(module.out_features, name)
        else:
            assert isinstance(module, Convolution)
            written = self.ledger.new(module.out_channels, name)
            self._tie_convolution_groups(name, module, numbers, written)
        self.ledger.layers[name] = (numbers, written)
        if how := self.standardised.get(name):
            self.mixed()
            if how.gain is not None:
                gain = self.direct(how.gain, getattr(module, how.gain.rpartition(".")[2]))
                self.tie(written, gain.flatten(), "multiplied")
        return written

    def _positions(self, module: nn.Module) -> tuple[int, int]:
        """Where the kernel is applied: of a transposed convolution at what it reads."""
        shape = self.node.meta["shape"]
        if isinstance(module, nn.ConvTranspose2d):
            (before,) = self.node.all_input_nodes
            shape = before.meta["shape"]
        if not isinstance(module, nn.Linear):
            return shape[0] * shape[2], shape[3]
        image = len(shape) == 4 and shape[0] == 1
        return (shape[1], shape[2]) if image else (math.prod(shape[:-1]), 1)

    def _owns(self, name: str, module: nn.Module) -> None:
        """What is cut with a layer or normalisation belongs to it, and to nobody else."""
        if "weight" not in module._parameters and not isinstance(module, Norm):
            self.refuse("a layer whose weight is computed")
        for kind in ("weight", "bias", "running_mean", "running_var"):
            tensor = module._parameters.get(kind, module._buffers.get(kind))
            if tensor is not None and self.owners.setdefault(id(tensor), name) != name:
                self.refuse(
                    f"a layer that shares another one's {kind}, that of {self.owners[id(tensor)]}"
                )

    def _tie_convolution_groups(
        self, name: str, module: Convolution, numbers: Tensor, written: Tensor
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
        self._owns(name, self.submodules[name])
        if name in self.ledger.norms:
            self.tie(self.ledger.norms[name], numbers, "normalised by the same module")
        else:
            self.ledger.norms[name] = numbers

    def direct(self, name: str, value: Tensor) -> Tensor:
        if self.owners.setdefault(id(value), name) != name:
            self.refuse(f"a parameter of {self.owners[id(value)]}, used directly too")
        axis = direct_axis(value)
        if axis is None:
            self.refuse("a parameter with more than one axis, used directly")
        if name not in self.ledger.direct:
            self.ledger.direct[name] = self.ledger.new(value.shape[axis] if value.ndim else 1, name)
        alone = self.node.op == "get_attr"  # else it is an operation's, as the slopes of a PReLU
        is_scale = isinstance(value, nn.Parameter) and all(map(_multiplies, self.node.users))
        if not (alone and is_scale):
            self.constants.add(name)
        return in_shape(self.ledger.direct[name], value)

    def made(self, count: int) -> Tensor:
        return self.ledger.new(count, self.node.name, fixed=True).flatten()

    def mixed(self) -> None:
        self.mixing.append(self.node.name)

    def scaled(self, numbers: tuple[float, ...]) -> None:
        self.scalars[self.node.name] = numbers

    def filtered(self, numbers: Tensor, macs: int) -> None:
        self.filters[self.node.name] = (numbers, macs)

    def tie(self, one: Tensor, other: Tensor, how: str) -> None:
        first, second = self.ledger.owner(one), self.ledger.owner(other)
        self.ledger.tie(one, other, f"{first} and {second} are {how}")

    def fix(self, numbers: Tensor, reason: str) -> None:
        self.ledger.fix(numbers, reason)


class Replay(Flow):
    """The second run: numbers are units, some are gone, and every layer must agree.

    Raises `UnsupportedNetwork` at the first operation that reads others than the first run says.
    """

    unexpected = "an operation that breaks when channels go"

    def __init__(
        self,
        model: nn.Module,
        module: fx.GraphModule,
        recorder: Recorder,
        units: Units,
        mask: UnitMask,
    ) -> None:
        super().__init__(model, module)
        self.ledger, self.units, self.recorder = recorder.ledger, units, recorder
        self.mask = mask

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
        return in_shape(self._narrowed(self.ledger.direct[name]), value)

    def made(self, count: int) -> Tensor:
        owner = self.node.name
        start = self.ledger.starts[self.ledger.owners.index(owner)]
        return self.units.labels(torch.arange(start, start + count))

    def scaled(self, numbers: tuple[float, ...]) -> None:
        if numbers != self.recorder.scalars[self.node.name]:  # computed from a number of channels
            self.recorder.mixing.append(self.node.name)

    def filtered(self, numbers: Tensor, macs: int) -> None:
        pass

    def tie(self, one: Tensor, other: Tensor, how: str) -> None:
        self._agree(one, other)

    def fix(self, numbers: Tensor, reason: str) -> None:
        pass

    def _agree(self, one: Tensor, other: Tensor) -> None:
        if not torch.equal(one, other):
            self.refuse("an operation that mixes channels up when some go")


def masks(units: Units) -> Iterator[UnitMask]:
    """What is tried: half of each group's units at random, at least one; then the first ones, of
    every group another share. Equal shares and scattered units hide code that relates the width of
    one group to that of another, or counts units from some place on.
    """
    generator = torch.Generator().manual_seed(0)
    for scattered in (True, False):
        mask = torch.zeros(units.count + 1, dtype=torch.bool)
        mask[-1] = True
        for group, share in zip(units.groups, cycle(SHARES), strict=False):
            if group.prunable:
                number = group.width // group.unit
                if scattered:
                    chosen = torch.randperm(number, generator=generator)[: max(1, number // 2)]
                else:  # one channel alone does not show where channels lie
                    chosen = torch.arange(min(number, max(2, int(share * number))))
                mask[group.first + chosen] = True
        yield mask


def in_shape(numbers: Tensor, value: Tensor) -> Tensor:
    """The numbers of a parameter's channels in the shape that it has at that many channels."""
    axis = direct_axis(value)
    assert axis is not None
    shape = [len(numbers) if one == axis else 1 for one in range(value.ndim)]
    sizes = [len(numbers) if one == axis else size for one, size in enumerate(value.shape)]
    return numbers.view(shape).expand(sizes)


def _multiplies(node: fx.Node) -> bool:
    return node.target in (operator.mul, operator.imul, torch.mul, "mul", "mul_")
