"""What an architecture's JSON may say: types and ranges, checked before anything is made of it.

The bounds are far beyond any network that can be pruned here, and small enough that a file that
was altered costs neither memory nor time.
"""

import json
import math
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from graphpruning.common.errors import UserError
from graphpruning.common.files import read_json, require_file
from graphpruning.common.names import nearest
from graphpruning.training.preprocessing import Preprocessing

FORMAT = 2
"""2 added networks that a user's function builds; files of format 1 are read as before.

`classes`, the names of the outputs in order, may stand in either.
"""

LARGEST_FILE = 2**22
"""Bytes; of our own files none has a hundredth of it."""
MOST_CLASSES, MOST_CHANNELS = 2**17, 2**12
LARGEST_SIDE, LARGEST_IMAGE = 2**13, 2**24
"""Pixels of a side, and numbers of a whole image: what follows its channels looks at each."""
LARGEST_OPTION, LONGEST_LIST, LONGEST_TEXT, DEEPEST = 10**6, 100, 200, 3
"""Of a network's options: numbers, entries of a list, characters, lists within each other."""
LONGEST_CLASS = 255
"""Characters of a class's name; no folder has a longer one."""
LARGEST_COUNT = 2**62

_KEYS = ("format", "network", "input_size", "widths", "macs", "params", "preprocessing", "weights")
_OPTIONAL = ("classes",)
_MAKER = "`save_architecture`"
MEND = f"get the file as {_MAKER} wrote it"


class Entry:
    """A value in a JSON file and where it stands; every method refuses what is not wanted.

    Raises `UserError`: one line with file, key, what is there, what is expected, and `mend`, which
    is what to do.
    """

    def __init__(self, path: str | Path, value: Any, key: str = "", mend: str = MEND) -> None:
        self.path, self.value, self.key, self.mend = path, value, key, mend

    @property
    def where(self) -> str:
        """The file, and the key where there is one."""
        return f"{self.path}: {self.key}" if self.key else f"{self.path}"

    def refusal(self, wanted: str) -> UserError:
        """Return the refusal of a value that is not `wanted`."""
        return UserError(f"{self.where} is {shown(self.value)}, expected {wanted}: {self.mend}")

    def whole(self, least: int, most: int) -> int:
        """Return a whole number within bounds; True is none."""
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.refusal(f"a whole number from {least:,} to {most:,}")
        return self.value

    def number(self, largest: float) -> float:
        """Return a finite number of at most this size; JSON's 1e999 is none."""
        if type(self.value) not in (int, float) or not abs(self.value) <= largest:
            raise self.refusal(f"a number of at most {largest:,}")
        result: float = self.value
        return result

    def text(self, longest: int = LONGEST_TEXT) -> str:
        """Return a text of one line that can be printed anywhere."""
        if not isinstance(self.value, str) or not 0 < len(self.value) <= longest:
            raise self.refusal(f"a text of 1 to {longest:,} characters")
        if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in self.value):
            raise self.refusal("a text of one line")
        return self.value

    def entries(self, least: int, most: int) -> list["Entry"]:
        """Return the entries of a list with so many."""
        if not isinstance(self.value, list) or not least <= len(self.value) <= most:
            some = f"{least}" if least == most else f"{least} to {most}"
            raise self.refusal(f"a list of {some} entries")
        return [
            Entry(self.path, value, f"{self.key}[{number}]", self.mend)
            for number, value in enumerate(self.value)
        ]

    def members(self) -> dict[str, "Entry"]:
        """Return the members of an object, whatever they are called."""
        if not isinstance(self.value, dict):
            raise self.refusal("an object")
        above = f"{self.key}." if self.key else ""
        shorts = {name: name if name.isidentifier() else shown(name) for name in self.value}
        return {
            name: Entry(self.path, value, above + shorts[name], self.mend)
            for name, value in self.value.items()
        }

    def known(self, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, "Entry"]:
        """Return the members of an object that has all `required` keys, and no unknown one."""
        members = self.members()
        names = [*required, *optional]
        for name in members:
            if name not in names:
                near = nearest(name[:LONGEST_TEXT], names)
                raise UserError(
                    f"{self.where} has an unknown key {shown(name)}; did you mean {near!r}? "
                    f"{self.mend}"
                )
        for name in required:
            if name not in members:
                raise UserError(f"{self.where} has no key {name!r}: {self.mend}")
        return members


