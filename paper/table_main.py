"""Tables 3 and 3b: every method's final networks, what their search cost, and differences."""

import math
from collections.abc import Sequence

import numpy as np

from paper import clock, measures
from paper.captions import ONE_REPLICATE, budget_amount, budget_name
from paper.reader.contents import Run
from paper.reader.results import GIVEN, Results
from paper.rule import ABOVE, BELOW, MATTERS, OPEN, SAME, Effect, holm, said
from paper.statistics import Estimate, interquartile_mean
from paper.table_formats import NOWHERE, Cells, Table, made, spread
from paper.wording import ABSENT, fixed, interval, joined, number


def main_results(results: Results, name: str = "table3_main") -> Table:
    """Table 3: final accuracy, cost of the network and cost of the search."""
    rows = []
    stages = []
    for model in results.models:
        rows.append(_base(results, model))
        stages.append([results.base[model, seed].run for seed in results.seeds])
        for budget in results.budgets:
            for method in results.rows:
                rows.append(_method(results, model, method, budget))
                stages.append(_runs(results, model, method, budget))
    notes = [*mean_of(results), _not_counted(results), *given(results)]
    notes += [ONE_REPLICATE] * (len(results.seeds) == 1)
    table = made(name, rows, *notes)
    named = tuple(tuple(run.stage for run in runs) for runs in stages)
    return Table(table.name, table.csv, table.shown, table.notes, named)


def second_results(second: Results) -> Table:
    """Table 3b: the same of `Results.second`, the same networks trained in another way."""
    return main_results(second, "table3b_second")


def mean_of(results: Results) -> list[str]:
    """How many final trainings an accuracy is the mean of, where they are several."""
    if set(results.trainings) <= {1}:
        return []
    labels: dict[tuple[int, ...], list[str]] = {}
    for name, row in results.rows.items():
        labels.setdefault(results.trainings_of(name), []).append(row.label)
    labels.pop((), None)  # somebody's own results
    ours = results.trainings_of(results.ours.name)
    others = "; ".join(
        f"of {joined(of_number)}: {_numbers(count)}"
        for count, of_number in labels.items()
        if count != ours
    )
    alike = "of one method" if others else "of a replicate"
    unequal = f", as many for all networks {alike}" if max(map(len, labels)) > 1 else ""
    unequal += " in a replicate" if unequal and others else ""
    trainings = "training" if ours == (1,) else "trainings"
    return [
        f"A found network's accuracy is the mean of {_numbers(ours)} final {trainings}"
        f"{f' ({others})' if others else ''}{unequal}; they differ in the order of images, in "
        "augmentation, and in fresh weights if they begin so."
    ]


def _numbers(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))


def _base(results: Results, model: str) -> tuple[Cells, Cells]:
    base = results.network(model)
    return _row(
        results,
        model,
        ("base", "base network"),
        ("1.0", ABSENT),
        measures.base_top1(results, model),
        size=(float(base.macs), float(base.params)),
        before=float("nan"),
        searched=(0.0, 0.0, 0.0, 0.0),
        robust=(
            interquartile_mean([results.base[model, seed].test_top1 for seed in results.seeds]),
            NOWHERE,
        ),
    )


def _method(results: Results, model: str, method: str, budget: str) -> tuple[Cells, Cells]:
    searches = results.search[model, method, budget].values()
    finals = results.final[model, method, budget].values()
    before = [one.search_top1_before for one in finals]
    return _row(
        results,
        model,
        (method, results.rows[method].label),
        (budget, budget_amount(results, budget, model)),
        measures.test_top1(results, model, method, budget),
        size=(_mean([one.macs for one in finals]), _mean([one.params for one in finals])),
        before=_mean([float("nan") if top1 is None else top1 for top1 in before]),
        searched=(
            _mean([one.evaluations for one in searches]),
            _mean([one.distinct for one in searches]),
            clock.typical(results, [(one.run, one.seconds) for one in searches]),
            _mean([one.images_seen for one in searches]),
        ),
        robust=(
            interquartile_mean([one.test_top1 for one in finals]),
            _improvement(results, model, method, [budget]),
        ),
    )


def _improvement(results: Results, model: str, method: str, budgets: list[str]) -> Estimate:
    """Probability that ours is better than the method, which is not compared with itself."""
    if method == results.ours.name:
        return NOWHERE
    return measures.test_improvement(results, model, method, budgets)


