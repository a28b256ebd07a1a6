"""`make repro` runs every stage, each after those that it needs, in as many lanes as fit."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import lanes, repro
from experiments.common.study import parse
from experiments.common.study_file import read_study_file
from experiments.pipeline import PIPELINE, Step, seconds_to_the_end, steps_to_run
from graphpruning.common.errors import UserError
from tests.experiments.toy import DIAMOND, pipeline

ROOT = Path(__file__).parents[2]


def reproduce() -> None:
    """Do what `dvc repro` does."""
    with Repo() as repo:
        repo.reproduce()


def needs_of(everything: bool = False, **more: Any) -> dict[str, set[str]]:
    steps = steps_to_run(everything, **more)
    return {name: set(step.needs) for name, step in steps.items()}


# What must run, by DVC's graph


@pytest.mark.parametrize("name", ["smoke", "desk", "cifar10", "imagenet"])
def test_all_stages_of_a_study_run_each_after_those_that_it_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("dvc.yaml", "data.dvc"):
        if (ROOT / part).exists():
            shutil.copy(ROOT / part, tmp_path)
    shutil.copy(ROOT / f"studies/{name}.yaml", tmp_path / "params.yaml")
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    steps = steps_to_run(everything=True)
    with Repo() as repo:
        listed = [stage.addressing for stage in repo.index.stages if stage.relpath == PIPELINE]
        edges = [(one.addressing, two.addressing) for one, two in repo.index.graph.edges]
    assert [step for step in steps if not step.endswith(".dvc")] == [
        step for step in steps if step in listed
    ]
    assert set(listed) <= steps.keys()
    before: dict[str, set[str]] = {}
    for step in steps.values():  # a KeyError here: a stage comes before one that it needs
        before[step.name] = set(step.needs).union(*(before[needed] for needed in step.needs))
    for reader, needed in edges:
        assert needed in before[reader] or needed not in steps


@pytest.fixture
def diamond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(pipeline(tmp_path / "diamond", DIAMOND))
    return Path()


def test_what_comes_after_a_changed_stage_runs_and_nothing_else(diamond: Path) -> None:
    assert needs_of() == {name: set(needed) for name, needed in DIAMOND.items()}
    reproduce()
    assert needs_of() == {}
    Path("out/right").unlink()
    assert needs_of() == {"right": set(), "both": {"right"}, "last": {"both"}}
    assert needs_of(everything=True).keys() == DIAMOND.keys()
    reproduce()
    assert needs_of(begun=["both"]) == {"both": set(), "last": {"both"}}


def test_what_is_frozen_and_what_only_it_needs_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pipeline(tmp_path / "frozen", DIAMOND, both={"frozen": True}))
    assert needs_of() == {"one": set(), "left": {"one"}, "right": {"one"}, "last": set()}


def test_a_pipeline_of_another_folder_runs_where_the_report_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pipeline(tmp_path / "two", {"here": []}, here={"deps": ["there/needed"]})
    other = {
        "needed": {"cmd": "echo > needed", "outs": ["needed"]},
        "unneeded": {"cmd": "echo > unneeded", "outs": ["unneeded"]},
    }
    (folder / "there").mkdir()
    (folder / "there/dvc.yaml").write_text(yaml.safe_dump({"stages": other}))
    monkeypatch.chdir(folder)
    assert needs_of() == {"there/dvc.yaml:needed": set(), "here": {"there/dvc.yaml:needed"}}


def test_a_pipeline_that_dvc_cannot_read_is_refused_in_one_line(diamond: Path) -> None:
    Path("dvc.yaml").write_text("stages: {one: {cmd: echo, outs: [a]}, two: {outs: [a]}}\n")
    with pytest.raises(UserError, match=r"^dvc\.yaml: ") as refusal:
        steps_to_run()
    assert "\n" not in str(refusal.value)


def test_seconds_are_those_of_the_last_run_and_add_up_along_the_longest_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = {name: {"outs": [{f"out/{name}/run.json": {"cache": False}}]} for name in ("a", "b")}
    folder = pipeline(tmp_path / "timed", {"a": [], "b": [], "c": ["a", "b"]}, **outs)
    monkeypatch.chdir(folder)
    for name, text in (("a", '{"seconds": 10}'), ("b", '{"seconds": 20}')):
        Path(f"out/{name}").mkdir(parents=True)
        Path(f"out/{name}/run.json").write_text(text)
    steps = steps_to_run()
    assert {name: step.seconds for name, step in steps.items()} == {"a": 10, "b": 20, "c": 15}
    assert seconds_to_the_end(steps) == {"a": 25, "b": 35, "c": 15}


# Lanes


Log = Callable[[], list[list[str]]]


@pytest.fixture
def fake_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """A DVC that notes when it starts and ends what; a stage called bad fails at once, and one
    called beside takes long."""
    log, script = tmp_path / "log", tmp_path / "dvc"
    script.write_text(
        "#!/bin/sh\nshift 2\n"
        f'echo "call $*" >> {log}\n'
        'for stage in "$@"; do case $stage in --*) continue;; esac\n'
        "echo \"Running stage '$stage':\"\n"
        f'echo "start $stage" >> {log}; [ $stage = bad ] && exit 1\n'
        "[ $stage = beside ] && sleep 2; sleep 0.02\n"
        f'echo "end $stage" >> {log}; done\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(lanes, "DVC", (str(script),))
    monkeypatch.setattr(lanes, "preloaded", nullcontext)

    def read() -> list[list[str]]:
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    return read


def as_steps(needs: Mapping[str, Sequence[str]]) -> dict[str, Step]:
    return {name: Step(name, tuple(needed)) for name, needed in needs.items()}


@st.composite
def pipelines(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"s{number}" for number in range(draw(st.integers(1, 7)))]
    return {
        name: sorted(draw(st.sets(st.sampled_from(names[:place])))) if place else []
        for place, name in enumerate(names)
    }


@given(needs=pipelines(), count=st.integers(1, 3))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_stage_starts_before_those_that_it_needs_have_ended(
    needs: dict[str, list[str]], count: int, fake_dvc: Log
) -> None:
    lanes.run_steps(as_steps(needs), count, [])
    started, ended = [], set[str]()
    for event, *names in fake_dvc():
        if event == "start":
            (name,) = names
            assert ended.issuperset(needs[name])
            started.append(name)
            assert len(set(started) - ended) <= count
        elif event == "end":
            ended.update(names)
    assert sorted(started) == sorted(needs) == sorted(ended)


def test_stages_that_only_wait_for_each_other_share_a_start_of_dvc(fake_dvc: Log) -> None:
    needs = {
        "a": [],
        "a1": ["a"],
        "a2": ["a1"],
        "b": [],
        "b1": ["b"],
        "b2": ["b"],
        "end": ["a2", "b1", "b2"],
    }
    lanes.run_steps(as_steps(needs), 2, ["--force"])
    calls = [stages for event, *stages in fake_dvc() if event == "call"]
    assert sorted(calls) == sorted(
        ["--force", *stages] for stages in (["a", "a1", "a2"], ["b"], ["b1"], ["b2"], ["end"])
    )


@pytest.mark.parametrize(("seconds", "first"), [(1.0, 2), (61.0, 1)])
def test_short_stages_share_a_start_of_dvc_and_leave_work_for_other_lanes(
    seconds: float, first: int, fake_dvc: Log
) -> None:
    """Eight are ready for two lanes: each takes a quarter of what is left, or one long stage."""
    names = [f"s{number}" for number in range(8)]
    lanes.run_steps({name: Step(name, (), seconds) for name in names}, 2, [])
    taken = [stages for event, *stages in fake_dvc() if event == "call"]
    assert sorted(stage for stages in taken for stage in stages) == names
    assert len(taken[0]) == len(taken[1]) == first
    assert len(taken[-1]) == 1


def test_what_most_work_waits_for_starts_first(fake_dvc: Log) -> None:
    steps = as_steps({"short": [], "long": [], "before": [], "after": ["before"]})
    steps["long"] = replace(steps["long"], seconds=9.0)
    lanes.run_steps(steps, 1, [])
    started = [name for event, *names in fake_dvc() if event == "start" for name in names]
    assert started == ["long", "before", "after", "short"]


def test_after_a_failed_stage_no_other_starts_and_running_ones_end(
    fake_dvc: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = {"bad": [], "after": ["bad"], "beside": [], "later": [], "never": ["later", "beside"]}
    steps = as_steps(needs)
    steps["bad"] = replace(steps["bad"], seconds=9.0)
    steps["beside"] = replace(steps["beside"], seconds=5.0)
    with pytest.raises(UserError, match=r"^bad: failed, see above: `make repro` goes on from"):
        lanes.run_steps(steps, 2, [])
    events = fake_dvc()
    assert ["end", "beside"] in events
    assert not {"after", "later", "never"} & {name for _, *names in events for name in names[:1]}
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "Running stage 'bad':",
        "Running stage 'beside':",
    ]


def test_many_lanes_at_once_lose_no_entry_of_dvc_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real DVC: each of the stages rewrites the whole of dvc.lock, and a lane has two."""
    stages: dict[str, list[str]] = {}
    for lane in range(repro.MOST_LANES):
        stages |= {f"first{lane}": [], f"second{lane}": [f"first{lane}"]}
    monkeypatch.chdir(pipeline(tmp_path / "many", stages))
    lanes.run_steps(steps_to_run(), repro.MOST_LANES, [])
    assert yaml.safe_load(Path("dvc.lock").read_text())["stages"].keys() == stages.keys()
    assert steps_to_run() == {}


