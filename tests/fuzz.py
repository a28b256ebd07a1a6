"""Damaged and hostile files against every reader: `python -m tests.fuzz --cases 1000 --seed 0`.

Each case is a whole file of ours, changed at random, and read as its reader reads it. It may be
accepted, or refused by a `UserError` of one line. Anything else is a fault: another error, more
than `SECONDS`, or a file that is not as it was. Prints the counts by kind and outcome, and exits
with 1 after a fault. Bounded by `--seconds`.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from torch import nn

from experiments import pretrained
from experiments.common.study import read as read_study
from experiments.common.study_file import read_study_file
from graphpruning import load_architecture, narrow, trace
from graphpruning.architecture import save_architecture
from graphpruning.common.errors import UserError
from graphpruning.network.zoo import build
from graphpruning.training import imagenet
from graphpruning.training.checkpoint import Checkpoint
from graphpruning.training.listing import list_images, read_manifest, write_manifest
from graphpruning.training.pretrained import load_pretrained
from paper.compare import with_given
from paper.reader.results import Results, read
from tests import miniature

ROOT = Path(__file__).parents[1]
SECONDS = 5.0
"""What a case may take."""
OUTCOMES = ("accepted", "refused", "traceback", "hang", "changed")

NASTY: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e9,
    10**30,
    10**400,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\u00b2",
    "../../x",
    "/dev/zero",
    "a\0b",
    "a\nb",
    "${title}",
    "$(touch pwned)",
    "1e400",
    [],
    {},
    [[]],
    [1, [2, [3, [4]]]],
    {"a": {"b": 1}},
    "9" * 5000,
    "x" * 100_000,
)


class Hang(BaseException):
    """A case takes too long; no reader may catch it."""


@dataclass(frozen=True)
class Target:
    """A kind of file: `path` is changed by `change`, and read by `read`."""

    path: Path
    change: Callable[[random.Random, bytes], bytes]
    read: Callable[[], object]


def flipped(random: random.Random, content: bytes) -> bytes:
    """The same bytes but for one bit, a cut, a piece that is doubled, lost or noise, or no text."""
    kind = random.choice(("bit", "bit", "cut", "double", "lose", "noise", "utf-16", "nested"))
    changed = bytearray(content)
    at = random.randrange(len(content) + 1)
    end = min(len(content), at + random.randrange(1, 200))
    if kind == "bit" and at < len(content):
        changed[at] ^= 1 << random.randrange(8)
    elif kind == "cut":
        del changed[at:]
    elif kind == "double":
        changed[at:at] = changed[at:end]
    elif kind == "lose":
        del changed[at:end]
    elif kind == "noise":
        changed[at:end] = random.randbytes(end - at)
    elif kind == "utf-16":
        changed = bytearray(content.decode("latin-1").encode("utf-16"))
    elif kind == "nested":
        changed[at:at] = b"[" * 1500
    return bytes(changed)


def restructured(
    parse: Callable[[bytes], Any], write: Callable[[Any], bytes]
) -> Callable[[random.Random, bytes], bytes]:
    """Like `flipped`, but half of the cases change a value of what the bytes say."""

    def change(random: random.Random, content: bytes) -> bytes:
        if random.random() < 0.3:
            return flipped(random, content)
        value = deepcopy(parse(content))
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            place, key = random.choice(list(places(value)) or [(None, None)])
            if place is None:
                break
            if random.random() < 0.15:
                del place[key]
            elif random.random() < 0.1 and isinstance(place, dict):
                place[random.choice(("x", "", "width", "../x"))] = random.choice(NASTY)
            else:
                place[key] = random.choice(NASTY)
        return write(value)

    return change


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in `value` with each of its keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    if isinstance(value, dict | list):
        for key, part in list(pairs):
            yield value, key
            if isinstance(part, dict | list):
                yield from places(part)


def of_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def of_yaml(value: Any) -> bytes:
    text: str = yaml.safe_dump(value)
    return text.encode()


def rows_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(StringIO(content.decode())))


def of_rows(rows: Any) -> bytes:
    text = StringIO()
    lines = [row if isinstance(row, list) else [row] for row in rows]
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode("utf-8", "surrogatepass")


json_change = restructured(json.loads, of_json)
csv_change = restructured(rows_of, of_rows)


def targets(folder: Path) -> dict[str, list[Target]]:
    """Whole files of each kind, made in `folder`."""
    return {
        "study": _studies(folder / "studies"),
        "architecture": _architecture(folder / "architecture"),
        "results": _results(folder / "results"),
        "compare": _compare(folder / "compare"),
        "archive": _archives(folder / "imagenet"),
        "weights": _weights(folder / "weights"),
        "images": _manifest(folder / "images"),
    }


def _studies(folder: Path) -> list[Target]:
    shutil.copytree(ROOT / "studies", folder)
    change = restructured(yaml.safe_load, of_yaml)
    studies = [Target(path, change, lambda p=path: read_study(p)) for path in folder.iterdir()]
    ready = folder.with_name("pretrained.yaml")
    shutil.copy(ROOT / "pretrained/params.yaml", ready)

    def read_ready() -> object:
        return pretrained.parse(read_study_file(ready), str(ready))

    return [*sorted(studies, key=lambda target: target.path), Target(ready, change, read_ready)]


def _architecture(folder: Path) -> list[Target]:
    model = build("resnet8", 10, in_channels=1, width=8)
    graph = trace(model, (1, 16, 16))
    widths = {group: 4 for group in graph.full_widths}
    path, weights = folder / "architecture.json", folder / "weights.safetensors"
    save_architecture(
        path,
        weights,
        narrow(model, graph, widths),
        network={"name": "resnet8", "num_classes": 10, "in_channels": 1, "width": 8},
        input_size=(1, 16, 16),
        widths=widths,
        preprocessing={"mean": [0.5], "std": [0.25]},
    )
    return [
        Target(path, json_change, lambda: load_architecture(path)),
        Target(weights, flipped, lambda: load_architecture(path)),
    ]


def _results(folder: Path) -> list[Target]:
    """A study's results and those beside it; only what a reader of results opens."""
    for name in ("desk", "pretrained"):
        shutil.copytree(
            ROOT / "results" / name,
            folder / name,
            ignore=shutil.ignore_patterns("figures", "tables", "records"),
        )
    changes = {".json": json_change, ".csv": csv_change, ".txt": flipped}
    return [
        Target(path, changes[path.suffix], lambda: read(folder / "desk"))
        for path in sorted((folder / "desk").rglob("*"))
        if path.suffix in changes and path.name != "architecture.json"
    ]


