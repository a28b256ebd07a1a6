"""No folder of results and no file of somebody's own results ends in a traceback.

Every fault is one line on standard error and status 2, and nothing is written.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from graphpruning import drawing
from graphpruning.common.errors import UserError
from graphpruning.common.names import is_plain, require_plain
from paper import captions, compare, representation, tables, verdicts
from paper.pages import template
from paper.reader import columns, contents
from paper.reader.results import Results, read
from paper.table_formats import escaped, to_markdown
from paper.table_main import main_results
from tests.paper.conftest import Study, copied_study

BASE = "base/resnet20/0"
SEARCH = "search/resnet20/amc/0.5/1"
FINAL = "final/resnet20/amc/0.5/1"
LONG = "9" * 30


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two methods and one budget, which reads fast."""
    folder = tmp_path_factory.mktemp("small") / "made"
    return Study(
        folder,
        methods=("graphpruning", "amc"),
        budgets=(0.5,),
        seeds=(0, 1),
        blocks=1,
        candidates=4,
    ).write()


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    return copied_study(small, tmp_path)


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """All that is below a folder: which file or folder it is, its size, and when it changed."""
    walked = os.walk(folder)
    paths = [os.path.join(top, name) for top, folders, files in walked for name in folders + files]
    return {
        path: (found.st_ino, found.st_size, found.st_ctime_ns)
        for path, found in zip(paths, map(os.lstat, paths), strict=True)
    }


