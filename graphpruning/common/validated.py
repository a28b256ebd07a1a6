"""Plain data as dataclasses, strictly, by pydantic; what does not fit is one line that says where.

It stands apart from the rest of `common`: pydantic takes a while to import.
"""

import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from graphpruning.common.errors import UserError
from graphpruning.common.names import nearest

T = TypeVar("T")

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""For the outermost class, `@pydantic.dataclasses.dataclass(config=STRICT)`: those within it, which
know nothing of pydantic, are read the same way."""

_EXPECTED = {
    "dataclass": "a mapping",
    "dict": "a mapping",
    "tuple": "a list",
    "list": "a list",
    "string": "str",
    "bool": "bool",
    "int": "int",
    "float": "float",
}


def validated(kind: type[T], value: Any, where: str) -> T:
    """Return `value` (dicts, lists, text, numbers) as a `kind`, a dataclass made with `STRICT`.

    Raises `UserError`, which begins with `where`, for an unknown key (and names the nearest), a
    missing one, and a value of another type. Numbers must be finite; a whole number is a float too,
    nothing else is taken for something that it is not.
    """
    try:
        text = json.dumps(_with_text_keys(value, where), default=str)
    except (TypeError, ValueError, RecursionError):
        raise UserError(f"{where}: it is no plain data") from None
    try:
        found: T = _adapter(kind).validate_json(text)  # type: ignore[arg-type]
        return found
    except ValidationError as refusal:
        raise UserError(_line(kind, refusal, where)) from None
    except UserError as refusal:  # a class that checks itself says what is wrong, but not where
        path = _refused(kind, json.loads(text))
        said = str(refusal).removeprefix(f"{path[-1]}: " if path else "")
        raise UserError(f"{_place(where, path)}: {said}") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _with_text_keys(value: Any, where: str) -> Any:
    """A budget may stand as a number, as in the list of budgets."""
    if isinstance(value, Mapping):
        return {_key(k, where): _with_text_keys(v, f"{where}: {k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(part, where) for part in value]
    return value


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str | float | int) or isinstance(key, bool):
        raise UserError(f"{where}: the key {reprlib.repr(key)} is no name")
    try:
        return key if isinstance(key, str) else f"{key:g}"
    except OverflowError:
        raise UserError(f"{where}: the key {reprlib.repr(key)} is no finite number") from None


def _line(kind: type[Any], refusal: ValidationError, where: str) -> str:
    """The first fault, in one line: a misspelt key rather than that the right one is missing."""
    unknown = "unexpected_keyword_argument"
    faults = sorted(refusal.errors(include_url=False), key=lambda fault: fault["type"] != unknown)
    fault = faults[0]
    what, path = str(fault["type"]), list(fault["loc"])
    shown = reprlib.repr(fault["input"])
    if path and path[-1] == "[key]":
        path.pop()
        shown = repr(path.pop())
    if what == unknown:
        key = path.pop()
        known = [field.name for field in fields(_class_at(kind, path))]
        return f"{_place(where, path)}: unknown key {key!r}; did you mean {nearest(key, known)!r}?"
    if what in ("missing", "missing_argument"):
        key = path.pop()
        return f"{_place(where, path)}: key {key!r} is missing"
    if what == "literal_error":
        known = re.findall(r"'([^']*)'", str(fault["ctx"]["expected"]))
        near = nearest(fault["input"], known)
        return f"{_place(where, path)}: {shown} is unknown; did you mean {near!r}?"
    if what == "finite_number":
        return f"{_place(where, path)}: {shown} is no finite number"
    alternatives = [one for one in faults if one["loc"][:-1] == fault["loc"][:-1]]
    if len(alternatives) > 1 and path[-1] in ("float", "str", "int"):
        names = " or ".join(str(one["loc"][-1]) for one in alternatives)
        return f"{_place(where, path[:-1])}: {names} is expected, not {shown}"
    expected = _EXPECTED.get(what.split("_")[0], str(fault["msg"]))
    return f"{_place(where, path)}: {expected} is expected, not {shown}"


def _place(where: str, path: list[int | str]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f": {step}" for step in path)
    return where + "".join(steps)


def _class_at(kind: Any, path: list[int | str]) -> Any:
    """The dataclass that stands at `path` within `kind`."""
    for step in path:
        if is_dataclass(kind):
            kind = get_type_hints(kind)[str(step)]
        else:
            kind = get_args(kind)[-1 if get_origin(kind) is dict else 0]
        while not is_dataclass(kind) and get_origin(kind) not in (dict, tuple, list):
            kind = get_args(kind)[0]  # of a union with None
    return kind


def _refused(kind: Any, value: Any) -> list[int | str]:
    """Where within `value` the innermost class stands that refuses its values."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        parts = [(key, hints[key], part) for key, part in value.items()]
    elif get_origin(kind) is dict:
        parts = [(key, get_args(kind)[1], part) for key, part in value.items()]
    else:
        parts = []
    for key, inner, part in parts:
        if not is_dataclass(inner) and get_origin(inner) is not dict:
            continue
        try:
            _adapter(inner).validate_json(json.dumps(part))
        except UserError:
            return [key, *_refused(inner, part)]
        except ValidationError:
            continue
    return []
