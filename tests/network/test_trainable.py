"""A user's network as training needs it: 32 bits, nothing frozen, and the user's left as it was."""

import pytest
import torch
from torch import nn

from graphpruning.common.errors import UserError
from graphpruning.network.trainable import changes, trainable


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_a_network_that_can_be_trained_is_itself() -> None:
    model = net()
    assert trainable(model) is model and changes(model) == []


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_32_bits(kind: torch.dtype) -> None:
    model = net().to(kind)
    found = trainable(model)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            assert tensor.dtype == kind
            assert torch.equal(found.state_dict()[name], tensor.float())
    name = str(kind).removeprefix("torch.")
    assert changes(model) == [f"weights of type {name} are converted to float32"]


def test_frozen_parts_are_trained_with_the_rest() -> None:
    model = net()
    model[0].requires_grad_(False)
    assert all(parameter.requires_grad for parameter in trainable(model).parameters())
    assert not model[0].weight.requires_grad
    (said,) = changes(model)
    assert said.startswith("frozen (requires_grad=False): 0.weight, 0.bias; here the whole")
    model.requires_grad_(False)
    assert "0.weight, 0.bias, 1.weight and 3 more;" in changes(model)[0]


def test_a_network_of_inference_mode_can_be_trained() -> None:
    with torch.inference_mode():
        model = net()
    found = trainable(model).train()
    found(torch.ones(2, 1, 4, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in found.parameters())


def test_a_layer_without_a_shape_is_named() -> None:
    with pytest.raises(UserError, match=r"0\.weight has no shape yet: run the network"):
        trainable(nn.Sequential(nn.LazyConv2d(2, 3)))
