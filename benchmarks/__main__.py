"""The table of what is fast, against what: `make bench`.

`python -m benchmarks` measures every part, or those that are named; each writes its CSV under
`benchmarks/results/`. Nothing else should run meanwhile. The part `loading` needs --images, a
folder of class folders with photographs; the parts `searchers` and `predictors` --tables,
Channel-Bench-Macro's. The part `coverage` takes half an hour and measures no speed, so it runs
only where it is named. `pruningnet_step` runs against MetaPruning's own code with --official, a
checkout of https://github.com/liuzechun/MetaPruning.

With --precision 32-true and --results FOLDER a processor with bf16 shows what one without it would;
ONEDNN_MAX_CPU_ISA=AVX2 and ATEN_CPU_CAPABILITY=avx2 hold it to AVX2.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import (
    candidate,
    costs,
    coverage,
    harness,
    loading,
    predictors,
    pruningnet_step,
    scaling,
    searchers,
    start,
    starts,
    tracing,
)
from benchmarks.harness import Row, machine, matrix_rate, memory_rate, show, write
from graphpruning.common.errors import UserError
from graphpruning.common.machine import refuse

DATA, CHECKPOINTS = Path("data"), Path("checkpoints/benchmarks")
PARTS: dict[str, Callable[[], list[Row]]] = {
    "candidate_resnet20": lambda: candidate.rows("resnet20", DATA, CHECKPOINTS),
    "candidate_mobilenet_v2": lambda: candidate.rows("mobilenet_v2", DATA, CHECKPOINTS),
    "costs": costs.rows,
    "start": start.rows,
    "starts": starts.rows,
    "tracing": tracing.rows,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, write and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = ["pruningnet_step", *PARTS, "loading", "scaling", "searchers", "predictors", "coverage"]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(known)}")
    parser.add_argument("--images", type=Path, help="a folder of class folders, for `loading`")
    parser.add_argument("--official", type=Path, help="a checkout of MetaPruning")
    parser.add_argument("--precision", default="auto", help="auto, 32-true or bf16-mixed")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="for tables of speed")
    parser.add_argument("--tables", type=Path, help="a folder with Channel-Bench-Macro's tables")
    parser.add_argument("--download", action="store_true", help="get the tables that are missing")
    parser.add_argument("--seeds", type=int, default=100, help="of `searchers`; default 100")
    parser.add_argument("--draws", type=int, default=20, help="of `predictors`; default 20")
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts if part not in known]:
        parser.error(f"unknown part {unknown[0]!r}: choose from {', '.join(known)}")
    given = {"loading": options.images, "searchers": options.tables, "predictors": options.tables}
    given["coverage"] = None
    chosen = options.parts or [part for part in known if given.get(part, True)]
    table: list[Row] = []
    harness.PRECISION, harness.RESULTS = options.precision, options.results
    try:
        if "loading" in chosen and options.images is None:
            raise UserError("loading needs --images, a folder of class folders")
        for part in ("searchers", "predictors"):
            if part in chosen and options.tables is None:
                raise UserError(f"{part} needs --tables, a folder for Channel-Bench-Macro's tables")
        for name in ("seeds", "draws"):
            if (count := getattr(options, name)) < 2:
                raise UserError(f"--{name} is {count}; an interval needs at least 2")
        for part in chosen:
            if part == "searchers":
                searchers.measure(options.tables, options.download, options.seeds)
                continue
            if part == "predictors":
                predictors.measure(options.tables, options.download, options.draws)
                continue
            if part == "coverage":
                coverage.measure()
                continue
            if part == "scaling":
                scaling.measure(DATA, CHECKPOINTS)
                continue
            if part == "loading":
                rows = loading.rows(options.images)
            elif part == "pruningnet_step":
                rows = pruningnet_step.rows(options.official)
            else:
                rows = PARTS[part]()
            write(part, rows)
            table += rows
    except UserError as refusal:
        return refuse(refusal)
    print(f"{machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    rates = (matrix_rate(torch.float32), matrix_rate(torch.bfloat16))
    print(
        "floors: {:.0f} GMAC/s in fp32, {:.0f} in bf16;".format(*(r / 1e9 for r in rates)),
        f"{memory_rate() / 1e9:.0f} GB/s",
    )
    print(show(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
