"""Copies are those of `copy.deepcopy`: equal in everything, and sharing nothing that can change."""

import copy
from functools import partial
from types import MethodType
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from graphpruning.network.copies import copied


class Own(nn.Module):
    """A network with things of its own beside its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)])
        self.again = self.layers[0]
        self.act = nn.PReLU()
        self.notes: dict[str, Any] = {"seen": [], "layer": self.layers[0]}
        self.register_buffer("scale", torch.ones(4))
        self.attention = nn.MultiheadAttention(4, 2)


@pytest.mark.parametrize("make", [Own, models.resnet18, models.mobilenet_v3_small])
def test_a_copy_is_deepcopys(make: Any) -> None:
    model = make()
    one, other = copied(model), copy.deepcopy(model)
    assert repr(one) == repr(other)
    for mine, theirs in zip(one.modules(), other.modules(), strict=True):
        assert list(vars(mine)) == list(vars(theirs))
        for name, value in vars(theirs).items():
            assert type(vars(mine)[name]) is type(value)
            if not isinstance(value, dict | set | torch.Tensor | nn.Module | list):
                assert vars(mine)[name] == value
    for key, tensor in model.state_dict().items():
        assert torch.equal(one.state_dict()[key], tensor)
        assert one.state_dict()[key].data_ptr() != tensor.data_ptr()


def test_what_changes_in_a_copy_stays_there() -> None:
    model = Own()
    copy_of = copied(model)
    assert copy_of.again is copy_of.layers[0] is copy_of.notes["layer"]
    copy_of.notes["seen"].append(1)
    copy_of.again.register_forward_hook(lambda *_: None)
    copy_of.act.weight.data.zero_()
    copy_of.again.extra = 1
    assert not model.notes["seen"] and not model.again._forward_hooks
    assert model.act.weight.item() == 0.25 and not hasattr(model.again, "extra")


def test_tensors_of_a_memo_take_the_place_of_the_models() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    weight = nn.Parameter(torch.zeros(2, 2))
    assert copied(model, {id(model[0].weight): weight})[0].weight is weight


def doubled(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.conv2d(x * 2, layer.weight, layer.bias)


@pytest.mark.parametrize("bind", [MethodType, partial])
def test_a_forward_bound_to_a_layer_is_bound_to_its_copy(bind: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].forward = bind(doubled, model[0])
    copy_of = copied(model)
    with torch.no_grad():
        copy_of[0].weight.zero_()
        copy_of[0].bias.fill_(3)
    images = torch.randn(2, 3, 8, 8)
    assert (copy_of[0](images) == 3).all()
    assert not (model[0](images) == 3).any()
