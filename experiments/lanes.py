"""Stages side by side on one machine: each starts as soon as those that it needs have run.

A lane is a `dvc repro` of its own, for one stage or for a few: those that need only each other, and
short ones. DVC allows several at a time that write different files. Whatever is started here is
ended with the block or the process that started it: a signal reaches every stage.
"""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

import psutil

from experiments.pipeline import Step, seconds_to_the_end
from experiments.preloaded import preloaded
from graphpruning.common.errors import UserError

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
SECONDS_FOR_DVC = 10  # to see that its stage has ended; cut off, dvc.lock is no lock file any more
SECONDS_FOR_STAGES = 10  # to remove what is half-written
SHORT = 60.0
"""Seconds that stages take together which share a start of DVC, though they could run apart."""
RUNNING = "Running stage '"
FAILED = "failed to reproduce '"
"""How the line begins in which DVC names a stage that it starts."""

Run = subprocess.Popen[str]


def run_steps(steps: Mapping[str, Step], lanes: int, flags: Sequence[str]) -> None:
    """Run all steps, at most so many lanes at a time; of those that can start, first the one that
    most work waits for.

    After a stage has failed no other starts; those that run may end. Raises `UserError` then.
    """
    urgency = seconds_to_the_end(steps)
    waiting, done, failed = dict(steps), set[str](), list[str]()
    running: dict[int, list[str]] = {}
    ended: SimpleQueue[tuple[Run, str]] = SimpleQueue()
    with preloaded(os.environ) as environment, ended_together() as runs:
        while running or (waiting and not failed):
            while len(running) < lanes and not failed:
                ready = [name for name in waiting if done.issuperset(steps[name].needs)]
                if not ready:
                    break
                ready.sort(key=urgency.__getitem__, reverse=True)
                chain = _load(ready, waiting, done, math.ceil(len(ready) / (2 * lanes)))
                run = _start([*DVC, "repro", "--single-item", *flags, *chain], environment)
                runs.append(run)
                running[run.pid] = chain
                for name in chain:
                    del waiting[name]
                threading.Thread(target=_pass_on, args=(run, ended)).start()
            run, last = ended.get()
            code, chain = run.wait(), running.pop(run.pid)
            runs.remove(run)  # its number may soon be another process's
            if code:
                failed.append(last or chain[0])
            done.update(chain)
    if failed:
        raise UserError(f"{', '.join(failed)}: failed, see above: `make repro` goes on from there")


def _load(
    ready: Sequence[str], waiting: Mapping[str, Step], done: Iterable[str], most: int
) -> list[str]:
    """What one `dvc repro` is given: a chain, and more of them as long as all are short, since
    DVC's start takes seconds; at most so many, so that there is work left for the other lanes.
    """
    load: list[str] = []
    for name in ready[:most]:
        chain = _chain(name, waiting, done)
        if load and sum(waiting[stage].seconds for stage in [*load, *chain]) > SHORT:
            break
        load += chain
    return load


def _chain(first: str, waiting: Mapping[str, Step], done: Iterable[str]) -> list[str]:
    """A step and those after it that one `dvc repro` may run in a row, which saves DVC's start:
    nothing else waits for the one before, and nothing else is needed.
    """
    chain = [first]
    while True:
        after = [step for step in waiting.values() if chain[-1] in step.needs]
        if len(after) != 1 or not {*done, *chain}.issuperset(after[0].needs):
            return chain
        chain.append(after[0].name)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> Run:
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def _pass_on(run: Run, ended: "SimpleQueue[tuple[Run, str]]") -> None:
    """Print a lane's lines whole, so that those of several lanes do not mix; then say that it has
    ended, and which stage was the last.
    """
    last = ""
    assert run.stdout is not None
    try:
        with run.stdout:  # closed when nobody reads what is printed, so that the lane ends too
            for line in run.stdout:
                print(line, end="", flush=True)
                for said in (RUNNING, FAILED):  # a stage may fail before it runs
                    if said in line:
                        last = line.partition(said)[2].partition("'")[0]
    finally:
        ended.put((run, last))


def call(command: Sequence[str]) -> None:
    """Run a program to its end, with this process's own output; exit with its code if it fails."""
    with ended_together() as runs:
        run = subprocess.Popen(command, text=True, process_group=0)
        runs.append(run)
        if code := run.wait():
            raise SystemExit(code if code > 0 else 128 - code)


@contextmanager
def ended_together() -> Iterator[list[Run]]:
    """Yield a list for processes that lead groups of their own; if the block fails, end them all.

    Stages are told first, those too that DVC starts meanwhile: then DVC, which waits for one, says
    so, and puts its notes and dvc.lock in order.
    """
    runs: list[Run] = []
    try:
        yield runs
    except BaseException:
        told: set[psutil.Process] = set()
        _wait_for_end(runs, SECONDS_FOR_DVC, meanwhile=lambda: _tell_stages(runs, told))
        for number in (signal.SIGTERM, signal.SIGKILL):
            for run in runs:
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, number)
            _wait_for_end(runs, SECONDS_FOR_STAGES)
        raise


def _tell_stages(runs: Sequence[Run], told: set[psutil.Process]) -> None:
    """End the stages that have not been told yet."""
    for stage in {one for run in runs for one in _below(run)} - told:
        with suppress(psutil.NoSuchProcess):
            stage.terminate()
        told.add(stage)


def _below(run: "subprocess.Popen[Any]") -> list[psutil.Process]:
    try:
        return psutil.Process(run.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _wait_for_end(
    runs: Sequence["subprocess.Popen[Any]"],
    seconds: float,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    deadline = time.monotonic() + seconds
    while any([_is_there(run) for run in runs]) and time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.02)


def _is_there(run: "subprocess.Popen[Any]") -> bool:
    """Whether any process of the group is left: a stage may outlive the DVC that started it."""
    run.poll()
    try:
        os.killpg(run.pid, 0)
    except ProcessLookupError:
        return False
    return True
