"""JPEG files by libjpeg-turbo itself: the pixels that Pillow gives, in less time.

Only where the optional package simplejpeg is installed. Whatever it does not read without a
complaint is left to Pillow, which accepts it or says what is wrong.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graphpruning.training.decoding import JPEG, PROGRESSIVE, Box, end_at_row, frame

try:
    import simplejpeg as simplejpeg
except ModuleNotFoundError:
    simplejpeg = None

SPACES = ("YCbCr", "RGB", "Gray")  # not those of print, whose conversion is Pillow's own
CUT = "extraneous bytes before marker 0xd9"  # libjpeg's words for what a shortened frame leaves

Pixels = NDArray[np.uint8]


def size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a file that `pixels` may be asked about, else None.

    Progressive files are not: what libjpeg says of a shortened one tells no fault from the cut.
    """
    if simplejpeg is None or not content.startswith(JPEG):
        return None
    if (place := frame(content)) is None or content[place + 1] == PROGRESSIVE:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content)
    except (ValueError, LookupError):  # LookupError: a subsampling that it has no name for
        return None
    limit = Image.MAX_IMAGE_PIXELS
    fits = limit is None or width * height <= limit
    return (width, height) if fits and space in SPACES else None


def pixels(content: bytes, box: Box) -> Pixels | None:
    """Return what is in a box, [height, width, 3], or None: then Pillow is to be asked.

    The rows below the box are not decoded (see `end_at_row`).
    """
    left, top, right, bottom = box
    content = end_at_row(content, bottom)
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    found = np.empty((height, width, 3), dtype=np.uint8)
    try:
        simplejpeg.decode_jpeg(content, buffer=found)
    except ValueError as error:  # the first complaint; all pixels are there if it is this one
        if CUT not in str(error):
            return None
    return np.ascontiguousarray(found[top:bottom, left:right])
