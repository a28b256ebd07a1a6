"""What this machine and this process are, in words that name no host; who speaks for all."""

import os
import platform
import signal
import sys
import time
from pathlib import Path

from graphpruning.errors import UserError

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


def refuse(refusal: UserError) -> int:
    """Say why, once; return the exit code.

    All processes may refuse, or this one alone. So all but the first wait: if it refuses too,
    torchrun ends them before they speak.
    """
    if not is_writer():
        signal.signal(signal.SIGTERM, lambda *_: os._exit(2))
        time.sleep(PATIENCE)
    print(f"error: {refusal}", file=sys.stderr, flush=True)
    return 2
