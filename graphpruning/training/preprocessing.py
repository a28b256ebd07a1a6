"""From pixels to what a network sees: normalised, and augmented while it learns."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from graphpruning.common.errors import UserError

IN_CACHE = 2**18  # values


MOST_PIXELS = 8192
"""More than a network looks at: a typing error, which would otherwise end in a lack of memory."""


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
        if not self.mean or len(self.mean) != len(self.std):
            raise UserError(
                "preprocessing: mean and std need one value a channel, "
                f"not {list(self.mean)} and {list(self.std)}"
            )
        if min(self.std) <= 0:
            raise UserError(f"preprocessing: std is {list(self.std)}, must be above 0")
        for name, least in (("pad", 0), ("size", 1), ("resize", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value <= MOST_PIXELS:
                raise UserError(
                    f"preprocessing: {name} is {value}, "
                    f"must be at least {least} and at most {MOST_PIXELS} pixels"
                )
        if self.size is None and not self.resize is self.smallest_area is None:
            raise UserError("preprocessing: resize and smallest_area need a size")
        if self.size is not None and self.size > (self.resize or self.size):
            raise UserError(
                f"preprocessing: resize is {self.resize}, must be at least the size, {self.size}"
            )
        if self.smallest_area is not None and not 0 < self.smallest_area <= 1:
            raise UserError(
                f"preprocessing: smallest_area is {self.smallest_area}, "
                "must be above 0 and at most 1"
            )
        if self.smallest_area is not None and self.pad:
            raise UserError(
                f"preprocessing: pad is {self.pad}, must be 0 where smallest_area is given"
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
