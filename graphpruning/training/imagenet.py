"""ImageNet 2012 from its official archives, or from a tree that is there: unpacked and checked.

The result is the tree that torchvision's `ImageNet` reads: train/WNID, val/WNID, meta.bin. The
archives' names and sums are torchvision's, but not its unpacking, which takes hours on one core,
starts from the beginning after an interruption, and trusts the paths in an archive.
"""

import hashlib
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, cast

import torch
from scipy.io import loadmat
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.datasets.imagenet import ARCHIVE_META, META_FILE, load_meta_file
from tqdm import tqdm

from graphpruning.errors import UserError
from graphpruning.files import atomic
from graphpruning.training.listing import (
    Listing,
    damaged,
    each,
    imagenet_classes,
    list_folder,
    refuse,
    subfolders,
)

SUMS = "MD5SUMS"
TRAINING_IMAGES = 1_281_167  # of the 1,000 classes
VALIDATION_IMAGES = 50  # of each class


@dataclass(frozen=True)
class Devkit:
    """What ILSVRC2012_devkit_t12.tar.gz says.

    `names`: the words for each wnid; `training_images` of each wnid; the validation images' wnids,
    in the order of the images' names.
    """

    names: dict[str, tuple[str, ...]]
    training_images: dict[str, int]
    validation: list[str]


def prepare(root: Path) -> dict[str, Listing]:
    """Unpack what is not unpacked yet, check all of it, and list `train` and `test` images.

    An archive is used after its MD5 sum was compared with the official one. Other archives of the
    same format are accepted only with a file MD5SUMS beside them (`md5sum *.tar* > MD5SUMS`).
    An interrupted run goes on after the classes that it had finished.

    Raises `UserError` that names what is missing, miscounted, misplaced or truncated.
    """
    devkit = _read_devkit(root)
    classes = imagenet_classes(root)
    for part in ("train", "val"):
        _unpack(root, part, classes)
    return _check(root, classes, devkit)


def _read_devkit(root: Path) -> Devkit | None:
    """Read the archive if it is there, and leave torchvision's meta.bin for those who read it."""
    path = root / ARCHIVE_META["devkit"][0]
    if not path.is_file():
        return None
    _verify(path)
    with tarfile.open(path) as archive:
        names = {Path(name).name: name for name in archive.getnames()}
        try:
            matrix, truth = (
                cast(IO[bytes], archive.extractfile(names[name])).read()
                for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
            )
        except KeyError as error:
            raise UserError(
                f"{path} does not hold {error.args[0]}: get the archive again"
            ) from None
    synsets = loadmat(BytesIO(matrix), squeeze_me=True)["synsets"]  # type: ignore[arg-type]
    leaves = synsets[synsets["num_children"] == 0]
    wnids = [str(wnid) for wnid in leaves["WNID"]]
    by_number = dict(zip(leaves["ILSVRC2012_ID"].tolist(), wnids, strict=True))
    devkit = Devkit(
        {
            wnid: tuple(str(words).split(", "))
            for wnid, words in zip(wnids, leaves["words"], strict=True)
        },
        dict(zip(wnids, map(int, leaves["num_train_images"]), strict=True)),
        [by_number[int(number)] for number in truth.split()],
    )
    with atomic(root / META_FILE) as beside:
        torch.save((devkit.names, devkit.validation), beside)
    return devkit


def _verify(path: Path) -> None:
    """Compare an archive's MD5 sum with MD5SUMS beside it, if that is there, or the official."""
    sums = {name: md5 for name, md5 in ARCHIVE_META.values()}
    where = path.with_name(SUMS)
    if where.is_file():
        words = where.read_text(encoding="utf-8").split()
        sums = {name.lstrip("*"): md5 for md5, name in zip(words[::2], words[1::2], strict=False)}
        print(f"{path.name}: its sum is compared with {where}, not with the official one")
    digest = hashlib.md5(usedforsecurity=False)
    size = path.stat().st_size
    bar = tqdm(total=size, desc=f"MD5 of {path.name}", unit="B", unit_scale=True, disable=None)
    with open(path, "rb") as file, bar:
        while block := file.read(2**22):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() != (expected := sums.get(path.name)):
        raise UserError(
            f"{path} has MD5 {digest.hexdigest()}, expected {expected}: get it again; if it is "
            f"meant to differ from the official archive, say so by `md5sum *.tar* > {SUMS}`"
        )


