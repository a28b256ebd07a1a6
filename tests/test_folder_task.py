"""What `prune` makes of a folder of images, and what it says where a folder does not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graphpruning.common.errors import UserError
from graphpruning.folder_task import (
    check_batches,
    list_parts,
    open_parts,
    passed_over,
    preprocessing_for,
    recipes_for,
)
from graphpruning.training.folder import FolderSet


def photos(root: Path, train: int, *classes: str) -> Path:
    """So many training images of each class, larger than what is padded; one that validates."""
    draw = np.random.default_rng(0)
    for part, count in (("train", train), ("val", 1)):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.jpg")
    return root


def refusal(data: Path) -> str:
    with pytest.raises(UserError) as refused:
        list_parts(data)
    assert str(refused.value).isprintable()
    return str(refused.value)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    said = refusal(photos(tmp_path, 4, "images"))
    assert f"{tmp_path}/train has one class, images: " in said and "move them up" in said


def test_one_image_in_each_class_is_too_few(tmp_path: Path) -> None:
    said = refusal(photos(tmp_path, 1, "a", "b"))
    assert f"{tmp_path}/train has one image in each class, such as a: add images" in said


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[1m", "a\u2028b"])
def test_a_class_whose_name_cannot_be_written_is_refused_before_the_first_step(
    tmp_path: Path, name: str
) -> None:
    said = refusal(photos(tmp_path, 2, name, "z"))
    assert f"{tmp_path}/train: classes[0] is " in said and "rename this folder" in said


@pytest.mark.parametrize("size", [32, 80])
def test_no_class_loses_all_its_images_to_the_search(tmp_path: Path, size: int) -> None:
    """Of 1, 2 and 3 images one each is held out where there are two or more."""
    data = photos(tmp_path, 3, "a", "b", "c")
    (data / "train/a/1.jpg").unlink()
    (data / "train/a/2.jpg").unlink()
    (data / "train/b/2.jpg").unlink()
    how = preprocessing_for((3, size, size), None, None)
    parts = open_parts(list_parts(data), how, 0, 0, tmp_path / "cache")
    assert parts.train.labels.bincount().tolist() == [1, 1, 2]
    assert parts.search.labels.bincount(minlength=3).tolist() == [0, 1, 1]


def test_images_that_recalibrate_are_not_class_by_class(tmp_path: Path) -> None:
    """A batch of one class has other statistics, and least squares read the first images alone."""
    data = photos(tmp_path, 20, "a", "b", "c")
    how = preprocessing_for((3, 32, 32), None, None)
    labels = open_parts(list_parts(data), how, 0, 0, tmp_path / "cache").calibration.labels
    assert len(set(labels[:10].tolist())) == 3
    assert labels.tolist() != labels.sort().values.tolist()


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("size", [32, 80])
def test_a_truncated_image_is_named_before_the_first_step(
    tmp_path: Path, part: str, size: int
) -> None:
    """Whether the images are decoded as a whole (32 pixels) or as they are needed (80)."""
    data = photos(tmp_path, 6, "a", "b")
    bad = data / part / "b/0.jpg"
    bad.write_bytes(bad.read_bytes()[:-20])
    how = preprocessing_for((3, size, size), None, None)
    with pytest.raises(UserError, match="truncated") as refused:
        open_parts(list_parts(data), how, 0, 0, tmp_path / "cache")
    assert str(bad) in str(refused.value)


def test_fewer_images_than_a_batch_say_which_batch_fits(tmp_path: Path) -> None:
    data = photos(tmp_path, 6, "a", "b")
    how = preprocessing_for((3, 80, 80), None, None)
    parts = open_parts(list_parts(data), how, 0, 0, tmp_path / "cache")
    assert isinstance(parts.train, FolderSet)
    count = len(parts.train)
    with pytest.raises(UserError) as refused:
        check_batches(parts, recipes_for(count, None, None, None, None, "scratch"), data)
    assert str(refused.value) == (
        f"{data}/train has 10 images to train on, besides 2 that judge candidates, and a batch "
        "takes 16: add images, or give a batch size of 10 or less"
    )
    check_batches(parts, recipes_for(count, 10, None, None, None, "scratch"), data)


def test_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    data = photos(tmp_path, 2, "a", "b")
    assert passed_over(list_parts(data)) == []
    (data / "val/a/1.heic").write_text("no image that is read")
    (data / "val/b/1.heic").write_text("no image that is read")
    assert passed_over(list_parts(data)) == [
        f"{data}/val: left out, because they are no images that can be read: .heic 2"
    ]
    for place in ("train/stray.png", "train/._stray.png", "train/labels.csv", "val/stray.JPG"):
        (data / place).write_bytes((data / "train/a/0.jpg").read_bytes())
    (train, before, after) = passed_over(list_parts(data))
    assert train == f"{data}/train: left out, because they lie in no class's folder: .png 1"
    assert before.endswith("that can be read: .heic 2")
    assert after == f"{data}/val: left out, because they lie in no class's folder: .jpg 1"


def test_grey_images_are_normalised_by_the_average_of_imagenets() -> None:
    colours, grey = (preprocessing_for((count, 32, 32), None, None) for count in (3, 1))
    for name in ("mean", "std"):
        (average,) = getattr(grey, name)
        assert average == pytest.approx(
            torch.tensor(getattr(colours, name)).mean().item(), abs=1e-3
        )
    given = preprocessing_for((1, 32, 32), (0.2,), (0.1,))
    assert (given.mean, given.std) == ((0.2,), (0.1,))
