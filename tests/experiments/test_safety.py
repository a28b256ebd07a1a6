"""The runner and the stages when something is against them: names, locks, signals, full disks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from experiments import locks
from experiments.common.stage import check_words
from experiments.common.study import parse, read
from experiments.common.study_file import check_names
from experiments.repro import lanes_for
from graphpruning.common.errors import UserError
from graphpruning.common.files import alone
from graphpruning.network.zoo import build
from tests import processes
from tests.experiments.test_pipeline import ENVIRONMENT, ROOT, copy_repository, run
from tests.experiments.toy import pipeline

REPRO = (sys.executable, "-m", "experiments.repro")
PREPARE = (sys.executable, "-m", "experiments.prepare")
TRAIN = (sys.executable, "-m", "experiments.train_base", "with", "model=resnet8", "seed=0")
ONE_EPOCH, NO_END = (*TRAIN, "base.recipe.epochs=1"), (*TRAIN, "base.recipe.epochs=300")
STAGE = "train_base@smoke-resnet8-0"
LANES = lanes_for(read(ROOT / "studies/smoke.yaml"))
NOTES = Path(".dvc/tmp/rwlock")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository whose smoke study has been prepared and no more."""
    folder = copy_repository(tmp_path_factory.mktemp("safety"))
    done = run(folder, *PREPARE)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(prepared: Path) -> Iterator[Path]:
    """The same, tidied up afterwards: the study is smoke again, and nothing is locked."""
    yield prepared
    shutil.copy(prepared / "studies/smoke.yaml", prepared / "params.yaml")
    shutil.rmtree(prepared / ".dvc/tmp", ignore_errors=True)


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a refusal says: one line on standard error, and exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


def is_running(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Names that would become commands or paths


BAD_NAMES = (
    "x; touch pwned #",
    "../../x",
    "/tmp/x",
    "",
    "..",
    ".",
    "-x",
    "a b",
    "a/b",
    "a\nb",
    "a\0b",
    "${title}",
    "$(touch pwned)",
    "`touch pwned`",
    "\u00b2",
    "a'b",
    "a\\b",
)


NAMED = (
    "study",
    "models",
    "networks",
    "budgets",
    "seeds",
    "methods",
    "searches",
    "searches: graph",
    "pruningnet: conditionings",
    "again: methods",
    "again: trainings",
)
"""Where a study has names that DVC puts into commands and paths."""


SMOKE: dict[str, Any] = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())


