"""From a network to its channel graph: `trace`.

The traced network runs on channel numbers instead of activations: each layer writes new numbers,
whatever only moves data (concatenation, shuffle, flatten) moves them, and where two tensors meet
(addition, product) the numbers that meet are tied. Tied numbers are units. Afterwards it runs a
second time, narrowed at random: if then any layer would read other channels than the graph says,
the network is refused, so that a wrong graph never comes out.
"""

from typing import Any, TypedDict

import torch
from torch import Tensor, fx, nn

from graphpruning.common.errors import UnsupportedNetwork, UserError, reason
from graphpruning.network.edges import edges_and_depths
from graphpruning.network.graph import ChannelGraph, Layer
from graphpruning.network.runs import Recorder, Replay
from graphpruning.network.units import Units


def trace(model: nn.Module, input_size: tuple[int, ...] = (3, 32, 32)) -> ChannelGraph:
    """Follow the channels of `model` on one image; return its graph of layers and groups.

    The network is looked at in evaluation mode and left as it was, on any device (the meta device
    too). Nothing is computed.

    Args:
        model: any network that torch.fx can trace.
        input_size: channels, height and width of an image, in pixels.

    Raises:
        UnsupportedNetwork: for what is not known to keep channels apart; it names the module, the
            operation and what is supported.
        UserError: when the network does not run on such an image.
    """
    size = tuple(input_size)
    module = _shaped_module(model, size)
    recorder = Recorder(model, module)
    image = recorder.ledger.new(size[0], "the input image", fixed=True)
    recorder.run(image.expand(1, *size))
    _refuse_unused(model, recorder)
    units = Units(recorder.ledger)
    Replay(model, module, recorder, units).run(units.labels(image).expand(1, *size))
    return _graph(model, module, recorder, units, size)


def _shaped_module(model: nn.Module, size: tuple[int, ...]) -> fx.GraphModule:
    """Trace in evaluation mode, then find every tensor's shape by running on one empty image.

    Fake tensors would find them without computing, but loading what these stand on (the compiler,
    SymPy) takes several times as long as a ResNet-50 takes for its image.
    """
    modes = [(part, part.training) for part in model.modules()]
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.eval()
    try:
        module = _symbolic(model)
        module.eval()
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            _Shapes(module).run(torch.zeros(1, *size, dtype=dtype, device=device))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"{type(model).__name__} does not run on an image of {size}: {reason(error)}"
        ) from error
    finally:
        for part, training in modes:
            part.training = training
        with torch.no_grad():
            for buffer, value in values:  # a network may count its passes
                if not (buffer.is_meta or torch.equal(buffer, value)):
                    buffer.copy_(value)
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
            f"{type(model).__name__} cannot be traced by torch.fx ({reason(error)}); make its "
            "control flow independent of the input, or trace the part that is convolutional"
        ) from error
    finally:
        for name in set(vars(model)) - before:  # torch.fx leaves constants of `forward` there
            delattr(model, name)


def _refuse_unused(model: nn.Module, recorder: Recorder) -> None:
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
    recorder: Recorder,
    units: Units,
    size: tuple[int, ...],
) -> ChannelGraph:
    ledger = recorder.ledger
    edges, depths = edges_and_depths(module, ledger.layers.__contains__)
    layers = []
    for name, (read, written) in ledger.layers.items():
        part = model.get_submodule(name)
        assert isinstance(part, nn.Conv2d | nn.Linear)
        layers.append(
            Layer(
                name=name,
                **(_linear(part) if isinstance(part, nn.Linear) else _convolution(part)),
                output_size=recorder.sizes[name],
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


class _Form(TypedDict):
    """What a layer's own module says of it; see `Layer`."""

    kind: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int


def _linear(part: nn.Linear) -> _Form:
    return {
        "kind": "linear",
        "in_channels": part.in_features,
        "out_channels": part.out_features,
        "kernel": (1, 1),
        "stride": (1, 1),
        "groups": 1,
    }


def _convolution(part: nn.Conv2d) -> _Form:
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
