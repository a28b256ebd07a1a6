"""What this machine and this process are, in words that name no host."""

import os
import platform
from pathlib import Path


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
