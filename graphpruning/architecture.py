"""A found network as data: JSON says how to build and narrow it, safetensors hold its weights.

A JSON file without weights gives a network with fresh ones, which is to be trained.
Nothing in these files is code; loading them gives a plain `nn.Module`. A network that a user's
own function builds is loaded only with that function in hand: a file never imports anything.

Either file may come from anybody. So what they say is compared before any of it costs something:
types and ranges (`architecture_file`), then the names, shapes and MACs of tensors that have no
memory yet, then the SHA-256, and the numbers last.
"""

import inspect
import json
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import fx, nn

from graphpruning.architecture_file import FORMAT, MEND, Entry, check_description, read_entry, shown
from graphpruning.builder import Build, Builder
from graphpruning.common.defaults import usual_defaults
from graphpruning.common.errors import UserError
from graphpruning.common.files import atomic, require_file, sha256, write_json
from graphpruning.network import zoo
from graphpruning.network.cost import macs, params
from graphpruning.network.graph import ChannelGraph, Widths
from graphpruning.network.refusals import unwrapped
from graphpruning.network.surgery import narrow
from graphpruning.network.symbolic import symbolic_trace
from graphpruning.network.trace import graph_of, trace
from graphpruning.training.checkpoint import save_tensors, stored
from graphpruning.training.sound import first_fault

