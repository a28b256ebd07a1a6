"""Whether all image files can be used, known before the first step of a training.

Random crops read a part of a file at a time, so a fault in it would show in whichever epoch meets
it. Here every file is decoded in full, once; what is found is kept, so that a run that goes on
looks at new and changed files alone.
"""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from tqdm import tqdm

from graphpruning.common.files import atomic
from graphpruning.common.machine import is_writer
from graphpruning.training.decoding import (
    MODES,
    check_shape,
    decode,
    quiet,
    refuse_unusable,
    unusable,
)
from graphpruning.training.folder import FolderSet
from graphpruning.training.listing import UNDECODABLE, open_regular

AT_ONCE = 256  # files, by as many threads as the machine has
KEEP_EVERY = 30  # seconds


def verify(images: FolderSet, resize: int | None, kept: Path) -> None:
    """Decode every file that `kept` does not say was whole; `UserError` names those that are not.

    `kept` has eight bytes for each whole file: a hash of its path, size and time of change. Of
    several processes (torchrun) the first looks, and the others wait for it.
    """
    names = [os.fsdecode(name) for name in images.files]
    keys = [
        _key(images.root / name, f"{PIL.__version__} {images.channels} {resize}") for name in names
    ]
    known = _known(kept)
    if not is_writer():
        while not known.issuperset(keys):
            time.sleep(1)
            known = _known(kept)
        return

    def fault(name: str) -> str | None:
        return _fault(images.root / name, MODES[images.channels], resize)

    new = [place for place, key in enumerate(keys) if key not in known]
    faults: list[str] = []
    last = time.monotonic()
    bar = tqdm(total=len(new), desc="checking", unit="image", disable=None, delay=2)
    with ThreadPoolExecutor() as pool, bar, quiet():
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            found = list(pool.map(fault, [names[place] for place in part]))
            faults += filter(None, found)
            known |= {keys[place] for place, one in zip(part, found, strict=True) if one is None}
            bar.update(len(part))
            if time.monotonic() > last + KEEP_EVERY:
                _keep(kept, known)
                last = time.monotonic()
    if new:
        _keep(kept, known)
    refuse_unusable(faults)


def _key(path: Path, how: str) -> int:
    """A hash of which file this is; of one that is not there, without size and time."""
    try:
        found = os.stat(path)
        state = f"{found.st_size} {found.st_mtime_ns}"
    except OSError:
        state = ""
    text = os.fsencode(f"{path.absolute()}\0{state}\0{how}")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _known(kept: Path) -> set[int]:
    """The hashes in the file, which is written whole; none if it is not there."""
    try:
        content = kept.read_bytes()
    except OSError:
        return set()
    return set(np.frombuffer(content[: len(content) // 8 * 8], dtype="<u8").tolist())


def _keep(kept: Path, known: set[int]) -> None:
    with atomic(kept) as beside:
        np.array(sorted(known), dtype="<u8").tofile(beside)


def _fault(path: Path, mode: str, resize: int | None) -> str | None:
    """Say what is wrong with a file, if anything is."""
    try:
        with open_regular(path) as file:
            content = file.read()
        image = decode(content, mode=mode)
        if resize is not None:
            check_shape(*image.size, resize)
    except UNDECODABLE as error:
        return unusable(path, error)
    return None
