"""Claim 1 on networks that others trained: their accuracy and the correlation of their layers.

A small pipeline of its own (`pretrained/dvc.yaml`), since nothing is trained and nothing searched.
Its images stay outside the pipeline: `make pretrained` says where they are.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from experiments.common.stage import Context, Stage, timed
from experiments.common.study import (
    MOST_THREADS,
    CorrelationSettings,
    DataSettings,
    ModelSettings,
    Precision,
    check_text,
    check_within,
    ranges_of,
)
from experiments.correlation import correlation
from experiments.prepare import named, write_splits
from experiments.train_base import train_base
from graphpruning.common.errors import UserError
from graphpruning.common.files import write_json
from graphpruning.common.names import require_plain
from graphpruning.common.validated import STRICT, validated

STUDY_FILE = Path("pretrained/params.yaml")
SEED = "0"
"""Draws the images' positions and the untrained control."""


@dataclass(frozen=True, config=STRICT)
class Pretrained:
    """Networks with `weights` that others trained, and the images that they are looked at with."""

    study: str
    title: str
    models: tuple[str, ...]
    networks: dict[str, ModelSettings]
    data: DataSettings
    precision: Precision
    threads: int | None
    correlation: CorrelationSettings


def parse(raw: Any, where: str = str(STUDY_FILE)) -> Pretrained:
    """Turn plain data into a `Pretrained`; `UserError` for what does not fit."""
    study = validated(Pretrained, raw, where)
    if not study.models:
        raise UserError(f"{where}: models: the list is empty")
    for key, name in (("study", study.study), *(("models", model) for model in study.models)):
        require_plain(name, f"{where}: {key}")
    for model in study.models:
        if model not in study.networks or study.networks[model].weights is None:
            raise UserError(f"{where}: networks: {model}: weights: say whose, such as torchvision:")
    check_text(study.title, study.data, where)
    threads: dict[str, tuple[float | None, float, float]] = {
        "threads": (study.threads, 1, MOST_THREADS)
    }
    check_within(where, {**threads, **ranges_of(study.data, study.correlation)})
    return study


def pretrained(context: Context) -> None:
    """Write what the stages prepare, train_base and correlation write, for every network."""
    write_splits(context)
    for model in context.study.models:
        for work, folder in ((train_base, "base"), (correlation, "correlation")):
            items = {"model": model, "seed": SEED}
            of_model = replace(context, kind=work.__name__, items=items)
            timed(work, of_model, COMMAND, folder)
    nothing: dict[str, Any] = {"budgets": [], "methods": [], "seeds": [int(SEED)]}
    nothing |= {"reward": "top1", "analysed": [], "conditionings": {}, "rows": {}}
    write_json(context.results / "study.json", {**named(context), **nothing})


COMMAND = "python -m experiments.pretrained"
STAGE = Stage(
    pretrained,
    folder="splits",
    kind=lambda items: "prepare",  # its files, and what reads them, are as of those three stages
    sections=("title", "models", "networks", "data", "precision", "threads", "correlation"),
    single=True,
    study_file=STUDY_FILE,
    parse=parse,
)

if __name__ == "__main__":
    STAGE.main()
