"""Small networks, search spaces and journals that the tests of the searches share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphpruning.network.surgery import install, narrow
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.search.evaluator import Evaluator
from graphpruning.search.history import Evaluate, Journal
from graphpruning.search.sliced import SlicedWeights


class RandomNetwork(nn.Module):
    """A stem, then a block for each (kind, width): plain, residual or depthwise-separable."""

    def __init__(self, blocks: list[tuple[str, int]]) -> None:
        super().__init__()
        channels = 8
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.kinds = [kind for kind, _ in blocks]
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        for kind, width in blocks:
            groups = channels if kind == "depthwise" else 1
            middle = channels if kind == "depthwise" else width
            out = channels if kind == "residual" else width
            self.first.append(nn.Conv2d(channels, middle, 3, padding=1, groups=groups))
            self.second.append(nn.Conv2d(middle, out, 1))
            channels = out
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for kind, first, second in zip(self.kinds, self.first, self.second, strict=True):
            y = second(F.relu(first(x)))
            x = F.relu(x + y if kind == "residual" else y)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="session")
def random_space() -> Callable[[list[tuple[str, int]]], SearchSpace]:
    """Build the search space, with every width a level, of a `RandomNetwork`."""

    def make(blocks: list[tuple[str, int]]) -> SearchSpace:
        return SearchSpace(trace(RandomNetwork(blocks), (3, 6, 6)), divisor=1, smallest=0.25)

    return make


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    """ResNet-8 with 16, 32 and 64 channels: six groups."""
    torch.manual_seed(0)
    return SearchSpace(trace(build("resnet8", 10, in_channels=1), (1, 16, 16)))


@pytest.fixture
def half(space: SearchSpace) -> int:
    """Half of the full network's MACs."""
    return space.macs(space.full) // 2


@pytest.fixture
def journal(tmp_path: Path, space: SearchSpace, half: int) -> Callable[..., Journal]:
    """Open a journal of at most `evaluations`; always the same file of this test."""

    def open_journal(evaluate: Evaluate, evaluations: int, **fingerprint: Any) -> Journal:
        path = tmp_path / "journal.jsonl"
        return Journal(evaluate, space, half, evaluations, path, fingerprint)

    return open_journal


@pytest.fixture(scope="session")
def judged():
    """An untrained ResNet-8, its weights, images, and the labels that it gives them at full width.

    Its scores are centred, so that it tells its images apart: no class has a third of them.
    """
    torch.manual_seed(0)
    model = build("resnet8", 10, in_channels=1, width=8).eval()
    graph = trace(model, (1, 16, 16))
    sliced = SlicedWeights(model, graph, [], 10, torch.Generator(), reconstruct=False)
    calibration = [(torch.randn(32, 1, 16, 16), torch.zeros(32, dtype=torch.int64))] * 2
    images = [torch.randn(count, 1, 16, 16) for count in (40, 25)]
    draft = Evaluator(graph, sliced, calibration, [])
    statistics = draft.statistics(graph.full_widths, sliced(graph.full_widths))
    full = narrow(model, graph, graph.full_widths)
    install(full, graph, sliced(graph.full_widths), statistics)
    with torch.no_grad():
        centre = full.eval()(torch.cat(images)).mean(dim=0)
        for network in (model, full):
            network.fc.bias -= centre
        search = [(batch, full(batch).argmax(dim=1)) for batch in images]
    return model, graph, sliced, calibration, search
