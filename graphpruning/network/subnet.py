"""Run a network at given widths with given weights, without building it.

Batch normalisation is the subtle part. A sub-network has no statistics of its own: in training
it uses those of the batch; before it is evaluated, `recalibrate` collects them on training
images. Forgetting this gives accuracies near chance, the commonest complaint about MetaPruning.
"""

from collections.abc import Callable, Iterable, Sized
from functools import cached_property, partial
from math import prod
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from graphpruning.common import distributed
from graphpruning.common.convolution import conv2d
from graphpruning.network.folding import folded, norms_to_fold
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.in_place import writes_into_images
from graphpruning.network.leaves import BatchNorm, Convolution, as_stored, standardised_layers
from graphpruning.network.program import Function, Program

Batch = tuple[Tensor, Tensor]
"""Images [batch, channels, height, width] and labels [batch]."""

LayerWeights = dict[str, tuple[Tensor, Tensor | None]]
"""Per layer (weight, bias) at the widths in question; per normalisation, where it has them,
(scale, shift); per scale parameter, where it is not 1, and per constant of which channels went,
(value, None)."""

Statistics = dict[str, tuple[Tensor, Tensor]]
"""Per normalisation that keeps running statistics, the mean and variance of its channels."""

AT_ONCE = 2**20
"""Values in a layer's output, on average over the layers, that a processor computes at a time.
With more they leave its cache before the next layer reads them; with fewer a small layer's call
takes longer than its arithmetic."""


_DROPS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Dropout: F.dropout,
    nn.Dropout2d: F.dropout2d,
    nn.AlphaDropout: F.alpha_dropout,
    nn.FeatureAlphaDropout: F.feature_alpha_dropout,
}


class Batches(Sized, Iterable[Batch], Protocol):
    """Batches that can be gone through again and again: in a list, or made anew each time."""


