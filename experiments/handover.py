"""The command's side of `experiments.preloaded`: hand this command over, and end as it ends.

A stage imports this before anything else, and only if `SERVER` is in its environment.
"""

import json
import os
import resource
import signal
import socket
import struct
import sys
from types import FrameType
from typing import Any

SERVER = "GRAPHPRUNING_PRELOADED"
"""Names the socket of the process that runs commands; set for what `make repro` starts."""
SOONER_HERE = "experiments.check"  # it imports little
STARTED = b"+"
LENGTH, STATUS, CREDENTIALS = struct.Struct("!I"), struct.Struct("!i"), struct.Struct("3i")
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def hand_over() -> None:
    """Have this command run, and end as it ends; return where nobody takes it, to run it here."""
    address = os.environ.pop(SERVER)
    if sys.orig_argv[1] != "-m" or sys.orig_argv[2] == SOONER_HERE:
        return  # options of Python's own cannot be handed over
    handlers = {number: signal.getsignal(number) for number in PASSED_ON}
    ignored = [number for number in PASSED_ON if handlers[number] == signal.SIG_IGN]
    told: list[int] = []

    def tell(number: int, frame: FrameType | None) -> None:
        told.append(number)
        connection.send(bytes([number]))

    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(f"\0{address}")
            if not is_mine(connection):
                return
            request = json.dumps(_request(ignored)).encode()
            socket.send_fds(connection, [LENGTH.pack(len(request))], [0, 1, 2])
            connection.sendall(request)
            for number in handlers.keys() - ignored:
                signal.signal(number, tell)
            is_started = connection.recv(len(STARTED)) == STARTED
        except OSError:
            is_started = False
        if is_started:
            _end_as(_status(connection))
    for number in handlers.keys() - ignored:
        signal.signal(number, handlers[number])
    for signalled in told:
        os.kill(os.getpid(), signalled)


def is_mine(connection: socket.socket) -> bool:
    """Whether a process of this user is at the other end, by what the system says."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(told)[1]) == os.getuid()


def limits() -> dict[str, tuple[int, int]]:
    """What the system allows this process (`ulimit`), by names of the module `resource`."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def _request(ignored: list[signal.Signals]) -> dict[str, Any]:
    return {
        "executable": sys.executable,
        "module": sys.orig_argv[2],
        "words": sys.orig_argv[3:],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "limits": limits(),
        "group": os.getpgrp(),
        "ignored": ignored,
    }


def _status(connection: socket.socket) -> int | None:
    """How the command has ended, as `waitpid` tells it; None where nobody can tell any more."""
    try:
        return int(STATUS.unpack(connection.recv(STATUS.size, socket.MSG_WAITALL))[0])
    except (OSError, struct.error):
        return None


def _end_as(status: int | None) -> None:
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the other process has left its own
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
