"""What an image file shows, as 8-bit pixels in grey or in colour."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import DecompressionBombError

from graphpruning.common.errors import UserError, one_line, reason
from graphpruning.training.listing import NAMED, UNDECODABLE

MODES = {1: "L", 3: "RGB"}  # by the number of channels
JPEG = b"\xff\xd8"  # how such a file begins
PROGRESSIVE = 0xC2
FRAMES = (0xC0, 0xC1, PROGRESSIVE)  # markers: baseline, extended, progressive
ROWS_BELOW = 16  # of which colours in the last wanted rows are interpolated; two would do
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and a value of the second

Box = tuple[int, int, int, int]
"""Left, top, right and bottom."""


def decode(content: bytes, box: Box | None = None, mode: str = "RGB") -> Image.Image:
    """Return an image file's pixels, or those in a box, in the mode RGB or L (grey).

    Of an animation that is the first picture; transparency is left out. Grey of 16 bits becomes 8:
    black stays black and white stays white. Raises `ValueError` for content that is no whole image,
    that has more pixels than Pillow's limit, or whose white is not known (numbers with a fraction,
    and whole ones of 32 bits).
    """
    if box is not None and content.startswith(JPEG):
        content = end_at_row(content, box[3])
    with opened(content) as image:
        part = image.crop(box or (0, 0, *image.size))
        if part.mode.startswith(("I", "F")):
            part = _in_8_bits(part, image)
        return part if part.mode == mode else part.convert(mode)


@contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """Open an image within the block; `ValueError` for whatever goes wrong with it there."""
    try:
        with Image.open(BytesIO(content)) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise DecompressionBombError
            yield image
    except DecompressionBombError:
        raise ValueError(
            f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, Pillow's limit; save it smaller"
        ) from None
    except UnidentifiedImageError:
        raise ValueError(
            "Pillow cannot identify it as an image" if content else "it is empty"
        ) from None
    except UNDECODABLE as error:
        raise ValueError(reason(error)) from None


def _in_8_bits(part: Image.Image, image: Image.Image) -> Image.Image:
    """Scale grey pixels of more than 8 bits that are a part of `image`."""
    tags = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    bits = int(tags.get(BITS, (16,))[0])
    if part.mode == "F" or bits > 16 or (part.mode == "I" and tags):
        kind = "numbers with a fraction" if part.mode == "F" else "signed, or of more than 16 bits"
        raise ValueError(f"its pixels are {kind}, so white is not known; save it in 8 or 16 bits")
    white = 2**bits - 1
    levels = np.asarray(part).astype(np.uint32)
    levels = ((255 * levels + white // 2) // white).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    return Image.fromarray(levels)


def check_shape(width: int, height: int, resize: int) -> None:
    """Raise `ValueError` for an image so narrow that, resized, it would exceed Pillow's limit."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and max(width, height) * resize**2 > limit * min(width, height):
        raise ValueError(
            f"resized to {resize} pixels on its shorter side, its {width} x {height} would be more "
            f"than {limit:,} pixels, Pillow's limit; cut it"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow from warning of large images, which are refused here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def unusable(path: Path, error: BaseException) -> str:
    """Say what is wrong with an image file."""
    gone = "; in a study, run prepare again" if isinstance(error, FileNotFoundError) else ""
    return f"{path} cannot be used ({reason(error)}{gone})"


def refuse_unusable(faults: list[str]) -> None:
    """Raise a `UserError` that names the first `NAMED` image files, if there are any."""
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        advice = "replace or remove these files, then start again"
        raise UserError(one_line(f"{'; '.join(faults[:NAMED])}{more}: {advice}"))


def end_at_row(content: bytes, row: int) -> bytes:
    """Return a JPEG file whose frame ends soon after `row`, so that decoding stops there.

    Only the height in the frame's header is changed: pixels above `row` stay as they are. The
    rest of the file is skipped, so that a fault in it shows only when another crop needs it.
    """
    if (place := frame(content)) is None:
        return content
    height = place + 5
    lower = min(row + ROWS_BELOW, int.from_bytes(content[height : height + 2], "big"))
    return content[:height] + lower.to_bytes(2, "big") + content[height + 2 :]


def frame(content: bytes) -> int | None:
    """Where the frame's header begins in a JPEG file, at a marker of `FRAMES`; None without one."""
    place = len(JPEG)
    while place + 8 < len(content) and content[place] == 0xFF:
        if content[place + 1] in FRAMES:
            return place
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None
