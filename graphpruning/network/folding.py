"""Batch normalisation with known statistics as a part of the convolution before it.

    scale (W x + b - mean) / s + shift = (scale / s) W x + (scale / s) (b - mean) + shift

with s = sqrt(variance + eps), per output channel.
"""

from collections import Counter

from torch import Tensor, fx, nn

from graphpruning.network.leaves import standardised_layers

Terms = tuple[Tensor, Tensor | None]


def norms_to_fold(module: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Return the nodes of convolutions that a batch normalisation reads alone, with its node.

    Both are called once. A convolution that standardises its weight is left as it is.
    """
    modules = dict(module.named_modules())
    calls = Counter(node.target for node in module.graph.nodes if node.op == "call_module")
    standardised = standardised_layers(module)

    def once(node: fx.Node, kind: type[nn.Module]) -> bool:
        is_module = node.op == "call_module" and isinstance(modules[str(node.target)], kind)
        return is_module and calls[node.target] == 1

    found = {}
    for node in module.graph.nodes:
        if not once(node, nn.Conv2d) or node.target in standardised or len(node.users) != 1:
            continue
        (reader,) = node.users
        if once(reader, nn.BatchNorm2d):
            found[node] = reader
    return found


def folded(
    layer: Terms, statistics: tuple[Tensor, Tensor], norm: Terms | tuple[None, None], eps: float
) -> tuple[Tensor, Tensor]:
    """Return the weight [out, in, height, width] and the bias [out] of both together.

    They are computed in the precision of the weight.

    Args:
        layer: the convolution's weight and bias.
        statistics: mean and variance [out].
        norm: scale and shift [out], where there are any.
    """
    (weight, bias), (mean, variance), (scale, shift) = layer, statistics, norm
    factor = (variance + eps).rsqrt()
    if scale is not None:
        factor = factor * scale
    offset = -mean * factor if bias is None else (bias - mean) * factor
    if shift is not None:
        offset = offset + shift
    return weight * factor[:, None, None, None], offset
