"""A found network as data: JSON says how to build and narrow it, safetensors hold its weights.

Nothing in these files is code; loading them gives a plain `nn.Module`.
"""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from graphpruning.errors import UserError
from graphpruning.files import atomic, read_json, sha256, write_json
from graphpruning.network.cost import macs, params
from graphpruning.network.graph import Widths
from graphpruning.network.surgery import narrow
from graphpruning.network.trace import trace
from graphpruning.network.zoo import build

FORMAT = 1
_KEYS = {"format", "network", "input_size", "widths", "macs", "params", "preprocessing", "weights"}


def save_architecture(
    path: str | Path,
    weights_path: str | Path,
    model: nn.Module,
    *,
    network: dict[str, Any],
    input_size: tuple[int, ...],
    widths: Widths,
    preprocessing: dict[str, Any],
) -> None:
    """Write the narrowed `model` as `path` (JSON) and `weights_path` (safetensors).

    `network` is what `zoo.build` takes: name, num_classes, in_channels and options, of the full
    network. The JSON names the weights relative to itself, with their SHA-256.
    """
    graph = trace(build(**network), input_size)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic(weights_path) as beside:
        save_file(state, beside)
    description = {
        "format": FORMAT,
        "network": network,
        "input_size": list(input_size),
        "widths": dict(widths),
        "macs": macs(graph, widths),
        "params": params(graph, widths),
        "preprocessing": preprocessing,
        "weights": {
            "file": os.path.relpath(weights_path, Path(path).parent),
            "sha256": sha256(weights_path),
        },
    }
    write_json(path, description)


def load_architecture(path: str | Path, weights: str | Path | None = None) -> nn.Module:
    """Build the network that `path` describes, in evaluation mode.

    Weights come from `weights`, or from the file that the description names. Raises `UserError`
    when a file is missing, altered, or belongs to another network.
    """
    description = read_json(path, "save_architecture")
    if set(description) != _KEYS or description["format"] != FORMAT:
        raise UserError(f"{path} is not an architecture of format {FORMAT}")
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
        full = build(**description["network"])
    graph = trace(full, tuple(description["input_size"]))
    model = narrow(full, graph, description["widths"])
    file = Path(weights or Path(path).parent / description["weights"]["file"])
    if not file.exists():
        raise UserError(f"{file}, the weights of {path}, is missing: `dvc repro` or `dvc pull`")
    if weights is None and (found := sha256(file)) != (
        expected := description["weights"]["sha256"]
    ):
        raise UserError(f"{file} has SHA-256 {found}, but {path} expects {expected}")
    try:
        model.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} does not hold the weights of {path}: {reason}") from None
    return model.eval()
