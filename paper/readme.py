"""What README and docs/ quote of the results: `python -m paper.readme` writes it between marks.

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`. Numbers there are made, not typed: a
test holds the pages to the committed results.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from graphpruning.common.errors import UserError
from graphpruning.common.files import read_text, write_text
from paper import command, measures
from paper.captions import budget_amount, spread
from paper.claims import claims
from paper.reader.results import Results, read
from paper.wording import interval

ROOT = Path(__file__).parents[1]


def accuracies(results: Results) -> str:
    """Test accuracy of every method at every budget, of the study's first model."""
    model = results.models[0]
    base = measures.base_top1(results, model)
    macs = results.network(model).macs
    budgets = [budget_amount(results, budget, model) for budget in results.budgets]
    lines = [
        ["Method", *(f"Top-1 at {budget} of MACs" for budget in budgets)],
        [":--"] * (1 + len(budgets)),
        [f"base network, {macs / 1e6:.1f}M MACs", *([interval(base, 1)] * len(budgets))],
    ]
    for row in results.rows.values():
        found = [
            interval(measures.test_top1(results, model, row.name, budget), 1)
            for budget in results.budgets
        ]
        lines.append([row.label, *found])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"Test accuracy in percent: {spread(results)}.\n\n{table}"


def verdicts(results: Results) -> str:
    """The five claims and what this study says of each, in one sentence."""
    by_verdict: dict[str, list[str]] = {}
    for claim in claims(results):
        by_verdict.setdefault(claim.verdict, []).append(claim.id)
    said = [f"{', '.join(ids)} **{verdict}**" for verdict, ids in by_verdict.items()]
    return f"The paper's five claims in this study: {'; '.join(said)}."


def table3(results: Results) -> str:
    """The main table, as the study's results have it."""
    return read_text(results.path / "tables/table3_main.md", "the stage tables").strip()


PARTS: dict[str, dict[str, tuple[str, Callable[[Results], str]]]] = {
    "README.md": {"accuracies": ("desk", accuracies), "verdicts": ("desk", verdicts)},
    "docs/results.md": {"desk": ("desk", table3)},
}
"""By page and mark: whose results are quoted, and how."""


def filled(page: Path, parts: dict[str, str]) -> str:
    """The page's text with each part between its marks; `UserError` for a mark that is missing."""
    text = read_text(page, "git")
    for name, part in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise UserError(f"{page} lacks the marks <!-- {name} --> and <!-- /{name} -->")
        text = f"{before}{start}{part}\n{end}{after}"
    return text


def render(root: Path = ROOT) -> dict[Path, str]:
    """Every page as the results make it."""
    studies = {study for parts in PARTS.values() for study, _ in parts.values()}
    results = {study: read(root / "results" / study) for study in studies}
    return {
        root / page: filled(
            root / page, {name: make(results[study]) for name, (study, make) in parts.items()}
        )
        for page, parts in PARTS.items()
    }


def main() -> int:
    """Command line; returns the exit status."""

    def write() -> None:
        for page, text in render().items():
            write_text(page, text)

    return command.status(write)


if __name__ == "__main__":
    sys.exit(main())
