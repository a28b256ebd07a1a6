"""What a study costs before it is run: networks, images, MACs and hours, stage by stage.

`python -m experiments.plan [STUDY]` reads studies/STUDY.yaml (params.yaml without a name). Nothing
is trained, and known data sets need not be there.
"""

import argparse
import gc
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from experiments.common.inputs import data_root, full_network, search_space
from experiments.common.stage import Context
from experiments.common.study import (
    Part,
    Study,
    analysed_budgets,
    budget_in_macs,
    budget_name,
    pruningnet_recipe,
    read,
    recipe,
)
from experiments.common.study_file import PARAMS
from experiments.plan_speed import ANY, FULL, Speeds, Work, speeds
from experiments.repro import lanes_for
from graphpruning import methods
from graphpruning.common.errors import UserError
from graphpruning.common.names import nearest
from graphpruning.common.text import aligned
from graphpruning.network.widths import SearchSpace
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.training.datasets import FOLDERS
from graphpruning.training.fabric import make_fabric
from graphpruning.training.images import ImageSet
from graphpruning.training.listing import list_images

KNOWN = {  # training images, test images, classes, (channels, height, width)
    "imagenet": (1_281_167, 50_000, 1000, (3, 224, 224)),
    "cifar10": (50_000, 10_000, 10, (3, 32, 32)),
    "fashion_mnist": (60_000, 10_000, 10, (1, 28, 28)),
    "generated": (600, 200, 10, (1, 16, 16)),
}

TRAINING = 3
"""Training on an image counts as three forward passes: its own and two for the gradients."""

SAMPLES = 1000
"""Random width vectors whose mean MACs stand for a PruningNet's sub-networks."""

GMACS_PER_SECOND = 30_000.0
IMAGES_PER_SECOND = {"files": 2_500.0, "memory": 10_000.0}
"""One A100. NVIDIA's DeepLearningExamples give 2,470 images/s for ResNet-50 in mixed precision in
PyTorch, which is 30,000 GMAC/s. Lighter networks are bound by something else: for image files
they are taken as no faster, and small images in memory as four times as fast (our guess)."""


STARTING = 4.0
"""Seconds that DVC and the start of a process take beside a stage's own (two cores of an EPYC)."""


@dataclass(frozen=True)
class Row:
    """One kind of stage for one model; `work` is what can be timed of it."""

    stage: str
    model: str
    networks: int
    trained_images: int
    evaluations: int
    evaluated_images: int
    macs: int
    work: tuple[Work, ...] = field(default=(), compare=False)

    def hours(self, rates: "Rates") -> float:
        """Hours of its stages one after another: as measured, or else bound by arithmetic or by
        images, of which a forward pass counts as a third.
        """
        if rates.speeds is not None:
            of_model = rates.speeds[self.model]
            return sum(work.images / of_model[work.kind, work.at] for work in self.work) / 3600
        arithmetic = self.macs / (1e9 * rates.gmacs[self.model])
        images = (self.trained_images + self.evaluated_images / TRAINING) / rates.images
        return max(arithmetic, images) / 3600


@dataclass(frozen=True)
class Rates:
    """GMACs a second for each model, images a second that no training exceeds, and whose.

    `speeds` are those of each kind of work, for each model, where they were measured.
    """

    gmacs: dict[str, float]
    images: float
    of: str
    speeds: Mapping[str, Speeds] | None = None


def rows(study: Study) -> list[Row]:
    """What each kind of stage costs for each model; `UserError` for what cannot be built."""
    train, test = _images(study, train=True), _images(study, train=False)
    by_model = [list(_rows(study, model, train, len(test))) for model in study.models]
    return [row for stage in zip(*by_model, strict=True) for row in stage]


