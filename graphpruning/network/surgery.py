"""Narrow a network for good: the result is a plain module without any trace of pruning."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphpruning.common.defaults import usual_defaults
from graphpruning.common.errors import UserError
from graphpruning.network.copies import copied
from graphpruning.network.graph import (
    ChannelGraph,
    Layer,
    UnitMask,
    Widths,
    copy_rest,
    cut_direct,
    direct_axis,
    direct_tensor,
    kept,
)
from graphpruning.network.leaves import Convolution, Norm, as_stored, filters
from graphpruning.network.refusals import unwrapped
from graphpruning.network.subnet import LayerWeights, Statistics
from graphpruning.network.verify import require_same_operations

_COUNTS = ("num_parameters", "num_features", "num_channels", "channels")


@usual_defaults()
def narrow(
    model: nn.Module,
    graph: ChannelGraph,
    widths: Widths,
    keep: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Return a copy of `model` whose layers have the channels of `widths` only.

    At full width the copy computes bit for bit what `model` computes. It is looked at before it is
    handed out: where its own code would go another way at these widths (a branch on a number of
    channels, a size that stands in the code), it is refused.

    Args:
        model: the network that `graph` was traced from, at full width.
        keep: the units of each group that stay: their numbers within it, ascending int64, as many
            as `widths` asks for. Without it the first ones stay.

    Raises:
        UserError: when the widths do not fit the graph.
        UnsupportedNetwork: when the narrowed network would not compute what was traced.
        ValueError: when `keep` has other groups or numbers of units than `widths`, a unit twice, or
            one that the group has not.
    """
    return narrowed(copied(unwrapped(model)), graph, widths, keep)


def narrowed(
    model: nn.Module,
    graph: ChannelGraph,
    widths: Widths,
    keep: Mapping[str, Tensor] | None = None,
    is_twin: bool = False,
) -> nn.Module:
    """Narrow `model` itself, as `narrow` does a copy of it, and return it; a twin is run, too."""
    graph.check(widths)
    mask = graph.first_units(widths)
    if keep is not None:
        _check_kept(graph, widths, keep)
        mask = graph.these_units(keep)
    with torch.no_grad():
        for layer in graph.layers:
            _narrow_layer(model.get_submodule(layer.name), layer, mask)
        for name, channels in graph.norms.items():
            _narrow_norm(model.get_submodule(name), kept(channels, mask))
        for name, channels in (graph.scales | graph.constants).items():
            _narrow_direct(model, name, kept(channels, mask))
    require_same_operations(model, graph, is_twin)
    return model


def _check_kept(graph: ChannelGraph, widths: Widths, keep: Mapping[str, Tensor]) -> None:
    if keep.keys() != widths.keys():
        raise ValueError("keep and widths have different groups")
    for name, width in widths.items():
        group, units = graph.prunable[name], keep[name]
        count, last = width // group.unit, group.width // group.unit - 1
        if len(units) != count:
            raise ValueError(f"keep[{name!r}] has another length than widths says: {count} units")
        if len(units.unique()) != count or units.min() < 0 or units.max() > last:
            raise ValueError(f"keep[{name!r}] must have different units, from 0 to {last}")


def _narrow_layer(module: nn.Module, layer: Layer, mask: UnitMask) -> None:
    assert isinstance(module, Convolution | nn.Linear)
    if filters(module).shape[:2] != (layer.out_channels, layer.in_channels // layer.groups):
        raise UserError(
            f"{layer.name} has not the {layer.in_channels} and {layer.out_channels} channels that "
            "the graph has: narrow the network that was traced, at full width"
        )
    outputs, columns = kept(layer.outputs, mask), kept(layer.columns, mask)
    inputs = len(kept(layer.inputs, mask))
    module.weight = _cut_weight(module, outputs, columns, inputs)
    if module.bias is not None:
        module.bias = _cut(module.bias, outputs)
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = inputs, len(outputs)
    else:
        module.in_channels, module.out_channels = inputs, len(outputs)
        module.groups = inputs // len(columns)


def _narrow_norm(module: nn.Module, index: Tensor) -> None:
    assert isinstance(module, Norm)
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = (len(index),)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(index)
    else:
        module.num_features = len(index)
        for name in ("running_mean", "running_var"):
            if (statistic := getattr(module, name)) is not None:
                setattr(module, name, statistic[index.to(statistic.device)].clone())
    for name in ("weight", "bias"):
        if (parameter := getattr(module, name)) is not None:
            setattr(module, name, _cut(parameter, index))


def _narrow_direct(model: nn.Module, name: str, index: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    value = direct_tensor(model, name)
    cut = cut_direct(value.detach(), index).clone()
    if isinstance(value, nn.Parameter):
        cut = nn.Parameter(cut, requires_grad=value.requires_grad)
    module = model.get_submodule(owner)
    setattr(module, attribute, cut)
    axis = direct_axis(value)
    assert axis is not None
    for count in _COUNTS:  # what a module calls the number of its channels
        if value.ndim and getattr(module, count, None) == value.shape[axis]:
            setattr(module, count, len(index))


def _cut_weight(
    module: Convolution | nn.Linear, outputs: Tensor, columns: Tensor, inputs: int
) -> nn.Parameter:
    parameter = module.weight
    result = filters(module)[outputs.to(parameter.device)][:, columns.to(parameter.device)]
    if isinstance(module, nn.ConvTranspose2d):
        result = as_stored(result, True, inputs // len(columns))
    return _like(parameter, result)


def _cut(parameter: Tensor, outputs: Tensor) -> nn.Parameter:
    return _like(parameter, parameter[outputs.to(parameter.device)])


def _like(parameter: Tensor, result: Tensor) -> nn.Parameter:
    if parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
        result = result.contiguous(memory_format=torch.channels_last)
    else:
        result = result.contiguous()
    return nn.Parameter(result.clone(), requires_grad=parameter.requires_grad)


def install(
    model: nn.Module, graph: ChannelGraph, weights: LayerWeights, statistics: Statistics
) -> None:
    """Put the weights and statistics that a `Subnet` ran with into the narrowed `model`, in place.

    Normalisations without scale and shift in `weights` get 1 and 0, per-channel scales get 1, and
    constants stay. Parameters without channels are those of `graph.module`. In evaluation mode the
    model then computes what the `Subnet` computed.
    """
    copy_rest(graph, graph.module, model)
    with torch.no_grad():
        for layer in graph.layers:
            module = model.get_submodule(layer.name)
            weight, bias = weights[layer.name]
            groups = getattr(module, "groups", 1)
            module.weight.copy_(as_stored(weight, layer.transposed, groups))  # type: ignore
            if bias is not None:
                module.bias.copy_(bias)  # type: ignore[operator]
        for name in graph.norms:
            norm = model.get_submodule(name)
            if name in statistics and norm.running_mean is not None:
                norm.running_mean.copy_(statistics[name][0])  # type: ignore[operator]
                norm.running_var.copy_(statistics[name][1])  # type: ignore[operator]
            scale, shift = weights.get(name, (None, None))
            for parameter, value, default in ((norm.weight, scale, 1.0), (norm.bias, shift, 0.0)):
                if isinstance(parameter, Tensor):
                    parameter.copy_(torch.full_like(parameter, default) if value is None else value)
        for name in graph.scales:
            scale, _ = weights.get(name, (None, None))
            parameter = direct_tensor(model, name)
            parameter.copy_(torch.ones_like(parameter) if scale is None else scale)
        for name in graph.constants.keys() & weights.keys():
            direct_tensor(model, name).copy_(weights[name][0])
