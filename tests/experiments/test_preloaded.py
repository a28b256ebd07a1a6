"""A command that a process with all imports runs does what it does by itself."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments import preloaded
from experiments.handover import LENGTH, SERVER
from tests import processes
from tests.experiments.test_pipeline import ENVIRONMENT, ROOT

PROBE = """
import gc, json, os, resource, signal, sys, threading
print("begun", "torch" in sys.modules, os.getpid(), flush=True)
for number in sys.argv[1:]:
    os.kill(os.getpid(), int(number))
print(json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "folder": os.getcwd(),
    "environment": dict(os.environ), "name": __name__, "spec": __spec__.name,
    "main": sys.modules["__main__"].__spec__.name, "file": __file__,
    "ours": sorted(name for name in sys.modules if name.startswith("experiments")),
    "signals": {n: str(signal.getsignal(n)) for n in (1, 2, 3, 13, 15)},
    "threads": threading.active_count(), "files": sorted(map(int, os.listdir("/proc/self/fd")))[:4],
    "limits": [resource.getrlimit(number) for number in range(resource.RLIMIT_NPROC + 1)],
    "collects": gc.isenabled(), "group": os.getpgrp() == os.getppid(),
}))
print(sys.stdin.read(), file=sys.stderr)
sys.exit(7)
"""
SET_BY_IMPORTS = ("PYTORCH_NVML_BASED_CUDA_CHECK", "PYGAME_HIDE_SUPPORT_PROMPT")
"""Variables that Lightning and Gymnasium set when they are imported, as in every stage."""
VENDORED = "setuptools/_vendor"  # from Sacred's import of pkg_resources, as in every stage
WAIT = """
import os, sys, time
print("torch" in sys.modules, os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True, scope="module")
def nobody_ignores_a_hangup() -> Iterator[None]:
    """As what `nohup` starts would, and what that starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    """The environment of commands that are handed over."""
    with preloaded.preloaded(ENVIRONMENT) as environment:
        yield environment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with our package and two stages of its own."""
    package = tmp_path / "project/experiments"
    shutil.copytree(ROOT / "experiments", package)
    (package / "probe.py").write_text(PROBE)
    (package / "wait.py").write_text(WAIT)
    return package.parent


def command(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"experiments.{name}", *words]


def probed(folder: Path, environment: dict[str, str], *words: str) -> tuple[bool, Any]:
    """Whether the probe found torch at its start, and all else that it has found and said."""
    done = subprocess.run(
        command("probe", *words),
        cwd=folder,
        env=environment,
        input="what is read",
        capture_output=True,
        text=True,
    )
    begun, *said = done.stdout.splitlines()
    found = [json.loads(line) for line in said]
    for one in found:
        one["path"] = [path for path in one["path"] if not path.endswith(VENDORED)]
        for name in SET_BY_IMPORTS:
            one["environment"].pop(name, None)
    return "True" in begun.split(), (done.returncode, found, done.stderr)


def test_it_begins_as_by_itself(folder: Path, served: dict[str, str]) -> None:
    by_itself, forked = probed(folder, ENVIRONMENT), probed(folder, served)
    assert (by_itself[0], forked[0]) == (False, True)
    assert forked[1] == by_itself[1]
    assert forked[1][0] == 7 and forked[1][2] == "what is read\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGKILL])
def test_it_dies_of_the_same_signal(
    number: signal.Signals, folder: Path, served: dict[str, str]
) -> None:
    has_torch, (code, *_) = probed(folder, served, str(int(number)))
    assert has_torch and code == -number


