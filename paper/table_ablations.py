"""Table 4: what aggregation sees, and what an ablation costs in accuracy."""

from paper import measures
from paper.captions import ONE_REPLICATE, budget_name
from paper.reader.contents import Row
from paper.reader.results import GIVEN, Results
from paper.statistics import Estimate, mean
from paper.table_formats import Cells, Table, made, spread
from paper.table_main import given
from paper.wording import interval

DISTANCES: dict[str, tuple[int, int | None]] = {
    "1": (1, 1),
    "2": (2, 2),
    "3": (3, 3),
    "4": (4, 4),
    "5 or more": (5, None),
}
NOWHERE = Estimate(float("nan"), float("nan"), float("nan"), 0)


def ablations(results: Results) -> Table:
    """Table 4: what aggregation sees (C2), and what an ablation costs in accuracy (C2, C4).

    A method that was given beside the study's stands below its ablations.
    """
    rows = []
    for model in results.models:
        rows += _influence(results, model)
        for row in [results.ours, *results.of_kind("ablation"), *results.of_kind(GIVEN)]:
            for budget in results.budgets:
                rows += _accuracies(results, model, row, budget)
    notes = [*given(results), *([ONE_REPLICATE] * (len(results.seeds) == 1))]
    return made("table4_ablations", rows, *notes)


def _influence(results: Results, model: str) -> list[tuple[Cells, Cells]]:
    """Movement by distance; the difference is our conditioning's minus the row's."""
    ours = results.ours.source
    rows = []
    for distance, (nearest, farthest) in DISTANCES.items():
        for conditioning in results.analysed:
            moved = measures.movement(results, model, conditioning, nearest, farthest)
            if moved is None:
                continue
            difference = NOWHERE
            if ours in results.analysed and conditioning != ours:
                difference = measures.movement_difference(
                    results, model, conditioning, nearest, farthest
                )
            rows.append(
                _ablation(
                    model,
                    ("influence", conditioning, results.conditionings[conditioning].label),
                    (f"distance {distance}", f"{distance} edge{'s' * (distance != '1')} away"),
                    ("movement", "movement (%)"),
                    moved,
                    difference,
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
    search_difference = final_difference = NOWHERE
    if not own:
        final_difference = measures.test_difference(results, model, row.name, [budget])
        if measures.same_weights(results, row):
            search_difference = measures.search_difference(results, model, row.name, [budget])
    return [
        _ablation(
            model,
            variant,
            where,
            ("top1_search", f"search {results.reward}"),
            found,
            search_difference,
        ),
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
    scale, digits = (100, 1) if part == "influence" else (1, 2)
    shown = {
        "Model": model,
        "Variant": label,
        "At": where[1],
        "Quantity": quantity[1],
        "Mean": interval(estimate.scaled(scale), digits),
        "Difference": interval(difference.scaled(scale), digits, sign=True),
        "n": str(estimate.n),
    }
    return csv, shown
