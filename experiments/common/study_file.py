"""A study file's text as plain data: YAML, strictly, and bounded whatever the file holds."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from graphpruning.common.errors import UserError
from graphpruning.common.files import read_text

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
