"""What somebody else made and is damaged or hostile: one line, nothing elsewhere, no waiting."""

import gzip
import hashlib
import io
import os
import pickle
import resource
import shutil
import signal
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat
from torch import nn
from torchvision.datasets import CIFAR10

from graphpruning.common.errors import UserError
from graphpruning.network.zoo import build
from graphpruning.training import datasets, imagenet
from graphpruning.training.folder import open_images
from graphpruning.training.listing import (
    HEADER,
    Listing,
    damaged,
    list_files,
    list_folder,
    list_images,
    read_manifest,
    write_manifest,
)
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.pretrained import load_pretrained
from graphpruning.training.walk import subfolders
from tests import miniature
from tests.miniature import ARCHIVES, add, write_sums

TRAIN, VAL, DEVKIT = ARCHIVES
FIRST = "n01440764"  # the first class
Spoil = Callable[[Path], object]


def refused(act: Callable[[], object], *says: str) -> None:
    """`act` raises a UserError of one line that has all of `says`."""
    with pytest.raises(UserError) as refusal:
        act()
    text = str(refusal.value)
    assert text.isprintable(), text
    for part in says:
        assert part in text


# ImageNet's archives


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    miniature.build(folder, classes=2, train=2, val=2)
    return folder


@pytest.fixture
def root(archives: Path, tmp_path: Path) -> Path:
    """The archives alone, beside a file that nobody may touch."""
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary/mine").write_text("mine")
    return Path(shutil.copytree(archives, tmp_path / "imagenet"))


def refused_archive(root: Path, *says: str, without: str = f"train/{FIRST}") -> None:
    """`prepare` refuses in one line; nothing outside, or half-made, or called `without` is left."""
    write_sums(root)
    before = set(root.iterdir())
    refused(lambda: imagenet.prepare(root), *says)
    assert sorted(path.name for path in root.parent.iterdir()) == ["canary", root.name]
    assert [path.name for path in (root.parent / "canary").iterdir()] == ["mine"]
    assert (root.parent / "canary/mine").read_text() == "mine"
    left = {path.name for path in set(root.iterdir()) - before}
    assert left <= {"meta.bin", "train", "val"}
    assert not (root / without).exists() and not list(root.rglob(".*"))
    for path in (*root.glob("train/n*"), *root.glob("val/n*")):
        assert len(list(path.iterdir())) >= 2


def cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def cut_in_member(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 10240 - 1000])


def cut_between_members(path: Path) -> None:
    with tarfile.open(path) as archive:
        end = archive.getmembers()[1].offset
    path.write_bytes(path.read_bytes()[:end])


def damaged_header(path: Path) -> None:
    """Of the second member: tarfile takes it for the end."""
    with tarfile.open(path) as archive:
        at = archive.getmembers()[1].offset
    content = bytearray(path.read_bytes())
    content[at + 3] ^= 64
    path.write_bytes(content)


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def negative_size(path: Path) -> None:
    """The second member leads back to itself, which tarfile would follow for ever."""
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        at = archive.getmembers()[1].offset
    header = content[at : at + 512]
    header[124:136] = b"\xff" + (-512).to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[at : at + 512] = header
    path.write_bytes(content)


@pytest.mark.parametrize("name", [TRAIN, VAL])
@pytest.mark.parametrize(
    "spoil",
    [
        cut_in_header,
        cut_in_member,
        cut_between_members,
        damaged_header,
        garbage,
        no_bytes,
        negative_size,
    ],
)
def test_an_archive_that_is_damaged(root: Path, name: str, spoil: Spoil) -> None:
    spoil(root / name)
    says = f"{root / name} cannot be used ("
    refused_archive(root, says, "get the archive again", without="val" if name == VAL else "train")


@pytest.mark.parametrize("cut", [lambda b: b[:200], lambda b: b[:-30], lambda b: b[:5] + b"x" * 99])
def test_a_devkit_that_is_damaged(root: Path, cut: Callable[[bytes], bytes]) -> None:
    path = root / DEVKIT
    path.write_bytes(cut(path.read_bytes()))
    refused_archive(root, f"{path} cannot be used (", "get the archive again")


