"""Where a candidate's weights come from, how accurate they make it, and what a search finds.

The one path for the pipeline's stages and for `prune`: a source of weights -> a `Judge` -> `search`
-> `found_network`, which is then trained.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from graphpruning import methods
from graphpruning.methods import Features, Method, SearchSettings
from graphpruning.network.graph import ChannelGraph, Widths, copy_rest
from graphpruning.network.subnet import LayerWeights
from graphpruning.network.surgery import install, narrow
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import initialise, seeded
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.search.evaluator import Evaluator
from graphpruning.search.history import Journal
from graphpruning.search.racing import Race
from graphpruning.search.sliced import SlicedWeights
from graphpruning.training.images import Batch, Images, prepared
from graphpruning.training.preprocessing import Preprocessing

BATCH = 250
"""Images of an evaluation batch, of which a processor computes some at a time (see `Subnet`)."""
RACED = 16
"""About as many batches as a race needs, so that it can look early."""


@dataclass(frozen=True)
class Reconstruction:
    """Training images, and output positions per image, from which cut weights are fitted again.

    AMC has 3,000 images and 10 positions (mit-han-lab/amc).
    """

    images: int = 500
    points: int = 10


@dataclass(frozen=True)
class Evidence:
    """The images that judge candidates, on the device of the weights, and how to compute.

    Every candidate gets its batch normalisation statistics from `calibration`, and its accuracy
    from `search`, where a label counts among the `top` best scores (1 or 5). `autocast` opens the
    precision.
    """

    calibration: Sequence[Batch]
    search: Sequence[Batch]
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]
    top: int = 1

    @classmethod
    def of(
        cls,
        calibration: Images,
        search: Images,
        preprocessing: Preprocessing,
        fabric: Any,
        seed: int,
        top: int = 1,
        shuffled: bool = False,
    ) -> "Evidence":
        """Prepare images on the device of `fabric`.

        Those for recalibration are augmented once, drawn from `seed`: weights are trained on such
        images. Those of the search split stay in their order, or are `shuffled`, which a race
        needs: folders come class by class.
        """
        generator = torch.Generator().manual_seed(seed)
        augmented = calibration.augmented(preprocessing, generator)
        batch = BATCH
        if shuffled:
            search = search.select(torch.randperm(len(search), generator=generator))
            batch = min(BATCH, -(-len(search) // RACED))
        recalibrating = prepared(augmented.to(fabric.device), preprocessing, BATCH)
        judging = prepared(search.to(fabric.device), preprocessing, batch)
        return cls(recalibrating, judging, fabric.device, fabric.autocast, top)


@dataclass(frozen=True)
class Judge:
    """A source of weights for any widths, and how accurate a network is with them.

    `features` are the source's aggregated features, if it is a PruningNet; `base` is the trained
    network, if it is cut.
    """

    graph: ChannelGraph
    weights_of: Callable[[Widths], LayerWeights]
    evaluator: Evaluator
    features: Features | None = None
    base: nn.Module | None = None

    @classmethod
    def by_pruningnet(cls, net: PruningNet, evidence: Evidence) -> "Judge":
        """Judge with the weights that `net` generates; its features are those of now, see
        `PruningNet.settled_features`.
        """
        net.to(evidence.device)
        graph = net.subnet.graph
        evaluator = Evaluator(
            graph,
            net.weights,
            evidence.calibration,
            evidence.search,
            evidence.autocast,
            top=evidence.top,
        )
        return cls(graph, net.weights, evaluator, net.settled_features())

    @classmethod
    def by_base(
        cls,
        base: nn.Module,
        graph: ChannelGraph,
        images: Images,
        preprocessing: Preprocessing,
        reconstruction: Reconstruction,
        seed: int,
        evidence: Evidence,
        keep_statistics: bool = False,
    ) -> "Judge":
        """Judge with weights cut out of the trained `base` and fitted again, AMC's way.

        They are fitted on the first of `images` (training images), at positions drawn from `seed`.
        What has no channels is set in `graph.module` to what it is in the base.
        Statistics are recalibrated, or with `keep_statistics` those of the base.
        """
        count = min(reconstruction.images, len(images))
        chosen = images.select(torch.arange(count))
        batches = [x.to(evidence.device) for x, _ in prepared(chosen, preprocessing, BATCH)]
        generator = torch.Generator().manual_seed(seed)
        base.to(evidence.device)
        copy_rest(graph, base, graph.module)
        cut = SlicedWeights(base, graph, batches, reconstruction.points, generator)
        evaluator = Evaluator(
            graph,
            cut,
            evidence.calibration,
            evidence.search,
            evidence.autocast,
            top=evidence.top,
            statistics_of=cut.statistics if keep_statistics else None,
        )
        return cls(graph, cut, evaluator, base=base)

    def install(self, model: nn.Module, widths: Widths) -> None:
        """Give `model`, narrowed to `widths`, the weights and statistics that it is judged by."""
        with torch.no_grad():
            weights = self.weights_of(widths)
        install(model, self.graph, weights, self.evaluator.statistics(widths, weights))


def search(
    row: Method,
    judge: Judge,
    space: SearchSpace,
    budget: int,
    evaluations: int,
    settings: SearchSettings,
    seed: int,
    journal: Path,
    fingerprint: Mapping[str, Any],
) -> Journal:
    """Let the row's searcher find widths within `budget`; return its journal.

    `evaluations` are those that a searcher may use. What was judged is kept in the file `journal`,
    from which a killed search goes on if `fingerprint` is the same. Raises `UserError` when the
    space cannot meet the budget.
    """
    count = methods.evaluations_of(row, evaluations)
    race = Race(judge.evaluator) if methods.races(row, settings) else None
    kept = Journal(judge.evaluator, space, budget, count, journal, fingerprint, race)
    generator = Generator().manual_seed(seed)
    methods.run(
        methods.Task(row, space, budget, kept, generator, settings, judge.features, judge.base)
    )
    kept.settle()
    return kept


def found_network(
    full: nn.Module, graph: ChannelGraph, widths: Widths, seed: int, judge: Judge | None = None
) -> nn.Module:
    """Return `full`, the network of `graph`, narrowed to `widths`, ready for its final training.

    Its weights are fresh, drawn from `seed`; or with a `judge` those that it judges by.
    """
    model = narrow(full, graph, widths)
    with seeded(seed):
        initialise(model)
    if judge is not None:
        judge.install(model, widths)
    return model
