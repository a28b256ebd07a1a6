"""Data sets by name: Fashion-MNIST, CIFAR-10, a generated one, and folders of image files."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from graphpruning.common.errors import UserError, reason
from graphpruning.common.files import require_file, sum_of
from graphpruning.common.names import nearest
from graphpruning.training.images import Images, ImageSet
from graphpruning.training.listing import FASHION_MNIST_FILES, list_images
from graphpruning.training.preprocessing import Preprocessing

FOLDERS = ("folder", "imagenet", "imagenet_subset")  # data sets that folder.py reads


def fashion_mnist(root: Path, train: bool) -> ImageSet:
    """Return Fashion-MNIST (60,000 and 10,000 images, 1x28x28) after checking all four files.

    Raises `UserError` for a file that is missing or has other bytes.
    """
    raw = root / "FashionMNIST" / "raw"
    for name, expected in FASHION_MNIST_FILES.items():
        path = raw / name
        found = sum_of(path, "`python -m experiments.fetch_data`")
        if found != expected:
            raise UserError(
                f"{path} has SHA-256 {found}, expected {expected}: "
                "delete it, then `python -m experiments.fetch_data` gets it again"
            )

    from torchvision.datasets import FashionMNIST, mnist  # here, because importing it takes long

    # The files that were checked: `FashionMNIST` itself prefers an old "processed" folder.
    part = "train" if train else "t10k"
    images = mnist.read_image_file(raw / f"{part}-images-idx3-ubyte")
    labels = mnist.read_label_file(raw / f"{part}-labels-idx1-ubyte")
    return ImageSet(images.unsqueeze(1), labels, tuple(FashionMNIST.classes))


def cifar10(root: Path, train: bool) -> ImageSet:
    """Return CIFAR-10 (50,000 and 10,000 images, 3x32x32) after checking its files' MD5 sums.

    They are pickles, so nothing is read before that. Raises `UserError` for a file that is missing
    or has other bytes.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    files = dict(CIFAR10.train_list + CIFAR10.test_list)
    files[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    for name, expected in files.items():
        path = root / CIFAR10.base_folder / name
        get = (
            '`python -c "from torchvision.datasets import CIFAR10; '
            f"CIFAR10('{root}', download=True)\"`"
        )
        state = "is missing"
        if os.path.lexists(path):
            require_file(path, get)
            state = "is corrupted"
        try:
            whole = check_integrity(path, expected)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({reason(error)})") from None
        if not whole:
            raise UserError(f"{path} {state} (expected MD5 {expected}): get it by {get}")
    source = CIFAR10(root, train=train, download=False)
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images, torch.tensor(source.targets), tuple(source.classes))


def generated(root: Path, train: bool) -> ImageSet:
    """Return a small learnable set (600 and 200 images, 1x16x16, 10 classes), made from a seed.

    A class is a smooth random pattern; an image shows it shifted by up to two pixels, with noise.
    Nothing is read from `root`.
    """
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(10, 1, 5, 5, generator=generator)
    patterns = F.interpolate(patterns, size=(20, 20), mode="bilinear", align_corners=True)

    generator = torch.Generator().manual_seed(2 if train else 3)
    labels = torch.arange(600 if train else 200) % len(patterns)
    corners = torch.randint(0, 5, (len(labels), 2), generator=generator).tolist()
    crops = [
        patterns[label, :, top : top + 16, left : left + 16]
        for label, (top, left) in zip(labels.tolist(), corners, strict=True)
    ]
    noise = torch.randn(len(labels), 1, 16, 16, generator=generator)
    images = (128 + 40 * (torch.stack(crops) + noise)).clamp(0, 255).to(torch.uint8)
    return ImageSet(images, labels, tuple(f"pattern {number}" for number in range(10)))


LOADERS: dict[str, Callable[[Path, bool], ImageSet]] = {
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "generated": generated,
}


def load(
    name: str,
    root: str | Path,
    train: bool,
    preprocessing: Preprocessing | None = None,
    workers: int = 0,
) -> Images:
    """Return the training or test images of a known data set kept under `root`.

    Image folders need `preprocessing`, which says how files become pixels, and are decoded by
    `workers` processes (0: by this one). Raises `UserError` for an unknown name, and for a file
    that is missing or corrupted.
    """
    if name in LOADERS:
        return LOADERS[name](Path(root), train)
    if name in FOLDERS:
        from graphpruning.training.folder import open_images  # torchvision takes long to import

        if preprocessing is None:
            raise UserError(f"data set {name!r}: preprocessing with a size is needed")
        return open_images(list_images(name, Path(root), train), train, preprocessing, workers)
    known = [*LOADERS, *FOLDERS]
    near = nearest(name, known)
    raise UserError(
        f"unknown data set {name!r}: did you mean {near!r}? (known: {', '.join(known)})"
    )
