"""Train a PruningNet: random widths every batch, one conditioning a stage."""

from functools import partial

from experiments.common.candidates import evidence
from experiments.common.inputs import (
    base_network,
    full_network,
    search_space,
    split,
    training_checkpoint,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import pruningnet_recipe
from graphpruning.common.files import sha256, write_json
from graphpruning.judging import Judge
from graphpruning.network.zoo import seeded
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.training.checkpoint import save_weights
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.loop import fit

SHARES = {"full": 1.0, "half": 0.5, "quarter": 0.25}


def train_pruningnet(context: Context) -> None:
    """Write the PruningNet's weights, its curve, and its accuracy at three uniform widths."""
    model, conditioning = context.items["model"], context.items["conditioning"]
    settings = pruningnet_recipe(context.study, model, conditioning)
    images = training_images(context)
    full = full_network(context, images)
    graph = full.graph
    space = search_space(context, graph)
    with seeded(context.seed):
        net = PruningNet(graph, conditioning)
    row, origin = CONDITIONINGS[conditioning], {}
    if row.inherit:
        net.start_from(base_network(context, full))
        origin = {"inherited": sha256(context.weights_of("base"))}
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    evaluator = Judge.by_pruningnet(net, evidence(context, images, fabric)).evaluator
    at = {
        name: {group: space.nearest(group, share) for group in space.groups}
        for name, share in SHARES.items()
    }

    def each_epoch(epoch: int) -> dict[str, float]:
        accuracies = {f"search_top1_{name}": evaluator(widths) for name, widths in at.items()}
        context.log("search_top1_full", accuracies["search_top1_full"], epoch)
        return accuracies

    train = images.select(split(context, "train"))
    checkpoint = training_checkpoint(context, **origin)
    records = fit(
        fabric,
        net,
        train,
        context.study.data.preprocessing,
        settings,
        context.seed,
        name=context.name,
        step=RandomWidthStep(
            space, settings.label_smoothing, sandwich=row.sandwich, distil=row.distil
        ),
        optimizer=partial(CroppedSGD, net),
        on_epoch=each_epoch,
        checkpoint=checkpoint,
    )
    context.resumed = checkpoint.resumed
    context.images_seen = settings.steps(len(train)) * settings.batch_size * row.passes
    save_weights(context.weights_of(conditioning), net.state_dict())
    folder = context.folder("pruningnet")
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
    folder="pruningnet",
    sections=("networks", "data", "space", "precision", "threads", "pruningnet"),
    items=("model", "conditioning", "seed"),
)

if __name__ == "__main__":
    STAGE.main()
