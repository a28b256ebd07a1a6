"""One runner at a time, and no lock of DVC's that nobody holds.

DVC notes in `.dvc/tmp/rwlock` which process reads and writes what. A process that is killed leaves
its note, or half of one: DVC then refuses to start, or waits for another process that has its
number by now.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from graphpruning.common.errors import UserError
from graphpruning.common.files import alone, unwritable

FOLDER = Path(".dvc/tmp")
NOTES = FOLDER / "rwlock"
OURS = FOLDER / "repro.lock"


@contextmanager
def only_runner(clear: bool = True) -> Iterator[None]:
    """Hold this folder for `make repro`, inside the block; clear what killed processes left, but
    not while other machines work in it, whose processes cannot be seen from here.

    Raises `UserError` while another runner, or a DVC that works on the pipeline, is at it.
    """
    with alone(OURS, "`make repro` in this folder"):
        if clear:
            release_notes()
        yield


def release_notes() -> None:
    """Remove DVC's notes if no live DVC of this folder can have written them."""
    notes = _notes()
    if notes == {}:
        return
    if live := live_dvc(Path.cwd()):
        process, command = live[0]
        state = "is at work in this folder" if notes else "may have written what cannot be read"
        raise UserError(
            f"{NOTES}: DVC {state}, as process {process} ({command}): wait for it, or end it"
        )
    try:
        NOTES.unlink()
    except OSError as error:
        raise unwritable(error, NOTES) from error
    what = "notes of processes that were killed" if notes else "half-written notes"
    print(f"{NOTES}: removed, it held {what} and no DVC is running here", flush=True)


def _notes() -> dict[str, object] | None:
    """What DVC has noted, {} where that is nothing, None for what is no note."""
    try:
        held = json.loads(NOTES.read_bytes() or b"?")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(held, dict):
        return None
    return {mode: paths for mode, paths in held.items() if paths}


def live_dvc(folder: Path) -> list[tuple[int, str]]:
    """Number and command of every DVC that runs in `folder` or below it, but for its daemon."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words, where = process.info["cmdline"] or [], process.info["cwd"]
        is_dvc = any(Path(word).name == "dvc" for word in words[:3]) and "daemon" not in words
        is_here = where and Path(where).is_relative_to(folder)
        if is_dvc and is_here and process.pid != os.getpid():
            found.append((process.pid, " ".join(words)[:200]))
    return found
