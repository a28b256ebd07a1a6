"""Run the study of params.yaml from the data to the report: `make repro`.

`dvc repro` runs one stage after the other. Where the study says how many threads a stage takes,
stages that do not need each other run side by side here, in as many lanes as there are cores for
them: small networks do not keep several cores busy, nor does a stage's start. Plain `dvc repro`
gives the same results, one stage at a time. With `--launch slurm` every stage is a job of a
cluster.

What needs what, and what is up to date, is DVC's to say. Whatever this starts is ended with it.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn, Protocol

from experiments import slurm
from experiments.common.study import Precision, read
from experiments.lanes import DVC, call, run_steps
from experiments.locks import only_runner
from experiments.pipeline import PIPELINE, steps_to_run
from graphpruning.common.errors import UserError
from graphpruning.common.machine import end_on_signals, refuse
from graphpruning.common.names import nearest

MOST_LANES = 4  # each takes memory for its images, and a GPU is shared by all


class Bounded(Protocol):
    """A study that says how many threads a stage takes, and in which precision it computes."""

    @property
    def threads(self) -> int | None: ...
    @property
    def precision(self) -> Precision: ...


def lanes_for(study: Bounded) -> int:
    """How many stages run at a time: as many as there are cores for, if the study bounds them."""
    if study.threads is None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(MOST_LANES, (cores or 1) // study.threads))


def decide_precision(study: Bounded) -> None:
    """Time "auto" before stages run side by side, which would disturb it; the answer is kept."""
    if study.precision != "auto":
        return
    import torch

    from graphpruning.training.fabric import make_fabric

    assert study.threads is not None
    torch.set_num_threads(study.threads)
    make_fabric(study.precision)


def run_here(study: Bounded, force: bool, pipeline: str = PIPELINE) -> None:
    """Bring every stage of `pipeline` up to date on this machine; with `force`, run every stage."""
    flags = ["--force"] if force else []
    lanes = lanes_for(study)
    if lanes == 1:
        call([*DVC, "repro", *flags, *([pipeline] if pipeline != PIPELINE else [])])
        return
    steps = steps_to_run(force, pipeline=pipeline)
    if not steps:
        print("Data and pipelines are up to date.")
        return
    decide_precision(study)
    run_steps(steps, lanes, flags)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` lists what there is")


def arguments_of(words: list[str]) -> argparse.Namespace:
    """Read the command line; `UserError` for what is none of it."""
    parser = _Parser(prog="python -m experiments.repro", allow_abbrev=False)
    parser.add_argument("--force", action="store_true", help="run what is up to date, too")
    places = ("here", "slurm")
    parser.add_argument("--launch", default="here", metavar="|".join(places), help="where to run")
    chosen = parser.parse_args(words)
    if chosen.launch not in places:
        near = nearest(chosen.launch, places)
        raise UserError(f"--launch {chosen.launch}: did you mean {near!r}?")
    return chosen


def main(words: list[str]) -> int:
    """Run `make repro` (no arguments), `make rerun` (--force), or either with LAUNCH=slurm."""
    end_on_signals()
    try:
        chosen = arguments_of(words)
        study = read()
        queued = slurm.queued_here()
        with only_runner(clear=not queued):
            if chosen.launch == "slurm":
                slurm.run(study.resources, chosen.force, queued)
            else:
                slurm.require_none(queued)
                run_here(study, chosen.force)
    except UserError as refusal:
        return refuse(refusal)
    print(f"The report: {Path('results', study.study, 'report.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
