"""What this machine is, in words that name no host."""

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
