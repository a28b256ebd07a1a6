"""`make repro` runs every stage, each after those that it needs, in as many lanes as fit."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from experiments import repro
from experiments.common.study import load, parse
from graphpruning.common.errors import UserError

ROOT = Path(__file__).parents[2]


def study(name: str) -> dict[str, Any]:
    return load(ROOT / f"studies/{name}.yaml")


@pytest.mark.parametrize("name", ["smoke", "desk", "cifar10", "imagenet"])
def test_the_rounds_hold_all_of_dvcs_stages_once(name: str, tmp_path: Path) -> None:
    for part in ("dvc.yaml", "data.dvc"):
        shutil.copy(ROOT / part, tmp_path)
    shutil.copy(ROOT / f"studies/{name}.yaml", tmp_path / "params.yaml")
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    of_paper = {f"{part}@{name}" for part in repro.PAPER}
    rounds = [stage for chains in repro.rounds(study(name)) for one in chains for stage in one]
    assert sorted(rounds) == sorted(set(listed) - of_paper)


def test_a_stage_comes_after_those_that_it_reads() -> None:
    """By dvc.yaml: what one stage lists as an output and another as a dependency.

    The smoke study has a method of every kind of search.
    """
    kinds = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    place = {
        stage.partition("@")[0]: (number, stages.index(stage))
        for number, chains in enumerate(repro.rounds(study("smoke")))
        for stages in chains
        for stage in stages
    }

    def paths(entries: list[str | dict[str, object]]) -> set[str]:
        return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}

    outputs = {
        path: kind
        for kind in kinds
        for path in paths([*kinds[kind]["outs"], *kinds[kind].get("metrics", [])])
    }
    for kind in place:
        for path in paths(kinds[kind]["deps"]):
            if (source := outputs.get(path)) is not None:
                assert place[source] < place[kind], (source, kind)


@given(st.lists(st.sampled_from([*repro.LONG, "finetune"]), max_size=20), st.integers(1, 5))
def test_every_chain_is_given_to_one_lane_and_lanes_are_even(kinds: list[str], lanes: int) -> None:
    chains = [[f"{kind}@{n}", f"then@{n}"] for n, kind in enumerate(kinds)]
    shared = repro.share_out(chains, lanes)
    assert len(shared) == min(lanes, len(chains))
    assert sorted(chain.from_iterable(shared)) == sorted(chain.from_iterable(chains))
    for lane in shared:
        assert all(
            lane[i + 1] == f"then@{lane[i].partition('@')[2]}" for i in range(0, len(lane), 2)
        )
    loads = [sum(repro.LONG.get(s.partition("@")[0], 1.0) for s in lane) for lane in shared]
    assert not loads or max(loads) - min(loads) <= 5


def test_lanes_are_as_many_as_there_are_cores_for(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = parse(study("desk"))
    for cores, threads, lanes in [
        (2, 1, 2),
        (1, 1, 1),
        (8, 3, 2),
        (64, 1, 4),
        (2, 8, 1),
        (8, None, 1),
    ]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=cores: set(range(n)))
        assert repro.lanes_for(replace(desk, threads=threads)) == lanes


def test_a_failing_lane_fails_all_and_lines_stay_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import sys; print(*sys.argv[3:], flush=True); sys.exit('bad' in sys.argv)"
    monkeypatch.setattr(repro, "DVC", (sys.executable, "-c", code))
    repro.run_lanes([["one", "two"], ["three"]], [])
    assert sorted(capsys.readouterr().out.splitlines()) == ["one two", "three"]
    with pytest.raises(UserError, match="a stage has failed"):
        repro.run_lanes([["bad"], ["three"]], [])


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run, as DVC's arguments; DVC says that the study is not up to date."""
    calls: list[list[str]] = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command[len(repro.DVC) :])
        return subprocess.CompletedProcess(command, int("status" in command))

    monkeypatch.setattr(repro.subprocess, "run", run)
    monkeypatch.setattr(repro, "_call", run)
    monkeypatch.setattr(repro, "decide_precision", lambda study: None)
    monkeypatch.setattr(repro, "lanes_for", lambda study: 2)
    return calls


def test_force_runs_every_stage_by_itself(
    called: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(
        repro, "run_lanes", lambda given, flags: lanes.append((len(given), list(flags)))
    )
    repro.repro(study("desk"), ["--force"])
    assert lanes == [(1, ["--force"]), (2, ["--force"]), (2, ["--force"])]
    assert called == [["repro", "--single-item", "--force", *repro.PAPER]]


def test_a_failed_round_is_the_last(
    called: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[object] = []

    def fail(given: object, flags: object) -> None:
        rounds.append(given)
        raise UserError("a stage has failed")

    monkeypatch.setattr(repro, "run_lanes", fail)
    with pytest.raises(UserError):
        repro.repro(study("desk"), [])
    assert len(rounds) == 1 and called == [["status", "--quiet"]]


def test_one_lane_is_a_plain_dvc_repro(
    called: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repro, "lanes_for", lambda study: 1)
    repro.repro(study("cifar10"), [])
    assert called == [["repro"]]


def test_a_study_without_methods_ends_after_the_correlation(called: list[list[str]]) -> None:
    repro.repro(study("pretrained"), [])
    assert called[0] == ["repro", "correlation"]
    assert len(called) == 1 + len(repro.PAPER)


def test_another_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert repro.main(["--fast"]) == 2
    assert capsys.readouterr().err == "usage: python -m experiments.repro [--force]\n"
