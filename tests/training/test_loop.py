import json
import os
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Generator, Tensor, get_num_threads, nn

from graphpruning.common.errors import UserError
from graphpruning.training.checkpoint import Checkpoint, save_weights
from graphpruning.training.datasets import load
from graphpruning.training.fabric import make_fabric
from graphpruning.training.images import ImageSet, prepared
from graphpruning.training.loop import (
    LOOK_AT_LOSS,
    epoch_generator,
    evaluate,
    fit,
    parameter_groups,
)
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe

RECIPE = Recipe(
    epochs=4,
    batch_size=50,
    lr=0.1,
    schedule="cosine",
    warmup_epochs=0.5,
    weight_decay=5e-4,
    clip=5,
)


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_generated_images_are_learnt(
    fabric: Fabric,
    net: nn.Module,
    train_set: ImageSet,
    test_set: ImageSet,
    preprocessing: Preprocessing,
    capsys: pytest.CaptureFixture[str],
) -> None:
    test_batches = prepared(test_set, preprocessing, 100)
    recipe = replace(RECIPE, epochs=8, batch_size=30, label_smoothing=0.1)
    records = fit(
        fabric,
        net,
        train_set,
        preprocessing,
        recipe,
        seed=0,
        name="base",
        on_epoch=lambda epoch: {"test_top1": evaluate(fabric, net, test_batches).top1},
    )
    assert [record["epoch"] for record in records] == list(range(1, 9))
    assert list(records[0]) == ["epoch", "lr", "train_loss", "train_top1", "test_top1"]
    assert records[-1]["test_top1"] > 80
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and lines[2].startswith("base: epoch 3/8, lr ")


