"""Claim 1: how well the deeper layer of a block is represented by the former one."""

import torch
from torch import nn

from experiments.inputs import (
    base_model,
    fresh,
    network,
    preprocessing,
    split,
    training_images,
    write_csv,
)
from experiments.stage import Context, Stage
from graphpruning.correlation import RIDGE, Representation, pairs, representations
from graphpruning.errors import UserError
from graphpruning.files import write_json
from graphpruning.training.data import prepared


def correlation(context: Context) -> None:
    """Judge pairs inside blocks against pairs across blocks, and the base against fresh weights."""
    settings = context.study.correlation
    images = training_images(context)
    model, graph = base_model(context, images)
    untrained, _ = fresh(network(context, images), images, settings.seed)
    chosen = images.select(split(context, "calibration")[: settings.images])
    batches = [batch for batch, _ in prepared(chosen, preprocessing(context), 250)]
    with torch.no_grad():  # statistics of its own: the untrained network has seen no image
        untrained.train()
        for module in untrained.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the plain average over the batches
        for batch in batches:
            untrained(batch)
    generator = torch.Generator().manual_seed(settings.seed)
    wanted = pairs(graph, generator)
    if not wanted:
        raise UserError(f"{context.items['model']} has no block with a shortcut to analyse")
    found = {
        name: representations(net, graph, wanted, batches, settings.positions, generator)
        for name, net in (("trained", model), ("untrained", untrained))
    }
    context.images_seen = 3 * len(chosen.labels)
    folder = context.results / "correlation" / context.items["model"]
    rows = [row for name, judged in found.items() for pair in judged for row in _rows(name, pair)]
    write_csv(folder / "channels.csv", rows)
    shown = _one_per_resolution(found["trained"])
    write_json(
        folder / "heatmaps.json",
        [
            {
                "network": name,
                "pair": judged.pair.kind,
                "former": judged.pair.former,
                "deeper": judged.pair.deeper,
                "matrix": [[round(v, 3) for v in row] for row in judged.matrix.tolist()],
            }
            for name, all_judged in found.items()
            for judged in all_judged
            if judged.pair.deeper in shown
        ],
    )
    write_json(
        folder / "metrics.json",
        {
            "pairs": len(wanted),
            "images": len(chosen.labels),
            "positions": settings.positions,
            "ridge": RIDGE,
            "median_r2": {
                name: {
                    kind: torch.cat([j.r2 for j in judged if j.pair.kind == kind]).median().item()
                    for kind in ("in_block", "other_block")
                }
                for name, judged in found.items()
            },
        },
    )


def _rows(name: str, judged: Representation) -> list[dict[str, object]]:
    pair = judged.pair
    return [
        {
            "network": name,
            "pair": pair.kind,
            "former": pair.former,
            "deeper": pair.deeper,
            "channel": channel,
            "best_match": match,
            "r2": r2,
        }
        for channel, (match, r2) in enumerate(
            zip(judged.best_match.tolist(), judged.r2.tolist(), strict=True)
        )
    ]


def _one_per_resolution(judged: list[Representation]) -> set[str]:
    """The last deeper layer of each channel count: enough heat maps for one figure."""
    last = {len(j.matrix): j.pair.deeper for j in judged if j.pair.kind == "in_block"}
    return set(last.values())


STAGE = Stage(correlation, sections=("networks", "data", "correlation"), items=("model",))

if __name__ == "__main__":
    STAGE.main()
