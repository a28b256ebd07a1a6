"""Loading of training images, per core: against ImageFolder, Pillow and torchvision's transforms.

`python -m benchmarks.loading FOLDER` reads a folder of class folders with both, in turn, and prints
images per second of processor time in one process. Both give batches of normalised random crops.
"""

import argparse
import csv
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from graphpruning.errors import UserError
from graphpruning.files import write_text
from graphpruning.machine import processor
from graphpruning.training.data import Preprocessing
from graphpruning.training.folder import open_images
from graphpruning.training.listing import list_folder, subfolders

IMAGENET = Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), pad=0, flip=True,
    size=224, resize=256, smallest_area=0.08,
)  # fmt: skip


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


def measure(folder: Path, batch: int, repeats: int) -> list[tuple[str, int, float]]:
    """Return (reader, repeat, images per second), the readers in turn, after one pass of each."""
    readers = {"reference": reference, "ours": ours}
    count = len(list_folder(folder, "", subfolders(folder)).files)
    if not count:
        raise UserError(f"{folder} has no image in folders of classes")
    rows = []
    for repeat in range(repeats + 1):
        for name, reader in readers.items():
            rate = count / seconds(reader, folder, batch)
            if repeat:
                rows.append((name, repeat, rate))
    return rows


def report(rows: list[tuple[str, int, float]]) -> str:
    """Return medians and range of both readers, and of the ratio of neighbouring passes."""
    rates = {name: [rate for n, _, rate in rows if n == name] for name in ("reference", "ours")}
    rates["ratio"] = [b / a for a, b in zip(rates["reference"], rates["ours"], strict=True)]
    lines = [
        f"{name}: {statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"
        for name, values in rates.items()
    ]
    return "images per second and core, median (range)\n" + "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.loading", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds one folder of images for each class")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/loading.csv"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        rows = measure(options.folder, options.batch_size, options.repeats)
    except UserError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    machine = f"{processor()}, {os.cpu_count()} cores"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow"))
    versions += f", Python {platform.python_version()}"
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["reader", "repeat", "images_per_second", "machine", "versions"])
    table.writerows([name, repeat, f"{rate:.1f}", machine, versions] for name, repeat, rate in rows)
    write_text(options.out, text.getvalue())
    print(f"{machine}; {versions}\n{report(rows)}\nwritten to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
