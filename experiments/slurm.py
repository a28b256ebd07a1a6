"""The pipeline as jobs of a Slurm cluster: `make repro LAUNCH=slurm`.

Every stage that must run is a job, which waits for the jobs of the stages that it needs. All
machines share this folder. The command waits here; Ctrl-C cancels the jobs. If the
connection breaks instead, they go on, and the next start waits for those that are left.
"""

import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.common.processes import PROCESSES
from experiments.common.resources import DEFAULT, Resources, resources_of
from experiments.common.study_file import PARAMS
from experiments.lanes import DVC
from experiments.pipeline import PIPELINE, Step, kinds, seconds_to_the_end, steps_to_run
from graphpruning.common.errors import UserError, one_line
from graphpruning.common.names import nearest

LOGS = Path("slurm")
COMMANDS = ("sbatch", "squeue", "scancel")
SECONDS_BETWEEN_LOOKS = 5.0
MOST_NAMED = 3
GONE = "GONE"
"""The state of a job that Slurm has forgotten; DVC then says whether its stage has run."""
ENDED = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "OUT_OF_MEMORY",
    "NODE_FAIL",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
    GONE,
)


@dataclass(frozen=True)
class Job:
    """A job as `squeue` lists it; its name is its stage's."""

    number: str
    state: str
    name: str
    folder: str


def run(resources: Mapping[str, Resources], force: bool, queued: Mapping[str, str]) -> None:
    """Bring every stage up to date by jobs, and wait for them; with `force`, run every stage.

    `queued` are the numbers of jobs that an earlier start has left, by stage: they are waited for
    and not submitted again. Raises `UserError` when a job has failed.
    """
    _require_commands()
    _require_kinds(resources)
    if force:
        require_none(queued)
    steps = steps_to_run(force, begun=queued)
    if strangers := [name for name in queued if name not in steps]:
        numbers = " ".join(queued[name] for name in strangers)
        raise UserError(
            f"{strangers[0]} is in Slurm's queue for this folder and is no stage of this study: "
            f"wait until it has run, or `scancel {numbers}`"
        )
    if not steps:
        print("Data and pipelines are up to date.")
        return
    numbers_of = dict(queued)
    urgency = seconds_to_the_end(steps)  # a stage's is never below that of one that needs it
    LOGS.mkdir(exist_ok=True)
    try:
        for step in sorted(steps.values(), key=lambda step: -urgency[step.name]):
            if step.name not in numbers_of:
                needed = [numbers_of[name] for name in step.needs]
                asked = resources_of(step.kind, resources)
                numbers_of[step.name] = _submit(step, asked, needed, force)
        left = f", in the queue already: {len(queued)}" if queued else ""
        print(
            f"jobs submitted: {len(steps) - len(queued)}{left}; `squeue --me` lists them, "
            f"{LOGS}/STAGE.out has what a stage prints, Ctrl-C cancels them",
            flush=True,
        )
        states = _wait_for_all(numbers_of)
    except BaseException:
        if numbers_of:
            subprocess.run(["scancel", *numbers_of.values()], check=False)
            print(f"jobs cancelled: {len(numbers_of)}, but for those that had ended", flush=True)
        raise
    _require_done(steps, states)


def queued_here() -> dict[str, str]:
    """The numbers of jobs for this folder that have not ended, by stage."""
    if not LOGS.exists() or shutil.which("squeue") is None:
        return {}
    jobs = _jobs()
    if isinstance(jobs, str):
        raise UserError(f"squeue does not say whether jobs for this folder are queued: {jobs}")
    return {
        job.name: job.number
        for job in jobs
        if job.folder == str(Path.cwd()) and job.state not in ENDED
    }


def require_none(queued: Mapping[str, str]) -> None:
    """Raise `UserError` while jobs work in this folder."""
    if queued:
        raise UserError(
            f"Slurm's queue holds jobs for this folder ({len(queued)}): `make repro LAUNCH=slurm` "
            f"waits for them, `scancel {' '.join(queued.values())}` cancels them"
        )


def _require_commands() -> None:
    for command in COMMANDS:
        if shutil.which(command) is None:
            raise UserError(
                f"{command} is not on PATH: start this where Slurm's commands are, or run "
                "`make repro` without LAUNCH=slurm, on this machine alone"
            )