def refusal(
    program: Callable[[list[str]], int],
    arguments: list[str],
    around: Path,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """What a command line says in its one line; it writes nothing below `around`."""
    before = state(around)
    assert program(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    (line,) = printed.err.splitlines()
    assert state(around) == before
    return line


def changed(path: Path, keys: tuple[Any, ...], value: Any) -> None:
    """Set an entry of a JSON file; an Exception class removes it."""
    whole = json.loads(path.read_text())
    *outer, last = keys
    inner = whole
    for key in outer:
        inner = inner[key]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    path.write_text(json.dumps(whole))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def flipped(path: Path) -> None:
    """The highest bit of a byte in the middle: no text in UTF-8 any more."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "UTF-16": lambda path: path.write_text(path.read_text(), encoding="utf-16"),
    "Latin-1": lambda path: path.write_bytes(b"\xe9\n" + path.read_bytes()),
    "a flipped bit": flipped,
    "1,500 brackets": lambda path: path.write_text("[" * 1500 + "]" * 1500 + "\n"),
    "100,000 brackets": lambda path: path.write_text("[" * 100_000 + "\n"),
    "a folder": folder_instead,
    "a pipe": pipe_instead,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
}
FILES = [
    "study.json",
    "splits/train.txt",
    f"{BASE}/graph.json",
    f"{BASE}/curve.csv",
    f"{SEARCH}/run.json",
    f"{FINAL}/architecture.json",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    DAMAGE[damage](copied / name)
    line = refusal(tables.main, [str(copied)], copied.parent, capsys)
    assert str(copied / name) in line and "(dvc repro " in line


WRONG: list[tuple[str, tuple[Any, ...], Any]] = [
    ("study.json", ("study",), "../made"),
    ("study.json", ("title",), "two\nlines"),
    ("study.json", ("title",), "\ud800"),
    ("study.json", ("data",), "fashion_mnist"),
    ("study.json", ("data", "name"), 7),
    ("study.json", ("data", "name"), KeyError),
    ("study.json", ("models",), []),
    ("study.json", ("models",), ["resnet20", "resnet20"]),
    ("study.json", ("models", 0), "../resnet20"),
    ("study.json", ("models", 0), "/etc"),
    ("study.json", ("models", 0), ["resnet20"]),
    ("study.json", ("models", 0), ".."),
    ("study.json", ("models", 0), "res\x00net"),
    ("study.json", ("budgets",), ["0.5", "0.5"]),
    ("study.json", ("budgets", 0), 0.5),
    ("study.json", ("budgets", 0), "../../0.5"),
    ("study.json", ("budgets",), []),
    ("study.json", ("seeds", 0), "0"),
    ("study.json", ("seeds", 0), 0.5),
    ("study.json", ("seeds", 0), -1),
    ("study.json", ("seeds", 0), True),
    ("study.json", ("seeds", 0), int(LONG)),
    ("study.json", ("seeds",), [0, 1, 1]),
    ("study.json", ("seeds",), 0),
    ("study.json", ("seeds",), []),
    ("study.json", ("methods",), ["amc", "graphpruning", "amc"]),
    ("study.json", ("methods", 0), "not/plain"),
    ("study.json", ("methods", 0), {}),
    ("study.json", ("reward",), 1),
    ("study.json", ("conditionings",), {}),
    ("study.json", ("conditionings",), ["graph"]),
    ("study.json", ("conditionings", "graph"), None),
    ("study.json", ("conditionings", "../graph"), {}),
    ("study.json", ("conditionings", "graph", "label"), KeyError),
    ("study.json", ("conditionings", "graph", "colour"), "blue"),
    ("study.json", ("conditionings", "graph", "marker"), "$x$"),
    ("study.json", ("conditionings", "graph", "line"), "wavy"),
    ("study.json", ("conditionings", "graph", "line"), [0, [5]]),
    ("study.json", ("conditionings", "graph", "line"), [0, [5, -1]]),
    ("study.json", ("conditionings", "graph", "line"), [0, []]),
    ("study.json", ("analysed",), None),
    ("study.json", ("analysed",), []),
    ("study.json", ("analysed", 0), "sage"),
    ("study.json", ("analysed",), ["graph", "graph"]),
    ("study.json", ("rows",), {}),
    ("study.json", ("rows", "amc"), []),
    ("study.json", ("rows", "amc", "kind"), "given"),
    ("study.json", ("rows", "amc", "distilled"), "no"),
    ("study.json", ("rows", "amc", "distilled"), KeyError),
    ("study.json", ("rows", "amc", "source"), "elsewhere"),
    ("study.json", ("rows", "amc", "stage"), "../search_base"),
    ("study.json", ("rows", "amc", "initial"), "study"),
    ("study.json", ("rows", "amc", "colour"), 7),
    ("study.json", ("rows", "amc", "label"), "GraphPruning"),
    ("study.json", ("rows", "amc", "label"), ""),
    ("study.json", ("rows", "amc", "label"), "$\\frac$"),
    ("splits/metrics.json", ("images", "test"), KeyError),
    ("splits/metrics.json", ("images", "test"), -1),
    ("splits/metrics.json", ("images", "train"), "250"),
    ("splits/metrics.json", ("classes",), True),
    (f"{BASE}/metrics.json", ("test_top1",), 100.5),
    (f"{BASE}/metrics.json", ("test_top1",), -0.5),
    (f"{BASE}/metrics.json", ("search_top1",), "high"),
    (f"{BASE}/metrics.json", ("macs",), -1),
    (f"{BASE}/metrics.json", ("macs",), 10**400),
    (f"{BASE}/metrics.json", ("params",), 0),
    (f"{BASE}/metrics.json", ("epochs",), -1),
    (f"{BASE}/metrics.json", ("weights",), 3),
    (f"{BASE}/graph.json", ("layers",), []),
    (f"{BASE}/graph.json", ("layers", 0), "conv1"),
    (f"{BASE}/graph.json", ("layers", 0, "out"), "8"),
    (f"{BASE}/graph.json", ("layers", 0, "kind"), "magic"),
    (f"{BASE}/graph.json", ("layers", 0, "name"), ["conv1"]),
    (f"{BASE}/graph.json", ("layers", 1, "name"), "conv1"),
    (f"{BASE}/graph.json", ("layers", 0, "group"), "nowhere"),
    (f"{BASE}/graph.json", ("edges", 0), ["conv1"]),
    (f"{BASE}/graph.json", ("edges", 0, 0), "nowhere"),
    (f"{BASE}/graph.json", ("edges", 0, 0), {}),
    (f"{BASE}/graph.json", ("edges", 0, 2), 1),
    (f"{BASE}/graph.json", ("edges", 0, 1), "conv1"),
    (f"{BASE}/graph.json", ("groups", 0, "width"), 0),
    (f"{BASE}/graph.json", ("groups", 0, "width"), 9),
    (f"{BASE}/graph.json", ("groups", 0, "layers"), 1),
    (f"{BASE}/graph.json", ("groups", 0, "prunable"), "yes"),
    (f"{BASE}/graph.json", ("groups", 0), None),
    (f"{BASE}/run.json", ("versions",), ["torch"]),
    (f"{BASE}/run.json", ("versions", "python"), 3.11),
    (f"{BASE}/run.json", ("hardware", "cpu"), KeyError),
    (f"{BASE}/run.json", ("hardware", "cores"), "two"),
    (f"{BASE}/run.json", ("hardware", "memory_gb"), [4]),
    (f"{BASE}/run.json", ("seconds",), -1),
    (f"{BASE}/run.json", ("stage",), "train_base@other-resnet20"),
    (f"{BASE}/run.json", ("record",), "../../../etc"),
    (f"{BASE}/run.json", ("resumed",), 0),
    ("correlation/resnet20/0/metrics.json", ("pairs",), -6),
    ("correlation/resnet20/0/metrics.json", ("ridge",), []),
    ("correlation/resnet20/0/heatmaps.json", (0, "matrix"), []),
    ("correlation/resnet20/0/heatmaps.json", (0, "matrix"), 1),
    ("correlation/resnet20/0/heatmaps.json", (0, "matrix", 0), [0.5]),
    ("correlation/resnet20/0/heatmaps.json", (0, "matrix", 0, 0), "0.5"),
    ("correlation/resnet20/0/heatmaps.json", (0, "matrix", 0, 0), 1.5),
    ("correlation/resnet20/0/heatmaps.json", (0, "matrix", 0, 0), None),
    ("correlation/resnet20/0/heatmaps.json", (0, "deeper"), "nowhere"),
    ("correlation/resnet20/0/heatmaps.json", (0,), "heatmap"),
    ("pruningnet/resnet20/graph/0/metrics.json", ("search_top1_full",), 1e308),
    ("generated/resnet20/0/metrics.json", ("candidates",), 0),
    ("generated/resnet20/0/metrics.json", ("trainings",), 0),
    ("generated/resnet20/0/metrics.json", ("trainings",), KeyError),
    (f"{SEARCH}/metrics.json", ("budget_macs",), 0),
    (f"{SEARCH}/metrics.json", ("budget_macs",), 10**15),
    (f"{SEARCH}/metrics.json", ("macs",), 10**14),
    (f"{SEARCH}/metrics.json", ("method",), "graphpruning"),
    (f"{SEARCH}/metrics.json", ("evaluations",), 0),
    (f"{SEARCH}/metrics.json", ("evaluations",), 59.5),
    (f"{SEARCH}/metrics.json", ("images_seen",), -1),
    (f"{SEARCH}/metrics.json", ("distinct",), KeyError),
    (f"{SEARCH}/metrics.json", ("top1_search",), True),
    (f"{SEARCH}/metrics.json", ("widths",), {}),
    (f"{SEARCH}/metrics.json", ("widths",), []),
    (f"{SEARCH}/metrics.json", ("widths", "conv1"), 99),
    (f"{SEARCH}/metrics.json", ("widths", "conv1"), "8"),
    (f"{SEARCH}/run.json", ("search_seconds",), KeyError),
    (f"{SEARCH}/run.json", ("search_seconds",), None),
    (f"{SEARCH}/run.json", ("search_seconds",), -2),
    (f"{SEARCH}/run.json", ("stage",), "search_base@made-resnet20-amc-0.5-0"),
    (f"{FINAL}/metrics.json", ("test_top5",), 101),
    (f"{FINAL}/metrics.json", ("macs",), 7),
    (f"{FINAL}/metrics.json", ("initial",), None),
    (f"{FINAL}/metrics.json", ("initial",), "searched"),
    (f"{FINAL}/metrics.json", ("search_top1_before",), KeyError),
    (f"{FINAL}/metrics.json", ("search_top1_before",), 64.5),
    (f"{FINAL}/architecture.json", ("widths",), [8]),
    (f"{FINAL}/architecture.json", ("macs",), 7),
    (f"{FINAL}/architecture.json", ("network",), KeyError),
    ("../pretrained/study.json", ("study",), "other"),
]


@pytest.mark.parametrize(("name", "keys", "value"), WRONG, ids=repr)
def test_a_wrong_entry_is_refused(
    copied: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    keys: tuple[Any, ...],
    value: Any,
) -> None:
    changed(copied / name, keys, value)
    line = refusal(tables.main, [str(copied)], copied.parent, capsys)
    assert Path(name).name in line


def test_replicates_that_trained_their_candidates_differently_are_refused(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean over replicates would be of different quantities."""
    folder = copied / "generated/resnet20/1"
    changed(folder / "metrics.json", ("trainings",), 1)
    frame = pd.read_csv(folder / "trained.csv")
    frame[frame["training"] == 0].to_csv(folder / "trained.csv", index=False, lineterminator="\n")
    line = refusal(tables.main, [str(copied)], copied.parent, capsys)
    assert "another 'trainings' than with the other seeds" in line
    assert "dvc repro analyse_pruningnet@made-resnet20-1" in line


@pytest.mark.parametrize(
    ("folder", "key", "value", "table"),
    [
        ("correlation/resnet20/0", "controls", 5, "channels.csv"),
        ("correlation/resnet20/0", "borders", 5, "borders.csv"),
        ("generated/resnet20/0", "within", 3, "candidates.csv"),
        ("generated/resnet20/0", "trained", 1, "trained.csv"),
        (SEARCH, "distinct", 3, "history.csv"),
    ],
)
def test_a_count_that_its_table_does_not_have_is_refused(
    copied: Path,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    key: str,
    value: int,
    table: str,
) -> None:
    changed(copied / folder / "metrics.json", (key,), value)
    line = refusal(tables.main, [str(copied)], copied.parent, capsys)
    assert line.startswith(f"{copied / folder / table} is truncated or damaged (")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        (f"{BASE}/metrics.json", "test_top1"),
        (f"{SEARCH}/run.json", "seconds"),
        ("correlation/resnet20/0/heatmaps.json", "matrix"),
    ],
)
def test_a_number_that_json_does_not_have_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str], name: str, key: str, number: str
) -> None:
    text, count = re.subn(
        rf'("{key}":[\s\[]*)[\d.]+', rf"\g<1>{number}", (copied / name).read_text()
    )
    assert count
    (copied / name).write_text(text)
    assert str(copied / name) in refusal(tables.main, [str(copied)], copied.parent, capsys)


