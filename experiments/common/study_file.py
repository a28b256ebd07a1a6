"""A study file's text as plain data: YAML, strictly, and bounded whatever the file holds.

`python -m experiments.common.study_file KEY` prints one value (`study`), for the Makefile.
"""

import os
import re
import reprlib
import sys
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from graphpruning.common.errors import UserError
from graphpruning.common.files import read_text
from graphpruning.common.machine import refuse
from graphpruning.common.names import require_plain

PARAMS = Path("params.yaml")

MOST = 20_000
"""Values in a study, aliases counted wherever they stand; the largest of ours has some 300."""


class _Loader(yaml.SafeLoader):
    """YAML as PyYAML reads it, but a key that stands twice is an error, not the last one's value.

    The keys that `<<` brings may be replaced, which is what it is for.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping, after looking at the keys as they are written."""
        if isinstance(node, yaml.MappingNode):
            written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if not hasattr(node, "checked") and len(set(written)) < len(written):
                twice = next(key for key in written if written.count(key) > 1)
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {twice!r} stands twice", node.start_mark
                )
            node.checked = True  # type: ignore[attr-defined]  # merging adds keys to the node
        return super().construct_mapping(node, deep)


def read_study_file(path: Path) -> Any:
    """Return what a YAML file says, as dicts, lists, numbers and text.

    Raises `UserError` for a file that is missing, no text or no YAML, that names a key twice, or
    that holds more than `MOST` values.
    """
    if not path.exists():
        raise UserError(f"{path} is missing: run from the repository's root")
    text = read_text(path, "you, or `make study STUDY=desk`,")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: such as a 13th month
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply for a study") from None
    _require_small(value, path)
    return value


def _require_small(value: Any, path: Path) -> None:
    """Aliases make much of a few lines: count what there is, as long as it is not too much."""
    count, waiting = 0, [value]
    while waiting:
        count += 1
        one = waiting.pop()
        parts = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        waiting.extend(parts)
        if count > MOST:
            raise UserError(f"{path} holds more than {MOST:,} values, which no study does")


def check_names(raw: Any, where: str) -> None:
    """Raise `UserError` unless all that becomes part of a command or a path is a plain name."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: a mapping is expected, not {reprlib.repr(raw)}")
    if raw.get("study") is None:
        raise UserError(f"{where}: key 'study' is missing")
    for key, name in _names(raw):
        require_plain(name, f"{where}: {key}")
    for budget in _listed(_at(raw, "budgets")):
        if isinstance(budget, float) and _name(budget) != str(budget):
            raise UserError(
                f"{where}: budgets: write {_name(budget)} instead of {budget}: stages and folders "
                "are named by budgets, with at most six digits"
            )


def _names(raw: Any) -> Iterator[tuple[str, str]]:
    """Every such name, and the key at which it stands."""
    yield "study", _name(_at(raw, "study"))
    of_sections = ("pruningnet: conditionings", "again: methods", "again: trainings")
    for path in ("models", "budgets", "seeds", "methods", *of_sections):
        yield from ((path, _name(name)) for name in _listed(_at(raw, *path.split(": "))))
    for section in ("networks", "searches"):
        yield from ((section, _name(name)) for name in _listed(_at(raw, section)))
    for source in _listed(_at(raw, "searches")):
        names = _listed(_at(raw, "searches", source))
        yield from ((f"searches: {source}", _name(name)) for name in names)


def root_folder(root: str) -> Path:
    """Where images are, with environment variables (`$IMAGENET_DIR`) and `~` filled in."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not os.environ.get(name):
            raise UserError(
                f"data: root: {root} needs the environment variable {name}: "
                f"`export {name}=FOLDER` says where the images are"
            )
        return os.environ[name]

    return Path(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, root)).expanduser()


def _at(raw: Any, *keys: str) -> Any:
    for key in keys:
        raw = raw.get(key) if isinstance(raw, dict) else None
    return raw


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | dict) else [] if value is None else [value]


def _name(value: Any) -> str:
    """A value as DVC writes it into a command."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def main(arguments: list[str]) -> int:
    """Print one value of params.yaml."""
    if len(arguments) != 1:
        print("usage: python -m experiments.common.study_file KEY", file=sys.stderr)
        return 2
    try:
        value = _at(read_study_file(PARAMS), *arguments[0].split("."))
        if value is None:
            raise UserError(f"{PARAMS} has no {arguments[0]!r}")
    except UserError as refusal:
        return refuse(refusal)
    print(value)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
