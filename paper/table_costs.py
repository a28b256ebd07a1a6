"""Table 6: what methods cost, with all that they need, and what equal accuracy costs a search."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from paper import clock
from paper.captions import budget_amount
from paper.reader.contents import Row, Run, Search
from paper.reader.results import GIVEN, Results
from paper.table_formats import Cells, Table, made
from paper.wording import ABSENT, fixed, number

ONE_CANDIDATE = ("uniform", "group-norm")
"""Searchers that have nothing to choose from, and so need no PruningNet to judge it by."""
TRAINING = 3
"""MACs of a training step, in forward passes: one forward, one for each of two gradients."""


class Cost(NamedTuple):
    """Images that went through networks, seconds of the whole stage, MACs; NaN if not known.

    Seconds are those that `paper.clock` counts.
    """

    images: float
    seconds: float
    macs: float = math.nan


def costs(results: Results) -> Table:
    """The base and the PruningNets, which several methods share, then every method."""
    rows = []
    for model in results.models:
        base = _base(results, model)
        rows.append(_shared(model, "base", "base network", base))
        nets = {}
        for name, styled in results.conditionings.items():
            runs = [results.pruningnet[model, name, seed].run for seed in results.seeds]
            nets[name] = _trained(results, runs)
            label = f"PruningNet, {styled.label}"
            rows.append(_shared(model, f"pruningnet-{name}", label, nets[name]))
        for budget in results.budgets:
            for row in results.rows.values():
                judged = row.source in nets and row.searcher not in ONE_CANDIDATE
                needs = [base, *([nets[row.source]] if judged else [])]
                rows.append(_method(results, model, row, budget, needs))
    return made("table6_costs", rows, *_not_counted(results))


def _not_counted(results: Results) -> list[str]:
    """Trainings that only make an accuracy more exact, and not of all methods."""
    if not any(one.again for by_seed in results.final.values() for one in by_seed.values()):
        return []
    return ["Further final trainings, which some methods' networks have, are not counted."]


def _base(results: Results, model: str) -> Cost:
    cost = _trained(results, [results.base[model, seed].run for seed in results.seeds])
    return cost._replace(macs=TRAINING * results.network(model).macs * cost.images)


def _trained(results: Results, runs: Sequence[Run]) -> Cost:
    """Over replicates; what MACs a PruningNet's random widths had, no file tells."""
    seconds = clock.typical(results, [(run, run.seconds) for run in runs])
    return Cost(_mean([run.images_seen for run in runs]), seconds)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _searched(results: Results, searches: Sequence[Search]) -> Cost:
    """Over replicates; user-supplied results do not tell the whole stage's seconds."""
    taken = [(one.run, one.run.seconds if one.run else math.nan) for one in searches]
    return Cost(
        _mean([one.images_seen for one in searches]),
        clock.typical(results, taken),
        _mean([judged_macs(one) for one in searches]),
    )


def judged_macs(search: Search) -> float:
    """What judging candidates took: each different one once, at its own MACs.

    NaN for user-supplied results, which do not tell what candidates there were.
    """
    if search.run is None:
        return math.nan
    each = search.history.drop_duplicates("widths")["macs"]
    return search.images_seen * float(each.mean())


def _finals(results: Results, model: str, row: Row, budget: str) -> Cost:
    """Final trainings of both kinds, without further ones; with a teacher, its forward pass too."""
    found = results.final[model, row.name, budget].values()
    runs = [one.run for one in found if one.run]
    teacher = results.network(model).macs if row.distilled else 0
    macs = [(TRAINING * f.macs + teacher) * f.run.images_seen for f in found if f.run]
    return _trained(results, runs)._replace(macs=_mean(macs))