@pytest.mark.parametrize("name", [*ARCHIVES, "MD5SUMS", "meta.bin"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file(root: Path, name: str, kind: str) -> None:
    if name == "meta.bin":
        (root / DEVKIT).unlink()
    (root / name).unlink(missing_ok=True)
    if kind == "folder":
        (root / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(root / name)
    else:
        (root / name).symlink_to("nowhere")
    says = {"folder": "is a folder", "pipe": "is a device or a pipe", "link": "is missing"}[kind]
    refused(lambda: imagenet.prepare(root), f"{root / name} {says}")


def write_devkit(root: Path, matrix: bytes | None = None, truth: bytes | None = None) -> None:
    with tarfile.open(root / DEVKIT) as archive:
        contents = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    with tarfile.open(root / DEVKIT, "w:gz") as archive:
        for (name, content), new in zip(contents.items(), (matrix, truth), strict=True):
            add(archive, name, content if new is None else new)


def mat(**variables: Any) -> bytes:
    content = io.BytesIO()
    savemat(content, variables)
    return content.getvalue()


def synsets(field: str, value: object) -> bytes:
    """A table of one class, with `value` in `field`."""
    row = {name: 1 for name in miniature.FIELDS} | {
        "WNID": FIRST,
        "words": "fish",
        "num_children": 0,
        field: value,
    }
    table = np.array([tuple(row.values())], dtype=[(name, object) for name in row])
    return mat(synsets=table)


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (b"", "meta.mat is not the table"),
        (b"no MATLAB " * 60, "meta.mat is not the table"),
        (mat(synsets=np.eye(3)), "meta.mat is not the table"),
        (mat(other=np.eye(3)), "meta.mat is not the table"),
        (mat(synsets=np.array([(1,)], dtype=[("WNID", object)])), "meta.mat is not the table"),
        (synsets("num_train_images", "many"), "meta.mat is not the table"),
        (synsets("num_train_images", float("nan")), "meta.mat is not the table"),
        (synsets("WNID", "../canary"), "'../canary', which is no wnid"),
        (synsets("num_children", 3), "meta.mat has no class"),
    ],
)
def test_a_devkit_without_its_table(root: Path, matrix: bytes, says: str) -> None:
    write_devkit(root, matrix=matrix)
    refused_archive(root, f"{root / DEVKIT} cannot be used", says)


def test_a_table_that_ends_the_process_that_reads_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SciPy's reader has been ended by damaged content: by a segmentation fault."""
    monkeypatch.setattr(imagenet, "loadmat", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    refused_archive(root, f"{root / DEVKIT} cannot be used", "SciPy cannot read it")


@pytest.mark.parametrize("word", ["cat", "-1", "0", "9999", "1.5", "9" * 5000, "\xff", "²"])
def test_a_ground_truth_of_other_classes(root: Path, word: str) -> None:
    write_devkit(root, truth=f"1\n{word}\n1\n1\n".encode("latin-1"))
    refused_archive(root, "image 2 of the ground truth has the class", word[:40])


def test_a_devkit_that_lacks_a_file(root: Path) -> None:
    with tarfile.open(root / DEVKIT, "w:gz") as archive:
        folder = tarfile.TarInfo("data/meta.mat")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    refused_archive(root, f"{root / DEVKIT} does not hold meta.mat")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\xff\x00\x01" * 20,
        f"{'0' * 32}  {TRAIN}\n".encode("utf-16"),
        f"{'0' * 32}  {TRAIN}\n".encode("utf-16-le"),
        f"{'0' * 32}  Bildpaket-für-später.tar\n".encode("latin-1"),
        f"{'0' * 32}  {TRAIN} {'0' * 32}\n{'0' * 32}\n".encode(),
        b"not a sum\n",
    ],
)
def test_sums_that_are_none(root: Path, content: bytes) -> None:
    (root / "MD5SUMS").write_bytes(content)
    refused(lambda: imagenet.prepare(root), str(root / "MD5SUMS"), "`md5sum *.tar* > MD5SUMS`")
    assert not (root / "train").exists()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    return member


