"""Archives become a checked tree that torchvision reads too; whatever is wrong is named."""

import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import ImageNet

from graphpruning.common.errors import UserError
from graphpruning.common.files import alone
from graphpruning.training import imagenet
from graphpruning.training.listing import imagenet_classes
from tests.miniature import ARCHIVES, add, build, write_sums

CLASSES, TRAIN, VAL = 3, 4, 2


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    build(folder, CLASSES, TRAIN, VAL)
    return folder


@pytest.fixture
def root(archives: Path, tmp_path: Path) -> Path:
    """The archives alone."""
    return Path(shutil.copytree(archives, tmp_path / "imagenet"))


@pytest.fixture
def tree(root: Path) -> Path:
    """An unpacked tree, with its devkit."""
    imagenet.prepare(root)
    return root


def test_archives_become_the_tree_that_torchvision_reads(root: Path) -> None:
    listings = imagenet.prepare(root)
    for part, ours in (("train", "train"), ("val", "test")):
        theirs = ImageNet(root, part)
        files = [str(root / file) for file in listings[ours].files]
        assert list(zip(files, listings[ours].labels, strict=True)) == theirs.samples
        assert listings[ours].classes == tuple(theirs.wnids)
    assert len(listings["train"].files) == (CLASSES + 1) * TRAIN
    assert ImageNet(root, "train").classes[0][1] == "other name"
    assert not list(root.rglob(".*"))


def test_validation_images_go_to_the_class_that_the_devkit_says(tree: Path) -> None:
    """The builder paints a class in its own colours: one image of each part shows the same."""
    import numpy as np
    from PIL import Image

    def colour(part: str, wnid: str) -> Any:
        files = sorted((tree / part / wnid).iterdir())
        return np.mean([np.asarray(Image.open(file)).std((0, 1)) for file in files], axis=0)

    wnids = imagenet_classes(tree)
    for wnid in wnids:
        distances = {
            other: np.abs(colour("val", wnid) - colour("train", other)).sum() for other in wnids
        }
        assert min(distances, key=lambda other: distances[other]) == wnid


def test_an_interrupted_run_goes_on_where_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, done = os.rename, []

    def interrupted(source: Path, target: Path) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        imagenet.prepare(root)
    monkeypatch.undo()
    assert list((root / "train").glob("n*")) == done
    before = done[0].stat().st_mtime_ns, done[0].stat().st_ino
    assert list((root / "train").glob(".unpacking-*"))

    listings = imagenet.prepare(root)
    assert (done[0].stat().st_mtime_ns, done[0].stat().st_ino) == before
    assert len(listings["train"].files) == (CLASSES + 1) * TRAIN
    assert not list(root.rglob(".*"))


def test_a_tree_that_somebody_else_unpacks_at_the_moment_is_left_alone(root: Path) -> None:
    with alone(root / ".unpacking.lock", "unpacking"), pytest.raises(UserError, match="unpacking"):
        imagenet.prepare(root)
    assert not (root / "train").exists()


