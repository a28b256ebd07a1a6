"""What stages read from the study and from earlier stages."""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.stage import Context
from graphpruning.errors import UserError
from graphpruning.files import write_text
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.training.checkpoint import load_weights
from graphpruning.training.data import ImageSet, Preprocessing, load

SPLITS = ("train", "search", "calibration")


def training_images(context: Context) -> ImageSet:
    """All of the data set's training images, from which the splits choose."""
    return load(context.study.data.name, Path(context.study.data.root), train=True)


def test_images(context: Context) -> ImageSet:
    """The test set: read once, after training."""
    return load(context.study.data.name, Path(context.study.data.root), train=False)


def split(context: Context, name: str) -> Tensor:
    """Indices of the split `name`, as `prepare` wrote them."""
    path = context.results / "splits" / f"{name}.txt"
    try:
        numbers = [int(line) for line in path.read_text(encoding="utf-8").split()]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the stage prepare makes it (dvc repro)") from None
    except ValueError:
        raise UserError(f"{path} holds something else than indices: remove it, dvc repro") from None
    return torch.tensor(numbers, dtype=torch.int64)


def splits_hash(context: Context) -> str:
    """What a checkpoint must agree with: which images train, judge and recalibrate."""
    texts = [(context.results / "splits" / f"{name}.txt").read_bytes() for name in SPLITS]
    return hashlib.sha256(b"".join(texts)).hexdigest()


def preprocessing(context: Context) -> Preprocessing:
    """Normalisation and augmentation of the study."""
    data = context.study.data
    return Preprocessing(mean=data.mean, std=data.std, pad=data.pad, flip=data.flip)


def network(context: Context, images: ImageSet) -> dict[str, Any]:
    """How `zoo.build` makes the study's full network for these images."""
    return {
        "name": context.items["model"],
        "num_classes": len(images.classes),
        "in_channels": images.images.shape[1],
        **context.study.networks[context.items["model"]],
    }


def fresh(
    description: dict[str, Any], images: ImageSet, seed: int
) -> tuple[nn.Module, ChannelGraph]:
    """A full network with fresh weights, and its graph."""
    with seeded(seed):
        model = build(**description)
    return model, trace(model, tuple(images.images.shape[1:]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights come from PyTorch's global generator: seed it here, and only here."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def base_model(context: Context, images: ImageSet) -> tuple[nn.Module, ChannelGraph]:
    """The trained base, in evaluation mode, and its graph."""
    model, graph = fresh(network(context, images), images, 0)
    load_weights(context.weights / context.items["model"] / "base.safetensors", model)
    return model.eval(), graph


def search_space(context: Context, graph: ChannelGraph) -> SearchSpace:
    """The study's levels for each group."""
    space = context.study.space
    return SearchSpace(graph, divisor=space.divisor, smallest=space.smallest, ratios=space.ratios)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows (all with the same keys) as CSV, floats with six digits."""
    lines = [list(rows[0])]
    lines += [[_cell(value) for value in row.values()] for row in rows]
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(path, text.getvalue())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
