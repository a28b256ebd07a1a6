"""The one reader of results/STUDY: every file that study.json promises, typed, or a refusal.

A missing, truncated or wrong file raises `UserError`, which names the file and the DVC stage that
makes it. Accuracies are in percent, costs in MACs for one image, times in seconds.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from graphpruning.common.errors import UserError
from paper.contents import (
    CONDITIONINGS,
    HISTORY,
    Base,
    Correlation,
    Final,
    Found,
    Generated,
    Graph,
    Heatmap,
    PruningNet,
    Row,
    Run,
    Search,
    Splits,
    Trained,
)
from paper.reading import LABEL, LINE, OneOf, clipped
from paper.stages import Key, StageFiles

__all__ = [
    "GIVEN",
    "HISTORY",
    "PRETRAINED",
    "Base",
    "Correlation",
    "Final",
    "Found",
    "Generated",
    "Graph",
    "Heatmap",
    "Key",
    "Network",
    "PruningNet",
    "Results",
    "Row",
    "Run",
    "Search",
    "Splits",
    "Trained",
    "read",
    "read_published",
]

GIVEN = "given"
"""The kind and the source of a method whose results are somebody's own file (`paper.compare`)."""
PRETRAINED = "pretrained"
"""The study beside every other one: a network trained on ImageNet, whose layers are compared."""


@dataclass(frozen=True)
class Network:
    """A trained network whose layers were compared; of this study, or of the one beside it."""

    label: str
    study: str
    model: str
    data: str
    images: int
    base: Base
    correlation: Correlation


@dataclass(frozen=True)
class Results:
    """Everything under results/STUDY that the tables, figures and report are made from.

    `rows`, and all that follows from methods, is empty in a study that ends after the correlation.
    `reward` (top-1 or top-5) is the accuracy that searches judge by.
    `analysed` are the conditionings of the PruningNets that were analysed, some of the trained.
    `pretrained` is the study beside this one, unless this is it. `up` leads from `path`, where
    tables, figures and report go, to the folder of the study's records.
    """

    path: Path
    name: str
    title: str
    data: str
    models: list[str]
    budgets: list[str]
    rows: dict[str, Row]
    reward: str
    analysed: list[str]
    splits: Splits
    base: dict[str, Base]
    correlation: dict[str, Correlation]
    pruningnet: dict[tuple[str, str], PruningNet]
    generated: dict[str, Generated]
    search: dict[Key, Search]
    final: dict[Key, Final]
    pretrained: "Results | None" = None
    up: str = ""

    @property
    def networks(self) -> list[Network]:
        """The networks that claim 1 is tested with: this study's own, then the pretrained ones."""
        own = [
            Network(
                label=model,
                study=self.name,
                model=model,
                data=self.data,
                images=self.splits.images["test"],
                base=self.base[model],
                correlation=self.correlation[model],
            )
            for model in self.models
        ]
        beside = self.pretrained.networks if self.pretrained else []
        return own + [replace(one, label=f"{one.model} ({one.study})") for one in beside]

    @property
    def compared(self) -> list[Network]:
        """Those of `networks` that have blocks with shortcuts, without which C1 says nothing."""
        return [network for network in self.networks if network.correlation.pairs]

    @property
    def ours(self) -> Row:
        """The method under study: the first row of kind ours."""
        return next(row for row in self.rows.values() if row.kind == "ours")

    def of_kind(self, kind: str) -> list[Row]:
        """Rows of one kind, in the study's order."""
        return [row for row in self.rows.values() if row.kind == kind]

    def test_top1(self, model: str, method: str, budget: str) -> dict[int, float]:
        """Test accuracy of the final network, by seed."""
        found = self.final[model, method, budget].seeds
        return {seed: trained.test_top1 for seed, trained in found.items()}

    def search_top1(self, model: str, method: str, budget: str) -> dict[int, float]:
        """Accuracy of the best candidate on the search split, by seed."""
        found = self.search[model, method, budget].seeds
        return {seed: one.top1_search for seed, one in found.items()}

    @property
    def seeds(self) -> list[int]:
        """Every seed of the study's searches."""
        own = (
            search
            for (_, method, _), search in self.search.items()
            if self.rows[method].kind != GIVEN
        )
        return sorted({seed for search in own for seed in search.seeds})

    @property
    def runs(self) -> list[Run]:
        """The run behind every number, in the pipeline's order, each once.

        Records, also those of the study beside this one, are named from `path`.
        """
        runs = [self.splits.run]
        runs += [base.run for base in self.base.values()]
        runs += [correlation.run for correlation in self.correlation.values()]
        runs += [net.run for net in self.pruningnet.values()]
        runs += [generated.run for generated in self.generated.values()]
        runs += [run for search in self.search.values() for run in search.runs.values()]
        runs += [run for final in self.final.values() for run in final.runs.values()]
        if self.pretrained:
            name = self.pretrained.name
            runs += [replace(r, record=f"../{name}/{r.record}") for r in self.pretrained.runs]
        runs = [replace(run, record=f"{self.up}{run.record}") for run in runs]
        return list({run.stage: run for run in runs}.values())