class Subnet:
    """The traced network as a function of images, weights and statistics.

    It has no parameters: widths follow from the shapes of the weights that it is given.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.layers = {layer.name for layer in graph.layers}
        values = sum(layer.out_channels * prod(layer.output_size) for layer in graph.layers)
        self.at_once = max(1, AT_ONCE * len(graph.layers) // values)

    @cached_property
    def program(self) -> Program:
        """The network's steps."""
        return Program(self.graph.module)

    @cached_property
    def folds(self) -> dict[fx.Node, fx.Node]:
        """Convolutions, and the batch normalisations that can become part of them."""
        return norms_to_fold(self.graph.module)

    @cached_property
    def writes(self) -> bool:
        """Whether the network changes its images in place; it is given a copy of them then."""
        return writes_into_images(self.graph.module)

    @cached_property
    def of_batch(self) -> bool:
        """Whether images are normalised by each other, where no running statistics are kept."""
        norms = map(self.graph.module.get_submodule, self.graph.norms)
        return any(isinstance(norm, BatchNorm) and norm.running_mean is None for norm in norms)

    def _folding(self, device: torch.device) -> dict[fx.Node, fx.Node]:
        """What is folded in this precision: nothing in bf16, where weights are rounded to 8 bits
        and accuracies would move by a tenth of a point."""
        return {} if torch.is_autocast_enabled(device.type) else self.folds

    def parts(self, images: Tensor) -> tuple[Tensor, ...]:
        """Split a batch into what is computed at a time, equal parts where that is possible.

        Each size makes a processor build its kernels once more. Other devices take all at once, and
        so does a network whose scores depend on the batch.
        """
        if not images.is_cpu or len(images) <= self.at_once or self.of_batch:
            return (images,)
        least = -(-len(images) // self.at_once)
        count = next((n for n in range(least, 2 * least) if len(images) % n == 0), least)
        parts: tuple[Tensor, ...] = images.split(-(-len(images) // count))
        return parts

    def logits(
        self, images: Tensor, weights: LayerWeights, statistics: Statistics | None = None
    ) -> Tensor:
        """Return the scores [batch, classes] of `images` [batch, channels, height, width].

        Without `statistics`, batch normalisation uses those of this batch, and dropout drops, as in
        training.
        """
        result: Tensor = _Run(self, weights, statistics, collect=None).run(images)
        return result

    @torch.no_grad()
    def judging(self, weights: LayerWeights, statistics: Statistics) -> Callable[[Tensor], Tensor]:
        """Return what `logits` with `statistics` returns, as a function of images.

        It is the same up to rounding, but faster: in 32 bits a batch normalisation that alone
        reads a convolution is made part of its weights. Call it without gradients, and in the
        precision that this was called in.
        """
        own = dict(weights)
        folding = {
            layer: norm
            for layer, norm in self._folding(_device(weights)).items()
            if str(norm.target) in statistics
        }
        for layer, norm in folding.items():
            name, norm_name = str(layer.target), str(norm.target)
            terms: Any = weights.get(norm_name, (None, None))
            eps: Any = self.graph.module.get_submodule(norm_name).eps
            own[name] = folded(weights[name], statistics[norm_name], terms, eps)
        run = _Run(self, own, statistics, collect=None)
        given = torch.clone if self.writes else _same
        functions = run.functions() | dict.fromkeys(folding.values(), _same)

        def scores(images: Tensor) -> Tensor:
            parts = [self.program.run(given(part), functions) for part in self.parts(images)]
            return torch.cat(parts)

        return scores

    @torch.no_grad()
    def recalibrate(self, weights: LayerWeights, batches: Batches) -> Statistics:
        """Return mean [channels] and variance [channels] of every batch normalisation.

        They are averaged over `batches`, whose labels are not read. Each batch runs with its own
        statistics, as in training; variances are unbiased, as those that a batch normalisation
        layer keeps. Several processes share the batches, and all add up in the order of the
        batches: not a bit depends on the number of processes.
        """
        of_batches = {}
        for position, (images, _) in distributed.share(batches):
            of_batches[position] = self._statistics(weights, images)
        if of_batches:
            example = next(iter(of_batches.values()))
        else:  # more processes than batches: only to know names and sizes
            example = self._statistics(weights, next(iter(batches))[0])
        if not example:  # a network without batch normalisation
            return {}
        values = _flat(example)
        rows = values.new_zeros(len(batches), len(values))
        for position, of_batch in of_batches.items():
            rows[position] = _flat(of_batch)
        first, *others = distributed.sum_over_ranks(rows)  # a row is zero in all but one process
        average = sum(others, start=first) / len(rows)
        sizes = [2 * len(mean) for mean, _ in example.values()]
        return {
            name: tuple(part.chunk(2))
            for name, part in zip(example, average.split(sizes), strict=True)
        }

    @torch.no_grad()
    def _statistics(self, weights: LayerWeights, images: Tensor) -> Statistics:
        """Return those of one batch."""
        of_batch: Statistics = {}
        # With a bias as `judging` has one, a processor builds kernels of the same shape but once.
        own = dict(weights)
        folding = self._folding(images.device) if images.is_cpu else {}
        for name in map(str, (layer.target for layer in folding)):
            weight, bias = weights[name]
            own[name] = weight, weight.new_zeros(len(weight)) if bias is None else bias
        run = _Run(self, own, None, collect=of_batch)
        self.program.run(images, run.functions())
        return of_batch


def _flat(statistics: Statistics) -> Tensor:
    return torch.cat([part for pair in statistics.values() for part in pair])


def _device(weights: LayerWeights) -> torch.device:
    return next(weight.device for weight, _ in weights.values())


def _same(input: Tensor) -> Tensor:
    """What is left of a normalisation that was folded, called as the module would be."""
    return input


class _Run(fx.Interpreter):
    """One forward pass: layers and batch normalisations are replaced, the rest is as traced."""

    def __init__(
        self,
        subnet: Subnet,
        weights: LayerWeights,
        statistics: Statistics | None,
        collect: Statistics | None,
    ) -> None:
        super().__init__(subnet.graph.module)
        self.subnet = subnet
        self.layers = subnet.layers
        self.standardised = standardised_layers(subnet.graph.module)
        self.scales = subnet.graph.scales
        self.weights = weights
        self.statistics = statistics
        self.collect = collect
        self.calls: dict[str, int] = {}

    def functions(self) -> dict[fx.Node, Function]:
        """What the network's modules and parameters compute, for its program."""

        def called(target: str, *args: Any, **kwargs: Any) -> Any:
            return self.call_module(target, args, kwargs)

        return {
            node: partial(called, node.target)
            if node.op == "call_module"
            else partial(self.get_attr, node.target, (), {})
            for node in self.subnet.program.places
            if node.op in ("call_module", "get_attr")
        }

    def placeholder(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        images = super().placeholder(target, args, kwargs)
        return images.clone() if self.subnet.writes else images

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in self.weights:
            return self.weights[target][0]
        # A tensor, because what multiplies may be its method.
        return torch.ones(()) if target in self.scales else super().get_attr(target, args, kwargs)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.submodules[target]
        x = args[0] if args else next(iter(kwargs.values()))
        if target in self.layers:
            return self._layer(target, module, x)
        if isinstance(module, BatchNorm):
            return self._batch_norm(target, module, x)
        if isinstance(module, nn.LayerNorm):
            scale, shift = self.weights.get(target, (None, None))
            return F.layer_norm(x, x.shape[-1:], scale, shift, module.eps)
        if isinstance(module, nn.GroupNorm):
            scale, shift = self.weights.get(target, (None, None))
            return F.group_norm(x, module.num_groups, scale, shift, module.eps)
        if isinstance(module, nn.InstanceNorm2d):
            return self._instance_norm(target, module, x)
        if isinstance(module, nn.PReLU):
            slopes = self.weights.get(f"{target}.weight")
            return F.prelu(x, module.weight if slopes is None else slopes[0])
        # What is random is so in training alone, whatever the module's own mode.
        training = self.statistics is None and self.collect is None
        if isinstance(module, nn.RReLU):
            return F.rrelu(x, module.lower, module.upper, training)
        for kind, drop in _DROPS.items():
            if isinstance(module, kind):
                return drop(x, module.p, training)
        return super().call_module(target, args, kwargs)

    def _layer(self, name: str, module: nn.Module, x: Tensor) -> Tensor:
        weight, bias = self.weights[name]
        if isinstance(module, nn.Linear):
            return F.linear(x, weight, bias)
        assert isinstance(module, Convolution)
        if isinstance(module, nn.ConvTranspose2d):
            groups = x.shape[1] // weight.shape[1]
            stored = as_stored(weight, True, groups)
            named: Any = {"stride": module.stride, "padding": module.padding, "groups": groups}
            more: Any = {"output_padding": module.output_padding, "dilation": module.dilation}
            return F.conv_transpose2d(x, stored, bias, **named, **more)
        if how := self.standardised.get(name):
            gain = None if how.gain is None else self.weights[how.gain][0]
            weight = how(weight, gain)
        groups = x.shape[1] // weight.shape[1]
        padding: Any = module.padding
        if module.padding_mode != "zeros":
            x = F.pad(x, module._reversed_padding_repeated_twice, module.padding_mode)
            padding = 0
        return conv2d(x, weight, bias, module.stride, padding, module.dilation, groups)

    def _instance_norm(self, name: str, module: nn.InstanceNorm2d, x: Tensor) -> Tensor:
        scale, shift = self.weights.get(name, (None, None))
        if module.track_running_stats and self.statistics is not None:
            mean, variance = self.statistics[name]
            return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, module.eps)
        if module.track_running_stats and self.collect is not None:
            return self._collected(F.instance_norm, name, module, x)
        return F.instance_norm(x, None, None, scale, shift, True, 0.0, module.eps)

    def _batch_norm(self, name: str, module: Any, x: Tensor) -> Tensor:
        scale, shift = self.weights.get(name, (None, None))
        judged = self.statistics is not None or self.collect is not None
        if judged and module.running_mean is None:  # it never has others than the batch's
            return F.batch_norm(x, None, None, scale, shift, True, 0.0, module.eps)
        if self.statistics is not None:
            mean, variance = self.statistics[name]
            return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, module.eps)
        if self.collect is None:
            return distributed.batch_norm(x, None, None, scale, shift, True, 0.0, module.eps)
        return self._collected(F.batch_norm, name, module, x)

    def _collected(self, norm: Callable[..., Tensor], name: str, module: Any, x: Tensor) -> Tensor:
        """What the function `norm` computes as in training, while this batch's statistics are
        noted: momentum 1 gives them exactly."""
        assert self.collect is not None
        scale, shift = self.weights.get(name, (None, None))
        mean = torch.zeros(x.shape[1], device=x.device)
        variance = torch.ones(x.shape[1], device=x.device)
        y = norm(x, mean, variance, scale, shift, True, 1.0, module.eps)
        calls, so_far = self.calls.get(name, 0), self.collect.get(name, (mean, variance))
        self.calls[name] = calls + 1
        share = 1 / (calls + 1)  # of a module called twice the mean of both
        self.collect[name] = (
            (mean, variance)
            if not calls
            else (so_far[0].lerp(mean, share), so_far[1].lerp(variance, share))
        )
        return y
