"""From a layer's aggregated feature to its weights, at the width asked for."""

import torch
from torch import Tensor, nn

from graphpruning.network.graph import Channels, Layer, UnitMask, kept


class WeightGenerator(nn.Module):
    """One linear map from an aggregated feature [size] to a layer's full weight.

    The map is stored as [out, in / groups, kernel, kernel, size] and cropped before it is
    applied, so that a narrow layer costs what it needs. The constant term starts as a usual
    initial weight (He et al. 2015), the map a little smaller.
    """

    def __init__(self, layer: Layer, size: int) -> None:
        super().__init__()
        self.layer = layer
        kernel = layer.kernel if layer.kind != "linear" else ()
        shape = (layer.out_channels, layer.fan_in, *kernel)
        self.constant = nn.Parameter(torch.empty(shape))
        self.map = nn.Parameter(torch.empty(*shape, size))
        nn.init.kaiming_normal_(self.constant, nonlinearity="relu")
        scale = float(self.constant.detach().std()) if self.constant.numel() > 1 else 1.0
        nn.init.normal_(self.map, std=scale / size**0.5)
        self.bias_constant = nn.Parameter(torch.zeros(layer.out_channels)) if layer.bias else None
        self.bias_map = nn.Parameter(torch.zeros(layer.out_channels, size)) if layer.bias else None

    def forward(self, feature: Tensor, mask: UnitMask) -> tuple[Tensor, Tensor | None]:
        """Return (weight [out, in / groups, k, k], bias [out] or None) of the units in `mask`."""
        outputs, columns = _kept(self.layer.outputs, mask), _kept(self.layer.columns, mask)
        constant, linear = self.constant[outputs][:, columns], self.map[outputs][:, columns]
        weight = torch.addmv(constant.flatten(), linear.flatten(0, -2), feature)
        if self.bias_constant is None or self.bias_map is None:
            return weight.view(constant.shape), None
        bias = self.bias_constant[outputs] + self.bias_map[outputs] @ feature
        return weight.view(constant.shape), bias


def _kept(channels: Channels, mask: UnitMask) -> slice | Tensor:
    """The channels that stay; a slice (no copy) where they are the first ones."""
    index = kept(channels, mask)
    is_prefix = int(index[-1]) == len(index) - 1
    return slice(len(index)) if is_prefix else index
