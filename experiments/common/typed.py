"""Plain data as typed values: dataclasses are built from mappings, strictly.

An unknown key or value is a `UserError` that says where it stands and names the nearest known one.
"""

import difflib
import math
import reprlib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from graphpruning.common.errors import UserError


def typed(kind: Any, value: Any, where: str) -> Any:
    """Check `value` against a type annotation and build it; errors say where."""
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise UserError(
                f"{where}: {reprlib.repr(value)} is unknown; {nearest(value, arguments)}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: a list is expected, not {reprlib.repr(value)}")
        return tuple(typed(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: a mapping is expected, not {reprlib.repr(value)}")
        return {
            typed(arguments[0], _key(k, where), where): typed(arguments[1], v, f"{where}: {k}")
            for k, v in value.items()
        }
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{where}: {kind.__name__} is expected, not {reprlib.repr(value)}")
    return _finite(value, where) if kind is float else value


def _finite(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{where}: {reprlib.repr(value)} is no finite number")
    return number


def _union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return typed(kinds[0], value, where)  # its error says more than "X or null is expected"
    for kind in kinds:
        try:
            return typed(kind, value, where)
        except UserError:
            continue
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise UserError(f"{where}: {names} is expected, not {reprlib.repr(value)}")


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: a mapping is expected, not {reprlib.repr(value)}")
    hints = get_type_hints(kind)
    for key in value:
        if key not in hints:
            raise UserError(f"{where}: unknown key {key!r}; {nearest(key, hints)}")
    required = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    if missing := [name for name in required if name not in value]:
        raise UserError(f"{where}: key {missing[0]!r} is missing")
    values = {key: typed(hints[key], v, f"{where}: {key}") for key, v in value.items()}
    try:
        return kind(**values)
    except UserError as refusal:  # a recipe checks its values itself
        raise UserError(f"{where}: {refusal}") from None


def _key(key: Any, where: str) -> str:
    """A budget may stand as a number, as in the list of budgets."""
    if not isinstance(key, str | float | int) or isinstance(key, bool):
        raise UserError(f"{where}: the key {reprlib.repr(key)} is no name")
    return key if isinstance(key, str) else f"{_finite(key, where):g}"


def nearest(word: Any, known: Any) -> str:
    """A question that names the nearest known word."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], 1, 0)
    return f"did you mean {near[0]!r}?"
