"""Fresh weights are fresh."""

import torch
from torch import nn

from graphpruning.network.zoo import initialise


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
