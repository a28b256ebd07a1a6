"""The loaders' benchmark compares like with like."""

from pathlib import Path

import pytest
import torch

from benchmarks import loading
from graphpruning.common.errors import UserError
from graphpruning.training import jpeg
from tests.miniature import image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import numpy as np

    for label in range(2):
        place = tmp_path / "images" / str(label)
        place.mkdir(parents=True)
        for number in range(3):
            draw = np.random.default_rng(number)
            (place / f"{number}.jpg").write_bytes(image(draw, label, 2))
    return tmp_path / "images"


def test_all_loaders_give_the_same_kind_of_batches(folder: Path) -> None:
    for reader in (loading.reference, loading.ours, loading.by_pillow):
        batches = [(images, labels) for images, labels in reader(folder, 4)]  # type: ignore[misc]
        assert [images.shape for images, _ in batches] == [(4, 3, 224, 224), (2, 3, 224, 224)]
        assert {images.dtype for images, _ in batches} == {torch.float32}
        assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [0] * 3 + [1] * 3


def test_the_rates_of_all_are_compared(folder: Path) -> None:
    threads = torch.get_num_threads()
    found = loading.rows(folder, batch=4, repeats=2)
    assert torch.get_num_threads() == threads
    targets = [1.8] if jpeg.simplejpeg is None else [1.8, 2.5]
    assert [row.target for row in found] == targets
    for row in found:
        assert len(row.ours) == len(row.reference) == 2
        assert min(*row.ours, *row.reference) > 0 and row.at_least


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no image in folders of classes"):
        loading.rows(tmp_path)
