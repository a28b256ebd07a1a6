"""Measured times of layers on this device, and what they say of a network of any widths.

A layer is measured as the network runs it: with the normalisation and activation that follow it
directly, on a batch of the shape that it gets there, at a grid of channels read and written. What
is no layer (pooling, sums, calls) is one remainder; it and one factor for all layers are fitted to
a few measured networks. Such a sum misses single networks by some percent; one that matters is
therefore measured as a whole. The file keeps everything that was measured, so nothing is measured
twice.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor, fx, nn

from graphpruning.common.errors import UserError
from graphpruning.common.files import read_json, write_json
from graphpruning.common.machine import processor
from graphpruning.latency import alternately, latency
from graphpruning.network.cost import Counts
from graphpruning.network.graph import ChannelGraph, Layer, Widths
from graphpruning.network.latency_cost import Latency, LayerTimes
from graphpruning.network.leaves import Convolution, as_stored, filters
from graphpruning.network.reading import Reading
from graphpruning.network.surgery import narrow
from graphpruning.network.widths import SearchSpace

KNOTS = 5
"""Widths of a layer's grid along each side, smallest and largest included."""
REPEATS = 21
SAMPLES = 6
"""Random networks to which the remainder is fitted, besides the largest and the smallest."""
TOGETHER = 2**28
"""Bytes of weights and inputs that are measured in turns."""
FUNCTIONS = {"relu", "relu_", "relu6", "silu", "hardswish", "hardsigmoid", "sigmoid", "gelu"}
"""Activations that a layer is measured with, where a network calls them as functions."""


@dataclass(frozen=True)
class Setting:
    """Where and how times are measured; times of another setting say nothing here."""

    device: str
    batch: int
    threads: int
    pytorch: str

    @classmethod
    def of(cls, device: torch.device, batch: int) -> "Setting":
        """The setting of this process."""
        on_cpu = device.type == "cpu"
        name = processor() if on_cpu else torch.cuda.get_device_name(device)
        threads = torch.get_num_threads() if on_cpu else 0
        return cls(name, batch, threads, str(torch.__version__))