def _method(
    results: Results, model: str, row: Row, budget: str, needs: list[Cost]
) -> tuple[Cells, Cells]:
    search = _searched(results, list(results.search[model, row.name, budget].values()))
    final = _finals(results, model, row, budget)
    parts = [*needs, search, final]
    total = Cost(sum(part.images for part in parts), sum(part.seconds for part in parts))
    reached = equal_accuracy(results, model, row, budget)
    evaluations = _mean([found[0] for found in reached])
    images = _mean([found[1] for found in reached])
    how_many = str(len(reached)) if _comparable(results, row) else ""
    of_all = f" ({how_many}/{len(results.seeds)})" * (0 < len(reached) < len(results.seeds))
    csv = {
        **_named(model, row.name, budget),
        **_cells(search, final, total),
        "equal_evaluations": fixed(evaluations, 1),
        "equal_images": fixed(images, 0),
        "equal_replicates": how_many,
    }
    shown = {
        **_shown(model, row.label, budget_amount(results, budget, model), search, final, total),
        "Equal after": number(evaluations, 1) + of_all,
    }
    return csv, shown


def _shared(model: str, name: str, label: str, cost: Cost) -> tuple[Cells, Cells]:
    nothing = Cost(math.nan, math.nan)
    csv = {**_named(model, name, ""), **_cells(nothing, cost, cost)}
    shown = _shown(model, label, ABSENT, nothing, cost, cost)
    csv |= {"equal_evaluations": "", "equal_images": "", "equal_replicates": ""}
    shown |= {"Equal after": ABSENT}
    return csv, shown


def _named(model: str, method: str, budget: str) -> Cells:
    return {"model": model, "method": method, "budget": budget}


def _cells(search: Cost, training: Cost, total: Cost) -> Cells:
    return {
        "search_images": fixed(search.images, 0),
        "search_seconds": fixed(search.seconds, 1),
        "search_gmacs": fixed(search.macs / 1e9, 1),
        "training_images": fixed(training.images, 0),
        "training_seconds": fixed(training.seconds, 1),
        "training_gmacs": fixed(training.macs / 1e9, 1),
        "total_images": fixed(total.images, 0),
        "total_seconds": fixed(total.seconds, 1),
    }


def _shown(model: str, label: str, budget: str, search: Cost, training: Cost, total: Cost) -> Cells:
    return {
        "Model": model,
        "Method": label,
        "Budget": budget,
        "Judged (k)": number(search.images / 1e3, 1),
        "Search (s)": number(search.seconds, 1),
        "Search GMACs": number(search.macs / 1e9, 0),
        "Trained (k)": number(training.images / 1e3, 1),
        "Train (s)": number(training.seconds, 1),
        "Train GMACs": number(training.macs / 1e9, 0),
        "All (k)": number(total.images / 1e3, 1),
        "All (s)": number(total.seconds, 1),
    }


def _random(results: Results) -> Row | None:
    """The row of random search, if the study has one."""
    return next((r for r in results.rows.values() if r.searcher == "random"), None)


def _comparable(results: Results, row: Row) -> bool:
    """Whether a method rates candidates by the weights that random search does."""
    random = _random(results)
    return random is not None and row.kind != GIVEN and row.source == random.source


def equal_accuracy(results: Results, model: str, row: Row, budget: str) -> list[tuple[int, float]]:
    """Evaluations and images until the best so far is what random search ends with.

    One pair for each replicate in which the method gets there; none of methods whose candidates
    are rated by other weights.
    """
    random = _random(results)
    if random is None or not _comparable(results, row):
        return []
    found = []
    for seed, search in results.search[model, row.name, budget].items():
        goal = results.search[model, random.name, budget][seed].top1_search
        there = search.history.index[search.history["best"] >= goal]
        if len(there):
            found.append(_until(search, search.history.loc[: there[0]]))
    return found


def _until(search: Search, history: pd.DataFrame) -> tuple[int, float]:
    """A candidate that comes again is not judged again."""
    judged = history["widths"].nunique() / search.history["widths"].nunique()
    return len(history), judged * search.images_seen
