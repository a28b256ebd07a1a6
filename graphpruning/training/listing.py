"""Which image files a data set has, with sizes and labels: listed once, kept as a manifest."""

import gzip
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from graphpruning.errors import UserError
from graphpruning.files import atomic
from graphpruning.training.data import FASHION_MNIST_FILES

WNIDS = Path(__file__).with_name("imagenet_wnids.txt")  # of the 1,000 classes, in index order
CIFAR10_FILES = ("batches.meta", *(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
FILES = {  # of data sets whose images do not stand in a file each
    "fashion_mnist": tuple(f"FashionMNIST/raw/{name}" for name in FASHION_MNIST_FILES),
    "cifar10": tuple(f"cifar-10-batches-py/{name}" for name in CIFAR10_FILES),
}
HEADER = "part\tpath\tbytes\tlabel"
NAMED = 10  # faults that a refusal names; it counts the others


@dataclass(frozen=True)
class Listing:
    """Files under `root`: paths relative to it, bytes and labels, and the classes' names."""

    root: Path
    files: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]


def list_images(name: str, root: Path, train: bool) -> Listing:
    """List the training or test images of an image-folder data set, as its name says.

    - `folder`: root/train, and root/val or, if that is missing, root/test; each class is a
      folder (hidden ones, such as .cache, are not).
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
        raise UserError(f"{root / part / unknown[0]} is not a class of this data set: move it away")
    listing = list_folder(root, part, classes)
    wanted = classes if all_of_them else found
    held = {classes[label] for label in set(listing.labels)}
    if lacking := [name for name in wanted if name not in held]:
        raise UserError(f"{root / part / lacking[0]} has no image: fill it")
    if not held:
        raise UserError(f"{root / part} has no class: each is a folder of images")
    return listing


def list_files(name: str, root: Path) -> Listing:
    """List the files of a data set that is no image folder (generated images have none).

    A file holds images of many classes: its label is -1. One that is missing is left out.
    """
    files = tuple(file for file in FILES.get(name, ()) if (root / file).is_file())
    sizes = tuple((root / file).stat().st_size for file in files)
    return Listing(root, files, sizes, (-1,) * len(files), ())


def imagenet_classes(root: Path | None) -> tuple[str, ...]:
    """Return ImageNet's wnids in index order: those of `root`/meta.bin if it is there."""
    from torchvision.datasets.imagenet import META_FILE, load_meta_file

    if root is not None and (root / META_FILE).is_file():
        return tuple(sorted(load_meta_file(root)[0]))
    return tuple(WNIDS.read_text(encoding="utf-8").split())


def subfolders(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the folders in `folder` but for hidden ones; `UserError` if it is
    missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: it should hold one folder of images for each class")
    return tuple(sorted(path.name for path in folder.glob("[!.]*") if path.is_dir()))


def list_folder(root: Path, part: str, classes: tuple[str, ...]) -> Listing:
    """List the images of those classes that have a folder in root/part, as `ImageFolder` does."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    numbers = {name: number for number, name in enumerate(classes)}
    images = (
        make_dataset(str(root / part), numbers, IMG_EXTENSIONS, allow_empty=True) if numbers else []
    )
    paths = [Path(path) for path, _ in images]
    return Listing(
        root,
        tuple(path.relative_to(root).as_posix() for path in paths),
        tuple(path.stat().st_size for path in paths),
        tuple(label for _, label in images),
        classes,
    )


def write_manifest(path: Path, parts: Mapping[str, Listing]) -> dict[str, Any]:
    """Write listings as gzipped tab-separated text; return files, bytes, and the text's SHA-256.

    The same files give the same bytes. Classes come first, as rows of the part `class`.
    """
    classes = next(iter(parts.values())).classes if parts else ()
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
    """Read one part of a manifest back; `root` is where its files are now."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the stage prepare makes it (dvc repro)") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it, then dvc repro") from None
    rows = [line.split("\t") for line in text.split("\n")[1:-1]]
    mine = [row[1:] for row in rows if row[0] == part]
    return Listing(
        root,
        tuple(path for path, _, _ in mine),
        tuple(int(size) for _, size, _ in mine),
        tuple(int(label) for _, _, label in mine),
        tuple(name for kind, name, _, _ in rows if kind == "class"),
    )


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

    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if not size:
            return "is empty"
        file.seek(max(0, size - 2))
        if file.read() == b"\xff\xd9":  # JPEG's end marker
            return None
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return f"cannot be decoded ({error})"
    return None


def refuse(faults: list[str], where: Path, advice: str) -> None:
    """Raise a `UserError` that names the first `NAMED` faults, if there are any."""
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise UserError(f"{where}: {'; '.join(faults[:NAMED])}{more}: {advice}")
