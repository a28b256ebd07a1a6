"""ImageNet 2012 from its official archives, or from a tree that is there: unpacked and checked.

The result is the tree that torchvision's `ImageNet` reads: train/WNID, val/WNID, meta.bin. The
archives' names and sums are torchvision's, but not its unpacking, which takes hours on one core,
starts from the beginning after an interruption, and trusts the paths in an archive.
"""

import hashlib
import lzma
import os
import re
import shutil
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from tarfile import TarFile, TarInfo
from typing import IO

import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.datasets.imagenet import ARCHIVE_META, META_FILE
from tqdm import tqdm

from graphpruning.common.errors import UserError, reason
from graphpruning.common.files import alone, atomic, read_text, unwritable
from graphpruning.training.listing import (
    Listing,
    damaged,
    each,
    imagenet_classes,
    is_there,
    list_folder,
    read_meta,
    refuse,
)
from graphpruning.training.walk import subfolders

SUMS = "MD5SUMS"
MAKER = "who publishes the archive"
LARGEST = 2**26  # bytes of a file in the devkit that are read; the official ones have 2 MB
DAMAGED = (  # what tarfile, and what it unpacks with, raise for what is no whole archive
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
NOT_MATLAB = (  # what loadmat raises
    *DAMAGED,
    TypeError,
    AttributeError,
    NameError,
    AssertionError,
    RuntimeError,
    MatReadError,
)
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
        if _packed(root, part, classes):
            with alone(root / ".unpacking.lock", f"unpacking into {root}"):
                if wanted := _packed(root, part, classes):  # another may have been here
                    _unpack(root, part, wanted)
    return _check(root, classes, devkit)


def _read_devkit(root: Path) -> Devkit | None:
    """Read the archive if it is there, and leave torchvision's meta.bin for those who read it."""
    path = root / ARCHIVE_META["devkit"][0]
    if not is_there(path, MAKER):
        return None
    _verify(path)
    wanted: dict[str, bytes | None] = {
        "meta.mat": None,
        "ILSVRC2012_validation_ground_truth.txt": None,
    }
    try:
        with tarfile.open(path) as archive:
            for member in _members(archive):
                if (name := Path(member.name).name) in wanted and member.isfile():
                    wanted[name] = _content(archive, member)
    except DAMAGED as error:
        raise _no_archive(path, error) from None
    matrix, truth = wanted.values()
    if matrix is None or truth is None:
        lacking = next(name for name, content in wanted.items() if content is None)
        raise UserError(f"{path} does not hold {lacking}: get the archive again")
    try:
        devkit = _parse_devkit(matrix, truth)
    except ValueError as error:
        raise _no_archive(path, error) from None
    if not _knows(root / META_FILE, devkit):
        meta = BytesIO()  # torch.save itself makes a RuntimeError of a full disk
        torch.save((devkit.names, devkit.validation), meta)
        with atomic(root / META_FILE) as beside:
            beside.write_bytes(meta.getvalue())
    return devkit


def _knows(path: Path, devkit: Devkit) -> bool:
    """Whether a meta.bin says this already: the folder may be one that nobody can write to."""
    try:
        return is_there(path, MAKER) and read_meta(path) == (devkit.names, devkit.validation)
    except UserError:  # damaged
        return False


def _content(archive: TarFile, member: TarInfo) -> bytes:
    """Return what a file in the archive holds; ValueError if that is too much."""
    if member.size > LARGEST:
        raise ValueError(f"{member.name} has {member.size:,} bytes")
    with _open_member(archive, member) as file:
        return file.read()


def _open_member(archive: TarFile, member: TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"{member.name} is no file")
    return file


def _parse_devkit(matrix: bytes, truth: bytes) -> Devkit:
    """Make sense of meta.mat and of the ground truth; ValueError for what makes none."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        try:  # in a process of its own: damaged content has ended SciPy's by a segmentation fault
            rows = pool.submit(_leaves, matrix).result()
        except BrokenProcessPool:
            rows = "SciPy cannot read it"
    if isinstance(rows, str):
        raise ValueError(f"meta.mat is not the table of classes: {rows}")
    numbers, wnids, images, words = zip(*rows, strict=True) if rows else ((), (), (), ())
    if odd := [wnid for wnid in wnids if not re.fullmatch(r"n[0-9]{8}", wnid)]:
        raise ValueError(f"meta.mat has the class {odd[0][:40]!r}, which is no wnid")
    by_number = dict(zip(numbers, wnids, strict=True))
    if not rows or not len(wnids) == len(set(wnids)) == len(by_number):
        raise ValueError("meta.mat has no class, or one of them twice")
    validation = []
    for place, word in enumerate(truth.split(), start=1):
        if not (word.isdigit() and len(word) < 10 and int(word) in by_number):
            raise ValueError(
                f"image {place} of the ground truth has the class {word[:40].decode('latin-1')!r}, "
                "which is not one of meta.mat"
            )
        validation.append(by_number[int(word)])
    return Devkit(
        dict(zip(wnids, words, strict=True)), dict(zip(wnids, images, strict=True)), validation
    )


def _leaves(matrix: bytes) -> list[tuple[int, str, int, tuple[str, ...]]] | str:
    """Return each class's number, wnid, training images and names, or why meta.mat has none."""
    try:
        synsets = loadmat(BytesIO(matrix), squeeze_me=True)["synsets"]  # type: ignore[arg-type]
        return [
            (
                int(synset["ILSVRC2012_ID"]),
                str(synset["WNID"]),
                int(synset["num_train_images"]),
                tuple(str(synset["words"]).split(", ")),
            )
            for synset in synsets.reshape(-1)
            if int(synset["num_children"]) == 0
        ]
    except NOT_MATLAB as error:
        return reason(error)


def _members(archive: TarFile) -> list[TarInfo]:
    """Return the members; raise one of `DAMAGED` for an archive that is cut, or leads elsewhere.

    tarfile takes a damaged header for the end, makes an absolute name relative, and goes back, and
    on for ever, after a negative size.
    """
    members: list[TarInfo] = []
    while (member := archive.next()) is not None:
        if member.size < 0 or (members and member.offset <= members[-1].offset):
            raise ValueError(f"the header at byte {member.offset} is damaged")
        members.append(member)
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"it is cut, or damaged, at byte {archive.offset}")
    for member in members:
        _require_inside(archive, member)
    return members


