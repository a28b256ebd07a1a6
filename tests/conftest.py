"""Temporary folders are in memory where there is room: many tests copy, sync and remove files."""

import os
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30  # bytes; all tests together leave less than half of it


def pytest_configure() -> None:
    """Choose the place, unless `--basetemp` or the variable says another one."""
    if _has_room():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def _has_room() -> bool:
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        return False
    place = os.statvfs(MEMORY)
    runs_programs = not place.f_flag & os.ST_NOEXEC  # tests write some
    free = min(place.f_bavail * place.f_frsize, psutil.virtual_memory().available)
    return runs_programs and free > ROOM
