"""Work in a process of its own, so that neither its memory nor its allocator is shared."""

import re
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from benchmarks import harness
from graphpruning.common.errors import UserError
from graphpruning.common.memory import keep_freed_memory

Work = Callable[[int], object]
"""What is measured, called with the number of the repeat."""


class Apart:
    """A process that makes a piece of work and then does it whenever it is called.

    Used as a context: the process ends with the block. What `make` raises as `UserError` is raised
    here.

    Args:
        make: makes the work, in the process.
        keep_memory: let the process keep what it frees, as this project's commands do.
    """

    def __init__(self, make: Callable[[], Work], keep_memory: bool) -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        settings = (harness.PRECISION, torch.get_num_threads(), keep_memory)
        self.process = context.Process(target=_serve, args=(make, settings, other), daemon=True)

    def __enter__(self) -> Self:
        self.process.start()
        refusal = self.pipe.recv()
        if refusal is not None:
            raise UserError(refusal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.terminate()
        self.process.join()

    def __call__(self, repeat: int) -> float:
        """Return the seconds that the work took."""
        self.pipe.send(repeat)
        return float(self.pipe.recv())

    def peak(self) -> float:
        """Return the most memory that the process has had, in GB."""
        # Linux's own figure: getrusage's would count what the parent process had.
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(kilobytes) * 1024 / 1e9


def as_told(work: Callable[[], object]) -> float:
    """The seconds that an `Apart` returns, in place of those that `alternate` would measure."""
    taken = work()
    assert isinstance(taken, float)
    return taken


def _serve(make: Callable[[], Work], settings: tuple[str, int, bool], pipe: Connection) -> None:
    harness.PRECISION, threads, keep_memory = settings
    torch.set_num_threads(threads)
    if keep_memory:
        keep_freed_memory()
    try:
        work = make()
    except UserError as refusal:
        pipe.send(str(refusal))
        return
    pipe.send(None)
    while True:
        repeat = pipe.recv()
        pipe.send(harness.seconds(partial(work, repeat)))