HOSTILE = {
    "absolute": (tarfile.TarInfo("/{}/evil.JPEG"), "absolute path"),
    "above": (tarfile.TarInfo("../../../canary/evil.JPEG"), "leads out"),
    "inside above": (tarfile.TarInfo("a/../../../../canary/evil.JPEG"), "leads out"),
    "symlink": (link("a.JPEG", "../../../canary", tarfile.SYMTYPE), "is a link to"),
    "absolute symlink": (link("a.JPEG", "/{}", tarfile.SYMTYPE), "absolute path"),
    "hard link": (link("a.JPEG", "../../../canary/mine", tarfile.LNKTYPE), "is a link to"),
    "absolute hard link": (link("a.JPEG", "/{}/mine", tarfile.LNKTYPE), "absolute path"),
    "circle": (link("a.JPEG", "a.JPEG", tarfile.SYMTYPE), "is a link to"),
    "character device": (special("a.JPEG", tarfile.CHRTYPE), "is a device"),
    "block device": (special("a.JPEG", tarfile.BLKTYPE), "is a device"),
    "pipe": (special("a.JPEG", tarfile.FIFOTYPE), "is a device, a pipe"),
}


@pytest.mark.parametrize("where", ["class", TRAIN, VAL, DEVKIT])
@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_would_write_elsewhere(root: Path, kind: str, where: str) -> None:
    """In the archive of a class, where a later member goes through the link, or in an outer one."""
    given, says = HOSTILE[kind]
    member = tarfile.TarInfo(given.name.format(str(root.parent / "canary")[1:]))
    member.type, member.linkname = given.type, given.linkname
    member.linkname = member.linkname.format(str(root.parent / "canary")[1:])
    if where != "class":
        mode = "w:gz" if where == DEVKIT else "w"
        with tarfile.open(root / where, mode) as archive:  # type: ignore[call-overload]
            archive.addfile(member)
        without = "val" if where == VAL else "train"
        refused_archive(root, f"{root / where} cannot be used (", says, without=without)
        return
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as inner:
        add(inner, f"{FIRST}_0.JPEG", b"x")
        inner.addfile(member)
        add(inner, f"{member.name}/evil.JPEG" if "link" in kind else "b.JPEG", b"x")
    with tarfile.open(root / TRAIN, "w") as outer:
        add(outer, f"{FIRST}.tar", content.getvalue())
    refused_archive(root, f"{root / TRAIN}: the images of {FIRST} cannot be unpacked", says)