def test_a_whole_tree_is_only_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder has to be that a cluster shares."""

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(imagenet, "atomic", refuse)
    monkeypatch.setattr(imagenet, "alone", refuse)
    imagenet.prepare(tree)


def test_other_archives_than_the_official_need_sums_of_their_own(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imagenet.prepare(root)
    assert f"compared with {root / 'MD5SUMS'}, not with the official one" in capsys.readouterr().out
    (root / "MD5SUMS").unlink()
    with pytest.raises(UserError, match=rf"{ARCHIVES[2]} has MD5 .*fa75699e.*get it again"):
        imagenet.prepare(root)


def test_a_changed_archive_is_refused_before_it_is_unpacked(root: Path) -> None:
    with open(root / ARCHIVES[0], "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=rf"{ARCHIVES[0]} has MD5 .* expected"):
        imagenet.prepare(root)
    assert not (root / "train").exists()


def test_an_archive_cannot_write_outside_its_class(root: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as inner:
        add(inner, "../../outside.JPEG", b"x")
    with tarfile.open(root / ARCHIVES[0], "w") as outer:
        add(outer, f"{imagenet_classes(None)[0]}.tar", content.getvalue())
    write_sums(root)
    with pytest.raises(UserError, match=r"img_train.tar: the images of n\d+ cannot be unpacked"):
        imagenet.prepare(root)
    assert not list(root.rglob("outside*"))


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (ARCHIVES[0], "has neither ILSVRC2012_img_train.tar nor train/"),
        (ARCHIVES[1], "has neither ILSVRC2012_img_val.tar nor val/"),
    ],
)
def test_a_missing_archive_is_named(root: Path, missing: str, says: str) -> None:
    (root / missing).unlink()
    with pytest.raises(UserError, match=says):
        imagenet.prepare(root)


def first(tree: Path, part: str) -> Path:
    return sorted((tree / part).rglob("*.JPEG"))[0]


def truncate(tree: Path) -> str:
    image = first(tree, "train")
    image.write_bytes(image.read_bytes()[:-40])
    return f"{image.relative_to(tree)} cannot be decoded"


def empty(tree: Path) -> str:
    image = first(tree, "val")
    image.write_bytes(b"")
    return f"{image.relative_to(tree)} is empty"


def miscount(tree: Path) -> str:
    first(tree, "train").unlink()
    return f"train/{imagenet_classes(None)[0]}: {2 * TRAIN - 1} images, not {2 * TRAIN}"


def empty_class(tree: Path) -> str:
    for image in first(tree, "val").parent.iterdir():
        image.unlink()
    return f"val/{imagenet_classes(None)[0]}: 0 images, not {VAL}"


def misplace(tree: Path) -> str:
    image, other = first(tree, "train"), imagenet_classes(None)[1]
    moved = image.rename(tree / "train" / other / image.name)
    return f"{moved.relative_to(tree)} belongs to {imagenet_classes(None)[0]}"


def stray(tree: Path) -> str:
    note = first(tree, "train").with_name("note.txt")
    note.write_text("not an image")
    return f"{note.relative_to(tree)} is not an image"


def other_class(tree: Path) -> str:
    (tree / "val" / "cats").mkdir()
    return "val/cats is not a class"


def missing_class(tree: Path) -> str:
    (tree / ARCHIVES[0]).unlink()
    shutil.rmtree(first(tree, "train").parent)
    return f"train/{imagenet_classes(None)[0]} is missing"


@pytest.mark.parametrize(
    "damage",
    [truncate, empty, miscount, empty_class, misplace, stray, other_class, missing_class],
)
def test_damage_is_named(tree: Path, damage: Any) -> None:
    fault = damage(tree)
    with pytest.raises(UserError) as refused:
        imagenet.prepare(tree)
    assert fault in str(refused.value)
    assert "\n" not in str(refused.value)


def test_many_faults_are_counted(tree: Path) -> None:
    for image in (tree / "train").rglob("*.JPEG"):
        image.write_bytes(b"")
    with pytest.raises(
        UserError, match=rf"is empty.*; and {(CLASSES + 1) * TRAIN - 10} more: mend"
    ):
        imagenet.prepare(tree)


def test_an_image_with_other_bytes_after_its_end_is_whole(tree: Path) -> None:
    with open(first(tree, "train"), "ab") as file:
        file.write(b"\0\0")
    imagenet.prepare(tree)


def test_a_tree_without_archives_is_held_to_imagenets_counts(tree: Path) -> None:
    for name in ARCHIVES:
        (tree / name).unlink()
    assert (
        len(imagenet.prepare(tree)["train"].files) == (CLASSES + 1) * TRAIN
    )  # meta.bin has its classes
    (tree / "meta.bin").unlink()
    with pytest.raises(UserError, match=r"train/n\d+ is missing; .*; and \d+ more"):
        imagenet.prepare(tree)
