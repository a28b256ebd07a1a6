"""Claim 1: how well the deeper layer of a block is represented by the former one."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
from graphpruning.correlation import (
    OUTPUTS,
    STRENGTHS,
    Fit,
    Representation,
    borders,
    pairs,
    representations,
)
from graphpruning.training.images import prepared

BATCH = 50
"""Images at a time."""
SHOWN, CHANNELS = 4, 64
"""Heat maps show so many deeper layers of a network, and so many of a layer's channels."""
COLUMNS = (
    *("network", "former", "deeper", "channel", "controls", "best_match", "control_match"),
    *("r2", "control_r2", "r2_activated", "control_r2_activated"),
)
"""A row is a deeper channel. What begins with `control` is the mean over its control layers, of
which there are `controls`; r2 is of the layers' own outputs, `activated` of those after
normalisation and activation."""
BORDER_COLUMNS = ("network", "former", "deeper", "channel", "best_match", "r2", "r2_activated")
"""The same of consecutive layers on the two sides of a border between blocks."""


def correlation(context: Context) -> None:
    """Judge pairs inside blocks against pairs across blocks, and the base against fresh weights.

    A network without blocks with shortcuts has no pairs, and its files say so.
    """
    settings = context.study.correlation
    images = training_images(context)
    full = full_network(context, images)
    model, untrained = base_network(context, full), full.fresh(context.seed)
    generator = torch.Generator().manual_seed(context.seed)
    chosen = images.select(split(context, "calibration")[: settings.images])
    batches = prepared(chosen, context.study.data.preprocessing, BATCH)
    wanted, across = pairs(full.graph), borders(full.graph)
    found: dict[str, list[_Deeper]] = {"trained": [], "untrained": []}
    next_to: list[dict[str, object]] = []
    if wanted:
        own_statistics(untrained, (batch for batch, _ in batches))
        for name, net in (("trained", model), ("untrained", untrained)):
            judged = representations(
                net,
                full.graph,
                [*wanted, *across],
                (batch for batch, _ in batches),
                settings.positions,
                generator,
            )
            found[name] = _by_deeper(judged[: len(wanted)])
            next_to += [row for one in judged[len(wanted) :] for row in _border_rows(name, one)]
        context.images_seen = 3 * len(chosen)
    folder = context.folder("correlation")
    rows = [row for name, layers in found.items() for one in layers for row in _rows(name, one)]
    write_csv(folder / "channels.csv", rows, columns=COLUMNS)
    write_csv(folder / "borders.csv", next_to, columns=BORDER_COLUMNS)
    write_json(folder / "heatmaps.json", _heatmaps(found))
    write_json(
        folder / "metrics.json",
        {
            "pairs": len(found["trained"]),
            "controls": sum(len(one.controls) for one in found["trained"]),
            "borders": len(across) if wanted else 0,
            "images": len(chosen),
            "positions": settings.positions,
            "ridge": STRENGTHS,
            "median_r2": {name: _medians(layers) for name, layers in found.items() if layers},
        },
    )


@dataclass(frozen=True)
class _Deeper:
    """A deeper layer: how the former layer of its block represents it, and how its controls do."""

    inside: Representation
    controls: list[Representation]

    def mean_of_controls(self, output: str, what: Callable[[Fit], Tensor]) -> Tensor:
        """Mean over controls, per channel; NaN where there is none."""
        if not self.controls:
            return torch.full_like(what(self.inside.fits[output]), math.nan)
        return torch.stack([what(one.fits[output]) for one in self.controls]).mean(dim=0)


def _by_deeper(judged: list[Representation]) -> list[_Deeper]:
    """One for each pair inside a block; a layer that reads two former ones is there twice."""
    controls: dict[str, list[Representation]] = {}
    for one in judged:
        if one.pair.kind == "other_block":
            controls.setdefault(one.pair.deeper, []).append(one)
    return [
        _Deeper(one, controls.get(one.pair.deeper, []))
        for one in judged
        if one.pair.kind == "in_block"
    ]


@torch.no_grad()
def own_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give an untrained network batch normalisation statistics: it has seen no image yet."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain average over the batches
    for batch in batches:
        model(batch)


def _medians(layers: list[_Deeper]) -> dict[str, float | None]:
    """Median R² over all channels, of the layers' own outputs; None without any control."""
    inside = torch.cat([one.inside.fits["own"].r2 for one in layers])
    controls = torch.cat([one.mean_of_controls("own", _r2) for one in layers])
    middle = controls.nanmedian().item()
    return {"in_block": inside.median().item(), "controls": None if math.isnan(middle) else middle}


def _r2(fit: Fit) -> Tensor:
    return fit.r2


def _best_match(fit: Fit) -> Tensor:
    return fit.best_match


def _rows(name: str, layer: _Deeper) -> list[dict[str, object]]:
    """A row for each channel, with the keys `COLUMNS`."""
    own = layer.inside.fits["own"]
    values = [own.best_match, layer.mean_of_controls("own", _best_match)]
    for output in OUTPUTS:
        values += [layer.inside.fits[output].r2, layer.mean_of_controls(output, _r2)]
    pair = layer.inside.pair
    return [
        dict(
            zip(
                COLUMNS,
                (name, pair.former, pair.deeper, channel, len(layer.controls), *_cells(numbers)),
                strict=True,
            )
        )
        for channel, numbers in enumerate(torch.stack(values, dim=1).tolist())
    ]


def _border_rows(name: str, judged: Representation) -> list[dict[str, object]]:
    """A row for each channel, with the keys `BORDER_COLUMNS`."""
    own, activated = (judged.fits[output] for output in OUTPUTS)
    values = torch.stack((own.best_match, own.r2, activated.r2), dim=1)
    return [
        dict(
            zip(
                BORDER_COLUMNS,
                (name, judged.pair.former, judged.pair.deeper, channel, *numbers),
                strict=True,
            )
        )
        for channel, numbers in enumerate(values.tolist())
    ]


def _cells(numbers: list[float]) -> list[float | None]:
    return [None if math.isnan(number) else number for number in numbers]


def _heatmaps(found: dict[str, list[_Deeper]]) -> list[dict[str, object]]:
    """Of the layers that are shown: inside the block, and with the nearest earlier control."""
    shown = _shown([one.inside for one in found["trained"]])
    return [
        {
            "network": name,
            "pair": judged.pair.kind,
            "former": judged.pair.former,
            "deeper": judged.pair.deeper,
            "matrix": [[round(v, 3) for v in row] for row in _thinned(judged.fits["own"]).tolist()],
        }
        for name, layers in found.items()
        for layer in layers
        if layer.inside.pair.deeper in shown
        for judged in (layer.inside, *layer.controls[-1:])
    ]


def _shown(inside: list[Representation]) -> set[str]:
    """Up to `SHOWN` deeper layers, evenly from the last ones of each channel count."""
    last = {len(one.fits["own"].r2): one.pair.deeper for one in inside}
    layers = list(last.values())
    return {layers[i] for i in _evenly(len(layers), SHOWN)}


def _thinned(fit: Fit) -> Tensor:
    """The matrix, or of a large one `CHANNELS` rows and columns, which fit on a page.

    Rows are taken evenly from the best to the worst match, columns evenly from the former
    channels that match these rows best and then the others.
    """
    matrix = fit.matrix
    rows = fit.best_match.argsort(descending=True, stable=True)
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
