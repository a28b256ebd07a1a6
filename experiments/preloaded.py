"""Stages of `make repro` start from a process that has imported what they need.

`import torch` takes two seconds, and a study has a hundred stages. So one process imports the
libraries that stages use, none of our own code, and forks for every command that is handed over to
it (`experiments.handover`). What it forks begins as `python -m` does: with the command's folder,
environment, limits, process group and open files, and with our code as it is then. It is killed
when the command is, or when this process ends; and this process ends with the runner.

A fork copies one thread alone. So nothing is served by a process that has others, or that has
touched a GPU; nor for a command whose environment would have had the libraries load in another
way. Such a command runs by itself, as all do without `make repro`.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.common.lazy import absent
from experiments.handover import LENGTH, PASSED_ON, SERVER, STARTED, STATUS, is_mine

MODULES = (
    "torch",
    "lightning_fabric",
    "torch_geometric",
    "gymnasium",
    "pydantic.dataclasses",
    "safetensors.torch",
    "scipy.linalg",
    "scipy.sparse.csgraph",
    "PIL.Image",
    "yaml",
    "sacred.observers",
)
OURS = ("experiments", "graphpruning", "paper")
READ_AT_LOAD = (
    *(
        "ATEN",
        "CUDA",
        "DNNL",
        "GOMP",
        "KMP",
        "LD_",
        "MALLOC",
        "MKL",
        "OMP",
        "ONEDNN",
        "OPENBLAS",
        "PYTHON",
    ),
    *("PYTORCH", "TORCH"),
)
"""How the names of variables begin that Python and the libraries read when they are loaded."""
STANDARD_ERROR = 2
WAITING = 64  # commands, of which as many as there are lanes come
SECONDS_FOR_A_REQUEST = 5.0
SECONDS_FOR_COMMANDS = 5.0  # to end in order when the runner is no more
_DEATH_SIGNAL = 1  # of Linux's prctl

Request = dict[str, Any]
_Loaded = tuple[str, dict[str, str]]


@contextmanager
def preloaded(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield `environment` with one name more: commands that have it are forked, as long as the
    block lasts.

    Linux alone has what this needs; elsewhere the environment stays as it is.
    """
    started = _started(environment) if sys.platform == "linux" else None
    if started is None:
        yield dict(environment)
        return
    server, name = started
    try:
        yield {**environment, SERVER: name}
    finally:
        server.kill()
        server.communicate()


def _started(environment: Mapping[str, str]) -> tuple["subprocess.Popen[bytes]", str] | None:
    """The process that serves, and the name of its socket; None where the system refuses one."""
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            if listener.fileno() <= STANDARD_ERROR:  # what Python would use as a standard file
                return None
            listener.bind("")  # to a free name that the system chooses; it goes with the socket
            listener.listen(WAITING)
            name = listener.getsockname()[1:].decode()
            server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listener.fileno())],
                env=environment,
                stdin=subprocess.PIPE,  # it ends as soon as nobody holds the other end
                pass_fds=[listener.fileno()],
                process_group=0,
            )
    except OSError:
        return None
    return server, name


