"""Labelled images as uint8 tensors, and batches of them, augmented as a whole.

Image files that are decoded as they are needed are in `folder.py`; both kinds are `Images`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol, overload

import torch
from torch import Generator, Tensor

from graphpruning.common.errors import UserError
from graphpruning.training.preprocessing import Preprocessing, crop_and_flip, normalise

Batch = tuple[Tensor, Tensor]  # float32 images [B, C, H, W] in channels_last, int64 labels [B]


# Evaluation batches that need less are kept normalised; of a larger set of pixels only the batch
# in hand is moved to another device.
IN_MEMORY = 2**30  # bytes


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


class Prepared(Sequence[Batch]):
    """Evaluation batches in order, each normalised anew whenever it is asked for.

    They are of `batch_size` images at most, and of as many to within one: statistics are averaged
    over batches, and those of one last image would be none.
    """

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
        number = range(len(self))[index]
        mine = slice(*(at * len(self.data) // len(self) for at in (number, number + 1)))
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
