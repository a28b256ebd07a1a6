"""Claims 2 and 3: are generated weights reasonable at any width, and what do features carry?"""

from collections import deque

import torch

from experiments.common.candidates import pruningnet, search_split
from experiments.common.inputs import search_space, training_images, write_csv
from experiments.common.stage import Context, Stage
from experiments.finetune import train_found
from graphpruning.common.files import write_json
from graphpruning.network.graph import ChannelGraph
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.search.evaluator import Evaluator
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.loop import evaluate


def analyse_pruningnet(context: Context) -> None:
    """Judge random widths with generated weights and, some of them, after training from scratch.

    Both accuracies are on the search split; the test set is not touched.
    """
    settings = context.study.analysis
    images = training_images(context)
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    calibration, search = search_split(context, images, fabric.device)
    conditionings = context.items["conditionings"].split("+")
    nets = {name: pruningnet(context, images, name) for name in conditionings}
    for net, _ in nets.values():
        net.to(fabric.device)
    graph = next(iter(nets.values()))[1]
    space = search_space(context, graph)
    generator = torch.Generator().manual_seed(settings.seed)
    candidates = [space.sample(generator) for _ in range(settings.candidates)]
    trained: list[float | None] = [None] * len(candidates)
    for index, widths in enumerate(candidates[: settings.trained]):
        model, _ = train_found(context, fabric, images, widths, settings.seed)
        trained[index] = evaluate(fabric, model, search).top1
    rows, moves = [], []
    for name, (net, _) in nets.items():
        evaluator = Evaluator(graph, net.weights, calibration, search, fabric.autocast)
        rows += [
            {
                "candidate": index,
                "macs": space.macs(widths),
                "conditioning": name,
                "top1_generated": evaluator(widths),
                "top1_trained": trained[index],
            }
            for index, widths in enumerate(candidates)
        ]
        context.images_seen += evaluator.images_seen
        moves += [{"conditioning": name, **row} for row in influence(graph, net)]
    folder = context.results / "generated" / context.items["model"]
    write_csv(folder / "candidates.csv", rows)
    write_csv(folder / "influence.csv", moves)
    write_json(
        folder / "metrics.json", {"candidates": len(candidates), "trained": settings.trained}
    )


@torch.no_grad()
def influence(graph: ChannelGraph, net: PruningNet) -> list[dict[str, object]]:
    """How far each group's feature moves when another group goes to half its width.

    Movement is |f' - f| / |f| of the group's mean feature, from all groups at full width.
    """
    full = graph.full_widths
    position = {layer.name: index for index, layer in enumerate(graph.layers)}
    rows_of = {group.id: [position[name] for name in group.layers] for group in graph.groups}
    before = net.features(full)
    moved = {
        changed: {
            observed: _movement(before[rows_of[observed]], after[rows_of[observed]])
            for observed in full
        }
        for changed in full
        for after in [net.features({**full, changed: full[changed] // 2})]
    }
    distances = {changed: _distances(graph, rows_of[changed]) for changed in full}
    return [
        {
            "changed": changed,
            "observed": observed,
            "distance": min(distances[changed][row] for row in rows_of[observed]),
            "movement": moved[changed][observed],
        }
        for changed in full
        for observed in full
        if observed != changed
    ]


def _movement(before: torch.Tensor, after: torch.Tensor) -> float:
    mean = before.mean(dim=0)
    return float((after.mean(dim=0) - mean).norm() / mean.norm().clamp(min=1e-12))


def _distances(graph: ChannelGraph, sources: list[int]) -> dict[int, int]:
    """Steps along edges, in either direction, from the nearest of `sources` to each layer."""
    position = {layer.name: index for index, layer in enumerate(graph.layers)}
    neighbours: dict[int, set[int]] = {index: set() for index in position.values()}
    for edge in graph.edges:
        neighbours[position[edge.source]].add(position[edge.target])
        neighbours[position[edge.target]].add(position[edge.source])
    distance = dict.fromkeys(sources, 0)
    queue = deque(sources)
    while queue:
        here = queue.popleft()
        for there in sorted(neighbours[here] - distance.keys()):
            distance[there] = distance[here] + 1
            queue.append(there)
    return distance


STAGE = Stage(
    analyse_pruningnet,
    sections=("networks", "data", "space", "precision", "threads", "analysis", "final"),
    items=("model", "conditionings"),
)

if __name__ == "__main__":
    STAGE.main()
