"""Every study's evidence on the five claims as one page: `python -m paper.verdicts`.

Writes `paper/claims.md` from all folders of `results/` that hold a study.
"""

import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from graphpruning.errors import UserError
from graphpruning.files import write_text
from paper.claims import STATEMENTS, Claim, claims
from paper.results import read

RESULTS = Path("results")
PAGE = Path(__file__).with_name("claims.md")


def render(results: Path) -> str:
    """The page as Markdown, studies in the order of their names."""
    studies: dict[str, dict[str, Claim]] = {}
    for study in sorted(results.glob("*/study.json")):
        found = claims(read(study.parent))
        studies[study.parent.name] = {claim.id: claim for claim in found}
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