def test_fit_equals_a_bare_loop(
    fabric: Fabric, net: nn.Module, train_set: ImageSet, preprocessing: Preprocessing
) -> None:
    """One epoch and a half, without what only fit() does: dropout's seed, and clipping."""
    (dropout,) = (module for module in net.modules() if isinstance(module, nn.Dropout))
    dropout.p = 0
    bare = deepcopy(net)
    recipe = Recipe(
        epochs=1.5, batch_size=100, lr=0.2, schedule="linear", nesterov=True, label_smoothing=0.1
    )
    records = fit(fabric, net, train_set, preprocessing, recipe, seed=7, name="base")

    optimizer = torch.optim.SGD(bare.parameters(), lr=0.2, momentum=0.9, nesterov=True)
    losses: list[float] = []
    for epoch in (1, 2):
        generator = epoch_generator(7, epoch)
        for images, labels in train_set.batches(preprocessing, 100, generator, augment=True):
            if len(losses) == 9:
                break
            optimizer.param_groups[0]["lr"] = 0.2 * (1 - len(losses) / 9)
            loss = F.cross_entropy(bare(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert [record["lr"] for record in records] == pytest.approx([0.2 * 4 / 9, 0.2 * 1 / 9])
    assert records[0]["train_loss"] == pytest.approx(sum(losses[:6]) / 6, rel=1e-4)
    assert records[1]["train_loss"] == pytest.approx(sum(losses[6:]) / 3, rel=1e-4)
    for ours, theirs in zip(net.parameters(), bare.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_only_weights_decay_unless_asked(net: nn.Module) -> None:
    recipe = replace(RECIPE, weight_decay=0.01)
    weights, others = parameter_groups(net, recipe)
    assert [len(group["params"]) for group in (weights, others)] == [4, 7]
    assert all(parameter.ndim > 1 for parameter in weights["params"])
    assert (weights["weight_decay"], others["weight_decay"]) == (0.01, 0)
    both = parameter_groups(net, replace(recipe, decay_norms=True))
    assert [group["weight_decay"] for group in both] == [0.01, 0.01]


def test_epoch_generators_differ_by_seed_and_epoch() -> None:
    drawn = {
        int(torch.randint(2**62, (1,), generator=epoch_generator(seed, epoch)))
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(drawn) == 25


def test_own_step_gets_the_epochs_generator_and_its_loss_is_descended(
    fabric: Fabric, net: nn.Module, train_set: ImageSet, preprocessing: Preprocessing
) -> None:
    drawn: list[float] = []

    def step(model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
        drawn.append(torch.rand(1, generator=generator).item())
        return F.cross_entropy(model(images), labels)

    def draws(seed: int) -> list[float]:
        drawn.clear()
        model = deepcopy(net)
        recipe = replace(RECIPE, epochs=2, images_per_epoch=150)
        records = fit(fabric, model, train_set, preprocessing, recipe, seed, name="p", step=step)
        assert list(records[0]) == ["epoch", "lr", "train_loss"]
        assert not equal(model, net)
        return list(drawn)

    first = draws(0)
    assert len(set(first)) == 6
    assert draws(0) == first
    assert not set(draws(1)) & set(first)


@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_run_equals_an_undisturbed_one(
    fabric: Fabric,
    net: nn.Module,
    train_set: ImageSet,
    preprocessing: Preprocessing,
    tmp_path: Path,
    stop: int,
) -> None:
    start = deepcopy(net)
    state = torch.get_rng_state()
    records = fit(fabric, net, train_set, preprocessing, RECIPE, 0, name="base")
    assert torch.equal(torch.get_rng_state(), state)

    def interrupt(epoch: int) -> dict[str, float]:
        if epoch == stop + 1:
            raise KeyboardInterrupt
        return {}

    path = tmp_path / "base.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(
            fabric,
            deepcopy(start),
            train_set,
            preprocessing,
            RECIPE,
            0,
            name="base",
            on_epoch=interrupt,
            checkpoint=Checkpoint(path, {"seed": 0}),
        )
    torch.rand(1)  # elsewhere in the program, torch's own generator has moved on
    resumed = deepcopy(start)
    checkpoint = Checkpoint(path, {"seed": 0})
    for _ in range(2):  # the second time, nothing is left to do
        again = fit(
            fabric,
            resumed,
            train_set,
            preprocessing,
            RECIPE,
            0,
            name="base",
            checkpoint=checkpoint,
        )
        assert checkpoint.resumed
        assert again == records
        assert equal(resumed, net)


def train(folder: Path, steps_to_live: int) -> bytes:
    """Train for three epochs of six steps, unless killed before; return the file of weights."""

    def step(model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
        nonlocal steps_to_live
        steps_to_live -= 1
        if steps_to_live == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return F.cross_entropy(model(images), labels)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
    fit(
        make_fabric("32-true", accelerator="cpu"),
        net,
        load("generated", folder, train=True),
        Preprocessing((0.5,), (0.25,), pad=2, flip=True),
        Recipe(epochs=3, batch_size=100, lr=0.05, schedule="linear"),
        seed=0,
        name="base",
        step=step,
        checkpoint=Checkpoint(folder / "base.pt", {"seed": 0}),
    )
    save_weights(folder / "base.safetensors", net.state_dict())
    return (folder / "base.safetensors").read_bytes()


def test_killed_process_run_again_gives_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "killed")],
        env=os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": str(get_num_threads())},
        stdout=subprocess.PIPE,
    )
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.count(b"epoch 1/3") == killed.stdout.count(b"epoch") == 1
    assert list((tmp_path / "killed").iterdir()) == [tmp_path / "killed" / "base.pt"]

    resumed = train(tmp_path / "killed", steps_to_live=-1)
    assert capsys.readouterr().out.count("epoch") == 2
    assert resumed == train(tmp_path / "undisturbed", steps_to_live=-1)


@pytest.mark.parametrize("bad", [3, LOOK_AT_LOSS, LOOK_AT_LOSS + 1, 120])
def test_infinite_loss_stops_and_says_where(
    fabric: Fabric,
    net: nn.Module,
    train_set: ImageSet,
    preprocessing: Preprocessing,
    tmp_path: Path,
    bad: int,
) -> None:
    """Two epochs of 60 steps; the step is named exactly although the loss is seldom looked at."""
    steps = 0

    def step(model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
        nonlocal steps
        steps += 1
        return F.cross_entropy(model(images), labels) * (float("nan") if steps == bad else 1)

    checkpoint = Checkpoint(tmp_path / "net.pt", {})
    epoch, within = divmod(bad - 1, 60)
    where = f"epoch {epoch + 1}, step {within + 1} of net-x"
    with pytest.raises(UserError, match=rf"loss is nan in {where}: lower lr \(now 0.1\)"):
        fit(
            fabric,
            net,
            train_set,
            preprocessing,
            replace(RECIPE, epochs=2, batch_size=10),
            0,
            name="net-x",
            step=step,
            checkpoint=checkpoint,
        )
    assert steps - bad < LOOK_AT_LOSS
    saved = Checkpoint(checkpoint.path, {}).load()
    assert (saved is None) == (epoch == 0)
    if saved:
        assert all(tensor.isfinite().all() for tensor in saved["model"].values())
        assert len(saved["records"]) == 1


def test_evaluate_equals_a_naive_count(
    fabric: Fabric, net: nn.Module, test_set: ImageSet, preprocessing: Preprocessing
) -> None:
    net.train()
    ready = prepared(test_set, preprocessing, 64)
    found = evaluate(fabric, net, ready)
    assert net.training
    net.eval()
    right = among_five = 0
    for index in range(len(test_set)):
        one = test_set.select(torch.tensor([index]))
        ((image, label),) = one.batches(preprocessing, 1)
        scores = net(image)[0].tolist()
        better = sum(score > scores[int(label)] for score in scores)
        right += better == 0
        among_five += better < 5
    assert found == (100 * right / 200, 100 * among_five / 200)
    assert found.top1 < found.top5 and json.dumps(found)  # plain numbers


def test_top5_of_few_classes_is_always_right(fabric: Fabric) -> None:
    images, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    assert evaluate(fabric, nn.Linear(4, 4), [(images, labels)]).top5 == 100


def test_batch_must_suit_the_data(
    fabric: Fabric, net: nn.Module, train_set: ImageSet, preprocessing: Preprocessing
) -> None:
    with pytest.raises(UserError, match="batch_size 700 does not fit the 600 training images"):
        recipe = replace(RECIPE, batch_size=700)
        fit(fabric, net, train_set, preprocessing, recipe, 0, name="base")


if __name__ == "__main__":
    train(Path(sys.argv[1]), steps_to_live=9)
