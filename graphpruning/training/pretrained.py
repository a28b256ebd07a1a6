"""Weights that somebody else trained: torchvision's by name, or a file of one's own."""

import os
import pickle
import textwrap
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from graphpruning.errors import UserError
from graphpruning.files import sha256

TORCHVISION = "torchvision"


def load_pretrained(model: nn.Module, name: str, source: str) -> dict[str, str]:
    """Load ready-made weights into `model`, and say which: `source` and the file's `sha256`.

    `source` is "torchvision" (its default weights for the network `name`), one of its other
    weights ("torchvision:IMAGENET1K_V1"), or a file: `.safetensors`, or what `torch.save` wrote
    (tensors by name, nothing that would run). A path may hold environment variables. torchvision's
    are downloaded once, to PyTorch's hub folder ($TORCH_HOME/hub/checkpoints).

    Raises `UserError` for a file that is missing, damaged or of another network.
    """
    from_torchvision = source.split(":")[0] == TORCHVISION
    path = _downloaded(name, source) if from_torchvision else _expanded(source)
    try:
        model.load_state_dict(_tensors(path))
    except RuntimeError as error:
        _, misfit, *_ = str(error).split("\n\t")  # a heading, then what does not fit
        raise UserError(f"{path} does not fit {name}: {textwrap.shorten(misfit, 200)}") from None
    return {"source": source if from_torchvision else path.name, "sha256": sha256(path)}


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: name a file of weights, or torchvision") from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        reason = textwrap.shorten(str(error), 200)
        raise UserError(f"{path} is not a whole file of weights ({reason})") from None
    if not isinstance(tensors, dict) or not all(torch.is_tensor(t) for t in tensors.values()):
        raise UserError(f"{path} does not hold tensors by name: save the network's state_dict()")
    return tensors


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
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        stated = path.stem.rpartition("-")[2]  # a file's name ends in the start of its SHA-256
        try:
            torch.hub.download_url_to_file(url, str(path), stated)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{path.name} cannot be downloaded ({error}): put torchvision's file into "
                f"{path.parent}"
            ) from None
    return path
