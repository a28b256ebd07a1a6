"""Images decoded from files: random crops while training, central crops once for evaluation.

`decoding.py` reads one file, `jpeg.py` some of them faster.
"""

import hashlib
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as transforms
from tqdm import tqdm

from graphpruning.common.errors import UserError
from graphpruning.common.files import atomic
from graphpruning.common.machine import is_writer
from graphpruning.training import jpeg
from graphpruning.training.decoding import (
    MODES,
    Box,
    check_shape,
    decode,
    opened,
    quiet,
    refuse_unusable,
    unusable,
)
from graphpruning.training.images import (
    Batch,
    Images,
    ImageSet,
    batch_slices,
    check_indices,
    image_order,
)
from graphpruning.training.listing import UNDECODABLE, Listing, open_regular, times_of_change
from graphpruning.training.preprocessing import Preprocessing, normalise

CPU = torch.device("cpu")
CACHE = Path("checkpoints/decoded")
DECODED_AT_ONCE = 64  # images
RATIOS = (3 / 4, 4 / 3)  # aspect ratios of random crops
ATTEMPTS = 10  # at a random crop, before the centre is taken


@dataclass(frozen=True)
class FolderSet:
    """Labelled image files, decoded to `channels` x `size` x `size` pixels as they are needed.

    One channel is grey, three are colours, whatever the files have.

    `files` [N] are paths relative to `root` (an array of bytes: worker processes share it), `sizes`
    [N] their bytes, `labels` int64 [N]. Batches are made on `device`; `workers` processes decode.
    """

    root: Path
    files: np.ndarray
    sizes: np.ndarray
    labels: Tensor
    classes: tuple[str, ...]
    size: int
    channels: int = 3
    workers: int = 0
    device: torch.device = CPU
    cache: Path = CACHE

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width that the network sees."""
        return self.channels, self.size, self.size

    def select(self, indices: Tensor) -> "FolderSet":
        """Return the images at `indices`, in that order."""
        check_indices(indices, len(self))
        chosen = indices.numpy()
        return replace(
            self, files=self.files[chosen], sizes=self.sizes[chosen], labels=self.labels[indices]
        )

    def to(self, device: torch.device) -> "FolderSet":
        """Return the set with batches made on `device`."""
        return replace(self, device=device)

    def decoded(self, preprocessing: Preprocessing) -> ImageSet:
        """Return the central crops, decoded once: they are mapped from a file under `cache`.

        The file's name is a hash of the images' paths, sizes in bytes and times of change, and of
        what is done to them.
        """
        how = (
            f"{self.root.absolute()} {preprocessing.resize} {preprocessing.size} {PIL.__version__}"
        )
        if self.channels != 3:
            how = f"{how} {self.channels} channels"
        digest = hashlib.sha256(how.encode())
        times = times_of_change(self.root, map(os.fsdecode, self.files))
        for array in (self.files, self.sizes, np.array(times, dtype=np.int64)):
            digest.update(np.ascontiguousarray(array).data)
        path = self.cache / f"{digest.hexdigest()[:32]}.bin"
        shape = (len(self), self.size, self.size, self.channels)
        while not (whole := _has_size(path, math.prod(shape))) and not is_writer():
            time.sleep(0.2)  # of several processes (torchrun) the first writes
        if not whole:
            self._decode_to(path, preprocessing)
        pixels = torch.from_file(str(path), size=math.prod(shape), dtype=torch.uint8)
        images = pixels.view(shape).permute(0, 3, 1, 2)
        return ImageSet(images, self.labels, self.classes, self.device)

    def _decode_to(self, path: Path, preprocessing: Preprocessing) -> None:
        centre = _Centre(self.size, self.channels, preprocessing.resize)
        central = _Files(self.root, self.files, centre)
        parts = [
            list(range(start, min(start + DECODED_AT_ONCE, len(self))))
            for start in range(0, len(self), DECODED_AT_ONCE)
        ]
        bar = tqdm(total=len(self), desc="decoding", unit="image", disable=None, delay=2)
        faults: list[str] = []
        with atomic(path) as beside, open(beside, "wb") as file, bar, quiet():
            for part, pixels in zip(parts, _load(central, parts, self.workers), strict=True):
                if isinstance(pixels, Tensor):
                    file.write(pixels.numpy().data)
                else:
                    faults += pixels
                bar.update(len(part))
            refuse_unusable(faults)

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
        """Yield batches as `Images.batches` says, of random crops if `augment`.

        They are the same for any number of workers: the generator gives each image a seed, and
        the worker draws the image's crop and flip from that.
        """
        if not augment or preprocessing.smallest_area is None:
            yield from self.decoded(preprocessing).batches(
                preprocessing, batch_size, generator, augment, rank, world, drop_last, limit
            )
            return
        preprocessing.check_channels(self.channels)
        order = image_order(len(self), generator, limit)
        places = list(batch_slices(len(order), batch_size, rank, world, drop_last))
        batches = self._crops(preprocessing, order, places, generator)
        for pixels, mine in zip(batches, places, strict=True):
            labels = self.labels[order[mine]].to(self.device, non_blocking=True)
            yield normalise(pixels.to(self.device, non_blocking=True), preprocessing), labels

    def augmented(self, preprocessing: Preprocessing, generator: Generator) -> ImageSet:
        """Return one random crop of every image, in memory."""
        if preprocessing.smallest_area is None:
            return self.decoded(preprocessing).augmented(preprocessing, generator)
        pixels = torch.empty(len(self), self.size, self.size, self.channels, dtype=torch.uint8)
        places = list(batch_slices(len(self), DECODED_AT_ONCE, 0, 1, drop_last=False))
        order = torch.arange(len(self))
        crops = self._crops(preprocessing, order, places, generator)
        for part, mine in zip(crops, places, strict=True):
            pixels[mine] = part
        return ImageSet(pixels.permute(0, 3, 1, 2), self.labels, self.classes).to(self.device)

    def _crops(
        self,
        preprocessing: Preprocessing,
        order: Tensor,
        places: list[slice],
        generator: Generator | None,
    ) -> Iterator[Tensor]:
        """Random crops [B, size, size, 3] of the images at each of the places in `order`."""
        assert preprocessing.smallest_area is not None
        seeds = torch.randint(2**62, (len(order),), generator=generator).numpy()
        crop = _RandomCrop(
            self.size, self.channels, preprocessing.smallest_area, preprocessing.flip, seeds
        )
        files = _Files(self.root, self.files[order.numpy()], crop)
        parts = [list(range(len(order))[mine]) for mine in places]
        for pixels in _load(files, parts, self.workers, pin_memory=self.device.type == "cuda"):
            if isinstance(pixels, Tensor):
                yield pixels
            else:
                refuse_unusable(pixels)


def open_images(
    listing: Listing,
    train: bool,
    preprocessing: Preprocessing,
    workers: int = 0,
    cache: Path = CACHE,
) -> Images:
    """Return listed images: decoded at once, but for training images that get random crops.

    `preprocessing` must have a size, and a mean for each channel: one for grey, three for colours.
    What is decoded is kept under `cache`. Raises `UserError` for files that cannot be decoded.
    """
    if preprocessing.size is None:
        raise UserError("image folders need preprocessing with a size")
    if (channels := len(preprocessing.mean)) not in MODES:
        raise UserError(f"preprocessing has {channels} channels, but images of folders have 1 or 3")
    images = FolderSet(
        listing.root,
        np.array([os.fsencode(name) for name in listing.files]),
        np.array(listing.sizes, dtype=np.int64),
        torch.tensor(listing.labels, dtype=torch.int64),
        listing.classes,
        preprocessing.size,
        channels,
        workers,
        cache=cache,
    )
    if train and preprocessing.smallest_area is not None:
        return images
    return images.decoded(preprocessing)


def crop_box(width: int, height: int, smallest_area: float, draw: random.Random) -> Box:
    """Draw a random crop's left, top, right and bottom, as torchvision's `RandomResizedCrop` does.

    Its area is uniform from `smallest_area` to 1 of the image's, the logarithm of its aspect ratio
    uniform between those of `RATIOS`. When no crop fits the image in `ATTEMPTS` draws, the largest
    central crop with an allowed ratio is taken.
    """
    lowest, highest = RATIOS
    for _ in range(ATTEMPTS):
        area = width * height * draw.uniform(smallest_area, 1)
        ratio = math.exp(draw.uniform(math.log(lowest), math.log(highest)))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            left, top = draw.randint(0, width - wide), draw.randint(0, height - tall)
            return left, top, left + wide, top + tall
    wide, tall = width, height
    if width / height < lowest:
        tall = round(width / lowest)
    elif width / height > highest:
        wide = round(height * highest)
    left, top = round((width - wide) / 2), round((height - tall) / 2)
    return left, top, left + wide, top + tall


@dataclass(frozen=True)
class _RandomCrop:
    """A random crop, resized, and a flip in half of the cases if `flip`: uint8 [size, size, C].

    The resize is torch's for uint8, four times faster than Pillow's and within two levels of it.
    """

    size: int
    channels: int
    smallest_area: float
    flip: bool
    seeds: np.ndarray

    def __call__(self, content: bytes, place: int) -> Tensor:
        draw = random.Random(int(self.seeds[place]))
        known = jpeg.size(content) if self.channels == 3 else None
        if known is None:
            with opened(content) as header:
                box = crop_box(*header.size, self.smallest_area, draw)
        else:
            box = crop_box(*known, self.smallest_area, draw)
        part = None if known is None else jpeg.pixels(content, box)
        if part is None:
            image = decode(content, box, MODES[self.channels])
            part = np.frombuffer(bytearray(image.tobytes()), dtype=np.uint8)
        left, top, right, bottom = box
        pixels = torch.from_numpy(part).view(1, bottom - top, right - left, self.channels)
        pixels = pixels.permute(0, 3, 1, 2)
        size = (self.size, self.size)
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)[0]
        if self.flip and draw.random() < 0.5:
            pixels = pixels.flip(2)
        return pixels.permute(1, 2, 0)


@dataclass(frozen=True)
class _Centre:
    """The preset of torchvision's pretrained networks, to the bit: uint8 [size, size, C]."""

    size: int
    channels: int
    resize: int | None

    def __call__(self, content: bytes, place: int) -> Tensor:
        image = decode(content, mode=MODES[self.channels])
        if self.resize is not None:
            check_shape(image.width, image.height, self.resize)
            image = transforms.resize(image, self.resize, transforms.InterpolationMode.BILINEAR)
        if min(image.size) < self.size:
            raise ValueError(f"{image.width} x {image.height} pixels are fewer than {self.size}")
        pixels: Tensor = transforms.pil_to_tensor(transforms.center_crop(image, self.size))
        return pixels.permute(1, 2, 0)


