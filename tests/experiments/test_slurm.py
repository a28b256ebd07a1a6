"""`make repro LAUNCH=slurm` submits DVC's graph; Slurm's commands are stood in for.

They are small programs on PATH that keep a folder of jobs. A job runs when it is looked at.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import yaml

from experiments import repro, slurm
from experiments.common.resources import Resources, resources_of
from experiments.common.study import parse
from graphpruning.common.errors import UserError
from tests.experiments.test_pipeline import ROOT, copy_repository
from tests.experiments.toy import DIAMOND, pipeline

COMMON = f"""#!{sys.executable} -IS
import json, os, pathlib, subprocess, sys
folder = pathlib.Path(os.environ["FAKE_SLURM"])
def jobs():
    return [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
def keep(job):
    (folder / f"{{int(job['number']):04d}}.json").write_text(json.dumps(job))
"""
PROGRAMS = {
    "sbatch": """
options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[2:])
if options.get("partition") == "closed":
    sys.exit("sbatch: error: invalid partition\\nspecified: closed")
number = str(len(jobs()) + 100)
keep({"number": number, "state": "PENDING", "options": options, "script": sys.stdin.read()})
print(f"{number};here")
""",
    "squeue": """
if (folder / "silent").exists():
    (folder / "silent").unlink()
    sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
states = {job["number"]: job["state"] for job in jobs()}
for job in jobs():
    needed = job["options"].get("dependency", "afterok:").removeprefix("afterok:").split(":")
    needed = [states[number] for number in needed if number]
    if job["state"] == "PENDING" and not (folder / "busy").exists():
        if all(state == "COMPLETED" for state in needed):
            with open(job["options"]["output"], "w") as output:
                code = subprocess.run(["sh", "-c", job["script"]], stdout=output, stderr=output)
            job["state"] = "FAILED" if code.returncode else "COMPLETED"
        elif set(needed) & {"FAILED", "CANCELLED"}:
            job["state"] = "CANCELLED"
    states[job["number"]] = job["state"]
    keep(job)
    if not (folder / "forgetful").exists() or job["state"] == "PENDING":
        where = job["options"]["chdir"]
        print(job["number"], job["state"], job["options"]["job-name"], where, sep="|")
""",
    "scancel": """
for job in jobs():
    if job["number"] in sys.argv[1:] and job["state"] == "PENDING":
        keep({**job, "state": "CANCELLED"})
""",
}
CHAIN = {"one": [], "both": ["one"], "last": ["both"]}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-in's jobs; a file in it called busy, silent or forgetful counts."""
    folder, programs = tmp_path / "slurm", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(COMMON + text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "SECONDS_BETWEEN_LOOKS", 0.01)
    return folder


