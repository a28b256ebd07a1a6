"""What this machine and this process are, in words that name no host; who speaks for all."""

import os
import platform
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from graphpruning.common.errors import UserError

PATIENCE = 10
"""Seconds, of which torchrun surely needs less to end the others after one has failed."""


def processor() -> str:
    """Return the processor's model, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def launched() -> bool:
    """Return whether torchrun started this process, alone or as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_writer() -> bool:
    """Return whether this process writes files and messages: the first, of those that torchrun
    starts. Known from the environment, so before the processes have met.
    """
    return not launched() or os.environ["RANK"] == "0"


def on_several_machines() -> bool:
    """Return whether torchrun started processes on other machines too."""
    return launched() and os.environ["WORLD_SIZE"] != os.environ["LOCAL_WORLD_SIZE"]


def end_on_signals() -> None:
    """From here on SIGTERM and SIGINT (Ctrl-C) end this process in order, and without a traceback.

    What is half-written is removed on the way, and the exit code is the shell's for the signal: 143
    or 130. Who was told to ignore a signal goes on ignoring it. Processes that torchrun started
    keep PyTorch's ways: they wait for each other in native code, where Python answers no signal.
    """
    if launched():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    for another in (signal.SIGTERM, signal.SIGINT):  # would interrupt what is being put in order
        signal.signal(another, signal.SIG_IGN)
    raise SystemExit(128 + number)


def refuse(refusal: UserError | OSError) -> int:
    """Say why, once and in one line; return the exit code.

    All processes may refuse, or this one alone. So all but the first wait: if it refuses too,
    torchrun ends them before they speak.
    """
    if not is_writer():
        signal.signal(signal.SIGTERM, lambda *_: os._exit(2))
        time.sleep(PATIENCE)
    reason = str(refusal)
    if isinstance(refusal, OSError) and refusal.filename is not None:
        reason = f"{refusal.filename}: {refusal.strerror}"
    print(f"error: {' '.join(reason.split())}", file=sys.stderr, flush=True)
    return 2
