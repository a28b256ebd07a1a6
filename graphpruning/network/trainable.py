"""A network of the user's as training needs it: in 32 bits, and no part of it frozen."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from graphpruning.common.errors import UserError
from graphpruning.network.copies import copied

MOST_NAMED = 3


def trainable(model: nn.Module) -> nn.Module:
    """Return `model` itself if all of it can be trained, else a copy that can.

    Floating-point numbers get 32 bits, and every parameter a gradient. Raises `UserError` for a
    layer that does not have its shape yet.
    """
    _refuse_lazy(model)
    _refuse_extra_state(model)
    inference = any(tensor.is_inference() for tensor in model.state_dict().values())
    if not (_kinds(model) or _frozen(model) or inference):
        return model
    model = copied(model).float()  # outside of inference mode a copy's tensors are as any
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    return model


def changes(model: nn.Module) -> list[str]:
    """Say in a line each what `trainable` changes of a network, as it was given."""
    lines = []
    if kinds := _kinds(model):
        lines.append(f"weights of type {' and '.join(kinds)} are converted to float32")
    if frozen := _frozen(model):
        some = ", ".join(frozen[:MOST_NAMED])
        some += f" and {len(frozen) - MOST_NAMED} more" if len(frozen) > MOST_NAMED else ""
        lines.append(f"frozen (requires_grad=False): {some}; here the whole network is trained")
    return lines


def _refuse_lazy(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UserError(f"{name} has no shape yet: run the network on one image first")


def _refuse_extra_state(model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"{name} is a {type(value).__name__}, and a file of weights holds tensors alone: "
                "take get_extra_state out of the network"
            )


def _kinds(model: nn.Module) -> list[str]:
    """The types of floating-point numbers, but for that of 32 bits."""
    tensors = [*model.parameters(), *model.buffers()]
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return sorted(str(kind).removeprefix("torch.") for kind in kinds - {torch.float32})


def _frozen(model: nn.Module) -> list[str]:
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not parameter.requires_grad
    ]
