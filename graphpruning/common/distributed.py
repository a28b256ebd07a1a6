"""One program in several processes (torchrun): how they share work and agree on its result.

Everything here works in a single process too, where there is nobody to share with or wait for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from graphpruning.common.errors import UserError
from graphpruning.common.machine import is_writer as is_writer

T = TypeVar("T")


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes that work together: those of the process group, or 1."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait until every process has come here: what one wrote before, all may read after."""
    if world() > 1:
        dist.barrier()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of every process's `tensor` (on any device), the same in all processes."""
    if world() == 1:
        return tensor
    total: Tensor = _Sum.apply(tensor.to(_device()))
    return total.to(tensor.device)


def require_same(numbers: Iterable[int], otherwise: str) -> None:
    """Raise `UserError(otherwise)` in every process unless all come with the same `numbers`."""
    if world() == 1:
        return
    own = torch.tensor(list(numbers), device=_device())
    extremes = torch.stack([own, -own])
    dist.all_reduce(extremes, dist.ReduceOp.MAX)
    if (extremes[0] != -extremes[1]).any():
        raise UserError(otherwise)


def require_shared(path: Path, found: int) -> None:
    """Raise `UserError` in every process unless all have `found` the same in the file `path`.

    No process goes on before all have read it.
    """
    require_same(
        [found],
        f"{path} is not the same for all processes: keep the project in a folder that all "
        "machines share",
    )


def share(items: Iterable[T]) -> Iterator[tuple[int, T]]:
    """Yield this process's part of `items`, every `world()`-th one, each with its position.

    Of a sequence only this part is touched; any other iterable is gone through as a whole.
    """
    if isinstance(items, Sequence):
        for position in range(rank(), len(items), world()):
            yield position, items[position]
    else:
        yield from islice(enumerate(items), rank(), None, world())


def batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """As `F.batch_norm`, but in training the statistics are those of all processes' images.

    `x` is [batch, channels, ...]; batches may differ in size between processes but not be empty.
    Running `mean` and `variance` (unbiased, by the total count) are updated alike everywhere.
    PyTorch's own `SyncBatchNorm` is for GPUs only.
    """
    if world() == 1 or not training:
        return F.batch_norm(x, mean, variance, scale, shift, training, momentum, eps)
    axes = [0, *range(2, x.ndim)]
    precision = torch.promote_types(x.dtype, torch.float32)
    own_variance, own_mean = torch.var_mean(x.to(precision), axes, correction=0)
    # In float64, in which E[x²] - E[x]² loses nothing that float32 would have kept.
    own_mean, own_variance = own_mean.double(), own_variance.double()
    moments = torch.cat([own_mean, own_variance + own_mean.square(), own_mean.new_ones(1)])
    sums = sum_over_ranks(moments * (x.numel() / x.shape[1]))
    count = sums[-1].detach()
    all_mean, square = (sums[:-1] / count).chunk(2)
    all_variance = square - all_mean.square()
    if mean is not None and variance is not None:
        with torch.no_grad():
            mean.lerp_(all_mean.to(mean.dtype), momentum)
            unbiased = all_variance * (count / (count - 1))
            variance.lerp_(unbiased.to(variance.dtype), momentum)
    factor = (all_variance + eps).rsqrt()
    if scale is not None:
        factor = factor * scale
    offset = -all_mean * factor
    if shift is not None:
        offset = offset + shift
    shape = (1, -1, *[1] * (x.ndim - 2))
    factor, offset = factor.to(precision).view(shape), offset.to(precision).view(shape)
    return (x * factor + offset).to(x.dtype)


class Synchronised(TorchFunctionMode):
    """Inside the block, batch normalisations train with all processes' statistics.

    That of a module, and that which a module's own `forward` calls; in one process all is as ever.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm and world() > 1:
            return _as_f_batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _as_f_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`batch_norm` with the arguments of PyTorch's."""
    return batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def _device() -> torch.device:
    """Where the process group's tensors must be."""
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
