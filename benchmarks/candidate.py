"""One candidate of a search: recalibrated and judged on 2,000 images.

The reference is the original search's way: recalibrate on 100 batches of the training loader, then
evaluate, all in fp32. Ours has augmented 2,000 images once and runs in bf16 where it is faster.
Both judge the same weights of a PruningNet, which is trained for the purpose on Fashion-MNIST.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.harness import REPEATS, Row, alternate, fabric, matrix_rate, memory_rate, seconds
from graphpruning.network.subnet import LayerWeights, Statistics
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build, seeded
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.search.ddpg import DDPGSettings
from graphpruning.search.ddpg import search as search_by_ddpg
from graphpruning.search.environment import PruningEnv
from graphpruning.search.evaluator import Evaluator
from graphpruning.search.history import Candidate
from graphpruning.search.racing import Race
from graphpruning.search.states import AggregatedState, AmcState
from graphpruning.search.trajectory_feedback import AgentSettings
from graphpruning.search.trajectory_feedback import search as search_by_agent
from graphpruning.search.walled import WalledEnv
from graphpruning.training.checkpoint import load_weights, save_weights
from graphpruning.training.datasets import fashion_mnist
from graphpruning.training.fabric import precision
from graphpruning.training.images import Batch, ImageSet, prepared
from graphpruning.training.loop import fit
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe
from graphpruning.training.splits import split

SEARCH, RECALIBRATION, LOADED = 2000, 2000, 100 * 128
AGREEING = 50  # candidates whose accuracies are compared
RECALIBRATED = 250  # images, in a race: as in the studies, few beside those that judge
HOW = Preprocessing(mean=(0.2860,) * 3, std=(0.3530,) * 3, pad=2, flip=True)
RECIPE = Recipe(
    epochs=3,
    batch_size=128,
    lr=0.1,
    schedule="linear",
    warmup_epochs=0.1,
    label_smoothing=0.1,
    clip=5,
    images_per_epoch=None,
)


class TrainingLoader:
    """The first 100 batches of an epoch, drawn and augmented anew whenever they are asked for."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.passes = 0

    def __len__(self) -> int:
        return LOADED // 128

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        generator = torch.Generator().manual_seed(self.passes)
        return self.images.batches(HOW, 128, generator, augment=True, limit=LOADED)


class Judges:
    """Both ways of judging the candidates of one network."""

    def __init__(self, name: str, data: Path, checkpoints: Path) -> None:
        images = fashion_mnist(data, train=True)
        images = replace(images, images=images.images.repeat(1, 3, 1, 1))  # torchvision's read 3
        parts = split(images.labels, SEARCH, RECALIBRATION, seed=0)
        train, search = images.select(parts.train), images.select(parts.search)
        with seeded(0):
            graph = trace(build(name, 10), images.shape)
            net = PruningNet(graph, "graph")
        self.name = name
        self.space = SearchSpace(graph, divisor=8, smallest=0.25)
        self.fabric = fabric()
        self._train(net, train, checkpoints)
        self.net = net.eval()
        generator = torch.Generator().manual_seed(0)
        augmented = images.select(parts.calibration).augmented(HOW, generator)
        self.ours = Evaluator(
            graph,
            net.weights,
            prepared(augmented, HOW, 250),
            prepared(search, HOW, 250),
            self.fabric.autocast,
        )
        order = torch.randperm(len(search), generator=generator)
        self.raced = Evaluator(
            graph,
            net.weights,
            prepared(augmented.select(torch.arange(RECALIBRATED)), HOW, 250),
            prepared(search.select(order), HOW, 100),
            self.fabric.autocast,
        )
        loader = TrainingLoader(train)
        self.exact = Evaluator(graph, net.weights, loader, prepared(search, HOW, 128))

    def _train(self, net: PruningNet, train: ImageSet, checkpoints: Path) -> None:
        """Once: its weights are kept."""
        settings = repr((RECIPE, HOW, self.space.levels, torch.__version__, precision(self.fabric)))
        digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
        kept = checkpoints / f"{self.name}-{digest}.safetensors"
        if not kept.exists():
            fit(
                self.fabric,
                net,
                train,
                HOW,
                RECIPE,
                0,
                name=f"PruningNet of {self.name}",
                step=RandomWidthStep(self.space, RECIPE.label_smoothing),
                optimizer=partial(CroppedSGD, net),
            )
            save_weights(kept, net.state_dict())
        load_weights(kept, net)

    def candidates(self, count: int, seed: int) -> list[dict[str, int]]:
        generator = torch.Generator().manual_seed(seed)
        return [self.space.sample(generator) for _ in range(count)]

    def floor(self, widths: list[dict[str, int]]) -> float:
        """Seconds: the multiplications, and each image's pixels read once."""
        rows = np.array([self.space.vector(w) for w in widths])
        half = precision(self.fabric) == "bf16-mixed"
        rate = matrix_rate(torch.bfloat16 if half else torch.float32)
        images = SEARCH + RECALIBRATION
        pixels = 4 * images * np.prod(self.space.graph.input_size)
        return float(images * self.space.cost.macs(rows).mean() / rate + pixels / memory_rate())