def read(path: str | Path) -> Results:
    """Read results/STUDY, and the pretrained network's results beside it.

    `UserError` names the first file that is missing or not whole.
    """
    results = _read(Path(path))
    if results.name == PRETRAINED:
        return results
    beside = _read(results.path.parent / PRETRAINED, PRETRAINED)
    return replace(results, pretrained=beside)


@dataclass(frozen=True)
class _Study:
    """What study.json says: which files there are, and what they are called."""

    name: str
    title: str
    data: str
    models: list[str]
    budgets: list[str]
    seeds: list[str]
    rows: dict[str, Row]
    reward: str
    conditionings: list[str]
    judged: list[str]

    @property
    def analysed(self) -> list[str]:
        """The conditionings whose PruningNets were analysed, in whichever stage."""
        return [conditioning for joined in self.judged for conditioning in joined.split("+")]


def _read(path: Path, expected: str = "") -> Results:
    """Read one study; with `expected` it must be the one of that name."""
    study = _study(path)
    name = study.name
    if expected and name != expected:
        raise UserError(
            f"{path / 'study.json'}: the study is {name!r}, not {expected!r}: put it elsewhere "
            f"(dvc repro prepare@{expected} makes {expected}'s)"
        )

    def files(stage: str, *items: str) -> StageFiles:
        return StageFiles(path, f"{stage}@{'-'.join((name, *items))}")

    splits = files("prepare").splits()
    base = {m: files("train_base", m).base(m) for m in study.models}
    correlation = {m: files("correlation", m).correlation(m, base[m]) for m in study.models}
    pruningnet = {
        (m, c): files("train_pruningnet", m, c).pruningnet(m, c)
        for m in study.models
        for c in study.conditionings
    }
    generated = {
        m: files("analyse_pruningnet", m, joined).generated(m, base[m], study.analysed)
        for m in study.models
        for joined in study.judged
    }
    search = {}
    final = {}
    for key in [(m, row, b) for m in study.models for row in study.rows for b in study.budgets]:
        model, method, _ = key
        searcher = f"search_{study.rows[method].place}"
        searches = {s: files(searcher, *key, s).search(key, s, base[model]) for s in study.seeds}
        finals = [files("finetune", *key, s).final(key, s, found) for s, found in searches.items()]
        if len({found.budget_macs for found in searches.values()}) != 1:
            last = study.seeds[-1]
            raise files(searcher, *key, last).damaged(
                f"search/{'/'.join(key)}/{last}/metrics.json",
                "another 'budget_macs' than with the other seeds",
            )
        search[key] = _one_search(list(searches.values()))
        final[key] = _one_final(finals)
    return Results(
        path=path,
        name=name,
        title=study.title,
        data=study.data,
        models=study.models,
        budgets=study.budgets,
        rows=study.rows,
        reward=study.reward,
        analysed=study.analysed,
        splits=splits,
        base=base,
        correlation=correlation,
        pruningnet=pruningnet,
        generated=generated,
        search=search,
        final=final,
    )


