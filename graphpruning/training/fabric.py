"""Where, in how many processes and in which precision to compute, as a Lightning Fabric."""

import os
import time
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from graphpruning.common.distributed import sum_over_ranks
from graphpruning.common.errors import UserError
from graphpruning.common.files import read_json, write_json
from graphpruning.common.machine import launched, processor
from graphpruning.common.names import nearest

PRECISIONS = ("auto", "32-true", "bf16-mixed")
WORTHWHILE = 1.2  # bf16 must be this many times faster than fp32 to be chosen on a CPU


def make_fabric(
    precision: str = "auto",
    accelerator: str = "auto",
    cache: str | Path = "checkpoints/precision.json",
) -> Fabric:
    """Return a launched Fabric: all of torchrun's processes, or else one device.

    Every process has a GPU of CUDA of its own, or shares the CPU where there is none (Apple's GPUs
    have no 64-bit numbers). They train together by DDP (`DistributedDataParallel`) over NCCL, on
    CPUs over gloo.

    Precision "auto" is bf16-mixed on GPUs that all have it. On a CPU a short timing decides, once:
    its answer is kept in `cache` for this processor, thread count and torch version, so that a
    machine always computes alike. Several CPU processes, which might differ in opinion, use fp32.

    Raises `UserError` for an unknown precision and for devices that are not there.
    """
    if precision not in PRECISIONS:
        near = nearest(precision, PRECISIONS)
        raise UserError(
            f"unknown precision {precision!r}: did you mean {near!r}? "
            f"(known: {', '.join(PRECISIONS)})"
        )
    # Jobs start their processes by torchrun; Lightning would advise Slurm's own way.
    warnings.filterwarnings("ignore", "The `srun` command is available")
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    where: dict[str, Any] = {"accelerator": accelerator, **_processes()}
    try:
        plain = Fabric(**where)
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"accelerator {accelerator!r}, devices {where['devices']}: {reason}"
        ) from None
    plain.launch()
    if precision == "auto":
        precision = _auto_precision(plain, Path(cache))
    fabric = Fabric(**where, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def _processes() -> dict[str, Any]:
    """What Fabric must know of the processes that torchrun has started, if it has."""
    total, here = (
        int(os.environ[name]) if launched() else 1 for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
    )
    if total == 1:
        return {"devices": 1}
    if total % here:
        raise UserError(
            f"torchrun: {here} of {total} processes here: start as many on each machine"
        )
    return {"devices": here, "num_nodes": total // here, "strategy": "ddp"}


def _auto_precision(plain: Fabric, cache: Path) -> str:
    """The same answer in every process."""
    if plain.device.type == "cuda":
        own = torch.cuda.is_bf16_supported(including_emulation=False)  # emulated it is slow
        able = int(sum_over_ranks(torch.tensor(int(own))))
        return "bf16-mixed" if able == plain.world_size else "32-true"
    if plain.device.type == "cpu" and plain.world_size == 1:
        return cpu_precision(cache)
    return "32-true"


def cpu_precision(cache: Path) -> str:
    """Return "bf16-mixed" or "32-true", whichever `cache` or else a timing says."""
    known = _timed(cache)
    machine = f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    if machine not in known:
        full, half = time_training_step()
        known[machine] = {
            "precision": "bf16-mixed" if full >= WORTHWHILE * half else "32-true",
            "fp32_ms": round(1000 * full, 2),
            "bf16_ms": round(1000 * half, 2),
        }
        write_json(cache, known)
    return str(known[machine]["precision"])


def _timed(cache: Path) -> dict[str, dict[str, Any]]:
    """What earlier timings said, by machine; nothing of a file that is damaged."""
    if not cache.exists():
        return {}
    try:
        held = read_json(cache, "a timing")
    except UserError as damage:
        print(f"{damage}: timed anew", flush=True)
        return {}
    of_machines = held.items() if isinstance(held, dict) else []
    return {
        machine: found
        for machine, found in of_machines
        if isinstance(found, dict) and found.get("precision") in PRECISIONS[1:]
    }


def time_training_step() -> tuple[float, float]:
    """Return seconds for forward and backward of a small network on the CPU: fp32, bf16.

    The best of several repeats, which alternate so that a busy moment hits both alike.
    """
    with torch.random.fork_rng([]):  # what follows must not depend on whether this was run
        block = (nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    net = nn.Sequential(*block, *deepcopy(block), *deepcopy(block))
    net.to(memory_format=torch.channels_last)
    images = torch.zeros(64, 32, 16, 16).to(memory_format=torch.channels_last)
    best = {False: float("inf"), True: float("inf")}
    for _ in range(8):
        for half in best:
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                loss = net(images).float().square().mean()
            loss.backward()
            best[half] = min(best[half], time.perf_counter() - start)
    return best[False], best[True]


def precision(fabric: Fabric) -> str:
    """Return the precision that `fabric` computes in, for example "bf16-mixed"."""
    return str(fabric._precision.precision)
