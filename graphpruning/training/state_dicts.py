"""A network's tensors in what other people's training loops save around them.

A checkpoint is nested dictionaries. Each of them that holds tensors is looked at, and so is every
prefix of its names: `{"epoch": 3, "state_dict": {"module.conv1.weight": ...}}` holds conv1.weight
at `state_dict.module`. Where a network's tensors are all found, in their shapes, is a *place*.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from graphpruning.common.errors import UserError, one_line

WRAPPERS = ("module", "_orig_mod")
"""Parts of names that DataParallel (and AveragedModel) and torch.compile add, anywhere in them."""
COUNTERS = ("n_averaged",)
"""AveragedModel's own tensor, beside those of the network."""
OPTIONAL = "num_batches_tracked"
"""PyTorch before 0.4.1 did not save it."""
MOST_NAMED = 3
MOST_PREFIXES = 20
"""Of one dictionary that are looked at; two that fit are one too many."""


@dataclass(frozen=True)
class Found:
    """A network's tensors and their versions (`_metadata`), both by the network's names.

    `said` tells where they were; it is empty where the file holds nothing else.
    """

    tensors: dict[str, Any]
    versions: dict[str, Any]
    said: str


@dataclass(frozen=True)
class _Place:
    """One dictionary of a checkpoint, and the prefix before the network's names in it."""

    keys: tuple[str, ...]
    prefix: str
    tensors: dict[str, Any]
    versions: dict[str, Any]
    others: list[str]
    wrappers: list[str]

    @property
    def path(self) -> str:
        """Keys and prefix, as `FILE:PATH` names the place; the outermost is a dot."""
        return ".".join((*self.keys, *filter(None, [self.prefix.rstrip(".")]))) or "."

    def lies_in(self, part: str) -> bool:
        return not part or f"{self.path}.".startswith(f"{part}.")

    def said(self) -> str:
        """What was taken, and what was left out of names."""
        words = [f"the dictionary {one_line('.'.join(self.keys))!r}"] if self.keys else []
        parts = [f"{wrapper}." for wrapper in self.wrappers]
        if cut := " and ".join(repr(one_line(part)) for part in [self.prefix, *parts] if part):
            words.append(f"names without {cut}")
        return ", ".join(words)


def find(content: Any, own: Mapping[str, Any], part: str = "") -> Found | None:
    """Return the tensors of a network in `content`, or None if there are no tensors by name.

    Args:
        content: what a file holds, nested as it likes.
        own: the network's state dict.
        part: the place that the user names, such as "state_dict_ema"; empty for none.

    Where no place has all of the network's tensors, those of the place that has most names are
    returned, for PyTorch to say what does not fit. Raises `UserError`, without the file's name,
    when several places fit, when a dictionary has more tensors than the network, and for a `part`
    that is not there.
    """
    everywhere = [
        place
        for keys, held, versions in _dictionaries(content)
        for place in _places(keys, held, versions, own)
    ]
    if not everywhere:
        return None
    places = [place for place in everywhere if place.lies_in(part)]
    if not places:
        known = _some([place.path for place in everywhere])
        raise UserError(f"no tensors are in {one_line(part)!r}, but in {known}")
    fitting = [place for place in places if _fits(place, own)]
    if not fitting:
        place = max(places, key=lambda place: len(own.keys() & place.tensors.keys()))
        return Found(place.tensors, place.versions, place.said())
    if len(fitting) > 1:
        paths = [place.path for place in fitting]
        raise UserError(
            f"several networks fit: {_some(paths)}; name one, as in FILE:{_shown(paths[-1])}"
        )
    (place,) = fitting
    _refuse_others(place, own, part)
    tensors = {name: place.tensors[name] for name in own if name in place.tensors}
    return Found(tensors, place.versions, place.said())


def _dictionaries(
    content: Any,
) -> Iterator[tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]]:
    """Every dictionary that holds tensors by name, once: the keys that lead to it, what it holds,
    and the versions of modules that PyTorch keeps with a state dict.
    """
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen: set[int] = set()  # a file may hold a dictionary in itself
    while waiting:
        keys, held = waiting.pop(0)
        if not isinstance(held, dict) or id(held) in seen:
            continue
        seen.add(id(held))
        if not all(isinstance(key, str) for key in held):
            continue  # an optimizer's state, by number
        plain = {key: held[key] for key in held}  # not by methods, which a file can overwrite
        if any(torch.is_tensor(value) for value in plain.values()):
            yield keys, plain, _versions(held)
        waiting += [((*keys, key), value) for key, value in plain.items()]


