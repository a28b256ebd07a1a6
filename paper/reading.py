"""Strict reading of the files that a stage makes: a value is of its kind and range, or refused.

`Files` reads JSON and CSV below one results folder. Whatever is wrong with a file is a
`UserError` of one line, which names the file, the line or key, and the DVC stage that makes it.
"""

import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from graphpruning.common.errors import UserError
from graphpruning.common.files import parse_json, read_text
from graphpruning.common.names import require_plain

_WHOLE = r"-?[0-9]{1,18}"
_DECIMAL = r"[+-]?([0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})([eE][+-]?[0-9]{1,3})?"
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

    def __str__(self) -> str:
        return f"a {'whole ' * self.whole}number from {self.low:.7g} to {self.high:.7g}"


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def accepts(self, value: object) -> bool:
        """Whether `value` is one of the words."""
        return isinstance(value, str) and value in self.words

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
            and not any(unicodedata.category(character) in _BREAKING for character in value)
            and not (self.drawn and value.count("$") > 1)
        )

    def __str__(self) -> str:
        formula = " and at most one $" * self.drawn
        return (
            f"text of {self.least} to {self.most:,} characters without control characters{formula}"
        )


CellKind = Number | OneOf | Text
Kind = CellKind | type
Columns = Mapping[str, CellKind]
_NAMES: dict[Any, str] = {dict: "an object", list: "a list", bool: "true or false"}

LINE = Text(0, 100_000)
LABEL = Text(1, 200, drawn=True)
COUNT = Number(0, 10**15, whole=True)
POSITIVE = Number(1, 10**15, whole=True)
PERCENT = Number(0, 100)
SECONDS = Number(0, 10**10)
MAGNITUDE = Number(0, 10**30)
CORRELATION = Number(-1e-6, 1 + 1e-6)
"""An absolute correlation, as far as it can be rounded."""


def accepts(kind: Kind, value: object) -> bool:
    """Whether `value` is of the kind."""
    return isinstance(value, kind) if isinstance(kind, type) else kind.accepts(value)


def clipped(value: object) -> str:
    """`value` as Python writes it, on one line and short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_written_number(text: str, whole: bool) -> bool:
    """Whether a cell is a number in plain digits; `²` and `1_000` are none."""
    return bool(pd.Series([text]).str.fullmatch(_WHOLE if whole else _DECIMAL).all())


def table(text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a CSV, and its other lines with their numbers; blank lines are left out.

    ValueError for what is no CSV, and for a line with another number of cells than the header.
    """
    reader = csv.reader(io.StringIO(text), strict=True)
    lines: list[tuple[int, list[str]]] = []
    number = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) or len(cells) > 1:
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


class Files:
    """The files that one stage makes under one results folder."""

    def __init__(self, root: Path, stage: str) -> None:
        self.root = root
        self.stage = stage

    @property
    def maker(self) -> str:
        """The stage's name without what it is run for."""
        return self.stage.split("@")[0]

    def damaged(self, name: str, why: str) -> UserError:
        """The refusal of a file that is there and not what it should be."""
        return UserError(
            f"{self.root / name} is truncated or damaged ({why}): "
            f"the stage {self.maker} makes it anew (dvc repro {self.stage})"
        )

    def text(self, name: str) -> str:
        """Read a file of text."""
        try:
            return read_text(self.root / name, f"the stage {self.maker}")
        except UserError as refusal:
            raise self._with_command(refusal) from None

    def json(self, name: str, **kinds: Kind) -> dict[str, Any]:
        """Read an object and check that each key of `kinds` is there with its kind."""
        return self.checked(name, self.parsed(name), kinds)

    def parsed(self, name: str) -> Any:
        """Read JSON of any kind."""
        try:
            return parse_json(self.text(name))
        except ValueError as error:
            raise self.damaged(name, f"not whole JSON: {error}") from None

    def checked(
        self, name: str, value: Any, kinds: Mapping[str, Kind], where: str = ""
    ) -> dict[str, Any]:
        """`value` as an object with the keys of `kinds`; `where` it stands in the file."""
        at = f"{where}: " if where else ""
        if not isinstance(value, dict):
            raise self.damaged(name, f"{at}not an object")
        for key, kind in kinds.items():
            if key not in value:
                raise self.damaged(name, f"{at}no {key!r}")
            if not accepts(kind, value[key]):
                wanted = _NAMES.get(kind, str(kind))
                raise self.damaged(name, f"{at}{key!r} is {clipped(value[key])}, not {wanted}")
        return value

    def entries(
        self, name: str, values: Iterable[Any], kinds: Mapping[str, Kind], where: str
    ) -> list[dict[str, Any]]:
        """The objects of a list, each checked as `checked` does."""
        return [
            self.checked(name, value, kinds, f"{where}, entry {position}")
            for position, value in enumerate(values, 1)
        ]

    def every(self, name: str, values: Mapping[str, Any], kind: Kind, where: str) -> None:
        """Check that all values of an object are of one kind, and its keys text of one line."""
        for key in values:
            if not LINE.accepts(key):
                raise self.damaged(name, f"{where}: {clipped(key)} is no {LINE}")
        self.checked(name, values, dict.fromkeys(values, kind), where)

    def names(self, name: str, value: Mapping[str, Any], key: str) -> list[str]:
        """A list of different plain names, each of which becomes a part of a path."""
        for text in value[key]:
            if not isinstance(text, str):
                raise self.damaged(name, f"{key}: {clipped(text)} is no text")
            self.plain(name, key, text)
        self.different(name, key, value[key])
        return list(value[key])

    def plain(self, name: str, key: str, text: str) -> str:
        """A text that becomes a part of a path."""
        try:
            return require_plain(text, f"{self.root / name}: {key}")
        except UserError as refusal:
            raise self._with_command(refusal) from None

    def different(self, name: str, key: str, values: Iterable[object]) -> None:
        """Check that nothing stands in a list twice."""
        seen: set[object] = set()
        for value in values:
            if value in seen:
                raise self.damaged(name, f"{key}: {clipped(value)} is listed twice")
            seen.add(value)

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
        frame = pd.DataFrame([cells for _, cells in rows], columns=header, dtype=str)
        lines = [number for number, _ in rows]
        for column, kind in columns.items():
            if isinstance(kind, Number):
                frame[column] = self._numbers(name, frame[column], kind, lines)
            else:
                self._all(name, frame[column], frame[column].map(kind.accepts), kind, lines)
        return frame

    def _numbers(
        self, name: str, cells: "pd.Series[str]", kind: Number, lines: list[int]
    ) -> "pd.Series[Any]":
        absent = (cells == "") & kind.optional
        written = cells.str.fullmatch(_WHOLE if kind.whole else _DECIMAL)
        self._all(name, cells, absent | written, kind, lines)
        numbers = pd.to_numeric(cells.mask(absent)).astype("int64" if kind.whole else float)
        self._all(name, cells, absent | numbers.between(kind.low, kind.high), kind, lines)
        return numbers

    def _all(
        self,
        name: str,
        cells: "pd.Series[str]",
        fit: "pd.Series[bool]",
        kind: Kind,
        lines: list[int],
    ) -> None:
        """Check that all cells of a column fit; the first that does not is named."""
        unfit = ~fit.to_numpy(dtype=bool)
        if unfit.any():
            at = int(unfit.argmax())
            raise self.damaged(
                name, f"line {lines[at]}, {cells.name}: {clipped(cells.iloc[at])} is not {kind}"
            )

    def _with_command(self, refusal: UserError) -> UserError:
        return UserError(f"{refusal} (dvc repro {self.stage})")
