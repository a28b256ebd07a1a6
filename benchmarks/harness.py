"""What all benchmarks share: rows of the table, alternating repeats, and this machine's floors."""

import csv
import math
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import torch
from lightning_fabric import Fabric
from scipy import stats

from graphpruning.common.files import write_text
from graphpruning.common.machine import processor
from graphpruning.common.text import aligned
from graphpruning.training.fabric import make_fabric, precision

PRECISION = "auto"
"""In which everything of ours computes, see `fabric`."""
RESULTS = Path("benchmarks/results")
LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Variables that hold the libraries to a part of what the processor can do."""
REPEATS = 5
VERSIONS = ("torch", "torchvision", "torch-geometric", "numpy", "pillow", "dvc")
COLUMNS = (
    "what",
    "against",
    "unit",
    "ours",
    "reference",
    "ratio",
    "lowest",
    "highest",
    "repeats",
    "target",
    "met",
    "floor",
    "times_floor",
    "machine",
    "versions",
)


@dataclass(frozen=True)
class Row:
    """One comparison, measured side by side.

    `ours` and `reference` hold a figure a repeat, in `unit`; what counts is the median of their
    ratios, ours over the reference, and `target` is the largest it may be (with `at_least`, the
    smallest; None: there is no target). `floor` is the least that `ours` could be on this machine
    (arithmetic over the measured matrix rate plus bytes over the measured memory rate), where
    that is known.
    """

    what: str
    against: str
    unit: str
    ours: Sequence[float]
    reference: Sequence[float]
    target: float | None = None
    at_least: bool = False
    floor: float | None = None

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.reference, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def cells(self) -> list[str]:
        """The row's values in the order of `COLUMNS`."""
        ours = statistics.median(self.ours)
        sign = "at least" if self.at_least else "at most"
        met = {True: "yes", False: "no", None: ""}[self.is_met]
        figures = (ours, statistics.median(self.reference), self.ratio)
        return [
            self.what,
            self.against,
            self.unit,
            *(f"{figure:.4g}" for figure in (*figures, min(self.ratios), max(self.ratios))),
            str(len(self.ratios)),
            "" if self.target is None else f"{sign} {self.target:g}",
            met,
            "" if self.floor is None else f"{self.floor:.4g}",
            "" if self.floor is None else f"{ours / self.floor:.3g}",
            machine(),
            ", ".join(f"{name} {version(name)}" for name in VERSIONS),
        ]


def write(name: str, rows: Sequence[Row]) -> None:
    """Write `benchmarks/results/NAME.csv`."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(row.cells() for row in rows)
    write_text(RESULTS / f"{name}.csv", text.getvalue())


def markdown(folder: Path = RESULTS) -> str:
    """The written rows as README's table."""
    lines = [
        "| what | against | ours | reference | ratio (range) | target | floor x |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*.csv")):
        with open(path, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if rows and tuple(rows[0]) != COLUMNS:
            continue  # of another form, such as scaling.csv
        for row in rows:
            ratio = f"{_short(row['ratio'])} ({_short(row['lowest'])} to {_short(row['highest'])})"
            mark = {"yes": "", "no": ", **not met**"}.get(row["met"], "")
            figures = [f"{_short(row[key])} {row['unit']}".strip() for key in ("ours", "reference")]
            cells = [
                row["what"],
                row["against"],
                *figures,
                ratio,
                row["target"] + mark,
                row["times_floor"],
            ]
            lines.append("| " + " | ".join(cell or "—" for cell in cells) + " |")
    return "\n".join(lines)


def _short(figure: str) -> str:
    return f"{float(figure):.3g}"


def show(rows: Sequence[Row]) -> str:
    """The rows as a table for reading."""
    shown = COLUMNS[:-2]
    cells = [list(shown), *(row.cells()[: len(shown)] for row in rows)]
    return "\n".join(aligned(cells))


def fabric() -> Fabric:
    """What ours computes on, and in which precision."""
    return make_fabric(PRECISION)


def machine() -> str:
    """The machine, what it was held to, and the precision."""
    limits = {name: os.environ[name] for name in LIMITS if name in os.environ}
    held = "".join(f", {name}={value}" for name, value in limits.items())
    where = f"{processor()}, {os.cpu_count()} cores{held}"
    return f"{where}, {precision(fabric())}, Python {platform.python_version()}"


def half_interval(values: Sequence[float]) -> float:
    """Half of the 95 % t-interval of the mean of `values`; NaN for fewer than two."""
    if len(values) < 2:
        return math.nan
    error = statistics.stdev(values) / len(values) ** 0.5
    return float(stats.t.ppf(0.975, len(values) - 1) * error)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor seconds, user and system, of the processes that one call starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alternate(
    works: Mapping[str, Callable[[int], object]],
    repeats: int = REPEATS,
    measure: Callable[[Callable[[], object]], float] = seconds,
) -> dict[str, list[float]]:
    """Seconds of each of `works`, called in turn with the number of the repeat, from 0.

    A busy moment of the machine so hits all of them alike. Each is called once before, with -1,
    which is not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(-1, repeats):
        for name, work in works.items():
            taken = measure(lambda work=work, repeat=repeat: work(repeat))  # type: ignore[misc]
            if repeat >= 0:
                found[name].append(taken)
    return found


@cache
def matrix_rate(dtype: torch.dtype) -> float:
    """Multiply-accumulates a second of a large matrix product: the best of several."""
    a, b = (torch.ones(2048, 2048, dtype=dtype) for _ in range(2))
    return 2048**3 / min(seconds(lambda: a @ b) for _ in range(6))


@cache
def memory_rate() -> float:
    """Bytes a second that are read and written by a pass over 512 MiB: the best of several."""
    values = torch.ones(2**27)
    return 2 * values.nbytes / min(seconds(lambda: values.mul_(1.0)) for _ in range(6))
