"""Tables 1 to 6, 2b and 3b as CSV, Markdown and LaTeX: `python -m paper.tables results/STUDY`.

Every file is byte-identical on every run.
"""

import sys
from collections.abc import Sequence

from graphpruning.common.files import write_text
from paper import command
from paper.captions import captions
from paper.reader.results import Results
from paper.table_ablations import ablations
from paper.table_costs import costs
from paper.table_formats import Table, to_csv, to_latex, to_markdown
from paper.table_generated import conditioning, generated_weights
from paper.table_main import main_results, second_results
from paper.table_networks import correlation
from paper.table_published import imagenet


def tables(results: Results) -> list[Table]:
    """All of them in their order; of a study without methods the first, if that can be made."""
    made = [correlation(results)] if results.compared else []
    if results.rows:
        made += [
            generated_weights(results),
            conditioning(results),
            main_results(results),
            *([second_results(results.second)] if results.second else []),
            ablations(results),
            imagenet(results),
            costs(results),
        ]
    return made


def write(results: Results) -> None:
    """Write every table into results/STUDY/tables."""
    words = captions(results)
    for table in tables(results):
        path = results.path / "tables" / table.name
        write_text(path.with_suffix(".csv"), to_csv(table))
        write_text(path.with_suffix(".md"), to_markdown(table, words[table.name]))
        write_text(path.with_suffix(".tex"), to_latex(table, words[table.name]))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return command.run("Make tables 1 to 6 from a study's results.", write, argv)


if __name__ == "__main__":
    sys.exit(main())
