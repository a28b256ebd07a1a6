"""A small network, small data, and a Fabric in fp32, for every training test."""

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from graphpruning.training.datasets import generated
from graphpruning.training.fabric import make_fabric
from graphpruning.training.images import ImageSet
from graphpruning.training.preprocessing import Preprocessing


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return make_fabric("32-true", accelerator="cpu")


@pytest.fixture(scope="session")
def train_set() -> ImageSet:
    return generated(Path("nowhere"), train=True)


@pytest.fixture(scope="session")
def test_set() -> ImageSet:
    return generated(Path("nowhere"), train=False)


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(mean=(0.5,), std=(0.25,), pad=2, flip=False)


@pytest.fixture
def net() -> nn.Module:
    """Return a convolutional network with three convolutions, with dropout, the same each time."""

    def convolution(inputs: int, outputs: int) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *convolution(1, 16),
            *convolution(16, 32),
            *convolution(32, 32),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(32, 10),
        )
