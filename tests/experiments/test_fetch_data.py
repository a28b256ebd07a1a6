"""Fashion-MNIST arrives whole, from whichever source has it, or one line says why not."""

import errno
import gzip
import hashlib
import io
import json
import os
import resource
import struct
from collections.abc import Callable
from http.client import HTTPException
from math import prod
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import yaml
from torchvision.datasets import FashionMNIST

from experiments import fetch_data
from experiments.fetch_data import Unavailable, main
from graphpruning.common.errors import UserError


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


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("make", "says"),
    [(Path.mkdir, "is a folder"), (fifo, "is a device or a pipe"), (endless, "is a device")],
)
def test_what_is_no_file_in_the_named_folder(
    tmp_path: Path,
    make: Callable[[Path], None],
    says: str,
    ending: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_plain(tmp_path / "mine")
    (tmp_path / "mine" / NAME).unlink()
    make(tmp_path / "mine" / f"{NAME}{ending}")
    assert main(["--from", str(tmp_path / "mine"), "--root", str(tmp_path / "data")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'mine' / NAME}{ending} {says}" in line
    assert held(tmp_path / "data").keys() == CONTENTS.keys() - {NAME}


def test_a_folder_beside_the_gzipped_file_does_not_matter(tmp_path: Path) -> None:
    write_gzipped(tmp_path / "mine")
    (tmp_path / "mine" / NAME).mkdir()
    assert main(["--from", str(tmp_path / "mine"), "--root", str(tmp_path / "data")]) == 0


@pytest.mark.parametrize("make", [Path.mkdir, fifo, endless])
def test_what_is_no_file_where_the_files_belong(
    tmp_path: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = fetch_data.raw_folder(tmp_path)
    write_plain(raw)
    (raw / NAME).unlink()
    make(raw / NAME)
    assert main(["--root", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{raw / NAME} is a" in line


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(CONTENTS[NAME])[:5],
        gzip.compress(CONTENTS[NAME])[:-1] + b"x",
        gzip.compress(CONTENTS[NAME])[:12] + b"\xff" * 30,
        gzip.compress(b"other"),
    ],
    ids=["empty", "text", "header", "sum", "middle", "other"],
)
def test_a_gzip_file_that_is_none(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gzipped(tmp_path / "mine")
    (tmp_path / "mine" / f"{NAME}.gz").write_bytes(content)
    assert main(["--from", str(tmp_path / "mine"), "--root", str(tmp_path / "data")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{NAME}.gz" in line
    assert held(tmp_path / "data").keys() == CONTENTS.keys() - {NAME}


def test_a_file_that_unpacks_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch_data, "BLOCK", 1000)
    monkeypatch.setattr(fetch_data, "LARGEST", 5000)
    write_gzipped(tmp_path / "mine")
    (tmp_path / "mine" / f"{NAME}.gz").write_bytes(gzip.compress(bytes(10**6)))
    assert main(["--from", str(tmp_path / "mine"), "--root", str(tmp_path / "data")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{NAME}.gz: more than 5,000 bytes" in line
    assert NAME not in held(tmp_path / "data")


def test_a_full_disk_is_no_fault_of_the_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No other source is asked; when there is room, only what is missing is fetched."""
    write_plain(tmp_path / "mine")
    arguments = ["--from", str(tmp_path / "mine"), "--root", str(tmp_path / "data")]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        assert main(arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (line,) = capsys.readouterr().err.splitlines()
    assert "train-images-idx3-ubyte cannot be written (File too large): make room" in line
    assert held(tmp_path / "data") == {}
    assert main(arguments) == 0


def test_a_root_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plain(tmp_path / "mine")
    (tmp_path / "data").write_text("mine")
    assert main(["--from", str(tmp_path / "mine"), "--root", str(tmp_path / "data")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written (Not a directory)" in line
    assert (tmp_path / "data").read_text() == "mine"


@pytest.mark.parametrize(
    "error",
    [
        URLError("no route"),
        TimeoutError("timed out"),
        HTTPException("two\nlines"),
        ConnectionResetError(errno.ECONNRESET, "gone"),
        gzip.BadGzipFile("no gzip"),
        EOFError("cut"),
    ],
)
@pytest.mark.parametrize("when", ["asked", "read"])
def test_whatever_a_mirror_does_the_next_one_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, when: str
) -> None:
    class Failing(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise error

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        if url == "good":
            return io.BytesIO(gzip.compress(CONTENTS[NAME]))
        if when == "asked":
            raise error
        return Failing()

    monkeypatch.setattr(fetch_data, "urlopen", urlopen)
    fetch_data.download(["bad", "good"], tmp_path / "data" / NAME)
    assert held(tmp_path / "data") == {NAME: CONTENTS[NAME]}
    with pytest.raises(Unavailable) as refused:
        fetch_data.download(["bad", "bad"], tmp_path / "other" / NAME)
    assert "bad: " in str(refused.value) and str(refused.value).isprintable()
    assert held(tmp_path / "other") == {}


def test_a_mirror_with_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "served").write_bytes(gzip.compress(b"other"))
    with pytest.raises(UserError, match="served: SHA-256 is"):
        fetch_data.download([(tmp_path / "served").as_uri()], tmp_path / "data" / NAME)
    assert held(tmp_path / "data") == {}


def test_debian_without_a_place_for_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real function
    monkeypatch.setattr(fetch_data.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(Unavailable, match="no temporary folder"):
        fetch_data.from_debian([NAME], tmp_path)


def test_debian_that_delivers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    called = []

    def run(command: list[str], folder: str, hint: str) -> None:
        called.append(command)
        if command[0] == "dpkg-deb":
            raise Unavailable("no such package")

    monkeypatch.setattr(fetch_data, "run", run)
    with pytest.raises(Unavailable, match="no such package"):
        fetch_data.from_debian([NAME], tmp_path)
    assert len(called) == 2


def test_a_command_that_says_no_text_or_may_not_start(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="sh failed"):
        fetch_data.run(["sh", "-c", "printf '\\377\\n' >&2; exit 1"], str(tmp_path), "hint")
    (tmp_path / "tool").write_text("no program")
    with pytest.raises(Unavailable, match="tool does not start"):
        fetch_data.run([str(tmp_path / "tool")], str(tmp_path), "hint")


# As the pipeline's first stage


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with whole files in `mine`, and no study yet."""
    monkeypatch.chdir(tmp_path)
    write_plain(tmp_path / "mine")
    return tmp_path


def study(**data: Any) -> None:
    """Make a study with this section `data` that of params.yaml."""
    Path("params.yaml").write_text(yaml.safe_dump({"study": "some", "data": data}))


def test_the_stage_fetches_what_the_study_needs_and_notes_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGES", str(folder / "elsewhere"))
    study(name="fashion_mnist", root="$IMAGES/here")
    assert main(["--study", "--from", "mine"]) == 0
    assert held(folder / "elsewhere/here") == CONTENTS
    note = folder / "data/fetched/some.json"
    sums = {name: digest(content) for name, content in CONTENTS.items()}
    assert json.loads(note.read_text()) == {"dataset": "fashion_mnist", "sha256": sums}
    before = note.read_bytes()
    assert main(["--study"]) == 0  # all is there, and every source would refuse
    assert note.read_bytes() == before


def test_the_stage_fetches_nothing_for_other_images(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And asks for no environment variable: a clone without the images has its notes too."""
    study(name="imagenet", root="$NOT_SET")
    assert main(["--study"]) == 0
    assert capsys.readouterr().out == "imagenet: nothing to fetch\n"
    note = json.loads((folder / "data/fetched/some.json").read_text())
    assert note == {"dataset": "imagenet", "sha256": {}}
    assert not (folder / "data/FashionMNIST").exists()


def test_the_stage_names_files_that_are_not_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC, which watches them, would name a Python error, and no way to get them."""
    study(name="cifar10", root="here", files="here/cifar-10-batches-py")
    assert main(["--study"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is missing" in line and "CIFAR10('here', download=True)" in line
    study(name="folder", root="mine", files="nowhere")
    assert main(["--study"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data: files: there is no nowhere: images are yours to bring" in line
    study(name="folder", root="mine", files="mine")
    assert main(["--study"]) == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a mapping is expected, not None"),
        ("data: {name: fashion_mnist, root: data}", "key 'study' is missing"),
        ("study: ../x\ndata: {name: fashion_mnist, root: data}", "study: '../x' is no plain name"),
        ("study: x", "data: name and root are expected"),
        ("study: x\ndata: [fashion_mnist]", "data: name and root are expected"),
        ("study: x\ndata: {name: fashion_mnist, root: 1}", "data: name and root are expected"),
        (
            "study: x\ndata: {name: fashion_mnist, root: $NOT_SET}",
            "the environment variable NOT_SET",
        ),
        ("study: x\ndata: {name: fashion_mnist, root: data}", "no source has"),
    ],
)
def test_what_the_stage_cannot_do_is_one_line_and_no_note(
    folder: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "params.yaml").write_text(text)
    assert main(["--study"]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert says in line
    assert not (folder / "data").exists()
