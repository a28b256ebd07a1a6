"""Weights as safetensors, and checkpoints from which training goes on exactly."""

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graphpruning.common.errors import UserError
from graphpruning.common.files import atomic


def save_weights(path: str | Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors, whole or not at all."""
    tensors = stored(state_dict)
    with atomic(path) as beside:
        save_tensors(beside, tensors)


def stored(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors takes them: on the CPU, not channels_last, and none of them
    under two names, as a module has them that stands in a network twice.
    """
    own = torch.contiguous_format
    return {
        name: value.detach().cpu().clone(memory_format=own) for name, value in state_dict.items()
    }


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write safetensors; where the system refuses, its OSError, which safetensors makes text of."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), str(error)) from None
        raise


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


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


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
        with atomic(self.path) as beside, open(beside, "wb") as file:
            sink = _Sink(file)
            try:
                torch.save({"fingerprint": self.fingerprint, "state": dict(state)}, sink)  # type: ignore[arg-type]
            except RuntimeError:
                raise sink.refused or AssertionError("torch.save failed by itself") from None

    def load(self) -> dict[str, Any] | None:
        """Return the saved state on the CPU, or None.

        A file that is not whole or has another fingerprint counts as none; one line says so.
        """
        if not self.path.exists():
            return None
        try:
            held = read_checked(self.path)
        except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, BadZipFile) as error:
            reason = " ".join(str(error).split())[:200]
            print(
                f"{self.path}: not a whole checkpoint ({reason}), ignored: starting anew",
                flush=True,
            )
            return None
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


def read_checked(path: Path) -> Any:
    """Read what `torch.save` wrote, or raise what a file that is damaged raises.

    torch writes a zip archive. A file cut short has lost its directory, which is at the end; of a
    changed bit the archive's check sums tell, which `torch.load` does not look at.
    """
    with ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise BadZipFile(f"{damaged} has another check sum")
    return torch.load(path, map_location="cpu", weights_only=True)


class _Sink:
    """A file as `torch.save` needs it, which keeps the error that `torch.save` makes another of."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.refused: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except BaseException as error:  # also what a signal raises meanwhile
            self.refused = error
            raise

    def flush(self) -> None:
        self.file.flush()
