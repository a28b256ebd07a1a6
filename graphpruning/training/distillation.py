"""A loss with which a network also learns what a trained one says (Hinton et al., 1503.02531)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Distillation:
    """How much the teacher's word counts, from 0 to 1, and how far its scores are softened."""

    weight: float = 0.5
    temperature: float = 4.0


class DistilledLoss:
    """The loss (1 - w) CE(labels, student) + w T^2 KL(teacher_T || student_T), batch mean.

    CE is the cross-entropy with label smoothing; teacher_T and student_T are the softmax of the
    scores divided by the temperature T; w is the weight.

    Args:
        teacher: in evaluation mode; it sees what the student sees, and does not learn. On the
            device of the images.
        autocast: opens the precision that the teacher runs in.
    """

    def __init__(
        self,
        teacher: nn.Module,
        settings: Distillation,
        label_smoothing: float = 0.0,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.teacher = teacher
        self.settings = settings
        self.label_smoothing = label_smoothing
        self.autocast = autocast

    def __call__(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss (a scalar) of `logits` [batch, classes], the student's on `images`."""
        weight, temperature = self.settings.weight, self.settings.temperature
        with torch.no_grad(), self.autocast():
            scores = self.teacher(images)
            targets = (scores.float() / temperature).log_softmax(dim=1)
        said = (logits.float() / temperature).log_softmax(dim=1)
        apart = F.kl_div(said, targets, reduction="batchmean", log_target=True)
        own = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return (1 - weight) * own + weight * temperature**2 * apart
