from dataclasses import replace
from typing import Any

import pytest
import torch

from graphpruning.common.errors import UserError
from graphpruning.training.recipe import RULES, Recipe, learning_rate

RECIPE = Recipe(epochs=10, batch_size=20, lr=0.4, schedule="linear")


def rates(recipe: Recipe, images: int = 200) -> list[float]:
    steps, steps_per_epoch = recipe.steps(images), recipe.steps_per_epoch(images)
    return [learning_rate(recipe, step, steps, steps_per_epoch) for step in range(steps)]


def test_linear_and_cosine_after_warmup() -> None:
    linear = rates(replace(RECIPE, warmup_epochs=2))  # 20 steps up, 80 steps down
    assert linear[0] == pytest.approx(0.4 / 20)
    assert linear[19] == linear[20] == 0.4
    assert linear[60] == pytest.approx(0.2)
    assert linear[99] == pytest.approx(0.4 / 80)

    cosine = rates(replace(RECIPE, schedule="cosine"))
    assert cosine[0] == 0.4
    assert cosine[50] == pytest.approx(0.2)
    assert cosine[25] == pytest.approx(0.4 * (1 + 0.5**0.5) / 2)


def test_step_divides_by_ten_at_its_milestones() -> None:
    step = rates(replace(RECIPE, schedule="step", milestones=(0.25, 0.5)))
    assert step[24] == 0.4
    assert step[25] == step[49] == pytest.approx(0.04)
    assert step[50] == step[99] == pytest.approx(0.004)


def test_onecycle_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    torch_rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.4, total_steps=100, cycle_momentum=False
    )
    for ours in rates(replace(RECIPE, schedule="onecycle")):
        assert ours == pytest.approx(torch_rates.get_last_lr()[0])
        optimizer.step()
        torch_rates.step()


def test_steps_of_fractional_and_of_short_epochs() -> None:
    assert RECIPE.steps_per_epoch(215) == 10
    assert replace(RECIPE, epochs=2.5).steps(215) == 25
    assert replace(RECIPE, epochs=0.01).steps(215) == 1
    assert replace(RECIPE, images_per_epoch=60).steps(215) == 30
    for recipe, given in (
        (RECIPE, "batch_size 20 does not"),
        (replace(RECIPE, images_per_epoch=10), "batch_size 20 and images_per_epoch 10 do not"),
    ):
        with pytest.raises(UserError, match=f"{given} fit the 19 training images"):
            recipe.steps(19)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1.5),
        ("lr", -0.1),
        ("lr", "1e-3"),
        ("lr", float("nan")),
        ("warmup_epochs", -1),
        ("momentum", 1),
        ("nesterov", 1),
        ("weight_decay", -1e-4),
        ("decay_norms", None),
        ("label_smoothing", 1.0),
        ("clip", 0),
        ("augment", "yes"),
        ("images_per_epoch", 0),
        ("milestones", (0.5, 0.25)),
        ("milestones", (0.5, 30)),
    ],
)
def test_bad_values_are_named(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{name} is .* must be {RULES[name][1]}"):
        replace(RECIPE, **{name: value})


def test_unknown_schedule_names_the_nearest_and_contradictions_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        replace(RECIPE, schedule="cosin")
    contradictions: list[dict[str, Any]] = [
        {"warmup_epochs": 10},
        {"schedule": "onecycle", "warmup_epochs": 1},
        {"schedule": "step"},
        {"milestones": (0.5,)},
        {"nesterov": True, "momentum": 0},
    ]
    for values in contradictions:
        with pytest.raises(UserError, match=r"^recipe: "):
            replace(RECIPE, **values)
