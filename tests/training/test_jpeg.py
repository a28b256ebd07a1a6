"""With simplejpeg or without, the same pixels and the same refusals."""

import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graphpruning.training import jpeg
from graphpruning.training.decoding import decode
from graphpruning.training.folder import _RandomCrop, crop_box

pytest.importorskip("simplejpeg")


def photograph(mode: str = "RGB", **options: object) -> bytes:
    levels = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    image = Image.fromarray(levels).resize((311, 237), Image.Resampling.BICUBIC).convert(mode)
    file = BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def boxes(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    draw = random.Random(0)
    yield (0, 0, width, height)
    yield (width - 1, height - 1, width, height)
    for _ in range(20):
        yield crop_box(width, height, 0.02, draw)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_box_has_pillows_pixels(subsampling: str, mode: str) -> None:
    content = photograph(mode, subsampling=subsampling)
    assert jpeg.size(content) == (311, 237)
    for box in boxes(311, 237):
        found = jpeg.pixels(content, box)
        assert found is not None
        assert np.array_equal(found, np.asarray(decode(content, box)))


def test_other_files_are_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    png = BytesIO()
    Image.new("RGB", (20, 20)).save(png, "PNG")
    progressive = photograph(progressive=True)
    of_a_kind = bytearray(photograph(subsampling="4:2:0"))  # 4:1:1, turned by a quarter
    of_a_kind[jpeg.frame(bytes(of_a_kind)) + 11] = 0x14
    others = (b"", jpeg.JPEG, png.getvalue(), photograph("CMYK"), progressive, bytes(of_a_kind))
    for content in others:
        assert jpeg.size(content) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 311 * 237 - 1)
    assert jpeg.size(photograph()) is None


def test_a_file_that_ends_too_early_is_left_to_pillow_which_refuses_it() -> None:
    content = photograph()
    for cut in (len(content) // 2, len(content) - 500, 700):
        assert jpeg.size(content[:cut]) == (311, 237)
        assert jpeg.pixels(content[:cut], (0, 0, 311, 237)) is None
        with pytest.raises(ValueError, match="truncated"):
            _RandomCrop(32, 3, 1.0, False, np.zeros(1, dtype=np.int64))(content[:cut], 0)


def test_random_crops_are_the_same_without_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content = photograph()
    for channels in (1, 3):
        crop = _RandomCrop(32, channels, 0.08, True, np.arange(30))
        with_it = [crop(content, place) for place in range(30)]
        with monkeypatch.context() as without:
            without.setattr(jpeg, "simplejpeg", None)
            assert jpeg.size(content) is None
            plain = [crop(content, place) for place in range(30)]
        assert all(torch.equal(one, other) for one, other in zip(with_it, plain, strict=True))
    assert capfd.readouterr() == ("", "")  # libjpeg's complaints of shortened frames stay unsaid