def _rows(study: Study, model: str, images: ImageSet, test: int) -> Iterator[Row]:
    data, space = study.data, _space(study, model, images)
    train = len(images) - data.search_images
    candidate = data.recalibration_images + data.search_images
    full = space.macs(space.full)
    generator = torch.Generator().manual_seed(0)
    mean = sum(space.macs(space.sample(generator)) for _ in range(SAMPLES)) // SAMPLES

    def in_macs(budgets: Sequence[float | str]) -> dict[str, int]:
        network = study.networks[model]
        return {budget_name(budget): budget_in_macs(network, budget, full) for budget in budgets}

    budgets = in_macs(study.budgets)
    seeds = len(study.seeds)

    base = recipe(study, "base", model)
    bases = seeds if study.networks[model].weights is None else 0
    seen = bases * base.steps(train) * base.batch_size
    times = seeds * (1 + (math.ceil(base.epochs) if bases else 0))  # each epoch's, and the end's
    judged = times * data.search_images + seeds * test
    macs = full * (TRAINING * seen + judged)
    work = [Work("training", FULL, seen), Work("judging", FULL, judged)]
    yield Row("train_base", model, bases, seen, times + seeds, judged, macs, tuple(work))

    # The untrained network's statistics, and both networks.
    judged = 3 * seeds * study.correlation.images
    work = [Work("judging", FULL, judged)]
    yield Row("correlation", model, 0, 0, 0, judged, full * judged, tuple(work))

    nets, times, seen, macs, work = 0, 0, 0, 0, []
    for name in study.pruningnet.conditionings:
        net, settings = CONDITIONINGS[name], pruningnet_recipe(study, model, name)
        of_one = seeds * settings.steps(train) * settings.batch_size
        passes = mean + net.full_passes * full + net.sandwich * space.macs(space.smallest)
        nets += seeds
        times += seeds * (3 * math.ceil(settings.epochs) + 1)  # three widths after each epoch
        seen += of_one * net.passes
        macs += TRAINING * of_one * passes
        work.append(Work("pruningnet", name, of_one))
    macs += mean * times * candidate
    work.append(Work("judging", ANY, times * candidate))
    yield Row("train_pruningnet", model, nets, seen, times, times * candidate, macs, tuple(work))

    analysis, settings = study.analysis, recipe(study, "analysis", model)
    analysed = in_macs(analysed_budgets(study))
    per_budget = seeds * analysis.trained * analysis.trainings
    of_one = settings.steps(train) * settings.batch_size
    count, nets = len(analysed) * per_budget, seeds * len(analysis.conditionings)
    anywhere, within = nets * 2 * analysis.candidates, nets * analysis.within  # 2: shuffled too
    judged = len(analysed) * within + anywhere
    looked_at = count * data.search_images
    macs = mean * anywhere * candidate
    macs += sum(analysed.values()) * within * candidate
    macs += sum(analysed.values()) * per_budget * (TRAINING * of_one + data.search_images)
    seen = judged * candidate + looked_at
    work = [Work("judging", ANY, anywhere * candidate)]
    for name in analysed:
        work.append(Work("judging", name, within * candidate + per_budget * data.search_images))
        work.append(Work("training", name, per_budget * of_one))
    trained = count * of_one
    yield Row("analyse_pruningnet", model, count, trained, judged + count, seen, macs, tuple(work))

    rows = [methods.method(name) for name in study.methods]
    cut, generated = (
        seeds
        * sum(
            methods.evaluations_of(row, study.search.evaluations)
            for row in rows
            if (row.source == "base") == is_cut
        )
        for is_cut in (True, False)
    )
    times = cut + generated
    judged = len(budgets) * times * candidate
    macs = sum(budgets.values()) * times * candidate
    work = [Work("judging", name, generated * candidate) for name in budgets]
    work += [Work("cutting", name, cut * candidate) for name in budgets if cut]
    yield Row("search", model, 0, 0, len(budgets) * times, judged, macs, tuple(work))

    final, again = study.final, [methods.method(name) for name in study.again.methods]
    kinds = [_Kind("final", final.initial, rows, final.trainings)]
    if final.second:
        kinds.append(_Kind("second", final.second.initial, rows, final.trainings))
    further = [_Kind("final", final.initial, again, len(study.again.trainings))]
    yield _finals("finetune", study, model, train, test, full, budgets, kinds)
    yield _finals("finetune_again", study, model, train, test, full, budgets, further)


class _Kind(NamedTuple):
    """Final trainings of one kind: the networks of which methods, and how often each."""

    part: Part
    initial: methods.Initial
    rows: Sequence[methods.Method]
    trainings: int


