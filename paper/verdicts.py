"""Every study's evidence on the five claims as one page: `python -m paper.verdicts`.

Writes `paper/claims.md` from the studies whose results are committed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from graphpruning.errors import UserError
from graphpruning.files import write_text
from paper.claims import STATEMENTS, Claim, claims
from paper.results import read

RESULTS = Path("results")
COMMITTED = ("desk", "pretrained")
PAGE = Path(__file__).with_name("claims.md")


def render(results: Path, names: Sequence[str] = COMMITTED) -> str:
    """The page as Markdown, of the studies `names` below `results`."""
    studies: dict[str, dict[str, Claim]] = {}
    for name in names:
        studies[name] = {claim.id: claim for claim in claims(read(results / name))}
    environment = Environment(
        loader=FileSystemLoader(PAGE.parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    template = environment.get_template("claims.md.jinja")
    return template.render(statements=STATEMENTS, studies=studies)


def main() -> int:
    """Command line; returns the exit status."""
    try:
        write_text(PAGE, render(RESULTS))
    except UserError as refusal:
        print(refusal, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
