"""The training step beyond the paper: which widths it runs, and what they learn from."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphpruning import SearchSpace, trace
from graphpruning.network.graph import Widths
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from tests.networks import network

INPUT = (3, 16, 16)


class Scores(nn.Module):
    """Notes the widths that it is asked for, and gives each learnt scores of its own."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scores = nn.Parameter(torch.randn(3, batch, 5))
        self.asked: list[Widths] = []

    def forward(self, images: Tensor, *widths: Widths) -> Tensor:
        self.asked = list(widths)
        return self.scores[: len(widths)].flatten(0, 1)


def run(**beyond: bool) -> tuple[Tensor, Scores, SearchSpace, Tensor]:
    space = SearchSpace(trace(network("resnet8"), INPUT))
    net, labels = Scores(4), torch.arange(4)
    draws = torch.Generator().manual_seed(3)
    loss = RandomWidthStep(space, 0.1, **beyond)(net, torch.zeros(4, *INPUT), labels, draws)
    loss.backward()
    return loss.detach(), net, space, labels


@pytest.mark.parametrize("sandwich", [False, True])
@pytest.mark.parametrize("distil", [False, True])
def test_the_sandwich_is_full_smallest_and_random(sandwich: bool, distil: bool) -> None:
    """A teacher needs the full widths as well; the random ones are those of a plain step."""
    _, net, space, _ = run(sandwich=sandwich, distil=distil)
    expected = [space.sample(torch.Generator().manual_seed(3))]
    if sandwich:
        expected = [space.smallest, *expected]
    if sandwich or distil:
        expected = [space.full, *expected]
    assert net.asked == expected


def test_without_distillation_all_widths_learn_the_labels() -> None:
    loss, net, _, labels = run(sandwich=True)
    each = [F.cross_entropy(scores, labels, label_smoothing=0.1) for scores in net.scores]
    torch.testing.assert_close(loss, torch.stack(each).mean().detach())


def test_narrow_widths_learn_what_the_full_ones_say() -> None:
    loss, net, _, labels = run(sandwich=True, distil=True)
    full, *others = net.scores.detach()
    targets = full.softmax(1)
    each = [-(targets * scores.log_softmax(1)).sum(1).mean() for scores in others]
    own = F.cross_entropy(full, labels, label_smoothing=0.1)
    torch.testing.assert_close(loss, (own + sum(each)) / 3)


def test_the_full_widths_learn_from_the_labels_alone() -> None:
    _, net, _, labels = run(sandwich=True, distil=True)
    full = net.scores.detach()[0].requires_grad_()
    (F.cross_entropy(full, labels, label_smoothing=0.1) / 3).backward()
    assert net.scores.grad is not None
    torch.testing.assert_close(net.scores.grad[0], full.grad)


def test_scores_at_several_widths_are_those_at_each() -> None:
    graph = trace(network("resnet8"), INPUT)
    space = SearchSpace(graph)
    torch.manual_seed(0)
    net, images = PruningNet(graph, "graph"), torch.randn(4, *INPUT)
    both = net(images, space.full, space.smallest)
    assert torch.equal(both, torch.cat([net(images, space.full), net(images, space.smallest)]))
