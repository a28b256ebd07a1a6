"""Accuracies of networks with generated weights: one conditioning a stage."""

from itertools import product

import numpy as np
import pandas as pd
from torch import Generator, randperm

from experiments.channel_bench.study import STUDY_FILE, of, parse
from experiments.common.candidates import evidence, pruningnet
from experiments.common.inputs import (
    full_network,
    search_space,
    splits_hash,
    training_images,
    write_csv,
)
from experiments.common.stage import Context, Stage
from graphpruning.common.budget import budget_in_macs
from graphpruning.common.files import require_file, sha256, write_json
from graphpruning.judging import Judge
from graphpruning.network.cost import Counts
from graphpruning.network.graph import Widths
from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Journal
from graphpruning.training.fabric import make_fabric, precision

ANY = "any"
"""In place of a budget: widths of the whole space."""


def judge(context: Context) -> None:
    """Write generated.csv: a row a network, with the MACs and the accuracy on the search split.

    Every PruningNet judges the same random widths. The one that rates the searches' candidates
    judges all that a search may ask about, which then need only look its answers up.
    """
    settings = of(context).judged
    images = training_images(context)
    fabric = make_fabric(of(context).precision)
    context.precision = precision(fabric)
    full = full_network(context, images)
    space = search_space(context, full.graph)
    conditioning = context.items["conditioning"]
    seed = of(context).data.seed
    asked = _random(space, settings.candidates, seed)
    most = None if conditioning == of(context).search.source else settings.within
    for share in of(context).budgets:
        asked += [(f"{share:g}", one) for one in _filling(space, share, most, seed)]
    answers = Judge.by_pruningnet(
        pruningnet(context, full, conditioning), evidence(context, images, fabric)
    )
    journal = Journal(
        answers.evaluator,
        space,
        space.macs(space.full),
        len(asked),
        context.checkpoints / "journal.jsonl",
        context.fingerprint(
            weights=sha256(context.weights_of(conditioning)), splits=splits_hash(context)
        ),
    )
    rows: list[dict[str, object]] = [
        {
            "budget": budget,
            "widths": "-".join(map(str, space.vector(widths))),
            "macs": space.macs(widths),
            "top1_generated": journal(widths),
        }
        for budget, widths in asked
    ]
    context.resumed = journal.resumed
    context.images_seen = journal.computed * answers.evaluator.images_per_candidate
    folder = context.folder("generated")
    write_csv(folder / "generated.csv", rows)
    write_json(
        folder / "metrics.json", {"conditioning": conditioning, "networks": journal.computed}
    )


def _random(space: SearchSpace, count: int, seed: int) -> list[tuple[str, Widths]]:
    generator = Generator().manual_seed(seed)
    return [(ANY, space.sample(generator)) for _ in range(count)]


def _filling(space: SearchSpace, share: float, most: int | None, seed: int) -> list[Widths]:
    """The space's networks that a search within `share` of the MACs may ask about, in a random
    order; `most` of them at most.
    """
    budget = budget_in_macs(share, space.macs(space.full))
    vectors = np.array(list(product(*(space.levels[group] for group in space.groups))))
    macs = space.cost.macs(vectors)
    vectors = vectors[(macs <= budget) & (macs >= _least(space, vectors[macs <= budget], budget))]
    order = randperm(len(vectors), generator=Generator().manual_seed(seed))[:most]
    return [space.widths(vectors[index].tolist()) for index in order.tolist()]


def _least(space: SearchSpace, vectors: Counts, budget: int) -> float:
    """The MACs of the smallest network that a search may ask about: one that fills the budget, or
    one that no change brings nearer to it. `vectors` are all within the budget.
    """
    macs = space.cost.macs(vectors)
    least = space.filled * budget
    for place in np.argsort(macs)[: int((macs < least).sum())]:
        widths = space.widths(vectors[place].tolist())
        if space.fill(widths, budget) == widths:
            return float(macs[place])
    return least


def judged(context: Context, conditioning: str) -> pd.DataFrame:
    """What a PruningNet judged, with `vector` for the widths; networks that came twice, once."""
    path = context.results.joinpath(
        "generated", context.items["model"], conditioning, context.items["seed"], "generated.csv"
    )
    require_file(path, "the stage judge")
    frame = pd.read_csv(path, dtype={"budget": str})
    frame["vector"] = [tuple(map(int, one.split("-"))) for one in frame["widths"]]
    return frame.drop_duplicates(["budget", "vector"])


STAGE = Stage(
    judge,
    folder="generated",
    sections=("networks", "data", "space", "precision", "threads", "budgets", "judged", "search"),
    items=("model", "conditioning", "seed"),
    study_file=STUDY_FILE,
    parse=parse,
)

if __name__ == "__main__":
    STAGE.main()
