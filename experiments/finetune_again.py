"""Train a found network once more, by the main recipe: a method's and a number that `again` names.

A comparison that has not decided is carried on with such trainings alone: nothing else is done
again. Their numbers, and so their seeds, follow those of the stage finetune.
"""

from experiments.common.inputs import full_network, training_images
from experiments.common.stage import Context, Stage
from experiments.finetune import found_widths, initials_of, means, training
from graphpruning.common.files import write_json
from graphpruning.training.fabric import make_fabric, precision


def finetune_again(context: Context) -> None:
    """Write the accuracies of one further training."""
    items, number = context.items, int(context.items["training"])
    images = training_images(context)
    full = full_network(context, images)
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    initial, widths = initials_of(context)["main"], found_widths(context)
    trained = training(context, "main", number, initial, fabric, full, images, widths)
    measured = means(initial, [trained])
    context.log("test_top1", measured["test_top1"], measured["epochs"])
    write_json(
        context.folder("final/again") / "metrics.json",
        {
            "method": items["method"],
            "budget": items["budget"],
            "training": number,
            **measured,
            "widths": widths,
        },
    )


STAGE = Stage(
    finetune_again,
    folder="final/again",
    sections=("networks", "data", "precision", "threads", "reconstruction", "final"),
    items=("model", "method", "budget", "seed", "training"),
)

if __name__ == "__main__":
    STAGE.main()