def _versions(held: Any) -> dict[str, Any]:
    """What PyTorch keeps with a state dict; nothing where a file has put something else there."""
    found = getattr(held, "_metadata", None)
    if not isinstance(found, dict):
        return {}
    names = [name for name in found if isinstance(name, str) and isinstance(found[name], dict)]
    return {name: found[name] for name in names}


def _places(
    keys: tuple[str, ...],
    held: Mapping[str, Any],
    versions: Mapping[str, Any],
    own: Mapping[str, Any],
) -> Iterator[_Place]:
    """The prefixes of a dictionary's names under which most names of the network stand."""
    wrappers = _wrappers(held, own)
    found = {_without(wrappers, name): value for name, value in held.items()}
    versions = {_without(wrappers, name): versions[name] for name in versions}
    names = [name for name, value in found.items() if torch.is_tensor(value)]
    hits = Counter(name[:start] for name in names for start in _starts(name) if name[start:] in own)
    most = max(hits.values(), default=0)
    prefixes = [prefix for prefix, count in hits.items() if count == most] or [""]
    for prefix in prefixes[:MOST_PREFIXES]:
        # What is no tensor beside tensors (an epoch) is only kept where the network asks for it.
        tensors = {
            name.removeprefix(prefix): value
            for name, value in found.items()
            if name.startswith(prefix)
            and (torch.is_tensor(value) or name.removeprefix(prefix) in own)
        }
        yield _Place(
            keys=keys,
            prefix=prefix,
            tensors=tensors,
            versions={
                f"{name}.".removeprefix(prefix).rstrip("."): value
                for name, value in versions.items()
                if f"{name}.".startswith(prefix)
            },
            others=[name for name in names if not name.startswith(prefix)],
            wrappers=wrappers,
        )


def _wrappers(held: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """The parts of names that wrappers added: those that the network itself has not."""
    parts = {part for name in own for part in name.split(".")}
    used = {part for name in held for part in name.split(".")}
    wrappers = [part for part in WRAPPERS if part in used and part not in parts]
    # Of a network and its wrapped copy side by side the names must stay apart.
    return wrappers if len({_without(wrappers, name) for name in held}) == len(held) else []


def _without(wrappers: list[str], name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in wrappers)


def _starts(name: str) -> list[int]:
    """Where a part of a name begins."""
    return [0, *(at + 1 for at, sign in enumerate(name) if sign == ".")]


def _fits(place: _Place, own: Mapping[str, Any]) -> bool:
    return all(
        name in place.tensors and getattr(place.tensors[name], "shape", None) == wanted.shape
        for name, wanted in own.items()
        if torch.is_tensor(wanted) and not name.endswith(OPTIONAL)
    )


def _refuse_others(place: _Place, own: Mapping[str, Any], part: str) -> None:
    """Of tensors that are not the network's, the user says that they may be left out."""
    more = [
        place.prefix + name
        for name, value in place.tensors.items()
        if torch.is_tensor(value) and name not in own and name not in COUNTERS
    ]
    if more:
        endings = sorted({name.rpartition(".")[2] for name in more})
        of_others = any(name.rpartition(".")[2] in endings for name in own)
        if of_others or len(endings) > MOST_NAMED or not all(map(str.isidentifier, endings)):
            kept = "k in model.state_dict()"
        else:
            kept = f"k.split('.')[-1] not in {endings}"
        raise UserError(
            f"the network has no {_some(more)}: if they are no weights, save the rest, "
            f"{{k: v for k, v in state_dict.items() if {kept}}}"
        )
    others = [name for name in place.others if name not in COUNTERS]
    if others and part != place.path:
        raise UserError(
            f"besides the network at {_shown(place.path)} there is {_some(others)}: "
            f"if that network is meant, say so by FILE:{_shown(place.path)}"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:MOST_NAMED])
    return f"{shown} and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else shown


def _shown(name: str) -> str:
    return one_line(name[:100])