def _has_size(path: Path, size: int) -> bool:
    """Say whether `path` is a file of `size` bytes, which one that was cut is not."""
    return path.is_file() and path.stat().st_size == size


class _Files(Dataset[Any]):
    """Pixels of several files at once, uint8 [B, H, W, C], or what is wrong with some of them."""

    def __init__(self, root: Path, files: np.ndarray, crop: _RandomCrop | _Centre) -> None:
        self.root = root
        self.files = files
        self.crop = crop

    def __getitems__(self, places: Sequence[int]) -> Tensor | list[str]:
        size = self.crop.size
        pixels = torch.empty(len(places), size, size, self.crop.channels, dtype=torch.uint8)
        faults = []
        for image, place in zip(pixels, places, strict=True):
            path = self.root / os.fsdecode(self.files[place])
            try:
                with open_regular(path) as file:
                    content = file.read()
                image.copy_(self.crop(content, place))
            except UNDECODABLE as error:  # an error would come back as several lines
                faults.append(unusable(path, error))
        return faults or pixels


def _load(
    files: _Files, parts: list[list[int]], workers: int, pin_memory: bool = False
) -> "DataLoader[Any]":
    """Yield the pixels of each part, or its faults, read by `workers` processes (0: by this)."""
    return DataLoader(
        files,
        batch_sampler=parts,
        num_workers=workers,
        collate_fn=_same,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else it would draw from the global one
    )


def _same(pixels: Any) -> Any:
    return pixels