def main() -> None:
    """Serve until standard input ends; in a process that was forked, run what was asked for."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the runner, after all commands
    codes: list[int] = []
    atexit.register(_leave, codes)  # before the imports, so it comes after all that they register
    listener = socket.socket(fileno=int(sys.argv[1]))
    before = dict(os.environ)
    with warnings.catch_warnings(), absent("pandas"):  # see experiments.common.stage
        warnings.simplefilter("ignore")
        for module in MODULES:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()
    if not _can_fork():
        return
    set_by_imports = {name: os.environ[name] for name in os.environ.keys() - before}
    request = _serve(listener, _loaded_with(sys.executable, before))
    if request is not None:
        request["environment"] = {**set_by_imports, **request["environment"]}
        _become(request)
        try:
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
            codes.append(0)
        except SystemExit as ended:
            if ended.code is None or isinstance(ended.code, int):
                codes.append((ended.code or 0) & 0xFF)
            raise


def _leave(codes: list[int]) -> None:
    """End a forked process that is done, without taking apart what it shares with the others."""
    if codes:
        with suppress(OSError, ValueError):  # Python then says so in its own way
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])


def _can_fork() -> bool:
    """Whether this process has one thread at the time of a fork, and has touched no GPU.

    OpenBLAS ends its own threads before a fork, and starts them when they are needed.
    """
    try:
        child = os.fork()
    except OSError:
        return False
    if not child:
        os._exit(0)
    threads = len(os.listdir("/proc/self/task"))
    try:
        os.close(os.pidfd_open(child))
    except (AttributeError, OSError):  # an older system, or a Python built on one
        return False
    finally:
        os.waitpid(child, 0)
    return threads == 1 and "/libcuda.so" not in Path("/proc/self/maps").read_text()


@dataclass(frozen=True)
class _Command:
    """A process that was forked, and who waits for it."""

    process: int
    ended: int
    """A descriptor that can be read when the process has ended."""
    connection: socket.socket

    def close(self) -> None:
        self.connection.close()
        os.close(self.ended)


def _serve(listener: socket.socket, loaded: _Loaded) -> Request | None:
    """Fork for every request; return it in the new process, and None here in the end."""
    commands: list[_Command] = []
    with selectors.DefaultSelector() as events:
        events.register(0, selectors.EVENT_READ)
        events.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fd == 0:
                    _end_all(commands)
                    return None
                if key.fileobj is listener:
                    request, command = _begin(listener, loaded)
                    if request is not None:
                        listener.close()
                        for other in commands:
                            other.close()
                        return request
                    if command is not None:
                        commands.append(command)
                        events.register(command.connection, selectors.EVENT_READ, command)
                        events.register(command.ended, selectors.EVENT_READ, command)
                elif key.data not in commands:
                    pass  # it has ended in the same moment
                elif key.fd == key.data.ended:
                    commands.remove(key.data)
                    events.unregister(key.data.ended)
                    with suppress(KeyError):
                        events.unregister(key.data.connection)
                    _tell_end(key.data)
                elif not _pass_on(key.data):
                    events.unregister(key.data.connection)


def _begin(listener: socket.socket, loaded: _Loaded) -> tuple[Request | None, _Command | None]:
    """Fork for one who asks: the new process gets the request, this one the command.

    Nobody gets anything for a request that cannot be served; who asks then runs it by himself.
    """
    try:
        connection, _ = listener.accept()
    except OSError:
        return None, None
    request = _receive(connection, loaded)
    if request is None:
        connection.close()
        return None, None
    try:
        process = os.fork()
    except OSError:  # no more processes, or no memory for one
        process = None
    if process == 0:
        connection.close()
        return request, None
    for file in request["files"]:
        os.close(file)
    ended = None if process is None else _descriptor_of(process)
    if process is None or ended is None:
        connection.close()
        return None, None
    command = _Command(process, ended, connection)
    with suppress(OSError):
        connection.sendall(STARTED)
    return None, command


def _descriptor_of(process: int) -> int | None:
    """A descriptor that tells the end of a process; it is killed where the system has none left."""
    try:
        return os.pidfd_open(process)
    except OSError:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return None


def _receive(connection: socket.socket, loaded: _Loaded) -> Request | None:
    """What is asked for, with its standard files; None if it is not for this process."""
    connection.settimeout(SECONDS_FOR_A_REQUEST)
    files: list[int] = []
    try:
        if not is_mine(connection):
            return None
        length, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        (size,) = LENGTH.unpack(length)
        request: Request = json.loads(_all_of(connection, size))
        wanted = _loaded_with(request["executable"], request["environment"])
        if len(files) == 3 and wanted == loaded:
            return {**request, "files": files, "server": os.getpid()}
    except (OSError, ValueError, LookupError, TypeError, struct.error):
        pass
    for file in files:
        os.close(file)
    return None


def _all_of(connection: socket.socket, size: int) -> bytes:
    """So many bytes; `OSError` if they do not come in time, fewer if there are no more."""
    content = b""
    while len(content) < size and (more := connection.recv(size - len(content))):
        content += more
    return content


def _loaded_with(executable: str, environment: Mapping[str, str]) -> _Loaded:
    """What decides how Python and the libraries load."""
    read = {name: text for name, text in environment.items() if name.startswith(READ_AT_LOAD)}
    return executable, read


def _pass_on(command: _Command) -> bool:
    """Send the process the signals that its command was sent; kill it, and say no, if it died."""
    try:
        numbers = command.connection.recv(WAITING)
    except OSError:
        numbers = b""
    for number in numbers or (signal.SIGKILL,):
        os.kill(command.process, number)
    return bool(numbers)


def _tell_end(command: _Command) -> None:
    _, status = os.waitpid(command.process, 0)
    with suppress(OSError):
        command.connection.sendall(STATUS.pack(status))
    command.close()


def _end_all(commands: list[_Command]) -> None:
    """End what is left in order; what takes longer is killed when this process ends."""
    for command in commands:
        os.kill(command.process, signal.SIGTERM)
    deadline = time.monotonic() + SECONDS_FOR_COMMANDS
    for command in commands:
        with selectors.DefaultSelector() as events:
            events.register(command.ended, selectors.EVENT_READ)
            events.select(max(0.0, deadline - time.monotonic()))


def _become(request: Request) -> None:
    """Make this process, just forked, one that has begun as `python -m MODULE ...` does."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != request["server"]:
        os._exit(1)
    for number in PASSED_ON:
        is_ignored = number in request["ignored"]
        signal.signal(number, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    if signal.SIGINT not in request["ignored"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(PermissionError):  # a group of another session
        os.setpgid(0, request["group"])
    for name, limit in request["limits"].items():
        with suppress(OSError, ValueError):  # only root may raise a hard limit
            resource.setrlimit(getattr(resource, name), limit)
    for place, file in enumerate(request["files"]):
        os.dup2(file, place)
        os.close(file)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    sys.path = [request["folder"] if path == os.getcwd() else path for path in sys.path]
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["-m", *request["words"]]
    sys.orig_argv = [request["executable"], "-m", request["module"], *request["words"]]
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    gc.enable()


if __name__ == "__main__":
    main()
