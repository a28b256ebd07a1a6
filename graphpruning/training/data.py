"""Images as uint8 tensors in memory: data sets, splits, and batches augmented as a whole."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphpruning.errors import UserError
from graphpruning.files import sha256

Batch = tuple[Tensor, Tensor]  # float32 images [B, C, H, W] in channels_last, int64 labels [B]

FASHION_MNIST_FILES = {  # name: SHA-256 of the uncompressed file
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True)
class ImageSet:
    """Labelled images: uint8 [N, C, H, W], int64 labels [N], and the classes' names."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> "ImageSet":
        """Return the images at `indices`, in that order."""
        return ImageSet(self.images[indices], self.labels[indices], self.classes)

    def to(self, device: torch.device) -> "ImageSet":
        """Return the set on `device`; its batches are then made there."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes)

    def sha256(self) -> str:
        """Return the SHA-256 of pixels and labels, for fingerprints."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels):
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become inputs: scaled to 0..1, then `(x - mean) / std` per channel.

    When augmenting, a random crop of the image after `pad` black pixels on each side, then (if
    `flip`) a horizontal flip in half of the cases.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int
    flip: bool

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or min(self.std) <= 0 or self.pad < 0:
            raise UserError(
                f"{self}: mean and std need one value a channel, std above 0 and pad at least 0"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON can hold them."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Make one from `to_dict`'s values."""
        return cls(
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            pad=values["pad"],
            flip=values["flip"],
        )


def fashion_mnist(root: Path, train: bool) -> ImageSet:
    """Return Fashion-MNIST (60,000 and 10,000 images, 1x28x28) after checking all four files."""
    for name, expected in FASHION_MNIST_FILES.items():
        path = root / "FashionMNIST" / "raw" / name
        if not path.is_file():
            raise UserError(f"{path} is missing: `python -m experiments.fetch_data` gets it")
        found = sha256(path)
        if found != expected:
            raise UserError(
                f"{path} has SHA-256 {found}, expected {expected}: "
                "delete it, then `python -m experiments.fetch_data` gets it again"
            )

    from torchvision.datasets import FashionMNIST  # here, because importing it takes long

    source = FashionMNIST(root, train=train, download=False)
    return ImageSet(source.data.unsqueeze(1), source.targets, tuple(source.classes))


def cifar10(root: Path, train: bool) -> ImageSet:
    """Return CIFAR-10 (50,000 and 10,000 images, 3x32x32) after checking its files' MD5 sums."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    files = dict(CIFAR10.train_list + CIFAR10.test_list)
    files[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    for name, expected in files.items():
        path = root / CIFAR10.base_folder / name
        if not check_integrity(path, expected):
            state = "is corrupted" if path.exists() else "is missing"
            raise UserError(
                f"{path} {state} (expected MD5 {expected}): get it by `python -c "
                f"\"from torchvision.datasets import CIFAR10; CIFAR10('{root}', download=True)\"`"
            )
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


def load(name: str, root: str | Path, train: bool) -> ImageSet:
    """Return the training or test images of a known data set kept under `root`.

    Raises `UserError` for an unknown name, and for a file that is missing or corrupted.
    """
    if name not in LOADERS:
        nearest = get_close_matches(name, LOADERS, n=1, cutoff=0)[0]
        raise UserError(
            f"unknown data set {name!r}: did you mean {nearest!r}? (known: {', '.join(LOADERS)})"
        )
    return LOADERS[name](Path(root), train)


@dataclass(frozen=True)
class Splits:
    """Sorted indices of training images; `calibration` is part of `train`, `search` is not."""

    train: Tensor
    search: Tensor
    calibration: Tensor


def split(labels: Tensor, search_images: int, calibration_images: int, seed: int) -> Splits:
    """Hold `search_images` out of training and name `calibration_images` of those that remain.

    Each class has its share of every part, to within one image. Raises `UserError` when there are
    too few images.
    """
    if min(search_images, calibration_images) < 1 or (
        search_images + calibration_images > len(labels)
    ):
        raise UserError(
            f"cannot take {search_images} search and {calibration_images} calibration images from "
            f"{len(labels)} training images: ask for at least 1 of each, and for no more than that"
        )
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    # An image's place among its own class, from 0 to 1: in this order every beginning of the
    # list is stratified.
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in set(labels.tolist()):
        members = shuffled[labels[shuffled] == label]
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    order = shuffled[place[shuffled].argsort(stable=True)]
    search, train = order[:search_images], order[search_images:]
    return Splits(*(part.sort().values for part in (train, search, train[:calibration_images])))


def batches(
    data: ImageSet,
    preprocessing: Preprocessing,
    batch_size: int,
    generator: Generator | None = None,
    augment: bool = False,
    rank: int = 0,
    world: int = 1,
    drop_last: bool = False,
    limit: int | None = None,
) -> Iterator[Batch]:
    """Yield normalised batches; shuffled if there is a `generator`, of `limit` images at most.

    `batch_size` counts the images of all `world` ranks: each rank takes every `world`-th image of
    the same batch. All random numbers are drawn before the first batch, whatever the rank.
    """
    if len(preprocessing.mean) != data.images.shape[1]:
        raise UserError(
            f"preprocessing has {len(preprocessing.mean)} channels (mean, std), "
            f"the images have {data.images.shape[1]}"
        )
    device = data.images.device
    if generator is None:
        order = torch.arange(len(data))[:limit]
    else:
        order = torch.randperm(len(data), generator=generator)[:limit]
    count = len(order)
    if augment:
        corners = torch.randint(0, 2 * preprocessing.pad + 1, (2, count), generator=generator)
        flips = torch.rand(count, generator=generator) < (0.5 if preprocessing.flip else 0)
        corners, flips = corners.to(device), flips.to(device)
    order = order.to(device)

    for start in range(0, count - count % batch_size if drop_last else count, batch_size):
        mine = slice(start + rank, min(start + batch_size, count), world)
        images = data.images[order[mine]]
        if augment:
            top, left = corners[:, mine]
            pixels = crop_and_flip(images, top, left, flips[mine], preprocessing.pad)
        else:
            pixels = images.permute(0, 2, 3, 1)
        yield normalise(pixels, preprocessing), data.labels[order[mine]]


def crop_and_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, pad: int) -> Tensor:
    """Pad images [B, C, H, W] with black, crop each at its corner to H x W, then flip some.

    `top`, `left` (0 to 2 `pad`) and `flip` (bool) are [B]. Returns [B, H, W, C]: rows are picked
    first, then columns, which copies whole rows and keeps the index small.
    """
    count, channels, height, width = images.shape
    tall, wide = height + 2 * pad, width + 2 * pad
    padded = images.new_zeros(count, tall, wide, channels)
    padded[:, pad : pad + height, pad : pad + width] = images.permute(0, 2, 3, 1)

    device = images.device
    down, across = torch.arange(height, device=device), torch.arange(width, device=device)
    first_row = tall * torch.arange(count, device=device) + top
    rows = (first_row[:, None] + down).flatten()
    picked = padded.view(count * tall, wide * channels)[rows].view(count, height, -1)

    columns = left[:, None] + torch.where(flip[:, None], across.flip(0), across)
    columns = columns[:, :, None] * channels + torch.arange(channels, device=device)
    columns = columns.view(count, 1, width * channels).expand(count, height, -1)
    return picked.gather(2, columns).view(count, height, width, channels)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn uint8 [B, H, W, C] into normalised float32 [B, C, H, W] in channels_last."""
    count, height, width, channels = pixels.shape
    # Whole rows of width x channels, so that the inner loop is long.
    shift = 255 * torch.tensor(preprocessing.mean, device=pixels.device).repeat(width)
    scale = 1 / (255 * torch.tensor(preprocessing.std, device=pixels.device).repeat(width))
    rows = torch.empty(count, height, width * channels, device=pixels.device)
    torch.sub(pixels.reshape(rows.shape), shift, out=rows).mul_(scale)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def prepared(data: ImageSet, preprocessing: Preprocessing, batch_size: int) -> list[Batch]:
    """Return all evaluation batches in order, normalised once and kept in memory."""
    return list(batches(data, preprocessing, batch_size))
