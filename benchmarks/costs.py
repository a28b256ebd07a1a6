"""MACs of 100,000 width vectors of ResNet-50, against counting each with hooks.

The original search builds the network at the widths and adds up what hooks see of its layers.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import Row, alternate
from graphpruning.network.surgery import narrow
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build, seeded

VECTORS, BY_HOOKS = 100_000, 3


def with_hooks(model: nn.Module, size: tuple[int, ...]) -> int:
    """Multiply-accumulates that hooks count in one forward pass."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module.weight, torch.Tensor)
        per_output = module.weight[0].numel()
        total += per_output * output.numel()

    hooks = [
        module.register_forward_hook(count)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(torch.zeros(1, *size))
    for hook in hooks:
        hook.remove()
    return total


def rows() -> list[Row]:
    """Seconds for all vectors; by hooks a few are timed. Raises if any count differs."""
    size = (3, 224, 224)
    with seeded(0):
        model = build("resnet50", 1000).eval()
    graph = trace(model, size)
    space = SearchSpace(graph, divisor=8, smallest=0.1)
    draws = np.random.default_rng(0)
    levels = [np.array(levels) for levels in space.levels.values()]
    vectors = np.stack([draws.choice(choices, VECTORS) for choices in levels], axis=1)
    known = space.cost.macs(vectors)

    def by_hooks(repeat: int) -> None:
        for row in range(BY_HOOKS):
            place = (repeat + 1) * BY_HOOKS + row
            small = narrow(model, graph, space.widths(vectors[place].tolist())).eval()
            if with_hooks(small, size) != known[place]:
                raise AssertionError(f"vector {place}: table and hooks differ")

    found = alternate({"table": lambda repeat: space.cost.macs(vectors), "hooks": by_hooks})
    hooks = [seconds * VECTORS / BY_HOOKS for seconds in found["hooks"]]
    what = f"MACs of {VECTORS:,} width vectors, resnet50"
    against = f"one by one with hooks ({BY_HOOKS} timed)"
    return [Row(what, against, "s", found["table"], hooks, 0.001)]
