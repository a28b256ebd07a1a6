"""A candidate's weights cut out of the base network, AMC's way (He et al. 2018, arXiv 1802.03494).

Channels that its readers weigh least go; what remains of each layer is fitted again so that its
outputs come near to those of the base network (He et al. 2017, arXiv 1707.06168).
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphpruning.network.graph import (
    FIXED,
    ChannelGraph,
    Layer,
    UnitMask,
    Widths,
    cut_direct,
    direct_tensor,
    kept,
)
from graphpruning.network.importance import by_importance
from graphpruning.network.leaves import filters, standardised_layers
from graphpruning.network.reading import Reading
from graphpruning.network.subnet import LayerWeights, Statistics

RIDGE = 1e-10
"""The Gram matrix's diagonal grows by this share, because equal channels make it singular."""
RIDGE_OF_FEW = 1e-3
"""The share where positions are few: their noise would be fitted, as in the last block of a
ResNet-18 at 32 pixels, whose maps are one position large."""
ENOUGH = 4
"""Positions for each column (in x kernel) of a layer, from which on they are not few."""


class SlicedWeights:
    """Weights of `model` at any widths: sliced, then reconstructed by least squares.

    A layer's outputs are Y = X W' for its input patches X [patches, in x kernel] and its weight
    W [out, in x kernel]. With the kept columns X_S the best weights V solve

        (X_S' X_S) V' = X_S' X W',

    so the Gram matrix X' X of the base network is all that a layer needs: it is collected once,
    and a candidate costs one solve a layer. As in AMC, X comes from the base network however the
    layers before are pruned. Depthwise and grouped layers are sliced only.

    Args:
        model: the base network; runs in evaluation mode and is left as it was.
        batches: images [batch, channels, height, width] on the device of `model`.
        points: random output positions of every image in X (AMC: 10; a linear layer without
            positions has one only).
        generator: draws the positions.
        reconstruct: without, nothing is fitted, and `batches` are not read.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        batches: Iterable[Tensor],
        points: int,
        generator: Generator,
        reconstruct: bool = True,
    ) -> None:
        self.graph = graph
        self.layers = {
            layer.name: (
                filters(model.get_submodule(layer.name)).detach(),
                _weights(model, layer.name)[1],
            )
            for layer in graph.layers
        }
        self.norms = {name: _weights(model, name) for name in graph.norms}
        self.running = {name: _running(model, name) for name in graph.norms}
        self.direct = {
            name: direct_tensor(model, name).detach() for name in graph.scales | graph.constants
        }
        self.order = by_importance(model, graph)
        self.rows: dict[str, int] = {}
        self.grams: dict[str, Tensor] = {}
        if reconstruct:
            self.grams = self._collect(model, batches, points, generator)

    def kept(self, widths: Widths) -> dict[str, Tensor]:
        """Return each group's kept units, ascending: the most important, see `by_importance`."""
        units = {name: group.unit for name, group in self.graph.prunable.items()}
        return {
            group: self.order[group][: width // units[group]].sort().values
            for group, width in widths.items()
        }

    @torch.no_grad()
    def __call__(self, widths: Widths) -> LayerWeights:
        """Return weights, and what normalisations and scales have learnt, cropped to `widths`."""
        mask = self.graph.these_units(self.kept(widths))
        result: LayerWeights = {}
        for layer in self.graph.layers:
            weight, bias = self.layers[layer.name]
            outputs = kept(layer.outputs, mask).to(weight.device)
            weight = self._read(layer, weight[outputs], mask)
            result[layer.name] = (weight, None if bias is None else bias[outputs])
        for name, channels in self.graph.norms.items():
            index = kept(channels, mask)
            scale, shift = (
                None if value is None else value[index.to(value.device)]
                for value in self.norms[name]
            )
            if scale is not None:
                result[name] = (scale, shift)
        for name, channels in (self.graph.scales | self.graph.constants).items():
            result[name] = (cut_direct(self.direct[name], kept(channels, mask)), None)
        return result

    def statistics(self, widths: Widths) -> Statistics:
        """Return what the base's batch normalisations have collected, cropped to `widths`."""
        mask = self.graph.these_units(self.kept(widths))
        result: Statistics = {}
        for name, channels in self.graph.norms.items():
            mean, variance = self.running[name]
            if mean is not None and variance is not None:
                index = kept(channels, mask).to(mean.device)
                result[name] = (mean[index], variance[index])
        return result

    def _read(self, layer: Layer, weight: Tensor, mask: UnitMask) -> Tensor:
        """`weight` [out, in, ...] with only the columns of `mask`, fitted again.

        Written as a correction of the slice: V = W_S + (X_S' X_S)^-1 X_S' X_D W_D, where D are
        the dropped columns, so that the ridge shrinks the correction and not the weights.
        """
        inputs = kept(layer.columns, mask).to(weight.device)
        sliced = weight[:, inputs]
        if layer.name not in self.grams or len(inputs) == weight.shape[1]:
            return sliced
        gram = self.grams[layer.name]
        is_kept = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
        is_kept[inputs] = True
        is_kept = is_kept.repeat_interleave(layer.kernel[0] * layer.kernel[1])
        rows = gram[is_kept]
        normal = rows[:, is_kept]
        ridge = RIDGE if self.rows[layer.name] >= ENOUGH * len(gram) else RIDGE_OF_FEW
        normal.diagonal().mul_(1 + ridge).add_(torch.finfo(gram.dtype).tiny)  # dead channels have 0
        missing = rows[:, ~is_kept] @ weight.flatten(1)[:, ~is_kept].T.to(gram.dtype)
        correction = torch.cholesky_solve(missing, torch.linalg.cholesky(normal)).T
        return sliced + correction.reshape(sliced.shape).to(sliced.dtype)

    @torch.no_grad()
    def _collect(
        self, model: nn.Module, batches: Iterable[Tensor], points: int, generator: Generator
    ) -> dict[str, Tensor]:
        """Gram matrices [in x kernel, in x kernel] in float64 of layers whose inputs can go."""
        grams: dict[str, Tensor] = {}

        def add(name: str, module: nn.Module, x: Tensor, output: Tensor) -> None:
            x = _patches(module, x, output, points, generator).double()
            grams[name] = grams.get(name, 0) + x.T @ x
            self.rows[name] = self.rows.get(name, 0) + len(x)

        standardised = standardised_layers(self.graph.module)  # not linear in their weights
        wanted = {
            layer.name
            for layer in self.graph.layers
            if layer.groups == 1 and not layer.transposed and (layer.inputs != FIXED).any()
        } - standardised.keys()
        was_training = model.training
        model.eval()
        try:
            run = Reading(model, self.graph, wanted, add)
            for images in batches:
                run.run(images)
        finally:
            model.train(was_training)
        return grams


def _weights(model: nn.Module, name: str) -> tuple[Tensor | None, Tensor | None]:
    module = model.get_submodule(name)
    weight, bias = module.weight, module.bias
    return (
        weight.detach() if isinstance(weight, Tensor) else None,
        bias.detach() if isinstance(bias, Tensor) else None,
    )


def _running(model: nn.Module, name: str) -> tuple[Tensor | None, Tensor | None]:
    module = model.get_submodule(name)
    found = (getattr(module, key, None) for key in ("running_mean", "running_var"))
    mean, variance = (value.clone() if isinstance(value, Tensor) else None for value in found)
    return mean, variance


def _patches(
    module: nn.Module, x: Tensor, output: Tensor, points: int, generator: Generator
) -> Tensor:
    """Inputs [batch x points, in x kernel] of random output positions, other ones per image."""
    if not isinstance(module, nn.Conv2d):
        if x.ndim > 2:  # a linear layer over positions
            rows = x.flatten(1, -2)
            chosen = torch.randint(rows.shape[1], (len(x), points, 1), generator=generator)
            x = torch.take_along_dim(rows, chosen.to(x.device), 1).flatten(0, 1)
        return x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode)
    starts, offsets = [], []
    for axis in (0, 1):
        chosen = torch.randint(output.shape[2 + axis], (len(x), points), generator=generator)
        starts.append(chosen.to(x.device) * module.stride[axis])
        steps = torch.arange(module.kernel_size[axis], device=x.device)
        offsets.append(steps * module.dilation[axis])
    images = torch.arange(len(x), device=x.device)[:, None, None, None]
    rows = starts[0][:, :, None, None] + offsets[0][:, None]
    columns = starts[1][:, :, None, None] + offsets[1]
    patches = x.permute(0, 2, 3, 1)[images, rows, columns]  # [batch, points, kh, kw, in]
    return patches.permute(0, 1, 4, 2, 3).flatten(2).flatten(0, 1)
