"""Programs that tests run: they end in time, and never outlive the test."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

SECONDS = 1200
"""What a program may take at most: twice what the smoke study needs beside other work."""
PATIENCE = 20
_SET_DEATH_SIGNAL = 1  # of Linux's prctl


def run(
    command: Sequence[str],
    folder: Path,
    environment: dict[str, str] | None = None,
    seconds: float = SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a program in `folder` and return what it said; AssertionError when it does not end."""
    process = start(command, folder, environment)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end(process)
        out, err = process.communicate()
        raise AssertionError(
            f"{' '.join(command)} did not end in {seconds} s:\n{out[-2000:]}\n{err[-2000:]}"
        ) from None
    finally:
        end(process)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def start(
    command: Sequence[str], folder: Path, environment: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    """Start a program in a process group of its own; it is told to end if the test's process dies.

    So torchrun, which gives its processes sessions of their own, ends these too.
    """
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=_end_with_parent,
    )


def end(process: "subprocess.Popen[str]") -> None:
    """End a program and its group, if any of it is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests in the background have it ignored
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
