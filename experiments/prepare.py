"""Check study and images, list the files, and split the training images for every later stage."""

from collections import Counter
from dataclasses import replace
from typing import Any

from experiments.common.inputs import (
    SPLITS,
    data_root,
    full_network,
    search_space,
    test_images,
    training_images,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import (
    Part,
    Study,
    analysed_budgets,
    budget_in_macs,
    budget_name,
    pruningnet_recipe,
    recipe,
)
from experiments.common.study_file import PARAMS
from graphpruning import methods
from graphpruning.common.errors import UserError
from graphpruning.common.files import write_json, write_text
from graphpruning.pruningnet.conditionings import CONDITIONINGS
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

TOP5 = 5
LOOKS = ("label", "colour", "marker", "line")
"""What tables and figures know of a conditioning."""


def prepare(context: Context) -> None:
    """Write the manifest, splits/*.txt, splits/metrics.json and study.json.

    The manifest lists the image files, which later stages then need not look for. Tables and
    figures read the metrics and study.json, and need no image.
    """
    study = context.study
    methods.check_lists(study.searches)
    if not study.data.search_images:
        raise UserError("data: search_images: 0, but candidates are judged on them: ask for some")
    make_fabric(study.precision)  # decides on "auto" before stages run side by side
    images = write_splits(context)
    _check_recipes(study, len(images.labels) - study.data.search_images)
    if study.search.reward == "top5" and len(images.classes) <= TOP5:
        raise UserError(
            f"search: reward: top5, but with {len(images.classes)} classes every candidate would "
            "have 100 %: take top1"
        )
    for model in study.models:
        _check_network(context, model, images)
    write_json(
        context.results / "study.json",
        {
            **named(context),
            "budgets": [budget_name(budget) for budget in study.budgets],
            "methods": study.methods,
            "seeds": study.seeds,
            "again": {"methods": study.again.methods, "trainings": study.again.trainings},
            "reward": study.search.reward,
            "analysed": study.analysis.conditionings,
            "analysed_budgets": [budget_name(budget) for budget in analysed_budgets(study)],
            "conditionings": {
                name: {key: getattr(CONDITIONINGS[name], key) for key in LOOKS}
                for name in study.pruningnet.conditionings
            },
            "rows": methods.rows(list(study.methods)),
        },
    )


def named(context: Context) -> dict[str, Any]:
    """What every study's study.json begins with."""
    study = context.study
    return {
        "study": study.study,
        "title": study.title,
        "models": study.models,
        "data": {"name": study.data.name},
    }


def write_splits(context: Context) -> Images:
    """List the image files, draw the splits of the training images, and count the images of each.

    Returns the training images.
    """
    data = context.study.data
    listings = list_data(context)
    files = write_manifest(context.manifest, listings)
    images = training_images(context)
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
    return images


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


def _check_recipes(study: Study, train: int) -> None:
    """Refuse a recipe that does not fit so many training images, before anything is trained."""
    parts: list[Part] = ["final", "analysis"]
    parts += ["second"] * (study.final.second is not None)
    for model in study.models:
        own: list[Part] = ["base"] if study.networks[model].weights is None else []
        asked = [(str(part), recipe(study, part, model)) for part in own + parts]
        asked += [
            (f"pruningnet ({name})", pruningnet_recipe(study, model, name))
            for name in study.pruningnet.conditionings
        ]
        for part, one in asked:
            try:
                one.steps(train)
            except UserError as refusal:
                raise UserError(f"{PARAMS}: {part} of {model}: {refusal}") from None


def _check_network(context: Context, model: str, images: Images) -> None:
    """Refuse a budget that no widths of the search space meet, and a method that cannot take the
    network, before anything is trained.
    """
    context = replace(context, items={"model": model})
    full = full_network(context, images)
    space = search_space(context, full.graph)
    for budget in (*context.study.budgets, *analysed_budgets(context.study)):
        most = space.macs(space.full)
        space.require(budget_in_macs(context.study.networks[model], budget, most))
    fresh = full.fresh(0)
    for name in context.study.methods:
        methods.require(methods.method(name), space, fresh)


STAGE = Stage(
    prepare,
    folder="splits",
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
        "reconstruction",
        "final",
        "again",
        "budgets",
        "seeds",
        "methods",
        "searches",
    ),
    single=True,
)

if __name__ == "__main__":
    STAGE.main()
