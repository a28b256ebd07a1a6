"""Training and evaluation on Lightning Fabric: one code for a CPU, a GPU and many.

Several processes train as one would: each takes its share of every batch, batch normalisation
uses the statistics of all shares, and gradients are averaged. Dropout alone draws differently.
"""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.optim import SGD, Optimizer
from tqdm import tqdm

from graphpruning.common.convolution import SoundConvolutions
from graphpruning.common.distributed import (
    Synchronised,
    barrier,
    require_shared,
    share,
    sum_over_ranks,
)
from graphpruning.common.errors import UserError
from graphpruning.training.checkpoint import Checkpoint
from graphpruning.training.images import Batch, Images
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe, learning_rate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Step = Callable[[nn.Module, Tensor, Tensor, Generator], Tensor]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Record = dict[str, float]

LOOK_AT_LOSS = 50  # steps between two looks: each one makes a GPU wait


class Accuracy(NamedTuple):
    """Percent of images whose label has the best score, and one of the five best."""

    top1: float
    top5: float


def epoch_generator(seed: int, epoch: int) -> Generator:
    """Return the generator from which epoch `epoch` (from 1) draws everything random.

    A run that is resumed at the beginning of an epoch needs no saved generator state.
    """
    return torch.Generator().manual_seed(derived_seed(seed, epoch))


def derived_seed(seed: int, number: int) -> int:
    """Return a seed that follows from `seed` and `number`: a hash of both, numpy's SeedSequence."""
    (mixed,) = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    return int(mixed >> 1)


class ClippedSGD(SGD):
    """SGD that first clips the norm of all gradients together to `max_norm`, if that is given."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, max_norm: float | None = None, **settings: Any
    ) -> None:
        super().__init__(groups, fused=True, **settings)
        self.max_norm = max_norm

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Clip and move."""
        if self.max_norm is not None:
            parameters = [p for group in self.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.max_norm)
        super().step(closure)

    def settle(self) -> None:
        """Called after every epoch: parameters and state then have their true values, as here."""

    def close(self) -> None:
        """Called after the last epoch."""


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return groups with their weight decay; norms and biases, of one dimension, are the second."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": recipe.weight_decay if recipe.decay_norms else 0},
    ]
    return [group for group in groups if group["params"]]


def fit(
    fabric: "Fabric",
    model: nn.Module,
    data: Images,
    preprocessing: Preprocessing,
    recipe: Recipe,
    seed: int,
    *,
    name: str,
    step: Step | None = None,
    loss: Loss | None = None,
    optimizer: Callable[..., Any] = ClippedSGD,
    on_epoch: Callable[[int], Record] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Record]:
    """Train `model` in place, on `fabric`'s devices, and return one record an epoch.

    A record has `epoch` (from 1), `lr` (of its last step), the means `train_loss` and, without
    `step`, `train_top1` (percent, on the augmented images), and what `on_epoch(epoch)` returns.

    `step(model, images, labels, generator)` returns a batch's loss in place of the cross-entropy
    with the recipe's label smoothing. It must call the model that it is given, and may draw from
    the epoch's generator, which is the same in every process.

    `loss(images, logits, labels)` replaces the cross-entropy alone, where there is no `step`.

    `optimizer` takes what `ClippedSGD` takes, and has its methods.

    With a `checkpoint`, the state is saved after every epoch, and a run that finds one goes on
    from there to exactly the result of an undisturbed run.

    Raises `UserError` when nothing but `optimizer` sees a gradient and there are several processes,
    when the loss is not finite (such an epoch is never saved), when a batch
    cannot be shared evenly by all processes, and when they do not find the same checkpoint.
    """
    if recipe.batch_size % fabric.world_size:
        raise UserError(
            f"{name}: batch_size {recipe.batch_size} is not a multiple of the "
            f"{fabric.world_size} processes"
        )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    descent = optimizer(
        parameter_groups(model, recipe),
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        max_norm=recipe.clip,
    )
    if fabric.world_size > 1 and not any(p.requires_grad for p in model.parameters()):
        descent.close()
        raise UserError(
            f"{name}: no gradient is left for several processes to share (constant features and "
            "no bias): start it in one process"
        )
    with closing(descent):  # whoever catches a failure finds the model as others expect it
        net, stepper = fabric.setup(model, descent)
        data = data.to(fabric.device)
        run = _Run(fabric, net, stepper, data, preprocessing, recipe, seed, name, step, loss)
        return _epochs(run, model, descent, on_epoch, checkpoint)


