"""Which image files a data set has, with sizes and labels: listed once, kept as a manifest."""

import gzip
import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL.Image import DecompressionBombError
from tqdm import tqdm

from graphpruning.common.errors import UserError, one_line, reason
from graphpruning.common.files import LARGEST_TEXT, atomic, require_file
from graphpruning.common.machine import on_several_machines
from graphpruning.training.pretrained import UNREADABLE, read_saved, said
from graphpruning.training.walk import (
    EXTENSIONS,
    images_directly_in,
    images_in,
    kinds,
    subfolders,
)

META_MAKER = "the devkit archive (or torchvision)"
WNIDS = Path(__file__).with_name("imagenet_wnids.txt")  # of the 1,000 classes, in index order
FASHION_MNIST_FILES = {  # name: SHA-256 of the uncompressed file
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CIFAR10_FILES = ("batches.meta", *(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
FILES = {  # of data sets whose images do not stand in a file each
    "fashion_mnist": tuple(f"FashionMNIST/raw/{name}" for name in FASHION_MNIST_FILES),
    "cifar10": tuple(f"cifar-10-batches-py/{name}" for name in CIFAR10_FILES),
}
HEADER = "part\tpath\tbytes\tlabel"
NAMED = 10  # faults that a refusal names; it counts the others
DIGITS = 15  # of the largest number that a manifest may hold
UNDECODABLE = (  # what Pillow raises for content that is no whole image
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    DecompressionBombError,
)


@dataclass(frozen=True)
class Listing:
    """Files under `root`: paths relative to it, bytes and labels, and the classes' names.

    `others` are paths of files that are there too, but are no images that can be read; `outside`
    are images beside the folders of the classes.
    """

    root: Path
    files: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    others: tuple[str, ...] = field(default=(), compare=False, repr=False)
    outside: tuple[str, ...] = field(default=(), compare=False, repr=False)


def list_images(name: str, root: Path, train: bool) -> Listing:
    """List the training or test images of an image-folder data set, as its name says.

    - `folder`: root/train, and root/val or, if that is missing, root/test; each class is a
      folder (hidden ones, such as .cache, and __MACOSX are not).
    - `imagenet`: root/train and root/val, class folders named by wnid.
    - `imagenet_subset`: root has folders of some of ImageNet's classes; the same images are
      training and test images, for studies in which nothing is trained.

    Raises `UserError` for a folder that is missing, empty or named unlike a class.
    """
    if name == "imagenet_subset":
        return _list_classes(root, "", imagenet_classes(None), all_of_them=False)
    if name == "imagenet":
        return _list_classes(root, "train" if train else "val", imagenet_classes(root))
    classes = subfolders(root / "train")
    if train:
        return _list_classes(root, "train", classes)
    only_test = (root / "test").is_dir() and not (root / "val").is_dir()
    return _list_classes(root, "test" if only_test else "val", classes)


def _list_classes(
    root: Path, part: str, classes: tuple[str, ...], all_of_them: bool = True
) -> Listing:
    found = subfolders(root / part)
    if unknown := sorted(set(found) - set(classes)):
        raise UserError(
            one_line(f"{root / part / unknown[0]} is not a class of this data set: move it away")
        )
    listing = list_folder(root, part, classes)
    wanted = classes if all_of_them else found
    held = {classes[label] for label in set(listing.labels)}
    if lacking := [name for name in wanted if name not in held]:
        raise _lacking(root / part / lacking[0], listing)
    if not held:
        raise UserError(f"{root / part} has no class: each is a folder of images")
    return listing


def _lacking(place: Path, listing: Listing) -> UserError:
    """The refusal of a class without images."""
    inside = f"{place.relative_to(listing.root).as_posix()}/"
    others = [file for file in listing.others if file.startswith(inside)]
    if not others:
        return UserError(one_line(f"{place} has no image: fill it"))
    return UserError(
        one_line(f"{place} has no image that is read ({kinds(others)}): convert its files to one ")
        + f"of {' '.join(EXTENSIONS)}, or move the folder away if it is no class"
    )


def times_of_change(root: Path, files: Iterable[str]) -> list[int]:
    """When each file was changed last, in nanoseconds: another image may have as many bytes.

    Empty for processes on several machines, whose copies of the images may differ in time.
    """
    if on_several_machines():
        return []
    try:
        return [(root / file).stat().st_mtime_ns for file in files]
    except OSError as error:
        raise UserError(one_line(f"{root} cannot be read ({reason(error)})")) from None


def list_files(name: str, root: Path) -> Listing:
    """List the files of a data set that is no image folder (generated images have none).

    A file holds images of many classes: its label is -1. One that is missing is left out; a
    folder or a device in the place of one is a `UserError`.
    """
    maker = "who published the data set"
    files = tuple(file for file in FILES.get(name, ()) if is_there(root / file, maker))
    sizes = tuple((root / file).stat().st_size for file in files)
    return Listing(root, files, sizes, (-1,) * len(files), ())


def imagenet_classes(root: Path | None) -> tuple[str, ...]:
    """Return ImageNet's wnids in index order: those of `root`/meta.bin if it is there.

    Raises `UserError` for a meta.bin that is damaged.
    """
    from torchvision.datasets.imagenet import META_FILE

    if root is not None and is_there(root / META_FILE, META_MAKER):
        return tuple(sorted(read_meta(root / META_FILE)[0]))
    return tuple(WNIDS.read_text(encoding="utf-8").split())


def read_meta(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read torchvision's meta.bin: the names of each wnid, and the validation images' wnids.

    torchvision's own reader looks neither at the check sums nor at what it has read. Raises
    `UserError` for a file that is missing, damaged, or holds anything else.
    """
    require_file(path, META_MAKER)
    try:
        names, validation = read_saved(path)
        if not (isinstance(names, dict) and isinstance(validation, list) and names):
            raise ValueError("it does not hold names and validation images")
        if odd := [name for name in names if not _is_folder_name(name)]:
            raise ValueError(f"{odd[0]!r} is no name of a class")
        if not all(isinstance(name, str) and name in names for name in validation):
            raise ValueError("a validation image has an unknown class")
    except UNREADABLE as error:
        raise UserError(
            f"{path} is damaged ({said(error)}): remove it; {META_MAKER} makes it anew"
        ) from None
    return names, validation


def _is_folder_name(name: object) -> bool:
    """Say whether a class may be called so: its folder is made under exactly that name."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and "/" not in name
        and name[:1] not in ("", ".")
    )


def is_there(path: Path, made_by: str) -> bool:
    """Say whether a file is there; `UserError` for a folder, a device, or a link to nothing."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(one_line(f"{path} cannot be read ({error.strerror})")) from None
    require_file(path, made_by)
    return True


def list_folder(root: Path, part: str, classes: tuple[str, ...]) -> Listing:
    """List the images of those classes that have a folder in root/part, as `ImageFolder` does.

    Raises `UserError` for a folder that cannot be read, links that lead in a circle or to nothing,
    and images that are no regular file.
    """
    files, sizes, labels, others, faults = [], [], [], [], []
    for label, name in sorted(enumerate(classes), key=lambda numbered: numbered[1]):
        images, rest = images_in(root / part / name)
        for path in rest:
            others.append(Path(path).relative_to(root).as_posix())
            if os.path.islink(path) and not os.path.exists(path):
                faults.append(f"{others[-1]} is a link to nothing")
        for path in images:
            file = Path(path).relative_to(root).as_posix()
            try:
                found = os.stat(path)
            except OSError as error:
                lost = isinstance(error, FileNotFoundError)
                why = "is a link to nothing" if lost else f"cannot be read ({error.strerror})"
                faults.append(f"{file} {why}")
                continue
            if not stat.S_ISREG(found.st_mode):
                faults.append(f"{file} is a device or a pipe")
            files.append(file)
            sizes.append(found.st_size)
            labels.append(label)
    refuse(faults, root, "mend or remove these files")
    outside = tuple((Path(part) / name).as_posix() for name in images_directly_in(root / part))
    return Listing(root, tuple(files), tuple(sizes), tuple(labels), classes, tuple(others), outside)


def write_manifest(path: Path, parts: Mapping[str, Listing]) -> dict[str, Any]:
    """Write listings as gzipped tab-separated text; return files, bytes, and the text's SHA-256.

    The same files give the same bytes. Classes come first, as rows of the part `class`. Raises
    `UserError` for a name with a tab or a line feed.
    """
    classes = next(iter(parts.values())).classes if parts else ()
    if odd := [name for name in classes if set(name) & set("\t\r\n")]:
        raise UserError(f"the class {odd[0]!r}: rename its folder without tab and line feed")
    rows = [HEADER, *(f"class\t{name}\t0\t{label}" for label, name in enumerate(classes))]
    count = size = 0
    for part, listing in parts.items():
        for row in zip(listing.files, listing.sizes, listing.labels, strict=True):
            if set(row[0]) & set("\t\r\n"):
                raise UserError(f"{listing.root}: {row[0]!r}: rename it without tab and line feed")
            rows.append("\t".join((part, *map(str, row))))
        count, size = count + len(listing.files), size + sum(listing.sizes)
    text = ("\n".join(rows) + "\n").encode("utf-8", "surrogateescape")
    with atomic(path) as beside:
        beside.write_bytes(gzip.compress(text, mtime=0))
    return {"files": count, "bytes": size, "sha256": hashlib.sha256(text).hexdigest()}


def read_manifest(path: Path, root: Path, part: str) -> Listing:
    """Read one part of a manifest back; `root` is where its files are now.

    Raises `UserError`, with the line, for a manifest that is damaged or that leads out of `root`.
    """
    require_file(path, "the stage prepare")
    classes: list[str] = []
    mine: list[tuple[str, int, int]] = []
    try:
        for row in _rows(path):
            kind, name, size, label = row
            if kind != "class":
                if not (0 <= label < len(classes) if classes else label == -1):
                    raise ValueError(f"{name!r} has label {label} of {len(classes)} classes")
                if kind == part:
                    mine.append((name, size, label))
            elif label == len(classes):
                classes.append(name)
            else:
                raise ValueError(f"the class {name!r} has label {label}, expected {len(classes)}")
        if classes and not mine:
            raise ValueError(f"it has no image of the part {part!r}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({reason(error)}): remove it, then dvc repro") from None
    files, sizes, labels = zip(*mine, strict=True) if mine else ((), (), ())
    return Listing(root, files, sizes, labels, tuple(classes))


def _rows(path: Path) -> Iterator[tuple[str, str, int, int]]:
    """Yield a manifest's rows: part, path, bytes, label; ValueError for one that cannot be."""
    with gzip.open(path) as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"it unpacks to more than {LARGEST_TEXT:,} bytes")
    header, *lines = content.decode("utf-8", "surrogateescape").split("\n")
    if header != HEADER or not lines or lines.pop():
        raise ValueError("it lacks its first line, or the end of its last")
    for number, line in enumerate(lines, start=2):
        match line.split("\t"):
            case [part, name, size, label] if (
                _is_number(size) and (_is_number(label) or label == "-1") and _stays_inside(name)
            ):
                yield part, name, int(size), int(label)
            case _:
                raise ValueError(f"line {number} is not a part, a path, bytes and a label")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= DIGITS


def _stays_inside(name: str) -> bool:
    """Say whether a relative path leads to a place under the folder that it begins in."""
    return not (name[:1] in ("", "/") or "\0" in name or (".." in name and ".." in name.split("/")))


def damaged(listing: Listing, title: str) -> list[str]:
    """Return what is wrong with files that are empty, or end before their image does."""
    faults = each(listing.files, lambda name: _damage(listing.root / name), title)
    return [f"{name} {fault}" for name, fault in zip(listing.files, faults, strict=True) if fault]


def each(items: "tuple[str, ...] | list[str]", work: Callable[[str], Any], title: str) -> list[Any]:
    """Return `work(item)` for every item, in order: in threads, because it waits for the disk."""
    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(work, items), title, len(items), disable=None, delay=2))


def _damage(path: Path) -> str | None:
    """Say what is wrong with a file: by its last bytes, and only if those are odd by decoding."""
    from PIL import Image

    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            if not size:
                return "is empty"
            file.seek(max(0, size - 2))
            if file.read() == b"\xff\xd9":  # JPEG's end marker
                return None
    except OSError as error:
        return f"cannot be read ({reason(error)})"
    try:
        with Image.open(path) as image:
            image.load()
    except UNDECODABLE as error:
        return f"cannot be decoded ({reason(error)})"
    return None


@contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading; OSError for whatever else is there, without waiting."""
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no regular file")
        yield file


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe is opened whether or not somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def refuse(faults: list[str], where: Path, advice: str) -> None:
    """Raise a `UserError` that names the first `NAMED` faults, if there are any."""
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise UserError(one_line(f"{where}: {'; '.join(faults[:NAMED])}{more}: {advice}"))
