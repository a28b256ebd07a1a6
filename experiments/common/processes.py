"""A stage in several processes, though its command, which DVC records, is that of one."""

import os
import sys

from graphpruning.common.errors import UserError
from graphpruning.common.machine import is_writer, launched

PROCESSES = "GRAPHPRUNING_PROCESSES"
OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def gathered() -> None:
    """Go on as a process of its own: of those that torchrun has started the first one alone.

    The others end at once, and torchrun waits for the first, however long it takes.
    """
    if not launched():
        return
    if not is_writer():
        sys.exit(0)
    for name in list(os.environ):
        if name in OF_TORCHRUN or name.startswith("TORCHELASTIC_"):
            del os.environ[name]


def spread_out(module: str) -> None:
    """Start this program again, by torchrun, in as many processes as `GRAPHPRUNING_PROCESSES` says.

    Nothing happens if that is one or nothing, or inside torchrun. Raises `UserError` for what is no
    number.
    """
    wanted = os.environ.get(PROCESSES, "") or "1"
    if not (wanted.isdecimal() and int(wanted)):
        raise UserError(f"{PROCESSES}={wanted}: say how many processes a stage runs in")
    if int(wanted) == 1 or launched():
        return
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    os.execv(sys.executable, [*torchrun, f"--nproc-per-node={wanted}", "-m", module, *sys.argv[1:]])
