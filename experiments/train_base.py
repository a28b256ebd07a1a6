"""Train the base: the unpruned network that everything is measured against."""

from experiments.inputs import (
    fresh,
    network,
    preprocessing,
    split,
    splits_hash,
    test_images,
    training_images,
    write_csv,
)
from experiments.stage import Context, Stage
from graphpruning.files import write_json
from graphpruning.network.cost import macs, params
from graphpruning.training.checkpoint import Checkpoint, save_weights
from graphpruning.training.data import prepared
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.loop import evaluate, fit


def train_base(context: Context) -> None:
    """Write the base's weights, its curve, its graph and its accuracies."""
    base = context.study.base
    images = training_images(context)
    description = network(context, images)
    model, graph = fresh(description, images, base.seed)
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    train, recipe = images.select(split(context, "train")), base.recipe
    search = prepared(images.select(split(context, "search")), preprocessing(context), 500)

    def each_epoch(epoch: int) -> dict[str, float]:
        accuracy = evaluate(fabric, model, search)
        context.log("search_top1", accuracy, epoch)
        return {"search_top1": accuracy}

    checkpoint = Checkpoint(
        context.checkpoints / "training.pt", context.fingerprint(splits=splits_hash(context))
    )
    records = fit(
        fabric, model, train, preprocessing(context), recipe, base.seed,
        name=context.name, on_epoch=each_epoch, checkpoint=checkpoint,
    )  # fmt: skip
    context.resumed = checkpoint.resumed
    context.images_seen = recipe.steps(len(train)) * recipe.batch_size
    test = prepared(test_images(context), preprocessing(context), 500)
    folder = context.results / "base" / context.items["model"]
    save_weights(context.weights / context.items["model"] / "base.safetensors", model.state_dict())
    write_csv(folder / "curve.csv", records)
    graph_data = {"model": context.items["model"], **graph.describe()}
    graph_data["params"] = params(graph, graph.full_widths)
    write_json(folder / "graph.json", graph_data)
    write_json(
        folder / "metrics.json",
        {
            "model": context.items["model"],
            "macs": macs(graph, graph.full_widths),
            "params": params(graph, graph.full_widths),
            "test_top1": evaluate(fabric, model, test),
            "search_top1": records[-1]["search_top1"],
            "epochs": len(records),
        },
    )


STAGE = Stage(train_base, sections=("networks", "data", "precision", "base"), items=("model",))

if __name__ == "__main__":
    STAGE.main()
