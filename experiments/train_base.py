"""The base: the unpruned network that everything is measured against, trained or ready-made."""

from collections.abc import Sequence
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from experiments.common.inputs import (
    full_network,
    split,
    test_images,
    training_checkpoint,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import recipe
from graphpruning.common.files import write_json
from graphpruning.network.cost import macs, params
from graphpruning.training.checkpoint import save_weights
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.images import Batch, Images, prepared
from graphpruning.training.loop import evaluate, fit
from graphpruning.training.pretrained import load_pretrained

BATCH = 100
"""Images that are evaluated at a time."""
COLUMNS = ("epoch", "lr", "train_loss", "train_top1", "search_top1")


def train_base(context: Context) -> None:
    """Write the base's weights, its curve, its graph and its accuracies."""
    name = context.items["model"]
    images = training_images(context)
    full = full_network(context, images)
    model, graph = full.fresh(context.seed), full.graph
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    preprocessing = context.study.data.preprocessing
    search = prepared(images.select(split(context, "search")), preprocessing, BATCH)
    weights = context.study.networks[name].weights
    if weights is None:
        origin: dict[str, Any] = {}
        records = _trained(context, fabric, model, images, search)
    else:
        origin = {"weights": load_pretrained(model, name, weights)}
        records = []
    test = prepared(test_images(context), preprocessing, BATCH)
    accuracy = evaluate(fabric, model, test)
    folder = context.folder("base")
    save_weights(context.weights_of("base"), model.state_dict())
    write_csv(folder / "curve.csv", records, columns=COLUMNS)
    graph_data = {"model": name, **graph.describe(), "params": params(graph, graph.full_widths)}
    write_json(folder / "graph.json", graph_data)
    write_json(
        folder / "metrics.json",
        {
            "model": name,
            "macs": macs(graph, graph.full_widths),
            "params": params(graph, graph.full_widths),
            "test_top1": accuracy.top1,
            "test_top5": accuracy.top5,
            "search_top1": evaluate(fabric, model, search).top1 if len(search) else None,
            "epochs": len(records),
            **origin,
        },
    )


def _trained(
    context: Context, fabric: Fabric, model: nn.Module, images: Images, search: Sequence[Batch]
) -> list[dict[str, float]]:
    """Train `model` by the study's recipe, looking at the search split after every epoch."""
    settings = recipe(context.study, "base", context.items["model"])
    train = images.select(split(context, "train"))
    checkpoint = training_checkpoint(context)

    def each_epoch(epoch: int) -> dict[str, float]:
        accuracy = evaluate(fabric, model, search).top1
        context.log("search_top1", accuracy, epoch)
        return {"search_top1": accuracy}

    records = fit(
        fabric,
        model,
        train,
        context.study.data.preprocessing,
        settings,
        context.seed,
        name=context.name,
        on_epoch=each_epoch,
        checkpoint=checkpoint,
    )
    context.resumed = checkpoint.resumed
    context.images_seen = settings.steps(len(train)) * settings.batch_size
    return records


STAGE = Stage(
    train_base,
    folder="base",
    sections=("networks", "data", "precision", "threads", "base"),
    items=("model", "seed"),
)

if __name__ == "__main__":
    STAGE.main()
