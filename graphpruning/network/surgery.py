"""Narrow a network for good: the result is a plain module without any trace of pruning."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphpruning.network.graph import ChannelGraph, Layer, Widths, kept
from graphpruning.network.subnet import LayerWeights, Statistics


def narrow(
    model: nn.Module,
    graph: ChannelGraph,
    widths: Widths,
    keep: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Return a copy of `model` whose layers have the channels of `widths` only.

    `keep` chooses the channels of each group (index tensors, ascending, as many as `widths`
    says); without it the first ones stay. At full width the copy computes bit for bit what
    `model` computes. Raises `UserError` when the widths do not fit the graph.
    """
    graph.check(widths)
    if keep is None:
        keep = {group: torch.arange(width) for group, width in widths.items()}
    if wrong := [group for group, width in widths.items() if len(keep[group]) != width]:
        raise ValueError(f"keep[{wrong[0]!r}] has another length than widths says")
    result = copy.deepcopy(model)
    with torch.no_grad():
        for layer in graph.layers:
            _narrow_layer(result.get_submodule(layer.name), layer, keep)
        for name, channels in graph.norms.items():
            _narrow_norm(result.get_submodule(name), kept(channels, keep))
    return result


def _narrow_layer(module: nn.Module, layer: Layer, keep: Mapping[str, Tensor]) -> None:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    outputs = kept(layer.outputs, keep)
    inputs = torch.arange(1) if layer.kind == "depthwise" else kept(layer.inputs, keep)
    module.weight = _cut(module.weight, outputs, inputs)
    if module.bias is not None:
        module.bias = _cut(module.bias, outputs)
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = len(inputs), len(outputs)
    else:
        module.out_channels = len(outputs)
        module.in_channels = len(outputs) if layer.kind == "depthwise" else len(inputs)
        module.groups = len(outputs) if layer.kind == "depthwise" else 1


def _narrow_norm(module: nn.Module, index: Tensor) -> None:
    assert isinstance(module, nn.BatchNorm2d)
    module.num_features = len(index)
    if module.affine:
        module.weight, module.bias = _cut(module.weight, index), _cut(module.bias, index)
    if module.track_running_stats:
        assert module.running_mean is not None and module.running_var is not None
        module.running_mean = module.running_mean[index.to(module.running_mean.device)].clone()
        module.running_var = module.running_var[index.to(module.running_var.device)].clone()


def _cut(parameter: Tensor, outputs: Tensor, inputs: Tensor | None = None) -> nn.Parameter:
    result = parameter[outputs.to(parameter.device)]
    if inputs is not None:
        result = result[:, inputs.to(parameter.device)]
    if parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
        result = result.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(result.clone(), requires_grad=parameter.requires_grad)


def install(
    model: nn.Module, graph: ChannelGraph, weights: LayerWeights, statistics: Statistics
) -> None:
    """Put the weights and statistics that a `Subnet` ran with into the narrowed `model`, in place.

    Batch normalisations without scale and shift in `weights` get 1 and 0. In evaluation mode the
    model then computes what the `Subnet` computed.
    """
    with torch.no_grad():
        for layer in graph.layers:
            module = model.get_submodule(layer.name)
            weight, bias = weights[layer.name]
            module.weight.copy_(weight)  # type: ignore[operator]
            if bias is not None:
                module.bias.copy_(bias)  # type: ignore[operator]
        for name in graph.norms:
            norm = model.get_submodule(name)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None
            mean, variance = statistics[name]
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            scale, shift = weights.get(name, (None, None))
            if norm.affine:
                nn.init.ones_(norm.weight) if scale is None else norm.weight.copy_(scale)
                nn.init.zeros_(norm.bias) if shift is None else norm.bias.copy_(shift)
