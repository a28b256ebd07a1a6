"""GraphPruning: channel pruning with a graph aggregator, a PruningNet and a search.

The names below are imported on first use, so that `import graphpruning` stays light.
"""

from importlib import import_module
from typing import Any

_FACE = {
    "trace": "graphpruning.network.trace",
    "ChannelGraph": "graphpruning.network.graph",
    "macs": "graphpruning.network.cost",
    "params": "graphpruning.network.cost",
    "narrow": "graphpruning.network.surgery",
    "SearchSpace": "graphpruning.network.widths",
    "describe": "graphpruning.inspection",
    "draw": "graphpruning.drawing",
    "prune": "graphpruning.pruning",
    "load_architecture": "graphpruning.architecture",
    "save_architecture": "graphpruning.architecture",
    "UserError": "graphpruning.common.errors",
    "UnsupportedNetwork": "graphpruning.common.errors",
}
__all__ = [
    "ChannelGraph",
    "SearchSpace",
    "UnsupportedNetwork",
    "UserError",
    "describe",
    "draw",
    "load_architecture",
    "macs",
    "narrow",
    "params",
    "prune",
    "save_architecture",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'graphpruning' has no attribute {name!r}")
    return getattr(import_module(_FACE[name]), name)


def __dir__() -> list[str]:
    return __all__
