"""A network as a graph: convolution and linear layers are nodes, tied channels are groups.

`trace` follows the channels of every tensor through the network. Two layers whose channels
must stay equal in number (they are added, or one is the depthwise filter of the other) end up in
one group; a width vector has one entry per prunable group.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from graphpruning.errors import UnsupportedNetwork, UserError

Widths = Mapping[str, int]
"""Channels kept by each prunable group, keyed by group id."""


@dataclass(frozen=True)
class Segment:
    """A run of channels: `size` channels of `group`, each `repeat` times in a row.

    `group` is None for channels that nothing can prune (the input image). `repeat` is above 1
    where a feature map was flattened: each channel became height x width features.
    """

    group: str | None
    size: int
    repeat: int = 1


@dataclass(frozen=True)
class Layer:
    """A node: one convolution or linear layer at full width.

    `inputs` and `outputs` say which groups' channels it reads and writes; `macs` counts one
    image; `depth` is the longest path from the input image in layers; `block` is the module that
    encloses it (a residual block, an inverted residual), or the layer itself.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    output_size: tuple[int, int]
    bias: bool
    depth: int
    block: str
    inputs: tuple[Segment, ...]
    outputs: tuple[Segment, ...]

    @property
    def group(self) -> str:
        """Id of the group that the output channels belong to."""
        return str(self.outputs[0].group)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image at full width."""
        inputs = 1 if self.kind == "depthwise" else self.in_channels
        area = self.kernel[0] * self.kernel[1] * self.output_size[0] * self.output_size[1]
        return inputs * self.out_channels * area


@dataclass(frozen=True)
class Edge:
    """`target` reads what `source` wrote; `shortcut` when it skips a deeper branch."""

    source: str
    target: str
    shortcut: bool


@dataclass(frozen=True)
class Group:
    """Layers whose output channels stay equal; `reason` says why they are tied or fixed."""

    id: str
    width: int
    layers: tuple[str, ...]
    prunable: bool
    reason: str


@dataclass(frozen=True)
class ChannelGraph:
    """What `trace` found; layers and groups stand in forward order.

    `norms` maps each batch normalisation to the channels it works on; `module` is the traced
    network, which `Subnet` runs at other widths.
    """

    layers: tuple[Layer, ...]
    edges: tuple[Edge, ...]
    groups: tuple[Group, ...]
    norms: dict[str, tuple[Segment, ...]]
    input_size: tuple[int, ...]
    module: fx.GraphModule = field(repr=False, compare=False)

    @property
    def full_widths(self) -> dict[str, int]:
        """Every prunable group at its full width."""
        return {group.id: group.width for group in self.groups if group.prunable}

    def layer(self, name: str) -> Layer:
        """Return the layer called `name`; KeyError when there is none."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    def check(self, widths: Widths) -> None:
        """Raise `UserError` unless `widths` has every prunable group, each within its range."""
        full = self.full_widths
        if wrong := sorted(set(widths) ^ set(full)):
            what = "unknown to this network" if wrong[0] in widths else "missing"
            raise UserError(f"widths: group {wrong[0]!r} is {what}; its groups are {list(full)}")
        for group, width in widths.items():
            if not 1 <= width <= full[group]:
                raise UserError(f"widths: {group!r} keeps {width} of {full[group]} channels")

    def describe(self) -> dict[str, Any]:
        """Return layers, edges and groups as plain data for JSON."""
        return {
            "input_size": list(self.input_size),
            "macs": sum(layer.macs for layer in self.layers),
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


def trace(model: nn.Module, input_size: tuple[int, ...] = (3, 32, 32)) -> ChannelGraph:
    """Follow the channels of `model` on one image of `input_size` (channels, height, width).

    Raises `UnsupportedNetwork` for an operation that is not known to keep channels apart.
    """
    return _Tracer(model, tuple(input_size)).graph()


@dataclass(frozen=True)
class _Value:
    """What is known of a tensor: its channels, the layers that wrote it, how deep it is.

    `sources` maps a layer to True where every way from it to here is a shortcut.
    """

    channels: tuple[Segment, ...]
    sources: dict[str, bool]
    depth: int


_KEEP_CHANNELS_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Dropout,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
_KEEP_CHANNELS_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    torch.relu,
    torch.sigmoid,
    F.relu,
    F.relu6,
    F.silu,
    F.gelu,
    F.hardswish,
    F.hardsigmoid,
    F.dropout,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
)
_ADDITIONS: tuple[Callable[..., Any], ...] = (operator.add, operator.iadd, torch.add)
_PRODUCTS: tuple[Callable[..., Any], ...] = (operator.mul, operator.imul, torch.mul)
_SUPPORTED = (
    "convolution, depthwise convolution, linear, batch normalisation, activations, pooling, "
    "addition, product, concatenation of channels, flatten and mean over positions"
)


