"""What a network may carry that acts beside its operations: refused by name, before anything runs.

A hook or a parametrisation is not among a network's operations as they are recorded, but acts in
every copy of it. A narrowed network with one would compute something else, or break.
"""

from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from graphpruning.common.errors import UnsupportedNetwork, UserError
from graphpruning.network.leaves import base_of
from graphpruning.network.patched import has_own_forward, holds_on

_ONE_DIMENSION = (nn.Conv1d, nn.ConvTranspose1d)
_VIDEO = (nn.Conv3d, nn.ConvTranspose3d)
_PRUNED = "_orig"  # torch.nn.utils.prune keeps the whole weight as weight_orig


def unwrapped(model: Any) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel or `torch.compile`.

    Raises `UserError` for what is no network in Python.
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif type(model).__name__ == "OptimizedModule" and hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedNetwork(
            f"{type(model).__name__} is compiled by torch.jit: give the nn.Module it was made from"
        )
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        hint = " (of torch.export: give the nn.Module it was made from)"
        raise UserError(
            f"a network is an nn.Module; this is {kind}{hint if kind == 'ExportedProgram' else ''}"
        )
    return model


def refuse_what_acts_on_the_side(model: nn.Module) -> None:
    """Raise `UnsupportedNetwork` for hooks, parametrisations and tensors that pruning computes.

    So for a `forward` set on a module, where it would not be that of a copy.
    """
    kind = type(model).__name__
    for name, part in model.named_modules():
        where = f"{kind}: {name or 'the network itself'} ({type(part).__name__})"
        for key, parameter in part._parameters.items():
            if parameter is not None and is_lazy(parameter):
                refuse(where, f"has no {key} yet", "run the network on an image first")
        if parametrize.is_parametrized(part):
            refuse(
                where,
                f"has a parametrisation of {', '.join(part.parametrizations)}",
                "remove it first: torch.nn.utils.parametrize.remove_parametrizations",
            )
        if any(key.endswith(_PRUNED) for key in part._parameters):
            which = next(key for key in part._parameters if key.endswith(_PRUNED))
            refuse(
                where,
                f"computes its {which.removesuffix(_PRUNED)} from {which}",
                "make it permanent first: torch.nn.utils.prune.remove, or remove_spectral_norm",
            )
        if {"weight_g", "weight_v"} <= part._parameters.keys():
            refuse(where, "has a weight norm", "remove it first: torch.nn.utils.remove_weight_norm")
        if part._forward_pre_hooks or part._forward_hooks:
            which = "pre-hook" if part._forward_pre_hooks else "hook"
            refuse(where, f"has a forward {which}", "remove it first: the handle's remove()")
        if part is model and has_own_forward(part):
            refuse(where, "has a forward set on it", "write it as the forward of a class")
        if holds_on(part, model):
            refuse(
                where,
                "has a forward set on it that holds on to the network's own layers",
                "write it as the forward of a class, or bind it by types.MethodType",
            )


def refuse_other_dimensions(model: nn.Module, size: tuple[int, ...]) -> None:
    """Raise `UnsupportedNetwork` for networks of videos, of sequences, or without convolutions."""
    kind = type(model).__name__
    if len(size) != 3:
        raise UserError(f"input_size is {size}: channels, height and width are needed")
    if base_of(model) is not None:
        raise UnsupportedNetwork(
            f"{kind} is a layer by itself, whose channels are the network's output: give the "
            "network that it is part of, or put it into nn.Sequential"
        )
    convolutions = 0
    for name, part in model.named_modules():
        if isinstance(part, _VIDEO):
            _refuse_kind(kind, name, part, "videos")
        convolutions += isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
    if convolutions:
        return
    for name, part in model.named_modules():
        if isinstance(part, _ONE_DIMENSION):
            _refuse_kind(kind, name, part, "sequences")
    linear = any(isinstance(part, nn.Linear) for part in model.modules())
    what = "linear layers and no convolution" if linear else "no convolution"
    raise UnsupportedNetwork(
        f"{kind} has {what}: networks of images with at least one convolution are followed"
    )


def _refuse_kind(model: str, name: str, part: nn.Module, of: str) -> NoReturn:
    refuse(f"{model}: {name}", f"is a {type(part).__name__}", f"networks of {of} are not followed")


def refuse(where: str, what: str, remedy: str) -> NoReturn:
    """Raise `UnsupportedNetwork` in the house's form."""
    raise UnsupportedNetwork(f"{where} {what}, which cannot be narrowed with it; {remedy}")
