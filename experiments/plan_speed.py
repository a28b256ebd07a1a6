"""How fast this machine does what a study consists of: images a second of each kind of work.

Each is timed as the stages do it, with the library's own loop and the study's threads, on random
images in memory.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments.common.inputs import full_network, search_space
from experiments.common.stage import Context
from experiments.common.study import (
    Study,
    analysed_budgets,
    budget_in_macs,
    budget_name,
    pruningnet_recipe,
    recipe,
)
from graphpruning import methods
from graphpruning.judging import Evidence, Judge, found_network
from graphpruning.network.graph import Widths
from graphpruning.network.widths import SearchSpace
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.training.fabric import make_fabric
from graphpruning.training.images import ImageSet
from graphpruning.training.loop import ClippedSGD, Step, fit
from graphpruning.training.recipe import Recipe

FULL, ANY = "full", "any"
"""Beside budgets' names: the whole network, and random widths of the whole space."""

STEPS = 4
"""Timed steps of a training, after a first one that prepares kernels."""
DRAWN = 2
"""Random widths that stand for those of a budget."""
MOST_MACS = 6e10
"""MACs that are spent on one measurement on a processor, forward passes alone."""
MOST_IMAGES = 1024
"""Images of a step that are enough for a GPU."""

Kind = Literal["training", "pruningnet", "judging", "cutting"]
"""Training a network; a PruningNet; rating widths with generated weights, or with the base's."""


class Work(NamedTuple):
    """So many images of one kind of work: at which widths, or of which PruningNet."""

    kind: Kind
    at: str
    images: int


Speeds = Mapping[tuple[Kind, str], float]
"""Images a second of each kind of work at each width."""


def speeds(study: Study, model: str, images: ImageSet) -> Speeds:
    """Time everything that the study does with `model`; the images tell number and shape."""
    with _threads(study.threads):
        return dict(_speeds(study, model, images))


def _speeds(study: Study, model: str, images: ImageSet) -> Iterator[tuple[tuple[Kind, str], float]]:
    context = Context("plan", (), study, {"model": model})
    fabric, full = make_fabric(study.precision), full_network(context, images)
    clock = _clock(study, fabric.device)
    space = search_space(context, full.graph)
    drawn = dict(_drawn(study, model, space))
    most = _most(space, fabric.device)
    for name, each in drawn.items():
        if name == ANY:
            continue
        times = [
            _of_training(
                fabric,
                found_network(full.make(), full.graph, widths, 0),
                images,
                study,
                recipe(study, "base" if name == FULL else "final", model),
                clock,
                most,
            )
            for widths in each
        ]
        yield ("training", name), len(times) / sum(1 / time for time in times)
    for conditioning in study.pruningnet.conditionings:
        row = CONDITIONINGS[conditioning]
        settings = pruningnet_recipe(study, model, conditioning)
        net = PruningNet(full.graph, conditioning)
        step = RandomWidthStep(
            space, settings.label_smoothing, sandwich=row.sandwich, distil=row.distil
        )
        yield (
            ("pruningnet", conditioning),
            _of_training(
                fabric, net, images, study, settings, clock, most // row.passes, step, net
            ),
        )
    data = study.data
    share = min(1.0, most / (data.recalibration_images + data.search_images))
    calibration, search = (
        _random(images, max(2, int(share * count)))
        for count in (data.recalibration_images, data.search_images)
    )
    deciding = Evidence.of(calibration, search, data.preprocessing, fabric, 0)
    generated = Judge.by_pruningnet(
        PruningNet(full.graph, study.pruningnet.conditionings[0]).eval(), deciding
    )
    judged = len(calibration) + len(search)
    for name, each in drawn.items():
        yield ("judging", name), judged / _of_judging(generated, each, clock)
    if any(methods.method(name).source == "base" for name in study.methods):
        fresh = full.make().eval()
        cut = Judge.by_base(
            fresh, full.graph, calibration, data.preprocessing, study.reconstruction, 0, deciding
        )
        for name in map(budget_name, study.budgets):
            yield ("cutting", name), judged / _of_judging(cut, drawn[name], clock)


def _drawn(study: Study, model: str, space: SearchSpace) -> Iterator[tuple[str, Sequence[Widths]]]:
    """The widths that are timed: the full ones, random ones, and some of each budget."""
    generator = Generator().manual_seed(0)
    yield FULL, [space.full]
    yield ANY, [space.sample(generator) for _ in range(2 * DRAWN)]
    for budget in dict.fromkeys((*study.budgets, *analysed_budgets(study))):
        limit = budget_in_macs(study.networks[model], budget, space.macs(space.full))
        yield (
            budget_name(budget),
            [space.sample_within(limit, generator) for _ in range(DRAWN)],
        )


def _most(space: SearchSpace, device: torch.device) -> int:
    """Images of one measurement: all that one wants on a GPU, fewer on a processor."""
    if device.type != "cpu":
        return (STEPS + 1) * MOST_IMAGES
    return max(2 * (STEPS + 1), int(MOST_MACS / space.macs(space.full)))


def _of_training(
    fabric: Any,
    model: nn.Module,
    images: ImageSet,
    study: Study,
    settings: Recipe,
    clock: Callable[[], float],
    most: int,
    step: Step | None = None,
    net: PruningNet | None = None,
) -> float:
    """Images a second of training steps, from one step's beginning to the next one's."""
    size = max(2, min(settings.batch_size, most // (STEPS + 1)))
    begins: list[float] = []

    def timed(module: nn.Module, batch: Tensor, labels: Tensor, generator: Generator) -> Tensor:
        if fabric.device.type != "cpu":
            torch.cuda.synchronize(fabric.device)
        begins.append(clock())
        if step is not None:
            return step(module, batch, labels, generator)
        return F.cross_entropy(module(batch), labels)

    few = replace(
        settings, epochs=1, batch_size=size, lr=1e-6, warmup_epochs=0, images_per_epoch=None
    )
    chosen = _random(images, (STEPS + 2) * size)
    optimizer: Callable[..., Any] = ClippedSGD
    if net is not None:

        def optimizer(*groups: Any, **named: Any) -> Any:
            return CroppedSGD(net, *groups, **named)

    how = study.data.preprocessing
    with redirect_stdout(StringIO()):  # a line an epoch
        fit(fabric, model, chosen, how, few, 0, name="plan", step=timed, optimizer=optimizer)
    return size / median(end - begin for begin, end in pairwise(begins[1:]))


def _of_judging(judge: Judge, each: Sequence[Widths], clock: Callable[[], float]) -> float:
    """Seconds of one evaluation, mean over widths, each of which was judged once before."""
    seconds = 0.0
    for widths in each:
        judge.evaluator(widths)
        start = clock()
        judge.evaluator(widths)
        seconds += clock() - start
    return seconds / len(each)


def _random(images: ImageSet, count: int) -> ImageSet:
    """So many images of the same shape: all black ones would be faster."""
    generator = Generator().manual_seed(0)
    pixels = torch.randint(256, (count, *images.shape), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % len(images.classes)
    return ImageSet(pixels, labels, images.classes)


def _clock(study: Study, device: torch.device) -> Callable[[], float]:
    """Seconds of the processor, which other programs do not lengthen, where one thread works."""
    alone = device.type == "cpu" and study.threads == 1
    return time.process_time if alone else time.perf_counter


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
