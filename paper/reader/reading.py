"""Strict reading of the files that a stage makes: a value is of its kind and range, or refused.

`Files` reads JSON and CSV below one results folder. JSON becomes a dataclass whose annotations
pydantic holds it to; a column of a CSV is of a `Number`, `Text` or `OneOf`. Whatever is wrong with
a file is a `UserError` of one line, which names the file, the line or key, and the DVC stage that
makes it.
"""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from graphpruning.common.errors import UserError, one_line
from graphpruning.common.files import read_text
from graphpruning.common.names import is_plain

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?([0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})([eE][+-]?[0-9]{1,3})?")
_BREAKING = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories that end a line, steer a terminal, or are no text in UTF-8."""


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`; an `optional` one may be null or an empty cell."""

    low: float
    high: float
    whole: bool = False
    optional: bool = False

    def accepts(self, value: object) -> bool:
        """Whether `value` is such a number; True and False are none."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        return self.low <= value <= self.high

    @property
    def field(self) -> Any:
        """The same range for pydantic."""
        finite = None if self.whole else False
        return Field(ge=self.low, le=self.high, allow_inf_nan=finite)

    def __str__(self) -> str:
        return f"a {'whole ' * self.whole}number from {self.low:.7g} to {self.high:.7g}"


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def accepts(self, value: object) -> bool:
        """Whether `value` is one of the words."""
        return isinstance(value, str) and value in self.words

    @property
    def field(self) -> Any:
        """The same words for pydantic."""
        return _validator(self)

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Text:
    """One line of text with `least` to `most` characters.

    `drawn` text stands in figures, where what is between two `$` would be read as a formula.
    """

    least: int
    most: int
    drawn: bool = False

    def accepts(self, value: object) -> bool:
        """Whether `value` is such a text."""
        return (
            isinstance(value, str)
            and self.least <= len(value.strip())
            and len(value) <= self.most
            and _BREAKING.isdisjoint(map(unicodedata.category, value))
            and not (self.drawn and value.count("$") > 1)
        )

    @property
    def field(self) -> Any:
        """The same texts for pydantic."""
        return _validator(self)

    def __str__(self) -> str:
        formula = " and at most one $" * self.drawn
        return (
            f"text of {self.least} to {self.most:,} characters without control characters{formula}"
        )


CellKind = Number | OneOf | Text
Columns = Mapping[str, CellKind]
T = TypeVar("T")


def _validator(kind: OneOf | Text) -> AfterValidator:
    def check(value: str) -> str:
        if not kind.accepts(value):
            raise ValueError(f"not {kind}")
        return value

    return AfterValidator(check)


def _check_plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError("no plain name: letters, digits, and . _ + - after the first")
    return name


def _check_different(values: list[Any]) -> list[Any]:
    if twice := [value for position, value in enumerate(values) if value in values[:position]]:
        raise ValueError(f"{clipped(twice[0])} is listed twice")
    return values


LINE = Text(0, 100_000)
LABEL = Text(1, 200, drawn=True)
COUNT = Number(0, 10**15, whole=True)
POSITIVE = Number(1, 10**15, whole=True)
PERCENT = Number(0, 100)
SECONDS = Number(0, 10**10)
MAGNITUDE = Number(0, 10**30)
CORRELATION = Number(-1e-6, 1 + 1e-6)
"""An absolute correlation, as far as it can be rounded."""

# The same for JSON, as annotations of a dataclass.
LineText = Annotated[str, LINE.field]
LabelText = Annotated[str, LABEL.field]
Count = Annotated[int, COUNT.field]
Positive = Annotated[int, POSITIVE.field]
Percent = Annotated[float, PERCENT.field]
Seconds = Annotated[float, SECONDS.field]
Magnitude = Annotated[float, MAGNITUDE.field]
CorrelationValue = Annotated[float, CORRELATION.field]
PlainName = Annotated[str, AfterValidator(_check_plain)]
"""A name that becomes a part of a path."""
PlainNames = Annotated[list[PlainName], AfterValidator(_check_different)]
Seeds = Annotated[list[Count], AfterValidator(_check_different)]


def clipped(value: object) -> str:
    """`value` as Python writes it, on one line and short enough for a message."""
    return clipped_text(repr(value))


def clipped_text(text: str) -> str:
    """`text` short enough for a message."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_written_number(text: str, whole: bool) -> bool:
    """Whether a cell is a number in plain digits; `²` and `1_000` are none."""
    return (_WHOLE if whole else _DECIMAL).fullmatch(text) is not None


