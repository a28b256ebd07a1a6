"""The loaders' benchmark compares like with like, and writes what it found."""

import csv
from pathlib import Path

import pytest
import torch

from benchmarks import loading
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


def test_both_loaders_give_the_same_kind_of_batches(folder: Path) -> None:
    for reader in (loading.reference, loading.ours):
        batches = [(images, labels) for images, labels in reader(folder, 4)]  # type: ignore[misc]
        assert [images.shape for images, _ in batches] == [(4, 3, 224, 224), (2, 3, 224, 224)]
        assert {images.dtype for images, _ in batches} == {torch.float32}
        assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [0] * 3 + [1] * 3


def test_every_pass_is_written_and_the_ratio_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, threads = tmp_path / "loading.csv", torch.get_num_threads()
    try:
        assert loading.main([str(folder), "--repeats", "2", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    with open(out, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["reader"] for row in rows] == ["reference", "ours"] * 2
    assert all(float(row["images_per_second"]) > 0 and row["machine"] for row in rows)
    assert "ratio: " in capsys.readouterr().out


def test_the_ratio_is_that_of_neighbouring_passes() -> None:
    rows = [("reference", 1, 10.0), ("ours", 1, 20.0), ("reference", 2, 20.0), ("ours", 2, 50.0)]
    assert "ratio: 2.25 (2 to 2.5)" in loading.report(rows)


def test_a_folder_without_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loading.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} has no image")
