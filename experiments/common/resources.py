"""What a stage asks a cluster for: the section `resources` of a study."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from graphpruning.common.errors import UserError
from graphpruning.common.names import require_plain

DEFAULT = "default"


@dataclass(frozen=True)
class Resources:
    """Processor cores, GPUs (a process each), the longest time, memory, and the partition.

    `time` and `memory` are written as Slurm takes them: "1:30:00", "2-12", "16G". What is left out
    (null) is the study's default, and else one core, no GPU and an hour.
    """

    cpus: int | None = None
    gpus: int | None = None
    time: str | None = None
    memory: str | None = None
    partition: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("cpus", 1), ("gpus", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= 10_000:
                raise UserError(f"{name}: {value} does not lie between {least} and 10000")
        if self.time is not None and not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", self.time):
            raise UserError(f'time: {self.time!r} is no time of Slurm\'s, such as "1:30:00"')
        if self.memory is not None and not re.fullmatch(r"\d+[KMGT]?", self.memory):
            raise UserError(f'memory: {self.memory!r} is no size of Slurm\'s, such as "16G"')
        if self.partition is not None:
            for name in self.partition.split(","):
                require_plain(name, "partition")


LEAST = Resources(cpus=1, gpus=0, time="1:00:00")


def resources_of(kind: str, study: Mapping[str, Resources]) -> Resources:
    """What the stages of a kind get: their own entry over the study's default, over `LEAST`."""
    found = LEAST
    for entry in (study.get(DEFAULT), study.get(kind)):
        given = {f.name: getattr(entry, f.name, None) for f in fields(Resources)}
        found = replace(found, **{name: v for name, v in given.items() if v is not None})
    return found
