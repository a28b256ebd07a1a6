"""Train found networks again: further trainings, of the main kind, of methods that `again` names.

A comparison that has not decided is carried on with these alone: nothing else is done again. Their
numbers, and so their seeds, follow those of the stage finetune.
"""

from experiments.common.inputs import full_network, training_images, write_csv
from experiments.common.stage import Context, Stage
from experiments.common.study_file import PARAMS
from experiments.finetune import found_widths, initials_of, means, trainings, trainings_row
from graphpruning.common.errors import UserError
from graphpruning.common.files import write_json
from graphpruning.common.names import nearest
from graphpruning.training.fabric import make_fabric, precision


def finetune_again(context: Context) -> None:
    """Write the accuracies of the further trainings, and their means."""
    items, final, again = context.items, context.study.final, context.study.again
    name = items["method"]
    if name not in again.methods:
        instead = f"did you mean {nearest(name, again.methods)!r}?" if again.methods else "none is"
        raise UserError(f"method={name} is not among again: methods in {PARAMS}: {instead}")
    numbers = range(final.trainings, final.trainings + again.trainings)
    images = training_images(context)
    full = full_network(context, images)
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    initial = initials_of(context)["main"]
    trained = trainings(
        context, "main", initial, fabric, full, images, found_widths(context), numbers
    )
    measured = means(initial, trained)
    context.log("test_top1", measured["test_top1"], measured["epochs"])
    folder = context.folder("final/again")
    write_csv(
        folder / "trainings.csv",
        [
            trainings_row("main", number, initial, one)
            for number, one in zip(numbers, trained, strict=True)
        ],
    )
    write_json(
        folder / "metrics.json",
        {
            "method": name,
            "budget": items["budget"],
            **measured,
            "trainings": len(numbers),
        },
    )


STAGE = Stage(
    finetune_again,
    folder="final/again",
    sections=("networks", "data", "precision", "threads", "reconstruction", "final", "again"),
    items=("model", "method", "budget", "seed"),
)

if __name__ == "__main__":
    STAGE.main()
