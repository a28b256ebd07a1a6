"""Train a PruningNet: random widths every batch, one conditioning a stage."""

from experiments.inputs import (
    fresh,
    network,
    preprocessing,
    recipe,
    search_space,
    search_split,
    seeded,
    split,
    training_images,
    write_csv,
)
from experiments.stage import Context, Stage
from graphpruning.files import write_json
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.search.evaluator import Evaluator
from graphpruning.training.checkpoint import Checkpoint, save_weights
from graphpruning.training.loop import fit, make_fabric

SHARES = {"full": 1.0, "half": 0.5, "quarter": 0.25}


def train_pruningnet(context: Context) -> None:
    """Write the PruningNet's weights, its curve, and its accuracy at three uniform widths."""
    settings, conditioning = context.study.pruningnet, context.items["conditioning"]
    images = training_images(context)
    _, graph = fresh(network(context, images), images, settings.seed)
    space = search_space(context, graph)
    with seeded(settings.seed):
        net = PruningNet(graph, conditioning)
    fabric = make_fabric(context.study.precision)
    context.precision = fabric.precision_name
    calibration, search = search_split(context, images)
    evaluator = Evaluator(graph, net.weights, calibration, search, fabric.autocast)
    at = {
        name: {group: space.nearest(group, share) for group in space.groups}
        for name, share in SHARES.items()
    }

    def each_epoch(epoch: int) -> dict[str, float]:
        accuracies = {f"search_top1_{name}": evaluator(widths) for name, widths in at.items()}
        context.log("search_top1_full", accuracies["search_top1_full"], epoch)
        return accuracies

    schedule = recipe(settings.recipe)
    fitted = fit(
        fabric, net, images.select(split(context, "train")), preprocessing(context), schedule,
        settings.seed, name=context.name, on_epoch=each_epoch,
        step=RandomWidthStep(space, schedule.label_smoothing),
        checkpoint=Checkpoint(context.checkpoints / "training.pt", context.fingerprint()),
    )  # fmt: skip
    context.resumed, context.images_seen = fitted.resumed, fitted.images_seen
    model = context.items["model"]
    save_weights(context.weights / model / f"pruningnet-{conditioning}.safetensors", net.state_dict())
    folder = context.results / "pruningnet" / model / conditioning
    write_csv(folder / "curve.csv", fitted.records)
    last = fitted.records[-1]
    write_json(
        folder / "metrics.json",
        {
            "conditioning": conditioning,
            "params": sum(parameter.numel() for parameter in net.parameters()),
            "epochs": schedule.epochs,
            **{f"search_top1_{name}": last[f"search_top1_{name}"] for name in SHARES},
            "search_top1_full_before_recalibration": evaluator.uncalibrated(at["full"]),
        },
    )


STAGE = Stage(
    train_pruningnet,
    sections=("networks", "data", "space", "precision", "pruningnet", "search"),
    items=("model", "conditioning"),
)

if __name__ == "__main__":
    STAGE.main()
