"""Names: which ones may become files and folders, and which known one is nearest to a wrong one."""

import difflib
import re
from collections.abc import Iterable

from graphpruning.common.errors import UserError

# A letter or digit first, so that no name is hidden, is an option, or is `.` or `..`; no slash,
# no space and no control character after it, so that a name is always one part of a path.
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def is_plain(text: str) -> bool:
    """Return whether the whole text is a plain name."""
    return PLAIN.fullmatch(text) is not None


def require_plain(text: str, what: str) -> str:
    """Return the text if it is a plain name.

    Raises UserError, which starts with `what` (the file and the key that hold the name), if not.
    """
    if not is_plain(text):
        raise UserError(
            f"{what}: {text!r} is no plain name: letters, digits, and . _ + - after the first"
        )
    return text


def nearest(word: object, known: Iterable[object]) -> str:
    """Return the one of `known` (not empty) that is spelled most like `word`; both as text."""
    return difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0)[0]