def test_a_folder_reached_by_two_links_leads_nowhere(root: Path) -> None:
    """A link to a folder moves what is written through it: no link of an archive is made."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as inner:
        inner.addfile(special("b", tarfile.DIRTYPE))
        inner.addfile(link("deep/sub", "../b", tarfile.SYMTYPE))
        inner.addfile(link("deep/sub/a", "../../c", tarfile.SYMTYPE))
        add(inner, "deep/sub/a", b"x")
        add(inner, "c", b"x")
    with tarfile.open(root / TRAIN, "w") as outer:
        add(outer, f"{FIRST}.tar", content.getvalue())
    refused_archive(root, f"the images of {FIRST} cannot be")


def test_links_inside_an_archive_become_copies(root: Path) -> None:
    with tarfile.open(root / TRAIN) as outer:
        (first, _) = outer.getmembers()
        images = outer.extractfile(first)
        assert images is not None
        with tarfile.open(fileobj=images) as inner:
            names = inner.getnames()
            contents = [inner.extractfile(name).read() for name in names]  # type: ignore[union-attr]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as inner:
        inner.addfile(link(f"{FIRST}_s.JPEG", names[0], tarfile.SYMTYPE))  # of what comes later
        add(inner, names[0], contents[0])
        inner.addfile(link(f"{FIRST}_h.JPEG", names[0], tarfile.LNKTYPE))
        add(inner, names[1], contents[1])
    with tarfile.open(root / TRAIN) as archive:
        second = archive.extractfile(archive.getmembers()[1])
        assert second is not None
        other = archive.getmembers()[1].name, second.read()
    with tarfile.open(root / TRAIN, "w") as outer:
        add(outer, first.name, content.getvalue())
        add(outer, *other)
    write_sums(root)
    imagenet.prepare(root)
    assert (root / "train" / FIRST / f"{FIRST}_s.JPEG").read_bytes() == contents[0]
    assert not [path for path in root.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("content", [b"", b"garbage" * 300, "cut", "middle"])
def test_a_class_whose_archive_is_damaged(root: Path, content: bytes | str) -> None:
    with tarfile.open(root / TRAIN) as outer:
        members = outer.getmembers()
        inner = [outer.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    if content == "cut":
        inner[0] = inner[0][:700]
    elif content == "middle":
        inner[0] = inner[0][:512] + b"x" * (len(inner[0]) - 1024) + bytes(512)
    else:
        assert isinstance(content, bytes)
        inner[0] = content
    with tarfile.open(root / TRAIN, "w") as outer:
        for member, held in zip(members, inner, strict=True):
            add(outer, member.name, held)
    refused_archive(root, f"the images of {FIRST} cannot be unpacked (", "get the archive again")


def of_objects(path: Path) -> None:
    torch.save(({FIRST: ("fish",)}, [Path("x")]), path)


def of_flipped_bits(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"n0144") + 4] ^= 1
    path.write_bytes(content)


def of_paths(path: Path) -> None:
    torch.save(({"../canary": ("fish",)}, ["../canary"]), path)


def of_other_classes(path: Path) -> None:
    torch.save(({FIRST: ("fish",)}, ["n99999999"]), path)


def of_numbers(path: Path) -> None:
    torch.save([1, 2, 3], path)


@pytest.mark.parametrize(
    "spoil",
    [
        garbage,
        no_bytes,
        cut_in_header,
        of_objects,
        of_flipped_bits,
        of_paths,
        of_other_classes,
        of_numbers,
    ],
)
def test_a_meta_bin_that_is_damaged(root: Path, spoil: Spoil) -> None:
    imagenet.prepare(root)
    (root / DEVKIT).unlink()
    imagenet.prepare(root)  # the classes are those of meta.bin
    spoil(root / "meta.bin")
    refused(lambda: imagenet.prepare(root), f"{root / 'meta.bin'} is damaged (", "remove it")
    with pytest.raises(UserError) as refusal:
        imagenet.prepare(root)
    assert "weights_only" not in str(refusal.value)


def test_an_older_meta_bin_is_read(root: Path) -> None:
    imagenet.prepare(root)
    (root / DEVKIT).unlink()
    held = torch.load(root / "meta.bin", weights_only=True)
    torch.save(held, root / "meta.bin", _use_new_zipfile_serialization=False)
    imagenet.prepare(root)


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may have more than `size` bytes: the system refuses as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("size", "what"), [(200, "meta.bin"), (1500, f"train/{FIRST}")])
def test_a_disk_without_room(root: Path, size: int, what: str) -> None:
    def full() -> None:
        with room(size):
            imagenet.prepare(root)

    refused(full, f"{root / what} cannot be written (File too large)", "make room")
    assert not list(root.rglob(".*")) and not (root / what).exists()
    assert len(imagenet.prepare(root)["train"].files) == 6


def test_a_place_that_is_taken(root: Path) -> None:
    (root / "train").mkdir()
    (root / "train" / FIRST).write_text("mine")
    refused(lambda: imagenet.prepare(root), f"{root / 'train' / FIRST} cannot be written")
    assert (root / "train" / FIRST).read_text() == "mine"
    assert not list(root.glob("train/.*"))


def test_a_link_in_the_place_of_what_an_interrupted_run_left(root: Path) -> None:
    (root / "train").mkdir()
    (root / f"train/.unpacking-{FIRST}").symlink_to(root.parent / "canary")
    imagenet.prepare(root)
    assert [path.name for path in (root.parent / "canary").iterdir()] == ["mine"]


# Folders of images, and their manifest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "tree" / part / name).mkdir(parents=True)
            image = Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8))
            image.save(tmp_path / "tree" / part / name / "1.jpg")
    return tmp_path / "tree"


def test_images_that_are_no_file(tree: Path) -> None:
    (tree / "train/a/2.jpg").symlink_to("nowhere")
    os.mkfifo(tree / "train/a/3.jpg")
    (tree / "train/b/4\n\x1b[1m.jpg").symlink_to("nowhere")
    refused(
        lambda: list_images("folder", tree, True),
        f"{tree}: train/a/2.jpg is a link to nothing; train/a/3.jpg is a device or a pipe; "
        r"train/b/4\n\x1b[1m.jpg is a link to nothing",
    )


def test_links_in_a_circle(tree: Path) -> None:
    (tree / "train/a/up").symlink_to("..")
    (tree / "train/b/b").symlink_to("../b")
    refused(lambda: list_folder(tree, "train", ("a",)), "train/a/up is a link to a folder that")
    refused(lambda: list_folder(tree, "train", ("b",)), "train/b/b is a link to a folder that")
    (tree / "train/a/up").unlink()
    (tree / "train/a/other").symlink_to("../../val/a")
    assert list_folder(tree, "train", ("a",)).files == ("train/a/1.jpg", "train/a/other/1.jpg")


def test_a_class_that_is_a_link_to_nothing(tree: Path) -> None:
    (tree / "train/c").symlink_to("/not mounted")
    refused(lambda: subfolders(tree / "train"), f"{tree}/train/c is a link to nothing")
    (tree / "train/c").unlink()
    (tree / "train/c").symlink_to("c")
    refused(lambda: subfolders(tree / "train"), f"{tree}/train/c cannot be read")


def test_folders_that_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system refuses them to other users than the one who may do everything."""
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    refused(
        lambda: list_images("folder", tree, True),
        f"{tree}/train/a cannot be read (Permission denied)",
    )
    refused(lambda: subfolders(tree / "train/a"), "cannot be read (Permission denied)")


