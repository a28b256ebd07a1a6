"""Which files are the user's images: not what systems leave behind, and nothing unsaid."""

from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from graphpruning.common.errors import UserError
from graphpruning.training.listing import list_images
from graphpruning.training.walk import EXTENSIONS, kinds


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("L", (9, 9)).save(tmp_path / part / name / "1.jpg")
    return tmp_path


def test_every_ending_of_torchvision_is_read() -> None:
    assert set(IMG_EXTENSIONS) < set(EXTENSIONS)


@pytest.mark.parametrize(
    "left",
    [
        "train/__MACOSX/._a/1.jpg",
        "train/@eaDir/1.jpg",
        "val/@eaDir/1.jpg",
        "train/#recycle/1.jpg",
        "train/.cache/1.jpg",
        "train/a/@eaDir/1.jpg@SynoEAStream.jpg",
        "train/a/.ipynb_checkpoints/1-checkpoint.jpg",
        "train/a/._1.jpg",
        "train/a/.DS_Store",
        "val/a/Thumbs.db",
        "train/b/desktop.ini",
    ],
)
def test_what_systems_leave_behind_is_no_data(tree: Path, left: str) -> None:
    (tree / left).parent.mkdir(parents=True, exist_ok=True)
    (tree / left).write_text("no image")
    for part, is_train in (("train", True), ("val", False)):
        listing = list_images("folder", tree, is_train)
        assert listing.files == (f"{part}/a/1.jpg", f"{part}/b/1.jpg")
        assert listing.classes == ("a", "b") and not listing.others


def test_hidden_links_to_nothing_are_no_data(tree: Path) -> None:
    (tree / "train/a/.#1.jpg").symlink_to("user@host.1234")  # as Emacs locks a file
    assert len(list_images("folder", tree, True).files) == 2


def test_gif_and_avif_are_listed(tree: Path) -> None:
    for name in ("2.gif", "3.AVIF", "4.jfif"):
        (tree / "train/a" / name).write_text("something")
    files = list_images("folder", tree, True).files
    assert files == tuple(
        f"train/{name}" for name in ("a/1.jpg", "a/2.gif", "a/3.AVIF", "a/4.jfif", "b/1.jpg")
    )


def test_other_files_are_counted(tree: Path) -> None:
    for name in ("a/1.heic", "a/deep/2.HEIC", "b/notes.txt", "b/README"):
        (tree / "train" / name).parent.mkdir(exist_ok=True)
        (tree / "train" / name).write_text("something")
    listing = list_images("folder", tree, True)
    assert len(listing.files) == 2 and len(listing.others) == 4
    assert kinds(listing.others) == ".heic 2, no ending 1, .txt 1"
    assert kinds("abcdef") == "no ending 6"
    assert kinds(f"1.{letter}" for letter in "aabcdef").startswith(".a 2, .b 1")
    assert kinds(f"1.{letter}" for letter in "aabcdef").endswith(", others")


def refusal(tree: Path) -> str:
    with pytest.raises(UserError) as refused:
        list_images("folder", tree, True)
    assert str(refused.value).isprintable()
    return str(refused.value)


def test_a_class_of_other_files_says_what_is_read(tree: Path) -> None:
    (tree / "train/a/1.jpg").rename(tree / "train/a/1.heic")
    said = refusal(tree)
    assert f"{tree}/train/a has no image that is read (.heic 1)" in said
    assert ".jpg .jpeg .png" in said and ".gif .avif" in said


def test_all_links_to_nothing_are_named_together(tree: Path) -> None:
    """Whether their names end as an image's do or not: they may be folders of images."""
    (tree / "train/a/3.png").symlink_to("nowhere")
    (tree / "train/b/more").symlink_to("nowhere")
    assert refusal(tree) == (
        f"{tree}: train/a/3.png is a link to nothing; train/b/more is a link to nothing: "
        "mend or remove these files"
    )