LARGEST_HEADER = 2**23
"""Bytes of a safetensors header; one of 1,000 tensors has a hundredth of it."""
MOST_FRESH = 10**9
"""Weights that a file without weights may ask memory for; torchvision's largest has 0.65e9."""
_FLOATS = ("F32", "F64", "F16", "BF16")
_OTHERS = {
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
Held = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each tensor in a file, by its name."""


def save_architecture(
    path: str | Path,
    weights_path: str | Path,
    model: nn.Module,
    *,
    network: dict[str, Any] | Builder,
    input_size: tuple[int, ...],
    widths: Widths,
    preprocessing: dict[str, Any],
    classes: Sequence[str] | None = None,
    graph: ChannelGraph | None = None,
) -> None:
    """Write the narrowed `model` as `path` (JSON) and `weights_path` (safetensors).

    `network` is the full network: what `zoo.build` takes (name, num_classes, in_channels and
    options), or a `Builder`. The JSON names the weights relative to itself, with their SHA-256,
    and the `classes` that the outputs stand for, where they are given. `graph` is what `trace` says
    of that full network; without it, one is built and traced.
    Raises `UserError`, before anything is written, for what `load_architecture` would refuse.
    """
    if Path(path).resolve() == Path(weights_path).resolve():
        raise UserError(f"{path}: the description and its weights need a file each")
    named = {"file": os.path.relpath(weights_path, Path(path).parent), "sha256": "0" * 64}
    made, model = _made(network), unwrapped(model)
    full = full_network(made)
    graph = graph or trace(full, input_size)
    description = _described(path, made, graph, input_size, widths, preprocessing, named, classes)
    # A buffer with a value for each channel has been cut: how, nobody could tell from the widths.
    cut = {name: value for name, value in _unsaved(model).items() if name in graph.constants}
    state = stored({**model.state_dict(), **cut})
    _require_own(path, state, narrow(full, graph, widths))
    with atomic(weights_path) as beside:
        save_tensors(beside, state)
        named["sha256"] = sha256(beside)
    write_json(path, description)


def save_weightless(
    path: str | Path,
    *,
    network: dict[str, Any] | Builder,
    input_size: tuple[int, ...],
    widths: Widths,
    preprocessing: dict[str, Any],
) -> None:
    """Write `path` (JSON) of a network that has no weights yet; otherwise `save_architecture`."""
    made = _made(network)
    graph = trace(full_network(made), input_size)
    write_json(path, _described(path, made, graph, input_size, widths, preprocessing, None))


def _made(network: dict[str, Any] | Builder) -> Builder:
    if isinstance(network, Builder):
        return network
    if not isinstance(network, dict) or "name" not in network:
        raise UserError(
            "network: give what builds the full network, such as {'name': 'resnet20', "
            "'num_classes': 10, 'in_channels': 3}, or a Builder"
        )
    return Builder(zoo.build, network)


def _described(
    path: str | Path,
    made: Builder,
    graph: ChannelGraph,
    input_size: tuple[int, ...],
    widths: Widths,
    preprocessing: dict[str, Any],
    weights: dict[str, str] | None,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What JSON says of a network; `UserError` for what could not be read again."""
    if graph.input_size != tuple(input_size):
        raise UserError(
            f"{path}: the graph is that of images {list(graph.input_size)}, but input_size is "
            f"{list(input_size)}: trace the network on such an image"
        )
    graph.check(widths)
    description = {
        "format": FORMAT,
        "network": made.description,
        "input_size": list(input_size),
        "widths": {group: int(width) for group, width in widths.items()},
        "macs": macs(graph, widths),
        "params": params(graph, widths),
        "preprocessing": preprocessing,
        "weights": weights,
        **({} if classes is None else {"classes": list(classes)}),
    }
    try:
        text = json.dumps(description)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: what describes the network is no JSON ({error})") from None
    check_description(Entry(path, json.loads(text)))
    return description


def _require_own(path: str | Path, state: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    """Refuse weights that `model`, which the description at `path` gives, could not take."""
    wanted, also = model.state_dict(), _unsaved(model)
    for name in {**wanted, **state}:
        if name not in state:
            what = f"has no tensor {name!r}"
        elif name not in wanted and name not in also:
            what = f"has a tensor {name!r} of its own"
        elif state[name].shape != (shape := (wanted | also)[name].shape):
            what = f"has {name} as {list(state[name].shape)}, not {list(shape)}"
        else:
            continue
        raise UserError(
            f"{path}: the model {what}: it is not the named network at these widths, which "
            "`narrow(model, graph, widths)` makes"
        )
    if fault := first_fault(state, wanted):
        raise UserError(f"{path}: {fault}: such weights are of no use; train the network again")


def _unsaved(model: nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that the network's own code leaves out of its state (`persistent=False`)."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}


@usual_defaults()
def load_architecture(
    path: str | Path, weights: str | Path | None = None, *, build: Build | None = None
) -> nn.Module:
    """Build the network that `path` describes, in evaluation mode.

    Weights come from `weights`, or from the file that the description names. Where it names none
    (its `weights` are null), they are fresh, drawn from PyTorch's global generator. `build` is the
    user's function that builds the full network, where `path` names one; it is called as it was
    then. Raises `UserError` when it is not given, and when a file is missing, altered, or belongs
    to another network.
    """
    description = read_architecture(path)
    named, widths = description["weights"], description["widths"]
    made = _builder(path, description["network"], build)
    if weights is None and named is None:
        with _about(path):
            return _fresh(description, made)
    file = Path(path).parent / named["file"] if weights is None else Path(weights)
    digest = named["sha256"] if weights is None else None
    misfit = f"{file} does not hold the weights of {path}"
    mend = f"get the file with SHA-256 {digest}" if digest else "give those that were saved with it"

    with _about(
        f"{path}: its weights",
        "copy them from where the architecture was made, or make them: a study's by `make repro`",
    ):
        size = require_file(file, "`save_architecture`")
    with _about(path):
        full = full_network(made)
    with _about(misfit, mend):
        held = _held(file, size, full)
        _require_names(full, held)
    with _about(path):
        image = tuple(description["input_size"])
        module = symbolic_trace(full, image)
        places = _positions(full, module)
        # A larger image than it was trained with could cost anything, and is known beforehand.
        if (layers := _macs_of(held, places)) > description["macs"]:
            _require_equal(description, "macs", layers)
        graph = graph_of(full, module, image)
        model = narrow(full, graph, widths)
    with _about(misfit, mend):
        _require_shapes(model, held)
    with _about(path):
        _require_equal(description, "macs", macs(graph, widths))
        _require_equal(description, "params", params(graph, widths))
    if digest is not None and (found := sha256(file)) != digest:
        raise UserError(f"{file} has SHA-256 {found}, but {path} expects {digest}")
    if "name" in made.description:
        model = _with_memory(model, made, graph, widths)
    with _about(misfit, "train it again, or give other weights"):
        _load(model, file)
    return model.eval()


def _fresh(description: Mapping[str, Any], make: Builder) -> nn.Module:
    """The described network with fresh weights; compared with its description before it is made."""
    full = full_network(make)
    graph = trace(full, tuple(description["input_size"]))
    for key, count in (("macs", macs), ("params", params)):
        _require_equal(description, key, count(graph, description["widths"]))
    if (most := params(graph, graph.full_widths)) > MOST_FRESH:
        raise UserError(f"the full network has {most:,} weights, more than {MOST_FRESH:,}")
    model = narrow(make() if "name" in make.description else full, graph, description["widths"])
    zoo.initialise(model)
    return model.eval()


def read_architecture(path: str | Path) -> dict[str, Any]:
    """Return the description in `path`; `UserError` when it is not one of ours."""
    return check_description(read_entry(path))


def full_network(make: Builder) -> nn.Module:
    """Build a network to look at: one of a known name without memory for its weights.

    A user's function may compute with its weights, so it builds as ever. PyTorch's global
    generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        if "function" in make.description:
            return make()
        with zoo.weightless():
            return make()


def _builder(path: str | Path, network: dict[str, Any], build: Build | None) -> Builder:
    if "function" not in network:
        return Builder(zoo.build, network)
    arguments = {name: value for name, value in network.items() if name != "function"}
    if build is None:
        taken = "".join(f" {name}" for name in arguments)
        raise UserError(
            f"the network of {path} is your own, {network['function']}: give a function that "
            f"returns the full network, as load_architecture(..., build=lambda{taken}: model) or "
            "--model package.module:function"
        )
    try:
        inspect.signature(build).bind(**arguments)
    except TypeError as error:
        raise UserError(
            f"{path}: network: the function that is given cannot be called with "
            f"{', '.join(arguments) or 'nothing'} ({error}): give the one it was saved with"
        ) from None
    except ValueError:  # some callables written in C do not tell
        pass
    return Builder(build, network)


@contextmanager
def _about(what: str | Path, mend: str = MEND) -> Iterator[None]:
    """Put the file in front of every refusal within the block, and behind it what to do."""
    try:
        yield
    except UserError as refusal:
        raise type(refusal)(f"{what}: {refusal}; {mend}") from refusal


def _held(file: Path, size: int, full: nn.Module) -> Held:
    """Read the header of a safetensors file of `size` bytes; of the tensors nothing is read.

    The library makes sure that the file has as many bytes as the header says, and no more; but it
    maps the whole file into memory first, so that is not left to a file that is too large.
    """
    try:
        with open(file, "rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if header > LARGEST_HEADER:
            raise UserError(f"it is not safetensors: its header would have {header:,} bytes")
        tensors_of = (*full.state_dict().values(), *_unsaved(full).values())
        most = 8 + header + 8 * sum(value.numel() for value in tensors_of)
        if size > most:
            raise UserError(f"it has {size:,} bytes, where the network needs at most {most:,}")
        with safe_open(file, "pt") as tensors:
            parts = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"it cannot be read ({textwrap.shorten(str(error), 200)})") from None


def _require_names(full: nn.Module, held: Held) -> None:
    """Narrowing takes no tensor away, so the full network has the names of the narrowed one."""
    names, also = full.state_dict().keys(), _unsaved(full).keys()
    for name in names:
        if name not in held:
            raise UserError(f"it has no tensor {name!r}")
    for name in held:
        if name not in names and name not in also:
            raise UserError(f"it has a tensor {shown(name)}, which the network has not")


def _require_shapes(model: nn.Module, held: Held) -> None:
    """A floating-point tensor may have another precision than the network, as it always could."""
    unsaved = {name: value for name, value in _unsaved(model).items() if name in held}
    for name, wanted in (model.state_dict() | unsaved).items():
        kind, shape = held[name]
        if shape != wanted.shape:
            raise UserError(f"{name} is {list(shape)}, expected {list(wanted.shape)}")
        kinds = _FLOATS if wanted.is_floating_point() else (_OTHERS.get(wanted.dtype),)
        if kind not in kinds:
            raise UserError(f"{name} has the type {kind}, expected {kinds[0]}")


def _positions(full: nn.Module, module: fx.GraphModule) -> dict[str, int]:
    """How often each layer's filters are applied to one image, by the network's operations."""
    found: dict[str, int] = {}
    for node in module.graph.nodes:
        part = full.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(part, nn.ConvTranspose2d):
            (read,) = node.all_input_nodes
            places = math.prod(read.meta["shape"]) // part.in_channels
        elif isinstance(part, nn.Conv2d):
            places = math.prod(node.meta["shape"]) // part.out_channels
        elif isinstance(part, nn.Linear):
            places = math.prod(node.meta["shape"]) // part.out_features
        else:
            continue
        found[str(node.target)] = found.get(str(node.target), 0) + places
    return found


def _macs_of(held: Held, positions: Mapping[str, int]) -> int:
    """MACs of layers with these weights; of a narrowed network, the same as of its graph."""
    shapes = {name: held[f"{name}.weight"][1] for name in positions if f"{name}.weight" in held}
    return sum(math.prod(shape) * positions[name] for name, shape in shapes.items())


def _require_equal(description: Mapping[str, Any], key: str, found: int) -> None:
    if found != description[key]:
        raise UserError(
            f"{key} is {description[key]:,}, but the network of these widths has {found:,} on "
            f"an image of {description['input_size']}: the file was altered"
        )


def _with_memory(model: nn.Module, make: Builder, graph: ChannelGraph, widths: Widths) -> nn.Module:
    """Give a narrowed network of `zoo.weightless` the memory that its weights are loaded into."""
    if {name for name, _ in model.named_buffers()} <= set(model.state_dict()):
        return model.to_empty(device="cpu")
    # What no file holds is as the constructor makes it.
    with torch.random.fork_rng(devices=[]):
        return narrow(make(), graph, widths)


def _load(model: nn.Module, file: Path) -> None:
    """Load weights of the right names and shapes, all of which must be sound."""
    state, unsaved = model.state_dict(), _unsaved(model)
    try:
        found = load_file(file)
        for name in found.keys() & unsaved.keys():
            unsaved[name].copy_(found.pop(name))
        # Into the network's own dictionary, which has the version that MNASNet asks for.
        state.update(found)
        model.load_state_dict(state)
    except (OSError, SafetensorError, *zoo.FAULTS) as error:
        raise UserError(textwrap.shorten(str(error), 200)) from None
    if fault := first_fault(model.state_dict(), model.state_dict()):
        raise UserError(fault)
