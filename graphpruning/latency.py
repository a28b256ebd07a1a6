"""How long networks take for a batch of images, side by side on this machine."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from graphpruning.common.errors import UserError, reason

WARMUP, REPEATS = 5, 51
QUANTILE = 0.25
"""Of the repeats: where other processes work too, half of them may have been held up."""


@torch.no_grad()
def latency(
    models: Sequence[nn.Module],
    input_size: tuple[int, ...],
    device: torch.device,
    batch: int = 1,
) -> list[float]:
    """Return each model's milliseconds for a batch, in evaluation mode and fp32.

    All models are moved to `device` in one memory format, because a format alone can make a
    network faster.
    """
    channels_last = torch.channels_last
    images = torch.zeros(batch, *input_size, device=device).contiguous(memory_format=channels_last)
    for model in models:
        model.to(device).to(memory_format=channels_last).eval()
    return alternately([partial(model, images) for model in models], device)


def alternately(
    calls: Sequence[Callable[[], object]], device: torch.device, repeats: int = REPEATS
) -> list[float]:
    """Return the lower quartile of each call's milliseconds.

    Repeats alternate, so that a busy moment hits all alike, and none finds its weights in a cache
    that only it would use.
    """
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(WARMUP + repeats):
        for call, mine in zip(calls, times, strict=True):
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            if repeat >= WARMUP:
                mine.append(1000 * (time.perf_counter() - start))
    return [float(np.quantile(mine, QUANTILE)) for mine in times]


def device_of(name: str | torch.device) -> torch.device:
    """Return the device called `name`; `UserError` when this machine has none, or it is of another
    kind than cpu and cuda.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {str(name)!r} is not there ({reason(error)}); try cpu") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {str(name)!r}: networks run and are timed on cpu or cuda")
    return device


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
