"""A miniature ILSVRC 2012: archives in the official format, with few classes and small images."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from graphpruning.training.imagenet import SUMS
from graphpruning.training.listing import WNIDS

ARCHIVES = (
    "ILSVRC2012_img_train.tar",
    "ILSVRC2012_img_val.tar",
    "ILSVRC2012_devkit_t12.tar.gz",
)
FIELDS = (
    "ILSVRC2012_ID",
    "WNID",
    "words",
    "gloss",
    "num_children",
    "children",
    "wordnet_height",
    "num_train_images",
)


def build(folder: Path, classes: int, train: int, val: int) -> None:
    """Write the three archives and their MD5SUMS to `folder`.

    `train` (the first class: twice as many) and `val` images a class, about 70 x 60 pixels: stripes
    whose direction and colour tell the class, with noise. As in the official archives, classes are
    numbered in another order than that of their names, and the validation images are in no order
    of classes.
    """
    draw = np.random.default_rng(0)
    wnids = WNIDS.read_text().split()[:classes]
    numbers = dict(zip(wnids, draw.permutation(classes) + 1, strict=True))
    counts = dict(zip(wnids, [2 * train, *[train] * (classes - 1)], strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / ARCHIVES[0], "w") as outer:
        for label, wnid in enumerate(wnids):
            content = io.BytesIO()
            with tarfile.open(fileobj=content, mode="w") as inner:
                for number in range(counts[wnid]):
                    add(inner, f"{wnid}_{number}.JPEG", image(draw, label, classes))
            add(outer, f"{wnid}.tar", content.getvalue())
    truth = draw.permutation(np.repeat(np.arange(classes), val))
    with tarfile.open(folder / ARCHIVES[1], "w") as archive:
        for number, label in enumerate(truth, start=1):
            add(archive, f"ILSVRC2012_val_{number:08}.JPEG", image(draw, int(label), classes))
    synsets = [
        (numbers[wnid], wnid, f"class {wnid}, other name", "", 0, [], 0, counts[wnid])
        for wnid in wnids
    ]
    synsets.append((classes + 1, "n00001740", "entity", "", classes, list(numbers.values()), 1, 0))
    structure = np.array(synsets, dtype=[(field, object) for field in FIELDS])
    matrix = io.BytesIO()
    savemat(matrix, {"synsets": structure})
    lines = "".join(f"{numbers[wnids[label]]}\n" for label in truth)
    with tarfile.open(folder / ARCHIVES[2], "w:gz") as devkit:
        data = "ILSVRC2012_devkit_t12/data"
        add(devkit, f"{data}/meta.mat", matrix.getvalue())
        add(devkit, f"{data}/ILSVRC2012_validation_ground_truth.txt", lines.encode())
    write_sums(folder)


def write_sums(folder: Path) -> None:
    """Do what `md5sum *.tar* > MD5SUMS` does."""
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.glob("*.tar*")}
    (folder / SUMS).write_text("".join(f"{md5}  {name}\n" for name, md5 in sums.items()))


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def image(draw: np.random.Generator, label: int, classes: int) -> bytes:
    """A JPEG of stripes in the direction and colour of class `label`."""
    height, width = draw.integers(55, 75, 2)
    angle = np.pi * label / classes
    down, across = np.mgrid[:height, :width]
    wave = np.sin((down * np.sin(angle) + across * np.cos(angle)) / 3 + draw.uniform(0, 6))
    colour = 1 + np.cos(2 * np.pi * (label / classes + np.arange(3) / 3))
    pixels = 128 + 50 * wave[..., None] * colour + draw.normal(0, 15, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
