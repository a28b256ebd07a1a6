"""What a stage computes before it does anything: up to its first batch, against `import torch`."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import Row, alternate, processor_seconds

ROOT = Path(__file__).resolve().parents[1]
STAGES = {
    "train_base": "model=resnet8 seed=0",
    "train_pruningnet": "model=resnet8 conditioning=graph seed=0",
    "search": "model=resnet8 method=graphpruning budget=0.5 seed=0",
}
AGAINST = "import torch"
REACHED = 77  # exit code of a stage that has come to its first batch
STOPPED_THERE = f"""
import os, runpy, sys
sys.argv[0] = "-m"  # what experiments/__init__.py finds under `python -m`
import experiments
sys.argv = sys.argv[1:]
if sys.argv[0] == "experiments.search":
    from graphpruning.search.evaluator import Evaluator as owner
    method = "__call__"
else:
    from torch.optim import SGD as owner
    method = "zero_grad"
inner = getattr(owner, method)
def reached(*arguments, **settings):
    inner(*arguments, **settings)
    os._exit({REACHED})
setattr(owner, method, reached)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a stage until its first batch has moved the weights, or its first candidate is judged."""


def rows() -> list[Row]:
    """Processor seconds of three stages' starts in the study smoke, which is made ready first."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "params.yaml").write_bytes((ROOT / "studies/smoke.yaml").read_bytes())
        _run(folder, "-m", "experiments.prepare")
        _run(folder, "-m", "experiments.train_pruningnet", "with", *_items("train_pruningnet"))
        works: dict[str, Callable[[int], None]] = {
            stage: partial(_to_first_batch, folder, stage) for stage in STAGES
        }
        works["torch"] = lambda repeat: _run(folder, "-c", "import torch")
        found = alternate(works, measure=processor_seconds)
    torch = found.pop("torch")
    return [
        Row(f"start of {stage}, to the end of its first batch", AGAINST, "CPU s", ours, torch, 1.7)
        for stage, ours in found.items()
    ]


def _to_first_batch(folder: Path, stage: str, repeat: int) -> None:
    """Run `stage` in `folder`, where the study is ready, and end it there."""
    words = (f"experiments.{stage}", "with", *_items(stage))
    _run(folder, "-c", STOPPED_THERE, *words, code=REACHED)


def _items(stage: str) -> list[str]:
    return STAGES[stage].split()


def _run(folder: Path, *command: str, code: int = 0) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode != code:
        raise RuntimeError(f"{command[-1]}: exit code {done.returncode}: {done.stderr}")
