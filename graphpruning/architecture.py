"""A found network as data: JSON says how to build and narrow it, safetensors hold its weights.

Nothing in these files is code; loading them gives a plain `nn.Module`. A network that a user's
own function builds is loaded only with that function in hand: a file never imports anything.
"""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from graphpruning.builder import Build, Builder
from graphpruning.errors import UserError
from graphpruning.files import atomic, read_json, sha256, write_json
from graphpruning.network import zoo
from graphpruning.network.cost import macs, params
from graphpruning.network.graph import Widths
from graphpruning.network.surgery import narrow
from graphpruning.network.trace import trace

FORMAT = 2
"""2 added networks that a user's function builds; files of format 1 are read as before."""
_KEYS = {"format", "network", "input_size", "widths", "macs", "params", "preprocessing", "weights"}


def save_architecture(
    path: str | Path,
    weights_path: str | Path,
    model: nn.Module,
    *,
    network: dict[str, Any] | Builder,
    input_size: tuple[int, ...],
    widths: Widths,
    preprocessing: dict[str, Any],
) -> None:
    """Write the narrowed `model` as `path` (JSON) and `weights_path` (safetensors).

    `network` is the full network: what `zoo.build` takes (name, num_classes, in_channels and
    options), or a `Builder`. The JSON names the weights relative to itself, with their SHA-256.
    """
    made = network if isinstance(network, Builder) else Builder(zoo.build, network)
    graph = trace(_unseeded(made), input_size)
    # safetensors refuses channels_last tensors, hence contiguous.
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic(weights_path) as beside:
        save_file(state, beside)
        digest = sha256(beside)
    description = {
        "format": FORMAT,
        "network": made.description,
        "input_size": list(input_size),
        "widths": dict(widths),
        "macs": macs(graph, widths),
        "params": params(graph, widths),
        "preprocessing": preprocessing,
        "weights": {
            "file": os.path.relpath(weights_path, Path(path).parent),
            "sha256": digest,
        },
    }
    write_json(path, description)


def load_architecture(
    path: str | Path, weights: str | Path | None = None, *, build: Build | None = None
) -> nn.Module:
    """Build the network that `path` describes, in evaluation mode.

    Weights come from `weights`, or from the file that the description names. `build` is the
    user's function that builds the full network, where `path` names one; it is called as it was
    then. Raises `UserError` when it is not given, and when a file is missing, altered, or belongs
    to another network.
    """
    description = read_architecture(path)
    full = _unseeded(_builder(path, description["network"], build))
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


def read_architecture(path: str | Path) -> dict[str, Any]:
    """Return the description in `path`; `UserError` when it is not one of ours."""
    description = read_json(path, "save_architecture")
    known = isinstance(description, dict) and set(description) == _KEYS
    if not known or description["format"] not in (1, FORMAT):
        raise UserError(f"{path} is not an architecture of format 1 to {FORMAT}")
    result: dict[str, Any] = description
    return result


def _builder(path: str | Path, network: dict[str, Any], build: Build | None) -> Builder:
    if "function" not in network:
        return Builder(zoo.build, network)
    if build is None:
        taken = "".join(f" {name}" for name in network if name != "function")
        raise UserError(
            f"the network of {path} is your own, {network['function']}: give a function that "
            f"returns the full network, as load_architecture(..., build=lambda{taken}: model) or "
            "--model package.module:function"
        )
    return Builder(build, network)


def _unseeded(make: Builder) -> nn.Module:
    """Build a network whose initial weights are thrown away, and leave the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        return make()
