"""What one waits for before anything happens: imports, `--help`, a pipeline with nothing to do."""

import subprocess
import sys

from benchmarks.harness import Row, alternate
from experiments.pipeline import PIPELINE


def _run(*command: str) -> None:
    subprocess.run([sys.executable, *command], check=True, capture_output=True)


def rows() -> list[Row]:
    """Seconds, against fixed bounds, and `dvc repro` against `dvc status`.

    The committed study must be up to date: `dvc repro` is not to run a stage here.
    """
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--quiet", PIPELINE])
    found = alternate(
        {
            "import": lambda repeat: _run("-c", "import graphpruning"),
            "names": lambda repeat: _run("-c", "from graphpruning import *"),
            "help": lambda repeat: _run("-m", "graphpruning", "--help"),
        }
    )
    rows = [
        Row("import graphpruning", "3 s", "s", found["import"], [3.0] * len(found["import"]), 1),
        Row(
            "all its names with what they need",
            "3 s",
            "s",
            found["names"],
            [3.0] * len(found["names"]),
        ),
        Row("graphpruning --help", "0.3 s", "s", found["help"], [0.3] * len(found["help"]), 1),
    ]
    if status.returncode:
        print("dvc: the study is not up to date, so `dvc repro` is not timed: `make repro` first")
        return rows
    taken = alternate(
        {
            "repro": lambda repeat: _run("-m", "dvc", "repro"),
            "status": lambda repeat: _run("-m", "dvc", "status", PIPELINE),
        }
    )
    what = "a second dvc repro"
    return [*rows, Row(what, "dvc status", "s", taken["repro"], taken["status"], 1.5)]
