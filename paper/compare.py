"""Your own method beside a study's: `python -m paper.compare results/STUDY my_results.csv`.

The file has one line for each network: the columns `REQUIRED`, and any of `OPTIONAL`. Tables,
figures and report with its rows are written to results/STUDY/compare/NAME; the study's own stay
as they are, and so do the verdicts on the claims.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from graphpruning.common.errors import UserError
from graphpruning.common.files import read_json, read_text
from graphpruning.common.names import require_plain
from paper import command, figures, report, tables
from paper.reader.columns import HISTORY
from paper.reader.contents import Final, Row, Search
from paper.reader.reading import (
    COUNT,
    LABEL,
    PERCENT,
    SECONDS,
    Number,
    Text,
    clipped,
    is_written_number,
    table,
)
from paper.reader.results import GIVEN, Results, read

REQUIRED = {
    "method": "its name, as it is to be shown",
    "model": "a model of the study",
    "budget": "a budget of the study, written as there",
    "seed": "a whole number; it is compared with the study's replicate of the same seed",
    "test_top1": "percent, on the test set, read once",
    "macs": "multiply-accumulates of one image",
    "params": "parameters",
}
OPTIONAL = {
    "test_top5": "percent",
    "top1_search": "percent, on the search split",
    "evaluations": "candidates that the search judged",
    "search_seconds": "what the search took",
    "images_seen": "images that the search ran through candidates",
    "widths": "channels kept of each prunable group in forward order, such as `8 16 24`",
}


def with_given(results: Results, path: Path) -> Results:
    """`results` with the rows of `path`, in a folder of their own beside the study's.

    Raises `UserError` for a file that lacks something, and for networks above the budget.
    """
    folder = (
        results.path
        / "compare"
        / require_plain(path.stem, f"{path}: rename it, a folder has its name")
    )
    lines = _read(path)
    _check_lines(results, path, lines)
    rows, search, final = dict(results.rows), dict(results.search), dict(results.final)
    for label in dict.fromkeys(line.cells["method"] for line in lines):
        name = re.sub(r"\W+", "-", label.lower()).strip("-") or GIVEN
        if name == "base" or name in rows or label in {row.label for row in rows.values()}:
            raise UserError(f"{path}: there is a method {label!r} already: rename yours")
        rows[name] = _row(name, label, path.name, rows)
        for model in results.models:
            for budget in results.budgets:
                key = (model, name, budget)
                there = [line for line in lines if line.is_of(label, model, budget)]
                if not there:
                    raise UserError(
                        f"{path}: {label} has no line for model {model}, budget {budget}"
                    )
                search[key], final[key] = _networks(results, key, there)
    return replace(results, path=folder, up="../../", rows=rows, search=search, final=final)


@dataclass(frozen=True)
class _Line:
    """A line of the file, by column; `where` names it in a refusal."""

    where: str
    cells: dict[str, str]

    def is_of(self, method: str, model: str, budget: str) -> bool:
        return (self.cells["method"], self.cells["model"], self.cells["budget"]) == (
            method,
            model,
            budget,
        )

    def refusal(self, column: str, wanted: str) -> UserError:
        text = clipped(self.cells.get(column, ""))
        return UserError(f"{self.where}: {column} is {text}, not {wanted}")

    def number(self, column: str, kind: Number) -> float:
        """A cell's number; NaN where an optional one is not there."""
        text = self.cells.get(column, "").strip()
        if not text and column in OPTIONAL:
            return math.nan
        if not is_written_number(text, whole=False):
            raise self.refusal(column, "a number")
        value = float(text)
        whole = kind.whole and value.is_integer()  # spreadsheets write 40 as 40.0
        if not kind.accepts(int(value) if whole else value):
            raise self.refusal(column, str(kind))
        return value

    def whole(self, column: str, least: int) -> int:
        """A cell of the digits 0 to 9 alone."""
        text = self.cells[column]
        kind = Number(least, COUNT.high, whole=True)
        if not re.fullmatch(r"[0-9]+", text):
            raise self.refusal(column, "a whole number")
        if len(text) > _DIGITS or not kind.accepts(int(text)):
            raise self.refusal(column, str(kind))
        return int(text)


_EVALUATIONS = Number(1, 10**9, whole=True)
_DIGITS = 18
"""Of the longest numbers that are read."""
_LONGEST = 10_000
"""Characters of a cell; widths of thousand groups are shorter."""


def _read(path: Path) -> list[_Line]:
    """The lines of a file with the columns that it must have, and text of one line in each cell."""
    if not os.path.exists(path):
        raise UserError(f"{path} cannot be read: there is no such file, or no way to it")
    try:
        header, rows = table(read_text(path, "saving it as CSV (UTF-8)").removeprefix("\ufeff"))
    except ValueError as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from None
    if twice := [column for column in header if header.count(column) > 1]:
        raise UserError(f"{path}: line 1 has the column {clipped(twice[0])} twice")
    if missing := [column for column in REQUIRED if column not in header]:
        raise UserError(f"{path} has no column {missing[0]!r}: {REQUIRED[missing[0]]}")
    if unknown := [column for column in header if column not in (*REQUIRED, *OPTIONAL)]:
        raise UserError(
            f"{path} has an unknown column {clipped(unknown[0])}; known: "
            f"{', '.join((*REQUIRED, *OPTIONAL))}"
        )
    if not rows:
        raise UserError(f"{path} has no lines")
    return [
        _Line(f"{path}: line {number}", dict(zip(header, cells, strict=True)))
        for number, cells in rows
    ]


