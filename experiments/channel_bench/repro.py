"""Run this pipeline from the images to what the truth says: `make channel-bench`.

Its stages run side by side, as those of a study do (`experiments.repro`).
"""

import sys

from experiments.channel_bench.study import STUDY_FILE, parse
from experiments.common.study_file import read_study_file
from experiments.locks import only_runner
from experiments.repro import run_here
from graphpruning.common.errors import UserError
from graphpruning.common.machine import end_on_signals, refuse

PIPELINE = "channel_bench/dvc.yaml"


def main() -> int:
    """Command line, without arguments; returns the exit status."""
    end_on_signals()
    try:
        study = parse(read_study_file(STUDY_FILE), str(STUDY_FILE))
        with only_runner():
            run_here(study, force=False, pipeline=PIPELINE)
    except UserError as refusal:
        return refuse(refusal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
