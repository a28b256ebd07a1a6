"""The two runs on channel numbers: the first writes the ties down, the second checks them."""

import math
import operator

import torch
from torch import Tensor, fx, nn

from graphpruning.network.flow import Flow
from graphpruning.network.graph import UnitMask, kept
from graphpruning.network.units import Ledger, Units


class Recorder(Flow):
    """The first run: numbers are new channels, and everything is written down.

    `ledger` holds numbers and ties, `sizes` each layer's positions (height, width), `constants`
    the names of buffers and parameters that are used directly and do more than multiply.
    """

    def __init__(self, model: nn.Module, module: fx.GraphModule) -> None:
        super().__init__(model, module)
        self.ledger = Ledger()
        self.sizes: dict[str, tuple[int, int]] = {}
        self.constants: set[str] = set()
        self.weights: set[int] = set()

    def layer(self, name: str, module: nn.Module, numbers: Tensor) -> Tensor:
        if name in self.ledger.layers:
            self.refuse("a layer called twice")
        weight = module._parameters.get("weight")
        if weight is None:
            self.refuse("a layer whose weight is computed, as by weight normalisation")
        if id(weight) in self.weights:
            self.refuse("a layer that shares another one's weight")
        self.weights.add(id(weight))
        shape = self.node.meta["shape"]
        if isinstance(module, nn.Conv2d):
            self.sizes[name] = (shape[0] * shape[2], shape[3])
        else:
            image = len(shape) == 4 and shape[0] == 1
            self.sizes[name] = (shape[1], shape[2]) if image else (math.prod(shape[:-1]), 1)
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
            self.refuse("a normalisation called twice")
        self.ledger.norms[name] = numbers

    def direct(self, name: str, value: Tensor) -> Tensor:
        if sum(size > 1 for size in value.shape) > 1:
            self.refuse("a parameter with more than one axis, used directly")
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


class Replay(Flow):
    """The second run: numbers are units, some are gone, and every layer must agree.

    Raises `UnsupportedNetwork` at the first operation that reads others than the first run says.
    """

    unexpected = "an operation that breaks when channels go"

    def __init__(
        self, model: nn.Module, module: fx.GraphModule, recorder: Recorder, units: Units
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
            self.refuse("an operation that mixes channels up when some go")


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


def _multiplies(node: fx.Node) -> bool:
    return node.target in (operator.mul, operator.imul, torch.mul, "mul", "mul_")