def _finals(
    stage: str,
    study: Study,
    model: str,
    train: int,
    test: int,
    full: int,
    budgets: Mapping[str, int],
    kinds: Sequence[_Kind],
) -> Row:
    """Every final training of every found network in one stage."""
    count, trained, judged, macs, work = 0, 0, 0, 0, []
    for part, initial, rows, trainings in kinds:
        settings, times = recipe(study, part, model), len(study.seeds) * trainings
        of_one = settings.steps(train) * settings.batch_size
        # Before a training that does not start from scratch the network is judged once.
        begun = sum((row.initial or initial) != "scratch" for row in rows)
        networks = len(rows) * times
        looked_at = begun * times * study.data.search_images + networks * test
        taught = len(budgets) * times * sum(row.distilled for row in rows) * of_one
        count += len(budgets) * networks
        trained += len(budgets) * networks * of_one
        judged += len(budgets) * looked_at
        macs += sum(budgets.values()) * (networks * TRAINING * of_one + looked_at)
        macs += full * taught  # by the base, which runs forward alone
        work += [Work("training", name, networks * of_one) for name in budgets]
        work += [Work("judging", name, looked_at) for name in budgets]
        work.append(Work("judging", FULL, taught))
    return Row(stage, model, count, trained, count, judged, macs, tuple(work))


def _images(study: Study, train: bool) -> ImageSet:
    """The data set's size and shape: of a known one without its images, else listed."""
    data = study.data
    if data.name in KNOWN:
        training, test, classes, shape = KNOWN[data.name]
        count = training if train else test
    elif data.name in FOLDERS:
        listing = list_images(data.name, data_root(Context("plan", (), study, {})), train)
        count, classes, shape = len(listing.files), len(listing.classes), (3, 0, 0)
    else:
        near = nearest(data.name, (*KNOWN, *FOLDERS))
        raise UserError(f"unknown data set {data.name!r}; did you mean {near!r}?")
    if data.name in FOLDERS:
        if (size := data.preprocessing.size) is None:
            raise UserError(
                f"data: preprocessing: size is missing: {data.name} needs the side of its images"
            )
        shape = (3, size, size)
    return ImageSet(
        torch.zeros((), dtype=torch.uint8).expand(count, *shape),  # takes no memory
        torch.zeros((), dtype=torch.int64).expand(count),
        tuple(map(str, range(classes))),
    )


def _space(study: Study, model: str, images: ImageSet) -> SearchSpace:
    context = Context("plan", (), study, {"model": model})
    return search_space(context, full_network(context, images).graph)


def nominal(study: Study) -> Rates:
    """Those of one A100, see `GMACS_PER_SECOND`."""
    return Rates(
        dict.fromkeys(study.models, GMACS_PER_SECOND),
        IMAGES_PER_SECOND["files" if study.data.name in FOLDERS else "memory"],
        "nominal, one A100 in bf16",
    )


def measured(study: Study) -> Rates:
    """Those of this machine, for each kind of work at each width, with the study's threads."""
    images = _images(study, train=True)
    found = {model: speeds(study, model, images) for model in study.models}
    device = make_fabric(study.precision).device.type
    threads = f", threads a stage: {study.threads}" if study.threads else ""
    return Rates({}, math.inf, f"measured on this machine's {device}{threads}", found)


def summary(study: Study, found: Sequence[Row], rates: Rates) -> str:
    """The whole study in one line, as the head of its file says it."""
    trained = sum(row.trained_images for row in found)
    evaluated = sum(row.evaluated_images for row in found)
    macs, hours = sum(row.macs for row in found), sum(row.hours(rates) for row in found)
    return (
        f"{study.study}: {sum(row.networks for row in found)} networks, {_short(trained)} images "
        f"trained, {_short(evaluated)} evaluated, {_short(macs)}MAC, {_time(study, hours, rates)}"
    )


