"""The command lines of this folder: refusals, help, and the one argument that most have."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from graphpruning.common.errors import UserError
from paper.reader.results import Results, read


def run(description: str, make: Callable[[Results], None], argv: Sequence[str] | None) -> int:
    """Read the results folder named in `argv` and hand it to `make`; return the exit status.

    What the user can mend is one line on standard error and status 2.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("results", type=Path, metavar="results/STUDY", help="a study's results")
    arguments = parser.parse_args(argv)
    return status(lambda: make(read(arguments.results)))


def alone(description: str, make: Callable[[], object], argv: Sequence[str] | None) -> int:
    """As `run`, for a command that takes nothing: it reads the committed studies."""
    argparse.ArgumentParser(description=description).parse_args(argv)
    return status(make)


def status(work: Callable[[], object]) -> int:
    """Do the work; the exit status is 2 after a refusal, which is one line on standard error."""
    try:
        work()
    except UserError as refusal:
        # One line even where a file's name, which the message holds, has several.
        print(" ".join(str(refusal).splitlines()), file=sys.stderr)
        return 2
    return 0
