"""The table of methods: whose weights judge a candidate, what the search sees, who searches.

A method of the comparison is a row here and nowhere else; nothing else knows their names.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from torch import Generator, Tensor, nn

from graphpruning.common.errors import UserError
from graphpruning.common.names import nearest
from graphpruning.network.graph import Widths
from graphpruning.network.widths import SearchSpace
from graphpruning.predictor import PREDICTORS
from graphpruning.pruningnet.conditionings import BASE_LINE, CONDITIONINGS
from graphpruning.search import (
    ddpg,
    evolution,
    group_norm,
    predicted,
    random_search,
    trajectory_feedback,
    uniform,
)
from graphpruning.search.ddpg import DDPGSettings
from graphpruning.search.environment import PruningEnv
from graphpruning.search.evolution import EvolutionSettings
from graphpruning.search.history import Journal
from graphpruning.search.predicted import PredictorSettings
from graphpruning.search.states import AggregatedState, AmcState, HandCraftedState, State
from graphpruning.search.trajectory_feedback import AgentSettings
from graphpruning.search.walled import WalledEnv

Features = Callable[[Widths], Tensor]
"""A PruningNet's aggregated features [layers, size] of any widths."""
Initial = Literal["scratch", "inherited", "generated"]
"""What a final training begins with: fresh weights, the trained base's cut and fitted again, or
those of the method's PruningNet."""


@dataclass(frozen=True)
class Method:
    """One row.

    `source`: where a candidate's weights come from, a PruningNet's conditioning ("graph",
    "block", ...) or "base" (sliced from the trained network). `state`: what the agent sees.
    `searcher`: who proposes candidates, a key of `SEARCHERS`. `kind`: ours, a baseline, or an
    ablation of ours, or beyond the paper. `initial`: what the final training begins with; None is
    what the study says. `distilled`: in it the network learns from the base too. `label` is its
    name in tables, `colour` and `marker` are its looks in figures.
    """

    label: str
    source: str
    state: str
    searcher: str
    kind: str
    colour: str
    marker: str
    initial: Initial | None = None
    distilled: bool = False


METHODS = {
    "graphpruning": Method("GraphPruning", "graph", "aggregated", "agent", "ours", "#0072B2", "o"),
    "metapruning": Method(
        "MetaPruning", "block", "nothing", "evolution", "baseline", "#D55E00", "s"
    ),
    "amc": Method("AMC", "base", "hand-crafted", "ddpg", "baseline", "#009E73", "^"),
    "random": Method("Random search", "graph", "nothing", "random", "baseline", "#CC79A7", "D"),
    "uniform": Method("Uniform width", "graph", "nothing", "uniform", "baseline", "#E69F00", "v"),
    "group-norm": Method(
        "Group norm, one shot", "base", "nothing", "group-norm", "baseline", "#56B4E9", "P"
    ),
    "no-edges": Method("without edges", "none", "aggregated", "agent", "ablation", "#000000", "X"),
    "constant": Method(
        "constant features", "constant", "hand-crafted", "agent", "ablation", "#666666", "H"
    ),
    "hand-crafted": Method(
        "hand-crafted states", "graph", "hand-crafted", "agent", "ablation", "#882255", "<"
    ),
    "frozen": Method(
        "agent that never learns", "graph", "aggregated", "frozen", "ablation", "#AA4499", "8"
    ),
    "generated": Method(
        "from generated weights",
        "graph",
        "aggregated",
        "agent",
        "ablation",
        "#999933",
        ">",
        initial="generated",
    ),
    "no-shortcuts": Method(
        "without shortcut edges", "no-shortcuts", "aggregated", "agent", "ablation", "#332288", "p"
    ),
    "sage": Method("GraphSAGE", "sage", "aggregated", "agent", "ablation", "#757575", "h"),
    "gat": Method("GAT", "gat", "aggregated", "agent", "ablation", "#117733", "*"),
    "graphpruning-plus": Method(
        "GraphPruning plus",
        "graphpruning-plus",
        "aggregated",
        "agent",
        "beyond",
        "#A6761D",
        "d",
        initial="inherited",
        distilled=True,
    ),
    "predictor": Method("Predictor", "graph", "nothing", "predictor", "beyond", "#44AA99", ">"),
}


def method(name: str) -> Method:
    """Return the row called `name`; `UserError` names the nearest one."""
    if name not in METHODS:
        near = nearest(name, METHODS)
        raise UserError(f"there is no method {name!r}; did you mean {near!r}?")
    return METHODS[name]


def rows(names: list[str]) -> dict[str, dict[str, Any]]:
    """The rows called `names` as plain data, with line style and search stage, for tables."""
    return {
        name: {**asdict(row), "line": _line(row), "stage": f"search_{listed_under(name)}"}
        for name in names
        for row in [method(name)]
    }


def _line(row: Method) -> Any:
    return BASE_LINE if row.source == "base" else CONDITIONINGS[row.source].line


def listed_under(name: str) -> str:
    """Where a study lists the row under `searches`: by the source of its weights.

    Rows that are named as their source, a PruningNet that nobody else uses, stand under "own".
    """
    source = method(name).source
    return "own" if source == name else source


