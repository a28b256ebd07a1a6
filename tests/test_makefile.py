"""The Makefile lists what it offers and fails when a step fails."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = ROOT / "Makefile"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile, its inputs and no environment yet."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(
    folder: Path, *arguments: str, path: str = os.environ["PATH"]
) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell of its own, not as a part of the make that runs the tests."""
    command = [shutil.which("make") or "make", *arguments]
    environment = {"PATH": path, "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def executable(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def ready_environment(project: Path, python: str) -> None:
    """An environment that counts as installed, whose `python` is a shell script."""
    executable(project / ".venv/bin/python", python)
    (project / ".venv/.ready").touch()


def test_help_is_the_default_and_lists_every_target(project: Path) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE.read_text(), re.MULTILINE)
    shown = make(project)
    assert shown.returncode == 0
    assert shown.stdout == make(project, "help").stdout
    assert set(re.findall(r"^make ([\w-]+) +\w", shown.stdout, re.MULTILINE)) == set(phony.split())


def test_without_python_3_11_one_line_says_so(project: Path) -> None:
    tools = project / "tools"
    executable(tools / "python3", "exit 1")  # as a Python of another version answers
    executable(tools / "python3.11", "exit 127")
    (tools / "sh").symlink_to("/bin/sh")
    refused = make(project, "test", path=str(tools))
    assert refused.returncode == 2
    lines = [line for line in refused.stderr.splitlines() if not line.startswith("make: ***")]
    assert lines == ["error: Python 3.11 is needed: neither python3.11 nor python3 on PATH is one"]
    assert not (project / ".venv").exists()


def test_an_installed_environment_is_kept_until_its_pins_change(project: Path) -> None:
    ready_environment(project, "exit 0")
    assert "pip install" not in make(project, "--dry-run", "test").stdout
    later = (project / ".venv/.ready").stat().st_mtime + 1
    os.utime(project / "requirements.lock", (later, later))
    assert "pip install -r requirements.lock" in make(project, "--dry-run", "test").stdout


def test_tables_take_the_named_study_or_that_of_the_parameters(project: Path) -> None:
    ready_environment(
        project, 'if [ "$2" = experiments.common.study_file ]; then echo desk; else echo "$@"; fi'
    )
    for arguments, study in (["tables"], "desk"), (["tables", "STUDY=pretrained"], "pretrained"):
        expected = [f"-m paper.{part} results/{study}" for part in ("tables", "figures", "report")]
        expected += ["-m paper.verdicts", "-m paper.readme"]
        assert make(project, *arguments).stdout.splitlines() == expected


def test_paper_makes_the_numbers_and_then_the_pdf(project: Path) -> None:
    ready_environment(project, 'echo "$@"')
    (project / "paper").mkdir()
    script = 'echo "$@"; touch build/paper/report.pdf'
    executable(project / ".venv/bin/latexmk", script)
    path = f"{project}/.venv/bin:{os.environ['PATH']}"
    assert make(project, "paper", path=path).stdout == "-m paper.macros\n"
    assert "paper/report.tex" in (project / "build/paper/latexmk.txt").read_text()
    assert (project / "paper/report.pdf").exists()


def test_paper_says_where_latex_stopped_and_leaves_the_old_pdf(project: Path) -> None:
    ready_environment(project, "exit 0")
    (project / "paper").mkdir()
    (project / "paper/report.pdf").write_text("old")
    script = "echo '! no such number' >build/paper/report.log; exit 12"
    executable(project / ".venv/bin/latexmk", script)
    refused = make(project, "paper", path=f"{project}/.venv/bin:{os.environ['PATH']}")
    assert refused.returncode == 2
    assert "error: LaTeX stopped; build/paper/report.log says why:" in refused.stderr
    assert "! no such number" in refused.stderr
    assert (project / "paper/report.pdf").read_text() == "old"


def test_without_latex_one_line_says_what_to_install(project: Path) -> None:
    ready_environment(project, "echo started")
    tools = project / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    refused = make(project, "paper", path=str(tools))
    assert refused.returncode == 2 and "started" not in refused.stdout
    (line,) = [line for line in refused.stderr.splitlines() if not line.startswith("make: ***")]
    assert line.startswith("error: latexmk is needed: apt-get install latexmk texlive-latex-")
    assert not (project / "build").exists()


def test_compare_takes_a_file_and_asks_for_one(project: Path) -> None:
    ready_environment(project, 'echo "$@"')
    shown = make(project, "compare", "METHOD=mine.csv", "STUDY=desk").stdout
    assert shown == "-m paper.compare results/desk mine.csv\n"
    refused = make(project, "compare", "STUDY=desk")
    assert refused.returncode == 2 and "error: say METHOD=my_results.csv" in refused.stderr


