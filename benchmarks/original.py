"""The PruningNet's training step as MetaPruning designed it, as the reference of the benchmarks.

Liu et al. 2019 (liuzechun/MetaPruning): per layer two linear maps make the whole weight from the
block's kept ratios; it is cropped afterwards. Each width has a batch normalisation of its own,
any of 31 ratios may be drawn, and everything is in fp32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from graphpruning.common.convolution import conv2d
from graphpruning.network.graph import ChannelGraph, Layer, Widths, kept
from graphpruning.pruningnet.features import block_ratios

HIDDEN = 32
RATIOS = tuple((10 + 3 * i) / 100 for i in range(31))


class OriginalPruningNet(nn.Module):
    """Generates each layer's full weight, then crops it, then runs the network."""

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__()
        self.graph = graph
        self.blocks = block_ratios(graph)
        self.hidden = nn.ModuleList(nn.Linear(len(groups), HIDDEN) for groups in self.blocks)
        self.full = nn.ModuleList(nn.Linear(HIDDEN, _size(layer)) for layer in graph.layers)
        self.biases = nn.ParameterDict(
            {
                layer.name.replace(".", "/"): nn.Parameter(torch.zeros(layer.out_channels))
                for layer in graph.layers
                if layer.bias
            }
        )
        self.norms = nn.ModuleDict()

    def norm(self, name: str, channels: int) -> nn.Module:
        """The batch normalisation of one width; the original makes all of them beforehand."""
        key = f"{name.replace('.', '/')}/{channels}"
        if key not in self.norms:
            self.norms[key] = nn.BatchNorm2d(channels, affine=False)
        return self.norms[key]

    def forward(self, images: Tensor, widths: Widths) -> Tensor:
        mask = self.graph.first_units(widths)
        weights: dict[str, Tensor] = {}
        rows = zip(self.graph.layers, self.blocks, self.hidden, self.full, strict=True)
        for layer, groups, hidden, full in rows:
            ratios = [widths[group] / self.graph.full_widths[group] for group in groups]
            weight = full(torch.relu(hidden(torch.tensor(ratios))))
            kernel = layer.kernel if layer.kind != "linear" else ()
            weight = weight.view(layer.out_channels, layer.fan_in, *kernel)
            outputs, columns = (len(kept(c, mask)) for c in (layer.outputs, layer.columns))
            weights[layer.name] = weight[:outputs, :columns]
        result: Tensor = _Run(self, weights).run(images)
        return result


def _size(layer: Layer) -> int:
    kernel = layer.kernel[0] * layer.kernel[1] if layer.kind != "linear" else 1
    return layer.out_channels * layer.fan_in * kernel


class _Run(fx.Interpreter):
    def __init__(self, net: OriginalPruningNet, weights: dict[str, Tensor]) -> None:
        super().__init__(net.graph.module)
        self.net, self.weights = net, weights

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module, x = self.submodules[target], args[0]
        if target in self.weights:
            weight = self.weights[target]
            if isinstance(module, nn.Linear):
                return F.linear(x, weight, self.net.biases[target.replace(".", "/")])
            groups = x.shape[1] // weight.shape[1]
            return conv2d(x, weight, None, module.stride, module.padding, 1, groups)
        if isinstance(module, nn.BatchNorm2d):
            return self.net.norm(target, x.shape[1])(x)
        return super().call_module(target, args, kwargs)
