"""Your own method beside a study's: `python -m paper.compare results/STUDY my_results.csv`.

The file has one line for each network: the columns `REQUIRED`, and any of `OPTIONAL`. Tables,
figures and report with its rows are written to results/STUDY/compare/NAME; the study's own stay
as they are, and so do the verdicts on the claims.
"""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from graphpruning.errors import UserError
from paper import command, figures, report, tables
from paper.results import GIVEN, HISTORY, Final, Found, Results, Row, Search, Trained, read

REQUIRED = {
    "method": "its name, as it is to be shown",
    "model": "a model of the study",
    "budget": "a budget of the study, written as there",
    "seed": "a whole number; those that the study has too are compared in pairs",
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
    frame = _read(path)
    _check_lines(results, path, frame)
    rows, search, final = dict(results.rows), dict(results.search), dict(results.final)
    for label, of_method in frame.groupby("method", sort=False):
        name = re.sub(r"\W+", "-", str(label).lower()).strip("-") or GIVEN
        if name == "base" or name in rows or label in {row.label for row in rows.values()}:
            raise UserError(f"{path}: there is a method {label!r} already: rename yours")
        rows[name] = Row(name, str(label), GIVEN, "nothing", path.name, GIVEN)
        for model in results.models:
            for budget in results.budgets:
                there = (of_method["model"] == model) & (of_method["budget"] == budget)
                if not there.any():
                    raise UserError(
                        f"{path}: {label} has no line for model {model}, budget {budget}"
                    )
                key = (model, name, budget)
                search[key], final[key] = _networks(results, path, key, of_method[there])
    folder = results.path / "compare" / path.stem
    return replace(results, path=folder, up="../../", rows=rows, search=search, final=final)


def _read(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from None
    if missing := [column for column in REQUIRED if column not in frame]:
        raise UserError(f"{path} has no column {missing[0]!r}: {REQUIRED[missing[0]]}")
    if unknown := [column for column in frame if column not in (*REQUIRED, *OPTIONAL)]:
        raise UserError(
            f"{path} has an unknown column {unknown[0]!r}; known: "
            f"{', '.join((*REQUIRED, *OPTIONAL))}"
        )
    if frame.empty:
        raise UserError(f"{path} has no lines")
    return frame


def _check_lines(results: Results, path: Path, frame: pd.DataFrame) -> None:
    """No line may be left out in silence, nor count twice."""
    for number, line in enumerate(frame.to_dict("records"), 2):
        for column, known in (("model", results.models), ("budget", results.budgets)):
            if line[column] not in known:
                raise UserError(
                    f"{path}: line {number}: the study has no {column} {line[column]!r}, "
                    f"but {', '.join(known)}"
                )
        for column in ("seed", "macs", "params"):
            if not line[column].isdigit():
                raise UserError(
                    f"{path}: line {number}: {column} is {line[column]!r}, not a whole number"
                )
    seeds = frame.assign(seed=frame["seed"].astype(int))
    twice = seeds.duplicated(["method", "model", "budget", "seed"])
    if twice.any():
        raise UserError(f"{path}: line {int(twice.argmax()) + 2} has a seed a second time")


def _networks(
    results: Results, path: Path, key: tuple[str, str, str], lines: pd.DataFrame
) -> tuple[Search, Final]:
    model, _, budget = key
    limit = results.search[model, results.ours.name, budget].budget_macs
    full = results.base[model].graph.groups
    found: dict[int, Found] = {}
    trained: dict[int, Trained] = {}
    for position, line in zip(lines.index, lines.to_dict("records"), strict=True):
        where = f"{path}: line {int(position) + 2}"
        macs, params, seed = int(line["macs"]), int(line["params"]), int(line["seed"])
        if macs > limit:
            raise UserError(f"{where}: {macs:,} MACs are more than the budget of {limit:,}")
        found[seed] = Found(
            top1_search=_number(where, line, "top1_search"),
            macs=macs,
            params=params,
            evaluations=_number(where, line, "evaluations"),
            images_seen=_number(where, line, "images_seen"),
            seconds=_number(where, line, "search_seconds"),
            widths=_widths(where, line, full),
        )
        top1, top5 = (_number(where, line, column) for column in ("test_top1", "test_top5"))
        trained[seed] = Trained(top1, top5, macs, params, 0, architecture="")
    return Search(limit, found, _ends(found), {}), Final("", trained, {})


def _ends(found: dict[int, Found]) -> pd.DataFrame:
    """A history of the last candidate alone, of those searches whose end is known."""
    known = {
        seed: network
        for seed, network in found.items()
        if not math.isnan(network.top1_search + network.evaluations)
    }
    lines = [
        (seed, int(one.evaluations), one.macs, one.top1_search, one.top1_search)
        for seed, one in known.items()
    ]
    return pd.DataFrame(lines, columns=list(HISTORY))


def _number(where: str, line: dict[Any, str], column: str) -> float:
    """A cell's number; NaN where an optional one is not there."""
    text = line.get(column, "")
    if not text and column in OPTIONAL:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} is {text!r}, not a number")
    return value


def _widths(where: str, line: dict[Any, str], full: dict[str, int]) -> dict[str, int]:
    """The widths of a line, or none where they are not there."""
    kept = line.get("widths", "").split()
    if not kept:
        return {}
    if len(kept) != len(full) or not all(
        width.isdigit() and 0 < int(width) <= most
        for width, most in zip(kept, full.values(), strict=True)
    ):
        raise UserError(
            f"{where}: widths are not {len(full)} whole numbers up to {list(full.values())} "
            f"({', '.join(full)})"
        )
    return dict(zip(full, map(int, kept), strict=True))


def write(results: Results) -> None:
    """Write tables, figures and report to the folder of `results`."""
    for part in (tables, figures, report):
        part.write(results)


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
        results = with_given(read(arguments.results), arguments.method)
        write(results)
        print(results.path / "report.html")

    return command.status(compare)


if __name__ == "__main__":
    sys.exit(main())
