"""Files that are whole or absent, and written by one process only."""

import errno
import os
from pathlib import Path

import pytest

from graphpruning.common.code import code_digest
from graphpruning.common.errors import UserError
from graphpruning.common.files import alone, atomic, read_json, read_text, write_text


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "notes.txt"
    write_text(path, "old\n")
    with pytest.raises(KeyError), atomic(path) as beside:
        beside.write_text("half")
        raise KeyError
    assert path.read_text() == "old\n" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_first_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    write_text(tmp_path / "alone.txt", "a variable of this name says nothing without torchrun")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with atomic(tmp_path / "together.txt") as beside:
        assert beside.suffix == ".txt"
        beside.write_text("together")
    assert not beside.exists()
    names = ["alone.txt", "together.txt"] if rank == "0" else ["alone.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_lock_is_held_by_one_and_goes_with_the_block(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "lock"
    with alone(lock, "this"):
        assert lock.read_text() == f"{os.getpid()}\n"
        with pytest.raises(UserError, match=f"number {os.getpid()}"), alone(lock, "this"):
            raise AssertionError
    assert not lock.exists()
    with pytest.raises(KeyError), alone(lock, "this"):
        raise KeyError
    with alone(lock, "this"):
        pass


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe{\x00}\x00", "is not text in UTF-8"),
        ("{}\u00e9".encode("latin-1"), "is not text in UTF-8"),
        (b"[" * 1500 + b"]" * 1500, "nested too deeply"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": 1', "is not whole JSON"),
        (b"", "is not whole JSON"),
        (b"\x00\x01", "is not whole JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not whole JSON"),
    ],
)
def test_what_is_no_json_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        read_json(path, "somebody")
    message = str(refusal.value)
    assert says in message and str(path) in message and len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("nothing", "is missing"),
        ("folder", "is a folder"),
        ("pipe", "is a device or a pipe"),
        ("device", "is a device or a pipe"),
        ("below a file", "cannot be read"),
        ("a\0b", "cannot be read"),
        ("n" * 300, "cannot be read"),
    ],
)
def test_what_is_no_file_is_one_line_and_is_not_waited_for(
    tmp_path: Path, kind: str, says: str
) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "below a file":
        path = Path(__file__) / "file"
    with pytest.raises(UserError, match=says) as refusal:
        read_text(path, "somebody")
    assert len(str(refusal.value).splitlines()) == 1


def test_only_a_place_that_refuses_makes_a_refusal(tmp_path: Path) -> None:
    """An error of what is read meanwhile, such as a connection's, is not the file's fault."""
    with pytest.raises(ConnectionResetError), atomic(tmp_path / "file"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    full = pytest.raises(UserError, match=r"file cannot be written \(No space left")
    with full, atomic(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "whatever")
    assert not list(tmp_path.iterdir())


def test_a_changed_and_a_renamed_module_are_other_code(tmp_path: Path) -> None:
    for name in ("a.py", "part/b.py"):
        write_text(tmp_path / name, f"{name!r}\n")
    first = code_digest(tmp_path)
    write_text(tmp_path / "data.txt", "no module")
    assert code_digest(tmp_path) == first
    (tmp_path / "part/b.py").rename(tmp_path / "part/c.py")
    renamed = code_digest(tmp_path)
    write_text(tmp_path / "a.py", "changed\n")
    assert len({first, renamed, code_digest(tmp_path)}) == 3
