"""What `prune` asks of a network, and what it does with old code."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphpruning.classifier import any_layout, described, require_scores
from graphpruning.common.errors import UserError
from graphpruning.network.trace import trace

SIZE = (3, 32, 32)
STORED = torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(0))
IMAGES = STORED.contiguous(memory_format=torch.channels_last)


class LeNet(nn.Module):
    """As tutorials had it for years."""

    def __init__(self, activation: str = "relu", slope: float = 0.1) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 5), nn.Conv2d(8, 16, 5)
        self.pool, self.activation = nn.MaxPool2d(2), activation
        self.leaky = nn.LeakyReLU(slope)
        self.fc = nn.Linear(400, 3)
        self.register_buffer("gain", torch.ones(1), persistent=False)

    def forward(self, x):
        x = self.pool(getattr(F, self.activation)(self.conv1(x)))
        x = self.pool(self.leaky(self.conv2(x))) * self.gain
        return self.fc(x.view(x.size(0), -1))


class Probabilities(LeNet):
    def forward(self, x):
        scores = super().forward(x)
        return scores if self.training else scores.softmax(1)


class InDouble(LeNet):
    def forward(self, x):
        return super().forward(x).double().softmax(1)


def test_view_works_on_images_in_channels_last_within_the_block_alone() -> None:
    model = LeNet().eval()
    expected = model(STORED)
    with pytest.raises(RuntimeError, match="view"):
        model(IMAGES)
    with any_layout(model, SIZE):
        torch.testing.assert_close(model(IMAGES), expected)
        assert torch.zeros(2, dtype=torch.float32).view(torch.int32).dtype == torch.int32
    with pytest.raises(RuntimeError, match="view"):
        model(IMAGES)


def test_nothing_is_done_for_a_network_that_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphpruning.classifier._Reshaping", lambda: pytest.fail("it is on"))
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 3))
    with any_layout(flat, SIZE):
        assert flat(IMAGES).shape == (4, 3)


def test_probabilities_are_refused() -> None:
    require_scores("mine", LeNet(), SIZE, 3)
    with pytest.raises(UserError, match="mine returns probabilities, which sum to 1"):
        require_scores("mine", Probabilities(), SIZE, 3)
    with pytest.raises(UserError, match="mine returns probabilities, which sum to 1"):
        require_scores("mine", InDouble(), SIZE, 3)


def test_two_networks_of_one_shape_are_told_apart_and_one_is_the_same_again() -> None:
    def of(model: nn.Module) -> str:
        return described(model, trace(model, SIZE))

    other_buffer = LeNet()
    other_buffer.gain.fill_(2)
    networks = [LeNet(), LeNet("sigmoid"), LeNet(slope=0.2), other_buffer]
    assert len({of(model) for model in networks}) == len(networks)
    assert of(LeNet()) == of(LeNet())
