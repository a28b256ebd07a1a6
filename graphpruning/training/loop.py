"""Training and evaluation on Lightning Fabric: one code for a CPU, a GPU and many."""

import math
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.optim import SGD, Optimizer
from tqdm import tqdm

from graphpruning.errors import UserError
from graphpruning.training.checkpoint import Checkpoint
from graphpruning.training.data import Batch, ImageSet, Preprocessing, batches
from graphpruning.training.recipe import Recipe, learning_rate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Step = Callable[[nn.Module, Tensor, Tensor, Generator], Tensor]
Record = dict[str, float]

LOOK_AT_LOSS = 50  # steps between two looks: each one makes a GPU wait


def epoch_generator(seed: int, epoch: int) -> Generator:
    """Return the generator from which epoch `epoch` (from 1) draws everything random.

    Its seed is a hash of both numbers (numpy's SeedSequence), so a run that is resumed at the
    beginning of an epoch needs no saved generator state.
    """
    (mixed,) = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed))


def sgd(model: nn.Module, recipe: Recipe) -> SGD:
    """Return the recipe's optimizer; parameters with one dimension (norms, biases) form a group."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim > 1],
            "weight_decay": recipe.weight_decay,
        },
        {
            "params": [parameter for parameter in parameters if parameter.ndim <= 1],
            "weight_decay": recipe.weight_decay if recipe.decay_norms else 0,
        },
    ]
    return SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )


def fit(
    fabric: "Fabric",
    model: nn.Module,
    data: ImageSet,
    preprocessing: Preprocessing,
    recipe: Recipe,
    seed: int,
    *,
    name: str,
    optimizer: Optimizer | None = None,
    step: Step | None = None,
    on_epoch: Callable[[int], Record] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Record]:
    """Train `model` in place, on `fabric`'s devices, and return one record an epoch.

    A record has `epoch` (from 1), `lr` (of its last step), the means `train_loss` and, without
    `step`, `train_top1` (percent, as trained: augmented), and what `on_epoch(epoch)` returns.

    `step(model, images, labels, generator)` returns the loss of a batch in place of the
    cross-entropy with the recipe's label smoothing; it draws from the epoch's generator, and must
    call the model it is given. `optimizer` is the recipe's SGD unless given.

    With a `checkpoint`, the state is saved after every epoch; a run that finds one goes on from
    there to exactly the result of an undisturbed run.

    Raises `UserError` when the loss is not finite, before such an epoch is saved.
    """
    if recipe.batch_size % fabric.world_size:
        raise UserError(
            f"{name}: batch_size {recipe.batch_size} is not a multiple of the "
            f"{fabric.world_size} devices"
        )
    data = data.to(fabric.device)
    steps_per_epoch, steps = recipe.steps_per_epoch(len(data)), recipe.steps(len(data))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optimizer or sgd(model, recipe)
    net, stepper = fabric.setup(model, optimizer)

    records: list[Record] = []
    saved = checkpoint.load() if checkpoint else None
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        records = saved["records"]

    done = min(steps, len(records) * steps_per_epoch)
    quiet = None if fabric.is_global_zero else True
    bar = tqdm(total=steps, initial=done, desc=name, unit="step", disable=quiet)
    for epoch in range(len(records) + 1, math.ceil(steps / steps_per_epoch) + 1):
        started = time.perf_counter()
        first = (epoch - 1) * steps_per_epoch
        last = min(first + steps_per_epoch, steps) - 1
        generator = epoch_generator(seed, epoch)
        epoch_batches = batches(
            data,
            preprocessing,
            recipe.batch_size,
            generator,
            recipe.augment,
            fabric.global_rank,
            fabric.world_size,
            drop_last=True,
            limit=recipe.images_per_epoch,
        )
        losses: list[Tensor] = []  # since the last look
        loss_sum = 0.0
        correct = torch.zeros((), dtype=torch.int64, device=fabric.device)
        net.train()
        # Dropout knows only torch's own generator: within a fork it too starts anew each epoch.
        with torch.random.fork_rng([fabric.device] if fabric.device.type == "cuda" else []):
            torch.manual_seed(generator.initial_seed() + fabric.global_rank)
            for number, (images, labels) in enumerate(
                islice(epoch_batches, last + 1 - first), start=first
            ):
                lr = learning_rate(recipe, number, steps, steps_per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                if step is None:
                    logits = net(images)
                    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
                    correct += (logits.argmax(1) == labels).sum()
                else:
                    loss = step(net, images, labels, generator)
                fabric.backward(loss)
                if recipe.clip is not None:
                    fabric.clip_gradients(
                        net, stepper, max_norm=recipe.clip, error_if_nonfinite=False
                    )
                stepper.step()
                stepper.zero_grad()
                bar.update()

                losses.append(loss.detach())
                if len(losses) == LOOK_AT_LOSS or number == last:
                    looked = fabric.all_reduce(torch.stack(losses).double()).tolist()
                    for back, value in enumerate(reversed(looked)):
                        pass
                    loss_sum += sum(looked)
                    losses = []
    return records
