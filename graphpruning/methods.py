"""The table of methods: whose weights judge a candidate, what the search sees, who searches.

A method of the comparison is a row here and nowhere else; nothing else knows their names.
"""

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from graphpruning.errors import UserError


@dataclass(frozen=True)
class Method:
    """One row.

    `source`: where a candidate's weights come from, a PruningNet's conditioning ("graph",
    "block", "none") or "base" (sliced from the trained network). `state`: what the agent sees.
    `searcher`: who proposes candidates. `kind`: ours, a baseline, or an ablation of ours.
    """

    label: str
    source: str
    state: str
    searcher: str
    kind: str


METHODS = {
    "graphpruning": Method("GraphPruning", "graph", "aggregated", "ddpg", "ours"),
    "metapruning": Method("MetaPruning", "block", "nothing", "evolution", "baseline"),
    "amc": Method("AMC", "base", "hand-crafted", "ddpg", "baseline"),
    "random": Method("Random search", "graph", "nothing", "random", "baseline"),
    "uniform": Method("Uniform width", "graph", "nothing", "uniform", "baseline"),
    "no-edges": Method("without edges", "none", "aggregated", "ddpg", "ablation"),
    "hand-crafted": Method("hand-crafted states", "graph", "hand-crafted", "ddpg", "ablation"),
}


def method(name: str) -> Method:
    """Return the row called `name`; `UserError` names the nearest one."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, 1, 0)[0]
        raise UserError(f"there is no method {name!r}; did you mean {near!r}?")
    return METHODS[name]


def rows(names: list[str]) -> dict[str, dict[str, Any]]:
    """The rows called `names` as plain data, for tables."""
    return {name: asdict(method(name)) for name in names}


def check_sources(searches: dict[str, tuple[str, ...]]) -> None:
    """Raise `UserError` unless each method is listed under the source of its weights."""
    for source, names in searches.items():
        for name in names:
            if (right := method(name).source) != source:
                raise UserError(f"searches: {name} stands under {source!r}; its place is {right!r}")
