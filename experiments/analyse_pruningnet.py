"""Claims 2 and 3: are generated weights reasonable at any width, and what do features carry?"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Generator, nn

from experiments.common.candidates import evidence, pruningnet
from experiments.common.inputs import (
    FullNetwork,
    full_network,
    search_space,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import analysed_budgets, budget_in_macs, budget_name, recipe
from experiments.finetune import train_found
from graphpruning.common.files import write_json
from graphpruning.judging import Evidence, Judge, found_network
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import seeded
from graphpruning.pruningnet import diagnostics
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.images import Images
from graphpruning.training.loop import derived_seed, evaluate

ANY = "any"
"""In place of a budget: widths of the whole space."""
PROBED = 800
"""Random width vectors that the features are asked about."""

Candidate = tuple[str, dict[str, int]]
"""A budget's name or `ANY`, and random widths within it."""


def analyse_pruningnet(context: Context) -> None:
    """Judge random widths with generated weights and, some of them, after training from scratch.

    Those that are trained lie within the budgets, so that candidates of one size are ranked. Both
    accuracies are on the search split; the test set is not touched.
    """
    settings = context.study.analysis
    images = training_images(context)
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    full = full_network(context, images)
    space = search_space(context, full.graph)
    deciding = evidence(context, images, fabric)
    generator = Generator().manual_seed(context.seed)
    candidates = _candidates(context, space, generator)
    probed = [space.sample(generator) for _ in range(PROBED)]
    folder = context.folder("generated")
    write_csv(folder / "trained.csv", _trained(context, fabric, images, full, candidates, deciding))
    rows: list[dict[str, object]] = []
    probes: list[dict[str, object]] = []
    shares: list[dict[str, Any]] = []
    for name in settings.conditionings:
        net = pruningnet(context, full, name)
        rows += _judged(context, space, net, name, candidates, deciding)
        with seeded(context.seed):  # as the training stage began
            untrained = PruningNet(full.graph, name)
        far = []
        for state, one in (("trained", net), ("untrained", untrained)):
            which = {"conditioning": name, "network": state}
            seen = diagnostics.features(one, probed)
            found = diagnostics.probes(full.graph, seen, probed)
            far.append(diagnostics.far_r2(found))
            probes += [{**which, **asdict(probe)} for probe in found]
            shares.append(
                {
                    **which,
                    "feature_variation": diagnostics.feature_variation(seen),
                    "weight_variation": diagnostics.weight_variation(one, seen),
                }
            )
        after, before = shares[-2:]
        varied = after["feature_variation"], before["feature_variation"]
        print(diagnostics.health(name, varied, (far[0], far[1]), after["weight_variation"]))
    write_csv(folder / "candidates.csv", rows)
    write_csv(folder / "probes.csv", probes)
    write_csv(folder / "diagnostics.csv", shares)
    write_json(
        folder / "metrics.json",
        {
            "candidates": settings.candidates,
            "within": settings.within,
            "trained": settings.trained,
            "trainings": settings.trainings,
        },
    )


def _candidates(context: Context, space: SearchSpace, generator: Generator) -> list[Candidate]:
    """Random widths of the whole space, then as many within each budget as the study says."""
    settings, study = context.study.analysis, context.study
    found = [(ANY, space.sample(generator)) for _ in range(settings.candidates)]
    network = study.networks[context.items["model"]]
    for budget in analysed_budgets(study):
        macs = budget_in_macs(network, budget, space.macs(space.full))
        found += [
            (budget_name(budget), space.sample_within(macs, generator))
            for _ in range(settings.within)
        ]
    return found


def _trained(
    context: Context,
    fabric: Any,
    images: Images,
    full: FullNetwork,
    candidates: list[Candidate],
    deciding: Evidence,
) -> list[dict[str, object]]:
    """Accuracies of the first candidates of each budget after training, several times each."""
    settings = context.study.analysis
    scratch = recipe(context.study, "analysis", context.items["model"])
    left = {budget_name(budget): settings.trained for budget in analysed_budgets(context.study)}
    rows: list[dict[str, object]] = []
    for number, (budget, widths) in enumerate(candidates):
        if not left.get(budget):
            continue
        left[budget] -= 1
        for training in range(settings.trainings):
            seed = context.seed if training == 0 else derived_seed(context.seed, training)
            model: nn.Module = found_network(full.make(), full.graph, widths, seed)
            name = f"candidate-{number}-{training}"
            train_found(context, fabric, images, model, widths, scratch, name, seed=seed)
            top1 = evaluate(fabric, model, deciding.search).top1
            rows.append({"candidate": number, "training": training, "top1": top1})
    return rows


def _judged(
    context: Context,
    space: SearchSpace,
    net: PruningNet,
    name: str,
    candidates: list[Candidate],
    deciding: Evidence,
) -> list[dict[str, object]]:
    """Accuracies with generated weights, and with those for other widths than they are cropped to.

    The other widths are those of the next candidate of the whole space.
    """
    judge = Judge.by_pruningnet(net, deciding)
    rows: list[dict[str, object]] = []
    for number, (budget, widths) in enumerate(candidates):
        row: dict[str, object] = {
            "candidate": number,
            "budget": budget,
            "macs": space.macs(widths),
            "conditioning": name,
            "top1_generated": judge.evaluator(widths),
            "top1_shuffled": None,
        }
        if budget == ANY:
            other = candidates[(number + 1) % context.study.analysis.candidates][1]
            with torch.no_grad():
                weights = net.weights(widths, conditioned_on=other)
            row["top1_shuffled"] = judge.evaluator(widths, weights=weights)
        rows.append(row)
    context.images_seen += judge.evaluator.images_seen
    return rows


STAGE = Stage(
    analyse_pruningnet,
    folder="generated",
    sections=("networks", "data", "space", "precision", "threads", "analysis", "budgets"),
    items=("model", "seed"),
)

if __name__ == "__main__":
    STAGE.main()
