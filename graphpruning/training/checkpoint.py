"""Weights as safetensors, and checkpoints from which training goes on exactly."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graphpruning.errors import UserError
from graphpruning.files import atomic


def save_weights(path: str | Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors, whole or not at all."""
    # safetensors refuses channels_last tensors, hence contiguous.
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    with atomic(path) as beside:
        save_file(tensors, beside)


def load_weights(path: str | Path, model: nn.Module | None = None) -> dict[str, Tensor]:
    """Return the tensors of `path` (on the CPU), after loading them into `model` if given.

    Raises `UserError` for a file that is missing or not whole, and for the weights of another
    network, naming the first tensor that does not fit.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that trains these weights") from None
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}): "
            "delete it and run the stage that trains these weights"
        ) from None
    if model is not None:
        mismatch = _first_mismatch(model.state_dict(), tensors)
        if mismatch:
            raise UserError(f"{path} holds the weights of another network: {mismatch}")
        model.load_state_dict(tensors)
    return tensors


def _first_mismatch(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    for name, tensor in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name].shape != tensor.shape:
            return f"{name} is {list(found[name].shape)}, expected {list(tensor.shape)}"
    return next((f"{name} is unexpected" for name in found if name not in wanted), None)


class Checkpoint:
    """One file that holds the state of a run, valid for one `fingerprint` only.

    `fingerprint` is everything that decides the result, as JSON: settings, seed, network, hashes
    of the data. `resumed` says whether `load` found a state.
    """

    def __init__(self, path: str | Path, fingerprint: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.fingerprint = json.dumps(fingerprint, sort_keys=True)
        self.resumed = False

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file by `state`: tensors, numbers and text in dicts and lists."""
        with atomic(self.path) as beside:
            torch.save({"fingerprint": self.fingerprint, "state": dict(state)}, beside)

    def load(self) -> dict[str, Any] | None:
        """Return the saved state on the CPU, or None.

        A file that is not whole or has another fingerprint counts as none; one line says so.
        """
        if not self.path.exists():
            return None
        # torch writes a zip archive; a file cut short has lost its directory, which is at the end.
        if not zipfile.is_zipfile(self.path):
            print(f"{self.path}: not a whole checkpoint, ignored: starting anew", flush=True)
            return None
        held = torch.load(self.path, map_location="cpu", weights_only=True)
        if held["fingerprint"] != self.fingerprint:
            then, now = json.loads(held["fingerprint"]), json.loads(self.fingerprint)
            keys = [key for key in sorted(then | now) if then.get(key) != now.get(key)]
            print(
                f"{self.path}: of a run with other {', '.join(keys)}, ignored: starting anew",
                flush=True,
            )
            return None
        self.resumed = True
        state: dict[str, Any] = held["state"]
        return state
