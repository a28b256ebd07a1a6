"""From a network to its channel graph: `trace`.

The traced network runs on channel numbers instead of activations: each layer writes new numbers,
whatever only moves data (concatenation, shuffle, flatten) moves them, and where two tensors meet
(addition, product) the numbers that meet are tied. Tied numbers are units. Afterwards it runs a
second and a third time, narrowed: if then any layer would read other channels than the graph says,
the network is refused.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TypedDict

from torch import Tensor, fx, nn

from graphpruning.common.defaults import usual_defaults
from graphpruning.common.errors import UnsupportedNetwork, UserError
from graphpruning.network.edges import edges_and_depths
from graphpruning.network.graph import FIXED, ChannelGraph, Channels, Layer, direct_tensor
from graphpruning.network.leaves import Convolution, base_of, standardised_layers
from graphpruning.network.refusals import refuse_other_dimensions, unwrapped
from graphpruning.network.runs import Recorder, Replay, masks
from graphpruning.network.surgery import narrowed
from graphpruning.network.symbolic import symbolic_trace, twin
from graphpruning.network.units import Units


@usual_defaults()
def trace(model: nn.Module, input_size: tuple[int, ...] = (3, 32, 32)) -> ChannelGraph:
    """Follow the channels of `model` on one image; return its graph of layers and groups.

    The network is looked at in evaluation mode and left as it was, on any device (the meta device
    too); only its shapes matter. DataParallel, DistributedDataParallel and what `torch.compile`
    makes are unwrapped: the graph is that of the network inside.

    Args:
        model: any network that torch.fx can trace.
        input_size: channels, height and width of an image, in pixels.

    Raises:
        UnsupportedNetwork: for what is not known to keep channels apart; it names the module, the
            operation and what is supported.
        UserError: when the network does not run on such an image.
    """
    size = tuple(input_size)
    model = unwrapped(model)
    with _uncollected():
        refuse_other_dimensions(model, size)
        return graph_of(model, symbolic_trace(model, size), size)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Put off the search for garbage, of which little is made: it would go through a million of
    the libraries' objects, and take up to half of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def graph_of(model: nn.Module, module: fx.GraphModule, size: tuple[int, ...]) -> ChannelGraph:
    """Return what `trace` does, of a network whose operations (`symbolic_trace`) are at hand."""
    recorder = Recorder(model, module)
    image = recorder.ledger.new(size[0], "the input image", fixed=True)
    recorder.run(image.expand(1, *size))
    _refuse_training_only(model, module, size)
    units = Units(recorder.ledger)
    labels = units.labels(image)
    try:
        for mask in masks(units):
            Replay(model, module, recorder, units, mask).run(labels.expand(2, *size))
    except UnsupportedNetwork:
        for mask in masks(units):
            Replay(model, module, recorder, units, mask).run(labels.expand(1, *size))
        raise UnsupportedNetwork(
            f"{type(model).__name__} runs on one image and not on two: its code takes their number "
            "for a constant, as len(x) is one; write x.size(0)"
        ) from None
    graph = _graph(model, module, recorder, units, size)
    # Where all widths are small and alike, code that compares them goes another way, if any does.
    least = {name: 2 * group.unit for name, group in graph.prunable.items()}
    narrowed(twin(model), graph, least, is_twin=True)
    return graph


def _refuse_training_only(model: nn.Module, module: fx.GraphModule, size: tuple[int, ...]) -> None:
    """What only training reads could not be narrowed rightly: an auxiliary head, a parameter.

    A layer that nothing runs, or a tensor that nothing reads, stays as it is; so does a single
    number, which meets any number of channels.
    """
    tensors = _tensors(model)
    layers = {name for name, part in model.named_modules() if base_of(part) is not None}
    unused = layers - _called(module)
    unread = {name for name, tensor in tensors.items() if tensor.numel() > 1} - _read(model, module)
    if not unused | unread:
        return
    try:
        training = symbolic_trace(model, size, training=True)
        trained, learnt = unused & _called(training), unread & _read(model, training)
    except UserError:  # what cannot be told is not guessed
        trained, learnt = unused, unread
    if trained:
        raise UnsupportedNetwork(
            f"{type(model).__name__}: the layer {min(trained)} is not used in evaluation mode, but "
            "in training; build the network without it (for auxiliary heads: aux_logits=False)"
        )
    if learnt:
        name = min(learnt)
        kind = "parameter" if isinstance(tensors[name], nn.Parameter) else "buffer"
        raise UnsupportedNetwork(
            f"{type(model).__name__}: the {kind} {name} is not read in evaluation mode, but in "
            "training, where no channels are followed; read it in both modes, or build the network "
            "without it"
        )


def _called(module: fx.GraphModule) -> set[str]:
    return {str(node.target) for node in module.graph.nodes if node.op == "call_module"}


def _read(model: nn.Module, module: fx.GraphModule) -> set[str]:
    """The tensors that the operations of `module` read, by themselves or with their layer."""
    names = {id(tensor): name for name, tensor in _tensors(model).items()}
    read: list[Tensor] = []
    for node in module.graph.nodes:
        if node.op == "get_attr":
            read.append(direct_tensor(model, str(node.target)))
        elif node.op == "call_module":
            read += _tensors(model.get_submodule(str(node.target))).values()
    gains = (how.gain for how in standardised_layers(module).values() if how.gain is not None)
    read += (direct_tensor(model, gain) for gain in gains)
    return {names[id(tensor)] for tensor in read}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, each by one name."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


def _graph(
    model: nn.Module,
    module: fx.GraphModule,
    recorder: Recorder,
    units: Units,
    size: tuple[int, ...],
) -> ChannelGraph:
    ledger = recorder.ledger

    def of(numbers: Tensor) -> Channels:
        return units.labels(numbers).clamp(min=FIXED)

    edges, depths = edges_and_depths(module, ledger.layers.__contains__)
    layers = []
    for name, (read, written) in ledger.layers.items():
        part = model.get_submodule(name)
        assert isinstance(part, Convolution | nn.Linear)
        layers.append(
            Layer(
                name=name,
                **(_linear(part) if isinstance(part, nn.Linear) else _convolution(part)),
                output_size=recorder.sizes[name],
                bias=part.bias is not None,
                depth=depths[name],
                block=_block(model, name),
                inputs=of(read),
                outputs=of(written),
                reads=units.group_names(read),
                writes=units.group_names(written),
            )
        )
    direct = {name: of(x) for name, x in ledger.direct.items()}
    known = {id(direct_tensor(model, name)) for name in direct}
    for name in (*ledger.layers, *ledger.norms):
        known |= {id(x) for x in model.get_submodule(name)._parameters.values()}
    return ChannelGraph(
        layers=tuple(layers),
        edges=tuple(edges),
        groups=units.groups,
        norms={name: of(x) for name, x in ledger.norms.items()},
        scales={n: x for n, x in direct.items() if n not in recorder.constants},
        constants={n: x for n, x in direct.items() if n in recorder.constants},
        filters={n: (of(x), macs) for n, (x, macs) in recorder.filters.items()},
        mixing=tuple(dict.fromkeys(recorder.mixing)),
        rest={n: p.numel() for n, p in model.named_parameters() if id(p) not in known},
        input_size=size,
        module=module,
    )


class _Form(TypedDict):
    """What a layer's own module says of it; see `Layer`."""

    kind: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    transposed: bool


def _linear(part: nn.Linear) -> _Form:
    return {
        "kind": "linear",
        "in_channels": part.in_features,
        "out_channels": part.out_features,
        "kernel": (1, 1),
        "stride": (1, 1),
        "groups": 1,
        "transposed": False,
    }


def _convolution(part: Convolution) -> _Form:
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
        "transposed": isinstance(part, nn.ConvTranspose2d),
    }


def _block(model: nn.Module, name: str) -> str:
    """The nearest enclosing module that is neither a plain sequence nor the whole network."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        enclosing = ".".join(parts[:end])
        if not isinstance(model.get_submodule(enclosing), nn.Sequential | nn.ModuleList):
            return enclosing
    return name