def listing(root: Path, *names: str) -> Listing:
    return Listing(root, names, (9,) * len(names), (0,) * len(names), ("a",))


def bomb(path: Path) -> None:
    """A bitmap that says it is 20,000 pixels wide and high."""
    content = io.BytesIO()
    Image.new("1", (9, 9)).save(content, "BMP")
    header = bytearray(content.getvalue())
    header[18:26] = (20000).to_bytes(4, "little") * 2
    path.write_bytes(header)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, "cannot be read (Is a directory)"),
        (os.mkfifo, "cannot be read (it is no regular file)"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read (No such file or directory)"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read (it is no regular file)"),
        (no_bytes, "is empty"),
        (garbage, "cannot be decoded (cannot identify image file"),
        (bomb, "cannot be decoded (Image size (400000000 pixels) exceeds limit"),
    ],
)
def test_damage_of_what_is_no_image(tmp_path: Path, make: Spoil, says: str) -> None:
    make(tmp_path / "1.jpg")
    (fault,) = damaged(listing(tmp_path, "1.jpg"), "checking")
    assert fault.startswith(f"1.jpg {says}") and "\n" not in fault


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, bomb, garbage, no_bytes])
def test_images_that_cannot_be_decoded(tmp_path: Path, make: Spoil, augment: bool) -> None:
    name = "line\nfeed.jpg"
    make(tmp_path / name)
    how = Preprocessing((0.5,) * 3, (0.5,) * 3, 0, False, 32, smallest_area=0.5)

    def read() -> None:
        images = open_images(listing(tmp_path, name), augment, how, cache=tmp_path / "cache")
        next(images.batches(how, 1, torch.Generator(), augment))

    refused(read, r"line\nfeed.jpg cannot be used (")
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize("size", [0, 100])
def test_decoded_images_that_were_cut_are_decoded_again(tree: Path, size: int) -> None:
    how = Preprocessing((0.5,) * 3, (0.5,) * 3, 0, False, 32)
    read = [listing.labels for listing in (list_images("folder", tree, False),)]
    assert read == [(0, 1)]
    cache = tree / "cache"
    first = open_images(list_images("folder", tree, False), False, how, cache=cache).decoded(how)
    whole = first.images.clone()
    (file,) = cache.iterdir()
    file.unlink()
    file.write_bytes(bytes(size))
    again = open_images(list_images("folder", tree, False), False, how, cache=cache).decoded(how)
    assert torch.equal(again.images, whole)


