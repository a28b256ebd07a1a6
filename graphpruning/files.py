"""Files that are whole or absent: every write goes beside its final name and is renamed."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphpruning.errors import UserError
from graphpruning.machine import is_writer


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a name to write to; it becomes `path` when the block ends well, and is removed if not.

    The temporary name keeps the ending of `path`, because some writers choose a format by it.

    Of several processes (torchrun) only the first writes: to the others the name is one in a
    folder that is thrown away. A process that reads what was just written must wait for the
    writer: `graphpruning.distributed.barrier`.
    """
    path = Path(path)
    if not is_writer():
        with tempfile.TemporaryDirectory() as nowhere:
            yield Path(nowhere) / path.name
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8, line feeds) to `path`, whole or not at all."""
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; refuses NaN, which is not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path, made_by: str) -> Any:
    """Read JSON; a missing or truncated file is a `UserError` that names `made_by` as its maker."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {made_by} makes it") from None
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON ({error}): {made_by} makes it anew") from None


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
