"""Train the found networks by the study's recipe, and read the test set, once."""

from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from experiments.common.inputs import (
    network,
    preprocessing,
    split,
    splits_hash,
    test_images,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import recipe, seed_list
from graphpruning.architecture import save_architecture
from graphpruning.common.files import read_json, sha256, write_json
from graphpruning.network.cost import macs, params
from graphpruning.network.graph import Widths
from graphpruning.network.surgery import narrow
from graphpruning.network.trace import trace
from graphpruning.network.zoo import build, initialise, seeded
from graphpruning.training.checkpoint import Checkpoint, load_weights
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.images import Images, prepared
from graphpruning.training.loop import Record, evaluate, fit


def finetune(context: Context) -> None:
    """Write each seed's network as an architecture file, its weights, and its test accuracy."""
    items, settings = context.items, context.study.final
    images = training_images(context)
    description = network(context, images)
    searched = read_json(
        context.results.joinpath("search", *items.values(), "metrics.json"), "the stage search"
    )
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    test = prepared(test_images(context), preprocessing(context), 500)
    folder = context.results.joinpath("final", *items.values())
    weights = context.weights.joinpath("final", *items.values())
    of_method = searched["initial"]
    initial = settings.initial if of_method == "study" else of_method
    found: dict[str, dict[str, Any]] = {}
    trained: dict[int, tuple[nn.Module, dict[str, int]]] = {}
    curve: list[Record] = []
    for seed in seed_list(items["seeds"]):
        widths = searched["seeds"][str(seed)]["widths"]
        weights_file = None
        if initial == "searched":
            weights_file = context.weights.joinpath(
                "searched", *items.values(), f"seed-{seed}.safetensors"
            )
        model, records = train_found(context, fabric, images, widths, seed, weights_file)
        trained[seed] = (model, widths)
        graph = trace(build(**description), images.shape)
        accuracy = evaluate(fabric, model, test)
        found[str(seed)] = {
            "test_top1": accuracy.top1,
            "test_top5": accuracy.top5,
            "macs": macs(graph, widths),
            "params": params(graph, widths),
            "epochs": len(records),
        }
        context.log("test_top1", accuracy.top1, seed)
        curve += [{"seed": seed, **record} for record in records]
    for seed, (model, widths) in trained.items():
        save_architecture(
            folder / "architectures" / f"seed-{seed}.json",
            weights / f"seed-{seed}.safetensors",
            model,
            network=description,
            input_size=images.shape,
            widths=widths,
            preprocessing=preprocessing(context).to_dict(),
        )
    write_csv(folder / "curve.csv", curve)
    write_json(
        folder / "metrics.json",
        {
            "method": items["method"],
            "budget": items["budget"],
            "initial": initial,
            "seeds": found,
        },
    )


def train_found(
    context: Context,
    fabric: Fabric,
    images: Images,
    widths: Widths,
    seed: int,
    initial: Path | None = None,
) -> tuple[nn.Module, list[Record]]:
    """Train the study's network at `widths` by the final recipe, from `initial` or from scratch.

    Everything that a seed decides is drawn anew: initial weights, order and augmentation.
    """
    description = network(context, images)
    full = build(**description)
    graph = trace(full, images.shape)
    model = narrow(full, graph, widths)
    if initial is None:
        with seeded(seed):
            initialise(model)
    else:
        load_weights(initial, model)
    vector = "-".join(str(width) for width in widths.values())
    checkpoint = Checkpoint(
        context.checkpoints / f"seed-{seed}-{vector}.pt",
        context.fingerprint(
            widths=dict(widths),
            splits=splits_hash(context),
            initial=None if initial is None else sha256(initial),
        ),
    )
    settings = recipe(context.study, "final", context.items["model"])
    train = images.select(split(context, "train"))
    records = fit(
        fabric,
        model,
        train,
        preprocessing(context),
        settings,
        seed,
        name=f"{context.name}, seed {seed}",
        checkpoint=checkpoint,
    )
    context.resumed |= checkpoint.resumed
    context.images_seen += settings.steps(len(train)) * settings.batch_size
    return model, records


STAGE = Stage(
    finetune,
    sections=("networks", "data", "precision", "threads", "final"),
    items=("model", "method", "budget", "seeds"),
)

if __name__ == "__main__":
    STAGE.main()
