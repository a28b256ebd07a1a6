"""Fresh weights are fresh."""

import re
import sys

import pytest
import torch
from torch import nn

from graphpruning import UserError
from graphpruning.network.zoo import build, initialise


def test_every_layer_and_every_norm_is_drawn_anew() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.GroupNorm(2, 8),
        nn.LayerNorm([8, 4, 4]),
        nn.Flatten(),
        nn.Linear(128, 8),
        nn.BatchNorm1d(8),
    )
    trained = {name: torch.full_like(value, 7) for name, value in model.state_dict().items()}
    model.load_state_dict(trained)
    initialise(model)
    for name, value in model.state_dict().items():
        assert not (value == trained[name]).any(), name


def test_networks_of_timm_are_built_by_their_names() -> None:
    model = build("timm.resnet10t", 7, in_channels=1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("timm.resnet10", {}, "timm has no network 'resnet10'; did you mean 'timm.resnet1"),
        ("timm.hf-hub:timm/resnet18", {}, "timm has no network 'hf-hub:timm/resnet18'"),
        ("timm.resnet18", {"pretrained": 1}, "pretrained is no option; timm's networks have none"),
    ],
)
def test_another_name_of_timm_is_refused(name: str, options: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        build(name, 10, **options)


def test_without_timm_its_networks_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="needs timm: `pip install timm`"):
        build("timm.resnet18", 10)