def _require_kinds(resources: Mapping[str, Resources]) -> None:
    known = [DEFAULT, *kinds()]
    for kind in resources:
        if kind not in known:
            near = nearest(kind, known)
            raise UserError(
                f"{PARAMS}: resources: {kind!r} is no stage of {PIPELINE}; did you mean {near!r}?"
            )


def _log(stage: str) -> Path:
    return LOGS / f"{stage.replace('/', '_')}.out"  # dvc.yaml of another folder has a slash


def _submit(step: Step, asked: Resources, needed: Sequence[str], force: bool) -> str:
    """Submit a step's job, to start when the jobs `needed` have ended well; return its number."""
    options = {
        "job-name": step.name,
        "chdir": str(Path.cwd()),
        "output": str(_log(step.name)),
        "ntasks": "1",
        "cpus-per-task": str(asked.cpus),
        "gres": f"gpu:{asked.gpus}" if asked.gpus else None,
        "time": asked.time,
        "mem": asked.memory,
        "partition": asked.partition,
        "dependency": f"afterok:{':'.join(needed)}" if needed else None,
        "kill-on-invalid-dep": "yes",
    }
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    flags = ["--force"] if force else []
    command = shlex.join([*DVC, "repro", "--single-item", *flags, step.name])
    script = f"#!/bin/sh\nexport {PROCESSES}={asked.gpus or 1}\nexec {command}\n"
    done = subprocess.run(
        ["sbatch", "--parsable", *words], input=script, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"sbatch refuses {step.name}: {one_line(done.stderr.strip())}")
    return done.stdout.strip().partition(";")[0]  # what follows is the cluster's name


def _wait_for_all(numbers: Mapping[str, str]) -> dict[str, str]:
    """Say how the jobs' states change until all have ended; return the last ones, by stage."""
    states = dict.fromkeys(numbers, "PENDING")
    silent = False
    while True:
        jobs = _jobs()
        if isinstance(jobs, str):
            if not silent:
                print(f"squeue does not answer ({jobs}): asking on", flush=True)
            silent = True
        else:
            silent = False
            seen = {job.number: job.state for job in jobs}
            for name, number in numbers.items():
                if states[name] in ENDED:
                    continue
                state = seen.get(number) or _recorded(number)
                if state != states[name] and state in ("RUNNING", *ENDED):
                    print(f"{state.lower()}: {name} (job {number})", flush=True)
                states[name] = state
        if all(state in ENDED for state in states.values()):
            return states
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _jobs() -> list[Job] | str:
    """My jobs, those that have just ended too; or why Slurm does not say."""
    done = subprocess.run(
        ["squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%j|%Z"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return one_line(done.stderr.strip())
    return [Job(*line.split("|", 3)) for line in done.stdout.splitlines() if line.count("|") >= 3]


def _recorded(number: str) -> str:
    """The last state of a job that the queue has forgotten, from Slurm's accounts if it has any."""
    words = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=State"]
    try:
        done = subprocess.run([*words, f"--jobs={number}"], capture_output=True, text=True)
    except FileNotFoundError:
        return GONE
    state = done.stdout.split()  # "CANCELLED by 1000"
    return state[0] if not done.returncode and state else GONE


def _require_done(steps: Mapping[str, Step], states: Mapping[str, str]) -> None:
    """Raise `UserError` that names the jobs that failed, unless all stages have run."""
    undone = {name: state for name, state in states.items() if state != "COMPLETED"}
    if GONE in undone.values():
        left = steps_to_run()
        undone = {name: state for name, state in undone.items() if state != GONE or name in left}
    failed = [name for name in undone if undone.keys().isdisjoint(steps[name].needs)]
    if not failed:
        return
    named = [f"{name} ({undone[name].lower()}, see {_log(name)})" for name in failed]
    if len(named) > MOST_NAMED:
        named = [*named[:MOST_NAMED], f"{len(named) - MOST_NAMED} more"]
    after = len(undone) - len(failed)
    without = f"; {after} that come after did not run" if after else ""
    raise UserError(
        f"not done: {', '.join(named)}{without}: `make repro LAUNCH=slurm` goes on from there"
    )
