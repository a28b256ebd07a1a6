"""List the images and split those of training; study.json says what there is to read."""

from experiments.channel_bench.study import STUDY_FILE, of, parse, table_name
from experiments.common.stage import Context, Stage
from experiments.prepare import named, write_splits
from graphpruning.common.files import write_json
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.training.fabric import make_fabric


def prepare(context: Context) -> None:
    """Write the manifest, splits/ and study.json."""
    study = of(context)
    make_fabric(study.precision)  # decides on "auto" before stages run side by side
    write_splits(context)
    write_json(
        context.results / "study.json",
        {
            **named(context),
            "budgets": list(study.budgets),
            "seeds": list(study.seeds),
            "networks": {model: table_name(model) for model in study.models},
            "searched": list(study.search.models),
            "source": study.search.source,
            "conditionings": {
                name: {
                    key: getattr(CONDITIONINGS[name], key)
                    for key in ("label", "colour", "marker", "line")
                }
                for name in study.pruningnet.conditionings
            },
        },
    )


STAGE = Stage(
    prepare,
    folder="splits",
    sections=(
        "title",
        "models",
        "networks",
        "data",
        "precision",
        "threads",
        "pruningnet",
        "search",
        "budgets",
        "seeds",
    ),
    single=True,
    study_file=STUDY_FILE,
    parse=parse,
)

if __name__ == "__main__":
    STAGE.main()
