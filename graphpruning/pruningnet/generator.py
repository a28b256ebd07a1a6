"""From a layer's aggregated feature to its weights, at the width asked for."""

from typing import Protocol

import torch
from torch import Tensor, nn

from graphpruning.network.graph import Channels, Layer, UnitMask, kept

Index = slice | Tensor
"""Positions along one axis; a slice (no copy) where they are the first ones."""


class Lent(Protocol):
    """A map that an optimizer keeps in a form of its own for a while (see `CroppedSGD`)."""

    def weight(self, feature: Tensor, where: tuple[Index, Index]) -> Tensor:
        """Return `crop(map, where) @ feature`, as the map would be."""


class WeightGenerator(nn.Module):
    """One linear map M from an aggregated feature f [size] to a layer's full weight, M (f, 1).

    M is stored as [out, in / groups, kernel, kernel, size + 1] ([out, in, size + 1] of a linear
    layer), its last column the constant term. It is cropped before it is applied, so that a narrow
    layer costs what it needs. Initially the constant is a usual weight, normal with variance
    2 / fan-in (He et al. 2015), and the rest normal with the constant's deviation / sqrt(size), or
    0 if the start is `flat`. A feature of size 0 leaves the constant term alone: weights that do
    not depend on widths. A bias has a map of its own, which starts at 0.

    Args:
        layer: the layer at full width.
        size: length of the feature.
        flat: at the start a weight does not depend on the feature.
    """

    def __init__(self, layer: Layer, size: int, flat: bool = False) -> None:
        super().__init__()
        self.layer, self.size = layer, size
        kernel = layer.kernel if layer.kind != "linear" else ()
        shape = (layer.out_channels, layer.fan_in, *kernel)
        self.map = nn.Parameter(torch.empty(*shape, size + 1))
        with torch.no_grad():
            constant = nn.init.kaiming_normal_(torch.empty(shape), nonlinearity="relu")
            scale = float(constant.std()) if constant.numel() > 1 else 1.0
            deviation = 0.0 if flat or not size else scale / size**0.5
            self.map[..., :size] = torch.empty(*shape, size).normal_() * deviation
            self.map[..., size] = constant
        bias = torch.zeros(layer.out_channels, size + 1)
        self.bias_map = nn.Parameter(bias) if layer.bias else None
        self.lent: Lent | None = None

    @torch.no_grad()
    def start_at(self, weight: Tensor, bias: Tensor | None) -> None:
        """Generate this weight, and this bias, from any feature: the constant terms, else zeros."""
        for map_, value in ((self.map, weight), (self.bias_map, bias)):
            if map_ is not None and value is not None:
                map_.zero_()
                map_[..., self.size] = value.to(map_.device)

    def forward(self, feature: Tensor, mask: UnitMask) -> tuple[Tensor, Tensor | None]:
        """Return (weight [out, in / groups, k, k], bias [out] or None) of the units in `mask`.

        `feature` is [size]; out and in count the channels that stay.
        """
        where = _index(self.layer.outputs, mask), _index(self.layer.columns, mask)
        feature = torch.cat([feature, feature.new_ones(1)])
        if self.lent is None:
            weight = product(crop(self.map, where), feature)
        else:
            weight = self.lent.weight(feature, where)
        return weight, None if self.bias_map is None else self.bias_map[where[0]] @ feature


def crop(map_: Tensor, where: tuple[Index, Index]) -> Tensor:
    """The part [o, i, ..., size + 1] of a map at the given filters and columns.

    It is a view where both are slices.
    """
    return map_[where[0]][:, where[1]]


def shared(one: Index, other: Index) -> tuple[Index, Index]:
    """Where, in each of two indices (ascending), the positions are that both hold."""
    if isinstance(one, slice) and isinstance(other, slice):
        both = slice(min(one.stop, other.stop))
        return both, both
    first, second = (
        torch.arange(index.stop) if isinstance(index, slice) else index for index in (one, other)
    )
    return (
        torch.isin(first, second).nonzero().flatten(),
        torch.isin(second, first).nonzero().flatten(),
    )


def product(part: Tensor, feature: Tensor) -> Tensor:
    """`part @ feature`, as a batch of products of a row with a transposed matrix.

    So a view is read where it lies; `@` would copy it. On CPUs it is also the fastest way.
    """
    rows = part.flatten(1, -2)
    of_filters = torch.bmm(feature.expand(len(rows), 1, -1), rows.transpose(1, 2))
    return of_filters.view(part.shape[:-1])


def gathered(part: Tensor, gradient: Tensor) -> Tensor:
    """The gradient [size + 1] of `product`'s feature, for that of its result."""
    return torch.bmm(gradient.flatten(1)[:, None], part.flatten(1, -2)).sum(dim=(0, 1))


def add_outer(map_: Tensor, where: tuple[Index, Index], gradient: Tensor, feature: Tensor) -> None:
    """Add the gradient of `product`'s part, which is an outer product, to the map in place."""
    part = crop(map_, where)
    part.addcmul_(gradient[..., None], feature)
    filters, columns = where
    if isinstance(filters, Tensor) and isinstance(columns, Tensor):
        map_[filters[:, None], columns] = part
    elif isinstance(filters, Tensor) or isinstance(columns, Tensor):
        map_[filters, columns] = part


def _index(channels: Channels, mask: UnitMask) -> Index:
    index = kept(channels, mask)
    is_prefix = int(index[-1]) == len(index) - 1
    return slice(len(index)) if is_prefix else index
