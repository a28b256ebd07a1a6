"""Kill the smoke study at random moments: `python -m tests.kills --times 50 --seed 0`.

Runs it once undisturbed and then again, ending the runner and all its processes by SIGKILL after a
random time, and starting it again, until it has been killed so often. Every file of results and
weights must then be what the undisturbed run left (but for times and logs), and no start may be
stuck. Prints a line a kill; exits with 1 if anything differs.
"""

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests import processes
from tests.experiments.test_pipeline import ENVIRONMENT, RESULTS, copy_repository

REPRO = (sys.executable, "-m", "experiments.repro")
OF_THE_RUN = ("run.json", "cout.txt", "report.html", "config.json")
"""Files with times, or with what was printed."""
MADE = ("results/smoke", "models", "data/fetched", "data/manifests", "checkpoints", "dvc.lock")
LONGEST = 12.0  # seconds before a kill
STUCK = 600.0  # seconds after which a start counts as stuck


def left_by(folder: Path) -> dict[str, str]:
    """Hashes of what a study leaves, but for what its times make different."""
    found = {}
    for top in (RESULTS, Path("models/smoke")):
        for path in sorted((folder / top).rglob("*")):
            relative = path.relative_to(folder)
            timed = path.name in OF_THE_RUN or "tables" in relative.parts
            if path.is_file() and not timed and "records" not in relative.parts:
                found[str(relative)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def kill_all(runner: "subprocess.Popen[str]") -> None:
    """End the runner and everything below it at once, as a power cut would."""
    everything = [psutil.Process(runner.pid)]
    with suppress(psutil.NoSuchProcess):
        everything += everything[0].children(recursive=True)
    for process in everything:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(everything, timeout=10)
    runner.communicate()


def run_killed(folder: Path, times: int, draw: random.Random) -> int:
    """Kill the study so often, and let it end whenever it comes to that; return the faults."""
    expected: dict[str, str] = {}
    killed = faults = 0
    while True:
        runner = processes.start(REPRO, folder, ENVIRONMENT)
        wait = draw.uniform(0.2, LONGEST) if killed < times and expected else STUCK
        with suppress(subprocess.TimeoutExpired):
            runner.communicate(timeout=wait)
        if runner.poll() is None:
            kill_all(runner)
            if wait == STUCK:
                print(f"a start was stuck after kill {killed}", flush=True)
                return faults + 1
            killed += 1
            print(f"kill {killed} after {wait:.1f} s", flush=True)
            continue
        if runner.returncode:
            print(f"a start failed with {runner.returncode} after kill {killed}", flush=True)
            return faults + 1
        found = left_by(folder)
        different = [name for name in found | expected if found.get(name) != expected.get(name)]
        if expected:
            faults += len(different)
            print(f"{len(found)} files, {len(different)} differ {different[:5]}", flush=True)
        expected = expected or found
        if killed >= times:
            return faults
        for name in MADE:
            path = folder / name  # everything anew: DVC's own cache must not answer
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(folder / ".dvc/cache", ignore_errors=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m tests.kills", description=str(__doc__).split("\n")[0]
    )
    options.add_argument("--times", type=int, default=50, help="(default: 50)")
    options.add_argument("--seed", type=int, default=0, help="(default: 0)")
    return options


def main() -> int:
    """Say how it went."""
    options = parser().parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        project = copy_repository(Path(folder))
        faults = run_killed(project, options.times, random.Random(options.seed))
    print(f"{options.times} kills, {faults} faults, {time.monotonic() - started:.0f} s")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
