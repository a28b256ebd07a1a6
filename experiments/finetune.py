"""Train the found network in the study's ways, and read the test set once for each training."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

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
from experiments.common.study import Part, recipe
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
from graphpruning.training.loop import Accuracy, Loss, Record, derived_seed, evaluate, fit
from graphpruning.training.recipe import Recipe

BATCH = 500
"""Images that are evaluated at a time."""


Kind = Literal["main", "second"]
PARTS: dict[Kind, Part] = {"main": "final", "second": "second"}
"""The kinds of final training, and the part of the study that each one is."""


@dataclass(frozen=True)
class Start:
    """The found network before a final training.

    `before` is its accuracy on the search split, None with fresh weights; `origin` is what the
    weights were made from.
    """

    model: nn.Module
    before: float | None
    origin: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """One final training: its accuracies before it and, on the test set, after it."""

    before: float | None
    model: nn.Module
    records: list[Record]
    accuracy: Accuracy


def finetune(context: Context) -> None:
    """Write the network as an architecture file, its weights, and its accuracies.

    File, weights and curve are those of the first training; accuracies are means over trainings.
    """
    items, preprocessing = context.items, context.study.data.preprocessing
    images = training_images(context)
    full = full_network(context, images)
    widths = found_widths(context)
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    initials = initials_of(context)
    trained = {
        kind: [
            training(context, kind, number, initial, fabric, full, images, widths)
            for number in range(context.study.final.trainings)
        ]
        for kind, initial in initials.items()
    }
    first = trained["main"][0]
    measured = {kind: means(initials[kind], each) for kind, each in trained.items()}
    context.log("test_top1", measured["main"]["test_top1"], len(first.records))
    folder = context.folder("final")
    save_architecture(
        folder / "architecture.json",
        context.weights_file("final"),
        first.model,
        network=full.make,
        input_size=images.shape,
        widths=widths,
        preprocessing=preprocessing.to_dict(),
        graph=full.graph,
    )
    write_csv(folder / "curve.csv", first.records)
    write_csv(
        folder / "trainings.csv",
        [
            {
                "kind": kind,
                "training": number,
                "initial": initials[kind],
                "test_top1": one.accuracy.top1,
                "test_top5": one.accuracy.top5,
            }
            for kind, each in trained.items()
            for number, one in enumerate(each)
        ],
    )
    write_json(
        folder / "metrics.json",
        {
            "method": items["method"],
            "budget": items["budget"],
            **measured["main"],
            "macs": macs(full.graph, widths),
            "params": params(full.graph, widths),
            "trainings": len(trained["main"]),
            "second": measured.get("second"),
        },
    )


def found_widths(context: Context) -> dict[str, int]:
    """The widths that the search found."""
    folder = context.without("training").folder("search")
    searched = read_json(folder / "metrics.json", "the stage search")
    widths: dict[str, int] = searched["widths"]
    return widths


def initials_of(context: Context) -> dict[Kind, methods.Initial]:
    """What each kind of training begins with; where the method says it, that holds for both."""
    row, final = methods.method(context.items["method"]), context.study.final
    initials: dict[Kind, methods.Initial] = {"main": row.initial or final.initial}
    if final.second:
        initials["second"] = row.initial or final.second.initial
    return initials


def training(
    context: Context,
    kind: Kind,
    number: int,
    initial: methods.Initial,
    fabric: Fabric,
    full: FullNetwork,
    images: Images,
    widths: Widths,
) -> Trained:
    """Train the found network in one way; the seed is drawn from the replicate's and `number`.

    What was killed goes on: each training has a checkpoint.
    """
    settings = recipe(context.study, PARTS[kind], context.items["model"])
    loss, teacher = None, {}
    if methods.method(context.items["method"]).distilled:
        loss = _distilled(context, fabric, full, settings)
        teacher = {"taught_by": sha256(context.weights_of("base"))}
    seed = context.seed if number == 0 else derived_seed(context.seed, number)
    start = _start(context.without("training"), initial, fabric, full, images, widths, seed)
    records = train_found(
        context,
        fabric,
        images,
        start.model,
        widths,
        settings,
        f"{kind}-{number}",
        seed=seed,
        loss=loss,
        **start.origin,
        **teacher,
    )
    test = prepared(test_images(context), context.study.data.preprocessing, BATCH)
    return Trained(start.before, start.model, records, evaluate(fabric, start.model, test))


def means(initial: methods.Initial, trained: Sequence[Trained]) -> dict[str, Any]:
    """What metrics.json says of one kind of training: means over its trainings."""
    before = [one.before for one in trained if one.before is not None]
    return {
        "initial": initial,
        "search_top1_before": fmean(before) if before else None,
        "test_top1": fmean(one.accuracy.top1 for one in trained),
        "test_top5": fmean(one.accuracy.top5 for one in trained),
        "epochs": len(trained[0].records),
    }


def _start(
    context: Context,
    initial: methods.Initial,
    fabric: Fabric,
    full: FullNetwork,
    images: Images,
    widths: Widths,
    seed: int,
) -> Start:
    """The found network before a training; fresh weights are drawn from `seed`."""
    if initial == "scratch":
        return Start(found_network(full.make(), full.graph, widths, seed), None, {})
    if initial == "generated":
        file = context.weights_file("searched")
        model = narrow(full.make(), full.graph, widths)
        load_weights(file, model)
        origin = {"generated": sha256(file)}
    else:
        judge = judge_by_base(context, full, images, evidence(context, images, fabric))
        model = found_network(full.make(), full.graph, widths, seed, judge)
        origin = {"inherited": sha256(context.weights_of("base"))}
    chosen = images.select(split(context, "search"))
    search = prepared(chosen, context.study.data.preprocessing, BATCH)
    return Start(model, evaluate(fabric, model, search).top1, origin)


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
    name: str,
    *,
    seed: int,
    loss: Loss | None = None,
    **origin: Any,
) -> list[Record]:
    """Train a network of these widths; order and augmentation are drawn from `seed`.

    `name` is that of the training's checkpoint, its own within the stage. `origin` is what a
    checkpoint must agree with, because the result depends on it.
    """
    checkpoint = training_checkpoint(context, name, seed=seed, widths=dict(widths), **origin)
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