def shown(value: Any) -> str:
    """What a refusal says of a value: on one line, short, and in characters that print."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_entry(path: str | Path, made_by: str = _MAKER, mend: str = MEND) -> Entry:
    """Read JSON of at most `LARGEST_FILE` bytes."""
    if (size := require_file(path, made_by)) > LARGEST_FILE:
        raise UserError(
            f"{path} has {size:,} bytes, more than the {LARGEST_FILE:,} of a large architecture: "
            f"{mend}"
        )
    return Entry(path, read_json(path, made_by), mend=mend)


def check_description(whole: Entry) -> dict[str, Any]:
    """Return the description, which has every key of `_KEYS` with a value that can be used.

    Those of `_OPTIONAL` may be there as well.
    """
    if not isinstance(whole.value, dict):
        raise _not_ours(whole.path, f"it holds {shown(whole.value)}")
    form = whole.value.get("format")
    if type(form) is not int or not 1 <= form <= FORMAT:
        there = f"its format is {shown(form)}" if "format" in whole.value else "it names none"
        raise _not_ours(whole.path, there)
    members = whole.known(_KEYS, _OPTIONAL)
    _check_network(members["network"])
    if "classes" in members:
        check_classes(members["classes"], members["network"].value.get("num_classes"))
    size = check_image(members["input_size"])
    check_widths(members["widths"])
    for name in ("macs", "params"):
        members[name].whole(0, LARGEST_COUNT)
    _check_preprocessing(members["preprocessing"], size[0])
    _check_weights(members["weights"])
    description: dict[str, Any] = whole.value
    return description


def check_image(size: Entry) -> tuple[int, ...]:
    """Return channels, height and width of an image."""
    sides = [side.whole(1, LARGEST_SIDE) for side in size.entries(3, 3)]
    if math.prod(sides) > LARGEST_IMAGE:
        raise UserError(
            f"{size.where} {sides} is an image of more than {LARGEST_IMAGE:,} numbers: {size.mend}"
        )
    return tuple(sides)


def check_widths(widths: Entry) -> dict[str, int]:
    """Return the widths: group ids, and whole numbers of channels from 1 on."""
    what = f"{widths.path} does not map groups to whole numbers of channels"
    if not isinstance(widths.value, dict):
        raise UserError(f"{what}: it has {shown(widths.value)} there; {widths.mend}")
    for name, width in widths.value.items():
        if type(width) is not int or not 1 <= width <= LARGEST_COUNT:
            raise UserError(f"{what}: widths has {shown(width)} for {shown(name)}; {widths.mend}")
    result: dict[str, int] = widths.value
    return result


def check_classes(classes: Entry, outputs: int | None = None) -> tuple[str, ...]:
    """Return the classes' names, one for each of the `outputs` where these are known."""
    names = tuple(name.text(LONGEST_CLASS) for name in classes.entries(1, MOST_CLASSES))
    if outputs is not None and len(names) != outputs:
        raise UserError(
            f"{classes.where} has {len(names)} names, but the network {outputs} outputs: "
            f"{classes.mend}"
        )
    return names


def _not_ours(path: str | Path, why: str) -> UserError:
    return UserError(f"{path} is not an architecture of format 1 to {FORMAT}: {why}; {MEND}")


def _check_network(network: Entry) -> None:
    """A name with its options, or the place of a function with its arguments."""
    members = network.members()
    if ("name" in members) == ("function" in members):
        raise network.refusal("an object with either a name or a function")
    for name, entry in members.items():
        if name in ("name", "function"):
            entry.text()
        elif not name.isidentifier() or len(name) > LONGEST_TEXT:
            raise UserError(f"{network.path}: network has the option {shown(name)}: {MEND}")
        elif name == "num_classes":
            entry.whole(1, MOST_CLASSES)
        elif name == "in_channels":
            entry.whole(1, MOST_CHANNELS)
        else:
            _check_option(entry, DEEPEST)


def _check_option(option: Entry, deepest: int) -> None:
    """A number, a text, true, false, null, or a list of these; a list of lists is one too."""
    if isinstance(option.value, list) and deepest:
        for entry in option.entries(0, LONGEST_LIST):
            _check_option(entry, deepest - 1)
    elif isinstance(option.value, str):
        option.text()
    elif option.value is not None and not isinstance(option.value, bool):
        option.number(LARGEST_OPTION)


def _check_preprocessing(entry: Entry, channels: int) -> None:
    """Each value by itself; all of them together where they are whole.

    `save_architecture` takes what its caller has, which may be less than a `Preprocessing`.
    """
    required = ("mean", "std", "pad", "flip")
    members = entry.known((), (*required, "size", "resize", "smallest_area"))
    for name, member in members.items():
        if name in ("mean", "std"):
            for value in member.entries(1, MOST_CHANNELS):
                value.number(LARGEST_OPTION)
        elif name == "flip":
            if not isinstance(member.value, bool):
                raise member.refusal("true or false")
        elif name == "pad" or (member.value is not None and name != "smallest_area"):
            member.whole(0, LARGEST_SIDE)
        elif member.value is not None:
            member.number(1)
    if set(required) <= set(members):
        try:
            Preprocessing.from_dict(entry.value).check_channels(channels)
        except UserError as refusal:
            raise UserError(f"{entry.path}: preprocessing: {refusal}; {MEND}") from None


def _check_weights(weights: Entry) -> None:
    """A file and its hash; null for a network that has no weights yet."""
    if weights.value is None:
        return
    members = weights.known(("file", "sha256"))
    # Not below this folder alone: a study has its results and its models in folders side by side.
    if PurePath(members["file"].text(4096)).is_absolute():
        raise members["file"].refusal(f"a path relative to {weights.path}")
    digest = members["sha256"].text(64)
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise members["sha256"].refusal("64 hexadecimal digits")
