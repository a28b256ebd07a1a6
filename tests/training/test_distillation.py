"""Distillation: the loss is the formula's, and the teacher only speaks."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphpruning.network.zoo import build
from graphpruning.training.checkpoint import Checkpoint
from graphpruning.training.datasets import load
from graphpruning.training.distillation import Distillation, DistilledLoss
from graphpruning.training.fabric import make_fabric
from graphpruning.training.loop import Record, fit
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe

RECIPE = Recipe(epochs=3, batch_size=50, lr=0.02, schedule="linear", images_per_epoch=400)


class Fixed(nn.Module):
    """A teacher that says the same of every batch."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scores


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_that_of_the_formula(weight: float, temperature: float) -> None:
    torch.manual_seed(0)
    teacher, labels = Fixed(torch.randn(6, 5)), torch.arange(6) % 5
    student = torch.randn(6, 5, requires_grad=True)
    loss = DistilledLoss(teacher, Distillation(weight, temperature), label_smoothing=0.1)
    found = loss(torch.zeros(6, 3), student, labels)
    said, heard = ((x / temperature).softmax(1) for x in (teacher.scores, student))
    apart = (said * (said / heard).log()).sum(1).mean()
    own = F.cross_entropy(student, labels, label_smoothing=0.1)
    torch.testing.assert_close(found, (1 - weight) * own + weight * temperature**2 * apart)
    found.backward()
    assert student.grad is not None and teacher.scores.grad is None


def test_a_student_that_agrees_has_nothing_to_learn_from_the_teacher() -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, 5)
    student = scores.clone().requires_grad_()
    DistilledLoss(Fixed(scores), Distillation(weight=1.0))(
        torch.zeros(6, 3), student, torch.arange(6) % 5
    ).backward()
    assert student.grad is not None and student.grad.abs().max() < 1e-6


def trained(
    folder: Path, teacher: nn.Module | None, checkpoint: Checkpoint | None = None, stop: int = 0
) -> tuple[nn.Module, list[Record]]:
    torch.manual_seed(1)
    model = build("resnet8", 10, in_channels=1, width=4)

    def on_epoch(epoch: int) -> Record:
        if epoch == stop:
            raise KeyboardInterrupt
        return {}

    records = fit(
        make_fabric("32-true", accelerator="cpu"),
        model,
        load("generated", folder, train=True),
        Preprocessing((0.5,), (0.3,), pad=1, flip=False),
        RECIPE,
        0,
        name="student",
        loss=None if teacher is None else DistilledLoss(teacher, Distillation()),
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )
    return model, records


def test_training_with_a_teacher_reports_the_same_and_goes_on_to_the_same_bits(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    teacher = build("resnet8", 10, in_channels=1, width=8).eval()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    whole, records = trained(tmp_path, teacher)
    _, others = trained(tmp_path, None)
    assert [list(record) for record in records] == [list(record) for record in others]
    assert records[0]["train_loss"] != others[0]["train_loss"]
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, teacher, Checkpoint(tmp_path / "net.pt", {}), stop=2)
    resumed, _ = trained(tmp_path, teacher, Checkpoint(tmp_path / "net.pt", {}))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())
