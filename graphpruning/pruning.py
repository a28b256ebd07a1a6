"""Prune a network for a folder of images: PruningNet, search, final training, and a report.

Every part continues where a killed run stopped, to the same result. The images of DATA/train are
trained on, but for a search split by which candidates are judged; DATA/val (DATA/test, if there is
no val) is read for the accuracies of the report alone.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import nn

from graphpruning import arguments, methods
from graphpruning.architecture import save_architecture
from graphpruning.builder import Build, Builder, builder
from graphpruning.classifier import any_layout, described, require_batches, require_scores
from graphpruning.common.code import code_digest
from graphpruning.common.defaults import usual_defaults
from graphpruning.common.distributed import barrier, is_writer
from graphpruning.common.errors import UserError
from graphpruning.common.files import alone, write_json, write_text
from graphpruning.export import export_onnx
from graphpruning.folder_task import (
    Parts,
    check_batches,
    list_parts,
    open_parts,
    passed_over,
    preprocessing_for,
    recipes_for,
)
from graphpruning.goals import (
    WORK,
    Goal,
    Timing,
    check,
    corrected,
    goals_of,
    read_budgets,
    require_macs,
)
from graphpruning.judging import BATCH, Evidence, Judge, Reconstruction, found_network, search
from graphpruning.latency import device_of, latency
from graphpruning.methods import Initial
from graphpruning.network.copies import copied
from graphpruning.network.graph import ChannelGraph, Widths
from graphpruning.network.refusals import unwrapped
from graphpruning.network.trace import trace
from graphpruning.network.trainable import changes, trainable
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import LARGEST_SEED, seeded
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.report import fixed, markdown, report, time_budget
from graphpruning.search.history import Candidate
from graphpruning.search.uniform import filled_uniform
from graphpruning.several import summarise
from graphpruning.training.checkpoint import Checkpoint, digest
from graphpruning.training.distillation import Distillation, DistilledLoss
from graphpruning.training.fabric import make_fabric
from graphpruning.training.fabric import precision as precision_of
from graphpruning.training.images import prepared
from graphpruning.training.loop import Accuracy, evaluate, fit
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.pretrained import load_pretrained
from graphpruning.training.recipe import Recipe
from graphpruning.training.sound import first_fault

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@torch.inference_mode(False)  # whatever the notebook that calls it is in
@torch.enable_grad()
@usual_defaults()
def prune(
    model: str | Build | nn.Module,
    data: str | Path,
    *,
    budget: float | str | Sequence[float | str],
    out: str | Path,
    method: str = "graphpruning",
    weights: str | Path | None = None,
    input_size: tuple[int, ...] = (3, 224, 224),
    epochs: float | None = None,
    pruningnet_epochs: float | None = None,
    evaluations: int = 100,
    batch_size: int | None = None,
    lr: float | None = None,
    initial: Initial | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    flip: bool = True,
    divisor: int = 8,
    smallest: float = 0.1,
    keep: str | Sequence[str] = (),
    limit: Mapping[str, tuple[float, float]] | None = None,
    device: str | None = None,
    batch: int = 1,
    latency_table: str | Path | None = None,
    seed: int = 0,
    workers: int = 0,
    precision: str = "auto",
) -> dict[str, Any]:
    """Find, train and write a network within `budget`; return the report as in `report.json`
    (under torchrun: in the first process, and nothing in the others).

    `model` is a name (torchvision's, ours, `timm.NAME`, `package.module:function`), a function that
    builds the network, or a network with the weights it has. `weights` is a file of trained
    weights, or "torchvision"; without them the base's accuracy is not known, and training starts
    from scratch. `budget` is a share of the full network's MACs ("50%"), MACs such as "300M", or a
    time such as "3ms": that of a batch of `batch` images on `device` ("cpu", "cuda"; where networks
    are trained, if not given), told by measured times of layers in the file `latency_table`
    (`out/latency_table.json`). Of several budgets each gets a folder of its own in `out`, which has
    a table and a picture of all; one PruningNet judges for all.

    `flip=False` trains without mirrored images, for classes that are told apart by left and right.

    `keep` are patterns of layers that stay as wide as they are ("layer4.*"), `limit` has the least
    and largest share of the channels of layers by pattern.

    `out` gets `architecture.json`, `weights.safetensors`, `network.onnx` (with the extra `onnx`),
    `report.md` and `report.json`. While it runs, `out/.graphpruning` holds what a new start with
    the same arguments, images and code goes on from. Raises `UserError` for whatever does not fit.
    """
    out, data = Path(out).expanduser(), Path(data).expanduser()
    size = arguments.image(input_size)
    if isinstance(model, nn.Module):
        model = unwrapped(model)
    timed_on = None if device is None else device_of(device)
    batch = arguments.whole("batch", batch, 1, "at least one image is timed")
    evaluations = arguments.whole("evaluations", evaluations, 2, "a search needs at least 2")
    seed = arguments.whole("seed", seed, 0, f"it is from 0 to {LARGEST_SEED}")
    if seed > LARGEST_SEED:
        raise UserError(f"seed is {seed}; it is from 0 to {LARGEST_SEED}")
    workers = arguments.whole("workers", workers, 0, "0 decodes images without other processes")
    divisor = arguments.whole("divisor", divisor, 1, "widths are its multiples, from 1 on")
    smallest = arguments.share("smallest", smallest)
    kept, limits = arguments.patterns("keep", keep), arguments.limits(limit or {})
    arguments.require_file(weights)
    _check_initial(initial)
    row, budgets = methods.method(method), read_budgets(budget)
    _refuse_used(out, [each.name for each in budgets] if len(budgets) > 1 else [])
    channels = (arguments.of_channels("mean", mean), arguments.of_channels("std", std))
    preprocessing = preprocessing_for(size, *channels, flip)
    listings = list_parts(data)
    classes = len(listings[0].classes)

    make = builder(model, classes, size[0])
    with seeded(seed):
        given = make.as_given()
    base = trainable(given)
    if is_writer():
        print(*(f"{make.name}: {line}\n" for line in changes(given)), sep="", end="", flush=True)
    source = {"source": "the network given"} if isinstance(model, nn.Module) else None
    if weights is not None:
        source = load_pretrained(base, make.name, str(weights))
    elif source and (fault := first_fault(base.state_dict(), base.state_dict())):
        raise UserError(f"{make.name}: {fault}: give a network with sound weights")
    require_scores(make.name, base, size, classes)
    if initial is None:
        usual: Initial = "inherited" if source else "scratch"
        initial = row.initial or usual
    if source is None and (initial == "inherited" or row.source == "base"):
        raise UserError(f"{method}, initial {initial}: the trained network is cut; give --weights")
    conditioning = CONDITIONINGS.get(row.source)
    if source is None and (row.distilled or (conditioning and conditioning.inherit)):
        raise UserError(f"{method} learns from the trained network; give --weights")
    graph = trace(base, size)
    if isinstance(model, nn.Module) and initial == "scratch" and graph.scales:
        raise UserError(
            f"initial scratch: the fresh value of the parameter {next(iter(graph.scales))!r} is "
            "not known: give a function that builds the network"
        )
    space = SearchSpace(graph, divisor=divisor, smallest=smallest, keep=kept, ratios=limits)
    require_macs(budgets, space)
    methods.require(row, space, base)

    lock = alone(out / WORK / "lock", f"pruning into {out}") if is_writer() else nullcontext()
    with lock, any_layout(base, size):
        _refuse_finished(out)
        for line in (*passed_over(listings), *fixed(graph)) if is_writer() else ():
            print(line, flush=True)
        images = open_parts(listings, preprocessing, workers, seed, out / WORK / "decoded")
        recipes = recipes_for(len(images.train), batch_size, lr, pruningnet_epochs, epochs, initial)
        check_batches(images, recipes, data)
        require_batches(make.name, base, size, recipes["final"].batch_size)
        fabric = make_fabric(precision, cache=out / WORK / "precision.json")
        judged = methods.evaluations_of(row, evaluations)
        table = Path(latency_table or out / "latency_table.json").expanduser()
        timing = Timing(timed_on or fabric.device, batch, table)
        goals = goals_of(budgets, space, base, out, timing)
        settings: dict[str, Any] = {
            "network": make.description,
            "weights": source,
            "method": method,
            "input_size": list(size),
            "evaluations": judged,
            "initial": initial,
            "divisor": divisor,
            "smallest": smallest,
            "keep": list(kept),
            "limit": {pattern: list(shares) for pattern, shares in limits.items()},
            "seed": seed,
            "precision": precision_of(fabric),
            "preprocessing": preprocessing.to_dict(),
            "recipes": {part: asdict(recipe) for part, recipe in recipes.items()},
            "distillation": asdict(Distillation()) if row.distilled else None,
            "data": str(data),
            "images": images.counts(),
        }
        held = {
            **{name: value for name, value in settings.items() if name != "data"},
            "weights": digest(base) if source else None,
            "graph": described(base, graph),
            "files": images.digest,
            "torch": torch.__version__,
            "code": code_digest(),
        }
        job = _Job(
            row,
            make,
            base,
            graph,
            space,
            images,
            preprocessing,
            recipes,
            fabric,
            out / WORK,
            judged,
            seed,
            held,
        )

        test = prepared(images.test, preprocessing, BATCH)
        before = None if source is None else evaluate(fabric, base, test)
        if before is None:
            fabric.print("base: no weights were given, so its accuracy is not known")
        else:
            fabric.print(f"base: top-1 {before.top1:.2f} %, {space.macs(space.full):,} MACs")
        reports = [job.reach(goal, settings, before, timing) for goal in goals]
        if is_writer():
            result = reports[0] if len(goals) == 1 else summarise(out, goals, reports)
            shutil.rmtree(out / WORK)
            print(f"{out}: report.md says what was found", flush=True)
        barrier()
        return result if is_writer() else {}


def _check_initial(initial: str | None) -> None:
    known = get_args(Initial)
    if initial is not None and initial not in known:
        raise UserError(f"initial is {initial!r}; it is {', '.join(known[:-1])} or {known[-1]}")


def _refuse_used(out: Path, within: Sequence[str]) -> None:
    """Nothing that is there is written over, but by the run that goes on: it has its checkpoints.

    `within` are the folders of the budgets, if they are several.
    """
    _refuse_finished(out)
    if (out / WORK).exists():
        return
    for folder in (out, *(out / name for name in within)):
        for name in WRITTEN:
            if (folder / name).exists():
                raise UserError(f"{folder / name} would be written over: choose another folder")


def _refuse_finished(out: Path) -> None:
    """A finished run stays; its checkpoints go, if it was killed before it could remove them."""
    if (out / "report.json").exists():
        if is_writer():
            shutil.rmtree(out / WORK, ignore_errors=True)
        raise UserError(f"{out} has a report.json, as a finished run has: choose another folder")


WRITTEN = ("architecture.json", "weights.safetensors", "network.onnx", "report.md", "report.json")


_LATER = ("evaluations", "initial")
"""Settings that nothing before the search depends on."""
SEARCHED_AGAIN = 2
"""Searches at most that follow one whose find misses its budget of time."""


@dataclass(frozen=True)
class _Job:
    """Everything that the steps share; `held` is what a checkpoint must agree with."""

    row: methods.Method
    make: Builder
    base: nn.Module
    graph: ChannelGraph
    space: SearchSpace
    images: Parts
    preprocessing: Preprocessing
    recipes: dict[str, Recipe]
    fabric: "Fabric"
    folder: Path
    evaluations: int
    seed: int
    held: dict[str, Any]

    @cached_property
    def evidence(self) -> Evidence:
        """The images that judge candidates."""
        return Evidence.of(
            self.images.calibration,
            self.images.search,
            self.preprocessing,
            self.fabric,
            self.seed,
        )

    @cached_property
    def of_base(self) -> Judge:
        """Weights cut out of the base and fitted again."""
        return Judge.by_base(
            self.base,
            self.graph,
            self.images.calibration,
            self.preprocessing,
            Reconstruction(),
            self.seed,
            self.evidence,
        )

    @cached_property
    def of_method(self) -> Judge:
        """The method's source of weights: its PruningNet, trained here, or the base."""
        if self.row.source == "base":
            return self.of_base
        with seeded(self.seed):
            net = PruningNet(self.graph, self.row.source)
        conditioning, recipe = CONDITIONINGS[self.row.source], self.recipes["pruningnet"]
        self.fabric.print(f"PruningNet: {memory(net)}")
        if conditioning.inherit:
            net.start_from(self.base)
        fit(
            self.fabric,
            net,
            self.images.train,
            self.preprocessing,
            recipe,
            self.seed,
            name="PruningNet",
            step=RandomWidthStep(
                self.space,
                recipe.label_smoothing,
                sandwich=conditioning.sandwich,
                distil=conditioning.distil,
            ),
            optimizer=partial(CroppedSGD, net),
            checkpoint=Checkpoint(self.folder / "pruningnet.pt", self.held_for_pruningnet()),
        )
        return Judge.by_pruningnet(net.eval(), self.evidence)

    def reach(
        self,
        goal: Goal,
        settings: Mapping[str, Any],
        before: Accuracy | None,
        timing: Timing,
    ) -> dict[str, Any]:
        """Find, train and write the network of a goal; return its report."""
        settings, held = {**settings, **goal.described()}, self.held_for(goal)
        if (known := goal.finished(held)) is not None:
            return known
        searched, found, used = self.find(goal, timing)
        said = goal.space.resource.said(used)
        self.fabric.print(f"search: {said}, {found.accuracy:.2f} % on the search split")
        final = self.train(searched, found.widths, settings["initial"])
        size = self.graph.input_size
        after = evaluate(self.fabric, final, prepared(self.images.test, self.preprocessing, BATCH))
        self.fabric.print(f"final: top-1 {after.top1:.2f} %, {found.macs:,} MACs")
        if not is_writer():
            return {}
        pair = [copied(self.base), copied(final)]
        times = latency(pair, size, timing.device, timing.batch)
        # As other programs write it: exported, `view` fails on maps that lie otherwise.
        final = final.cpu().to(memory_format=torch.contiguous_format).eval()
        save_architecture(
            goal.out / "architecture.json",
            goal.out / "weights.safetensors",
            final,
            network=self.make,
            input_size=size,
            widths=found.widths,
            preprocessing=self.preprocessing.to_dict(),
            classes=self.images.test.classes,
        )
        result = report(
            self.graph,
            settings,
            found,
            (before, after),
            times,
            timing.device,
            batch=timing.batch,
            onnx=_onnx(final, size, goal.out / "network.onnx", self.images.test.classes),
            classes=self.images.test.classes,
        )
        if goal.timed:
            full = goal.space.used(goal.space.full)
            result["time_budget"] = time_budget(goal.budget.amount, (full, used), times)
        goal.finish(held)
        write_text(goal.out / "report.md", markdown(result))
        write_json(goal.out / "report.json", result)
        return result

    def held_for_pruningnet(self) -> dict[str, Any]:
        """What its checkpoint must agree with: not with what the search and the end alone do."""
        held = {name: value for name, value in self.held.items() if name not in _LATER}
        return {**held, "recipes": {"pruningnet": self.held["recipes"]["pruningnet"]}}

    def held_for(self, goal: Goal) -> dict[str, Any]:
        """What the checkpoints of a goal must agree with."""
        held = {**self.held, **goal.described()}
        if goal.timed:
            ends = goal.space.full, goal.space.smallest
            held["times"] = [goal.allowed, *map(goal.space.used, ends)]
        return held

    def find(self, goal: Goal, timing: Timing) -> tuple[Goal, Candidate, int]:
        """Return the goal as it was searched for, what was found, and how much that uses.

        What a table says of a network's time can be some percent wrong, and is so alike for
        networks of about the same widths. So a uniform one is measured before the search, and what
        is found after it; if that misses the budget, it is searched again.
        """
        if not goal.timed:
            found = self.search(goal)
            return goal, found, goal.space.used(found.widths)
        uniform = filled_uniform(goal.space, goal.allowed)
        goal = corrected(goal, uniform, self.base, timing, 0)
        found = self.search(goal)
        for tries in range(1, SEARCHED_AGAIN + 1):
            closer = corrected(goal, found.widths, self.base, timing, tries)
            if closer == goal:
                break
            self.fabric.print(f"search: what was found misses {goal.budget.name}; searching again")
            goal, found = closer, self.search(closer)
        ratio = check(goal, found.widths, self.base, timing)
        return goal, found, round(ratio * goal.space.used(found.widths))

    def search(self, goal: Goal) -> Candidate:
        """Return what the row's searcher finds within the budget."""
        settings = methods.SearchSettings.scaled(self.evaluations)
        journal = search(
            self.row,
            self.of_method,
            goal.space,
            goal.allowed,
            self.evaluations,
            settings,
            self.seed,
            goal.folder / "journal.jsonl",
            self.held_for(goal),
        )
        return journal.history.found

    def train(self, goal: Goal, widths: Widths, initial: Initial) -> nn.Module:
        """Return the network at `widths`, trained from what `initial` says."""
        judge = None
        if initial != "scratch":
            judge = self.of_base if initial == "inherited" else self.of_method
        with seeded(self.seed):
            full = self.make()
        model = found_network(full, self.graph, widths, self.seed, judge)
        recipe, loss = self.recipes["final"], None
        held = {**self.held_for(goal), "widths": dict(widths)}
        if self.row.distilled:
            base = self.base.to(self.fabric.device).eval()
            loss = DistilledLoss(base, Distillation(), recipe.label_smoothing, self.fabric.autocast)
        fit(
            self.fabric,
            model,
            self.images.train,
            self.preprocessing,
            recipe,
            self.seed,
            name="final training",
            loss=loss,
            checkpoint=Checkpoint(goal.folder / "final.pt", held),
        )
        return model


def memory(net: PruningNet) -> str:
    """What training it takes, beside images: its numbers, and the momentum of each."""
    numbers = sum(parameter.numel() for parameter in net.parameters())
    gigabytes = numbers * 2 * 4 / 1e9
    return f"{numbers:,} numbers, {gigabytes:.1f} GB of memory and of disk with their momentum"


def _onnx(
    model: nn.Module, size: tuple[int, ...], path: Path, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Write ONNX if it can be written; if not, say so and why."""
    try:
        return {"file": path.name, "difference": export_onnx(model, size, path, classes)}
    except UserError as refusal:
        print(f"{path.name} is not written: {refusal}", flush=True)
        return {"file": None, "reason": str(refusal)}
