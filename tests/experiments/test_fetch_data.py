"""Fashion-MNIST arrives whole, from whichever source has it, or one line says why not."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
from torchvision.datasets import FashionMNIST

from experiments import fetch_data
from experiments.fetch_data import Unavailable, main


def idx(*shape: int) -> bytes:
    """An IDX file of unsigned bytes, all of them 7."""
    return b"\0\0\x08" + struct.pack(f">B{len(shape)}I", len(shape), *shape) + b"\7" * prod(shape)


CONTENTS = {
    "train-images-idx3-ubyte": idx(3, 28, 28),
    "train-labels-idx1-ubyte": idx(3),
    "t10k-images-idx3-ubyte": idx(2, 28, 28),
    "t10k-labels-idx1-ubyte": idx(2),
}
NAME = "t10k-labels-idx1-ubyte"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def unavailable(*_: object) -> None:
    raise Unavailable("it is switched off")


@pytest.fixture(autouse=True)
def small_files_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {name: digest(content) for name, content in CONTENTS.items()}
    monkeypatch.setattr(fetch_data, "FILES", hashes)
    monkeypatch.setattr(fetch_data, "from_mirrors", unavailable)
    monkeypatch.setattr(fetch_data, "from_debian", unavailable)


def write_plain(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)


def write_gzipped(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENTS.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))


def held(root: Path) -> dict[str, bytes]:
    """All files under `root`, hidden ones too, by name."""
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("write", [write_plain, write_gzipped])
@pytest.mark.parametrize("subfolder", ["", "raw", "FashionMNIST/raw"])
def test_torchvision_finds_the_files_of_the_named_folder(
    tmp_path: Path, write: Callable[[Path], None], subfolder: str
) -> None:
    write(tmp_path / "mine" / subfolder)
    root = tmp_path / "data"
    assert main(["--from", str(tmp_path / "mine"), "--root", str(root)]) == 0
    assert held(root) == CONTENTS
    assert [len(FashionMNIST(str(root), train=train)) for train in (True, False)] == [3, 2]


def test_a_corrupted_file_is_named_with_both_hashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plain(tmp_path / "mine")
    (tmp_path / "mine" / NAME).write_bytes(b"other bytes")
    assert main(["--from", str(tmp_path / "mine"), "--root", str(tmp_path / "data")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for expected in (NAME, digest(b"other bytes"), digest(CONTENTS[NAME]), "--from FOLDER"):
        assert expected in line
    assert held(tmp_path / "data").keys() == CONTENTS.keys() - {NAME}


def test_a_truncated_gzip_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gzipped(tmp_path / "mine")
    file = tmp_path / "mine" / f"{NAME}.gz"
    file.write_bytes(file.read_bytes()[:-10])
    assert main(["--from", str(tmp_path / "mine"), "--root", str(tmp_path / "data")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
    assert digest(CONTENTS[NAME]) in line
    assert NAME not in held(tmp_path / "data")


def test_when_no_source_answers_one_line_lists_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    assert main(["--from", str(tmp_path / "nowhere"), "--root", str(root)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    for tried in ("nowhere", "torchvision's mirrors", "Debian's package", "switched off"):
        assert tried in line
    assert not root.exists()


def test_the_next_source_fetches_only_what_is_still_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plain(tmp_path / "mine")
    (tmp_path / "mine" / NAME).unlink()
    asked = []

    def from_debian(names: list[str], raw: Path) -> None:
        asked.extend(names)
        (raw / NAME).write_bytes(CONTENTS[NAME])

    monkeypatch.setattr(fetch_data, "from_debian", from_debian)
    assert main(["--from", str(tmp_path / "mine"), "--root", str(tmp_path / "data")]) == 0
    assert asked == [NAME]


def test_files_already_there_are_kept_and_nothing_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = fetch_data.raw_folder(tmp_path)
    write_plain(raw)
    before = {path: path.stat().st_mtime_ns for path in raw.iterdir()}
    assert main(["--root", str(tmp_path)]) == 0  # every source would refuse
    assert {path: path.stat().st_mtime_ns for path in raw.iterdir()} == before
    assert capsys.readouterr().err == ""


def test_other_bytes_already_there_are_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = fetch_data.raw_folder(tmp_path)
    write_plain(raw)
    (raw / NAME).write_bytes(b"mine")
    assert main(["--root", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for expected in (str(raw / NAME), digest(b"mine"), digest(CONTENTS[NAME]), "delete it"):
        assert expected in line
    assert (raw / NAME).read_bytes() == b"mine"


@pytest.mark.parametrize(
    "body", [b"<html>log in first</html>", gzip.compress(CONTENTS[NAME])[:-10]], ids=["page", "cut"]
)
def test_a_mirror_that_sends_no_whole_gzip_file_is_passed_over(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "served").write_bytes(body)
    url = (tmp_path / "served").as_uri()
    with pytest.raises(Unavailable, match="served"):
        fetch_data.download([url], tmp_path / "data" / NAME)
    assert held(tmp_path / "data") == {}


def test_the_first_mirror_that_answers_is_used(tmp_path: Path) -> None:
    (tmp_path / "served").write_bytes(gzip.compress(CONTENTS[NAME]))
    urls = [(tmp_path / served).as_uri() for served in ("absent", "served")]
    fetch_data.download(urls, tmp_path / "data" / NAME)
    assert held(tmp_path / "data") == {NAME: CONTENTS[NAME]}


def test_a_command_that_is_missing_or_fails_makes_its_source_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no no-such-command here"):
        fetch_data.run(["no-such-command"], str(tmp_path), "hint")
    with pytest.raises(Unavailable, match=r"sh failed: second \(hint\)"):
        fetch_data.run(["sh", "-c", "echo 'first\nsecond' >&2; exit 1"], str(tmp_path), "hint")
