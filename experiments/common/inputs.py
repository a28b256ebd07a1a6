"""What stages read from the study and from earlier stages."""

import csv
import hashlib
import os
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.common.stage import Context
from graphpruning.common.errors import UserError
from graphpruning.common.files import read_text, write_text
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build, seeded
from graphpruning.training.checkpoint import load_weights
from graphpruning.training.datasets import FOLDERS, load
from graphpruning.training.images import Images
from graphpruning.training.listing import read_manifest
from graphpruning.training.preprocessing import Preprocessing

SPLITS = ("train", "search", "calibration")
MAKER = "the stage prepare"
DIGITS = 15  # of the largest index that a split may hold


MANIFESTS = Path("data/manifests")


def data_root(context: Context) -> Path:
    """Where the study's images are, with environment variables (`$IMAGENET_DIR`) filled in."""
    root = context.study.data.root

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not os.environ.get(name):
            raise UserError(
                f"data: root: {root} needs the environment variable {name}: "
                f"`export {name}=FOLDER` says where the images are"
            )
        return os.environ[name]

    return Path(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, root)).expanduser()


def manifest(context: Context) -> Path:
    """The list of the study's image files that `prepare` writes."""
    return MANIFESTS / f"{context.study.study}.tsv.gz"


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

    listing = read_manifest(manifest(context), root, part)
    return open_images(listing, part == "train", preprocessing(context), data.workers)


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


def preprocessing(context: Context) -> Preprocessing:
    """Normalisation and augmentation of the study."""
    data = context.study.data
    return Preprocessing(
        mean=data.mean,
        std=data.std,
        pad=data.pad,
        flip=data.flip,
        size=data.size,
        resize=data.resize,
        smallest_area=data.smallest_area,
    )


def network(context: Context, images: Images) -> dict[str, Any]:
    """How `zoo.build` makes the study's full network for these images."""
    return {
        "name": context.items["model"],
        "num_classes": len(images.classes),
        "in_channels": images.shape[0],
        **context.study.networks[context.items["model"]].options,
    }


def fresh(description: dict[str, Any], images: Images, seed: int) -> tuple[nn.Module, ChannelGraph]:
    """A full network with fresh weights, and its graph."""
    with seeded(seed):
        model = build(**description)
    return model, trace(model, images.shape)


def base_model(context: Context, images: Images) -> tuple[nn.Module, ChannelGraph]:
    """The trained base, in evaluation mode, and its graph."""
    model, graph = fresh(network(context, images), images, 0)
    load_weights(context.weights / context.items["model"] / "base.safetensors", model)
    return model.eval(), graph


def search_space(context: Context, graph: ChannelGraph) -> SearchSpace:
    """The study's levels for each group."""
    space = context.study.space
    return SearchSpace(
        graph,
        divisor=space.divisor,
        smallest=space.smallest,
        ratios=space.ratios,
        filled=space.filled,
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
