"""PyTorch's defaults as they are when nobody has set them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def usual_defaults() -> Iterator[None]:
    """Within the block new tensors are in float32 and on the CPU, whatever a notebook has set.

    A network is followed by numbers on the CPU, and trained in 32 bits; both of
    `torch.set_default_dtype` and `torch.set_default_device` would get between. Afterwards they are
    as they were. It decorates functions too.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    try:  # as a context the device costs a little at every call, so only where it has to be set
        with nullcontext() if device.type == "cpu" else torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