def test_names_with_line_feeds_have_no_manifest(tmp_path: Path) -> None:
    odd = Listing(tmp_path, (), (), (), ("a\nb",))
    refused(lambda: write_manifest(tmp_path / "m", {"train": odd}), r"'a\nb'", "rename")
    refused(lambda: write_manifest(tmp_path / "m", {"a": listing(tmp_path, "a\nb")}), r"'a\nb'")
    assert not list(tmp_path.iterdir())


ROWS = [HEADER, "class\ta\t0\t0", "class\tb\t0\t1", "train\ta/1.jpg\t5\t0", "test\tb/1.jpg\t5\t1"]


def manifest(path: Path, *changes: tuple[int, str], end: str = "\n") -> Path:
    rows = list(ROWS)
    for number, row in changes:
        rows[number] = row
    path.write_bytes(gzip.compress(("\n".join(rows) + end).encode()))
    return path


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("train\ta/1.jpg\t5", "line 4 is not a part"),
        ("train\ta/1.jpg\t5\t0\t7", "line 4 is not a part"),
        ("", "line 4 is not a part"),
        ("train\ta/1.jpg\tmany\t0", "line 4 is not a part"),
        ("train\ta/1.jpg\t-5\t0", "line 4 is not a part"),
        ("train\ta/1.jpg\t" + "9" * 5000 + "\t0", "line 4 is not a part"),
        ("train\ta/1.jpg\t5\tcat", "line 4 is not a part"),
        ("train\ta/1.jpg\t5\t-1", "has label -1 of 2 classes"),
        ("train\ta/1.jpg\t5\t2", "has label 2 of 2 classes"),
        ("train\t/etc/passwd\t5\t0", "line 4 is not a part"),
        ("train\t../elsewhere.jpg\t5\t0", "line 4 is not a part"),
        ("train\ta/../../elsewhere.jpg\t5\t0", "line 4 is not a part"),
        ("train\t\t5\t0", "line 4 is not a part"),
        ("train\ta\0b\t5\t0", "line 4 is not a part"),
        ("class\tc\t0\t7", "the class 'c' has label 7, expected 2"),
        ("test\ta/1.jpg\t5\t0", "it has no image of the part 'train'"),
    ],
)
def test_a_manifest_that_was_changed(tmp_path: Path, row: str, says: str) -> None:
    path = manifest(tmp_path / "m.tsv.gz", (3, row))
    refused(lambda: read_manifest(path, tmp_path, "train"), f"{path} is damaged (", says)