def _require_inside(archive: TarFile, member: TarInfo) -> None:
    """Raise ValueError for a member that leads out of the archive, or is no file and no folder."""
    linked = member.linkname if member.islnk() or member.issym() else ""
    if member.name.startswith("/") or linked.startswith("/"):
        raise ValueError(f"{member.name!r} has an absolute path")
    if ".." in member.name.split("/"):
        raise ValueError(f"{member.name!r} leads out of the folder")
    if linked:
        try:
            archive.extractfile(member)
        except (KeyError, RecursionError):
            raise ValueError(
                f"{member.name!r} is a link to {linked!r}, which is no file of the archive"
            ) from None
    elif not (member.isfile() or member.isdir()):
        raise ValueError(f"{member.name!r} is a device, a pipe, or of an unknown kind")


def _no_archive(path: Path, error: BaseException) -> UserError:
    return UserError(f"{path} cannot be used ({_fault(error)}): get the archive again")


def _fault(error: BaseException) -> str:
    """Say what is wrong with an archive; tarfile lists the formats in which one could have been."""
    listed = str(error).startswith("file could not be opened successfully")
    return "it is no whole tar archive" if listed else reason(error)


def _verify(path: Path) -> None:
    """Compare an archive's MD5 sum with MD5SUMS beside it, if that is there, or the official."""
    sums = {name: md5 for name, md5 in ARCHIVE_META.values()}
    where = path.with_name(SUMS)
    command = f"`md5sum *.tar* > {SUMS}`"
    if is_there(where, command):
        sums = {}
        for number, line in enumerate(read_text(where, command).split("\n"), start=1):
            if found := re.fullmatch(r"([0-9a-fA-F]{32})\s+\**(\S.*)", line.strip()):
                sums[found[2]] = found[1].lower()
            elif line.strip():
                raise UserError(
                    f"{where}, line {number} is not a sum and a name: {command} makes it anew"
                )
        print(f"{path.name}: its sum is compared with {where}, not with the official one")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        size = path.stat().st_size
        bar = tqdm(total=size, desc=f"MD5 of {path.name}", unit="B", unit_scale=True, disable=None)
        with open(path, "rb") as file, bar:
            while block := file.read(2**22):
                digest.update(block)
                bar.update(len(block))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)})") from None
    if digest.hexdigest() != (expected := sums.get(path.name)):
        raise UserError(
            f"{path} has MD5 {digest.hexdigest()}, expected {expected}: get it again; if it is "
            f"meant to differ from the official archive, say so by `md5sum *.tar* > {SUMS}`"
        )