def test_our_code_is_that_of_its_folder_and_of_its_time(
    folder: Path, served: dict[str, str]
) -> None:
    for text in ("one", "another"):  # of other lengths: bytecode is known by second and size
        (folder / "experiments/probe.py").write_text(f"import torch\nraise SystemExit({text!r})")
        done = subprocess.run(
            command("probe"), cwd=folder, env=served, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (1, f"{text}\n")


@pytest.mark.parametrize(
    "change",
    [{"OMP_NUM_THREADS": "2"}, {"PYTHONHASHSEED": "1"}, {SERVER: "nobody"}, {SERVER: ""}],
)
def test_what_would_have_been_loaded_otherwise_runs_by_itself(
    change: dict[str, str], folder: Path, served: dict[str, str]
) -> None:
    has_torch, forked = probed(folder, {**served, **change})
    change.pop(SERVER, None)
    assert not has_torch
    assert forked == probed(folder, {**ENVIRONMENT, **change})[1]


def waiting(folder: Path, environment: dict[str, str]) -> tuple["subprocess.Popen[str]", int]:
    """A command that waits, and the number of the process that does it."""
    process = processes.start(command("wait"), folder, environment)
    assert process.stdout is not None
    has_torch, number = process.stdout.readline().split()
    assert has_torch == "True" and int(number) != process.pid
    assert os.getpgid(int(number)) == process.pid
    return process, int(number)


def ends(number: int) -> bool:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(number) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not psutil.pid_exists(number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("end", [os.kill, os.killpg])
def test_a_command_that_is_ended_leaves_nothing(
    number: signal.Signals, end: Callable[[int, int], None], folder: Path, served: dict[str, str]
) -> None:
    process, forked = waiting(folder, served)
    end(process.pid, number)
    assert process.wait(20) == -number
    assert ends(forked)


def only_torch(folder: Path) -> None:
    """A server of this folder imports torch and no more, which takes a third of the time."""
    path = folder / "experiments/preloaded.py"
    before, modules, after = re.split(
        r"(^MODULES = \([^)]*\)$)", path.read_text(), flags=re.MULTILINE
    )
    assert '"torch",' in modules
    path.write_text(f'{before}MODULES = ("torch",){after}')


RUNNER = """
import os, subprocess, sys
from experiments.preloaded import preloaded
with preloaded(os.environ) as environment:
    subprocess.run(sys.argv[1:], env=environment)
"""


@pytest.mark.parametrize("killed", ["runner", "server"])
def test_a_runner_or_server_that_is_killed_leaves_nothing(killed: str, folder: Path) -> None:
    only_torch(folder)
    runner = processes.start([sys.executable, "-c", RUNNER, *command("wait")], folder, ENVIRONMENT)
    assert runner.stdout is not None
    has_torch, forked = runner.stdout.readline().split()
    assert has_torch == "True"
    below = psutil.Process(runner.pid).children(recursive=True)
    (server,) = (
        one for one in below if "experiments.preloaded" in one.cmdline() and one.children()
    )
    (client,) = (one for one in below if "experiments.wait" in one.cmdline())
    assert [one.pid for one in server.children()] == [int(forked)]
    (psutil.Process(runner.pid) if killed == "runner" else server).kill()
    runner.wait(20)
    assert ends(int(forked)) and ends(server.pid) and ends(client.pid)


def test_nothing_is_forked_from_a_process_with_another_thread() -> None:
    assert preloaded._can_fork() == (len(os.listdir("/proc/self/task")) == 1)
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    assert not preloaded._can_fork()
    stop.set()
    other.join()


def left(folder: Path) -> dict[str, bytes]:
    """What stages have left but for times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for top in ("results", "models", "data")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file() and path.name != "run.json" and "records" not in path.parts
    }


STUDIED = [
    ["prepare"],
    ["train_base", "with", "model=resnet8", "seed=0"],
    ["train_pruningnet", "with", "model=resnet8", "conditioning=graph", "seed=0"],
    ["search", "with", "model=resnet8", "method=graphpruning", "budget=0.5", "seed=0"],
]


def test_stages_leave_the_same_bytes_as_by_themselves(
    tmp_path: Path, served: dict[str, str]
) -> None:
    """Weights, metrics and curves, whose losses have all digits."""
    made = []
    for name, environment in (("forked", served), ("alone", ENVIRONMENT)):
        folder = tmp_path / name
        for part in ("experiments", "graphpruning"):
            shutil.copytree(ROOT / part, folder / part)
        (folder / "params.yaml").write_bytes((ROOT / "studies/smoke.yaml").read_bytes())
        for words in STUDIED:
            done = processes.run(command(*words), folder, environment)
            assert done.returncode == 0, done.stderr
        made.append(left(folder))
    forked, alone = made
    assert forked == alone
    assert len([name for name in forked if name.endswith(".safetensors")]) == 3


def refuses(*_: Any, **__: Any) -> Any:
    raise BlockingIOError("no more of them")


@pytest.mark.parametrize("name", ["fork", "pidfd_open"])
def test_without_a_process_more_the_command_runs_by_itself_and_others_go_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server asks for one, gets none, and lives."""
    environment = dict(os.environ)
    loaded = preloaded._loaded_with(sys.executable, environment)
    monkeypatch.setattr(os, name, refuses)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")
        listener.listen()
        client.connect(listener.getsockname())
        request = {"executable": sys.executable, "environment": environment}
        text = json.dumps(request).encode()
        socket.send_fds(client, [LENGTH.pack(len(text))], [0, 1, 2])
        client.sendall(text)
        assert preloaded._begin(listener, loaded) == (None, None)
        assert client.recv(1) == b""  # nobody has taken it


def test_what_is_no_request_is_refused() -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")
        listener.listen()
        client.connect(listener.getsockname())
        socket.send_fds(client, [LENGTH.pack(2)], [0, 1, 2])
        client.sendall(b"[]")
        assert preloaded._begin(listener, preloaded._loaded_with("", {})) == (None, None)


@pytest.mark.parametrize("what", ["socket", "Popen"])
def test_where_the_system_refuses_it_commands_run_by_themselves(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = {"socket": preloaded.socket, "Popen": preloaded.subprocess}[what]
    monkeypatch.setattr(of, what, refuses)
    with preloaded.preloaded(ENVIRONMENT) as environment:
        assert environment == ENVIRONMENT


def test_without_descriptors_of_processes_it_does_not_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert not preloaded._can_fork()
