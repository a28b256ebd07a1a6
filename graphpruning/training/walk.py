"""The files and folders below a folder that are images and classes; what else lies there is not."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from graphpruning.common.errors import UserError, one_line

EXTENSIONS = (  # torchvision's, and three that Pillow reads as well
    ".jpg",
    ".jpeg",
    ".png",
    ".ppm",
    ".bmp",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
    ".jfif",
    ".gif",
    ".avif",
)
LEFT_BY_SYSTEMS = {  # in lower case; also whatever begins with a dot (._1.jpg, .DS_Store)
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "lost+found",
    "system volume information",
    "thumbs.db",
    "desktop.ini",
}
KINDS = 4  # kinds of other files that a message counts one by one


def is_data(name: str) -> bool:
    """Say whether a file or folder is the user's, by its name: hidden ones are not."""
    return not name.startswith(".") and name.lower() not in LEFT_BY_SYSTEMS


def subfolders(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the folders in `folder`, as far as `is_data` lets them.

    Raises `UserError` if it is missing or cannot be read, and for a link to nothing in it, because
    that may be a class.
    """
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if is_data(entry.name)]
        for entry in shown:
            if entry.is_symlink():
                os.stat(entry)
        return tuple(sorted(entry.name for entry in shown if entry.is_dir()))
    except OSError as error:
        if error.filename == str(folder) and isinstance(
            error, FileNotFoundError | NotADirectoryError
        ):
            raise UserError(
                one_line(f"{folder} is missing: it should hold one folder of images for each class")
            ) from None
        raise _unreadable(error, folder) from None


def _unreadable(error: OSError, place: str | Path) -> UserError:
    """The refusal of a folder, or of a link in it, that cannot be looked at."""
    path = os.fsdecode(error.filename) if error.filename else place
    if isinstance(error, FileNotFoundError) and os.path.islink(path):
        return UserError(one_line(f"{path} is a link to nothing: mend or remove it"))
    return UserError(
        one_line(f"{path} cannot be read ({error.strerror}): see to whom it belongs, or move it")
    )


def images_in(folder: Path) -> tuple[list[str], list[str]]:
    """Return the paths of the images under `folder`, in `ImageFolder`'s order, and of other files.

    Links are followed. Raises `UserError` for a folder that cannot be read, and for links that lead
    in a circle.
    """

    def stop(error: OSError) -> None:
        raise error

    found = []
    try:
        if not folder.is_dir():
            return [], []
        for place, folders, names in os.walk(folder, onerror=stop, followlinks=True):
            folders[:] = filter(is_data, folders)  # `os.walk` goes into what is left in the list
            for inner in (os.path.join(place, name) for name in folders):
                above = (place, *map(str, Path(place).parents))
                if os.path.islink(inner) and any(os.path.samefile(inner, p) for p in above):
                    raise UserError(
                        one_line(f"{inner} is a link to a folder that it is in: remove it")
                    )
            found.append((place, sorted(filter(is_data, names))))
    except OSError as error:
        raise _unreadable(error, folder) from None
    images: list[str] = []
    others: list[str] = []
    for place, names in sorted(found):
        for name in names:
            kind = images if name.lower().endswith(EXTENSIONS) else others
            kind.append(os.path.join(place, name))
    return images, others


def images_directly_in(folder: Path) -> list[str]:
    """Return the sorted names of images that lie in `folder` itself, not in a folder inside."""
    try:
        with os.scandir(folder) as entries:
            files = [entry.name for entry in entries if is_data(entry.name) and entry.is_file()]
    except OSError as error:
        raise _unreadable(error, folder) from None
    return sorted(name for name in files if name.lower().endswith(EXTENSIONS))


def kinds(files: Iterable[str]) -> str:
    """Count files by what their names end in: ".heic 12, .txt 1"."""
    endings = Counter(os.path.splitext(file)[1].lower() or "no ending" for file in files)
    counts = [f"{ending} {count}" for ending, count in endings.most_common(KINDS)]
    more = ["others"] if len(endings) > KINDS else []
    return one_line(", ".join(counts + more))