def _packed(root: Path, part: str, classes: tuple[str, ...]) -> list[str]:
    """The classes of `part` that have no folder yet, where there is an archive to unpack."""
    folder, path = root / part, root / ARCHIVE_META[part][0]
    wanted = [wnid for wnid in classes if not os.path.isdir(folder / wnid)]
    if wanted and not is_there(path, MAKER):
        if os.path.isdir(folder):
            return []  # a tree that somebody else made: the check names what it lacks
        raise UserError(f"{root} has neither {path.name} nor {part}/ with a folder for each class")
    return wanted


def _unpack(root: Path, part: str, wanted: list[str]) -> None:
    """Unpack these classes of `part`; each folder is made whole."""
    folder, path = root / part, root / ARCHIVE_META[part][0]
    _verify(path)
    try:
        with tarfile.open(path) as archive:
            members = sorted((m for m in _members(archive) if m.isfile()), key=lambda m: m.name)
    except DAMAGED as error:
        raise _no_archive(path, error) from None
    inside: dict[str, list[TarInfo]] = {}
    if part == "train":
        for member in members:  # an archive for each class
            inside[Path(member.name).stem] = [member]
    else:
        if not is_there(root / META_FILE, MAKER):
            raise UserError(
                f"{root} lacks {ARCHIVE_META['devkit'][0]}, which has the classes of {path.name}"
            )
        validation = read_meta(root / META_FILE)[1]
        if len(members) != len(validation):
            raise UserError(
                f"{path} holds {len(members)} images, the devkit names {len(validation)}: "
                "get both again"
            )
        for member, wnid in zip(members, validation, strict=True):
            inside.setdefault(wnid, []).append(member)
    for left in folder.glob(".unpacking-*"):  # by a run that was interrupted
        _remove(left)
    todo = [wnid for wnid in wanted if wnid in inside]
    each(todo, lambda wnid: _unpack_class(path, inside[wnid], folder / wnid), f"unpacking {part}")


def _unpack_class(path: Path, members: list[TarInfo], target: Path) -> None:
    """Unpack one class: the images in `members`, or in the one archive that `members` is.

    Raises `UserError`, with nothing left of the class, if that cannot be done.
    """
    beside = target.with_name(f".unpacking-{target.name}")
    try:
        beside.mkdir(parents=True)
        with tarfile.open(path) as archive:
            if members[0].name.endswith(".tar"):
                inner = _open_member(archive, members[0])
                with tarfile.open(fileobj=inner) as images:
                    for member in _members(images):
                        _write_member(images, member, beside)
            else:
                for member in members:
                    _write_member(archive, member, beside)
        os.rename(beside, target)
    except DAMAGED as error:
        _remove(beside)
        if isinstance(error, OSError):
            refusal = unwritable(error, target)
            if isinstance(refusal, UserError):
                raise refusal from None
        raise UserError(
            f"{path}: the images of {target.name} cannot be unpacked ({_fault(error)}): "
            "get the archive again"
        ) from None


def _write_member(archive: TarFile, member: TarInfo, folder: Path) -> None:
    """Write one member; a copy for a link, so that no link leads a later member elsewhere."""
    if member.isfile() or member.isdir():
        archive.extract(member, folder, filter="data")
        return
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with _open_member(archive, member) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file)


def _remove(path: Path) -> None:
    """Remove what an interrupted run left; `UserError` if the system does not let us."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be removed ({reason(error)}): remove it, and start again"
        ) from None


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
    for entry in _names(root / part):
        if entry not in known and not entry.startswith("."):
            faults.append(f"{part}/{entry} is not a class")

    def in_class(wnid: str) -> list[str]:
        strays = []
        for name in _names(root / part / wnid):
            if not name.lower().endswith(IMG_EXTENSIONS):
                strays.append(f"{part}/{wnid}/{name} is not an image")
            elif (other := name.partition("_")[0]) in known - {wnid}:
                strays.append(f"{part}/{wnid}/{name} belongs to {other}")
        return strays

    there = [wnid for wnid in classes if wnid in found]
    return faults + [
        stray for strays in each(there, in_class, f"listing {part}") for stray in strays
    ]


def _names(folder: Path) -> list[str]:
    """Return the sorted names of what is in a folder; `UserError` if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({reason(error)})") from None