class LatencyTable:
    """Milliseconds by layer and widths, in the file `path`, which need not exist yet.

    Raises `UserError` when the file holds times of another device, batch or number of threads.
    """

    def __init__(self, path: str | Path, device: torch.device, batch: int = 1) -> None:
        if batch < 1:
            raise UserError(f"batch is {batch}; at least one image is timed")
        self.path, self.device, self.batch = Path(path), device, batch
        self.setting = Setting.of(device, batch)
        self.layers: dict[str, float] = {}
        self.networks: dict[str, dict[str, Any]] = {}
        self.checked: dict[str, float] = {}
        if self.path.exists():
            self._read()

    def of(self, model: nn.Module, space: SearchSpace) -> Latency:
        """Return the time of any network of `space`, the channels of `model`; measure what lacks.

        `model` is the full network, and stays as it is.
        """
        grids = list(_grids(model, space, self.batch))
        self._measure([(key, make) for grid in grids for key, make in grid.cells()])
        times = [grid.times(self.layers) for grid in grids]
        return Latency(space.cost, times, *self._fitted(model, space, times))

    def check(self, model: nn.Module, space: SearchSpace, widths: Widths) -> float:
        """Return how many times longer than told the network of `widths` takes.

        It is measured beside the whole network, whose time counts as told: a machine that is
        faster or slower than before is so for both. The resource of `space` is what `of` returned.
        """
        key = hashlib.sha256(
            json.dumps(
                [space.used(space.full), space.used(space.smallest), space.vector(widths)]
            ).encode()
        ).hexdigest()[:16]
        if key not in self.checked:
            pair = [narrow(model, space.graph, each) for each in (space.full, widths)]
            whole, found = latency(pair, space.graph.input_size, self.device, self.batch)
            told = space.used(widths) / space.used(space.full)
            self.checked[key] = found / whole / told
            self._write()
        return self.checked[key]

    def _measure(self, cells: Sequence[tuple[str, "Make"]]) -> None:
        """Measure the cells whose times are not known."""
        wanted = {key: make for key, make in cells if key not in self.layers}
        for chunk in _chunks(wanted):
            calls = []
            for make in chunk.values():
                module, images = make()
                images = images.to(self.device)
                if images.ndim == 4:
                    images = images.contiguous(memory_format=torch.channels_last)
                    module = module.to(memory_format=torch.channels_last)
                calls.append(partial(module.to(self.device).eval(), images))
            with torch.no_grad():
                found = alternately(calls, self.device, REPEATS)
            self.layers |= dict(zip(chunk, found, strict=True))
            self._write()

    def _fitted(
        self, model: nn.Module, space: SearchSpace, times: Sequence[LayerTimes]
    ) -> tuple[float, float]:
        """The factor and the remainder with which whole networks are told best, in proportion."""
        key = _digest(space, times)
        if key not in self.networks:
            generator = torch.Generator().manual_seed(0)
            widths = [space.full, space.smallest]
            widths += [space.sample(generator) for _ in range(SAMPLES)]
            layers = Latency(space.cost, times)
            vectors = np.array([space.vector(each) for each in widths])
            sums = layers.layer_times(vectors).sum(axis=1) / 1e6
            models = [narrow(model, space.graph, each) for each in widths]
            measured = np.array(latency(models, space.graph.input_size, self.device, self.batch))
            rows = np.stack([sums, np.ones(len(sums))], axis=1) / measured[:, None]
            factor, remainder = nnls(rows, np.ones(len(sums)))[0]
            self.networks[key] = {
                "factor": float(factor),
                "remainder_ms": float(remainder),
                "layers_ms": sums.tolist(),
                "measured_ms": measured.tolist(),
            }
            self._write()
        fitted = self.networks[key]
        return fitted["factor"], fitted["remainder_ms"]

    def _read(self) -> None:
        held = read_json(self.path, "`prune` with a budget of time")
        try:
            setting, layers, networks = held["setting"], held["layers"], held["networks"]
            self.layers = {str(key): float(value) for key, value in layers.items()}
            self.networks = dict(networks)
            self.checked = {str(key): float(value) for key, value in held["checked"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{self.path} is no table of latencies: name another file") from None
        for name, here in vars(self.setting).items():
            if (there := setting.get(name)) != here:
                raise UserError(
                    f"{self.path} was measured with {name} {there}, here it is {here}: name "
                    "another --latency-table"
                )

    def _write(self) -> None:
        held = {
            "setting": vars(self.setting),
            "layers": self.layers,
            "networks": self.networks,
            "checked": self.checked,
        }
        write_json(self.path, held)


Make = Callable[[], tuple[nn.Module, Tensor]]
"""Makes what is measured, and what it is measured on."""


@dataclass(frozen=True)
class _Grid:
    """The widths at which a layer is measured: it, what follows it, and the shape of its input."""

    layer: Layer
    followers: tuple[Callable[[int], nn.Module], ...]
    module: nn.Module
    shape: tuple[int, ...]
    said: str
    reads: list[int]
    writes: list[int]

    def cells(self) -> Iterator[tuple[str, Make]]:
        """Name and maker of each pair of widths."""
        for read in self.reads:
            for written in self.writes:
                yield self._key(read, written), partial(self._make, read, written)

    def times(self, layers: Mapping[str, float]) -> LayerTimes:
        """The grid's times, from those by name."""
        rows = [
            [layers[self._key(read, written)] for written in self.writes] for read in self.reads
        ]
        return LayerTimes(self.reads, self.writes, np.array(rows))

    def _key(self, read: int, written: int) -> str:
        return f"{self.said}: {self._read(read, written)} to {written}"

    def _read(self, read: int, written: int) -> int:
        """A depthwise layer reads what it writes."""
        layer = self.layer
        depthwise = layer.kind == "depthwise"
        return written * layer.in_channels // layer.out_channels if depthwise else read

    def _make(self, read: int, written: int) -> tuple[nn.Module, Tensor]:
        read = self._read(read, written)
        axis = len(self.shape) - 1 if isinstance(self.module, nn.Linear) else 1
        shape = [read if at == axis else side for at, side in enumerate(self.shape)]
        layer = _narrowed_layer(self.module, self.layer, read, written)
        return nn.Sequential(layer, *(make(written) for make in self.followers)), torch.zeros(shape)


def _grids(model: nn.Module, space: SearchSpace, batch: int) -> Iterator[_Grid]:
    """The grid of each layer, in forward order."""
    shapes = _input_shapes(model, space.graph, batch)
    ends = np.array([space.vector(space.smallest), space.vector(space.full)])
    table = space.cost
    reads, writes = table.count(table.reads, ends), table.count(table.writes, ends)
    for number, layer in enumerate(space.graph.layers):
        module = model.get_submodule(layer.name)
        followers, names = _followers(model, space.graph, layer)
        parts = 1 if layer.kind == "depthwise" else layer.groups
        side = _knots(reads[:, number], parts)
        yield _Grid(
            layer,
            followers,
            module,
            shapes[layer.name],
            _said(module, layer, shapes[layer.name], names),
            side[-1:] if layer.kind == "depthwise" else side,
            _knots(writes[:, number], parts),
        )


def _knots(ends: Counts, multiple: int) -> list[int]:
    """Widths from one of the `ends` to the other, evenly apart.

    Between them are multiples of 8 where they can be. (Odd multiples of 8 take 3 to 8 % longer than
    their neighbours on a CPU. That is lost in a sum over layers: of ResNet-18, 9 widths a side told
    networks by 4.3 % on average and 11.8 % at worst, 5 by 6.1 % and 10.7 %, in half the time.)
    """
    least, most = map(int, ends)
    step = multiple * 8 if most - least >= 8 * multiple * KNOTS else multiple
    between = np.linspace(least, most, KNOTS)[1:-1]
    rounded = {round(value / step) * step for value in between}
    return sorted({least, most, *(width for width in rounded if least < width < most)})


def _said(module: nn.Module, layer: Layer, shape: tuple[int, ...], followers: list[str]) -> str:
    """All that a layer's time depends on, but its widths."""
    sides = [str(side) for side in shape]
    sides[-1 if isinstance(module, nn.Linear) else 1] = "C"
    words = [type(module).__name__, layer.kind, "x".join(sides)]
    if isinstance(module, Convolution):
        names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        words += [f"{name} {getattr(module, name)}" for name in names]
    words += [f"groups {layer.groups}"] * (layer.groups > 1 and layer.kind != "depthwise")
    words += ["bias"] * layer.bias
    return " ".join([*words, *(f"+ {name}" for name in followers)])


def _input_shapes(model: nn.Module, graph: ChannelGraph, batch: int) -> dict[str, tuple[int, ...]]:
    """The shape of what each layer reads of a batch."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, module: nn.Module, x: Tensor, output: Tensor) -> None:
        found[name] = (batch, *x.shape[1:])

    run = Reading(model, graph, {layer.name for layer in graph.layers}, note)
    parameter = next(model.parameters())
    training = model.training
    try:
        with torch.no_grad():
            image = torch.zeros(1, *graph.input_size, device=parameter.device)
            model.eval()
            run.run(image.to(parameter.dtype))
    finally:
        model.train(training)
    return found


def _followers(
    model: nn.Module, graph: ChannelGraph, layer: Layer
) -> tuple[tuple[Callable[[int], nn.Module], ...], list[str]]:
    """The normalisations and activations that nobody but the next one reads: makers, names."""
    node = next((n for n in graph.module.graph.nodes if n.target == layer.name), None)
    makers: list[Callable[[int], nn.Module]] = []
    names: list[str] = []
    while node is not None and len(node.users) == 1:
        node = next(iter(node.users))
        made = _follower(model, node)
        if made is None or len(node.all_input_nodes) != 1:
            break
        makers.append(made[0])
        names.append(made[1])
    return tuple(makers), names


def _follower(model: nn.Module, node: fx.Node) -> tuple[Callable[[int], nn.Module], str] | None:
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        kind = type(module).__name__
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            return partial(_narrowed_norm, module), kind
        plain = next(module.parameters(), None) is None
        if plain and type(module).__module__ == "torch.nn.modules.activation":
            return lambda width: copy.deepcopy(module), kind
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.op in ("call_function", "call_method") and name in FUNCTIONS:
        return lambda width: _Function(name.rstrip("_")), name
    return None


class _Function(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = getattr(F, name)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(x)
        return result


def _narrowed_layer(module: nn.Module, layer: Layer, read: int, written: int) -> Any:
    """A copy with the first channels alone."""
    depthwise = layer.kind == "depthwise"
    weight = filters(module).detach()
    columns = weight.shape[1] if depthwise else read // layer.groups
    result = _shallow(module)
    weight = as_stored(weight[:written, :columns], layer.transposed, read // columns)
    result.weight = nn.Parameter(weight.clone())
    if isinstance(module.bias, Tensor):
        result.bias = nn.Parameter(module.bias.detach()[:written].clone())
    if isinstance(result, nn.Linear):
        result.in_features, result.out_features = read, written
    else:
        result.in_channels, result.out_channels = read, written
        result.groups = read // columns
    return result


def _narrowed_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, width: int) -> Any:
    result = _shallow(module)
    result.num_features = width
    for name, value in [*module._parameters.items(), *module._buffers.items()]:
        if value is not None and value.ndim == 1:
            cut = value.detach()[:width].clone()
            setattr(result, name, nn.Parameter(cut) if name in module._parameters else cut)
    return result


def _shallow(module: nn.Module) -> Any:
    """A copy whose tensors can be replaced without touching the module's."""
    result = copy.copy(module)
    result._parameters, result._buffers = dict(module._parameters), dict(module._buffers)
    return result


def _chunks(wanted: Mapping[str, Make]) -> Iterator[dict[str, Make]]:
    """The cells in parts that fit into memory together."""
    chunk: dict[str, Make] = {}
    size = 0
    for key, make in wanted.items():
        module, images = make()
        mine = 4 * (images.numel() + sum(p.numel() for p in module.parameters()))
        if chunk and size + mine > TOGETHER:
            yield chunk
            chunk, size = {}, 0
        chunk[key], size = make, size + mine
    if chunk:
        yield chunk


def _digest(space: SearchSpace, times: Sequence[LayerTimes]) -> str:
    """A name for a network's widths and its layers' times."""
    grids = [[list(t.reads), list(t.writes), t.milliseconds.tolist()] for t in times]
    text = json.dumps([space.graph.describe(), space.levels, grids])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
