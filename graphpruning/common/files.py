"""Files that are whole or absent, read with care: whatever is wrong with one is a `UserError`.

Every write goes beside its final name and is renamed. Every text comes through `read_text`.
"""

import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

from graphpruning.common.errors import UserError, reason
from graphpruning.common.machine import is_writer

LARGEST_TEXT = 2**28
"""Bytes of a text file that is still read; the largest of ours have some megabytes."""
_NO_PLACE = {
    getattr(errno, name)
    for name in (
        "EACCES",
        "EDQUOT",
        "EEXIST",
        "EFBIG",
        "EIO",
        "EISDIR",
        "ELOOP",
        "ENAMETOOLONG",
        "ENODEV",
        "ENOSPC",
        "ENOTDIR",
        "EPERM",
        "EROFS",
        "ESTALE",
        "ETXTBSY",
    )
}
"""What the system answers where a file cannot be put, or not whole."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a name to write to; it becomes `path` when the block ends well, and is removed if not.

    The temporary name keeps the ending of `path`, because some writers choose a format by it.
    Raises `UserError` with the system's reason where there is no room or no permission.

    Of several processes (torchrun) only the first writes: to the others the name is one in a
    folder that is thrown away. A process that reads what was just written must wait for the
    writer: `graphpruning.common.distributed.barrier`.
    """
    path = Path(path)
    if not is_writer():
        with tempfile.TemporaryDirectory() as nowhere:
            yield Path(nowhere) / path.name
        return
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise unwritable(error, path) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def unwritable(error: OSError, path: str | Path) -> UserError | OSError:
    """The refusal that stands for a failed write to `path`; other errors come back as they are."""
    if error.errno is None or error.errno not in _NO_PLACE:
        return error
    return UserError(
        f"{path} cannot be written ({os.strerror(error.errno)}): make room, or see to whom the "
        "folder belongs, and start again; what was finished is kept"
    )


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8, line feeds) to `path`, whole or not at all."""
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; refuses NaN, which is not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_text(path: str | Path, made_by: str) -> str:
    """Read a file of UTF-8 text, `\\r\\n` as `\\n`.

    `made_by` is who writes it ("the stage prepare"), for the `UserError` that a file gets which is
    missing, no regular file, too large, not to be read, or no text.
    """
    require_file(path, made_by)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST_TEXT + 1)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8: {made_by} makes it anew") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if len(text) > LARGEST_TEXT:
        raise UserError(f"{path} is larger than {LARGEST_TEXT:,} characters: it is not ours")
    return text


def require_file(path: str | Path, made_by: str) -> int:
    """Return the size in bytes of a regular file; `UserError` for whatever else `path` is."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {made_by} makes it") from None
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{str(path)!r} cannot be read ({reason})") from None
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a device or a pipe"
        raise UserError(f"{path} is {what}, where a file is expected: {made_by} makes it")
    return found.st_size


def read_json(path: str | Path, made_by: str) -> Any:
    """Read JSON as `read_text` reads text; what is not JSON is a `UserError` too."""
    try:
        return parse_json(read_text(path, made_by))
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON ({error}): {made_by} makes it anew") from None


def parse_json(text: str) -> Any:
    """Parse JSON strictly: ValueError for NaN, infinities, and what is nested without end too."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def alone(path: str | Path, what: str) -> Iterator[None]:
    """Hold `path` as a lock inside the block; `UserError` when another process does.

    The lock goes with the process that holds it, however that ends; the file goes with the block.
    `what` says what only one process at a time may do.
    """
    path = Path(path)
    with _locked(path, what) as file:
        with suppress(OSError):  # a full disk: the number is for the message alone
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, what: str) -> TextIO:
    """The file, open and locked, and not one that its last holder has just removed."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise unwritable(error, path) from error
        file = open(handle, "r+", encoding="ascii", errors="replace")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = file.read(20).strip() or "unknown"
            file.close()
            raise UserError(
                f"{what} is being done by another process (number {other}, which holds {path}): "
                "wait for it, or end it"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return file
        file.close()


def sum_of(path: Path, made_by: str) -> str:
    """Return a file's SHA-256; `UserError` for what is missing, no regular file, or not read."""
    require_file(path, made_by)
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)})") from None
