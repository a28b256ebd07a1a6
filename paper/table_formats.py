"""A table, and its forms: CSV for machines, Markdown and LaTeX for people.

The CSV holds plain numbers with fixed decimals, an empty cell where there is none; the other two
hold the same numbers rounded.
"""

import math
from dataclasses import dataclass

import pandas as pd

from paper.captions import Caption
from paper.statistics import Estimate
from paper.wording import fixed

Cells = dict[str, str]
NOWHERE = Estimate(math.nan, math.nan, math.nan, 0)
"""Where a table has no number."""


@dataclass(frozen=True)
class Table:
    """`csv` for machines and `shown` for people have the same rows, all cells as text.

    `stages` names the runs behind each row, where each row has its own.
    """

    name: str
    csv: pd.DataFrame
    shown: pd.DataFrame
    notes: tuple[str, ...] = ()
    stages: tuple[tuple[str, ...], ...] = ()


def made(name: str, rows: list[tuple[Cells, Cells]], *notes: str) -> Table:
    """A table of rows for machines and for people; the model is left out if there is only one."""
    csv, shown = pd.DataFrame([row[0] for row in rows]), pd.DataFrame([row[1] for row in rows])
    if "Model" in shown and shown["Model"].nunique() == 1:  # the caption has it
        shown = shown.drop(columns="Model")
    return Table(name, csv, shown, notes)


def spread(name: str, estimate: Estimate, digits: int) -> Cells:
    """The three cells of an estimate for machines: NAME, NAME_low, NAME_high."""
    return {
        name: fixed(estimate.value, digits),
        f"{name}_low": fixed(estimate.low, digits),
        f"{name}_high": fixed(estimate.high, digits),
    }


def to_csv(table: Table) -> str:
    """Plain numbers, a header line, line feeds."""
    return table.csv.to_csv(index=False, lineterminator="\n")


def to_markdown(table: Table, caption: Caption) -> str:
    """A pipe table under its caption, notes below."""
    rows = [table.shown.columns, [":--"] * len(table.shown.columns), *table.shown.to_numpy()]
    grid = "\n".join(f"| {' | '.join(map(_markdown_cell, cells))} |" for cells in rows)
    notes = "".join(f"\n{_markdown(note)}\n" for note in table.notes)
    return f"**{caption.label}.** {_markdown(caption.text)}\n\n{grid}\n{notes}"


def _markdown(text: str) -> str:
    """`text` for Markdown, where `<` would begin a tag of HTML."""
    return text.replace("<", "&lt;")


def _markdown_cell(text: str) -> str:
    """The same for a cell of a table, which ends at a bare `|`."""
    if "|" in text:  # a backslash before it would take the escaping away
        text = text.replace("\\", "\\\\").replace("|", "\\|")
    return _markdown(text)


def to_latex(table: Table, caption: Caption) -> str:
    """A `table*` environment for any document that loads booktabs."""
    body = (
        table.shown.style.hide(axis="index")
        .format(escaped)
        .format_index(escaped, axis="columns")
        .to_latex(
            hrules=True,
            environment="table*",
            position="tb",
            position_float="centering",
            column_format="".join("r" if numeric(table.shown[c]) else "l" for c in table.shown),
            caption=escaped(caption.text),
            label=f"tab:{table.name}",
        )
    )
    characters = sum(max(map(len, [str(c), *table.shown[c]])) for c in table.shown)
    filled = characters + _GAP * len(table.shown.columns)
    size, gap = ("footnotesize", 3.5) if filled <= _FOOTNOTESIZE else ("scriptsize", 3)
    setting = f"\\centering\n\\{size}\n\\setlength{{\\tabcolsep}}{{{gap}pt}}\n"
    notes = "".join(f"\\par {escaped(note)}\n" for note in table.notes)
    end = "\\end{table*}"
    return body.replace("\\centering\n", setting).replace(end, notes + end)


_FOOTNOTESIZE, _GAP = 124, 2
"""Characters in a row that fit on a 7 in wide page at that size; what is between two columns."""


def numeric(cells: "pd.Series[str]") -> bool:
    """Whether a shown column holds numbers and em dashes, so that it aligns right."""
    return bool(cells.str.fullmatch(r"[+−<]?[\d.,]+( \[[^\]]*\]| ± [\d.,]+)?|—").all())


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "[": "{[}",  # after a line end LaTeX would take it for the optional argument
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "²": "$^2$",
    "¼": r"$\frac{1}{4}$",
    "τ": r"$\tau$",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
}


def escaped(text: object) -> str:
    """`text` for LaTeX: special characters and the symbols that we use."""
    return "".join(_LATEX.get(character, character) for character in str(text))