@pytest.fixture
def diamond(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(pipeline(tmp_path / "diamond", DIAMOND))
    return fake


@pytest.fixture
def unrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs stay in the queue, and count as completed: for what is asked of Slurm alone."""
    monkeypatch.setattr(slurm, "_wait_for_all", lambda numbers: dict.fromkeys(numbers, "COMPLETED"))


def submitted(fake: Path) -> dict[str, dict[str, Any]]:
    """Jobs by their stages, which have one each."""
    jobs = [json.loads(path.read_text()) for path in sorted(fake.glob("*.json"))]
    by_name = {job["options"]["job-name"]: job for job in jobs}
    assert len(by_name) == len(jobs)
    return by_name


def needs(jobs: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """Which stages' jobs each waits for to end well."""
    names = {job["number"]: name for name, job in jobs.items()}
    found = {}
    for name, job in jobs.items():
        kind, _, numbers = job["options"].get("dependency", "afterok:").partition(":")
        assert kind == "afterok" and job["options"]["kill-on-invalid-dep"] == "yes"
        found[name] = {names[number] for number in numbers.split(":") if number}
    return found


# What is submitted


def test_every_stage_is_one_job_after_those_that_it_needs(
    diamond: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.run({}, force=False, queued={})
    jobs = submitted(diamond)
    assert needs(jobs) == {name: set(needed) for name, needed in DIAMOND.items()}
    assert {job["state"] for job in jobs.values()} == {"COMPLETED"}
    assert {path.name for path in Path("out").iterdir()} == DIAMOND.keys()
    assert {path.stem for path in Path("slurm").iterdir()} == DIAMOND.keys()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("jobs submitted: 5; `squeue --me` lists them, slurm/STAGE.out has")
    assert said[1:] == [f"completed: {name} (job {jobs[name]['number']})" for name in jobs]
    slurm.run({}, force=False, queued={})
    assert capsys.readouterr().out == "Data and pipelines are up to date.\n"


def test_the_jobs_of_a_study_are_dvcs_graph(
    fake: Path, unrun: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as one job comes before another: what follows from other edges may be left out."""
    from dvc.repo import Repo

    monkeypatch.chdir(copy_repository(tmp_path / "smoke"))
    slurm.run({}, force=True, queued={})
    found = needs(submitted(fake))
    with Repo() as repo:
        edges = [(one.addressing, two.addressing) for one, two in repo.index.graph.edges]
    closed = nx.transitive_closure(nx.DiGraph(edges))
    of_jobs = nx.transitive_closure(nx.DiGraph([(one, two) for one in found for two in found[one]]))
    assert len(found) > 20
    assert set(of_jobs.edges) == {edge for edge in closed.edges if found.keys() >= set(edge)}


def test_a_job_asks_for_what_the_study_says(diamond: Path, unrun: None) -> None:
    study: dict[str, dict[str, Any]] = {
        "default": {"cpus": 2, "partition": "main"},
        "left": {"gpus": 4, "time": "2-12:00", "memory": "16G"},
        "right": {"gpus": 1, "cpus": 8, "partition": "a,b"},
    }
    resources = {kind: Resources(**entry) for kind, entry in study.items()}
    slurm.run(resources, force=False, queued={})
    jobs = submitted(diamond)
    asked = {
        name: {key: job["options"].get(key) for key in ("cpus-per-task", "gres", "time", "mem")}
        for name, job in jobs.items()
    }
    plain = {"cpus-per-task": "2", "gres": None, "time": "1:00:00", "mem": None}
    assert asked == {
        "one": plain,
        "left": {"cpus-per-task": "2", "gres": "gpu:4", "time": "2-12:00", "mem": "16G"},
        "right": {**plain, "cpus-per-task": "8", "gres": "gpu:1"},
        "both": plain,
        "last": plain,
    }
    partitions = {name: job["options"]["partition"] for name, job in jobs.items()}
    assert partitions == {**dict.fromkeys(DIAMOND, "main"), "right": "a,b"}
    processes = {name: job["script"].splitlines()[1] for name, job in jobs.items()}
    assert processes == {
        **dict.fromkeys(DIAMOND, "export GRAPHPRUNING_PROCESSES=1"),
        "left": "export GRAPHPRUNING_PROCESSES=4",
    }


def test_every_stage_is_forced_when_all_are_to_run_again(diamond: Path, unrun: None) -> None:
    slurm.run({}, force=True, queued={})
    for name, job in submitted(diamond).items():
        assert job["script"].endswith(f" repro --single-item --force {name}\n")


# Failures, and going on


def test_a_failed_job_is_named_with_its_log_and_the_next_start_goes_on(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"left": [], "right": [], "both": ["left", "right"], "last": ["both"]}
    command = "test -e mended && mkdir -p out && echo left > out/left"
    monkeypatch.chdir(pipeline(tmp_path / "failing", stages, left={"cmd": command}))
    with pytest.raises(UserError) as refusal:
        slurm.run({}, force=False, queued={})
    assert str(refusal.value) == (
        "not done: left (failed, see slurm/left.out); 2 that come after did not run: "
        "`make repro LAUNCH=slurm` goes on from there"
    )
    assert {path.name for path in Path("out").iterdir()} == {"right"}
    assert "failed to reproduce 'left'" in Path("slurm/left.out").read_text()
    for path in fake.glob("*.json"):
        path.unlink()
    Path("mended").touch()
    slurm.run({}, force=False, queued=slurm.queued_here())
    assert needs(submitted(fake)) == {"left": set(), "both": {"left"}, "last": {"both"}}


def test_jobs_that_an_earlier_start_left_are_waited_for_and_not_submitted_again(
    fake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(pipeline(tmp_path / "chain", CHAIN))
    with monkeypatch.context() as patched:
        patched.setattr(slurm, "_wait_for_all", lambda numbers: dict.fromkeys(numbers, "COMPLETED"))
        slurm.run({}, force=False, queued={})
    (fake / "busy").touch()
    first = slurm.queued_here()
    assert first.keys() == CHAIN.keys()
    monkeypatch.chdir(pipeline(tmp_path / "another", CHAIN))
    Path("slurm").mkdir()
    assert slurm.queued_here() == {}  # those are of another folder
    monkeypatch.chdir(tmp_path / "chain")
    with pytest.raises(UserError, match=r"^Slurm's queue holds jobs for this folder \(3\): `make"):
        slurm.run({}, force=True, queued=first)
    subprocess.run(["scancel", first["last"]], check=True)
    queued = slurm.queued_here()
    (fake / "busy").unlink()
    capsys.readouterr()
    slurm.run({}, force=False, queued=queued)
    assert capsys.readouterr().out.startswith("jobs submitted: 1, in the queue already: 2;")
    assert {path.name for path in Path("out").iterdir()} == CHAIN.keys()


def test_jobs_of_another_study_are_not_mixed_with_this_ones(diamond: Path) -> None:
    with pytest.raises(UserError, match=r"^train@old is in Slurm's queue .*`scancel 7`$"):
        slurm.run({}, force=False, queued={"train@old": "7"})


def test_what_ends_the_runner_cancels_its_jobs(
    diamond: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise SystemExit(130)  # as a signal's handler does

    (diamond / "busy").touch()
    monkeypatch.setattr(slurm.time, "sleep", interrupt)
    with pytest.raises(SystemExit):
        slurm.run({}, force=False, queued={})
    assert {job["state"] for job in submitted(diamond).values()} == {"CANCELLED"}
    assert "jobs cancelled: 5, but for those that had ended" in capsys.readouterr().out


def test_a_refused_job_takes_back_those_before_it(diamond: Path) -> None:
    closed = {"both": Resources(partition="closed")}
    with pytest.raises(UserError, match=r"^sbatch refuses both: sbatch: error: invalid par") as why:
        slurm.run(closed, force=False, queued={})
    assert "\n" not in str(why.value)
    jobs = submitted(diamond)
    assert {name: job["state"] for name, job in jobs.items()} == dict.fromkeys(
        ("one", "left", "right"), "CANCELLED"
    )


def test_a_silent_queue_is_asked_on(
    fake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(pipeline(tmp_path / "silent", {"one": []}))
    (fake / "silent").touch()
    slurm.run({}, force=False, queued={})
    assert {job["state"] for job in submitted(fake).values()} == {"COMPLETED"}
    assert "squeue does not answer (slurm_load_jobs error" in capsys.readouterr().out


def test_of_jobs_that_slurm_has_forgotten_dvc_says_whether_their_stages_have_run(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pipeline(tmp_path / "forgotten", CHAIN, both={"cmd": "false"}))
    (fake / "forgetful").touch()
    with pytest.raises(UserError, match=r"^not done: both \(gone, see slurm/both.out\); 1 that"):
        slurm.run({}, force=False, queued={})


# Before anything is submitted


def test_without_slurm_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "studies/smoke.yaml", "params.yaml")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert repro.main(["--launch", "slurm"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: sbatch is not on PATH: ")


def test_jobs_in_the_queue_keep_a_runner_of_this_machine_out(
    diamond: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor are DVC's notes cleared: another machine's processes may have made them."""
    shutil.copy(ROOT / "studies/smoke.yaml", "params.yaml")
    monkeypatch.setattr(slurm, "queued_here", lambda: {"one": "100"})
    notes = Path(".dvc/tmp/rwlock")
    notes.parent.mkdir(parents=True)
    notes.write_text('{"write": {"/x": {"pid": 1, "cmd": "dvc repro"}}}')
    assert repro.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: Slurm's queue holds jobs for this folder (1): `make repro LAUNCH"
    )
    assert notes.exists()


def test_resources_for_what_is_no_stage_are_refused(diamond: Path) -> None:
    with pytest.raises(UserError, match=r"resources: 'lefd' is no stage.*did you mean 'left'\?"):
        slurm.run({"lefd": Resources(gpus=1)}, force=False, queued={})
    assert submitted(diamond) == {}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"cpus": 0}, "cpus: 0 does not lie between 1"),
        ({"gpus": -1}, "gpus: -1 does not lie between 0"),
        ({"gpu": 1}, "unknown key 'gpu'; did you mean 'gpus'?"),
        ({"time": "an hour"}, "time: 'an hour' is no time of Slurm's"),
        ({"time": 3600}, "time: str is expected"),
        ({"memory": "much"}, "memory: 'much' is no size of Slurm's"),
        ({"partition": "a b"}, "partition: 'a b' is no plain name"),
    ],
)
def test_resources_that_mean_nothing_are_refused(entry: dict[str, Any], says: str) -> None:
    raw = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    with pytest.raises(UserError) as refusal:
        parse({**raw, "resources": {"default": entry}})
    assert f"resources: default: {says}" in str(refusal.value)


def test_a_stage_has_its_own_resources_over_the_default_over_the_least() -> None:
    study = {"default": Resources(cpus=4, time="2:00:00"), "train": Resources(time="9:00:00")}
    assert resources_of("train", study) == Resources(cpus=4, gpus=0, time="9:00:00")
    assert resources_of("other", study) == Resources(cpus=4, gpus=0, time="2:00:00")
    assert resources_of("other", {}) == Resources(cpus=1, gpus=0, time="1:00:00")
