"""Files that are whole or absent, and written by one process only."""

from pathlib import Path

import pytest

from graphpruning.files import atomic, write_text


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
