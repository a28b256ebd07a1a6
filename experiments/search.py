"""Search widths within a budget: one method and budget a stage, its seeds one after the other."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from experiments.common.candidates import pruningnet, search_split
from experiments.common.inputs import (
    base_model,
    network,
    preprocessing,
    search_space,
    split,
    splits_hash,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import budget_in_macs, seed_list
from graphpruning import methods
from graphpruning.common.files import sha256, write_json
from graphpruning.network.cost import params
from graphpruning.network.graph import ChannelGraph, Widths
from graphpruning.network.subnet import LayerWeights
from graphpruning.network.surgery import install, narrow
from graphpruning.network.zoo import build
from graphpruning.search.ddpg import DDPGSettings
from graphpruning.search.evaluator import Evaluator
from graphpruning.search.evolution import EvolutionSettings
from graphpruning.search.history import Journal
from graphpruning.search.sliced import SlicedWeights
from graphpruning.training.checkpoint import save_weights
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.images import Images, prepared


def search(context: Context) -> None:
    """Write what each seed found, every candidate on the way, and the weights it was judged by."""
    items, settings = context.items, context.study.search
    row = methods.method(items["method"])
    judge = _Judge(context, row.source)
    model = context.study.networks[items["model"]]
    budget = budget_in_macs(model, items["budget"], judge.space.macs(judge.space.full))
    judge.space.require(budget)
    searchers = methods.SearchSettings(
        DDPGSettings(**asdict(settings.agent)), EvolutionSettings(**asdict(settings.evolution))
    )
    found: dict[str, dict[str, Any]] = {}
    history: list[dict[str, object]] = []
    seconds: dict[str, float] = {}
    for seed in seed_list(items["seeds"]):
        journal = Journal(
            judge.evaluator,
            judge.space,
            budget,
            evaluations=methods.evaluations_of(row, settings.evaluations),
            path=context.checkpoints / f"journal-{seed}.jsonl",
            fingerprint=context.fingerprint(
                seed=seed, weights=judge.weights_hash, splits=splits_hash(context)
            ),
        )
        generator = torch.Generator().manual_seed(seed)
        methods.run(
            row, judge.space, budget, journal, generator, judge.features, searchers, judge.base
        )
        context.resumed |= journal.resumed
        seconds[str(seed)] = round(journal.seconds, 2)
        best = journal.history.best
        found[str(seed)] = {
            "top1_search": best.accuracy,
            "macs": best.macs,
            "params": params(judge.graph, best.widths),
            "evaluations": len(journal.history.candidates),
            "images_seen": journal.computed * judge.evaluator.images_per_candidate,
            "widths": best.widths,
        }
        history += _history(seed, journal)
    context.images_seen = sum(result["images_seen"] for result in found.values())
    context.extra["seconds_by_seed"] = seconds
    folder = context.results.joinpath("search", *items.values())
    for name, result in found.items():
        judge.save(context, result["widths"], name)
    write_csv(folder / "history.csv", history)
    write_json(
        folder / "metrics.json",
        {
            "method": items["method"],
            "budget": items["budget"],
            "budget_macs": budget,
            "initial": row.initial,
            "seeds": found,
        },
    )


class _Judge:
    """Says how accurate widths are, with weights from the row's source."""

    def __init__(self, context: Context, source: str) -> None:
        images = training_images(context)
        fabric = make_fabric(context.study.precision)
        context.precision = precision(fabric)
        self.network = network(context, images)
        folder = context.weights / context.items["model"]
        settings = context.study.search
        self.weights_of: Callable[[Widths], LayerWeights]
        self.features: methods.Features | None = None
        self.base: nn.Module | None = None
        statistics_of = None
        if source == "base":
            file = folder / "base.safetensors"
            self.base, self.graph = base_model(context, images)
            cut = _sliced(context, images, self.base.to(fabric.device), self.graph)
            self.weights_of = cut
            if settings.base_statistics == "kept":
                statistics_of = cut.statistics
        else:
            file = folder / f"pruningnet-{source}.safetensors"
            net, self.graph = pruningnet(context, images, source)
            net.to(fabric.device)
            self.weights_of, self.features = net.weights, net.features
        self.weights_hash = sha256(file)
        self.space = search_space(context, self.graph)
        calibration, split_images = search_split(context, images, fabric.device)
        self.evaluator = Evaluator(
            self.graph,
            self.weights_of,
            calibration,
            split_images,
            fabric.autocast,
            top=5 if settings.reward == "top5" else 1,
            statistics_of=statistics_of,
        )

    def save(self, context: Context, widths: dict[str, int], seed: str) -> None:
        """Keep the weights that the found network was judged by, as one of its own could start."""
        full = build(**self.network)
        model = narrow(full, self.graph, widths)
        with torch.no_grad():
            weights = self.weights_of(widths)
        install(model, self.graph, weights, self.evaluator.statistics(widths, weights))
        folder = context.weights.joinpath("searched", *context.items.values())
        save_weights(folder / f"seed-{seed}.safetensors", model.state_dict())


def _sliced(
    context: Context, images: Images, base: nn.Module, graph: ChannelGraph
) -> SlicedWeights:
    settings = context.study.search.reconstruction
    chosen = images.select(split(context, "calibration")[: settings.images])
    device = next(base.parameters()).device
    batches = [batch.to(device) for batch, _ in prepared(chosen, preprocessing(context), 250)]
    generator = torch.Generator().manual_seed(context.study.data.seed)
    return SlicedWeights(base, graph, batches, settings.points, generator)


def _history(seed: int, journal: Journal) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    best = 0.0
    for evaluation, candidate in enumerate(journal.history.candidates, start=1):
        best = max(best, candidate.accuracy)
        rows.append(
            {
                "seed": seed,
                "evaluation": evaluation,
                "macs": candidate.macs,
                "top1": candidate.accuracy,
                "best": best,
            }
        )
    return rows


STAGE = Stage(
    search,
    sections=("networks", "data", "space", "precision", "threads", "search"),
    items=("model", "method", "budget", "seeds"),
)

if __name__ == "__main__":
    STAGE.main(name=lambda items: f"search_{methods.place(items['method'])}")
