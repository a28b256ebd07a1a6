"""Convolutions that standardise their weight.

Qiao et al., arXiv 1903.10520; with a gain: Brock et al., arXiv 2101.08692. Each filter is brought
to mean 0 and variance 1 before it is used, and perhaps multiplied by a gain. A filter with fewer
columns has other statistics, so in a narrowed network channels depend on each other, as in a layer
normalisation.
"""

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

RESHAPES = ("reshape", "view", "flatten", "reshape_as", "view_as")


@dataclass(frozen=True)
class Standardised:
    """What is done to a layer's weight: `gain` is the name of a parameter [filters, 1, 1, 1]."""

    eps: float
    gain: str | None
    scale: float

    def __call__(self, weight: Tensor, gain: Tensor | None) -> Tensor:
        """Return the weight [filters, columns, height, width] that the layer computes with."""
        rows = weight.reshape(1, len(weight), -1)
        factor = None if gain is None else (gain * self.scale).view(-1)
        even = F.batch_norm(
            rows, None, None, weight=factor, training=True, momentum=0.0, eps=self.eps
        )
        return even.reshape_as(weight)


def standardisation(node: Any, arguments: Any) -> tuple[str, Standardised] | None:
    """The weight's name, and what is done to it, where `node` is such a weight; else None.

    `arguments` names the arguments of a function's node. What is known is a batch normalisation of
    the filters, each as one channel: timm's `StdConv2d`, `ScaledStdConv2d` and their like.
    """
    norm = _without_reshapes(node)
    if not isinstance(norm, fx.Node) or norm.target is not F.batch_norm:
        return None
    given = {"weight": None, "bias": None, "training": False, "eps": 1e-5, **arguments(norm)}
    weight = _without_reshapes(given["input"])
    rows = given["input"].meta.get("shape", ())
    filters = weight.meta.get("shape", ()) if isinstance(weight, fx.Node) else ()
    one_each = len(rows) == 3 and rows[:2] == (1, *filters[:1])
    if weight.op != "get_attr" or not (one_each and given["training"]) or given["bias"] is not None:
        return None
    scale, gain = 1.0, _without_reshapes(given["weight"])
    if isinstance(gain, fx.Node) and gain.target in (operator.mul, torch.mul, "mul"):
        gain, scale = (_without_reshapes(each) for each in gain.args)
    if gain is not None and (not isinstance(gain, fx.Node) or gain.op != "get_attr"):
        return None
    if not isinstance(scale, int | float):
        return None
    name = None if gain is None else str(gain.target)
    return str(weight.target), Standardised(given["eps"], name, float(scale))


def forward(module: nn.Conv2d, input: Tensor, how: Standardised) -> Tensor:
    """What such a convolution computes, its own padding of the image apart."""
    gain = None
    if how.gain is not None:
        gain = getattr(module, how.gain.rpartition(".")[2])
    result: Tensor = module._conv_forward(input, how(module.weight, gain), module.bias)
    return result


def _without_reshapes(node: Any) -> Any:
    while isinstance(node, fx.Node) and node.op == "call_method" and node.target in RESHAPES:
        node = node.args[0]
    return node
