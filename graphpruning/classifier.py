"""What `prune` asks of a network: scores of the data's classes, from images as they are trained on.

Images are in channels_last, which is faster. Old code says `x.view(x.size(0), -1)` where that needs
`reshape`; while `any_layout` is on, it is that.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from graphpruning.common.errors import UserError
from graphpruning.network.copies import copied
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.zoo import seeded

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def require_scores(name: str, model: nn.Module, size: tuple[int, ...], classes: int) -> None:
    """Raise `UserError` unless the network returns scores [images, classes].

    A network that does not run is refused by `trace`, which says more.
    """
    outputs = _run(model.eval(), 2, size)
    if outputs is None:
        return
    if not isinstance(outputs, Tensor) or outputs.ndim > 2:
        kind = "maps" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise UserError(
            f"{name} returns {kind}, and `prune` trains classifiers, which return scores [images, "
            "classes]; `trace` and `narrow` handle this network up to what it returns"
        )
    if outputs.shape != (2, classes):
        shape = " x ".join(str(side) for side in outputs.shape[1:])
        raise UserError(f"{name} has {shape} outputs, but the data {classes} classes")
    if (outputs >= 0).all() and torch.allclose(outputs.float().sum(1), torch.ones(2), atol=1e-4):
        raise UserError(
            f"{name} returns probabilities, which sum to 1, and `prune` trains with scores: take "
            "the softmax out of the network"
        )
    trained = _run(copied(model).train(), 2, size)
    if not isinstance(trained, Tensor | None):
        raise UserError(
            f"{name} returns a {type(trained).__name__} in training mode, and `prune` trains "
            "classifiers, which return scores [images, classes]; build it without auxiliary outputs"
        )


def require_batches(name: str, model: nn.Module, size: tuple[int, ...], images: int) -> None:
    """Raise `UserError` if the network trains on two images, but not on a batch of one."""
    if images > 1 or _run(copied(model).train(), 2, size) is None:
        return
    trained = _run(copied(model).train(), 1, size)
    if trained is None or trained.ndim != 2:
        raise UserError(
            f"{name} does not train on one image at a time, as where a layer normalises over the "
            "batch: give a batch size of 2 or more"
        )


def described(model: nn.Module, graph: ChannelGraph) -> str:
    """SHA-256 of what the network does: its operations, its modules' settings, and its buffers."""
    text = f"{graph.describe()}\n{graph.module.graph}\n{model!r}"
    digest = hashlib.sha256(_ADDRESS.sub("", text).encode())
    for name, buffer in model.named_buffers():
        digest.update(f"\0{name} {buffer.dtype} {tuple(buffer.shape)}\0".encode())
        digest.update(buffer.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def any_layout(model: nn.Module, size: tuple[int, ...]) -> Iterator[None]:
    """Within the block, the network runs on images in channels_last; costs nothing if it does so
    anyway. If not, every call passes through Python once more: times measured here are longer.
    """
    if _run(model, 2, size) is None or _run(model, 2, size, torch.channels_last) is not None:
        yield
        return
    with _Reshaping():
        yield


class _Reshaping(TorchFunctionMode):
    """`view` copies where numbers do not lie in memory as it asks for."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not Tensor.view:
            return func(*args, **kwargs)
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            return args[0].reshape(*args[1:], **kwargs)


def _run(
    model: nn.Module,
    images: int,
    size: tuple[int, ...],
    layout: torch.memory_format = torch.contiguous_format,
) -> Any:
    """What the network makes of noise; None if it does not run."""
    try:
        with torch.no_grad(), seeded(0):
            return model(torch.randn(images, *size).contiguous(memory_format=layout))
    except Exception:  # its own code raises whatever it likes
        return None