class _Tracer:
    def __init__(self, model: nn.Module, input_size: tuple[int, ...]) -> None:
        self.model = model
        self.input_size = input_size
        self.module = self._shaped_module()
        self.modules = dict(self.module.named_modules())
        self.values: dict[str, _Value] = {}
        self.drafts: list[Layer] = []
        self.edges: list[Edge] = []
        self.norms: dict[str, tuple[Segment, ...]] = {}
        self.parent: dict[str, str] = {}  # union-find over layers, the earliest is the root
        self.order: dict[str, int] = {}
        self.reasons: dict[str, list[str]] = {}
        self.fixed: dict[str, str] = {}

    def _shaped_module(self) -> fx.GraphModule:
        """Trace in evaluation mode, then run one blank image for the shapes."""
        modes = [(part, part.training) for part in self.model.modules()]
        self.model.eval()
        try:
            module = self._symbolic()
            module.eval()
            reference = next(self.model.parameters())
            blank = torch.zeros(1, *self.input_size, device=reference.device)
            with torch.no_grad():
                ShapeProp(module).propagate(blank.to(reference.dtype))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{type(self.model).__name__} does not run on an image of {self.input_size}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        finally:
            for part, training in modes:
                part.training = training
        return module

    def _symbolic(self) -> fx.GraphModule:
        try:
            return fx.symbolic_trace(self.model)
        except Exception as error:  # torch.fx raises whatever the model's own code raises
            reason = " ".join(str(error).split())
            raise UnsupportedNetwork(
                f"{type(self.model).__name__} cannot be traced by torch.fx ({reason}); make its "
                "control flow independent of the input, or trace the part that is convolutional"
            ) from error

    def graph(self) -> ChannelGraph:
        for node in self.module.graph.nodes:
            self._visit(node)
        layers = tuple(self._resolved(layer) for layer in self.drafts)
        return ChannelGraph(
            layers=layers,
            edges=tuple(self.edges),
            groups=self._groups(layers),
            norms={name: self._roots(channels) for name, channels in self.norms.items()},
            input_size=self.input_size,
            module=self.module,
        )

    # One method a kind of fx node.

    def _visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            channels = (Segment(None, self.input_size[0]),)
            self.values[node.name] = _Value(channels, {}, 0)
        elif node.op == "output":
            self._fix_output(node)
        elif node.op == "call_module":
            self._visit_module(node)
        elif node.op in ("call_function", "call_method"):
            self._visit_operation(node)
        elif node.op == "get_attr":
            self._refuse(node, "a parameter or buffer used directly")

    def _visit_module(self, node: fx.Node) -> None:
        name = str(node.target)
        module = self.modules[name]
        value = self._operands(node)[0]
        if isinstance(module, nn.Conv2d | nn.Linear):
            self.values[node.name] = self._add_layer(node, name, module, value)
        elif isinstance(module, nn.BatchNorm2d):
            self.norms[name] = value.channels
            self.values[node.name] = value
        elif isinstance(module, nn.Flatten):
            self.values[node.name] = self._flattened(node, value)
        elif isinstance(module, _KEEP_CHANNELS_MODULES):
            self.values[node.name] = value
        else:
            self._refuse(node, type(module).__name__)

    def _visit_operation(self, node: fx.Node) -> None:
        target = node.target
        operands = self._operands(node)
        if not operands:  # arithmetic on sizes, not on tensors
            return
        if target in _ADDITIONS or target in ("add", "add_"):
            self.values[node.name] = self._tied(node, operands, "added", bypass=True)
        elif target in _PRODUCTS or target in ("mul", "mul_"):
            self.values[node.name] = self._tied(node, operands, "multiplied", bypass=False)
        elif target in (torch.cat, torch.concat):
            self.values[node.name] = self._concatenated(node, operands)
        elif target in (torch.flatten, "flatten"):
            self.values[node.name] = self._flattened(node, operands[0])
        elif target in (torch.mean, "mean"):
            self.values[node.name] = self._averaged(node, operands[0])
        elif target in _KEEP_CHANNELS_FUNCTIONS or target in ("relu", "sigmoid", "contiguous"):
            self.values[node.name] = operands[0]
        elif target is getattr or target in ("size", "dim"):
            return
        else:
            self._refuse(node, getattr(target, "__name__", str(target)))

    def _add_layer(
        self, node: fx.Node, name: str, module: nn.Conv2d | nn.Linear, value: _Value
    ) -> _Value:
        if name in self.order:
            self._refuse(node, "a layer called twice")
        height, width = (*_shape(node)[2:], 1, 1)[:2]
        if isinstance(module, nn.Linear):
            kind, kernel, stride = "linear", (1, 1), (1, 1)
            full_in, full_out = module.in_features, module.out_features
            if len(_shape(node)) != 2:
                self._refuse(node, "a linear layer over positions")
        else:
            kernel = (module.kernel_size[0], module.kernel_size[1])
            stride = (module.stride[0], module.stride[1])
            full_in, full_out = module.in_channels, module.out_channels
            kind = self._kind(node, module)
        depth = value.depth + 1
        self.order[name] = len(self.order)
        self.parent[name] = name
        # A depthwise filter belongs to the channel it filters: its output is its input's group.
        outputs = value.channels if kind == "depthwise" else (Segment(name, full_out),)
        draft = Layer(
            name=name,
            kind=kind,
            in_channels=full_in,
            out_channels=full_out,
            kernel=kernel,
            stride=stride,
            output_size=(height, width),
            bias=module.bias is not None,
            depth=depth,
            block=self._block(name),
            inputs=value.channels,
            outputs=outputs,
        )
        self.drafts.append(draft)
        self.edges += [Edge(source, name, flag) for source, flag in value.sources.items()]
        if kind == "depthwise":
            for group in {segment.group for segment in outputs} - {None}:
                reason = f"{name} filters each channel of {group}"
                self.reasons.setdefault(self._root(str(group)), []).append(reason)
        return _Value(outputs, {name: False}, depth)

    def _kind(self, node: fx.Node, module: nn.Conv2d) -> str:
        if module.padding_mode != "zeros":
            self._refuse(node, f"a convolution with {module.padding_mode} padding")
        if module.groups == 1:
            return "pointwise" if module.kernel_size == (1, 1) else "convolution"
        if module.groups == module.in_channels == module.out_channels:
            return "depthwise"
        return self._refuse(node, f"a convolution in {module.groups} groups")

    def _tied(self, node: fx.Node, operands: list[_Value], how: str, bypass: bool) -> _Value:
        """Operands of an addition or product: their channels stay equal in number.

        At an addition the branches that are shallower than the deepest are its shortcuts.
        """
        first, deepest = operands[0], max(value.depth for value in operands)
        for value in operands[1:]:
            if _sizes(value.channels) != _sizes(first.channels):
                self._refuse(node, f"tensors of other channel structure {how}")
            for mine, other in zip(first.channels, value.channels, strict=True):
                self._tie(mine.group, other.group, f"{mine.group} and {other.group} are {how}")
        return _Value(first.channels, _sources(operands, deepest, bypass), deepest)

    def _concatenated(self, node: fx.Node, operands: list[_Value]) -> _Value:
        dimension = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if dimension not in (1, 1 - len(_shape(node))):
            self._refuse(node, "a concatenation that is not over channels")
        channels = tuple(segment for value in operands for segment in value.channels)
        deepest = max(value.depth for value in operands)
        return _Value(channels, _sources(operands, deepest, True), deepest)

    def _flattened(self, node: fx.Node, value: _Value) -> _Value:
        before = _shape(node.all_input_nodes[0])
        if len(_shape(node)) != 2:
            self._refuse(node, "a flatten that mixes more than channels and positions")
        positions = 1
        for size in before[2:]:
            positions *= size
        channels = tuple(Segment(s.group, s.size, s.repeat * positions) for s in value.channels)
        return _Value(channels, value.sources, value.depth)

    def _averaged(self, node: fx.Node, value: _Value) -> _Value:
        before, after = _shape(node.all_input_nodes[0]), _shape(node)
        if len(before) != 4 or after[:2] != before[:2]:
            self._refuse(node, "a mean over channels")
        return value

    def _fix_output(self, node: fx.Node) -> None:
        for value in self._operands(node):
            for segment in value.channels:
                if segment.group is not None:
                    self.fixed[segment.group] = "the network's output"

    # Union-find, blocks, groups.

    def _root(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def _tie(self, one: str | None, other: str | None, reason: str) -> None:
        if one is None or other is None:
            for group in (one, other):
                if group is not None:
                    self.fixed[group] = "tied to the input image"
            return
        first, second = sorted((self._root(one), self._root(other)), key=self.order.__getitem__)
        if first != second:
            self.parent[second] = first
        self.reasons.setdefault(first, [])
        self.reasons[first] += [reason, *self.reasons.pop(second, [])] if first != second else []

    def _roots(self, channels: tuple[Segment, ...]) -> tuple[Segment, ...]:
        return tuple(
            Segment(self._root(s.group) if s.group else None, s.size, s.repeat) for s in channels
        )

    def _resolved(self, layer: Layer) -> Layer:
        values = dict(layer.__dict__)
        values.update(inputs=self._roots(layer.inputs), outputs=self._roots(layer.outputs))
        return Layer(**values)

    def _groups(self, layers: tuple[Layer, ...]) -> tuple[Group, ...]:
        fixed = {self._root(name): reason for name, reason in self.fixed.items()}
        members: dict[str, list[Layer]] = {}
        for layer in layers:
            for segment in layer.outputs:
                if segment.group is not None and layer not in members.get(segment.group, []):
                    members.setdefault(segment.group, []).append(layer)
        groups = []
        for root, tied in members.items():
            ties = fixed.get(root) or "; ".join(self.reasons.get(root, [])) or "its own channels"
            width = next(s.size for s in tied[0].outputs if s.group == root)
            names = tuple(layer.name for layer in tied)
            groups.append(Group(root, width, names, root not in fixed, ties))
        return tuple(groups)

    def _block(self, name: str) -> str:
        """The nearest enclosing module that is neither a plain sequence nor the whole network."""
        parts = name.split(".")
        for end in range(len(parts) - 1, 0, -1):
            enclosing = ".".join(parts[:end])
            if not isinstance(self.model.get_submodule(enclosing), nn.Sequential | nn.ModuleList):
                return enclosing
        return name

    def _operands(self, node: fx.Node) -> list[_Value]:
        return [self.values[n.name] for n in node.all_input_nodes if n.name in self.values]

    def _refuse(self, node: fx.Node, what: str) -> Any:
        raise UnsupportedNetwork(
            f"{type(self.model).__name__}: {node.target} ({node.op}) is {what}, which is not "
            f"supported; supported are {_SUPPORTED}"
        )


def _shape(node: fx.Node) -> tuple[int, ...]:
    shape = getattr(node.meta.get("tensor_meta"), "shape", ())
    return tuple(shape)


def _sizes(channels: tuple[Segment, ...]) -> list[tuple[int, int]]:
    return [(segment.size, segment.repeat) for segment in channels]


def _sources(operands: list[_Value], deepest: int, bypass: bool) -> dict[str, bool]:
    """Union of the operands' sources; shallower operands are shortcuts where `bypass` is true."""
    merged: dict[str, bool] = {}
    for value in operands:
        for source, flag in value.sources.items():
            shortcut = flag or (bypass and value.depth < deepest)
            merged[source] = merged.get(source, True) and shortcut
    return merged


def kept(segments: tuple[Segment, ...], keep: Mapping[str, Tensor]) -> Tensor:
    """Positions of the kept channels within a tensor made of `segments`.

    `keep` gives each group's kept channels, ascending; channels of no group in it all stay.
    Returns an index tensor (int64), ascending.
    """
    parts, offset = [], 0
    for segment in segments:
        index = keep.get(segment.group) if segment.group is not None else None
        if index is None:
            index = torch.arange(segment.size)
        positions = index[:, None] * segment.repeat + torch.arange(segment.repeat)
        parts.append(offset + positions.flatten())
        offset += segment.size * segment.repeat
    return torch.cat(parts)


def kept_count(segments: tuple[Segment, ...], widths: Widths) -> int:
    """Number of channels that `segments` hold at `widths`."""
    return sum(widths.get(s.group or "", s.size) * s.repeat for s in segments)
