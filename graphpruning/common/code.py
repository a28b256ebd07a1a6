"""Which code it is that runs: what a checkpoint of other code must not be continued by."""

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def code_digest(package: Path = PACKAGE) -> str:
    """SHA-256 of all modules of a package by name, imported or not."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
