"""Weights that somebody else trained: torchvision's by name, or a file of one's own."""

import os
import pickle
import re
import struct
import textwrap
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Mapping
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
from graphpruning.common.machine import is_writer
from graphpruning.training.checkpoint import read_checked
from graphpruning.training.sound import first_fault
from graphpruning.training.state_dicts import OPTIONAL, Found, find

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

    Tensors may lie in a checkpoint, and names may have a prefix (see `state_dicts`): one line says
    what was taken. FILE:PLACE names one of several networks in a file. Of any floating-point type
    they become the network's.

    Raises `UserError` for a file that is missing, damaged, of another network, or that holds
    anything but finite tensors; `model` may then have some of its tensors.
    """
    from_torchvision = source.split(":")[0] == TORCHVISION
    path, part = (_downloaded(name, source), "") if from_torchvision else _expanded(source)
    content, own = _content(path), model.state_dict()
    try:
        found = find(content, own, part)
    except UserError as refusal:
        raise UserError(f"{path}: {refusal}") from None
    if found is None:
        raise UserError(f"{path} does not hold tensors by name: save the network's state_dict()")
    if fault := first_fault(found.tensors, own):
        raise UserError(f"{path}: {fault}: name a file of sound weights")
    _load(model, found, f"{path} does not fit {name}")
    if is_writer() and (said := ", ".join(filter(None, [found.said, _converted(found, own)]))):
        print(f"{path}: took {said}", flush=True)
    named = path.name + (f":{part}" if part else "")
    return {"source": source if from_torchvision else named, "sha256": sum_of(path, MAKER)}


def _load(model: nn.Module, found: Found, misfit: str) -> None:
    own = model.state_dict()
    # As a state dict has versions of its modules, by which they know how to read older ones.
    state: OrderedDict[str, Any] = OrderedDict(found.tensors)
    state._metadata = {**getattr(own, "_metadata", {}), **found.versions}  # type: ignore[attr-defined]
    for name, value in own.items():
        if name.endswith(OPTIONAL):
            state.setdefault(name, value)
    try:
        model.load_state_dict(state)
    except UNREADABLE as error:
        first = str(error).partition("\n\t")[2] or str(error)  # the heading is left out
        first = one_line(textwrap.shorten(first.partition("\n\t")[0], 200)).rstrip(".")
        raise UserError(
            f"{misfit}: {first}: give weights of this very network, trained for these classes"
        ) from None


def _converted(found: Found, own: Mapping[str, Tensor]) -> str:
    """Say of which type the numbers were, if they were not as in the network."""
    kinds = {
        str(found.tensors[name].dtype).removeprefix("torch.")
        for name, value in own.items()
        if torch.is_tensor(value) and value.is_floating_point() and name in found.tensors
        if found.tensors[name].dtype != value.dtype
    }
    return f"{' and '.join(sorted(kinds))} as 32-bit numbers" if kinds else ""


def _content(path: Path) -> Any:
    require_file(path, MAKER)
    try:
        return load_file(path) if path.suffix == ".safetensors" else read_saved(path)
    except (SafetensorError, *UNREADABLE) as error:
        if _holds_objects(path, error):
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            which = f" (here is {named[1]})" if named else ""
            raise UserError(
                f"{path} holds Python objects; save model.state_dict(), which is tensors by name"
                f"{which}"
            ) from None
        raise UserError(
            f"{path} is not a whole file of weights ({said(error)}): get it again, or save it by "
            f"{MAKER}"
        ) from None


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


def _expanded(source: str) -> tuple[Path, str]:
    """The file, and the place in it that is named behind a colon."""
    path = os.path.expandvars(source)
    if "$" in path:
        raise UserError(f"weights: {source}: an environment variable in it is not set")
    file, _, part = path.rpartition(":")
    if file and os.path.lexists(file) and not os.path.lexists(path):
        return Path(file), part
    return Path(path), ""


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
