"""Train a PruningNet: random widths every batch, one conditioning a stage."""

from functools import partial

from experiments.common.candidates import search_split
from experiments.common.inputs import (
    fresh,
    network,
    preprocessing,
    search_space,
    seeded,
    split,
    splits_hash,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import recipe
from graphpruning.common.files import write_json
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.search.evaluator import Evaluator
from graphpruning.training.checkpoint import Checkpoint, save_weights
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.loop import fit

SHARES = {"full": 1.0, "half": 0.5, "quarter": 0.25}


def train_pruningnet(context: Context) -> None:
    """Write the PruningNet's weights, its curve, and its accuracy at three uniform widths."""
    model, conditioning = context.items["model"], context.items["conditioning"]
    settings, seed = recipe(context.study, "pruningnet", model), context.study.pruningnet.seed
    images = training_images(context)
    _, graph = fresh(network(context, images), images, seed)
    space = search_space(context, graph)
    with seeded(seed):
        net = PruningNet(graph, conditioning)
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    calibration, search = search_split(context, images, fabric.device)
    evaluator = Evaluator(graph, net.weights, calibration, search, fabric.autocast)
    at = {
        name: {group: space.nearest(group, share) for group in space.groups}
        for name, share in SHARES.items()
    }

    def each_epoch(epoch: int) -> dict[str, float]:
        accuracies = {f"search_top1_{name}": evaluator(widths) for name, widths in at.items()}
        context.log("search_top1_full", accuracies["search_top1_full"], epoch)
        return accuracies

    train = images.select(split(context, "train"))
    checkpoint = Checkpoint(
        context.checkpoints / "training.pt", context.fingerprint(splits=splits_hash(context))
    )
    records = fit(
        fabric,
        net,
        train,
        preprocessing(context),
        settings,
        seed,
        name=context.name,
        step=RandomWidthStep(space, settings.label_smoothing),
        optimizer=partial(CroppedSGD, net),
        on_epoch=each_epoch,
        checkpoint=checkpoint,
    )
    context.resumed = checkpoint.resumed
    context.images_seen = settings.steps(len(train)) * settings.batch_size
    save_weights(
        context.weights / model / f"pruningnet-{conditioning}.safetensors", net.state_dict()
    )
    folder = context.results / "pruningnet" / model / conditioning
    write_csv(folder / "curve.csv", records)
    last = records[-1]
    write_json(
        folder / "metrics.json",
        {
            "conditioning": conditioning,
            "params": sum(parameter.numel() for parameter in net.parameters()),
            "epochs": len(records),
            **{f"search_top1_{name}": last[f"search_top1_{name}"] for name in SHARES},
            "search_top1_full_before_recalibration": evaluator(at["full"], recalibrated=False),
        },
    )


STAGE = Stage(
    train_pruningnet,
    sections=("networks", "data", "space", "precision", "threads", "pruningnet"),
    items=("model", "conditioning"),
)

if __name__ == "__main__":
    STAGE.main()
