"""Claim 1: how well the deeper layer of a block is represented by the former one."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from experiments.common.inputs import (
    base_network,
    full_network,
    split,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from graphpruning.common.files import write_json
from graphpruning.correlation import RIDGE, Representation, pairs, representations
from graphpruning.training.images import prepared

BATCH = 50
"""Images at a time: the maps of every layer that is looked at are in memory at once."""
SHOWN, CHANNELS = 4, 64
"""Heat maps show so many deeper layers of a network, and so many of a layer's channels."""
COLUMNS = ("network", "pair", "former", "deeper", "channel", "best_match", "r2")


def correlation(context: Context) -> None:
    """Judge pairs inside blocks against pairs across blocks, and the base against fresh weights.

    A network without blocks with shortcuts has no pairs, and its files say so.
    """
    settings = context.study.correlation
    images = training_images(context)
    full = full_network(context, images)
    model, untrained = base_network(context, full), full.fresh(context.seed)
    generator = torch.Generator().manual_seed(context.seed)
    calibration = split(context, "calibration")
    # In random order: where images stand by class, one half would hold other classes than the other
    shuffled = calibration[torch.randperm(len(calibration), generator=generator)]
    chosen = images.select(shuffled[: settings.images])
    batches = prepared(chosen, context.study.data.preprocessing, BATCH)
    wanted = pairs(full.graph, generator)
    found: dict[str, list[Representation]] = {"trained": [], "untrained": []}
    if wanted:
        own_statistics(untrained, (batch for batch, _ in batches))
        for name, net in (("trained", model), ("untrained", untrained)):
            of_images = (batch for batch, _ in batches)
            found[name] = representations(net, wanted, of_images, settings.positions, generator)
        context.images_seen = 3 * len(chosen)
    folder = context.folder("correlation")
    rows = [row for name, judged in found.items() for pair in judged for row in _rows(name, pair)]
    write_csv(folder / "channels.csv", rows, columns=COLUMNS)
    shown = _shown(found["trained"])
    write_json(
        folder / "heatmaps.json",
        [
            {
                "network": name,
                "pair": judged.pair.kind,
                "former": judged.pair.former,
                "deeper": judged.pair.deeper,
                "matrix": [[round(v, 3) for v in row] for row in _thinned(judged).tolist()],
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
            "images": len(chosen),
            "positions": settings.positions,
            "ridge": RIDGE,
            "median_r2": {name: _medians(judged) for name, judged in found.items() if judged},
        },
    )


@torch.no_grad()
def own_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give an untrained network batch normalisation statistics: it has seen no image yet."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain average over the batches
    for batch in batches:
        model(batch)


def _medians(judged: list[Representation]) -> dict[str, float]:
    """Median R² over all channels of each kind of pair."""
    r2: dict[str, list[Tensor]] = {}
    for one in judged:
        r2.setdefault(one.pair.kind, []).append(one.r2)
    return {kind: torch.cat(parts).median().item() for kind, parts in r2.items()}


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


def _shown(judged: list[Representation]) -> set[str]:
    """Up to `SHOWN` deeper layers, evenly from the last ones of each channel count."""
    last = {len(j.matrix): j.pair.deeper for j in judged if j.pair.kind == "in_block"}
    layers = list(last.values())
    return {layers[i] for i in _evenly(len(layers), SHOWN)}


def _thinned(judged: Representation) -> Tensor:
    """The matrix, or of a large one `CHANNELS` rows and columns, which fit on a page.

    Rows are taken evenly from the best to the worst match, columns evenly from the former
    channels that match these rows best and then the others.
    """
    matrix = judged.matrix
    rows = judged.best_match.argsort(descending=True, stable=True)
    rows = rows[_evenly(len(rows), CHANNELS)].sort().values
    matching = matrix[rows].argmax(dim=1).unique()
    others = [c for c in range(matrix.shape[1]) if c not in set(matching.tolist())]
    count = min(CHANNELS, matrix.shape[1]) - len(matching)
    columns = matching.tolist() + [others[i] for i in _evenly(len(others), count)]
    return matrix[rows][:, sorted(columns)]


def _evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` places, evenly spread, first and last among them."""
    wanted = min(count, wanted)
    return torch.linspace(0, count - 1, wanted).round().int().tolist() if wanted else []


STAGE = Stage(
    correlation,
    folder="correlation",
    sections=("networks", "data", "threads", "correlation"),
    items=("model", "seed"),
)

if __name__ == "__main__":
    STAGE.main()
