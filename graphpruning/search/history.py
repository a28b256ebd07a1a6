"""What a search has tried, and the journal that lets a killed search continue."""

import json
import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from graphpruning.common.distributed import is_writer, require_shared
from graphpruning.common.files import parse_json, unwritable, write_text
from graphpruning.network.graph import Widths
from graphpruning.network.widths import SearchSpace

Evaluate = Callable[[Widths], float]
"""The one question of a search: the accuracy of these widths on the search split, in percent."""


@dataclass(frozen=True)
class Candidate:
    """Widths that were judged: their MACs and their accuracy on the search split in percent.

    It is an estimate from so many of its `images` if they were not all looked at.
    """

    widths: dict[str, int]
    macs: int
    accuracy: float
    images: int | None = None


class Racing(Protocol):
    """Answers with an accuracy that may be an estimate, if the best candidate so far is better."""

    def __call__(self, widths: Widths, best: Candidate | None) -> tuple[float, int | None]:
        """Return the accuracy in percent, and on how many images it was estimated, if it was."""
        ...


class History:
    """Candidates in the order in which they were judged, all within `budget`.

    `estimated` is the number of the one that a searcher estimates to be the best, if it estimates.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.candidates: list[Candidate] = []
        self.estimated: int | None = None

    def __len__(self) -> int:
        return len(self.candidates)

    def append(self, candidate: Candidate, used: int | None = None) -> None:
        """Add a candidate that uses so much of what the budget limits (its MACs, if not given).

        ValueError when it exceeds the budget.
        """
        used, unit = (candidate.macs, "MACs ") if used is None else (used, "")
        if used > self.budget:
            raise ValueError(f"{used:,} {unit}exceed the budget of {self.budget:,}")
        self.candidates.append(candidate)

    @property
    def found(self) -> Candidate:
        """What the search found: the candidate that is estimated best, else the most accurate."""
        return self.best if self.estimated is None else self.candidates[self.estimated]

    @property
    def best(self) -> Candidate:
        """The most accurate candidate, the earliest of equals; ValueError while there is none."""
        return max(self.candidates, key=lambda candidate: candidate.accuracy)


@dataclass(frozen=True)
class _Answer:
    """One line of a journal; `seconds` is 0 when the answer was already known."""

    asked: tuple[int, ...]
    accuracy: float
    seconds: float
    images: int | None = None


class Journal:
    """Passes at most `evaluations` questions on to `evaluate` and writes every answer to `path`.

    Searchers are deterministic given their seed and the answers. So a killed search is run again
    from its start: it asks the same questions, the journal answers them from the file, and the
    search goes on where it stopped without any state of its own having been saved. Widths asked
    twice count as two evaluations but are computed once. With a `race`, that answers in place of
    `evaluate`, which is asked about what the search has found, if that was but estimated.

    The file has one JSON value a line: `fingerprint` (whatever decides the answers), then
    `{"sum": ..., "widths": ..., "accuracy": ..., "seconds": ...}`, where `sum` is the check sum of
    the rest, and `images` is there if the accuracy is an estimate from so many. A journal with
    another fingerprint is started anew; a half-written or altered line is dropped with all that
    follows, and so are answers to other questions. Several processes read one file, which the first
    of them writes; `UserError` when they do not find the same.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        space: SearchSpace,
        budget: int,
        evaluations: int,
        path: str | Path,
        fingerprint: Mapping[str, Any],
        race: Racing | None = None,
    ) -> None:
        self.history = History(budget)
        self.evaluations = evaluations
        self._evaluate = evaluate
        self._race = race
        self._space = space
        self._path = Path(path)
        self._header = json.dumps(fingerprint, sort_keys=True)
        self._given: list[_Answer] = []
        self._settled = False
        self._known: dict[tuple[int, ...], _Answer] = {}
        self._replay = deque(self._read())
        self.resumed = bool(self._replay)
        require_shared(self._path, len(self._replay))
        self._rewrite(list(self._replay))
        self._before = sum(answer.seconds for answer in self._replay)
        self._started = time.perf_counter()

    @property
    def computed(self) -> int:
        """How many different candidates were computed, in this run or in the one it resumes."""
        return len(self._known)

    def images_seen(self, recalibrating: int, search: int) -> int:
        """Images that all computed candidates took, where one takes so many for recalibration, and
        if it is judged on the whole search split so many of that.
        """
        whole = recalibrating + search
        seen = [recalibrating + (answer.images or search) for answer in self._known.values()]
        return sum(seen) + whole * self._settled

    @property
    def seconds(self) -> float:
        """How long the search has taken: since this journal was opened, agent included, and what
        the answers took that it found there."""
        return self._before + time.perf_counter() - self._started

    def __call__(self, widths: Widths) -> float:
        """Return the accuracy of `widths` in percent; RuntimeError when none is left to ask."""
        if len(self.history) == self.evaluations:
            raise RuntimeError(f"the search has used its {self.evaluations} evaluations")
        asked = self._space.vector(widths)
        if self._replay and self._replay[0].asked != asked:
            print(f"{self._path}: answer {len(self.history) + 1} is to other widths, asked anew")
            self._replay.clear()
            self._rewrite(self._given)
        replayed = bool(self._replay)
        answer = self._replay.popleft() if replayed else self._compute(asked, widths)
        accuracy, macs = answer.accuracy, self._space.macs(widths)
        candidate = Candidate(dict(widths), macs, accuracy, answer.images)
        self.history.append(candidate, self._space.used(widths))
        self._given.append(answer)
        self._known[asked] = answer
        if not replayed and is_writer():
            self._append(answer)
        return accuracy

    def settle(self) -> None:
        """Judge what the search found on the whole split, if its accuracy is but an estimate."""
        found = self.history.found
        if found.images is None:
            return
        whole = replace(found, accuracy=float(self._evaluate(found.widths)), images=None)
        self.history.candidates = [
            whole if one.widths == found.widths else one for one in self.history.candidates
        ]
        self._settled = True

    def _compute(self, asked: tuple[int, ...], widths: Widths) -> _Answer:
        if asked in self._known:
            return replace(self._known[asked], seconds=0.0)
        clock = time.perf_counter()
        if self._race is None:
            accuracy, images = float(self._evaluate(widths)), None
        else:
            best = self.history.best if len(self.history) else None
            accuracy, images = self._race(widths, best)
        return _Answer(asked, accuracy, round(time.perf_counter() - clock, 3), images)

    def _line(self, answer: _Answer) -> str:
        values: dict[str, Any] = {
            "widths": self._space.widths(answer.asked),
            "accuracy": answer.accuracy,
            "seconds": answer.seconds,
        }
        if answer.images is not None:
            values["images"] = answer.images
        return json.dumps({"sum": _check_sum(values), **values}) + "\n"

    def _append(self, answer: _Answer) -> None:
        try:
            with open(self._path, "a", encoding="utf-8", newline="\n") as file:
                file.write(self._line(answer))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(error, self._path) from error

    def _rewrite(self, answers: list[_Answer]) -> None:
        write_text(self._path, "".join([self._header + "\n", *map(self._line, answers)]))

    def _read(self) -> list[_Answer]:
        """The answers in the file up to its first line that is not whole."""
        if not self._path.exists():
            return []
        header, *lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        if header != self._header:
            print(f"{self._path} is the journal of another search, started anew")
            return []
        answers = []
        for line in lines[:-1]:  # what follows the last line feed is half a line, or nothing
            try:
                held = parse_json(line)
                if held.pop("sum") != _check_sum(held):
                    break
                asked, accuracy = self._space.vector(held["widths"]), float(held["accuracy"])
                images = int(held["images"]) if "images" in held else None
                answers.append(_Answer(asked, accuracy, float(held["seconds"]), images))
            except (AttributeError, ValueError, KeyError, TypeError):
                break
        return answers


def _check_sum(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, allow_nan=False).encode())