def test_plan_takes_the_named_study_and_flags(project: Path) -> None:
    ready_environment(project, 'echo "$@"')
    assert make(project, "plan").stdout == "-m experiments.plan\n"
    shown = make(project, "plan", "STUDY=imagenet", "FLAGS=--measure").stdout
    assert shown == "-m experiments.plan imagenet --measure\n"


def test_plan_fails_with_its_refusal(project: Path) -> None:
    ready_environment(project, "exit 2")
    assert make(project, "plan", "STUDY=imagenet").returncode == 2


def test_tests_run_in_two_processes_of_one_thread(project: Path) -> None:
    ready_environment(project, "exit 0")
    executable(project / ".venv/bin/pytest", 'echo "$OMP_NUM_THREADS $@"')
    called = "1 -q -n 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder"
    assert called in make(project, "test").stdout.splitlines()


@pytest.mark.parametrize(
    ("failing", "started"),
    [
        ("experiments.common.study_file", []),
        ("paper.tables", ["paper.tables"]),
        ("paper.report", ["paper.tables", "paper.figures", "paper.report"]),
    ],
)
def test_tables_stop_at_the_first_failure(project: Path, failing: str, started: list[str]) -> None:
    ready_environment(project, f'echo "$2"; [ "$2" != {failing} ]')
    made = make(project, "tables")
    assert made.returncode == 2
    assert made.stdout.splitlines() == started


def test_repro_is_one_command_and_fails_with_a_stage(project: Path) -> None:
    """The images are a stage of the pipeline: nothing is fetched before it."""
    ready_environment(project, 'echo "$@"; exit 2')
    made = make(project, "repro")
    assert made.returncode == 2
    assert made.stdout == "-m experiments.repro\n"


PRETRAINED = [
    "python -m experiments.pretrained",
    "dvc commit --force pretrained/dvc.yaml:pretrained",
    *(f"python -m paper.{part} results/pretrained" for part in ("tables", "figures", "report")),
]


@pytest.mark.parametrize("steps", range(1, len(PRETRAINED) + 1))
def test_pretrained_runs_its_stage_tells_dvc_and_stops_at_a_failure(
    project: Path, steps: int
) -> None:
    program, _, rest = PRETRAINED[steps - 1].partition(" ")
    for name in ("python", "dvc"):
        script = f'echo {name} "$@"; [ {name} != {program} ] || [ "$*" != "{rest}" ]'
        executable(project / f".venv/bin/{name}", script)
    (project / ".venv/.ready").touch()
    made = make(project, "pretrained")
    assert made.returncode == 2
    assert made.stdout.splitlines() == PRETRAINED[:steps]


def test_a_study_is_chosen_among_those_there_are(project: Path) -> None:
    (project / "studies").mkdir()
    for name in ("small", "large"):
        (project / f"studies/{name}.yaml").write_text(f"study: {name}\n")
    assert make(project, "study", "STUDY=small").returncode == 0
    assert (project / "params.yaml").read_text() == "study: small\n"
    refused = make(project, "study", "STUDY=pretrained")
    assert refused.returncode == 2
    assert "there is no studies/pretrained.yaml; there are: large small" in refused.stderr
    assert (project / "params.yaml").read_text() == "study: small\n"


def test_rerun_forces_and_repro_does_not(project: Path) -> None:
    ready_environment(project, 'echo "$@"')
    assert make(project, "repro").stdout == "-m experiments.repro\n"
    assert make(project, "rerun").stdout == "-m experiments.repro --force\n"
    on_slurm = make(project, "rerun", "LAUNCH=slurm").stdout
    assert on_slurm == "-m experiments.repro --force --launch slurm\n"


def test_bench_measures_loading_where_it_is_given_images(project: Path) -> None:
    ready_environment(project, 'echo "$@"')
    assert make(project, "bench").stdout == "-m benchmarks\n"
    assert make(project, "bench", "IMAGES=photos").stdout == "-m benchmarks --images photos\n"


def test_channel_bench_runs_its_pipeline_and_makes_its_own_tables(project: Path) -> None:
    ready_environment(project, 'echo "$@"')
    tables = "-m paper.channel_bench results/channel-bench\n"
    assert make(project, "channel-bench").stdout == "-m experiments.channel_bench.repro\n" + tables
    shown = make(project, "tables", "STUDY=channel-bench").stdout
    assert shown == tables + "-m paper.verdicts\n-m paper.readme\n"
