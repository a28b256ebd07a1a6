"""Every file is looked at before the first step, once, and again only if it has changed."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphpruning.common.errors import UserError
from graphpruning.training import verification
from graphpruning.training.folder import FolderSet, open_images
from graphpruning.training.listing import list_images
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.verification import verify

CROPS = Preprocessing((0.5,) * 3, (0.2,) * 3, 0, True, size=16, resize=18, smallest_area=0.2)
CENTRES = Preprocessing((0.5,) * 3, (0.2,) * 3, 0, True, size=16, resize=18)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "tree/train" / name).mkdir(parents=True)
        for number in range(4):
            pixels = draw.integers(0, 256, (24, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"tree/train/{name}/{number}.jpg")
    return tmp_path / "tree"


def images_of(tree: Path, how: Preprocessing = CROPS) -> FolderSet:
    images = open_images(list_images("folder", tree, True), True, how, cache=tree / "cache")
    assert isinstance(images, FolderSet)
    return images


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are decoded."""
    names: list[str] = []
    really = verification._fault

    def noting(path: Path, mode: str, resize: int | None) -> str | None:
        names.append(f"{path.parent.name}/{path.name}")
        return really(path, mode, resize)

    monkeypatch.setattr(verification, "_fault", noting)
    return names


def test_all_faults_are_named_at_once(tree: Path) -> None:
    cut(tree / "train/a/1.jpg")
    (tree / "train/b/2.jpg").write_text("<html>")
    (tree / "train/b/3.jpg").write_bytes(b"")
    with pytest.raises(UserError) as refusal:
        verify(images_of(tree), 18, tree / "kept")
    text = str(refusal.value)
    assert f"{tree}/train/a/1.jpg cannot be used (" in text and "truncated" in text
    assert f"{tree}/train/b/2.jpg cannot be used (Pillow cannot identify" in text
    assert f"{tree}/train/b/3.jpg cannot be used (it is empty)" in text
    assert text.isprintable() and text.endswith("replace or remove these files, then start again")


def test_many_faults_are_counted(tree: Path) -> None:
    (tree / "train/c").mkdir()
    for number in range(12):
        (tree / f"train/c/{number}.png").write_text("no image")
    with pytest.raises(UserError, match="; and 2 more: replace"):
        verify(images_of(tree), 18, tree / "kept")
    with pytest.raises(UserError, match="; and 2 more: replace"):
        open_images(list_images("folder", tree, True), True, CENTRES, cache=tree / "cache")


def test_a_run_that_goes_on_looks_only_at_new_and_changed_files(
    tree: Path, looked_at: list[str]
) -> None:
    bad = tree / "train/a/1.jpg"
    whole = bad.read_bytes()
    cut(bad)
    with pytest.raises(UserError):
        verify(images_of(tree), 18, tree / "kept")
    assert sorted(looked_at) == [f"{name}/{number}.jpg" for name in "ab" for number in range(4)]
    looked_at.clear()
    bad.write_bytes(whole)
    verify(images_of(tree), 18, tree / "kept")
    assert looked_at == ["a/1.jpg"]
    looked_at.clear()
    verify(images_of(tree), 18, tree / "kept")
    assert not looked_at
    later = tree / "train/b/3.jpg"
    cut(later)
    later.write_bytes(later.read_bytes() + bytes(30))  # as long as before
    os.utime(later, ns=(1, 1))
    with pytest.raises(UserError, match=r"b/3\.jpg cannot be used"):
        verify(images_of(tree), 18, tree / "kept")
    assert looked_at == ["b/3.jpg"]


def test_a_damaged_record_only_costs_time(tree: Path, looked_at: list[str]) -> None:
    for content in (b"", b"\0" * 13):
        (tree / "kept").write_bytes(content)
        looked_at.clear()
        verify(images_of(tree), 18, tree / "kept")
        assert len(looked_at) == 8


def test_an_image_too_narrow_for_the_resize_is_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest may have 20,000 pixels; of 1 x 100 the resize to 18 would make 32,400."""
    Image.new("L", (1, 100)).save(tree / "train/a/narrow.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    for act in (
        lambda: verify(images_of(tree), 18, tree / "kept"),
        lambda: images_of(tree).decoded(CENTRES),
    ):
        with pytest.raises(UserError, match=r"narrow\.png cannot be used .*; cut it"):
            act()


@pytest.mark.filterwarnings("error")
def test_large_images_are_named_and_no_warning_is_printed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (40, 40)).save(tree / "train/a/large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for act in (
        lambda: verify(images_of(tree), 18, tree / "kept"),
        lambda: images_of(tree).decoded(CENTRES),
    ):
        with pytest.raises(UserError, match=r"large\.png cannot be used .* save it smaller"):
            act()


def test_other_processes_wait_for_the_first(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = threading.Event()
    monkeypatch.setattr(verification, "is_writer", lambda: False)
    monkeypatch.setattr(verification.time, "sleep", lambda _: first.wait(5))
    done: list[bool] = []

    def other() -> None:
        verify(images_of(tree), 18, tree / "kept")
        done.append(first.is_set())

    waiting = threading.Thread(target=other)
    waiting.start()
    verification._keep(
        tree / "kept",
        {
            verification._key(path, f"{verification.PIL.__version__} 3 18")
            for path in (tree / "train").rglob("*.jpg")
        },
    )
    first.set()
    waiting.join(10)
    assert done == [True]
