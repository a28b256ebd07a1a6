"""Run the study of params.yaml from the data to the report: `make repro`.

`dvc repro` runs one stage after the other. Where the study says how many threads a stage takes,
stages that do not need each other run side by side here, in as many lanes as there are cores for
them: small networks do not keep several cores busy, nor does a stage's start. The results are those
of a plain `dvc repro`, which does as well.

A lane is a `dvc repro` of its own. DVC allows several at a time that write different files.

Whatever this starts is ended with it: a signal to the runner reaches every stage.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from experiments.common.study import Study, load, parse
from experiments.locks import only_runner
from graphpruning.common.errors import UserError
from graphpruning.common.machine import end_on_signals, refuse

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
SECONDS_FOR_DVC = 2  # to see that its stage has ended
SECONDS_FOR_STAGES = 10  # to remove what is half-written
MOST_LANES = 4  # each takes memory for its images, and a GPU is shared by all
LONG = {"train_base": 3.0, "analyse_pruningnet": 4.0}
"""How long a stage takes against the others of its round, where it is not about the same."""
PAPER = ("tables", "figures", "report")

Chain = list[str]
"""Stages, by DVC's names, of which each needs the one before."""


def rounds(study: Mapping[str, Any]) -> list[list[Chain]]:
    """Chains that can run side by side; a round needs all chains of the round before.

    `study` is plain data, of which DVC makes the stages' names.
    """
    place = {m: place for place, methods in study["searches"].items() for m in methods}

    def stage(kind: str, *items: object) -> str:
        return f"{kind}@{'-'.join(map(str, (study['study'], *items)))}"

    bases, pruningnets, analyses, networks = [], [], [], []
    for model in study["models"]:
        bases.append([stage("train_base", model), stage("correlation", model)])
        pruningnets += [
            [stage("train_pruningnet", model, kind)]
            for kind in study["pruningnet"]["conditionings"]
        ]
        analyses += [
            [stage("analyse_pruningnet", model, kind)]
            for kind in study["analysis"]["conditionings"]
        ]
        networks += [
            [stage(f"search_{place[method]}", *items), stage("finetune", *items)]
            for method in study["methods"]
            for budget in study["budgets"]
            for seeds in study["seeds"]
            for items in [(model, method, budget, seeds)]
        ]
    return [[[stage("prepare")]], bases + pruningnets, analyses + networks]


def share_out(chains: Sequence[Chain], lanes: int) -> list[Chain]:
    """Divide chains among lanes, the long ones first, each to the lane that has least to do."""

    def length(chain: Chain) -> float:
        return sum(LONG.get(stage.partition("@")[0], 1.0) for stage in chain)

    shared: list[Chain] = [[] for _ in range(lanes)]
    for chain in sorted(chains, key=length, reverse=True):
        min(shared, key=length).extend(chain)
    return [lane for lane in shared if lane]


def run_lanes(lanes: Sequence[Chain], flags: Sequence[str]) -> None:
    """Run each lane's stages in order, all lanes at once; `UserError` when a stage fails."""
    with _ended_together() as runs:
        for lane in lanes:
            command = [*DVC, "repro", "--single-item", *flags, *lane]
            runs.append(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    process_group=0,
                )
            )
        readers = [threading.Thread(target=_pass_on, args=(run,)) for run in runs]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        if any([run.wait() for run in runs]):
            raise UserError("a stage has failed, see above: `make repro` goes on from there")


@contextmanager
def _ended_together() -> Iterator[list["subprocess.Popen[Any]"]]:
    """Yield a list for processes that lead groups of their own; if the block fails, end them all.

    Stages are told first: then DVC, which waits for one, says so and puts its notes in order.
    """
    runs: list[subprocess.Popen[Any]] = []
    try:
        yield runs
    except BaseException:
        for run in runs:
            for stage in _below(run):
                with suppress(psutil.NoSuchProcess):
                    stage.terminate()
        _wait_for_end(runs, SECONDS_FOR_DVC)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for run in runs:
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, number)
            _wait_for_end(runs, SECONDS_FOR_STAGES)
        raise


def _below(run: "subprocess.Popen[Any]") -> list[psutil.Process]:
    try:
        return psutil.Process(run.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _wait_for_end(runs: Sequence["subprocess.Popen[Any]"], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any([_is_there(run) for run in runs]) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_there(run: "subprocess.Popen[Any]") -> bool:
    """Whether any process of the group is left: a stage may outlive the DVC that started it."""
    run.poll()
    try:
        os.killpg(run.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _pass_on(run: "subprocess.Popen[str]") -> None:
    """Print a lane's lines whole, so that those of several lanes do not mix."""
    assert run.stdout is not None
    with run.stdout:  # closed when nobody reads what is printed, so that the lane ends too
        for line in run.stdout:
            print(line, end="", flush=True)


def lanes_for(study: Study) -> int:
    """How many stages run at a time: as many as there are cores for, if the study bounds them."""
    if study.threads is None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(MOST_LANES, (cores or 1) // study.threads))


def decide_precision(study: Study) -> None:
    """Time "auto" before stages run side by side, which would disturb it; the answer is kept."""
    import torch

    from graphpruning.training.fabric import make_fabric

    assert study.threads is not None
    torch.set_num_threads(study.threads)
    make_fabric(study.precision)


def repro(raw: Mapping[str, Any], flags: Sequence[str]) -> None:
    """Bring every stage of a study up to date; with "--force" among `flags`, run every stage."""
    study = parse(raw)
    if not study.methods:  # it ends after the correlation; DVC would want the other folders
        _call([*DVC, "repro", *flags, "correlation"])
        for part in PAPER:
            _call([sys.executable, "-m", f"paper.{part}", f"results/{study.study}"])
        return
    lanes = lanes_for(study)
    if lanes == 1:
        _call([*DVC, "repro", *flags])
        return
    if not flags and subprocess.run([*DVC, "status", "--quiet"]).returncode == 0:
        print("Data and pipelines are up to date.")
        return
    decide_precision(study)
    for chains in rounds(raw):
        run_lanes(share_out(chains, lanes), flags)
    _call([*DVC, "repro", *(("--single-item", *flags, *PAPER) if flags else ())])


def _call(command: Sequence[str]) -> None:
    with _ended_together() as runs:
        runs.append(subprocess.Popen(command, process_group=0))
        if code := runs[0].wait():
            raise SystemExit(code if code > 0 else 128 - code)


def main(arguments: list[str]) -> int:
    """Run `make repro` (no arguments) or `make rerun` (--force)."""
    if set(arguments) - {"--force"}:
        print("usage: python -m experiments.repro [--force]", file=sys.stderr)
        return 2
    end_on_signals()
    try:
        raw = load()
        with only_runner():
            repro(raw, arguments)
    except UserError as refusal:
        return refuse(refusal)
    print(f"The report: {Path('results', raw['study'], 'report.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