def with_name(where: str, name: str) -> dict[str, Any]:
    """The smoke study with this name at this place alone, so that nothing else can refuse it."""
    raw = deepcopy(SMOKE)
    if where == "study":
        raw["study"] = name
    elif where == "networks":
        raw["networks"][name] = raw["networks"]["resnet8"]
    elif where == "searches":
        raw["searches"][name] = []
    elif where == "searches: graph":
        raw["searches"]["graph"].append(name)
    elif where == "pruningnet: conditionings":
        raw["pruningnet"]["conditionings"].append(name)
    elif where.startswith("again: "):
        raw["again"][where.removeprefix("again: ")].append(name)
    else:
        raw[where].append(name)
    return raw


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("where", NAMED)
def test_a_name_that_is_no_plain_name_is_refused(where: str, name: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(with_name(where, name))
    assert str(refusal.value) == (
        f"params.yaml: {where}: {name!r} is no plain name: letters, digits, and . _ + - "
        "after the first"
    )


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_of_a_networks_option_is_refused_when_it_is_built(name: str) -> None:
    """It is part of no command: it may only be no option."""
    with pytest.raises(UserError) as refusal:
        build("resnet8", 10, 1, **{name: 1})
    assert len(str(refusal.value).splitlines()) == 1


CHECKED = """
import json, sys, time
from pathlib import Path
from experiments import check

before = time.process_time()
for number, study in enumerate(json.load(sys.stdin)):
    Path("params.yaml").write_text(study)
    before_this = time.process_time()
    assert check.main() == 2
    assert time.process_time() - before_this < 1
heavy = {"torch", "numpy", "pydantic", "sacred", "lightning_fabric", "dvc"} & set(sys.modules)
print(before, *heavy)
"""


def test_the_check_before_every_command_refuses_each_bad_name_and_imports_little(
    tmp_path: Path,
) -> None:
    """DVC starts it once a stage. A process costs as much again, so one does for all names."""
    studies = [yaml.safe_dump(with_name("models", name)) for name in BAD_NAMES]
    done = subprocess.run(
        [sys.executable, "-c", CHECKED],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        input=json.dumps(studies),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    imported, *heavy = done.stdout.split()
    assert not heavy
    assert float(imported) < 1  # seconds of the processor, until everything was imported
    lines = done.stderr.splitlines()
    assert len(lines) == len(BAD_NAMES)
    assert all("params.yaml: models: " in line and "is no plain name" in line for line in lines)


@pytest.mark.parametrize(
    ("study", "says"),
    [
        ({}, "key 'study' is missing"),
        ({"study": None}, "key 'study' is missing"),
        (None, "a mapping is expected, not None"),
        ([1], "a mapping is expected, not [1]"),
        ("text", "a mapping is expected, not 'text'"),
    ],
)
def test_without_a_name_of_the_study_there_is_no_command(study: Any, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        check_names(study, "params.yaml")
    assert str(refusal.value) == f"params.yaml: {says}"


def test_the_check_leaves_what_is_no_name_to_the_stage() -> None:
    check_names(
        {"study": "smoke", "models": {"a": [{}]}, "searches": [1], "x": None}, "params.yaml"
    )


def test_no_label_of_a_study_is_run_by_a_shell(folder: Path) -> None:
    raw = yaml.safe_load((folder / "params.yaml").read_text())
    label = "x; touch pwned #"
    raw["budgets"], raw["networks"]["resnet8"]["budgets"] = [label], {label: 0.5}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    assert "budgets: 'x; touch pwned #' is no plain name" in the_line(run(folder, *REPRO))
    done = run(folder, "dvc", "repro")
    assert done.returncode != 0 and "is no plain name" in done.stderr
    # A stage by itself, with all that it needs there.
    for path in (
        "data/manifests/smoke.tsv.gz",
        "results/smoke/splits/train.txt",
        "models/smoke/resnet8/0/base.safetensors",
        f"results/smoke/search/resnet8/amc/{label}/0/metrics.json",
        f"models/smoke/searched/resnet8/amc/{label}/0.safetensors",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    stage = f"finetune@smoke-resnet8-amc-{label}-0"
    done = run(folder, "dvc", "repro", "--single-item", stage)
    assert "> python -m experiments.check" in done.stdout, done.stderr
    assert "experiments.finetune" not in done.stdout and "is no plain name" in done.stderr
    assert not list(folder.rglob("pwned"))

    shutil.copy(folder / "studies/smoke.yaml", folder / "params.yaml")
    for top in ("data/manifests", "results/smoke", "models/smoke"):
        shutil.rmtree(folder / top)
    assert run(folder, *PREPARE).returncode == 0


# Locks


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ("", "half-written notes"),
        ('{"write": {"/x', "half-written notes"),
        ("[1]", "half-written notes"),
        ("\xff\xfe", "half-written notes"),
        ('{"write": {"/x": {"pid": %d, "cmd": "dvc repro"}}}', "processes that were killed"),
        ("{}", None),
        ('{"write": {}, "read": {}}', None),
        (None, None),
    ],
)
def test_what_a_killed_dvc_left_is_removed(
    held: str | None,
    says: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The number in a stale note may be another process's by now, such as this one's."""
    monkeypatch.chdir(tmp_path)
    NOTES.parent.mkdir(parents=True)
    if held is not None:
        text = held % os.getpid() if "%d" in held else held
        NOTES.write_bytes(text.encode("latin-1"))
    with locks.only_runner():
        pass
    said = capsys.readouterr().out
    assert (said.count("\n") == 1 and says in said) if says else said == ""
    assert NOTES.exists() == (says is None and held is not None)


@pytest.mark.parametrize("held", ["", '{"write": {"/x": {"pid": 1, "cmd": "dvc repro"}}}'])
def test_notes_of_a_live_dvc_stay(held: str, folder: Path) -> None:
    sleeper = "import sys, time; sys.argv[0] = 'dvc'; time.sleep(60)"
    living = processes.start([sys.executable, "-c", sleeper, "dvc", "repro"], folder)
    # Its second word is `-c`: a script called dvc is what DVC's own start looks like.
    script = folder / ".dvc/tmp/dvc"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("import time; time.sleep(60)")
    dvc = processes.start([sys.executable, str(script), "repro"], folder)
    try:
        (folder / NOTES).write_text(held)
        line = the_line(run(folder, *REPRO))
        assert f"process {dvc.pid} (" in line and str(NOTES) in line
        assert (folder / NOTES).read_text() == held
    finally:
        processes.end(living)
        processes.end(dvc)


def test_a_second_runner_is_told_of_the_first(folder: Path) -> None:
    code = "from experiments.locks import only_runner\nimport time\nwith only_runner():\n"
    code += " print('in', flush=True)\n time.sleep(60)"
    first = processes.start([sys.executable, "-c", code], folder, ENVIRONMENT)
    assert first.stdout is not None
    assert first.stdout.readline() == "in\n"
    try:
        line = the_line(run(folder, *REPRO))
        assert f"number {first.pid}" in line and ".dvc/tmp/repro.lock" in line
        assert first.poll() is None
    finally:
        processes.end(first)
    with alone(folder / ".dvc/tmp/repro.lock", "this"):  # it went with the process
        pass


def test_a_stage_is_run_by_one_process_at_a_time(folder: Path) -> None:
    lock = folder / "checkpoints/smoke/locks" / STAGE
    with alone(lock, "this test"):
        line = the_line(run(folder, *TRAIN))
    assert f"the stage {STAGE} is being done by another process" in line
    assert f"number {os.getpid()}" in line


# Signals


def ends_by(number: signal.Signals, runner: "subprocess.Popen[str]", to_group: bool) -> None:
    """Signal the runner; it ends, without a word too much, and so does all that is below it."""
    children = psutil.Process(runner.pid).children(recursive=True)
    (os.killpg if to_group else os.kill)(runner.pid, number)
    out, err = runner.communicate(timeout=60)
    assert runner.returncode == 128 + number, out + err
    assert "Traceback" not in out + err
    _, alive = psutil.wait_procs(children, timeout=5)
    assert children and not alive


def test_a_signal_to_the_runner_alone_ends_all_of_it(tmp_path: Path) -> None:
    """Stages of a toy pipeline, which do nothing but last: what ends the runner is the subject."""
    stages = {name: {"cmd": f"touch begun-{name} && sleep 120"} for name in ("one", "two")}
    folder = pipeline(tmp_path / "toy", dict.fromkeys(stages, ()), **stages)
    shutil.copy(ROOT / "studies/smoke.yaml", folder / "params.yaml")  # it says how many lanes
    runner = processes.start(REPRO, folder, {**ENVIRONMENT, "PYTHONPATH": str(ROOT)})
    is_running(runner, lambda: len(list(folder.glob("begun-*"))) == LANES)
    ends_by(signal.SIGTERM, runner, to_group=False)


def test_a_signal_to_the_runners_group_ends_all_of_it(folder: Path) -> None:
    """As Ctrl-C does, while all lanes train, so many epochs that none ends meanwhile."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    study = (folder / "params.yaml").read_text()
    longer = study.replace("epochs: 3 ", "epochs: 300 ", 1)
    assert longer != study
    (folder / "params.yaml").write_text(longer)
    runner = processes.start(REPRO, folder, ENVIRONMENT)
    saved = folder / "checkpoints/smoke"
    is_running(runner, lambda: len(list(saved.rglob("*.pt"))) == LANES)
    ends_by(signal.SIGINT, runner, to_group=True)
    assert not [p for p in (folder / "results").rglob(".*") if p.is_file()]


def test_a_signal_to_a_stage_ends_it_without_a_traceback(folder: Path) -> None:
    stage = training(folder)
    stage.send_signal(signal.SIGTERM)
    out, err = stage.communicate(timeout=60)
    assert (stage.returncode, err) == (128 + signal.SIGTERM, ""), out + err


def test_a_stage_that_dies_of_a_fault_is_explained(folder: Path) -> None:
    """What SIGKILL leaves is in test_pipeline.py; here, what a library's native code does."""
    stage = training(folder)
    stage.send_signal(signal.SIGSEGV)
    out, err = stage.communicate(timeout=60)
    assert stage.returncode == -signal.SIGSEGV, out + err
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert f"{STAGE} died of SIGSEGV in " in line
    assert "goes on from what it has saved" in line


def training(folder: Path) -> "subprocess.Popen[str]":
    """A stage that has saved its first epoch, of so many that it does not end meanwhile."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    stage = processes.start(NO_END, folder, ENVIRONMENT)
    is_running(stage, lambda: any((folder / "checkpoints/smoke/train_base").rglob("*.pt")))
    return stage


# Places that cannot be written to


@pytest.mark.parametrize("place", ["results/smoke/base", "models", "checkpoints", "runs"])
def test_a_place_that_cannot_be_written_to_is_named(place: str, folder: Path) -> None:
    """A file stands where a folder is needed: that stops root too, as a read-only disk would."""
    path, aside = folder / place, folder / "aside"
    if path.exists():
        path.rename(aside)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way\n")
    try:
        line = the_line(run(folder, *ONE_EPOCH))
        assert place in line and ("Not a directory" in line or "File exists" in line)
    finally:
        path.unlink()
        if aside.exists():
            aside.rename(path)


def test_a_dvc_folder_that_cannot_be_written_to_is_named(folder: Path) -> None:
    shutil.rmtree(folder / ".dvc/tmp", ignore_errors=True)
    (folder / ".dvc/tmp").write_text("in the way\n")
    try:
        assert ".dvc/tmp/repro.lock cannot be written (" in the_line(run(folder, *REPRO))
    finally:
        (folder / ".dvc/tmp").unlink()


def test_a_full_disk_is_said_and_work_goes_on_when_there_is_room(folder: Path) -> None:
    """Files of at most 40 kB: the checkpoint is larger, and nothing of it is left."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    limited = ("bash", "-c", 'ulimit -f 40 && exec "$@"', "-", *ONE_EPOCH)
    line = the_line(run(folder, *limited))
    assert "training.pt cannot be written (File too large)" in line
    assert not [p for p in (folder / "checkpoints/smoke/train_base").rglob("*") if p.is_file()]
    done = run(folder, *ONE_EPOCH)
    assert done.returncode == 0, done.stderr


def test_a_stage_that_cannot_keep_its_record_keeps_its_checkpoint(folder: Path) -> None:
    """It is the last thing that can fail; DVC then removes the stage's outputs."""
    for left in ("checkpoints", "results/smoke/records"):
        shutil.rmtree(folder / left, ignore_errors=True)
    (folder / "results/smoke/records").write_text("no folder")
    line = the_line(run(folder, *ONE_EPOCH))
    assert "results/smoke/records" in line and "cannot be written" in line
    assert list((folder / "checkpoints/smoke/train_base").rglob("*.pt"))
    (folder / "results/smoke/records").unlink()
    done = run(folder, *ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    assert not list((folder / "checkpoints/smoke/train_base").rglob("*.pt"))
    sidecar = json.loads((folder / "results/smoke/base/resnet8/0/run.json").read_text())
    assert sidecar["resumed"] is True


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["with", "modl"], "with modl: say KEY=VALUE; did you mean 'model'?"),
        (["with", "model=a", "b", "-F", "runs"], "with b: say KEY=VALUE"),
        (
            ["with", "model=a", "epochs=1"],
            "with epochs=1: this stage does not read 'epochs'; did you mean",
        ),
        (["with", "model=a", "bace.recipe.lr=1"], "'bace'; did you mean 'base'?"),
        (["with", "model=a", "base.recipe.lr=1"], None),
        (["with", "seed=1"], "with seed=1: this stage draws nothing from a seed of its own"),
        (["with", "model=a", "-F", "runs"], None),
        ([], None),
    ],
)
def test_words_that_set_nothing_are_refused(words: list[str], says: str | None) -> None:
    if says is None:
        check_words(words, ["model"], ["base"])
        return
    with pytest.raises(UserError) as refusal:
        check_words(words, ["model"], ["base"])
    assert says in str(refusal.value)
