"""What `prune` makes of a folder of images: parts, preprocessing, and recipes by their number."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphpruning.architecture_file import Entry, check_classes
from graphpruning.common.errors import UserError, one_line
from graphpruning.methods import Initial
from graphpruning.training.folder import FolderSet, open_images
from graphpruning.training.images import Images
from graphpruning.training.listing import Listing, list_images, times_of_change
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe
from graphpruning.training.splits import split
from graphpruning.training.verification import verify
from graphpruning.training.walk import kinds

CALIBRATION, SEARCH = 2000, 5000
"""The most images that recalibrate a candidate, and that judge it."""
MEAN: dict[int, tuple[float, ...]] = {1: (0.449,), 3: (0.485, 0.456, 0.406)}
STD: dict[int, tuple[float, ...]] = {1: (0.226,), 3: (0.229, 0.224, 0.225)}
"""ImageNet's by the number of channels; for grey images the average of its colours'."""
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


def list_parts(data: Path) -> list[Listing]:
    """List the training and the test images, of which a network can learn something.

    Raises `UserError` for fewer than two classes, for one image in each, and for a class whose name
    an architecture cannot keep.
    """
    train, test = (list_images("folder", data, is_train) for is_train in (True, False))
    folder, names = data / "train", train.classes
    if len(names) < 2:
        raise UserError(
            one_line(f"{folder} has one class, {names[0]}: a network tells two or more apart; ")
            + "if the classes are folders inside it, move them up"
        )
    check_classes(Entry(folder, list(names), "classes", mend="rename this folder"))
    if not _spare(train):
        raise UserError(
            one_line(f"{folder} has one image in each class, such as {names[0]}: add images, ")
            + "because while one trains another judges candidates"
        )
    return [train, test]


def passed_over(listings: list[Listing]) -> list[str]:
    """Say which files are not read, a line for each part that has some."""
    return [
        f"{listing.root / files[0].split('/')[0]}: left out, because they {why}: {kinds(files)}"
        for listing in listings
        for files, why in (
            (listing.others, "are no images that can be read"),
            (listing.outside, "lie in no class's folder"),
        )
        if files
    ]


def _spare(listing: Listing) -> int:
    """How many images may be held out, so that at least half of every class remains."""
    return sum(count // 2 for count in Counter(listing.labels).values())


def open_parts(
    listings: list[Listing], preprocessing: Preprocessing, workers: int, seed: int, cache: Path
) -> Parts:
    """Split the training images, of which a tenth judges candidates.

    All images have been decoded once when this returns. Raises `UserError` for those that cannot.
    """
    named = json.dumps(
        [[one.files, one.sizes, times_of_change(one.root, one.files)] for one in listings]
    )
    digest = hashlib.sha256(named.encode()).hexdigest()
    every, test = (
        open_images(listing, train, preprocessing, workers, cache / digest[:32])
        for listing, train in zip(listings, (True, False), strict=True)
    )
    if isinstance(every, FolderSet):
        verify(every, preprocessing.resize, cache / "verified.bin")
    searching = min(SEARCH, max(len(every.classes), len(every) // 10), _spare(listings[0]))
    splits = split(every.labels, searching, min(CALIBRATION, len(every) - searching), seed)
    train, search, calibration = (
        every.select(part) for part in (splits.train, splits.search, splits.calibration)
    )
    return Parts(train, search, calibration, test, digest)


def preprocessing_for(
    size: tuple[int, ...],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    flip: bool = True,
) -> Preprocessing:
    """How images become inputs of this size; mean and std are ImageNet's where they are None.

    With `flip`, half of the images are mirrored in training.
    """
    channels, height, width = size
    if height != width:
        raise UserError(f"input size {height} x {width}: images of a folder are cut square")
    if channels not in MEAN:
        raise UserError(
            f"input size {channels} x {height} x {width}: images of a folder have 1 channel (grey) "
            "or 3 (colours)"
        )
    mean = MEAN[channels] if mean is None else mean
    std = STD[channels] if std is None else std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            wanted = "one value" if channels == 1 else f"{channels} values"
            raise UserError(
                f"{name} is {' '.join(map(str, values)) or 'empty'}, but the input size "
                f"{channels} {height} {width} needs {wanted}, one a channel: give {wanted}"
            )
    if width <= SMALL:
        return Preprocessing(mean, std, pad=width // 8, flip=flip, size=width, resize=width)
    resize = round(width / 0.875)
    return Preprocessing(mean, std, 0, flip, size=width, resize=resize, smallest_area=0.2)


def check_batches(images: Parts, recipes: Mapping[str, Recipe], data: Path) -> None:
    """Raise `UserError` for a batch of more images than there are to train on."""
    count = len(images.train)
    for recipe in recipes.values():
        if recipe.batch_size > count:
            raise UserError(
                f"{data / 'train'} has {count} images to train on, besides {len(images.search)} "
                f"that judge candidates, and a batch takes {recipe.batch_size}: add images, or "
                f"give a batch size of {count} or less"
            )


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
