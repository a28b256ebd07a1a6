"""How long networks take for one image, side by side on this machine."""

import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import nn

WARMUP, REPEATS = 5, 51


@torch.no_grad()
def latency(
    models: Sequence[nn.Module], input_size: tuple[int, ...], device: torch.device
) -> list[float]:
    """Return each model's median milliseconds for one image, in evaluation mode and fp32.

    Repeats alternate, so that a busy moment hits all models alike. All models are moved to
    `device` in one memory format, because a format alone can make a network faster.
    """
    channels_last = torch.channels_last
    image = torch.zeros(1, *input_size, device=device).contiguous(memory_format=channels_last)
    times: list[list[float]] = [[] for _ in models]
    for model in models:
        model.to(device).to(memory_format=channels_last).eval()
    for repeat in range(WARMUP + REPEATS):
        for model, mine in zip(models, times, strict=True):
            _wait(device)
            start = time.perf_counter()
            model(image)
            _wait(device)
            if repeat >= WARMUP:
                mine.append(1000 * (time.perf_counter() - start))
    return [median(mine) for mine in times]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
