"""Check the study, and split the training images: index lists that every later stage reads."""

from collections import Counter
from dataclasses import replace

from experiments.inputs import (
    SPLITS,
    fresh,
    network,
    search_space,
    test_images,
    training_images,
)
from experiments.stage import Context, Stage
from experiments.study import budget_in_macs, budget_name
from graphpruning import methods
from graphpruning.files import write_json, write_text
from graphpruning.training.data import ImageSet, split


def prepare(context: Context) -> None:
    """Write splits/*.txt, splits/metrics.json and study.json, which tables and figures read."""
    study = context.study
    methods.check_sources(study.searches)
    images, data = training_images(context), study.data
    for model in study.models:
        _check_budgets(context, model, images)
    splits = split(images.labels, data.search_images, data.calibration_images, data.seed)
    folder = context.results / "splits"
    counts = {}
    for name in SPLITS:
        indices = getattr(splits, name)
        write_text(folder / f"{name}.txt", "\n".join(map(str, indices.tolist())) + "\n")
        counts[name] = Counter(images.classes[label] for label in images.labels[indices].tolist())
    write_json(
        folder / "metrics.json",
        {
            "dataset": data.name,
            "images": {
                **{name: sum(count.values()) for name, count in counts.items()},
                "test": len(test_images(context).labels),
            },
            "classes": len(images.classes),
            "class_counts": {name: dict(sorted(count.items())) for name, count in counts.items()},
        },
    )
    write_json(
        context.results / "study.json",
        {
            "study": study.study,
            "title": study.title,
            "models": study.models,
            "data": {"name": data.name},
            "budgets": [budget_name(budget) for budget in study.budgets],
            "methods": study.methods,
            "seeds": study.seeds,
            "pruningnet": {"conditionings": study.pruningnet.conditionings},
            "rows": methods.rows(list(study.methods)),
        },
    )


def _check_budgets(context: Context, model: str, images: ImageSet) -> None:
    """Refuse a budget that no widths of the search space meet, before anything is trained."""
    context = replace(context, items={"model": model})
    _, graph = fresh(network(context, images), images, 0)
    space = search_space(context, graph)
    for budget in context.study.budgets:
        space.require(budget_in_macs(budget, space.macs(space.full)))


STAGE = Stage(
    prepare,
    sections=("title", "models", "networks", "data", "space", "precision", "base", "correlation",
              "pruningnet", "analysis", "search", "final", "budgets", "seeds", "methods",
              "searches"),
)  # fmt: skip

if __name__ == "__main__":
    STAGE.main()
