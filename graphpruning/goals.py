"""What `prune` is asked for: networks within budgets of MACs or time, one folder each."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphpruning.common.budget import Budget, budget_in_macs, read_budget
from graphpruning.common.distributed import barrier, is_writer
from graphpruning.common.errors import UserError, brief
from graphpruning.common.files import read_json, write_json
from graphpruning.latency_table import LatencyTable
from graphpruning.network.graph import Widths
from graphpruning.network.latency_cost import NANOSECONDS
from graphpruning.network.widths import SearchSpace

WORK = ".graphpruning"
"""Folder in `out` of what a killed run goes on from; removed at the end, so the name is ours."""


@dataclass(frozen=True)
class Timing:
    """Where networks are timed: device, images of a batch, and the file of the layers' times."""

    device: torch.device
    batch: int
    table: Path


@dataclass(frozen=True)
class Goal:
    """A network that uses `allowed` of the resource of `space` at most.

    `out` gets the network, `folder` what a killed run goes on from.
    """

    budget: Budget
    space: SearchSpace
    allowed: int
    out: Path
    folder: Path

    @property
    def timed(self) -> bool:
        """Whether the budget is one of time."""
        return self.budget.kind == "ms"

    def described(self) -> dict[str, Any]:
        """The budget as settings name it: `budget_macs`, or `budget_ms`."""
        if self.timed:
            return {"budget_ms": self.budget.amount}
        return {"budget_macs": self.allowed}

    def finished(self, held: Mapping[str, Any]) -> dict[str, Any] | None:
        """The report of a run that has reached this goal; None if there is none yet.

        Raises `UserError` if it was reached with other settings than `held`.
        """
        if not (self.out / "report.json").exists():
            return None
        by = self.folder / "held.json"
        if not by.exists() or read_json(by, "`prune`") != json.loads(json.dumps(held)):
            raise UserError(
                f"{self.out} holds the network of another run: choose another folder, or remove it"
            )
        found: dict[str, Any] = read_json(self.out / "report.json", "`prune`")
        return found

    def finish(self, held: Mapping[str, Any]) -> None:
        """Note with which settings the network in `out` is found."""
        write_json(self.folder / "held.json", held)


def read_budgets(budget: float | str | Sequence[float | str]) -> list[Budget]:
    """Read one budget or several; `UserError` for one that stands twice, and for none."""
    single = isinstance(budget, Real | str) or not isinstance(budget, Iterable)
    given: list[Any] = [budget] if single else list(budget)  # type: ignore[arg-type]
    if not given:
        raise UserError("budget: at least one is needed")
    found: list[Budget] = []
    for each in given:
        if not isinstance(each, Real | str):
            raise UserError(f"budget is {brief(each)}: give a share, MACs or a time")
        if isinstance(each, Real):  # Python's own number for one of NumPy's
            each = int(each) if isinstance(each, Integral) else float(each)
        one = read_budget(each)
        if (one.kind, one.amount) in [(other.kind, other.amount) for other in found]:
            raise UserError(f"budget: {each!r} stands twice")
        found.append(one)
    return found


def require_macs(budgets: Sequence[Budget], space: SearchSpace) -> None:
    """Raise `UserError` unless `space` can meet every budget of MACs; times are not known yet."""
    for budget in budgets:
        if budget.kind != "ms":
            space.require(_macs(budget, space))


def goals_of(
    budgets: Sequence[Budget], space: SearchSpace, base: nn.Module, out: Path, timing: Timing
) -> list[Goal]:
    """The goals of a run in `out`: in folders of their own if they are several.

    For a budget of time the layers of `base` are measured. Raises `UserError` for a budget that
    cannot be reached, and for more time than the whole network takes.
    """
    timed = space
    if any(budget.kind == "ms" for budget in budgets):
        timed = _timed(space, base, timing)
    goals = []
    for budget in budgets:
        where = (out, out / WORK)
        if len(budgets) > 1:
            where = (out / budget.name, out / WORK / budget.name)
        if budget.kind == "ms":
            goals.append(Goal(budget, timed, _nanoseconds(budget, timed), *where))
        else:
            goals.append(Goal(budget, space, _macs(budget, space), *where))
    return goals


def _timed(space: SearchSpace, base: nn.Module, timing: Timing) -> SearchSpace:
    """`space` with time as its resource; of several processes the first one measures."""
    if is_writer():
        LatencyTable(timing.table, timing.device, timing.batch).of(base, space)
    barrier()
    table = LatencyTable(timing.table, timing.device, timing.batch)
    return space.limited_by(table.of(base, space))


CLOSE = 0.03
"""Share of a budget of time by which a network may miss it."""


def check(goal: Goal, widths: Widths, base: nn.Module, timing: Timing) -> float:
    """How many times longer than told a network takes; of several processes the first measures."""
    if is_writer():
        LatencyTable(timing.table, timing.device, timing.batch).check(base, goal.space, widths)
    barrier()
    table = LatencyTable(timing.table, timing.device, timing.batch)
    return table.check(base, goal.space, widths)


def corrected(goal: Goal, widths: Widths, base: nn.Module, timing: Timing, tries: int) -> Goal:
    """The goal with what the table must say for a time like that of `widths`, once measured, to
    be the budget's. It is the goal itself if `widths` are close to the budget, or smaller for want
    of networks that use more of it. `tries` names the folder of the search that follows.
    """
    ratio = check(goal, widths, base, timing)
    used, asked = goal.space.used(widths), goal.budget.amount * NANOSECONDS
    allowed = min(round(asked / ratio), goal.space.used(goal.space.full))
    small = used < goal.space.filled * goal.allowed and ratio * used <= asked
    reached = goal.space.used(goal.space.smallest) <= allowed
    if small or not reached or abs(ratio * used / asked - 1) <= CLOSE:
        return goal
    return replace(goal, allowed=allowed, folder=goal.folder / f"again-{tries}")


def _macs(budget: Budget, space: SearchSpace) -> int:
    text = f"{budget.amount!r}" if budget.kind == "share" else budget.name
    return budget_in_macs(text, space.macs(space.full))


def _nanoseconds(budget: Budget, space: SearchSpace) -> int:
    allowed = int(budget.amount * NANOSECONDS)
    full = space.used(space.full)
    if allowed > full:
        said = space.resource.said(full)
        raise UserError(f"budget {budget.name} is more than the {said} of the whole network")
    space.require(allowed)
    return allowed
