"""Images as uint8 tensors: data sets, splits, and batches augmented as a whole.

Image files that are decoded as they are needed are in `folder.py`; both kinds are `Images`.
"""

import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Any, Protocol, overload

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphpruning.errors import UserError
from graphpruning.files import require_file, sha256

Batch = tuple[Tensor, Tensor]  # float32 images [B, C, H, W] in channels_last, int64 labels [B]

FASHION_MNIST_FILES = {  # name: SHA-256 of the uncompressed file
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


FOLDERS = ("folder", "imagenet", "imagenet_subset")  # data sets that folder.py reads

# Evaluation batches that need less are kept normalised; of a larger set of pixels only the batch
# in hand is moved to another device.
IN_MEMORY = 2**30  # bytes
IN_CACHE = 2**18  # values


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become inputs: scaled to 0..1, then `(x - mean) / std` per channel.

    When augmenting, a random crop of the image after `pad` black pixels on each side, then (if
    `flip`) a horizontal flip in half of the cases.

    Image files are cut to `size` x `size` pixels: in evaluation the centre, after a resize to
    `resize` pixels on the shorter side (None: not resized); when augmenting, unless
    `smallest_area` is None, a random part of the image with at least that share of its area and
    an aspect ratio of 3/4 to 4/3, resized (torchvision's RandomResizedCrop), in place of `pad`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int
    flip: bool
    size: int | None = None
    resize: int | None = None
    smallest_area: float | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or min(self.std) <= 0 or self.pad < 0:
            raise UserError(
                f"{self}: mean and std need one value a channel, std above 0 and pad at least 0"
            )
        if self.size is None and not self.resize is self.smallest_area is None:
            raise UserError(f"{self}: resize and smallest_area need a size")
        if self.size is not None and not 1 <= self.size <= (self.resize or self.size):
            raise UserError(f"{self}: size must be at least 1, and resize at least the size")
        if self.smallest_area is not None and not (0 < self.smallest_area <= 1 and self.pad == 0):
            raise UserError(
                f"{self}: smallest_area must be above 0 and at most 1, and pad is then 0"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON can hold them, without those that are None."""
        values = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Make one from `to_dict`'s values."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def check_channels(self, channels: int) -> None:
        """Raise `UserError` unless there is one mean for each of the images' channels."""
        if len(self.mean) != channels:
            raise UserError(
                f"preprocessing has {len(self.mean)} channels (mean, std), "
                f"the images have {channels}"
            )


class Images(Protocol):
    """Labelled images, wherever their pixels are."""

    @property
    def labels(self) -> Tensor:
        """int64 [N], on the CPU unless the images are elsewhere."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width that the network sees."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor) -> "Images":
        """Return the images at `indices`, in that order; `UserError` for one that is not there."""

    def to(self, device: torch.device) -> "Images":
        """Return the images so that batches are made on `device`."""

    def decoded(self, preprocessing: Preprocessing) -> "ImageSet":
        """Return the pixels that evaluation sees."""

    def augmented(self, preprocessing: Preprocessing, generator: Generator) -> "ImageSet":
        """Return the pixels that training sees of each image once, drawn from `generator`."""

    def batches(
        self,
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

        `batch_size` counts the images of all `world` ranks: each rank takes every `world`-th image
        of the same batch. All random numbers are drawn before the first batch, whatever the rank.
        """


@dataclass(frozen=True)
class ImageSet:
    """Images as uint8 [N, C, H, W] (in memory, or mapped from a file), int64 labels [N], classes.

    Batches are made on `device`, by default where the pixels are.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    device: torch.device | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def select(self, indices: Tensor) -> "ImageSet":
        """Return the images at `indices`, in that order, in memory."""
        check_indices(indices, len(self))
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def to(self, device: torch.device) -> "ImageSet":
        """Return the set on `device`; more than `IN_MEMORY` of pixels go there batch by batch."""
        if self.images.nbytes > IN_MEMORY:
            return replace(self, device=device)
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes)

    def decoded(self, preprocessing: Preprocessing) -> "ImageSet":
        """Return the set itself."""
        return self

    def augmented(self, preprocessing: Preprocessing, generator: Generator) -> "ImageSet":
        """Return the set with every image padded, cropped and flipped at random, in memory."""
        top, left, flips = _draw_crops(len(self), preprocessing, generator, self.images.device)
        pixels = crop_and_flip(self.images, top, left, flips, preprocessing.pad)
        return replace(self, images=pixels.permute(0, 3, 1, 2))

    def batches(
        self,
        preprocessing: Preprocessing,
        batch_size: int,
        generator: Generator | None = None,
        augment: bool = False,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        limit: int | None = None,
    ) -> Iterator[Batch]:
        """Yield batches as `Images.batches` says."""
        preprocessing.check_channels(self.shape[0])
        home = self.images.device
        device = self.device or home
        order = image_order(len(self), generator, limit)
        count = len(order)
        if augment:
            top, left, flips = _draw_crops(count, preprocessing, generator, device)
        order = order.to(home)

        for mine in batch_slices(count, batch_size, rank, world, drop_last):
            images = self.images[order[mine]].to(device)
            if augment:
                pad = preprocessing.pad
                pixels = crop_and_flip(images, top[mine], left[mine], flips[mine], pad)
            else:
                pixels = images.permute(0, 2, 3, 1)
            yield normalise(pixels, preprocessing), self.labels[order[mine]].to(device)


def check_indices(indices: Tensor, count: int) -> None:
    """Raise `UserError` for the first index that none of `count` images has."""
    if outside := indices[(indices < 0) | (indices >= count)][:1].tolist():
        raise UserError(
            f"there is no image {outside[0]}: the data set has {count}, numbered from 0; the "
            "splits are of other images: remove their folder, then dvc repro"
        )


def _draw_crops(
    count: int, preprocessing: Preprocessing, generator: Generator | None, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw top, left and whether to flip of `count` images, as `crop_and_flip` takes them."""
    corners = torch.randint(0, 2 * preprocessing.pad + 1, (2, count), generator=generator)
    flips = torch.rand(count, generator=generator) < (0.5 if preprocessing.flip else 0)
    top, left = corners.to(device)
    return top, left, flips.to(device)


def image_order(count: int, generator: Generator | None, limit: int | None) -> Tensor:
    """Return which of `count` images an epoch visits, in order: `limit` at most, all different."""
    if generator is None:
        return torch.arange(count)[:limit]
    return torch.randperm(count, generator=generator)[:limit]


def batch_slices(
    count: int, batch_size: int, rank: int, world: int, drop_last: bool
) -> Iterator[slice]:
    """Yield one rank's places in each batch of `count` images, as `Images.batches` says."""
    for start in range(0, count - count % batch_size if drop_last else count, batch_size):
        yield slice(start + rank, min(start + batch_size, count), world)


def one_line(text: str) -> str:
    """Return a text with line feeds, escape codes and the like spelled out, as names may have."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def reason(error: BaseException) -> str:
    """Return what an error says, short and in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(textwrap.shorten(said or type(error).__name__, 200))


def sum_of(path: Path, made_by: str) -> str:
    """Return a file's SHA-256; `UserError` for what is missing, no regular file, or not read."""
    require_file(path, made_by)
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)})") from None


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
        from graphpruning.training.folder import open_images  # it imports this module
        from graphpruning.training.listing import list_images

        if preprocessing is None:
            raise UserError(f"data set {name!r}: preprocessing with a size is needed")
        return open_images(list_images(name, Path(root), train), train, preprocessing, workers)
    known = [*LOADERS, *FOLDERS]
    nearest = get_close_matches(name, known, n=1, cutoff=0)[0]
    raise UserError(
        f"unknown data set {name!r}: did you mean {nearest!r}? (known: {', '.join(known)})"
    )