def time_row(judges: Judges) -> Row:
    """Seconds of a candidate, other ones in each repeat."""
    each = 1

    def judge(evaluator: Evaluator, repeat: int) -> None:
        for widths in judges.candidates(each, seed=repeat + 1):
            evaluator(widths)

    found = alternate({"ours": partial(judge, judges.ours), "exact": partial(judge, judges.exact)})
    widths = [w for repeat in range(5) for w in judges.candidates(each, seed=repeat + 1)]
    return Row(
        f"a candidate of {judges.name}, {SEARCH} images",
        "100 batches of the loader, fp32",
        "s",
        [t / each for t in found["ours"]],
        [t / each for t in found["exact"]],
        0.25,
        floor=judges.floor(widths),
    )


def batch_rows(judges: Judges) -> list[Row]:
    """A batch of a new candidate, whose kernels must be built, against the same batch again; and
    a batch judged as searches do it against the traced network, run as a whole by `fx`."""
    evaluator = judges.ours
    images, _ = evaluator.search[0]
    taken: dict[str, list[float]] = {"first": [], "later": [], "judged": [], "plain": []}
    for widths in judges.candidates(REPEATS + 1, seed=200):
        with torch.no_grad(), evaluator.autocast():
            weights = evaluator.weights_of(widths)

            def judge(weights: LayerWeights = weights) -> Statistics:
                statistics = evaluator.subnet.recalibrate(weights, [(images, images)])
                evaluator.subnet.judging(weights, statistics)(images)
                return statistics

            taken["first"].append(seconds(judge))
            statistics = judge()
            judged = evaluator.subnet.judging(weights, statistics)
            plain = partial(evaluator.subnet.logits, images, weights, statistics)
            plain()
            taken["later"].append(seconds(judge))
            taken["judged"].append(seconds(partial(judged, images)))
            taken["plain"].append(seconds(plain))
    first, later, as_searched, by_fx = (
        taken[name][1:] for name in ("first", "later", "judged", "plain")
    )
    what = f"of {judges.name}, {len(images)} images"
    return [
        Row(f"first batch of a candidate {what}", "the same again", "s", first, later),
        Row(f"a batch judged {what}", "by fx.Interpreter, as a whole", "s", as_searched, by_fx),
    ]


def agreement(judges: Judges) -> list[Row]:
    """How far accuracies are from the exact ones, and whether they rank candidates alike.

    The reference draws other images whenever it is asked: how well it agrees with itself bounds
    what any way of judging can reach.
    """
    candidates = judges.candidates(AGREEING, seed=100)
    ours, exact, again = (
        np.array([evaluator(widths) for widths in candidates])
        for evaluator in (judges.ours, judges.exact, judges.exact)
    )
    distance, own = (float(np.abs(other - exact).mean()) for other in (ours, again))
    what = f"{AGREEING} candidates of {judges.name}"
    return [
        Row(f"{what}: mean distance of accuracy", "1 point", "points", [distance], [1.0], 0.3),
        Row(
            f"{what}: rank correlation",
            "1",
            "",
            [rank_correlation(ours, exact)],
            [1.0],
            0.98,
            at_least=True,
        ),
        Row(f"{what}, the reference asked again: mean distance", "1 point", "points", [own], [1.0]),
        Row(
            f"{what}, the reference asked again: rank correlation",
            "1",
            "",
            [rank_correlation(again, exact)],
            [1.0],
        ),
    ]


