"""Stages in two processes that are told what torchrun would tell them.

They are forked from one that has imported torch, which a real torchrun has imported three times.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.preloaded import preloaded
from tests import processes


@contextmanager
def launched(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield what the environments of both processes have in common."""
    two = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    told = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "localhost", **two}
    with preloaded({**environment, **told}) as known:
        yield known


def of_rank(rank: str, port: int) -> dict[str, str]:
    """What is of one process, or of one start of both."""
    return {"RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": str(port)}


def run_by_two(command: Sequence[str], folder: Path, common: Mapping[str, str]) -> None:
    """Run a command in both, and require that each ends well."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = int(free.getsockname()[1])
    both = [processes.start(command, folder, {**common, **of_rank(rank, port)}) for rank in "01"]
    try:
        for process in both:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, out + err
    finally:
        for process in both:
            processes.end(process)
