"""Train the found network by the study's recipe, and read the test set, once."""

from typing import Any

from lightning_fabric import Fabric
from torch import nn

from experiments.common.candidates import evidence, judge_by_base
from experiments.common.inputs import (
    FullNetwork,
    base_network,
    full_network,
    split,
    test_images,
    training_checkpoint,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import recipe
from graphpruning import methods
from graphpruning.architecture import save_architecture
from graphpruning.common.files import read_json, sha256, write_json
from graphpruning.judging import found_network
from graphpruning.network.cost import macs, params
from graphpruning.network.graph import Widths
from graphpruning.network.surgery import narrow
from graphpruning.training.checkpoint import load_weights
from graphpruning.training.distillation import DistilledLoss
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.images import Images, prepared
from graphpruning.training.loop import Loss, Record, evaluate, fit
from graphpruning.training.recipe import Recipe

BATCH = 500
"""Images that are evaluated at a time."""


def finetune(context: Context) -> None:
    """Write the network as an architecture file, its weights, and its accuracies."""
    items, preprocessing = context.items, context.study.data.preprocessing
    images = training_images(context)
    full = full_network(context, images)
    searched = read_json(context.folder("search") / "metrics.json", "the stage search")
    widths: dict[str, int] = searched["widths"]
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    row = methods.method(items["method"])
    initial = row.initial or context.study.final.initial
    model, origin = _initial(context, initial, fabric, full, images, widths)
    before = None
    if initial != "scratch":
        search = prepared(images.select(split(context, "search")), preprocessing, BATCH)
        before = evaluate(fabric, model, search).top1
    settings = recipe(context.study, "final", items["model"])
    loss = None
    if row.distilled:
        loss = _distilled(context, fabric, full, settings)
        origin["taught_by"] = sha256(context.weights_of("base"))
    records = train_found(context, fabric, images, model, widths, settings, loss=loss, **origin)
    test = prepared(test_images(context), preprocessing, BATCH)
    accuracy = evaluate(fabric, model, test)
    context.log("test_top1", accuracy.top1, len(records))
    folder = context.folder("final")
    save_architecture(
        folder / "architecture.json",
        context.weights_file("final"),
        model,
        network=full.make,
        input_size=images.shape,
        widths=widths,
        preprocessing=preprocessing.to_dict(),
    )
    write_csv(folder / "curve.csv", records)
    write_json(
        folder / "metrics.json",
        {
            "method": items["method"],
            "budget": items["budget"],
            "initial": initial,
            "search_top1_before": before,
            "test_top1": accuracy.top1,
            "test_top5": accuracy.top5,
            "macs": macs(full.graph, widths),
            "params": params(full.graph, widths),
            "epochs": len(records),
        },
    )


def _initial(
    context: Context,
    initial: methods.Initial,
    fabric: Fabric,
    full: FullNetwork,
    images: Images,
    widths: Widths,
) -> tuple[nn.Module, dict[str, Any]]:
    """The found network before its final training, and what its weights were made from."""
    if initial == "generated":
        file = context.weights_file("searched")
        model = narrow(full.make(), full.graph, widths)
        load_weights(file, model)
        return model, {"generated": sha256(file)}
    if initial == "scratch":
        return found_network(full.make(), full.graph, widths, context.seed), {}
    judge = judge_by_base(context, full, images, evidence(context, images, fabric))
    model = found_network(full.make(), full.graph, widths, context.seed, judge)
    return model, {"inherited": sha256(context.weights_of("base"))}


def _distilled(
    context: Context, fabric: Fabric, full: FullNetwork, settings: Recipe
) -> DistilledLoss:
    """The loss of a network that also learns from the base."""
    base = base_network(context, full).to(fabric.device)
    distillation = context.study.final.distillation
    return DistilledLoss(base, distillation, settings.label_smoothing, fabric.autocast)


def train_found(
    context: Context,
    fabric: Fabric,
    images: Images,
    model: nn.Module,
    widths: Widths,
    settings: Recipe,
    *,
    loss: Loss | None = None,
    seed: int | None = None,
    **origin: Any,
) -> list[Record]:
    """Train a network of these widths; order and augmentation are drawn from `seed`.

    It is the stage's, if it is not given. `origin` is what a checkpoint must agree with, because
    the result depends on it.
    """
    seed = context.seed if seed is None else seed
    vector = "-".join(str(width) for width in widths.values())
    checkpoint = training_checkpoint(
        context, f"widths-{vector}-{seed}", widths=dict(widths), **origin
    )
    train = images.select(split(context, "train"))
    records = fit(
        fabric,
        model,
        train,
        context.study.data.preprocessing,
        settings,
        seed,
        name=context.name,
        loss=loss,
        checkpoint=checkpoint,
    )
    context.resumed |= checkpoint.resumed
    context.images_seen += settings.steps(len(train)) * settings.batch_size
    return records


STAGE = Stage(
    finetune,
    folder="final",
    sections=("networks", "data", "precision", "threads", "reconstruction", "final"),
    items=("model", "method", "budget", "seed"),
)

if __name__ == "__main__":
    STAGE.main()
