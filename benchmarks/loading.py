"""Loading of training images, per core: against ImageFolder, Pillow and torchvision's transforms.

All give batches of normalised random crops, in one process; what counts is processor time.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.harness import Row
from graphpruning.common.errors import UserError
from graphpruning.training import jpeg
from graphpruning.training.folder import open_images
from graphpruning.training.listing import list_folder
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.walk import subfolders

IMAGENET = Preprocessing(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    pad=0,
    flip=True,
    size=224,
    resize=256,
    smallest_area=0.08,
)
TARGETS = {"by Pillow": 1.8, "by simplejpeg": 2.5}


def reference(folder: Path, batch_size: int) -> Iterable[object]:
    """What most training scripts do."""
    steps = [
        transforms.RandomResizedCrop(224, scale=(0.08, 1)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET.mean, IMAGENET.std),
    ]
    data = ImageFolder(str(folder), transforms.Compose(steps))
    return DataLoader(data, batch_size, shuffle=True)


def ours(folder: Path, batch_size: int) -> Iterable[object]:
    listing = list_folder(folder, "", subfolders(folder))
    images = open_images(listing, True, IMAGENET)
    return images.batches(IMAGENET, batch_size, torch.Generator().manual_seed(0), augment=True)


def seconds(reader: Callable[[Path, int], Iterable[object]], folder: Path, batch: int) -> float:
    """Processor time of one pass."""
    batches = reader(folder, batch)
    started = time.process_time()
    for _ in batches:
        pass
    return time.process_time() - started


def by_pillow(folder: Path, batch_size: int) -> Iterable[object]:
    """Ours where simplejpeg is not installed."""
    installed, jpeg.simplejpeg = jpeg.simplejpeg, None
    try:
        yield from ours(folder, batch_size)
    finally:
        jpeg.simplejpeg = installed


def rows(folder: Path, batch: int = 32, repeats: int = 7) -> list[Row]:
    """Images a second and core of all, which read `folder` in turn with one thread each.

    There is a row for ours by Pillow alone, and one with simplejpeg where that is installed.
    """
    count = len(list_folder(folder, "", subfolders(folder)).files)
    if not count:
        raise UserError(f"{folder} has no image in folders of classes")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    readers = {"reference": reference, "by Pillow": by_pillow}
    if jpeg.simplejpeg is not None:
        readers["by simplejpeg"] = ours
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for repeat in range(-1, repeats):  # the first is not counted
        for name, reader in readers.items():
            rate = count / seconds(reader, folder, batch)
            if repeat >= 0:
                rates[name].append(rate)
    torch.set_num_threads(threads)
    against = rates.pop("reference")
    return [
        Row(
            f"loading of {count} training images {name}",
            "ImageFolder, Pillow, transforms",
            "images/s/core",
            found,
            against,
            TARGETS[name],
            at_least=True,
        )
        for name, found in rates.items()
    ]