def table(text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a CSV, and its other lines with their numbers; blank lines are left out.

    ValueError for what is no CSV, and for a line with another number of cells than the header.
    """
    reader = csv.reader(io.StringIO(text), strict=True)
    lines: list[tuple[int, list[str]]] = []
    number = 1
    try:
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                lines.append((number, cells))
            number = reader.line_num + 1  # a quoted cell may hold several lines
    except csv.Error as error:
        raise ValueError(f"line {number}: {error}") from None
    if not lines:
        raise ValueError("it is empty")
    (_, header), *rows = lines
    for number, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"line {number} has {len(cells)} cells, and the first {len(header)}")
    return header, rows


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
"""What reads JSON into a type; making one takes longer than using it."""


def _first_fault(error: ValidationError) -> str:
    """What is wrong, from pydantic's first complaint: the key, the value clipped, and why."""
    fault = error.errors(include_url=False)[0]
    *outer, _ = keys = [clipped_text(str(key)) for key in fault["loc"]] or ["it"]
    if fault["type"] == "json_invalid":
        return f"not whole JSON: {fault['ctx']['error']}"
    if fault["type"] == "missing":
        return f"{''.join(f'{key}: ' for key in outer)}no {keys[-1]!r}"
    why = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"]
    why = why.replace("Input should", "it should", 1)
    return f"{', '.join(keys)} is {clipped(fault['input'])}: {why}"


PRETRAINED = "pretrained"
"""The study beside every other one: a network trained on ImageNet, whose layers are compared."""


class Files:
    """The files that one stage makes under results/STUDY, when run for `items` (model, ..., seed).

    `stage` is the run's name in its sidecar. `maker` is what people call the stage, and `target`
    what `dvc repro` takes to run it: the pretrained study is one stage, whatever part of it ran.
    """

    def __init__(self, root: Path, study: str, stage: str, *items: object) -> None:
        self.root = root
        self.stage = f"{stage}@{'-'.join(map(str, (study, *items)))}"
        self.maker, self.target = stage, self.stage
        if study == PRETRAINED:
            self.maker, self.target = PRETRAINED, f"pretrained/dvc.yaml:{PRETRAINED}"

    def damaged(self, name: str, why: str) -> UserError:
        """The refusal of a file that is there and not what it should be."""
        return UserError(
            f"{self.root / name} is truncated or damaged ({why}): "
            f"the stage {self.maker} makes it anew (dvc repro {self.target})"
        )

    def text(self, name: str) -> str:
        """Read a file of text."""
        try:
            return read_text(self.root / name, f"the stage {self.maker}")
        except UserError as refusal:
            raise UserError(f"{refusal} (dvc repro {self.target})") from None

    def json(self, name: str, kind: type[T]) -> T:
        """Read JSON as a dataclass, or another type that pydantic knows."""
        text = self.text(name)
        try:
            value: T = _adapter(kind).validate_json(text, strict=True)
        except ValidationError as error:
            raise self.damaged(name, one_line(_first_fault(error))) from None
        return value

    def csv(self, name: str, columns: Columns, empty: bool = False) -> pd.DataFrame:
        """Read a table with exactly `columns`, every cell there and of its kind.

        It has no rows only where it may be `empty`.
        """
        text = self.text(name)
        if not text.endswith("\n"):
            raise self.damaged(name, "the last line has no end")
        try:
            header, rows = table(text)
        except ValueError as error:
            raise self.damaged(name, str(error)) from None
        if header != list(columns):
            raise self.damaged(name, f"columns {clipped(header)}, not {list(columns)}")
        if not rows and not empty:
            raise self.damaged(name, "no rows")
        lines = [number for number, _ in rows]
        read: dict[str, Any] = {}  # arrays: of Series, a table takes four times as long to make
        for place, (column, kind) in enumerate(columns.items()):
            cells = [row[place] for _, row in rows]
            if isinstance(kind, Number):
                read[column] = self._numbers(name, column, cells, kind, lines)
            else:
                accepted = {cell: kind.accepts(cell) for cell in set(cells)}
                self._all(name, column, cells, [accepted[cell] for cell in cells], kind, lines)
                read[column] = pd.array(cells, dtype="str")
        return pd.DataFrame(read)

    def _numbers(
        self, name: str, column: str, cells: list[str], kind: Number, lines: list[int]
    ) -> NDArray[Any]:
        absent = ("",) * kind.optional
        written = [cell in absent or is_written_number(cell, kind.whole) for cell in cells]
        self._all(name, column, cells, written, kind, lines)
        convert = int if kind.whole else float
        numbers = [math.nan if cell in absent else convert(cell) for cell in cells]
        within = [
            cell in absent or kind.low <= number <= kind.high
            for cell, number in zip(cells, numbers, strict=True)
        ]
        self._all(name, column, cells, within, kind, lines)
        return np.array(numbers, dtype="int64" if kind.whole else float)

    def _all(
        self,
        name: str,
        column: str,
        cells: list[str],
        fit: list[bool],
        kind: CellKind,
        lines: list[int],
    ) -> None:
        """Check that all cells of a column fit; the first that does not is named."""
        if not all(fit):
            at = fit.index(False)
            raise self.damaged(
                name, f"line {lines[at]}, {column}: {clipped(cells[at])} is not {kind}"
            )
