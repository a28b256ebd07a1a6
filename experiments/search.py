"""Search widths within a budget: one method, budget and seed a stage."""

from itertools import accumulate

from lightning_fabric import Fabric

from experiments.common.candidates import evidence, judge_by_base, pruningnet
from experiments.common.inputs import (
    FullNetwork,
    full_network,
    search_space,
    splits_hash,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from experiments.common.study import budget_in_macs
from graphpruning import methods
from graphpruning.common.files import sha256, write_json
from graphpruning.judging import Judge, found_network
from graphpruning.judging import search as search_by
from graphpruning.network.cost import params
from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Candidate, Journal
from graphpruning.training.checkpoint import save_weights
from graphpruning.training.fabric import make_fabric, precision
from graphpruning.training.images import Images


def search(context: Context) -> None:
    """Write what was found, every candidate on the way, and the weights that it was judged by."""
    items, settings = context.items, context.study.search
    row = methods.method(items["method"])
    images = training_images(context)
    fabric = make_fabric(context.study.precision)
    context.precision = precision(fabric)
    full = full_network(context, images)
    space = search_space(context, full.graph)
    network = context.study.networks[items["model"]]
    budget = budget_in_macs(network, items["budget"], space.macs(space.full))
    space.require(budget)
    judge = _judge(context, row, full, images, fabric)
    journal = search_by(
        row,
        judge,
        space,
        budget,
        settings.evaluations,
        settings,
        context.seed,
        context.checkpoints / "journal.jsonl",
        context.fingerprint(
            weights=sha256(context.weights_of(row.source)), splits=splits_hash(context)
        ),
    )
    context.resumed = journal.resumed
    context.extra["search_seconds"] = round(journal.seconds, 2)
    evaluator = judge.evaluator
    context.images_seen = journal.images_seen(
        evaluator.recalibration_images, evaluator.search_images
    )
    best = journal.history.found
    model = found_network(full.make(), full.graph, best.widths, context.seed, judge)
    save_weights(context.weights_file("searched"), model.state_dict())
    folder = context.folder("search")
    write_csv(folder / "history.csv", _history(space, journal.history.candidates))
    write_json(
        folder / "metrics.json",
        {
            "method": items["method"],
            "budget": items["budget"],
            "budget_macs": budget,
            "top1_search": best.accuracy,
            "macs": best.macs,
            "params": params(full.graph, best.widths),
            "evaluations": len(journal.history.candidates),
            "distinct": journal.computed,
            "images_seen": context.images_seen,
            "widths": best.widths,
            **_estimated(journal),
        },
    )


def _estimated(journal: Journal) -> dict[str, int]:
    """How many candidates have an accuracy that is an estimate, of different ones, if any have."""
    stopped = [one.widths for one in journal.history.candidates if one.images is not None]
    different = {tuple(widths.values()) for widths in stopped}
    return {"estimated": len(different)} if different else {}


def _judge(
    context: Context, row: methods.Method, full: FullNetwork, images: Images, fabric: Fabric
) -> Judge:
    """What rates candidates: weights from the row's source, by the study's reward."""
    settings = context.study.search
    top = 5 if settings.reward == "top5" else 1
    deciding = evidence(context, images, fabric, top, methods.races(row, settings))
    if row.source == "base":
        kept = settings.base_statistics == "kept"
        return judge_by_base(context, full, images, deciding, keep_statistics=kept)
    return Judge.by_pruningnet(pruningnet(context, full, row.source), deciding)


def _history(space: SearchSpace, candidates: list[Candidate]) -> list[dict[str, object]]:
    best = accumulate((candidate.accuracy for candidate in candidates), max)
    return [
        {
            "evaluation": evaluation,
            "macs": candidate.macs,
            "top1": candidate.accuracy,
            "best": best_so_far,
            "widths": "-".join(map(str, space.vector(candidate.widths))),
        }
        for evaluation, (candidate, best_so_far) in enumerate(
            zip(candidates, best, strict=True), start=1
        )
    ]


STAGE = Stage(
    search,
    folder="search",
    sections=("networks", "data", "space", "precision", "threads", "search", "reconstruction"),
    items=("model", "method", "budget", "seed"),
    kind=lambda items: f"search_{methods.listed_under(items['method'])}",
)

if __name__ == "__main__":
    STAGE.main()