# The runner


def study(name: str) -> dict[str, Any]:
    raw: dict[str, Any] = read_study_file(ROOT / f"studies/{name}.yaml")
    return raw


def test_lanes_are_as_many_as_there_are_cores_for(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = parse(study("desk"))
    for cores, threads, count in [
        (2, 1, 2),
        (1, 1, 1),
        (8, 3, 2),
        (64, 1, 4),
        (2, 8, 1),
        (8, None, 1),
    ]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=cores: set(range(n)))
        assert repro.lanes_for(replace(desk, threads=threads)) == count


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """What would be run by two lanes, and as plain DVC."""
    calls: list[list[Any]] = []

    def steps(force: bool, pipeline: str) -> dict[str, Step]:
        assert pipeline == repro.PIPELINE
        return as_steps(DIAMOND if force else {})

    monkeypatch.setattr(repro, "call", lambda command: calls.append(command[len(repro.DVC) :]))
    monkeypatch.setattr(repro, "run_steps", lambda *given: calls.append(list(given)))
    monkeypatch.setattr(repro, "steps_to_run", steps)
    monkeypatch.setattr(repro, "decide_precision", lambda study: None)
    monkeypatch.setattr(repro, "lanes_for", lambda study: 2)
    return calls


def test_force_runs_every_stage_by_itself(called: list[list[Any]]) -> None:
    repro.run_here(parse(study("desk")), force=True)
    assert called == [[as_steps(DIAMOND), 2, ["--force"]]]


def test_a_study_that_is_up_to_date_starts_nothing(
    called: list[list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    repro.run_here(parse(study("desk")), force=False)
    assert called == []
    assert capsys.readouterr().out == "Data and pipelines are up to date.\n"


def test_one_lane_is_a_plain_dvc_repro(
    called: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repro, "lanes_for", lambda study: 1)
    repro.run_here(parse(study("cifar10")), force=False)
    repro.run_here(parse(study("cifar10")), force=True)
    assert called == [["repro"], ["repro", "--force"]]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fast"], "unrecognized arguments: --fast"),
        (["--launch", "slrum"], "--launch slrum: did you mean 'slurm'?"),
    ],
)
def test_another_argument_is_refused(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert repro.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {says}")