def _study(path: Path) -> _Study:
    """Read study.json; all of its names are plain, since they become folders."""
    file = "study.json"
    prepare = StageFiles(path, f"prepare@{os.path.basename(os.path.realpath(path))}")
    study = prepare.json(
        file,
        study=LINE,
        title=LINE,
        models=list,
        data=dict,
        budgets=list,
        methods=list,
        seeds=list,
        pruningnet=dict,
        analysis=dict,
        rows=dict,
    )
    name = prepare.plain(file, "study", study["study"])
    prepare.checked(file, study["data"], {"name": LABEL}, "data")
    for section in ("pruningnet", "analysis"):
        prepare.checked(file, study[section], {"conditionings": list}, section)
    reward = study.get("reward", "top1")
    prepare.checked(file, {"reward": reward}, {"reward": OneOf(("top1", "top5"))})
    methods = prepare.names(file, study, "methods")
    found = _Study(
        name=name,
        title=study["title"],
        data=_data(study),
        models=prepare.names(file, study, "models"),
        budgets=prepare.names(file, study, "budgets"),
        seeds=prepare.names(file, study, "seeds"),
        rows={method: prepare.row(study, method) for method in methods},
        reward=f"top-{reward[3:]}",
        conditionings=prepare.names(file, study["pruningnet"], "conditionings"),
        judged=prepare.names(file, study["analysis"], "conditionings"),
    )
    _check_study(prepare, found)
    return found


def _check_study(prepare: StageFiles, study: _Study) -> None:
    """What study.json names must be known, and enough to compare."""
    file = "study.json"
    rows = study.rows.values()
    if rows and all(row.kind != "ours" for row in rows):
        raise UserError(
            f"{prepare.root / file}: no method is of kind 'ours', so there is nothing to compare; "
            "add one to the study's methods"
        )
    if "base" in study.rows:
        raise prepare.damaged(file, "methods: 'base' is the network that is not pruned")
    prepare.different(file, "labels of methods", [row.label for row in rows])
    for seeds in study.seeds:
        if not re.fullmatch(r"[0-9]{1,18}(\+[0-9]{1,18})*", seeds):
            raise prepare.damaged(file, f"seeds: {clipped(seeds)} is not as 0 or 0+1+2")
    prepare.different(
        file, "seeds", [int(seed) for joined in study.seeds for seed in joined.split("+")]
    )
    prepare.different(file, "analysis: conditionings", study.analysed)
    for where, names, known in (
        ("pruningnet", study.conditionings, CONDITIONINGS),
        ("analysis", study.analysed, study.conditionings),
    ):
        if unknown := [one for one in names if one not in known]:
            raise prepare.damaged(
                file, f"{where}: conditionings: {unknown[0]!r} is none of {', '.join(known)}"
            )
    needed = {"models": study.models}
    if rows:
        needed |= {"budgets": study.budgets, "seeds": study.seeds, "analysis": study.analysed}
    for key, there in needed.items():
        if not there:
            raise prepare.damaged(file, f"{key}: none")


def _data(study: Mapping[str, Any]) -> str:
    """What the images are called: a folder's have no name but in the title, after "on"."""
    name = str(study["data"]["name"])
    named = str(study["title"]).rpartition(" on ")[2]
    return named if name == "folder" else name


def read_published() -> pd.DataFrame:
    """Published numbers with their sources, as text: the digits stay as they were printed."""
    path = Path(__file__).with_name("published.csv")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _one_search(stages: list[Search]) -> Search:
    """The seeds of a study may be spread over several stages: join them."""
    return Search(
        budget_macs=stages[0].budget_macs,
        seeds={seed: found for stage in stages for seed, found in stage.seeds.items()},
        history=pd.concat([stage.history for stage in stages], ignore_index=True),
        runs={seed: run for stage in stages for seed, run in stage.runs.items()},
    )


def _one_final(stages: list[Final]) -> Final:
    return Final(
        initial=stages[0].initial,
        seeds={seed: trained for stage in stages for seed, trained in stage.seeds.items()},
        runs={seed: run for stage in stages for seed, run in stage.runs.items()},
    )