def _compare(folder: Path) -> list[Target]:
    shutil.copytree(ROOT / "results/desk", folder / "desk")
    shutil.copytree(ROOT / "results/pretrained", folder / "pretrained")
    results: Results = read(folder / "desk")
    path = folder / "mine.csv"
    lines = [["method", "model", "budget", "seed", "test_top1", "macs", "params", "evaluations"]]
    lines += [
        ["Mine", model, budget, str(seed), "70.5", "1000000", "1000", "25"]
        for model in results.models
        for budget in results.budgets
        for seed in (0, 1)
    ]
    path.write_bytes(of_rows(lines))
    return [Target(path, csv_change, lambda: with_given(results, path))]


def _archives(folder: Path) -> list[Target]:
    miniature.build(folder / "whole", classes=2, train=2, val=2)

    def prepare() -> None:
        """As from archives that were just downloaded, with sums that agree."""
        fresh = folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(folder / "whole", fresh)
        miniature.write_sums(fresh)
        imagenet.prepare(fresh)

    return [Target(folder / "whole" / name, flipped, prepare) for name in miniature.ARCHIVES]


def _weights(folder: Path) -> list[Target]:
    def model() -> nn.Module:
        return build("resnet8", 10, in_channels=1, width=4)

    checkpoint = Checkpoint(folder / "checkpoint.pt", {"seed": 0})
    checkpoint.save({"model": model().state_dict(), "records": [{"epoch": 1.0}]})
    path = folder / "weights.pth"
    torch.save(model().state_dict(), path)
    return [
        Target(path, flipped, lambda: load_pretrained(model(), "resnet8", str(path))),
        Target(checkpoint.path, flipped, checkpoint.load),
    ]


def _manifest(folder: Path) -> list[Target]:
    draw = miniature.np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (folder / part / name).mkdir(parents=True)
            (folder / part / name / "1.jpg").write_bytes(miniature.image(draw, label, 2))
    path = folder / "manifest.tsv.gz"
    write_manifest(path, {"train": list_images("folder", folder, True)})
    return [Target(path, flipped, lambda: read_manifest(path, folder, "train"))]


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the block after so many seconds."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(target: Target, random: random.Random) -> tuple[str, str]:
    """Read the file changed, put it back, and say what came of it."""
    whole = target.path.read_bytes()
    changed = target.change(random, whole)
    target.path.write_bytes(changed)
    try:
        with limited(SECONDS), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            target.read()
        found = ("accepted", "")
    except UserError as refusal:
        one_line = len(str(refusal).splitlines()) == 1
        found = ("refused", str(refusal)) if one_line else ("traceback", repr(refusal))
    except Hang:
        found = ("hang", "")
    except Exception as error:  # whatever it is, that is the finding
        found = ("traceback", repr(error)[:300])
    if target.path.read_bytes() != changed:
        found = ("changed", found[1])
    target.path.write_bytes(whole)
    return found


def fuzz(cases: int, seed: int, seconds: float, log: Path | None = None) -> dict[str, Counter[str]]:
    """Run `cases` cases of each kind, as far as time allows; return counts by kind."""
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder, "canary")
        canary.write_text("as it was")
        for kind, listed in targets(Path(folder, "work")).items():
            counts[kind] = Counter()
            end = time.monotonic() + seconds
            for number in range(cases):
                if time.monotonic() > end:
                    break
                draw = random.Random(f"{seed} {kind} {number}")
                found, why = outcome(draw.choice(listed), draw)
                counts[kind][found] += 1
                if log is not None and found not in ("accepted", "refused"):
                    with open(log, "a", encoding="utf-8") as file:
                        file.write(f"{kind} seed {seed} case {number}: {found}: {why}\n")
        if sorted(os.listdir(folder)) != ["canary", "work"] or canary.read_text() != "as it was":
            counts["elsewhere"] = Counter(changed=1)
    return counts


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.split("\n")[0]
    )
    options.add_argument("--cases", type=int, default=200, help="of each kind (default: 200)")
    options.add_argument("--seed", type=int, default=0, help="(default: 0)")
    options.add_argument("--seconds", type=float, default=120, help="a kind at most (default: 120)")
    options.add_argument("--log", type=Path, help="a file for the faults")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a kind; faults go to a file too."""
    options = parser().parse_args(arguments)
    counts = fuzz(options.cases, options.seed, options.seconds, options.log)
    print(f"{'kind':<14}" + "".join(f"{name:>11}" for name in OUTCOMES))
    for kind, found in counts.items():
        print(f"{kind:<14}" + "".join(f"{found[name]:>11}" for name in OUTCOMES))
    return int(any(found[name] for found in counts.values() for name in OUTCOMES[2:]))


if __name__ == "__main__":
    sys.exit(main())