def test_a_manifest_that_is_whole_is_read(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.tsv.gz", (3, "train\ta../1..jpg\t5\t0"))
    assert read_manifest(path, tmp_path, "train").files == ("a../1..jpg",)


@pytest.mark.parametrize("flipped", range(0, 84, 3))
def test_a_manifest_with_flipped_bits(tmp_path: Path, flipped: int) -> None:
    path = manifest(tmp_path / "m.tsv.gz")
    whole = read_manifest(path, tmp_path, "train")
    content = bytearray(path.read_bytes())
    content[flipped] ^= 16
    path.write_bytes(content)
    try:
        assert read_manifest(path, tmp_path, "train") == whole  # what the header says of its file
    except UserError as refusal:
        assert str(refusal).startswith(f"{path} is damaged (") and str(refusal).isprintable()
    else:
        assert 4 <= flipped < 10


@pytest.mark.parametrize(
    "spoil",
    [
        garbage,
        no_bytes,
        lambda path: manifest(path, end=""),
        lambda path: manifest(path, (0, "part\tpath")),
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, spoil: Spoil) -> None:
    spoil(tmp_path / "m.tsv.gz")
    refused(lambda: read_manifest(tmp_path / "m.tsv.gz", tmp_path, "train"), "m.tsv.gz is damaged")


@pytest.mark.parametrize(("make", "says"), [(Path.mkdir, "a folder"), (os.mkfifo, "a device")])
def test_a_manifest_that_is_no_file(tmp_path: Path, make: Spoil, says: str) -> None:
    make(tmp_path / "m.tsv.gz")
    refused(lambda: read_manifest(tmp_path / "m.tsv.gz", tmp_path, "train"), f"m.tsv.gz is {says}")


# Data sets in a few files


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "is a device"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to("nowhere"), "is missing"),
    ],
)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("fashion_mnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
    ],
)
def test_a_data_set_whose_file_is_none(
    tmp_path: Path, name: str, file: str, make: Spoil, says: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    make(tmp_path / file)
    refused(lambda: datasets.load(name, tmp_path, train=True), f"{tmp_path / file} {says}")
    if name == "fashion_mnist":
        refused(lambda: list_files(name, tmp_path), f"{tmp_path / file} {says}")


def test_an_unchecked_file_of_older_fashion_mnist_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    sums = {}
    for name in datasets.FASHION_MNIST_FILES:
        rank = 3 if "images" in name else 1
        sizes = (2).to_bytes(4, "big") * rank
        (raw / name).write_bytes(bytes([0, 0, 8, rank]) + sizes + bytes(2**rank))
        sums[name] = hashlib.sha256((raw / name).read_bytes()).hexdigest()
    monkeypatch.setattr(datasets, "FASHION_MNIST_FILES", sums)
    (raw.parent / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        garbage(raw.parent / "processed" / name)
    assert datasets.fashion_mnist(tmp_path, train=True).images.shape == (2, 1, 2, 2)


def test_cifar10_is_unpickled_only_if_its_sums_are_right(tmp_path: Path) -> None:
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        (folder / name).write_bytes(pickle.dumps(Touch(str(tmp_path / "ran"))))
    refused(lambda: datasets.load("cifar10", tmp_path, True), "data_batch_1 is corrupted")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("index", [-1, 600, 2**40])
def test_images_that_are_not_there(tree: Path, index: int) -> None:
    whole = datasets.generated(tree, train=True)
    refused(lambda: whole.select(torch.tensor([3, index])), f"no image {index}", "has 600")
    how = Preprocessing((0.5,) * 3, (0.5,) * 3, 0, False, 32, smallest_area=0.5)
    folder = open_images(list_images("folder", tree, True), True, how)
    refused(lambda: folder.select(torch.tensor([0, index])), f"no image {index}", "has 2")
    assert len(whole.select(torch.tensor([], dtype=torch.int64))) == 0


# Weights


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def net() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", 10, 1, width=8)


def state(name: str = "conv1.weight", value: Callable[[torch.Tensor], Any] = torch.clone) -> Any:
    tensors = net().state_dict()
    changed = OrderedDict(tensors)
    changed[name] = value(tensors[name])
    return changed


def one_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return change


def double(tensor: torch.Tensor) -> torch.Tensor:
    return one_value(1e300)(tensor.double())


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("conv1.weight", one_value(float("nan")), "conv1.weight holds NaN"),
        ("fc.bias", one_value(float("inf")), "fc.bias holds infinite values"),
        ("fc.bias", one_value(-float("inf")), "fc.bias holds infinite values"),
        ("fc.bias", double, "fc.bias holds infinite values"),
        ("bn1.running_mean", one_value(float("nan")), "bn1.running_mean holds NaN"),
        ("bn1.running_var", one_value(-1e-3), "bn1.running_var holds negative variances"),
        ("conv1.weight", lambda t: t[:1].clone(), "does not fit resnet8: size mismatch for conv1"),
    ],
)
def test_values_that_no_network_has(
    tmp_path: Path, kind: str, name: str, change: Callable[[torch.Tensor], Any], says: str
) -> None:
    path = tmp_path / f"net.{kind}"
    (save_file if kind == "safetensors" else torch.save)(state(name, change), path)
    refused(lambda: load_pretrained(net(), "resnet8", str(path)), str(path), says)