CELLS = [
    ("correlation/resnet20/0/channels.csv", "best_match", "1.5"),
    ("correlation/resnet20/0/channels.csv", "best_match", "-0.1"),
    ("correlation/resnet20/0/channels.csv", "r2", "nan"),
    ("correlation/resnet20/0/channels.csv", "r2", "1.5"),
    ("correlation/resnet20/0/channels.csv", "controls", "1"),
    ("correlation/resnet20/0/channels.csv", "control_r2", "0.5"),
    ("correlation/resnet20/0/channels.csv", "control_match", "0.5"),
    ("correlation/resnet20/0/channels.csv", "network", "strained"),
    ("correlation/resnet20/0/channels.csv", "deeper", "nowhere"),
    ("correlation/resnet20/0/channels.csv", "channel", "1"),
    ("correlation/resnet20/0/channels.csv", "channel", "²"),
    (f"{BASE}/curve.csv", "search_top1", "NaN"),
    (f"{BASE}/curve.csv", "train_loss", "inf"),
    (f"{BASE}/curve.csv", "lr", "-1"),
    (f"{BASE}/curve.csv", "epoch", "3"),
    ("generated/resnet20/0/candidates.csv", "macs", "-5"),
    ("generated/resnet20/0/candidates.csv", "top1_shuffled", "150"),
    ("generated/resnet20/0/candidates.csv", "top1_shuffled", ""),
    ("generated/resnet20/0/candidates.csv", "budget", "0.5"),
    ("generated/resnet20/0/candidates.csv", "budget", "large"),
    ("generated/resnet20/0/trained.csv", "candidate", "0"),
    ("generated/resnet20/0/trained.csv", "candidate", "999"),
    ("generated/resnet20/0/trained.csv", "training", "1"),
    ("generated/resnet20/0/trained.csv", "training", "2"),
    ("generated/resnet20/0/trained.csv", "top1", "150"),
    ("generated/resnet20/0/candidates.csv", "candidate", "1"),
    ("generated/resnet20/0/candidates.csv", "conditioning", "trees"),
    ("generated/resnet20/0/probes.csv", "r2", "1e999"),
    ("generated/resnet20/0/probes.csv", "distance", "1"),
    ("generated/resnet20/0/probes.csv", "widths", "0"),
    ("generated/resnet20/0/probes.csv", "layer", "nowhere"),
    ("generated/resnet20/0/probes.csv", "network", "strained"),
    ("generated/resnet20/0/diagnostics.csv", "conditioning", "trees"),
    ("generated/resnet20/0/diagnostics.csv", "network", "untrained"),
    ("generated/resnet20/0/diagnostics.csv", "feature_variation", "-1"),
    (f"{SEARCH}/history.csv", "evaluation", "2"),
    (f"{SEARCH}/history.csv", "macs", LONG),
    (f"{SEARCH}/history.csv", "best", "1_0"),
    (f"{SEARCH}/history.csv", "widths", "1-2"),
    (f"{SEARCH}/history.csv", "widths", "99-8-16-16-32-32"),
    (f"{SEARCH}/history.csv", "widths", ""),
    (f"{FINAL}/curve.csv", "train_top1", ""),
    (f"{FINAL}/curve.csv", "train_top1", "8,1"),
    (f"{FINAL}/curve.csv", "train_top1", '"'),
    (f"{FINAL}/curve.csv", "train_top1", "x" * 200_000),
]


