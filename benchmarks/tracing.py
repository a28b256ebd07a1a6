"""A network's channel graph, against Torch-Pruning's dependency graph: processor seconds.

Theirs follows autograd from one forward pass; ours also follows a narrowed network, to see that
it does what was traced.
"""

import time
from collections.abc import Callable

import torch

from benchmarks.harness import Row, alternate
from graphpruning.network.trace import trace
from graphpruning.network.zoo import build, seeded

MOST = 0.4
NETWORKS = {"resnet50": 2.0, "densenet121": 2.0, "regnet_y_400mf": None, "efficientnet_b0": None}
"""Networks, and how many times Torch-Pruning's time ours may take."""


def rows() -> list[Row]:
    """Each network at 224 px, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row for name, most in NETWORKS.items() for row in _rows(name, most)]
    finally:
        torch.set_num_threads(threads)


def _rows(name: str, most: float | None) -> list[Row]:
    import torch_pruning  # of an extra, which the other parts do without

    size = (3, 224, 224)
    with seeded(0):
        model = build(name, 1000).eval()
    image = torch.zeros(1, *size)
    found = alternate(
        {
            "ours": lambda repeat: trace(model, size),
            "theirs": lambda repeat: torch_pruning.DependencyGraph().build_dependency(model, image),
        },
        measure=_processor_seconds,
    )
    ours, what = found["ours"], f"trace of {name}"
    return [
        Row(what, "Torch-Pruning's dependency graph", "CPU s", ours, found["theirs"], most),
        Row(what, f"{MOST} s", "CPU s", ours, [MOST] * len(ours), 1),
    ]


def _processor_seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before