def _time(study: Study, hours: float, rates: Rates) -> str:
    """Hours; of this machine those of its processor, and on the clock with stages side by side."""
    if rates.speeds is None or study.threads is None:
        return f"{_hours(hours)} hours"
    lanes, stages = lanes_for(study), stages_of(study)
    side_by_side = "1 stage" if lanes == 1 else f"{lanes} stages"
    clock = (hours + stages * STARTING / 3600) / lanes
    return (
        f"{_hours(hours * study.threads)} processor-hours, which are {_hours(clock)} hours on the "
        f"clock ({side_by_side} at a time; {STARTING:g} s for the start of each of {stages})"
    )


def stages_of(study: Study) -> int:
    """How many stages the study has; five are of the study as a whole."""
    searches = 2 * len(study.methods) * len(study.budgets)  # and final trainings
    further = len(study.again.methods) * len(study.budgets) * len(study.again.trainings)
    of_replicate = 3 + len(study.pruningnet.conditionings) + searches + further
    return 5 + of_replicate * len(study.models) * len(study.seeds)


def table(found: Sequence[Row], rates: Rates) -> str:
    """Rows as text, in columns."""
    head = (
        "stage",
        "model",
        "networks",
        "images trained",
        "evaluations",
        "images evaluated",
        "MACs",
        "hours",
    )
    cells = [
        (
            row.stage,
            row.model,
            f"{row.networks:,}",
            _short(row.trained_images),
            f"{row.evaluations:,}",
            _short(row.evaluated_images),
            _short(row.macs),
            _hours(row.hours(rates)),
        )
        for row in found
        if row.networks or row.evaluated_images
    ]
    return "\n".join(aligned([head, *cells], right=range(2, len(head))))


def assumptions(rates: Rates) -> str:
    """What the numbers rest on, in one line."""
    if rates.speeds is not None:
        return _measured_speeds(rates)
    gmacs = ", ".join(f"{rate:,.0f}" for rate in dict.fromkeys(rates.gmacs.values()))
    limit = f", at most {rates.images:,.0f} images/s trained" if rates.images < math.inf else ""
    return (
        f"Estimates: training is {TRAINING} forward passes, a PruningNet's widths are the mean of "
        f"{SAMPLES:,} random ones, found networks fill their budgets; generating weights, "
        f"reconstruction and decoding are not counted; {gmacs} GMAC/s{limit} ({rates.of})."
    )


def _measured_speeds(rates: Rates) -> str:
    """The same where everything was timed."""
    assert rates.speeds is not None
    of_models = [
        f"{model}: " * (len(rates.speeds) > 1)
        + ", ".join(f"{kind} {at} {speed:,.0f}" for (kind, at), speed in of_model.items())
        for model, of_model in rates.speeds.items()
    ]
    return (
        f"Estimates from images/s {rates.of}: {'; '.join(of_models)}. Found networks are as random "
        "ones within their budgets; an agent's thinking and decoding are not counted, and "
        "candidates that come twice are counted twice."
    )


def _short(number: float) -> str:
    """Three digits and a prefix: 1.28 M, 31.4 E."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {prefix}".replace("e+03", "000")
    return f"{number:.0f}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _study(name: str | None) -> Study:
    path = PARAMS if name is None else Path("studies") / f"{name}.yaml"
    if name is not None and not path.exists():
        known = [p.stem for p in Path("studies").glob("*.yaml")]
        raise UserError(f"there is no {path}; did you mean {nearest(name, known)!r}?")
    return read(path)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, its assumptions and a summary."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.plan", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("study", nargs="?", help="a name in studies/ (default: params.yaml)")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--gmacs-per-second", type=_positive, help="what your machine reaches")
    rate.add_argument("--measure", action="store_true", help="time a few steps on this machine")
    options = parser.parse_args(arguments)
    gc.enable()  # see the package
    try:
        study = _study(options.study)
        found = rows(study)
        if options.measure:
            rates = measured(study)
        elif options.gmacs_per_second:
            gmacs = dict.fromkeys(study.models, options.gmacs_per_second)
            rates = Rates(gmacs, math.inf, "given")
        else:
            rates = nominal(study)
    except UserError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    print(table(found, rates))
    print(assumptions(rates))
    print(summary(study, found, rates))
    return 0


if __name__ == "__main__":
    sys.exit(main())
