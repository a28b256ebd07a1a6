"""A stage in several processes, though its command, which DVC records, is that of one."""

import os
import sys

from graphpruning.common.errors import UserError
from graphpruning.common.machine import launched

PROCESSES = "GRAPHPRUNING_PROCESSES"


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
