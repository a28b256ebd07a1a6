"""What stages read from the study and from earlier stages."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.common.stage import Context
from experiments.common.study_file import root_folder
from graphpruning.builder import Builder
from graphpruning.common.errors import UserError
from graphpruning.common.files import read_text, write_text
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build, seeded
from graphpruning.training.checkpoint import Checkpoint, load_weights
from graphpruning.training.datasets import FOLDERS, load
from graphpruning.training.images import Images
from graphpruning.training.listing import read_manifest

SPLITS = ("train", "search", "calibration")
MAKER = "the stage prepare"
DIGITS = 15  # of the largest index that a split may hold


def data_root(context: Context) -> Path:
    """Where the study's images are, with environment variables (`$IMAGENET_DIR`) filled in."""
    return root_folder(context.study.data.root)


def training_images(context: Context) -> Images:
    """All of the data set's training images, from which the splits choose."""
    return _images(context, "train")


def test_images(context: Context) -> Images:
    """The test set: read once, after training."""
    return _images(context, "test")


def _images(context: Context, part: str) -> Images:
    data, root = context.study.data, data_root(context)
    if data.name not in FOLDERS:
        return load(data.name, root, part == "train")
    from graphpruning.training.folder import open_images  # torchvision takes long to import

    listing = read_manifest(context.manifest, root, part)
    return open_images(listing, part == "train", context.study.data.preprocessing, data.workers)


def split(context: Context, name: str) -> Tensor:
    """Indices of the split `name`, as `prepare` wrote them.

    Raises `UserError`, with the line, for what is no index or is there twice. Whether there is such
    an image is for `Images.select` to say.
    """
    path = context.results / "splits" / f"{name}.txt"
    lines: dict[int, int] = {}  # of each index, in order
    for place, line in enumerate(read_text(path, MAKER).split("\n"), start=1):
        word = line.strip()
        if word and not (word.isascii() and word.isdigit() and len(word) <= DIGITS):
            fault = f"{word[:40]!r} is no index of an image"
        elif word and (first := lines.setdefault(int(word), place)) != place:
            fault = f"the index {word} stands in line {first} too"
        else:
            continue
        raise UserError(f"{path}, line {place}: {fault}: remove the file, then dvc repro")
    return torch.tensor(list(lines), dtype=torch.int64)


def splits_hash(context: Context) -> str:
    """What a checkpoint must agree with: which images train, judge and recalibrate."""
    texts = [read_text(context.results / "splits" / f"{name}.txt", MAKER) for name in SPLITS]
    return hashlib.sha256("".join(texts).encode()).hexdigest()


@dataclass(frozen=True)
class FullNetwork:
    """The study's unpruned network: what builds it, and its graph, traced once a stage."""

    make: Builder
    graph: ChannelGraph

    def fresh(self, seed: int) -> nn.Module:
        """Return the network with fresh weights."""
        with seeded(seed):
            return self.make()


def full_network(context: Context, images: Images) -> FullNetwork:
    """The item's network, for these images."""
    name = context.items["model"]
    description = {
        "name": name,
        "num_classes": len(images.classes),
        "in_channels": images.shape[0],
        **context.study.networks[name].options,
    }
    make = Builder(build, description)
    with seeded(0):
        model = make()
    return FullNetwork(make, trace(model, images.shape))


def base_network(context: Context, full: FullNetwork) -> nn.Module:
    """The trained base, in evaluation mode."""
    model = full.make()
    load_weights(context.weights_of("base"), model)
    return model.eval()


def search_space(context: Context, graph: ChannelGraph) -> SearchSpace:
    """The study's levels for each group."""
    return SearchSpace(graph, context.study.space)


def training_checkpoint(context: Context, name: str = "training", **more: Any) -> Checkpoint:
    """What a killed training of this stage goes on from; `more` is what else it must agree with."""
    return Checkpoint(
        context.checkpoints / f"{name}.pt",
        context.fingerprint(splits=splits_hash(context), **more),
    )


def write_csv(
    path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write rows (all with the same keys) as CSV, floats with six digits.

    `columns` are the header of a table that may have no rows; else it is the first row's keys.
    """
    lines = [list(columns or rows[0])]
    lines += [[_cell(value) for value in row.values()] for row in rows]
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(path, text.getvalue())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
