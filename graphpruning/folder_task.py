"""What `prune` makes of a folder of images: parts, preprocessing, and recipes by their number."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphpruning.common.errors import UserError
from graphpruning.methods import Initial
from graphpruning.training.folder import open_images
from graphpruning.training.images import Images
from graphpruning.training.listing import Listing
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe
from graphpruning.training.splits import split

CALIBRATION, SEARCH = 2000, 5000
"""The most images that recalibrate a candidate, and that judge it."""
SMALL = 64
"""Images up to this side are padded and cropped in training; of larger ones a part is cut out."""


@dataclass(frozen=True)
class Parts:
    """The images by what they are for."""

    train: Images
    search: Images
    calibration: Images
    test: Images
    digest: str

    def counts(self) -> dict[str, int]:
        names = ("train", "search", "calibration", "test")
        return {
            "classes": len(self.test.classes),
            **{name: len(getattr(self, name)) for name in names},
        }


def open_parts(
    listings: list[Listing], preprocessing: Preprocessing, workers: int, seed: int, cache: Path
) -> Parts:
    """Split the training images, of which a tenth judges candidates."""
    every, test = (
        open_images(listing, train, preprocessing, workers, cache)
        for listing, train in zip(listings, (True, False), strict=True)
    )
    searching = min(SEARCH, max(len(every.classes), len(every) // 10))
    splits = split(every.labels, searching, min(CALIBRATION, len(every) - searching), seed)
    train, search, calibration = (
        every.select(part) for part in (splits.train, splits.search, splits.calibration)
    )
    named = json.dumps([[listing.files, listing.sizes] for listing in listings])
    return Parts(train, search, calibration, test, hashlib.sha256(named.encode()).hexdigest())


def preprocessing_for(
    size: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    channels, height, width = size
    if height != width:
        raise UserError(f"input size {height} x {width}: images of a folder are cut square")
    if len(mean) != channels or len(std) != channels:
        raise UserError(f"mean and std need a value for each of the {channels} channels")
    if width <= SMALL:
        return Preprocessing(mean, std, pad=width // 8, flip=True, size=width, resize=width)
    resize = round(width / 0.875)
    return Preprocessing(mean, std, 0, True, size=width, resize=resize, smallest_area=0.2)


def recipes_for(
    images: int,
    batch_size: int | None,
    lr: float | None,
    pruningnet_epochs: float | None,
    epochs: float | None,
    initial: Initial,
) -> dict[str, Recipe]:
    """Recipes by the number of training images, where nothing else is asked for.

    A batch is the power of two up to a fiftieth of the images, from 16 to 256; the final training
    sees three million images, but each from 30 to 100 times, and the PruningNet half of that. The
    learning rate is the usual 0.1 for 128 images of a batch; a fifth of it for trained weights.
    """
    power = 1 << max(1, images // 50).bit_length() - 1
    batch = max(16, min(256, power)) if batch_size is None else batch_size
    long = min(100, max(30, round(3_000_000 / images))) if epochs is None else epochs
    short = long / 2 if pruningnet_epochs is None else pruningnet_epochs
    rate = 0.1 * batch / 128 if lr is None else lr
    shared: dict[str, Any] = {"batch_size": batch, "label_smoothing": 0.1, "clip": 5.0}
    decay = 1e-4 if images > 100_000 else 5e-4
    return {
        "pruningnet": Recipe(
            epochs=short, lr=rate, schedule="linear", warmup_epochs=min(1.0, short / 20), **shared
        ),
        "final": Recipe(
            epochs=long,
            lr=rate if initial == "scratch" else rate / 5,
            schedule="cosine",
            warmup_epochs=min(5.0, long / 20),
            nesterov=True,
            weight_decay=decay,
            **shared,
        ),
    }