def _unpack(root: Path, part: str, classes: tuple[str, ...]) -> None:
    """Unpack the classes of `part` that have no folder yet; each folder is made whole."""
    folder, path = root / part, root / ARCHIVE_META[part][0]
    wanted = [wnid for wnid in classes if not (folder / wnid).is_dir()]
    if not wanted:
        return
    if not path.is_file():
        if folder.is_dir():
            return  # a tree that somebody else made: the check names what it lacks
        raise UserError(f"{root} has neither {path.name} nor {part}/ with a folder for each class")
    _verify(path)
    with tarfile.open(path) as archive:
        members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
    inside: dict[str, list[tarfile.TarInfo]] = {}
    if part == "train":
        for member in members:  # an archive for each class
            inside[Path(member.name).stem] = [member]
    else:
        if not (root / META_FILE).is_file():
            raise UserError(
                f"{root} lacks {ARCHIVE_META['devkit'][0]}, which has the classes of {path.name}"
            )
        validation = load_meta_file(root)[1]
        if len(members) != len(validation):
            raise UserError(
                f"{path} holds {len(members)} images, the devkit names {len(validation)}: "
                "get both again"
            )
        for member, wnid in zip(members, validation, strict=True):
            inside.setdefault(wnid, []).append(member)
    for left in folder.glob(".unpacking-*"):  # by a run that was interrupted
        shutil.rmtree(left)
    todo = [wnid for wnid in wanted if wnid in inside]
    each(todo, lambda wnid: _unpack_class(path, inside[wnid], folder / wnid), f"unpacking {part}")


def _unpack_class(path: Path, members: list[tarfile.TarInfo], target: Path) -> None:
    """Unpack one class: the images in `members`, or in the one archive that `members` is."""
    beside = target.with_name(f".unpacking-{target.name}")
    try:
        with tarfile.open(path) as archive:
            if members[0].name.endswith(".tar"):
                with tarfile.open(fileobj=archive.extractfile(members[0])) as images:
                    images.extractall(beside, filter="data")
            else:
                archive.extractall(beside, members, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{path}: the images of {target.name} cannot be unpacked ({error}): "
            "make room, or get the archive again"
        ) from None
    os.rename(beside, target)


def _check(root: Path, classes: tuple[str, ...], devkit: Devkit | None) -> dict[str, Listing]:
    """List both parts; refuse by name whatever is not as the devkit, or ImageNet, has it."""
    listings = {"train": list_folder(root, "train", classes)}
    listings["test"] = list_folder(root, "val", classes)
    counts = {
        name: Counter(classes[label] for label in listing.labels)
        for name, listing in listings.items()
    }
    official = classes == imagenet_classes(None)
    faults = _misplaced(root, "train", classes) + _misplaced(root, "val", classes)
    expected: dict[str, Mapping[str, int]] = {"train": {}, "test": {}}
    if devkit is not None:
        expected = {"train": devkit.training_images, "test": Counter(devkit.validation)}
    elif official:
        expected["test"] = dict.fromkeys(classes, VALIDATION_IMAGES)
        if (found := counts["train"].total()) != TRAINING_IMAGES:
            faults.append(f"train: {found} images in all, not {TRAINING_IMAGES}")
    for name, part in (("train", "train"), ("test", "val")):
        for wnid in subfolders(root / part):
            found, wanted = counts[name][wnid], expected[name].get(wnid)
            if wnid in classes and (found != wanted if wanted else not found):
                faults.append(f"{part}/{wnid}: {found} images, not {wanted or 'any'}")
    for part, listing in listings.items():
        faults += damaged(listing, f"checking {part}")
    refuse(faults, root, "mend these files, or remove their folders and unpack again")
    return listings


def _misplaced(root: Path, part: str, classes: tuple[str, ...]) -> list[str]:
    """Name classes that are missing, and what stands where it does not belong."""
    known, found = set(classes), set(subfolders(root / part))
    faults = [f"{part}/{wnid} is missing" for wnid in classes if wnid not in found]
    for entry in sorted(os.listdir(root / part)):
        if entry not in known and not entry.startswith("."):
            faults.append(f"{part}/{entry} is not a class")

    def in_class(wnid: str) -> list[str]:
        strays = []
        for name in sorted(os.listdir(root / part / wnid)):
            if not name.lower().endswith(IMG_EXTENSIONS):
                strays.append(f"{part}/{wnid}/{name} is not an image")
            elif (other := name.partition("_")[0]) in known - {wnid}:
                strays.append(f"{part}/{wnid}/{name} belongs to {other}")
        return strays

    there = [wnid for wnid in classes if wnid in found]
    return faults + [
        stray for strays in each(there, in_class, f"listing {part}") for stray in strays
    ]
