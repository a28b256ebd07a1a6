"""From a layer's aggregated feature to its weights, at the width asked for."""

import torch
from torch import Tensor, nn

from graphpruning.network.graph import Layer, Segment, Widths, kept, kept_count


class WeightGenerator(nn.Module):
    """One linear map from an aggregated feature [size] to a layer's full weight.

    The map is stored as [out, in / groups, kernel, kernel, size] and cropped before it is
    applied, so that a narrow layer costs what it needs. The constant term starts as a usual
    initial weight (He et al. 2015), the map a little smaller.
    """

    def __init__(self, layer: Layer, size: int) -> None:
        super().__init__()
        self.layer = layer
        inputs = 1 if layer.kind == "depthwise" else layer.in_channels
        shape = (layer.out_channels, inputs, *(layer.kernel if layer.kind != "linear" else ()))
        self.constant = nn.Parameter(torch.empty(shape))
        self.map = nn.Parameter(torch.empty(*shape, size))
        nn.init.kaiming_normal_(self.constant, nonlinearity="relu")
        scale = float(self.constant.detach().std()) if self.constant.numel() > 1 else 1.0
        nn.init.normal_(self.map, std=scale / size**0.5)
        self.bias_constant = nn.Parameter(torch.zeros(layer.out_channels)) if layer.bias else None
        self.bias_map = nn.Parameter(torch.zeros(layer.out_channels, size)) if layer.bias else None

    def forward(self, feature: Tensor, widths: Widths) -> tuple[Tensor, Tensor | None]:
        """Return (weight [out, in / groups, k, k], bias [out] or None) at `widths`."""
        constant, linear = self._crop(self.constant, widths), self._crop(self.map, widths)
        weight = torch.addmv(constant.flatten(), linear.flatten(0, -2), feature)
        if self.bias_constant is None or self.bias_map is None:
            return weight.view(constant.shape), None
        outputs = _positions(self.layer.outputs, widths)
        bias = self.bias_constant[outputs] + self.bias_map[outputs] @ feature
        return weight.view(constant.shape), bias

    def _crop(self, parameter: Tensor, widths: Widths) -> Tensor:
        outputs = parameter[_positions(self.layer.outputs, widths)]
        if self.layer.kind == "depthwise":
            return outputs
        return outputs[:, _positions(self.layer.inputs, widths)]


def _positions(segments: tuple[Segment, ...], widths: Widths) -> slice | Tensor:
    """The first channels of each segment; a slice (no copy) where there is one segment only."""
    if len(segments) == 1:
        return slice(kept_count(segments, widths))
    return kept(segments, {group: torch.arange(width) for group, width in widths.items()})
