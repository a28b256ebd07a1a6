"""One image file becomes 8-bit pixels as its maker saw them, or is refused with what to do."""

import struct
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from graphpruning.training import decoding
from graphpruning.training.decoding import check_shape, decode

RAMP = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
WHITE_IS_ZERO = {262: 0}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def in_8_bits(levels: np.ndarray, white: int) -> np.ndarray:
    return np.rint(levels.astype(np.float64) * 255 / white).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "order"), [("PNG", "<u2"), ("PPM", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")]
)
def test_grey_of_16_bits_is_scaled_to_8(kind: str, order: str) -> None:
    content = saved(Image.fromarray(RAMP.astype(order)), kind)
    grey = np.asarray(decode(content, mode="L"))
    assert np.array_equal(grey, in_8_bits(RAMP, 65535))
    assert (grey.min(), grey.max()) == (0, 255) and 100 < grey.mean() < 155
    colours = np.asarray(decode(content))
    assert colours.shape == (48, 64, 3) and (colours == grey[..., None]).all()
    part = np.asarray(decode(content, (5, 7, 40, 30), "L"))
    assert np.array_equal(part, grey[7:30, 5:40])


def test_a_tiff_whose_white_is_zero_is_not_shown_as_its_negative() -> None:
    content = saved(Image.fromarray(RAMP), "TIFF", tiffinfo=WHITE_IS_ZERO)
    with Image.open(BytesIO(content)) as image:
        assert image.mode == "I;16" and image.tag_v2[262] == 0  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(decode(content, mode="L")), 255 - in_8_bits(RAMP, 65535))


def test_white_of_a_tiff_of_12_bits_is_4095() -> None:
    levels = np.array([[0, 4095], [2048, 1024]])
    pixels = b"".join((a << 12 | b).to_bytes(3, "big") for a, b in levels.tolist())
    tags = {256: 2, 257: 2, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 2, 279: len(pixels)}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + rows + bytes(4) + pixels
    assert np.array_equal(np.asarray(decode(content, mode="L")), in_8_bits(levels, 4095))


@pytest.mark.parametrize(
    ("levels", "says"),
    [
        (np.linspace(0, 1, 12, dtype=np.float32), "numbers with a fraction"),
        (np.arange(12, dtype=np.int32), "signed, or of more than 16 bits"),
        (np.arange(12, dtype=np.int32) - 5, "signed, or of more than 16 bits"),
    ],
)
def test_numbers_whose_white_is_not_known_are_refused(levels: np.ndarray, says: str) -> None:
    content = saved(Image.fromarray(levels.reshape(3, 4)), "TIFF")
    for box in (None, (0, 0, 2, 2)):
        with pytest.raises(ValueError, match=f"{says}, .* save it in 8 or 16 bits"):
            decode(content, box)


def test_colours_become_grey_as_pillow_weighs_them() -> None:
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8))
    content = saved(colours, "PNG")
    assert decode(content, mode="L").tobytes() == colours.convert("L").tobytes()
    assert decode(content).tobytes() == colours.tobytes()


@pytest.mark.parametrize("kind", ["GIF", "AVIF", "WEBP"])
def test_of_an_animation_the_first_picture_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = np.asarray(decode(content)).reshape(-1, 3).mean(0)
    assert red > 240 and max(green, blue) < 15


def nothing() -> bytes:
    return b""


def a_page() -> bytes:
    return b"<!DOCTYPE html><html>not found</html>"


def too_many_pixels() -> bytes:
    return saved(Image.new("1", (40, 30)), "PNG")


def far_too_many_pixels() -> bytes:
    return saved(Image.new("1", (60, 50)), "PNG")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (nothing, "it is empty"),
        (a_page, "Pillow cannot identify it as an image"),
        (too_many_pixels, "more than 1,000 pixels, Pillow's limit; save it smaller"),
        (far_too_many_pixels, "more than 1,000 pixels, Pillow's limit; save it smaller"),
    ],
)
def test_what_is_no_image_is_refused(
    make: Callable[[], bytes], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=says) as refusal:
        decode(make())
    assert "BytesIO" not in str(refusal.value)


def test_an_image_that_would_be_huge_after_the_resize_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding.Image, "MAX_IMAGE_PIXELS", 64 * 64 * 10)
    check_shape(100, 10, 64)  # exactly the limit
    with pytest.raises(ValueError, match="10 x 101 would be more than 40,960 pixels"):
        check_shape(10, 101, 64)