@dataclass(frozen=True)
class Splits:
    """Sorted indices of training images; `calibration` is part of `train`, `search` is not."""

    train: Tensor
    search: Tensor
    calibration: Tensor


def split(labels: Tensor, search_images: int, calibration_images: int, seed: int) -> Splits:
    """Hold `search_images` out of training and name `calibration_images` of those that remain.

    Every class gives equally many images to the search, to within one; a class too small for that
    gives half of its own, and the others the rest. Calibration has each class's share of what
    remains, to within one image. `search_images` is 0 where no candidate is judged. Raises
    `UserError` when there are too few images.
    """
    if (
        search_images < 0
        or calibration_images < 1
        or (search_images + calibration_images > len(labels))
    ):
        raise UserError(
            f"cannot take {search_images} search and {calibration_images} calibration images from "
            f"{len(labels)} training images: ask for at least 0 and 1, and for no more than that"
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    rank, size = _ranks(labels[order])
    # Rounds of one image a class; the second halves of all classes come after the first.
    order = order[(rank + len(labels) * (rank >= size // 2)).argsort(stable=True)]
    search, train = order[:search_images], order[search_images:]
    rank, size = _ranks(labels[train])
    # By the place among its own class, from 0 to 1: every beginning of the list is stratified.
    train = train[((rank.double() + 0.5) / size).argsort(stable=True)]
    return Splits(*(part.sort().values for part in (train, search, train[:calibration_images])))


def _ranks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's number among those of its class, from 0, and how many the class has."""
    sizes = labels.bincount()
    by_class = labels.argsort(stable=True)
    first = sizes.cumsum(0) - sizes
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    return rank, sizes[labels]


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
    # On a CPU a few images at a time, which stay in its cache between the steps.
    at_once = max(1, IN_CACHE // rows[0].numel()) if count and not rows.is_cuda else max(1, count)
    parts = zip(pixels.reshape(rows.shape).split(at_once), rows.split(at_once), strict=True)
    for part, inputs in parts:
        torch.sub(part, shift, out=inputs).mul_(scale)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


class Prepared(Sequence[Batch]):
    """Evaluation batches in order, each normalised anew whenever it is asked for."""

    def __init__(self, data: ImageSet, preprocessing: Preprocessing, batch_size: int) -> None:
        preprocessing.check_channels(data.shape[0])
        self.data = data
        self.preprocessing = preprocessing
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        start = range(0, len(self.data), self.batch_size)[index]
        mine = slice(start, start + self.batch_size)
        device = self.data.device or self.data.images.device
        pixels = self.data.images[mine].to(device).permute(0, 2, 3, 1)
        return normalise(pixels, self.preprocessing), self.data.labels[mine].to(device)


def prepared(data: Images, preprocessing: Preprocessing, batch_size: int) -> Sequence[Batch]:
    """Return all evaluation batches in order, to go through as often as one likes.

    They are normalised once and kept if that takes at most `IN_MEMORY`.
    """
    ready = Prepared(data.decoded(preprocessing), preprocessing, batch_size)
    fits = 4 * len(data) * prod(data.shape) <= IN_MEMORY
    return list(ready) if fits else ready
