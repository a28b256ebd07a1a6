"""Channel numbers, which of them are tied, and the units and groups that follow."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from graphpruning.network.graph import Group


class Ledger:
    """What is written down while a network runs on channel numbers (int64, from 0 on)."""

    def __init__(self) -> None:
        self.owners: list[str] = []  # of each run of numbers
        self.starts: list[int] = [0]
        self.layers: dict[str, tuple[Tensor, Tensor]] = {}  # numbers read, numbers written
        self.norms: dict[str, Tensor] = {}
        self.direct: dict[str, Tensor] = {}  # parameters and buffers used directly
        self.ties: list[tuple[Tensor, Tensor, str]] = []
        self.fixes: list[tuple[Tensor, str]] = []

    def new(self, count: int, owner: str, fixed: bool = False) -> Tensor:
        """Return new numbers [count] of `owner`, as [count, 1, 1] where `fixed` (an image's)."""
        start = self.starts[-1]
        self.owners.append(owner)
        self.starts.append(start + count)
        numbers = torch.arange(start, start + count)
        if fixed:
            self.fix(numbers, f"tied to {owner}")
            return numbers[:, None, None]
        return numbers

    def owner(self, numbers: Tensor) -> str:
        """Who wrote the first of `numbers`."""
        first = int(numbers.flatten()[0])
        return self.owners[int(np.searchsorted(self.starts, first, side="right")) - 1]

    def tie(self, one: Tensor, other: Tensor, reason: str) -> None:
        """The numbers `one` and `other`, pair by pair, stay or go together."""
        self.ties.append((one, other, reason))

    def fix(self, numbers: Tensor, reason: str) -> None:
        """These numbers all stay."""
        self.fixes.append((numbers.unique(), reason))


@dataclass(frozen=True)
class _Alike:
    """Units (numbers of components) that are alike, and what is known of them."""

    components: np.ndarray
    layers: tuple[str, ...]
    per_layer: int
    fixed: bool


class Units:
    """Units: connected channel numbers; groups: units alike in all that reads and writes them.

    `groups` are in forward order; `count` is the number of units of the prunable ones.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.component = _components(ledger)
        kinds = self._alike()
        reasons, fixed = self._reasons(kinds)
        self.group_of = np.full(self.component.max() + 1, -1)
        unit_of = np.full(self.component.max() + 1, -1)
        groups: list[Group] = []
        self.count = 0
        for index, alike in enumerate(kinds):
            number = len(alike.components)
            prunable = not alike.fixed and number > 1
            if not alike.layers:
                continue
            taken = sum(group.layers[0] == alike.layers[0] for group in groups)
            reason = fixed.get(index) or "; ".join(reasons[index]) or "its own channels"
            if not alike.fixed and number == 1:
                reason = f"all its channels are tied to each other: {reason}"
            groups.append(
                Group(
                    id=alike.layers[0] + (f"#{taken + 1}" if taken else ""),
                    width=number * alike.per_layer,
                    unit=alike.per_layer,
                    first=self.count if prunable else -1,
                    layers=alike.layers,
                    prunable=prunable,
                    reason=reason,
                )
            )
            self.group_of[alike.components] = len(groups) - 1
            if prunable:
                unit_of[alike.components] = self.count + np.arange(number)
                self.count += number
        self.groups = tuple(groups)
        # Components that nothing prunes have negative labels of their own, below -1.
        unit_of = np.where(unit_of >= 0, unit_of, -2 - np.arange(len(unit_of)))
        self._label = torch.from_numpy(unit_of[self.component])

    def labels(self, numbers: Tensor) -> Tensor:
        """Each number's unit; below -1, and different for untied ones, where nothing prunes it."""
        return self._label[numbers]

    def group_names(self, numbers: Tensor) -> tuple[str, ...]:
        """The groups among `numbers`, in order of appearance; none for the image's channels."""
        found = dict.fromkeys(self.group_of[self.component[numbers.numpy()]].tolist())
        return tuple(self.groups[index].id for index in found if index >= 0)

    def _alike(self) -> list[_Alike]:
        """Units with equal counts in every tensor, by the first number of the first unit."""
        ledger = self.ledger
        names = list(ledger.layers)
        tensors = [written for _, written in ledger.layers.values()]
        tensors += [read for read, _ in ledger.layers.values()]
        tensors += [*ledger.norms.values(), *ledger.direct.values()]
        fixed = np.zeros(int(self.component.max()) + 1, dtype=bool)
        for numbers, _ in ledger.fixes:
            fixed[self.component[numbers.numpy()]] = True
        kinds: dict[tuple[bool, bytes, bytes], list[int]] = {}
        rows_of = {}
        for component, rows, counts in self._appearances(tensors):
            kind = (bool(fixed[component]), rows.tobytes(), counts.tobytes())
            kinds.setdefault(kind, []).append(component)
            rows_of[kind] = (rows, counts)
        found = []
        for kind, members in kinds.items():
            rows, counts = rows_of[kind]
            layers = tuple(names[row] for row in rows if row < len(names))
            per_layer = int(counts[0]) if layers else 0
            found.append(_Alike(np.array(members), layers, per_layer, kind[0]))
        order = {name: index for index, name in enumerate(names)}
        return sorted(found, key=lambda alike: order[alike.layers[0]] if alike.layers else -1)

    def _appearances(
        self, tensors: list[Tensor]
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Each component, the tensors that it appears in (ascending), and how often in each."""
        component = np.concatenate([self.component[x.numpy()] for x in tensors])
        tensor = np.repeat(np.arange(len(tensors)), [len(x) for x in tensors])
        keys, counts = np.unique(component * len(tensors) + tensor, return_counts=True)
        of, rows = np.divmod(keys, len(tensors))
        ends = np.append(np.flatnonzero(np.diff(of)) + 1, len(of))
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            yield int(of[start]), rows[start:end], counts[start:end]

    def _reasons(self, kinds: list[_Alike]) -> tuple[list[list[str]], dict[int, str]]:
        """Why the units of each kind are tied, and why they are fixed."""
        kind_of = np.full(int(self.component.max()) + 1, -1)
        for index, alike in enumerate(kinds):
            kind_of[alike.components] = index
        tied: list[list[str]] = [[] for _ in kinds]
        for one, _, reason in self.ledger.ties:
            for index in np.unique(kind_of[self.component[one.numpy()]]).tolist():
                if index >= 0 and reason not in tied[index]:
                    tied[index].append(reason)
        fixed: dict[int, str] = {}
        for numbers, reason in self.ledger.fixes:
            for index in np.unique(kind_of[self.component[numbers.numpy()]]).tolist():
                fixed.setdefault(index, reason)
        return tied, fixed


def _components(ledger: Ledger) -> np.ndarray:
    """The connected component of each number; components are numbered by their first number."""
    count = ledger.starts[-1]
    one = [x.numpy() for x, _, _ in ledger.ties] or [np.empty(0, dtype=np.int64)]
    other = [x.numpy() for _, x, _ in ledger.ties] or [np.empty(0, dtype=np.int64)]
    rows, columns = np.concatenate(one), np.concatenate(other)
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    result: np.ndarray = rank[inverse]
    return result