def test_tensors_that_are_not_plain(tmp_path: Path) -> None:
    for make in (torch.Tensor.to_sparse, lambda t: t.to("meta")):
        torch.save(state("fc.weight", make), tmp_path / "net.pth")
        refused(
            lambda: load_pretrained(net(), "resnet8", str(tmp_path / "net.pth")), "fc.weight is no"
        )


def whole_module(path: Path) -> None:
    torch.save(net(), path)


def in_a_list(path: Path) -> None:
    torch.save([state(), Path("x")], path)


def that_runs(path: Path) -> None:
    torch.save(state("fc.bias", lambda _: Touch(str(path.with_name("ran")))), path)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": Touch(str(path.with_name("ran")))}))


def older_module(path: Path) -> None:
    torch.save(net(), path, _use_new_zipfile_serialization=False)


def script(path: Path) -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    torch.jit.trace(Half(), torch.zeros(1)).save(str(path))


@pytest.mark.parametrize(
    "make", [whole_module, in_a_list, that_runs, plain_pickle, older_module, script]
)
@pytest.mark.filterwarnings("ignore")
def test_weights_with_python_objects(
    tmp_path: Path, make: Spoil, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "net.pth")
    capfd.readouterr()
    refused(
        lambda: load_pretrained(net(), "resnet8", str(tmp_path / "net.pth")),
        "net.pth holds Python objects; save model.state_dict()",
    )
    assert not (tmp_path / "ran").exists()
    assert capfd.readouterr().err == ""


def flipped_value(path: Path) -> None:
    """One bit of a tensor: torch.load takes it, the archive's sum does not."""
    content = bytearray(path.read_bytes())
    content[content.index(net().get_parameter("conv1.weight").detach().numpy().tobytes())] ^= 1
    path.write_bytes(content)


def flipped_pickle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"conv1.weight")] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["pth", "safetensors", "older"])
@pytest.mark.parametrize("spoil", [garbage, no_bytes, cut_in_header])
def test_weights_that_are_no_file_of_weights(tmp_path: Path, kind: str, spoil: Spoil) -> None:
    path = tmp_path / f"net.{'pth' if kind == 'older' else kind}"
    if kind == "safetensors":
        save_file(state(), path)
    else:
        torch.save(state(), path, _use_new_zipfile_serialization=kind == "pth")
    spoil(path)
    refused(lambda: load_pretrained(net(), "resnet8", str(path)), f"{path} is not a whole file")


@pytest.mark.parametrize("spoil", [flipped_value, flipped_pickle])
def test_weights_with_flipped_bits(tmp_path: Path, spoil: Spoil) -> None:
    path = tmp_path / "net.pth"
    torch.save(state(), path)
    spoil(path)
    refused(lambda: load_pretrained(net(), "resnet8", str(path)), "has another check sum")


def test_older_files_of_weights_are_read(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    assert load_pretrained(net(), "resnet8", str(tmp_path / "net.pth"))["source"] == "net.pth"


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "is a device or a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device or a pipe"),
        (lambda path: path.symlink_to("nowhere"), "is missing"),
    ],
)
def test_weights_that_are_no_file(tmp_path: Path, ending: str, make: Spoil, says: str) -> None:
    make(tmp_path / f"net.{ending}")
    refused(
        lambda: load_pretrained(net(), "resnet8", str(tmp_path / f"net.{ending}")),
        f"net.{ending} {says}",
    )