def _check_lines(results: Results, path: Path, lines: list[_Line]) -> None:
    """No line may be left out in silence, nor count twice."""
    seen = set()
    for line in lines:
        for column, text in line.cells.items():
            kind = LABEL if column == "method" else Text(0, _LONGEST)
            if not kind.accepts(text):
                raise line.refusal(column, str(kind))
        for column, known in (("model", results.models), ("budget", results.budgets)):
            if line.cells[column] not in known:
                raise UserError(
                    f"{line.where}: the study has no {column} {clipped(line.cells[column])}, "
                    f"but {', '.join(known)}"
                )
        seed = line.whole("seed", 0)
        line.whole("macs", 1)
        line.whole("params", 1)
        network = (*(line.cells[column] for column in ("method", "model", "budget")), seed)
        if network in seen:
            raise UserError(f"{line.where} has a seed a second time")
        seen.add(network)


def _row(name: str, label: str, file: str, rows: dict[str, Row]) -> Row:
    """The method as a row, in a colour and with a marker that no other row has."""
    taken = {row.colour.upper() for row in rows.values()}, {row.marker for row in rows.values()}
    colour, marker = (
        next((one for one in choices if one not in those), choices[len(rows) % len(choices)])
        for choices, those in zip((_COLOURS, _MARKERS), taken, strict=True)
    )
    return Row(
        name=name,
        label=label,
        source=GIVEN,
        state="nothing",
        searcher=file,
        kind=GIVEN,
        initial=None,
        distilled=False,
        stage="",
        colour=colour,
        marker=marker,
        line=(0, (1, 1)),
    )


_COLOURS = (  # Okabe and Ito's, then Tol's "muted" ones: told apart by colour-blind readers
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#332288", "#757575", "#117733", "#AA4499", "#44AA99"),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8", "H")


def _networks(
    results: Results, key: tuple[str, str, str], lines: list[_Line]
) -> tuple[dict[int, Search], dict[int, Final]]:
    model, method, budget = key
    limit = results.budget_macs(model, budget)
    full = results.network(model).graph.prunable
    found: dict[int, Search] = {}
    trained: dict[int, Final] = {}
    for line in lines:
        macs, params, seed = line.whole("macs", 1), line.whole("params", 1), line.whole("seed", 0)
        if macs > limit:
            raise UserError(f"{line.where}: {macs:,} MACs are more than the budget of {limit:,}")
        top1 = line.number("top1_search", PERCENT)
        evaluations = line.number("evaluations", _EVALUATIONS)
        found[seed] = Search(
            method=method,
            budget=budget,
            budget_macs=limit,
            top1_search=top1,
            macs=macs,
            params=params,
            evaluations=evaluations,
            images_seen=line.number("images_seen", COUNT),
            distinct=math.nan,
            seconds=line.number("search_seconds", SECONDS),
            widths=_widths(line, full),
            history=_end(evaluations, macs, top1),
            run=None,
        )
        trained[seed] = Final(
            method=method,
            budget=budget,
            initial="",
            search_top1_before=None,
            test_top1=line.number("test_top1", PERCENT),
            test_top5=line.number("test_top5", PERCENT),
            macs=macs,
            params=params,
            epochs=0,
            architecture="",
            run=None,
        )
    return found, trained


def _end(evaluations: float, macs: int, top1: float) -> pd.DataFrame:
    """A history of the last candidate alone; without rows where the file does not tell it."""
    unknown = math.isnan(evaluations + top1)
    lines = [] if unknown else [(int(evaluations), macs, top1, top1, "")]
    return pd.DataFrame(lines, columns=list(HISTORY))


def _widths(line: _Line, full: dict[str, int]) -> dict[str, int]:
    """The widths of a line, or none where they are not there."""
    kept = line.cells.get("widths", "").split()
    if not kept:
        return {}
    if len(kept) != len(full) or not all(
        re.fullmatch(r"[0-9]{1,9}", width) and 0 < int(width) <= most
        for width, most in zip(kept, full.values(), strict=True)
    ):
        raise UserError(
            f"{line.where}: widths are not {len(full)} whole numbers up to {list(full.values())} "
            f"({', '.join(full)})"
        )
    return dict(zip(full, map(int, kept), strict=True))


def write(results: Results) -> None:
    """Write tables, figures and report to the folder of `results`."""
    for part in (tables, figures, report):
        part.write(results)


def _check_records(study: Results) -> None:
    """Refuse a record that the report could not show, before any table or figure is written."""
    for run in study.runs:
        record = study.path / run.record / "config.json"
        if record.is_file():
            read_json(record, f"the stage {run.stage}")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    columns = "; ".join(f"{name}: {what}" for name, what in (REQUIRED | OPTIONAL).items())
    parser = argparse.ArgumentParser(
        description="Show your own method beside a study's.", epilog=f"Columns. {columns}."
    )
    parser.add_argument("results", type=Path, metavar="results/STUDY", help="a study's results")
    parser.add_argument("method", type=Path, metavar="my_results.csv", help="your results")
    arguments = parser.parse_args(argv)

    def compare() -> None:
        study = read(arguments.results)
        results = with_given(study, arguments.method)
        _check_records(study)
        write(results)
        print(results.path / "report.html")

    return command.status(compare)


if __name__ == "__main__":
    sys.exit(main())
