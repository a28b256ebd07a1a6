"""Which commit of the repository a stage runs."""

import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

CODE = ("graphpruning", "experiments")
"""The folders whose files make numbers; params.yaml is known from each run's record."""
PATIENCE = 20.0
"""Seconds that git may take, on a slow file system too."""


class Commit(NamedTuple):
    """A commit's hash, and whether the code is as it has it; both None where that is not known."""

    commit: str | None
    clean: bool | None


NOT_KNOWN = Commit(None, None)


@cache
def commit_of(folder: Path) -> Commit:
    """Ask git about the checkout in `folder`, once a process; not known if git does not answer."""
    if not (folder / ".git").exists():  # a folder in somebody else's checkout is none of it
        return NOT_KNOWN
    try:
        head = _git(folder, "rev-parse", "--verify", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", *CODE)
    except (OSError, ValueError, subprocess.SubprocessError):
        return NOT_KNOWN
    return Commit(head, not changed)


def _git(folder: Path, *words: str) -> str:
    """What git says; without its locks, since several stages may ask while somebody commits."""
    done = subprocess.run(
        ["git", "--no-optional-locks", *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.strip()
