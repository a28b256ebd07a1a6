"""A network as a graph: convolution and linear layers are nodes, tied channels are groups.

The words: a *unit* is the smallest set of channels that can only stay or go together (one channel
of each layer that is added to another; the same channel of every part of a grouped convolution).
A *group* is all units that are alike, so a width vector has one entry per prunable group.
`trace` makes the graph; everything else of this package reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, fx, nn

from graphpruning.common.errors import UserError

Widths = Mapping[str, int]
"""Channels kept by each prunable group, keyed by group id."""

Channels = Tensor
"""int64 [channels]: the unit that each channel of a tensor belongs to, or `FIXED`."""

FIXED = -1
"""In place of a unit: a channel that nothing can prune."""

OUTPUT = "the network's output"
"""Why the last layer's channels stay."""

UnitMask = Tensor
"""bool [units + 1]: which units stay. The last entry, which `FIXED` indexes, is True."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A node: one convolution or linear layer at full width.

    `inputs` and `outputs` are the units of the channels that it reads and writes, `reads` and
    `writes` the groups of those. `groups` are the parts of a grouped convolution (1 of any other
    layer); a `transposed` convolution's filters are counted as any other's. `output_size` (height,
    width) counts the positions at which the filters are applied: of a linear layer too, of a
    transposed convolution those that it reads, and of a layer that is called twice those of both
    calls, as (all, 1). `depth` is the longest path from the input image in layers; `block` is the
    module that encloses the layer (a residual block, an inverted residual), or the layer itself.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    output_size: tuple[int, int]
    groups: int
    transposed: bool
    bias: bool
    depth: int
    block: str
    inputs: Channels
    outputs: Channels
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def group(self) -> str:
        """Id of the group that the (first) output channels belong to."""
        return self.writes[0]

    @property
    def fan_in(self) -> int:
        """Input channels that each filter reads: the size of the weight's second axis."""
        return self.in_channels // self.groups

    @property
    def columns(self) -> Channels:
        """Units of the weight's second axis.

        All parts of a grouped convolution keep the same channels, so the first part's say it. A
        depthwise filter reads its own channel only, which goes with the whole filter.
        """
        if self.kind == "depthwise":
            return torch.full((self.fan_in,), FIXED)
        return self.inputs[: self.fan_in]

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image at full width."""
        area = self.kernel[0] * self.kernel[1] * self.output_size[0] * self.output_size[1]
        return self.fan_in * self.out_channels * area


@dataclass(frozen=True)
class Edge:
    """`target` reads what `source` wrote; `shortcut` when it skips a deeper branch."""

    source: str
    target: str
    shortcut: bool


@dataclass(frozen=True)
class Group:
    """Layers whose output channels stay equal; `reason` says why they are tied or fixed.

    `width` counts channels of the first layer, of which each unit has `unit`; a prunable group's
    units are number `first` and those that follow.
    """

    id: str
    width: int
    unit: int
    first: int
    layers: tuple[str, ...]
    prunable: bool
    reason: str


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """What `trace` found; layers and groups stand in forward order.

    `norms` maps each normalisation to the units of its channels, `scales` each parameter that
    multiplies channels (such as ConvNeXt's layer scale), and `constants` the buffers and other
    parameters that are used directly. `filters` maps what filters every channel without being a
    layer (a blur, ECA's filter over channels) to its channels and the MACs that each costs.
    `mixing` names operations in which channels depend on each other, as in a layer normalisation.
    `rest` maps each parameter that has no channels, such as the slope of a PReLU, to its number of
    values. `module` is the traced network, which `Subnet` runs at other widths.
    """

    layers: tuple[Layer, ...]
    edges: tuple[Edge, ...]
    groups: tuple[Group, ...]
    norms: dict[str, Channels]
    scales: dict[str, Channels]
    constants: dict[str, Channels]
    filters: dict[str, tuple[Channels, int]]
    mixing: tuple[str, ...]
    rest: dict[str, int]
    input_size: tuple[int, ...]
    module: fx.GraphModule = field(repr=False)

    @cached_property
    def prunable(self) -> dict[str, Group]:
        """The groups that a width vector decides, by id."""
        return {group.id: group for group in self.groups if group.prunable}

    @property
    def full_widths(self) -> dict[str, int]:
        """Every prunable group at its full width."""
        return {group.id: group.width for group in self.prunable.values()}

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image at full width."""
        others = sum(len(channels) * each for channels, each in self.filters.values())
        return sum(layer.macs for layer in self.layers) + others

    def layer(self, name: str) -> Layer:
        """Return the layer called `name`; KeyError when there is none."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    def check(self, widths: Widths) -> None:
        """Raise `UserError` unless `widths` has every prunable group, each within its range."""
        if wrong := sorted(set(widths) ^ set(self.prunable)):
            what = "unknown to this network" if wrong[0] in widths else "missing"
            names = list(self.prunable)
            raise UserError(f"widths: group {wrong[0]!r} is {what}; its groups are {names}")
        for name, width in widths.items():
            group = self.prunable[name]
            if not isinstance(width, Integral):
                raise UserError(f"widths: {name!r} keeps {width!r} channels: no whole number")
            if not 1 <= width <= group.width:
                raise UserError(f"widths: {name!r} keeps {width} of {group.width} channels")
            if width % group.unit:
                raise UserError(
                    f"widths: {name!r} keeps {width} channels, but they only go {group.unit} at a "
                    f"time ({group.reason})"
                )

    def first_units(self, widths: Widths) -> UnitMask:
        """The mask that keeps the first units of each group, as many as `widths` says."""
        mask = self._nothing()
        for name, group in self.prunable.items():
            mask[group.first : group.first + widths[name] // group.unit] = True
        return mask

    def these_units(self, keep: Mapping[str, Tensor]) -> UnitMask:
        """The mask that keeps the given units of each group (numbered within it)."""
        mask = self._nothing()
        for name, index in keep.items():
            mask[self.prunable[name].first + index] = True
        return mask

    def _nothing(self) -> UnitMask:
        units = sum(group.width // group.unit for group in self.prunable.values())
        mask = torch.zeros(units + 1, dtype=torch.bool)
        mask[FIXED] = True
        return mask

    def describe(self) -> dict[str, Any]:
        """Return layers, edges and groups as plain data for JSON."""
        return {
            "input_size": list(self.input_size),
            "macs": self.macs,
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "in": layer.in_channels,
                    "out": layer.out_channels,
                    "kernel": list(layer.kernel),
                    "stride": list(layer.stride),
                    "output": list(layer.output_size),
                    "macs": layer.macs,
                    "group": layer.group,
                }
                for layer in self.layers
            ],
            "edges": [[edge.source, edge.target, edge.shortcut] for edge in self.edges],
            "groups": [
                {
                    "id": group.id,
                    "width": group.width,
                    "layers": list(group.layers),
                    "prunable": group.prunable,
                    "reason": group.reason,
                }
                for group in self.groups
            ],
        }


def direct_tensor(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer called `name`, which no layer or normalisation owns."""
    owner, _, attribute = name.rpartition(".")
    value: Tensor = getattr(model.get_submodule(owner), attribute)
    return value


def direct_axis(value: Tensor) -> int | None:
    """The axis of a parameter's channels: the only one that is longer than 1; None of several.

    A filter for each channel, [channels, 1, height, width], has them first.
    """
    if value.ndim == 4 and value.shape[1] == 1 and value.shape[2] == value.shape[3] > 1:
        return 0
    longer = [axis for axis, size in enumerate(value.shape) if size > 1]
    return None if len(longer) > 1 else (longer or [0])[0]


@torch.no_grad()
def copy_rest(graph: ChannelGraph, source: nn.Module, target: nn.Module) -> None:
    """Give `target` the parameters without channels that `source` has; both of the same network.

    What no operation reads is in none of the traced networks, and stays.
    """
    found, wanted = dict(source.named_parameters()), dict(target.named_parameters())
    for name in graph.rest:
        if name in found and name in wanted:
            wanted[name].copy_(found[name])


def cut_direct(value: Tensor, index: Tensor) -> Tensor:
    """A tensor such as [channels, 1, 1] with the channels of `index` along their axis."""
    axis = direct_axis(value)
    assert axis is not None
    if not value.ndim:  # one number, which meets all channels
        return value
    return value.index_select(axis, index.to(value.device))


def kept(channels: Channels, mask: UnitMask) -> Tensor:
    """Positions (int64, ascending) of the channels whose units stay."""
    return mask[channels].nonzero().flatten()
