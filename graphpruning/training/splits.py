"""Which training images judge candidates, and which recalibrate them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from graphpruning.common.errors import UserError


@dataclass(frozen=True)
class Splits:
    """Indices of training images; `calibration` is part of `train`, `search` is not.

    `train` and `search` are sorted. Every beginning of `calibration` has all classes in their
    shares, because often its first images alone are used, or one batch of it at a time: in order,
    those of a folder would be of one class.
    """

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
    return Splits(train.sort().values, search.sort().values, train[:calibration_images])


def _ranks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's number among those of its class, from 0, and how many the class has."""
    sizes = labels.bincount()
    by_class = labels.argsort(stable=True)
    first = sizes.cumsum(0) - sizes
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    return rank, sizes[labels]
