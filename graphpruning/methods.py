"""The table of methods: whose weights judge a candidate, what the search sees, who searches.

A method of the comparison is a row here and nowhere else; nothing else knows their names.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Generator, Tensor, nn

from graphpruning.common.errors import UserError
from graphpruning.network.graph import Widths
from graphpruning.network.widths import SearchSpace
from graphpruning.search import ddpg, evolution, group_norm, random_search, uniform
from graphpruning.search.ddpg import DDPGSettings
from graphpruning.search.environment import PruningEnv
from graphpruning.search.evolution import EvolutionSettings
from graphpruning.search.history import Journal
from graphpruning.search.states import AggregatedState, HandCraftedState, State

Features = Callable[[Widths], Tensor]
"""A PruningNet's aggregated features [layers, size] of any widths."""


@dataclass(frozen=True)
class Method:
    """One row.

    `source`: where a candidate's weights come from, a PruningNet's conditioning ("graph",
    "block", ...) or "base" (sliced from the trained network). `state`: what the agent sees.
    `searcher`: who proposes candidates. `kind`: ours, a baseline, or an ablation of ours.
    `initial`: what the final training begins with: what the study says, or "searched", the weights
    that the search judged by.
    """

    label: str
    source: str
    state: str
    searcher: str
    kind: str
    initial: str = "study"


METHODS = {
    "graphpruning": Method("GraphPruning", "graph", "aggregated", "ddpg", "ours"),
    "metapruning": Method("MetaPruning", "block", "nothing", "evolution", "baseline"),
    "amc": Method("AMC", "base", "hand-crafted", "ddpg", "baseline"),
    "random": Method("Random search", "graph", "nothing", "random", "baseline"),
    "uniform": Method("Uniform width", "graph", "nothing", "uniform", "baseline"),
    "group-norm": Method("Group norm, one shot", "base", "nothing", "group-norm", "baseline"),
    "no-edges": Method("without edges", "none", "aggregated", "ddpg", "ablation"),
    "hand-crafted": Method("hand-crafted states", "graph", "hand-crafted", "ddpg", "ablation"),
    "generated": Method(
        "from generated weights", "graph", "aggregated", "ddpg", "ablation", "searched"
    ),
    "no-shortcuts": Method(
        "without shortcut edges", "no-shortcuts", "aggregated", "ddpg", "ablation"
    ),
    "sage": Method("GraphSAGE", "sage", "aggregated", "ddpg", "ablation"),
    "gat": Method("GAT", "gat", "aggregated", "ddpg", "ablation"),
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


def place(name: str) -> str:
    """Where the study lists the row under `searches`: by the source of its weights.

    Those that are named as their source, a PruningNet that nobody else uses, are "ablations".
    """
    source = method(name).source
    return "ablations" if source == name else source


def check_places(searches: Mapping[Any, tuple[str, ...]]) -> None:
    """Raise `UserError` unless each method is listed where it belongs."""
    for listed, names in searches.items():
        for name in names:
            if (right := place(name)) != listed:
                raise UserError(f"searches: {name} stands under {listed!r}; its place is {right!r}")


@dataclass(frozen=True)
class SearchSettings:
    """What the searchers are set to: DDPG's agent, and evolution's generations."""

    agent: DDPGSettings = field(default_factory=DDPGSettings)
    evolution: EvolutionSettings = field(default_factory=EvolutionSettings)

    @classmethod
    def scaled(cls, evaluations: int) -> "SearchSettings":
        """Settings for a search of `evaluations`: the published ones where it is long enough.

        A quarter of the episodes is warm-up (AMC: 100 of 400), after which the noise falls at
        least to a tenth; a generation is at most a quarter of all evaluations.
        """
        warmup = evaluations // 4
        decay = min(DDPGSettings().noise_decay, 0.1 ** (1 / (evaluations - warmup)))
        population = max(2, min(EvolutionSettings().population, evaluations // 4))
        return cls(
            DDPGSettings(warmup_episodes=warmup, noise_decay=decay),
            EvolutionSettings(
                population=population,
                parents=max(2, population // 5),
                mutations=population // 2,
                crossovers=population // 2,
            ),
        )


def evaluations_of(row: Method, evaluations: int) -> int:
    """How many candidates the row's searcher judges when each may judge `evaluations`."""
    return 1 if row.searcher in ("uniform", "group-norm") else evaluations


def run(
    row: Method,
    space: SearchSpace,
    budget: int,
    journal: Journal,
    generator: Generator,
    features: Features | None,
    settings: SearchSettings,
    base: nn.Module | None,
) -> None:
    """Run the row's searcher within `budget` (MACs) until `journal` has no evaluation left.

    `features` are those of the PruningNet whose weights judge; the states of some methods are
    made of them. `base` is the trained network, which some methods cut. All randomness comes from
    `generator`; whatever is found is in the journal's history. Raises `UserError` when the space
    cannot meet the budget.
    """
    if row.searcher == "ddpg":
        environment = PruningEnv(space, budget, _state(row, space, budget, features), journal)
        ddpg.search(environment, journal.evaluations, settings.agent, generator)
    elif row.searcher == "evolution":
        evolution.search(space, budget, journal, settings.evolution, generator)
    elif row.searcher == "random":
        random_search.search(space, budget, journal, generator)
    elif row.searcher == "uniform":
        uniform.search(space, budget, journal)
    elif row.searcher == "group-norm":
        if base is None:
            raise ValueError(f"{row.label}: the trained network is cut, but there is none")
        group_norm.search(space, budget, journal, base)
    else:
        raise ValueError(f"{row.label}: there is no searcher {row.searcher!r}")


def _state(row: Method, space: SearchSpace, budget: int, features: Features | None) -> State:
    if row.state == "hand-crafted":
        return HandCraftedState(space, budget)
    if features is None:
        raise ValueError(f"{row.label}: aggregated states need a PruningNet's features")
    return AggregatedState(space, budget, features)
