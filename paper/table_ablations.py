"""Table 4: what features tell of widths, and what an ablation costs in accuracy."""

from paper import measures
from paper.captions import ONE_REPLICATE, budget_name
from paper.reader.contents import Row
from paper.reader.results import GIVEN, Results
from paper.statistics import Estimate, mean
from paper.table_formats import NOWHERE, Cells, Table, made, spread
from paper.table_main import given, mean_of
from paper.wording import interval


def ablations(results: Results) -> Table:
    """Table 4: what features tell of widths (C2), and what an ablation costs (C2, C4).

    A method that was given beside the study's stands below its ablations.
    """
    rows = []
    for model in results.models:
        rows += _probes(results, model)
        for row in [results.ours, *results.of_kind("ablation"), *results.of_kind(GIVEN)]:
            for budget in results.budgets:
                rows += _accuracies(results, model, row, budget)
    notes = [*mean_of(results), *given(results), *([ONE_REPLICATE] * (len(results.seeds) == 1))]
    return made("table4_ablations", rows, *notes)


def _probes(results: Results, model: str) -> list[tuple[Cells, Cells]]:
    """R² of a probe by distance; the difference is trained minus untrained."""
    rows = []
    for distance, (nearest, farthest) in measures.DISTANCES.items():
        for conditioning in results.analysed:
            told = measures.probe(results, model, conditioning, "trained", nearest, farthest)
            if told is None:
                continue
            rows.append(
                _ablation(
                    model,
                    ("probe", conditioning, results.conditionings[conditioning].label),
                    (f"distance {distance}", f"{distance} edge{'s' * (distance != '1')} away"),
                    ("probe_r2", "probe R²"),
                    told,
                    measures.probe_gain(results, model, conditioning, nearest, farthest),
                )
            )
    return rows


def _accuracies(results: Results, model: str, row: Row, budget: str) -> list[tuple[Cells, Cells]]:
    """Search and final accuracy of a method; the difference is ours minus its own."""
    own = row.name == results.ours.name
    where = (f"budget {budget}", budget_name(results, budget, model))
    variant = ("accuracy", row.name, row.label)
    found = mean(list(results.search_top1(model, row.name, budget).values()))
    final = measures.test_top1(results, model, row.name, budget)
    searches = results.search[model, row.name, budget].values()
    area = mean([measures.area(search.history) for search in searches])
    search_difference = area_difference = final_difference = NOWHERE
    if not own:
        final_difference = measures.test_difference(results, model, row.name, [budget])
        if measures.same_weights(results, row):
            search_difference = measures.search_difference(results, model, row.name, [budget])
            area_difference = measures.area_difference(results, model, row.name, [budget])
    return [
        _ablation(
            model,
            variant,
            where,
            ("top1_search", f"search {results.reward}"),
            found,
            search_difference,
        ),
        _ablation(model, variant, where, ("area", "area under search"), area, area_difference),
        _ablation(model, variant, where, ("top1_test", "test top-1"), final, final_difference),
    ]


def _ablation(
    model: str,
    variant: tuple[str, str, str],
    where: tuple[str, str],
    quantity: tuple[str, str],
    estimate: Estimate,
    difference: Estimate,
) -> tuple[Cells, Cells]:
    """A row of Table 4; pairs are the name for machines and the name for people."""
    part, name, label = variant
    csv = {
        "model": model,
        "part": part,
        "variant": name,
        "at": where[0],
        "quantity": quantity[0],
        **spread("mean", estimate, 4),
        **spread("difference", difference, 4),
        "n": str(estimate.n),
    }
    shown = {
        "Model": model,
        "Variant": label,
        "At": where[1],
        "Quantity": quantity[1],
        "Mean": interval(estimate, 2),
        "Difference": interval(difference, 2, sign=True),
        "n": str(estimate.n),
    }
    return csv, shown
