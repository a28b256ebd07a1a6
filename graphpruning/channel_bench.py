"""Channel-Bench-Macro: the accuracy on CIFAR-10 of every width vector of two small networks.

Su et al. 2021, "BCNet: Searching for Network Width with Bilaterally Coupled Network" (arXiv
2105.10533; github.com/xiusu/Channel-Bench-Macro). Each of 16,384 networks of a space was trained
three times from scratch for 60 epochs; an accuracy is the best one of any epoch **on the test
set** (`train.py`), which flatters all of them alike. The tables state no licence, so they are read
from a folder or downloaded, and never committed.
"""

import json
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

from graphpruning.common.errors import UserError, reason
from graphpruning.common.files import atomic, sum_of
from graphpruning.common.names import nearest
from graphpruning.network.graph import Widths
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build, seeded

NETWORKS = {"MobileNet": "channel_bench_mobilenet", "ResNet": "channel_bench_resnet"}
"""The zoo's name of each network."""
FILES = {
    "Results_MobileNet.json": "f640474d8ff3ff2231d0c45986bb0f10af291545316342fb009952e7641908e0",
    "Results_ResNet.json": "bf13bcaea3f2076f2c1bfbf5c2fee044aafe0385fae6a0d64c433b1d7f5a7520",
}
"""SHA-256 of each table."""
COMMIT = "4ff596e814cc88cc9add77ff83fc1a2f05ee1fef"
SOURCE = f"https://raw.githubusercontent.com/xiusu/Channel-Bench-Macro/{COMMIT}"
RATIOS = (0.25, 0.5, 0.75, 1.0)
"""A key's digits 1 to 4, as shares of the full width."""
TRAININGS = 3
SECONDS_TO_ANSWER = 20


class ChannelBench:
    """One network's table.

    Args:
        network: a key of `NETWORKS`.
        folder: where the table lies, or is put.
        download: get the table from the authors' repository if it is not there.
        filled: share of its budget that a candidate of `space` uses at least.

    Raises:
        UserError: for an unknown network, a table that is missing, cannot be downloaded, or has
            other bytes.
    """

    def __init__(
        self, network: str, folder: str | Path, download: bool = False, filled: float = 0.0
    ) -> None:
        if network not in NETWORKS:
            near = nearest(network, NETWORKS)
            raise UserError(f"Channel-Bench-Macro has no {network!r}; did you mean {near!r}?")
        self.network = network
        path = Path(folder) / f"Results_{network}.json"
        if download and not path.exists():
            fetch(path)
        require(path, path.name, str(path))
        with open(path, encoding="utf-8") as file:
            table = json.load(file)
        with seeded(0):
            graph = trace(build(NETWORKS[network]), (3, 32, 32))
        self.space = SearchSpace(graph, divisor=None, ratios=RATIOS, filled=filled)
        self.accuracies = np.array([table[key]["acc"] for key in sorted(table)])
        """Accuracies in percent [networks, TRAININGS], ordered by key."""
        self.vectors = [self._vector(key) for key in sorted(table)]
        """Their widths, groups in forward order."""
        self._index = {vector: number for number, vector in enumerate(self.vectors)}

    def _vector(self, key: str) -> tuple[int, ...]:
        digits = zip(self.space.groups, key, strict=True)
        return tuple(self.space.levels[group][int(digit) - 1] for group, digit in digits)

    def index(self, widths: Widths) -> int:
        """The number of `widths` among the table's keys in order."""
        return self._index[self.space.vector(widths)]

    @cached_property
    def truth(self) -> NDArray[np.float64]:
        """The mean accuracy over the trainings in percent [networks]."""
        mean: NDArray[np.float64] = self.accuracies.mean(axis=1)
        return mean

    def one_training(self, seed: int) -> NDArray[np.float64]:
        """One training's accuracy of each network in percent [networks]; which one is drawn from
        `seed` for each of them.
        """
        chosen = np.random.default_rng(seed).integers(TRAININGS, size=len(self.accuracies))
        drawn: NDArray[np.float64] = self.accuracies[np.arange(len(chosen)), chosen]
        return drawn

    def other_trainings(self, seed: int) -> NDArray[np.float64]:
        """The mean of the trainings that `one_training` leaves [networks]: the truth for whoever
        chooses by that one, because the luck of what is chosen is not in it.
        """
        rest = self.accuracies.sum(axis=1) - self.one_training(seed)
        mean: NDArray[np.float64] = rest / (TRAININGS - 1)
        return mean

    @cached_property
    def macs(self) -> NDArray[np.int64]:
        """Multiply-accumulates of each network [networks]."""
        return self.space.cost.macs(np.array(self.vectors))

    def rank(self, widths: Widths, budget: int, truth: NDArray[np.float64] | None = None) -> int:
        """The place of `widths` among all networks within `budget` (MACs), from 1 on, by `truth`
        [networks], without it by the mean of all trainings; equally good ones share the better
        place.
        """
        known = self.truth if truth is None else truth
        return 1 + int((known[self.macs <= budget] > known[self.index(widths)]).sum())


class Judged(list[int]):
    """Networks by number, in order, and the place of the one that a searcher estimates best."""

    estimated: int | None = None


class Answers:
    """A journal in memory: a search's questions are looked up in `rewards` [networks]."""

    def __init__(self, table: ChannelBench, rewards: NDArray[np.float64], evaluations: int) -> None:
        self.table, self.rewards, self.evaluations = table, rewards, evaluations
        self.history = Judged()

    def __call__(self, widths: Widths) -> float:
        """Return the reward of `widths` in percent; ValueError where there is none."""
        number = self.table.index(widths)
        if np.isnan(self.rewards[number]):
            raise ValueError(f"there is no reward of {self.table.vectors[number]}")
        self.history.append(number)
        return float(self.rewards[number])

    def best_so_far(self) -> NDArray[np.int64]:
        """The number of the network with the best reward after each evaluation [evaluations]."""
        judged = np.array(self.history)
        best = np.maximum.accumulate(self.rewards[judged])
        places = [int(np.argmax(self.rewards[judged] == value)) for value in best]
        numbers: NDArray[np.int64] = judged[places]
        return numbers

    @property
    def found(self) -> int:
        """The number of the network that the search ends with: estimated best, else the best."""
        if self.history.estimated is not None:
            return self.history[self.history.estimated]
        return int(self.best_so_far()[-1])


def fetch(path: Path) -> None:
    """Download the table called like `path` from the authors' repository.

    Raises `UserError` when there is no answer, or another one than the table.
    """
    url = f"{SOURCE}/{path.name}"
    advice = f"put {path.name} of github.com/xiusu/Channel-Bench-Macro into {path.parent}"
    with atomic(path) as beside:
        try:
            with urlopen(url, timeout=SECONDS_TO_ANSWER) as answer:
                beside.write_bytes(answer.read())
        except (OSError, HTTPException) as error:
            raise UserError(f"{url} is not to be had ({reason(error)}): {advice}") from None
        require(beside, path.name, url)


def require(path: Path, name: str, shown: str) -> None:
    """Raise `UserError` unless `path` holds the table `name`."""
    made_by = "github.com/xiusu/Channel-Bench-Macro, or `python -m benchmarks searchers --download`"
    found = sum_of(path, made_by)
    if found != FILES[name]:
        raise UserError(
            f"{shown}: SHA-256 is {found}, expected {FILES[name]}: get it anew from {made_by}"
        )
