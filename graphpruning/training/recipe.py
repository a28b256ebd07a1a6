"""How long, how fast and how regularised a network is trained."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphpruning.common.errors import UserError
from graphpruning.common.names import nearest

SCHEDULES = ("linear", "cosine", "step", "onecycle")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_positive(value)


def _is_not_negative(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_below_one(value: Any) -> bool:
    return _is_not_negative(value) and value < 1


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": (_is_positive, "a number above 0"),
    "batch_size": (_is_count, "a whole number above 0"),
    "lr": (_is_positive, "a number above 0"),
    "warmup_epochs": (_is_not_negative, "a number, 0 or more"),
    "momentum": (_is_below_one, "a number from 0 to below 1"),
    "nesterov": (_is_switch, "true or false"),
    "weight_decay": (_is_not_negative, "a number, 0 or more"),
    "decay_norms": (_is_switch, "true or false"),
    "label_smoothing": (_is_below_one, "a number from 0 to below 1"),
    "clip": (lambda value: value is None or _is_positive(value), "a number above 0, or null"),
    "augment": (_is_switch, "true or false"),
    "images_per_epoch": (
        lambda value: value is None or _is_count(value),
        "a whole number above 0, or null",
    ),
    "milestones": (
        lambda value: (
            all(_is_positive(at) and at < 1 for at in value) and list(value) == sorted(value)
        ),
        "ascending shares of the training, between 0 and 1",
    ),
}


@dataclass(frozen=True)
class Recipe:
    """The settings of one training run by SGD; a bad value is a `UserError`.

    `epochs` may be a fraction: training then ends within an epoch. `batch_size` counts the images
    of a step on all devices. An epoch is a new random subset of `images_per_epoch` images where
    that is given, else every image once; images that fill no batch are left out. `weight_decay`
    spares norm and bias parameters unless `decay_norms`. `clip` is the largest gradient norm.

    `schedule` lowers `lr` after `warmup_epochs` of linear rise: "linear" and "cosine" to 0, "step"
    by ten at each of `milestones` (shares of the whole training, such as 0.25). "onecycle" is
    torch's OneCycleLR with its defaults (momentum apart), and has a rise of its own.
    """

    epochs: float
    batch_size: int
    lr: float
    schedule: str
    warmup_epochs: float = 0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0
    decay_norms: bool = False
    label_smoothing: float = 0
    clip: float | None = None
    augment: bool = True
    images_per_epoch: int | None = None
    milestones: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, (holds, text) in RULES.items():
            value = getattr(self, name)
            if not holds(value):
                raise UserError(f"recipe: {name} is {value!r}, must be {text}")
        if self.schedule not in SCHEDULES:
            near = nearest(self.schedule, SCHEDULES)
            raise UserError(
                f"recipe: unknown schedule {self.schedule!r}: did you mean {near!r}? "
                f"(known: {', '.join(SCHEDULES)})"
            )
        if self.warmup_epochs >= self.epochs:
            raise UserError(
                f"recipe: warmup_epochs is {self.warmup_epochs}, must be below epochs {self.epochs}"
            )
        if self.warmup_epochs and self.schedule == "onecycle":
            raise UserError("recipe: schedule 'onecycle' has its own rise: remove warmup_epochs")
        if bool(self.milestones) != (self.schedule == "step"):
            raise UserError("recipe: schedule 'step' needs milestones, and no other has them")
        if self.nesterov and not self.momentum:
            raise UserError("recipe: nesterov needs momentum above 0")

    def steps_per_epoch(self, images: int) -> int:
        """Return the steps in an epoch over `images` images; a `UserError` if not even one."""
        used = self.images_per_epoch or images
        if not self.batch_size <= used <= images:
            if self.images_per_epoch is None:
                raise UserError(
                    f"recipe: batch_size {self.batch_size} does not fit the {images} training "
                    "images: lower it"
                )
            raise UserError(
                f"recipe: batch_size {self.batch_size} and images_per_epoch "
                f"{self.images_per_epoch} do not fit the {images} training images: lower them"
            )
        return used // self.batch_size

    def steps(self, images: int) -> int:
        """Return the steps of the whole training over `images` images, at least one."""
        return max(1, round(self.epochs * self.steps_per_epoch(images)))


def learning_rate(recipe: Recipe, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of step `step` (from 0) among `steps`."""
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    if recipe.schedule == "linear":
        return recipe.lr * (1 - progress)
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * progress)) / 2
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** sum(step >= at * steps for at in recipe.milestones)
    start, end = recipe.lr / 25, recipe.lr / 25 / 1e4
    peak = 0.3 * steps - 1
    if step <= peak:
        return recipe.lr + (start - recipe.lr) * (1 + math.cos(math.pi * step / peak)) / 2
    fall = (step - peak) / (steps - 1 - peak)
    return end + (recipe.lr - end) * (1 + math.cos(math.pi * fall)) / 2
