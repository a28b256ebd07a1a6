"""How the cost grows: a PruningNet's step with layers and batch, a search with its candidates.

Writes `benchmarks/results/scaling.csv` and `scaling.png`.
"""

import csv
import statistics
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch

from benchmarks import harness
from benchmarks.candidate import Judges
from benchmarks.harness import REPEATS, alternate, machine
from benchmarks.pruningnet_step import STEPPERS, STEPS, Case
from graphpruning.common.files import atomic, write_text
from graphpruning.methods import SearchSettings, Task, method, run
from graphpruning.search.history import Journal

DEPTHS = ("resnet20", "resnet56", "resnet110")
BATCHES = (32, 64, 128, 256)
CANDIDATES = (5, 10, 20, 40)
COLUMNS = ("what", "who", "at", "seconds", "lowest", "highest", "machine")

Point = tuple[str, str, int, list[float]]
"""What was measured, who did it, at which number, and the seconds of each repeat."""


def steps(cases: dict[int, Case], what: str) -> list[Point]:
    """Seconds of a step, ours and the original's, at each number."""
    works: dict[str, Callable[[int], object]] = {
        f"{who} {at}": STEPPERS[who](case) for at, case in cases.items() for who in STEPPERS
    }
    found = alternate(works, REPEATS)
    return [
        (what, who, at, [value / STEPS for value in found[f"{who} {at}"]])
        for at in cases
        for who in STEPPERS
    ]


def searches(judges: Judges, folder: Path) -> list[Point]:
    """Seconds of a GraphPruning search with as many candidates."""
    budget = judges.space.macs(judges.space.full) // 2

    def search(count: int, repeat: int) -> None:
        path = folder / f"journal-{count}-{repeat}.jsonl"
        path.unlink(missing_ok=True)
        journal = Journal(judges.ours, judges.space, budget, count, path, {})
        generator = torch.Generator().manual_seed(repeat + 1)
        settings = SearchSettings.scaled(count)
        row, features = method("graphpruning"), judges.net.settled_features()
        run(Task(row, judges.space, budget, journal, generator, settings, features))
        path.unlink(missing_ok=True)

    found = alternate({str(count): partial(search, count) for count in CANDIDATES})
    return [("candidates", "ours", count, found[str(count)]) for count in CANDIDATES]


def draw(points: list[Point], path: Path) -> None:
    """Three panels, one a question; bars span the repeats."""
    panels = {
        "layers": ("layers of a CIFAR ResNet (batch 128)", "step (s)"),
        "batch": ("images of a batch (ResNet-20)", "step (s)"),
        "candidates": ("candidates of a search (ResNet-20)", "search (s)"),
    }
    looks = {"ours": ("o-", "#0072B2", "ours"), "reference": ("s--", "#D55E00", "original design")}
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
    for axis, (what, (x_label, y_label)) in zip(axes, panels.items(), strict=True):
        for who, (marker, colour, label) in looks.items():
            mine = sorted((at, values) for w, o, at, values in points if (w, o) == (what, who))
            if not mine:
                continue
            at = [number for number, _ in mine]
            middle = [statistics.median(values) for _, values in mine]
            spread = [
                [m - min(values) for m, (_, values) in zip(middle, mine, strict=True)],
                [max(values) - m for m, (_, values) in zip(middle, mine, strict=True)],
            ]
            axis.errorbar(at, middle, spread, fmt=marker, color=colour, label=label, capsize=2)
        axis.set(xlabel=x_label, ylabel=y_label, xlim=(0, None), ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    with atomic(path) as beside:
        figure.savefig(beside, dpi=200, format="png")
    plt.close(figure)


def measure(data: Path, checkpoints: Path) -> None:
    """Measure everything and write both files."""
    small = 32
    points = steps(
        {int(name.removeprefix("resnet")): Case(name, 128, small) for name in DEPTHS}, "layers"
    )
    points += steps({batch: Case("resnet20", batch, small) for batch in BATCHES}, "batch")
    points += searches(Judges("resnet20", data, checkpoints), checkpoints)
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for what, who, at, values in points:
        figures = (statistics.median(values), min(values), max(values))
        table.writerow([what, who, at, *(f"{figure:.4g}" for figure in figures), machine()])
    write_text(harness.RESULTS / "scaling.csv", text.getvalue())
    draw(points, harness.RESULTS / "scaling.png")