@pytest.mark.parametrize(("name", "column", "cell"), CELLS, ids=lambda value: value[:40])
def test_a_wrong_cell_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str], name: str, column: str, cell: str
) -> None:
    path = copied / name
    header, first, *rest = path.read_text().splitlines(keepends=True)
    cells = first.rstrip("\n").split(",")
    cells[header.strip().split(",").index(column)] = cell
    path.write_text("".join([header, ",".join(cells) + "\n", *rest]))
    line = refusal(tables.main, [str(copied)], copied.parent, capsys)
    assert str(path) in line and "(dvc repro " in line and len(line) < 1000


def test_nothing_outside_the_folder_is_read(copied: Path) -> None:
    """A name that leads elsewhere is refused even where all of its files are there."""
    for part in ("base", "correlation", "pruningnet", "generated", "search", "final"):
        shutil.copytree(copied / part / "resnet20", copied / "elsewhere", dirs_exist_ok=True)
    changed(copied / "study.json", ("models", 0), "../elsewhere")
    with pytest.raises(UserError, match=r"models, 0 is '\.\./elsewhere': no plain.*\(dvc repro"):
        read(copied)


def test_the_page_of_claims_is_refused_in_one_line(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(copied / "study.json", ("seeds", 0), "0+1")
    copied.rename(copied.with_name(verdicts.COMMITTED[0]))
    monkeypatch.setattr(verdicts, "RESULTS", copied.parent)
    monkeypatch.setattr(verdicts, "PAGE", copied.parent / "claims.md")
    assert "seeds, 0 is '0+1'" in refusal(lambda _: verdicts.main([]), [], copied.parent, capsys)


def test_the_programs_end_with_status_2(copied: Path, tmp_path: Path) -> None:
    """As processes: a flipped bit ended in a UnicodeDecodeError."""
    flipped(copied / "study.json")
    for arguments in (["paper.report", copied], ["paper.compare", copied, tmp_path / "my.csv"]):
        done = subprocess.run(
            [sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("name", ["verdicts", "macros", "overview", "readme"])
@pytest.mark.parametrize(("word", "status"), [("--help", 0), ("results/desk", 2)])
def test_a_command_that_takes_nothing_writes_nothing_when_asked_more(
    name: str, word: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"paper.{name}")
    monkeypatch.setattr(module.command, "status", lambda _: pytest.fail("it began"))
    with pytest.raises(SystemExit) as ended:
        module.main([word])
    assert ended.value.code == status


def test_names_are_those_that_the_reader_knows() -> None:
    assert {*columns.PAIRS, "border"} == set(representation.PAIRS)
    assert set(contents.LAYER_KINDS) == set(drawing.KINDS)


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "-a", ".a", "a\n", "²", "é"])
def test_names_that_are_not_plain(text: str) -> None:
    assert not is_plain(text)
    with pytest.raises(UserError, match=r"^here: .* is no plain name: letters, digits, and \. _"):
        require_plain(text, "here")


def test_plain_names() -> None:
    for text in ("resnet20", "0.5", "316M", "0+1+2", "no-edges", "mobilenet_v2"):
        assert is_plain(text) and require_plain(text, "here") == text


# Somebody's own results.


@pytest.fixture(scope="module")
def study(small: Path) -> Results:
    return read(small)


@pytest.fixture
def known(study: Results, monkeypatch: pytest.MonkeyPatch) -> Results:
    """The study, which the command line then has at once: it would read it anew each time."""
    monkeypatch.setattr(compare, "read", lambda path: study if path == study.path else read(path))
    return study


def own(study: Results, **changes: Any) -> str:
    """Two lines of a method called Mine; `changes` go into the second, which is line 3."""
    limit = study.budget_macs("resnet20", "0.5")
    columns = ["method", "model", "budget", "seed", "test_top1", "macs", "params"]
    columns += [
        "test_top5",
        "top1_search",
        "evaluations",
        "search_seconds",
        "images_seen",
        "widths",
    ]
    first = dict.fromkeys(columns, "") | {
        "method": "Mine",
        "model": "resnet20",
        "budget": "0.5",
        "seed": "0",
        "test_top1": "90",
        "macs": str(limit),
        "params": "9",
    }
    lines = [first, first | {"seed": "1"} | changes]
    return (
        "\n".join(",".join(line) for line in [columns, *(line.values() for line in lines)]) + "\n"
    )


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        *[
            (column, cell)
            for column in ("seed", "macs", "params")
            for cell in ("²", LONG, "-1", "", "1.0", "٣", " 1")
        ],
        ("macs", "0"),
        ("params", "0"),
        *[
            ("test_top1", cell)
            for cell in ("150", "-5", "1e308", "1e999", "NaN", "inf", "9_0", "²")
        ],
        ("test_top5", "100.1"),
        ("top1_search", "-0.1"),
        *[("evaluations", cell) for cell in ("0", "-3", "2.5", "1e300", "many")],
        *[("images_seen", cell) for cell in ("-1", "1e18", "0.5")],
        *[("search_seconds", cell) for cell in ("-1", "1e11", "nan")],
        *[("widths", cell) for cell in ("²", "8 ² 8", "x" * 20_000)],
        *[
            ("method", cell)
            for cell in ("", "  ", "a\x1b[31m", "a\x00", '"a\nb"', "x" * 300, "$\\frac$")
        ],
        ("model", "y" * 200_000),
        ("budget", "0.5\x00"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_wrong_line_is_refused(
    known: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, cell: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(own(known, **{column: cell}), encoding="utf-8")
    line = refusal(compare.main, [str(known.path), str(path)], known.path, capsys)
    assert line.startswith(f"{path}: line 3: ") or "cannot be read as CSV: line 3: " in line
    assert column in line or "limit" in line or "widths" in line
    assert len(line) < 1000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff", "is not text in UTF-8"),
        ("method,model\n".encode("utf-16"), "is not text in UTF-8"),
        (b"", "cannot be read as CSV: it is empty"),
        (b"\n\n", "cannot be read as CSV: it is empty"),
        (b"\x00\x00\x00", "has no column 'method'"),
        (b"method,model,method\nMine,resnet20,Mine\n", "line 1 has the column 'method' twice"),
        (b"method,model\nMine\n", "line 2 has 1 cells, and the first 2"),
        (b"method,model\n\nMine,a,b\n", "line 3 has 3 cells, and the first 2"),
        (b'method,model\n"Mine,a\n', "cannot be read as CSV: line 2: "),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    known: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, says: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    assert says in refusal(compare.main, [str(known.path), str(path)], known.path, capsys)


@pytest.mark.parametrize("what", ["a folder", "a pipe", "nothing"])
def test_what_is_no_file_is_refused(
    known: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path = tmp_path / "mine.csv"
    if what != "nothing":
        path.touch()
        DAMAGE[what](path)
    assert str(path) in refusal(compare.main, [str(known.path), str(path)], known.path, capsys)


@pytest.mark.parametrize("name", ["..csv", "my results.csv", "-x.csv", "two\nlines.csv", "é.csv"])
def test_the_files_name_must_be_plain(
    known: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / name
    path.write_text(own(known))
    line = refusal(compare.main, [str(known.path), str(path)], known.path, capsys)
    assert "rename it" in line and "is no plain name" in line


def test_a_broken_record_is_refused_before_anything_is_written(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(own(read(copied)))
    record = copied / "records/prepare@made/config.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("{")
    line = refusal(compare.main, [str(copied), str(path)], copied.parent, capsys)
    assert line.startswith(str(record))


def test_spreadsheets_are_read_as_they_write(study: Results, tmp_path: Path) -> None:
    """With a byte order mark, `\\r\\n`, blank lines, and whole numbers as 40.0."""
    path = tmp_path / "mine.csv"
    text = own(study, evaluations="40.0", test_top1=" 91.5").replace("\n", "\r\n") + "\r\n"
    path.write_bytes(text.encode("utf-8-sig"))
    found = compare.with_given(study, path)
    key = ("resnet20", "mine", "0.5")
    assert found.search[key][1].evaluations == 40
    assert found.test_top1(*key) == {0: 90, 1: 91.5}


def test_names_are_escaped_in_every_form(study: Results, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(own(study).replace("Mine", r"<b>a\|b_$&%#{}~^</b>"))
    given = compare.with_given(study, path)
    table = main_results(given)
    caption = captions.captions(given)["table3_main"]
    page = to_markdown(table, caption)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}
    assert bars == {1 + len(table.shown.columns)}
    assert "<b>" not in page and r"&lt;b>a\\\|b_$&%#{}~^&lt;/b>" in page
    assert escaped(r"a\|b_$&%#{}~^<") == (
        r"a\textbackslash{}\textbar{}b\_\$\&\%\#\{\}\textasciitilde{}\textasciicircum{}$<$"
    )
    html = template("report.html.jinja", autoescape=True).environment.from_string("{{ name }}")
    assert html.render(name='<b>"&') == "&lt;b&gt;&#34;&amp;"
