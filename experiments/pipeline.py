"""The pipeline as DVC sees it: its stages, what each one needs, and which of them must run.

Nothing here knows a stage by name: `dvc.yaml` and the study say all of it.
"""

import json
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import yaml

from graphpruning.common.errors import UserError, reason

PIPELINE = "dvc.yaml"


@dataclass(frozen=True)
class Step:
    """A stage that must run. `needs` names those that must have run before, each once: what these
    need themselves is left out. `seconds` is how long it took the last time, or a guess.
    """

    name: str
    needs: tuple[str, ...] = ()
    seconds: float = 1.0

    @property
    def kind(self) -> str:
        """The stage's name without the values of its matrix."""
        return self.name.partition("@")[0]


Steps = dict[str, Step]
"""By name, each after those that it needs."""


def steps_to_run(
    everything: bool = False, begun: Collection[str] = (), pipeline: str = PIPELINE
) -> Steps:
    """Return the stages of `pipeline` that are not up to date or come after one that is not; all of
    them, if `everything` is to run again. Files that DVC only watches are among them if they have
    changed. A frozen stage is taken as it is. Stages that have `begun` elsewhere count as not up
    to date, and are not looked at: they hold DVC's locks.

    Raises `UserError` with DVC's reason where it cannot read the pipeline.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # a warning of DVC's is no news here
    stale: set[Any] = set()
    try:
        with Repo(_wait_for_lock=True) as repo, repo.lock:
            graph = _needed(repo.index.graph, pipeline)
            for stage in reversed(list(nx.topological_sort(graph))):  # edges lead to what is needed
                if (
                    stage.addressing in begun
                    or (everything and not stage.is_data_source)
                    or not stale.isdisjoint(graph[stage])
                    or stage.status(check_updates=False)
                ):
                    stale.add(stage)
    except DvcException as error:
        raise UserError(f"{pipeline}: {reason(error)}") from None
    return _reduced(graph, stale)


def kinds() -> list[str]:
    """Return the stages of dvc.yaml, without the values of their matrices."""
    return list(yaml.safe_load(Path(PIPELINE).read_text())["stages"])


def _needed(graph: Any, pipeline: str) -> Any:
    """The stages of a dvc.yaml and what they need; nothing is needed for a frozen one."""
    frozen = [stage for stage in graph if stage.frozen]
    free = nx.restricted_view(graph, frozen, [])
    wanted = {stage for stage in free if stage.relpath == pipeline}
    for stage in list(wanted):
        wanted |= nx.descendants(free, stage)
    return free.subgraph(wanted)


def _reduced(graph: Any, stages: set[Any]) -> Steps:
    closed = nx.transitive_closure_dag(nx.DiGraph(graph.edges))
    closed.add_nodes_from(graph)
    direct = nx.transitive_reduction(closed.subgraph(stages))
    seconds = _seconds(stages)
    return {
        stage.addressing: Step(
            stage.addressing,
            tuple(sorted(needed.addressing for needed in direct[stage])),
            seconds[stage],
        )
        for stage in nx.lexicographical_topological_sort(
            direct.reverse(), key=lambda stage: stage.addressing
        )
    }


def _seconds(stages: set[Any]) -> dict[Any, float]:
    """What earlier runs took, by the `run.json` that a stage leaves; their mean for the others."""
    known = {}
    for stage in stages:
        for out in stage.outs:
            if Path(out.fs_path).name == "run.json":
                with suppress(OSError, ValueError, KeyError, TypeError):
                    known[stage] = float(json.loads(Path(out.fs_path).read_text())["seconds"])
    mean = sum(known.values()) / len(known) if known else 1.0
    return {stage: known.get(stage, mean) for stage in stages}


def seconds_to_the_end(steps: Mapping[str, Step]) -> dict[str, float]:
    """How long it takes at least from the start of each step until all that needs it has run."""
    left = {name: step.seconds for name, step in steps.items()}
    for name in reversed(list(steps)):
        for needed in steps[name].needs:
            left[needed] = max(left[needed], steps[needed].seconds + left[name])
    return left
