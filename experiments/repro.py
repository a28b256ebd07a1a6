"""Run the study of params.yaml from the data to the report: `make repro`.

`dvc repro` runs one stage after the other. Where the study says how many threads a stage takes,
stages that do not need each other run side by side here, in as many lanes as there are cores for
them: small networks do not keep several cores busy, nor does a stage's start. The results are those
of a plain `dvc repro`, which does as well.

A lane is a `dvc repro` of its own. DVC allows several at a time that write different files.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from experiments.study import Study, budget_name, load, parse
from graphpruning.errors import UserError
from graphpruning.machine import refuse

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
MOST_LANES = 4  # each takes memory for its images, and a GPU is shared by all
LONG = {"train_base": 3.0, "analyse_pruningnet": 4.0}
"""How long a stage takes against the others of its round, where it is not about the same."""
PAPER = ("tables", "figures", "report")

Chain = list[str]
"""Stages, by DVC's names, of which each needs the one before."""


def rounds(study: Study) -> list[list[Chain]]:
    """Chains that can run side by side; a round needs all chains of the round before."""
    name, source = study.study, {m: s for s, methods in study.searches.items() for m in methods}

    def stage(kind: str, *items: str) -> str:
        return f"{kind}@{'-'.join((name, *items))}"

    bases, pruningnets, analyses, networks = [], [], [], []
    for model in study.models:
        bases.append([stage("train_base", model), stage("correlation", model)])
        pruningnets += [
            [stage("train_pruningnet", model, kind)] for kind in study.pruningnet.conditionings
        ]
        analyses += [
            [stage("analyse_pruningnet", model, kinds)] for kinds in study.analysis.conditionings
        ]
        networks += [
            [stage(f"search_{source[method]}", *items), stage("finetune", *items)]
            for method in study.methods
            for budget in study.budgets
            for seeds in study.seeds
            for items in [(model, method, budget_name(budget), str(seeds))]
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
    runs = [
        subprocess.Popen(
            [*DVC, "repro", "--single-item", *flags, *lane],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for lane in lanes
    ]  # fmt: skip
    readers = [threading.Thread(target=_pass_on, args=(run,)) for run in runs]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    if any(run.wait() for run in runs):
        raise UserError("a stage has failed, see above: `make repro` goes on from there")


def _pass_on(run: "subprocess.Popen[str]") -> None:
    """Print a lane's lines whole, so that those of several lanes do not mix."""
    assert run.stdout is not None
    for line in run.stdout:
        print(line, end="", flush=True)


def lanes_for(study: Study) -> int:
    """How many stages run at a time: as many as there are cores for, if the study bounds them."""
    if study.threads is None:
        return 1
    return max(1, min(MOST_LANES, len(os.sched_getaffinity(0)) // study.threads))


def repro(study: Study, flags: Sequence[str]) -> None:
    """Bring every stage up to date; with "--force" among `flags`, run every stage."""
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
    for chains in rounds(study):
        run_lanes(share_out(chains, lanes), flags)
    _call([*DVC, "repro", *(("--single-item", *flags, *PAPER) if flags else ())])


def _call(command: Sequence[str]) -> None:
    if code := subprocess.run(command).returncode:
        raise SystemExit(code)


def main(arguments: list[str]) -> int:
    """Run `make repro` (no arguments) or `make rerun` (--force)."""
    if set(arguments) - {"--force"}:
        print("usage: python -m experiments.repro [--force]", file=sys.stderr)
        return 2
    try:
        study = parse(load())
        repro(study, arguments)
    except UserError as refusal:
        return refuse(refusal)
    print(f"The report: {Path('results', study.study, 'report.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
