"""Every study's evidence on the five claims as one page: `python -m paper.verdicts`.

Writes `paper/claims.md` from the studies whose results are committed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from graphpruning.common.files import write_text
from paper import channel_bench, command
from paper.claims import STATEMENTS, Claim, claims
from paper.pages import template
from paper.reader.results import read
from paper.rule import UNTESTED

RESULTS = Path("results")
COMMITTED = ("fashion", "aggregators", "desk", "pretrained")
PAGE = Path(__file__).with_name("claims.md")


def render(results: Path, names: Sequence[str] = COMMITTED) -> str:
    """The page as Markdown, of the studies `names` and, if it is there, of channel-bench."""
    studies: dict[str, dict[str, Claim]] = {}
    for name in names:
        studies[name] = {claim.id: claim for claim in claims(read(results / name))}
    truth = []
    if (bench := results / channel_bench.STUDY).exists():
        scored = channel_bench.read(bench)
        truth = [channel_bench.agrees(scored), channel_bench.finds(scored)]
    page = template("claims.md.jinja", autoescape=False)
    return page.render(statements=STATEMENTS, studies=studies, truth=truth, untested=UNTESTED)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return command.alone(
        "Make claims.md of the committed studies.",
        lambda: write_text(PAGE, render(RESULTS)),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
