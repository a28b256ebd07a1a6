"""Weights that somebody else trained: torchvision's by name, or a file of one's own."""

import os
import pickle
import struct
import textwrap
import warnings
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from graphpruning.common.errors import UserError, one_line, reason
from graphpruning.common.files import require_file, sum_of, unwritable
from graphpruning.training.checkpoint import read_checked

TORCHVISION = "torchvision"
MAKER = "`torch.save(model.state_dict(), FILE)`"
ZIP = b"PK\x03\x04"  # how a file of torch.save begins since 1.6
UNREADABLE = (  # what is raised for a file of torch.save that is damaged, or no such file
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    MemoryError,
    RuntimeError,
    pickle.UnpicklingError,
    struct.error,
    zlib.error,
    BadZipFile,
)


def load_pretrained(model: nn.Module, name: str, source: str) -> dict[str, str]:
    """Load ready-made weights into `model`, and say which: `source` and the file's `sha256`.

    `source` is "torchvision" (its default weights for the network `name`), one of its other
    weights ("torchvision:IMAGENET1K_V1"), or a file: `.safetensors`, or what `torch.save` wrote
    (tensors by name, nothing that would run). A path may hold environment variables. torchvision's
    are downloaded once, to PyTorch's hub folder ($TORCH_HOME/hub/checkpoints).

    Raises `UserError` for a file that is missing, damaged, of another network, or that holds
    anything but finite tensors; `model` may then have some of its tensors.
    """
    from_torchvision = source.split(":")[0] == TORCHVISION
    path = _downloaded(name, source) if from_torchvision else _expanded(source)
    tensors = _tensors(path)
    for key, tensor in tensors.items():
        if fault := _fault(key, tensor):
            raise UserError(f"{path}: {one_line(key)} {fault}: name a file of sound weights")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        misfit = str(error).partition("\n\t")[2] or str(error)  # the heading is left out
        misfit = one_line(textwrap.shorten(misfit.partition("\n\t")[0], 200))
        raise UserError(f"{path} does not fit {name}: {misfit}") from None
    return {"source": source if from_torchvision else path.name, "sha256": sum_of(path, MAKER)}


def _tensors(path: Path) -> dict[str, Tensor]:
    require_file(path, MAKER)
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else read_saved(path)
    except (SafetensorError, *UNREADABLE) as error:
        if _holds_objects(path, error):
            raise UserError(
                f"{path} holds Python objects; save model.state_dict(), which is tensors by name"
            ) from None
        raise UserError(
            f"{path} is not a whole file of weights ({said(error)}): get it again, or save it by "
            f"{MAKER}"
        ) from None
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and torch.is_tensor(tensor) for key, tensor in tensors.items()
    ):
        raise UserError(f"{path} does not hold tensors by name: save the network's state_dict()")
    return tensors


def read_saved(path: Path) -> Any:
    """Read tensors, numbers and text that `torch.save` wrote, in today's format or the older.

    What is damaged raises one of `UNREADABLE`. Nothing in the file is run.
    """
    with open(path, "rb") as file:
        is_zip = file.read(len(ZIP)) == ZIP
    with warnings.catch_warnings(action="ignore"):  # of pickles that are refused anyway
        return read_checked(path) if is_zip else torch.load(path, "cpu", weights_only=True)


def said(error: BaseException) -> str:
    """Return what one of `UNREADABLE` says, but for torch's advice to run what is in the file."""
    return "it is no pickle of tensors" if "weights_only" in str(error) else reason(error)


def _holds_objects(path: Path, error: BaseException) -> bool:
    """Say whether `read_saved` raised `error` because of what the file holds, not of damage."""
    if not isinstance(error, pickle.UnpicklingError):
        return "TorchScript" in str(error)
    with open(path, "rb") as file:
        start = file.read(len(ZIP))
    # The check sums of an archive were right; torch itself writes the pickle protocol 2.
    whole = start == ZIP or start[:2] in (b"\x80\x03", b"\x80\x04", b"\x80\x05")
    return whole or any(sign in str(error) for sign in ("GLOBAL ", "Trying to ", "Can only "))


def _fault(name: str, tensor: Tensor) -> str | None:
    """Say what makes a tensor useless in any network."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return "is no plain tensor (but sparse, quantised or without values)"
    # As 32 bits, which is what networks compute in: larger values become infinite there.
    values = tensor.float() if tensor.is_floating_point() else tensor
    if not values.isfinite().all():
        return "holds NaN" if values.isnan().any() else "holds infinite values"
    if name.endswith("running_var") and (values < 0).any():
        return "holds negative variances"
    return None


def _expanded(source: str) -> Path:
    path = os.path.expandvars(source)
    if "$" in path:
        raise UserError(f"weights: {source}: an environment variable in it is not set")
    return Path(path)


def _downloaded(name: str, source: str) -> Path:
    """The file of torchvision's weights, from PyTorch's hub folder or else from the internet."""
    from torchvision import models

    try:
        known = models.get_model_weights(name)
    except ValueError:
        raise UserError(f"torchvision has no weights for {name}: name a file instead") from None
    wanted = source.partition(":")[2] or "DEFAULT"
    if wanted not in known.__members__:
        raise UserError(
            f"torchvision has no weights {wanted!r} for {name}, but: {', '.join(known.__members__)}"
        )
    url = known[wanted].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not os.path.lexists(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(error, path) from error
        stated = path.stem.rpartition("-")[2]  # a file's name ends in the start of its SHA-256
        try:
            torch.hub.download_url_to_file(url, str(path), stated)
        except (OSError, RuntimeError, HTTPException) as error:
            raise UserError(
                f"{path.name} cannot be downloaded ({reason(error)}): put torchvision's file into "
                f"{path.parent}"
            ) from None
    return path
