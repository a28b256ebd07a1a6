"""Claims 2 and 3: are generated weights reasonable at any width, and what do features carry?"""

from collections import deque

import torch

from experiments.common.candidates import evidence, pruningnet
from experiments.common.inputs import full_network, search_space, training_images, write_csv
from experiments.common.stage import Context, Stage
from experiments.common.study import recipe
from experiments.finetune import train_found
from graphpruning.common.files import write_json
from graphpruning.judging import Judge, found_network
from graphpruning.network.graph import ChannelGraph
from graphpruning.pruningnet.pruningnet import PruningNet
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
    full = full_network(context, images)
    graph, space = full.graph, search_space(context, full.graph)
    deciding = evidence(context, images, fabric)
    generator = torch.Generator().manual_seed(context.seed)
    candidates = [space.sample(generator) for _ in range(settings.candidates)]
    scratch = recipe(context.study, "analysis", context.items["model"])
    trained: list[float | None] = [None] * len(candidates)
    for index, widths in enumerate(candidates[: settings.trained]):
        model = found_network(full.make(), graph, widths, context.seed)
        train_found(context, fabric, images, model, widths, scratch)
        trained[index] = evaluate(fabric, model, deciding.search).top1
    rows, moves = [], []
    for name in settings.conditionings:
        net = pruningnet(context, full, name)
        evaluator = Judge.by_pruningnet(net, deciding).evaluator
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
    folder = context.folder("generated")
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
    folder="generated",
    sections=("networks", "data", "space", "precision", "threads", "analysis"),
    items=("model", "seed"),
)

if __name__ == "__main__":
    STAGE.main()
