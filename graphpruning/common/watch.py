"""What a process cannot say itself: by which signal it died, and what to do. A watcher says it.

The watcher is this file, run as a program beside the watched process. It reads a pipe that only
ends with that process, and into which Python's faulthandler writes on a fault of native code.
"""

import atexit
import faulthandler
import os
import re
import subprocess
import sys
from contextlib import suppress

DONE = b"\nended by itself\n"
_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
"""By how faulthandler's first line calls them."""
NATIVE = (
    "a fault of a library's native code, not of your settings; faults of oneDNN's fp32 kernels are "
    "the known ones: try `export ONEDNN_MAX_CPU_ISA=AVX`, or precision: bf16-mixed"
)
ILLEGAL = "this processor lacks an instruction that a library was built for: reinstall it"
KILLED = (
    "sent by somebody, or by the system when memory runs out (`dmesg` tells): if so, lower data: "
    "workers, and else batch_size, or run one stage at a time (threads: null)"
)
RESUME = "started again with the same code, recipe and threads, it goes on from what it has saved"


def watch(what: str) -> None:
    """Have the end of this process explained on standard error, if a signal brings it.

    `what` names the work in that line. A program calls this once, at its start.
    """
    reading, writing = os.pipe()
    command = [sys.executable, "-I", "-S", __file__, what]
    try:
        # In a group of its own: what ends the whole group is not meant for who tells of it.
        subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL, process_group=0)
    except OSError:  # no memory for a second process: the work is more important
        os.close(writing)
        return
    finally:
        os.close(reading)
    faulthandler.enable(writing, all_threads=False)

    def done() -> None:
        faulthandler.disable()
        with suppress(OSError):  # somebody has ended the watcher
            os.write(writing, DONE)
        os.close(writing)

    atexit.register(done)


def explained(what: str, written: bytes) -> str | None:
    """One line about the end of `what`, by what its pipe held; None where it ended by itself."""
    if written.endswith(DONE):
        return None
    text = written.decode("utf-8", "replace")
    fault = re.search(r"Fatal Python error: (.*)", text)
    if fault is None:
        return f"{what} was killed (SIGKILL), {KILLED}; {RESUME}"
    name = _SIGNALS.get(fault[1], fault[1])
    place = re.search(r'File ".*?([^/"]+/[^/"]+)", line (\d+) in (\S+)', text)
    where = f" in {place[1]}:{place[2]} ({place[3]})" if place else ""
    return f"{what} died of {name}{where}: {ILLEGAL if name == 'SIGILL' else NATIVE}; {RESUME}"


def main(what: str) -> None:
    """Wait for the end of the other process, and say what brought it."""
    if line := explained(what, sys.stdin.buffer.read()):
        print(f"error: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