def _epochs(
    run: "_Run",
    model: nn.Module,
    descent: Any,
    on_epoch: Callable[[int], Record] | None,
    checkpoint: Checkpoint | None,
) -> list[Record]:
    """Train from the checkpoint's epoch on, if there is one, to the last."""
    records: list[Record] = []
    saved = checkpoint.load() if checkpoint else None
    if saved is not None:
        model.load_state_dict(saved["model"])
        descent.load_state_dict(saved["optimizer"])
        records = saved["records"]
    if checkpoint:
        require_shared(checkpoint.path, len(records))

    epochs = math.ceil(run.steps / run.steps_per_epoch)
    bar = tqdm(
        total=run.steps,
        initial=min(run.steps, len(records) * run.steps_per_epoch),
        desc=run.name,
        unit="step",
        disable=None if run.fabric.is_global_zero else True,
    )
    for epoch in range(len(records) + 1, epochs + 1):
        started = time.perf_counter()
        record = run.epoch(epoch, bar)
        descent.settle()
        if on_epoch:
            # numpy's numbers would not come back from a checkpoint
            record |= {key: float(value) for key, value in on_epoch(epoch).items()}
        records.append(record)
        if checkpoint and run.fabric.is_global_zero:
            checkpoint.save(
                {
                    "model": model.state_dict(),
                    "optimizer": descent.state_dict(),
                    "records": records,
                }
            )
        barrier()  # what is saved may now be loaded by all
        values = ", ".join(f"{key} {value:.4g}" for key, value in record.items() if key != "epoch")
        if bar.disable:
            seconds = time.perf_counter() - started
            run.fabric.print(
                f"{run.name}: epoch {epoch}/{epochs}, {values}, {seconds:.1f} s", flush=True
            )
        else:
            bar.set_postfix_str(values)
    bar.close()
    return records


@dataclass(frozen=True)
class _Run:
    fabric: "Fabric"
    net: nn.Module
    stepper: Optimizer
    data: Images
    preprocessing: Preprocessing
    recipe: Recipe
    seed: int
    name: str
    step: Step | None
    loss: Loss | None

    @property
    def steps_per_epoch(self) -> int:
        return self.recipe.steps_per_epoch(len(self.data))

    @property
    def steps(self) -> int:
        return self.recipe.steps(len(self.data))

    def epoch(self, epoch: int, bar: "tqdm[Any]") -> Record:
        fabric, recipe = self.fabric, self.recipe
        generator = epoch_generator(self.seed, epoch)
        first = (epoch - 1) * self.steps_per_epoch
        end = min(first + self.steps_per_epoch, self.steps)
        epoch_batches = self.data.batches(
            self.preprocessing,
            recipe.batch_size,
            generator,
            recipe.augment,
            fabric.global_rank,
            fabric.world_size,
            drop_last=True,
            limit=recipe.images_per_epoch,
        )
        loss_sum, unseen_losses = 0.0, []
        correct = torch.zeros((), dtype=torch.int64, device=fabric.device)
        self.net.train()
        # Dropout knows only torch's own generator: in a fork, it too starts anew every epoch.
        devices = [fabric.device] if fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices), Synchronised(), SoundConvolutions():
            torch.manual_seed(generator.initial_seed() + fabric.global_rank)
            for number, (images, labels) in enumerate(islice(epoch_batches, end - first), first):
                lr = learning_rate(recipe, number, self.steps, self.steps_per_epoch)
                for group in self.stepper.param_groups:
                    group["lr"] = lr
                if self.step is None:
                    logits = self.net(images)
                    loss = self.loss_of(images, logits, labels)
                    correct += (logits.argmax(1) == labels).sum()
                else:
                    loss = self.step(self.net, images, labels, generator)
                self.fabric.backward(loss)
                self.stepper.step()
                self.stepper.zero_grad()
                bar.update()
                unseen_losses.append(loss.detach())
                if len(unseen_losses) == LOOK_AT_LOSS or number == end - 1:
                    seen = number + 1 - first - len(unseen_losses)
                    loss_sum += self.look_at(unseen_losses, epoch, seen)
                    unseen_losses = []

        record: Record = {"epoch": epoch, "lr": lr, "train_loss": loss_sum / (end - first)}
        if self.step is None:
            images_seen = (end - first) * recipe.batch_size
            record["train_top1"] = 100 * int(sum_over_ranks(correct)) / images_seen
        return record

    def loss_of(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        if self.loss is not None:
            return self.loss(images, logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def look_at(self, losses: list[Tensor], epoch: int, seen: int) -> float:
        """Return the sum of the losses, meant over ranks, that follow the first `seen` steps."""
        total = sum_over_ranks(torch.stack(losses).float())
        values: list[float] = (total / self.fabric.world_size).tolist()
        for step, value in enumerate(values, start=seen + 1):
            if not math.isfinite(value):
                raise UserError(
                    f"loss is {value} in epoch {epoch}, step {step} of {self.name}: "
                    f"lower lr (now {self.recipe.lr:g}), or give the recipe clip or warmup_epochs"
                )
        return sum(values)


def evaluate(fabric: "Fabric", model: nn.Module, batches: Iterable[Batch]) -> Accuracy:
    """Return the accuracy over `batches`, which are those of all images in every process.

    A process runs every `world_size`-th batch, whole, so that each image meets the same
    arithmetic however many processes there are: the counts are exact. With five classes or fewer
    top-5 is 100. Moves `model` to `fabric`'s device, runs it in evaluation mode and puts the mode
    back.
    """
    was_training = model.training
    model.to(fabric.device).eval()
    counts = torch.zeros(3, dtype=torch.int64, device=fabric.device)
    with torch.no_grad(), fabric.autocast():
        for _, (images, labels) in share(batches):
            images, labels = images.to(fabric.device), labels.to(fabric.device)
            logits = model(images.clone())  # a network may write into what it is given
            best = logits.topk(min(5, logits.shape[1])).indices
            counts[0] += (logits.argmax(1) == labels).sum()
            counts[1] += (best == labels[:, None]).sum()
            counts[2] += len(labels)
    model.train(was_training)
    right, among_five, count = sum_over_ranks(counts).tolist()
    return Accuracy(100 * right / count, 100 * among_five / count)
