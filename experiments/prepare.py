"""Check study and images, list the files, and split the training images for every later stage."""

from collections import Counter
from dataclasses import replace

from experiments.common.inputs import (
    SPLITS,
    data_root,
    fresh,
    manifest,
    network,
    preprocessing,
    search_space,
    test_images,
    training_images,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import budget_in_macs, budget_name
from graphpruning import methods
from graphpruning.common.errors import UserError
from graphpruning.common.files import write_json, write_text
from graphpruning.training.datasets import FOLDERS
from graphpruning.training.fabric import make_fabric
from graphpruning.training.images import Images
from graphpruning.training.listing import (
    Listing,
    damaged,
    list_files,
    list_images,
    refuse,
    write_manifest,
)
from graphpruning.training.splits import split


def prepare(context: Context) -> None:
    """Write the manifest, splits/*.txt, splits/metrics.json and study.json.

    The manifest lists the image files, which later stages then need not look for. Tables and
    figures read the metrics and study.json, and need no image.
    """
    study = context.study
    methods.check_places(study.searches)
    preprocessing(context)  # refuses values that do not fit together
    make_fabric(study.precision)  # decides on "auto" before stages run side by side
    listings = list_data(context)
    files = write_manifest(manifest(context), listings)
    images, data = training_images(context), study.data
    trained = [model for model in study.models if study.networks[model].weights is None]
    if not data.search_images and (study.methods or trained):
        raise UserError(
            "data: search_images: 0, but candidates and trained bases are judged on them: "
            "ask for some"
        )
    for model in study.models:
        _check_budgets(context, model, images)
    splits = split(images.labels, data.search_images, data.calibration_images, data.seed)
    folder = context.results / "splits"
    counts = {}
    for name in SPLITS:
        indices = getattr(splits, name)
        write_text(folder / f"{name}.txt", "".join(f"{index}\n" for index in indices.tolist()))
        counts[name] = Counter(images.classes[label] for label in images.labels[indices].tolist())
    write_json(
        folder / "metrics.json",
        {
            "dataset": data.name,
            "images": {
                **{name: sum(count.values()) for name, count in counts.items()},
                "test": len(listings["test"].files if "test" in listings else test_images(context)),
            },
            "manifest": files,
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
            "reward": study.search.reward,
            "pruningnet": {"conditionings": study.pruningnet.conditionings},
            "analysis": {"conditionings": study.analysis.conditionings},
            "rows": methods.rows(list(study.methods)),
        },
    )


def list_data(context: Context) -> dict[str, Listing]:
    """List the study's image files, part by part, after unpacking (ImageNet) and checking them."""
    data, root = context.study.data, data_root(context)
    if data.name not in FOLDERS:
        return {"all": list_files(data.name, root)}
    if data.name == "imagenet":
        from graphpruning.training import imagenet  # SciPy and torchvision take long to import

        return imagenet.prepare(root)
    listings = {
        part: list_images(data.name, root, train)
        for part, train in (("train", True), ("test", False))
    }
    for part, listing in listings.items():
        refuse(damaged(listing, f"checking {part}"), root, "mend or remove these files")
    return listings


def _check_budgets(context: Context, model: str, images: Images) -> None:
    """Refuse a budget that no widths of the search space meet, before anything is trained."""
    context = replace(context, items={"model": model})
    _, graph = fresh(network(context, images), images, 0)
    space = search_space(context, graph)
    for budget in context.study.budgets:
        full = space.macs(space.full)
        space.require(budget_in_macs(context.study.networks[model], budget, full))


STAGE = Stage(
    prepare,
    sections=(
        "title",
        "models",
        "networks",
        "data",
        "space",
        "precision",
        "threads",
        "base",
        "correlation",
        "pruningnet",
        "analysis",
        "search",
        "final",
        "budgets",
        "seeds",
        "methods",
        "searches",
    ),
)

if __name__ == "__main__":
    STAGE.main()