def _row(
    results: Results,
    model: str,
    method: tuple[str, str],
    budget: tuple[str, str],
    top1: Estimate,
    size: tuple[float, float],
    before: float,
    searched: tuple[float, float, float, float],
    robust: tuple[Estimate, Estimate],
) -> tuple[Cells, Cells]:
    """Pairs of `method` and `budget` are the name for machines and the name for people.

    `size` is MACs and parameters; `searched` is evaluations, different candidates among them,
    seconds and images; `robust` is the interquartile mean and the probability that ours is better.
    """
    full = results.network(model).macs
    macs, params = size
    evaluations, distinct, seconds, images = searched
    csv = {
        "model": model,
        "method": method[0],
        "budget": budget[0],
        "macs": fixed(macs, 0),
        "macs_ratio": fixed(macs / full, 4),
        "params": fixed(params, 0),
        "search_top1_before": fixed(before, 3),
        "top1_mean": fixed(top1.value, 3),
        "top1_low": fixed(top1.low, 3),
        "top1_high": fixed(top1.high, 3),
        "seeds": str(top1.n),
        **spread("iqm", robust[0], 3),
        **spread("improvement", robust[1], 3),
        "evaluations": fixed(evaluations, 0),
        "distinct": fixed(distinct, 1),
        "search_seconds": fixed(seconds, 1),
        "images_seen": fixed(images, 0),
    }
    judged = number(evaluations, 0)
    shown = {
        "Model": model,
        "Method": method[1],
        "Budget": budget[1],
        "Before (%)": number(before, 2),
        "Top-1 (%)": interval(top1, 2),
        "IQM (%)": number(robust[0].value, 2),
        "P(better)": number(robust[1].value, 2),
        "MACs (M)": number(macs / 1e6, 2),
        "Params (k)": number(params / 1e3, 1),
        "Judged": judged if distinct > evaluations - 0.5 else f"{judged} ({number(distinct, 0)})",
        "Search (s)": number(seconds, 1),
        "Images": number(images, 0),
    }
    return csv, shown


def _runs(results: Results, model: str, method: str, budget: str) -> list[Run]:
    searches = [one.run for one in results.search[model, method, budget].values()]
    finals = [run for one in results.final[model, method, budget].values() for run in one.runs]
    return [run for run in searches if run] + finals


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _not_counted(results: Results) -> str:
    """What the search leaves out: the networks that its candidates' weights come from."""
    trained: dict[str, list[Run]] = {}
    for (_, name, _), net in results.pruningnet.items():
        trained.setdefault(results.conditionings[name].label, []).append(net.run)
    for (model, _), base in results.base.items():
        trained.setdefault(f"the base {model}, which AMC cuts", []).append(base.run)
    costs = [
        f"{name}: {number(_mean([run.images_seen for run in runs]), 0)} images and "
        f"{number(clock.typical(results, [(run, run.seconds) for run in runs]), 0)} s"
        for name, runs in trained.items()
    ]
    of_several = ", each in the mean of its runs, of seconds the median"
    return (
        "Not counted in the search: training the PruningNets and the base network "
        f"({'; '.join(costs)}{of_several * (len(results.seeds) > 1)})."
    )


def given(results: Results) -> list[str]:
    """Which rows were not measured here."""
    files: dict[str, list[str]] = {}
    for row in results.of_kind(GIVEN):
        files.setdefault(row.searcher, []).append(row.label)
    return [f"{joined(labels)}: as given in {file}." for file, labels in files.items()]


def differences(results: Results) -> Table:
    """Ours minus each other method in final test accuracy, within each replicate.

    Over all budgets, methods that a claim compares at once share one pooled error; the baselines,
    which C5 compares, have Holm's p-values as well.
    """
    rows = []
    ours = results.ours
    baselines = [row.name for row in results.of_kind("baseline")]
    compared = {
        (model, name): estimate
        for model in results.models
        for name, estimate in (
            measures.test_contrasts(results, model, baselines) if baselines else {}
        ).items()
    }
    # As in C5: corrected over the baselines of all models.
    p_values = holm([estimate.p_two_sided for estimate in compared.values()])
    effects = [Effect(estimate, MATTERS) for estimate in compared.values()]
    corrected = dict(zip(compared, p_values, strict=True))
    says = dict(zip(compared, said(effects), strict=True))
    for model in results.models:
        pooled = {name: estimate for (of, name), estimate in compared.items() if of == model}
        ablations = [row.name for row in measures.conditioning_ablations(results)]
        if ablations:
            pooled |= measures.test_contrasts(results, model, ablations)
        for row in results.rows.values():
            if row.name == ours.name:
                continue
            csv = {"model": model, "method": row.name}
            shown = {"Model": model, f"{ours.label} minus": row.label}
            for budget in results.budgets:
                found = measures.test_difference(results, model, row.name, [budget])
                csv |= spread(f"difference_{budget}", found, 3)
                shown[budget_name(results, budget)] = interval(found, 2, sign=True)
            alone = measures.test_difference(results, model, row.name, results.budgets)
            overall = pooled.get(row.name, alone)
            better = _improvement(results, model, row.name, results.budgets)
            p = corrected.get((model, row.name), math.nan)
            csv |= spread("difference", overall, 3) | spread("improvement", better, 3)
            csv |= {"p_holm": fixed(p, 4), "seeds": str(overall.n)}
            shown |= {
                "All budgets": interval(overall, 2, sign=True),
                "P(better)": number(better.value, 2),
                "p (Holm)": number(p, 3) if not p < 0.001 else "<0.001",
                "Says": _SAYS.get(says.get((model, row.name), ""), ABSENT),
                "Seeds": str(overall.n),
            }
            rows.append((csv, shown))
    return made("paired_differences", rows, *mean_of(results))


_SAYS = {ABOVE: "better", SAME: "equivalent", BELOW: "worse", OPEN: "open"}