def racing_rows(judges: Judges) -> list[Row]:
    """What a race saves, and whether it ranks alike, among random candidates: those of the whole
    space differ much in accuracy, those that fill one budget little.
    """
    space, generator = judges.space, torch.Generator().manual_seed(300)
    half = space.macs(space.full) // 2
    filling = [space.sample_within(half, generator) for _ in range(AGREEING)]
    table = []
    for where, candidates in (
        ("of the whole space", judges.candidates(AGREEING, seed=300)),
        ("within 50 % of MACs", filling),
    ):
        race, best, judged = Race(judges.raced), None, 0
        taken: dict[str, list[float]] = {"raced": [], "whole": []}
        accuracies: dict[str, list[float]] = {"raced": [], "whole": []}
        judges.raced(candidates[0])
        for number, widths in enumerate(candidates):
            for way in ("raced", "whole") if number % 2 else ("whole", "raced"):
                clock = time.perf_counter()
                if way == "raced":
                    accuracy, images = race(widths, best)
                else:
                    whole = judges.raced(widths)
                taken[way].append(time.perf_counter() - clock)
            accuracies["whole"].append(whole)
            accuracies["raced"].append(accuracy)
            judged += images or SEARCH
            if best is None or (images is None and accuracy > best.accuracy):
                best = Candidate(widths, space.macs(widths), accuracy)
        tau = float(stats.kendalltau(accuracies["raced"], accuracies["whole"])[0])
        what = f"{AGREEING} candidates of {judges.name} {where}, raced"
        all_images = float(AGREEING * SEARCH)
        missed = max(accuracies["whole"]) - max(accuracies["raced"])
        table += [
            Row(what, "judged whole", "s", [sum(taken["raced"])], [sum(taken["whole"])], 0.5),
            Row(f"{what}: images", "judged whole", "images", [float(judged)], [all_images]),
            Row(f"{what}: Kendall's tau", "1", "", [tau], [1.0], 0.95, at_least=True),
            Row(f"{what}: the best is missed by", "1 point", "points", [missed], [1.0], 0.0),
        ]
    return table


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's, with the mean rank for equal values."""
    ranks = [
        np.array([(v > values).sum() + (v == values).sum() / 2 for v in values])
        for values in (one, other)
    ]
    return float(np.corrcoef(ranks)[0, 1])


def agent_rows(judges: Judges) -> list[Row]:
    """What environments and agents take: a step of ours, and whole episodes beside their judging.

    Learning begins after two episodes. The agent's states come from the trained PruningNet.
    """
    space, features = judges.space, judges.net.settled_features()
    budget = space.macs(space.full) // 2
    episodes = 8
    found = judges.candidates(episodes, seed=1)

    def play(repeat: int) -> None:
        state = AggregatedState(space, budget, features)
        environment = PruningEnv(space, budget, state, lambda widths: 50.0)
        settings = AgentSettings(warmup_episodes=2)
        search_by_agent(environment, episodes, settings, torch.Generator().manual_seed(repeat + 1))

    def play_ddpg(repeat: int) -> None:
        environment = WalledEnv(space, budget, AmcState(space), lambda widths: 50.0)
        settings = DDPGSettings(warmup_episodes=2)
        search_by_ddpg(environment, episodes, settings, torch.Generator().manual_seed(repeat + 1))

    def judge(repeat: int) -> None:
        for widths in found:
            judges.ours(widths)

    taken = alternate({"agent": play, "DDPG": play_ddpg, "judge": judge})
    step = [1000 * t / episodes / len(space.choices) for t in taken["agent"]]
    return [
        Row(
            f"environment and agent, a step, {judges.name}",
            "1 ms",
            "ms",
            step,
            [1.0] * len(step),
            1.0,
        ),
        *(
            Row(
                f"environment and {who}, an episode, {judges.name}",
                "judging its candidate",
                "s",
                [t / episodes for t in taken[who]],
                [t / episodes for t in taken["judge"]],
                0.1,
            )
            for who in ("agent", "DDPG")
        ),
    ]


def rows(name: str, data: Path, checkpoints: Path) -> list[Row]:
    """The rows of one network; its PruningNet is trained once and kept under `checkpoints`."""
    judges = Judges(name, data, checkpoints)
    judged = [time_row(judges), *batch_rows(judges), *agreement(judges), *racing_rows(judges)]
    return [*judged, *agent_rows(judges)]