def check_lists(searches: Mapping[Any, tuple[str, ...]]) -> None:
    """Raise `UserError` unless each method is listed where it belongs."""
    for listed, names in searches.items():
        for name in names:
            if (right := listed_under(name)) != listed:
                raise UserError(f"searches: {name} stands under {listed!r}; its place is {right!r}")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What the searchers are set to: our agent, AMC's DDPG, evolution's generations, predictors.

    With `racing`, candidates are stopped that are behind the best one by more than chance explains
    (see `search.racing`), in all rows but the baselines.
    """

    agent: AgentSettings = field(default_factory=AgentSettings)
    ddpg: DDPGSettings = field(default_factory=DDPGSettings)
    evolution: EvolutionSettings = field(default_factory=EvolutionSettings)
    predictor: PredictorSettings = field(default_factory=PredictorSettings)
    racing: bool = False

    @classmethod
    def scaled(cls, evaluations: int) -> "SearchSettings":
        """Settings for a search of `evaluations`: the published ones where it is long enough.

        A quarter of the episodes is warm-up, at most AMC's 100 of DDPG's (of 400 in its paper), 50
        of our agent's, which learns from few, and 20 candidates of a predictor's. Of DDPG's noise
        at most a tenth is left at the end; a generation is at most a quarter of all evaluations.
        """
        evaluations = max(2, evaluations)
        warmup = max(1, evaluations // 4)
        explored = min(warmup, DDPGSettings().warmup_episodes)
        decay = min(DDPGSettings().noise_decay, 0.1 ** (1 / (evaluations - explored)))
        population = max(2, min(EvolutionSettings().population, evaluations // 4))
        return SearchSettings(
            agent=AgentSettings(warmup_episodes=min(warmup, 50)),
            ddpg=DDPGSettings(warmup_episodes=explored, noise_decay=decay),
            evolution=EvolutionSettings(
                population=population,
                parents=max(2, population // 5),
                mutations=population // 2,
                crossovers=population // 2,
            ),
            predictor=PredictorSettings(warmup=min(warmup, PredictorSettings().warmup)),
        )


@dataclass(frozen=True)
class Task:
    """What a searcher is given.

    It searches `space` within `budget` (of the space's resource) until `journal` has no evaluation
    left; whatever is found is in the journal's history. All randomness comes from `generator`.
    `features` are those of the PruningNet whose weights judge, `base` is the trained network;
    either may be None.
    """

    row: Method
    space: SearchSpace
    budget: int
    journal: Journal
    generator: Generator
    settings: SearchSettings
    features: Features | None = None
    base: nn.Module | None = None


class Searcher(Protocol):
    """Runs a search to its end."""

    def __call__(self, task: Task) -> None: ...


def _by_agent(task: Task, learns: bool = True) -> None:
    environment = PruningEnv(task.space, task.budget, _state(task), task.journal)
    settings, evaluations = task.settings.agent, task.journal.evaluations
    found = trajectory_feedback.search(environment, evaluations, settings, task.generator, learns)
    task.journal.history.estimated = found


def _by_frozen_agent(task: Task) -> None:
    _by_agent(task, learns=False)


def _by_ddpg(task: Task) -> None:
    if task.row.state != "hand-crafted":
        raise ValueError(f"{task.row.label}: DDPG is AMC's, and sees AMC's ten features")
    environment = WalledEnv(task.space, task.budget, AmcState(task.space), task.journal)
    ddpg.search(environment, task.journal.evaluations, task.settings.ddpg, task.generator)


def _by_evolution(task: Task) -> None:
    settings = task.settings.evolution
    evolution.search(task.space, task.budget, task.journal, settings, task.generator)


def _by_predictor(task: Task) -> None:
    settings = task.settings.predictor
    seed = task.generator.initial_seed()

    def predictor() -> predicted.Predictor:
        return PREDICTORS[settings.kind](task.space, seed)

    journal = task.journal
    found = predicted.search(task.space, task.budget, journal, settings, predictor, task.generator)
    journal.history.estimated = found


def _at_random(task: Task) -> None:
    random_search.search(task.space, task.budget, task.journal, task.generator)


def _uniformly(task: Task) -> None:
    uniform.search(task.space, task.budget, task.journal)


def _by_group_norm(task: Task) -> None:
    if task.base is None:
        raise ValueError(f"{task.row.label}: the trained network is cut, but there is none")
    group_norm.search(task.space, task.budget, task.journal, task.base)


SEARCHERS: dict[str, Searcher] = {
    "agent": _by_agent,
    "frozen": _by_frozen_agent,
    "ddpg": _by_ddpg,
    "evolution": _by_evolution,
    "predictor": _by_predictor,
    "random": _at_random,
    "uniform": _uniformly,
    "group-norm": _by_group_norm,
}
ONE_SHOT = ("uniform", "group-norm")
"""Searchers that propose a single candidate."""


def evaluations_of(row: Method, evaluations: int) -> int:
    """How many candidates the row's searcher judges when each may judge `evaluations`."""
    return 1 if row.searcher in ONE_SHOT else evaluations


def races(row: Method, settings: SearchSettings) -> bool:
    """Whether the row's candidates may be stopped; a baseline judges as its authors did."""
    return settings.racing and row.kind != "baseline"


def require(row: Method, space: SearchSpace, base: nn.Module) -> None:
    """Raise `UserError` for a network that the row's searcher cannot search, before hours pass."""
    space.require_choices()
    if row.searcher == "group-norm":
        group_norm.Ranking(space, base)


def run(task: Task) -> None:
    """Run the searcher of the task's row; `UserError` when the space cannot meet the budget."""
    SEARCHERS[task.row.searcher](task)


def _state(task: Task) -> State:
    if task.row.state == "hand-crafted":
        return HandCraftedState(task.space, task.budget)
    if task.features is None:
        raise ValueError(f"{task.row.label}: aggregated states need a PruningNet's features")
    return AggregatedState(task.space, task.budget, task.features)
