"""The one reader of results/STUDY: every file that study.json promises, typed, or a refusal.

A missing, truncated or wrong file raises `UserError`, which names the file and the DVC stage that
makes it. A replicate is the whole study with one seed: its base networks, PruningNets, searches
and final trainings. Accuracies are in percent, costs in MACs for one image, times in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from graphpruning.common.errors import UserError
from paper.reader import study
from paper.reader.contents import (
    Base,
    Correlation,
    Final,
    Generated,
    Look,
    PruningNet,
    Row,
    Run,
    Search,
    SecondFile,
    Splits,
    StudyFile,
)
from paper.reader.reading import PRETRAINED
from paper.reader.stages import Key, StageFiles

GIVEN = "given"
"""The kind and the source of a method whose results are somebody's own file (`paper.compare`)."""


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network whose layers were compared, in each replicate, by seed.

    It is of this study, or of the one beside it.
    """

    label: str
    study: str
    model: str
    data: str
    images: int
    base: Mapping[int, Base]
    correlation: Mapping[int, Correlation]

    @property
    def has_shortcuts(self) -> bool:
        """Whether there are blocks with shortcuts, without which claim 1 says nothing."""
        return all(correlation.pairs for correlation in self.correlation.values())


@dataclass(frozen=True, eq=False)
class Results:
    """Everything under results/STUDY that the tables, figures and report are made from.

    `rows`, and all that follows from methods, is empty in a study that ends after the correlation.
    `reward` (top-1 or top-5) is the accuracy that searches judge by.
    `analysed` are the conditionings of the PruningNets that were analysed, some of the trained,
    and `analysed_budgets` those within which they were.
    Keys end with the seed of the replicate; `search` and `final` have for each model, method and
    budget the results by seed.
    `pretrained` is the study beside this one, unless this is it. `up` leads from `path`, where
    tables, figures and report go, to the folder of the study's records.
    """

    path: Path
    name: str
    title: str
    data: str
    models: list[str]
    budgets: list[str]
    seeds: list[int]
    rows: dict[str, Row]
    conditionings: dict[str, Look]
    reward: str
    analysed: list[str]
    analysed_budgets: list[str]
    splits: Splits
    base: dict[tuple[str, int], Base]
    correlation: dict[tuple[str, int], Correlation]
    pruningnet: dict[tuple[str, str, int], PruningNet]
    generated: dict[tuple[str, int], Generated]
    search: dict[Key, dict[int, Search]]
    final: dict[Key, dict[int, Final]]
    pretrained: "Results | None" = None
    up: str = ""

    @cached_property
    def networks(self) -> list[Network]:
        """The networks that claim 1 is tested with: this study's own, then the pretrained ones."""
        own = [
            Network(
                label=model,
                study=self.name,
                model=model,
                data=self.data,
                images=self.splits.images.test,
                base={seed: self.base[model, seed] for seed in self.seeds},
                correlation={seed: self.correlation[model, seed] for seed in self.seeds},
            )
            for model in self.models
        ]
        beside = self.pretrained.networks if self.pretrained else []
        return own + [replace(one, label=f"{one.model} ({one.study})") for one in beside]

    @property
    def compared(self) -> list[Network]:
        """Those of `networks` that have blocks with shortcuts, without which C1 says nothing."""
        return [network for network in self.networks if network.has_shortcuts]

    @property
    def ours(self) -> Row:
        """The method under study: the first row of kind ours."""
        return next(row for row in self.rows.values() if row.kind == "ours")

    def of_kind(self, kind: str) -> list[Row]:
        """Rows of one kind, in the study's order."""
        return [row for row in self.rows.values() if row.kind == kind]

    def network(self, model: str) -> Base:
        """The first replicate's base: its graph, MACs and parameters are those of all."""
        return self.base[model, self.seeds[0]]

    def budget_macs(self, model: str, budget: str) -> int:
        """A budget in MACs."""
        return next(iter(self.search[model, self.ours.name, budget].values())).budget_macs

    def test_top1(self, model: str, method: str, budget: str) -> dict[int, float]:
        """Test accuracy of the final network, by seed."""
        return {seed: one.test_top1 for seed, one in self.final[model, method, budget].items()}

    def search_top1(self, model: str, method: str, budget: str) -> dict[int, float]:
        """Accuracy of the found candidate on the search split, by seed."""
        return {seed: one.top1_search for seed, one in self.search[model, method, budget].items()}

    @property
    def trainings(self) -> tuple[int, ...]:
        """How many final trainings of one found network an accuracy is the mean of, ascending: one
        number, unless replicates or methods differ. What others gave does not count.
        """
        return tuple(sorted({n for name in self.rows for n in self.trainings_of(name)}))

    def trainings_of(self, method: str) -> tuple[int, ...]:
        """The same of one method's networks."""
        finals = [f for key, by in self.final.items() if key[1] == method for f in by.values()]
        return tuple(sorted({one.trainings or 1 for one in finals if one.run is not None}))

    @property
    def second(self) -> "Results | None":
        """The same study with the accuracies that the second kind of final training gives.

        Methods whose results are somebody's own file have none. None without a second kind.
        """
        final = {
            key: {seed: _of_second(one, one.second) for seed, one in by_seed.items() if one.second}
            for key, by_seed in self.final.items()
        }
        measured = {method for (_, method, _), by_seed in final.items() if by_seed}
        if not measured:
            return None
        return replace(
            self,
            rows={name: row for name, row in self.rows.items() if name in measured},
            search={key: found for key, found in self.search.items() if key[1] in measured},
            final={key: found for key, found in final.items() if key[1] in measured},
        )

    @property
    def runs(self) -> list[Run]:
        """The run behind every number, in the pipeline's order.

        Records, also those of the study beside this one, are named from `path`.
        """
        runs = [self.splits.run]
        runs += [base.run for base in self.base.values()]
        runs += [correlation.run for correlation in self.correlation.values()]
        runs += [net.run for net in self.pruningnet.values()]
        runs += [generated.run for generated in self.generated.values()]
        runs += [s.run for by_seed in self.search.values() for s in by_seed.values() if s.run]
        runs += [run for by_seed in self.final.values() for f in by_seed.values() for run in f.runs]
        if self.pretrained:
            name = self.pretrained.name
            runs += [replace(r, record=f"../{name}/{r.record}") for r in self.pretrained.runs]
        return [replace(run, record=f"{self.up}{run.record}") for run in runs]


def _of_second(final: Final, second: SecondFile) -> Final:
    """The network after the second kind of training, which is never done again."""
    trainings = final.trainings and final.trainings - len(final.again)
    return replace(final, **vars(second), second=None, trainings=trainings, each={}, again=())


def read(path: str | Path) -> Results:
    """Read results/STUDY, and the pretrained network's results beside it.

    `UserError` names the first file that is missing or not whole.
    """
    results = _read(Path(path))
    if results.name == PRETRAINED:
        return results
    beside = _read(results.path.parent / PRETRAINED, PRETRAINED)
    return replace(results, pretrained=beside)


def _read(path: Path, expected: str = "") -> Results:
    """Read one study; with `expected` it must be the one of that name."""
    said = study.read_study(path)
    name = said.study
    if expected and name != expected:
        raise UserError(
            f"{path / study.FILE}: the study is {name!r}, not {expected!r}: put it elsewhere "
            f"(dvc repro prepare@{expected} makes {expected}'s)"
        )
    base = _bases(path, said)
    replicates = [(model, seed) for model in said.models for seed in said.seeds]

    def files(stage: str, *items: str, seed: int | None = None) -> StageFiles:
        return StageFiles(path, name, stage, *items, seed=seed)

    correlation = {
        (m, s): files("correlation", m, seed=s).correlation(m, base[m, s]) for m, s in replicates
    }
    pruningnet = {
        (m, c, s): files("train_pruningnet", m, c, seed=s).pruningnet(m, c)
        for m, s in replicates
        for c in said.conditionings
    }
    generated = {
        (m, s): files("analyse_pruningnet", m, seed=s).generated(
            m, base[m, s], said.analysed, study.analysed_budgets(said)
        )
        for m, s in replicates
        if said.analysed
    }
    for (m, s), one in generated.items():
        files("analyse_pruningnet", m, seed=s).same_analysis(m, one, generated[m, said.seeds[0]])
    search, final = _methods(path, said, base)
    return Results(
        path=path,
        name=name,
        title=said.title,
        data=study.data(said),
        models=said.models,
        budgets=said.budgets,
        seeds=said.seeds,
        rows=study.rows(said),
        conditionings=said.conditionings,
        reward=f"top-{said.reward[3:]}",
        analysed=said.analysed,
        analysed_budgets=study.analysed_budgets(said),
        splits=files("prepare").splits(),
        base=base,
        correlation=correlation,
        pruningnet=pruningnet,
        generated=generated,
        search=search,
        final=final,
    )


def _bases(path: Path, said: StudyFile) -> dict[tuple[str, int], Base]:
    """The base networks, which differ between replicates in their weights alone."""
    base = {}
    for model in said.models:
        for seed in said.seeds:
            files = StageFiles(path, said.study, "train_base", model, seed=seed)
            base[model, seed] = files.base(model)
            files.same_network(model, base[model, seed], base[model, said.seeds[0]])
    return base


def _methods(
    path: Path, said: StudyFile, base: dict[tuple[str, int], Base]
) -> tuple[dict[Key, dict[int, Search]], dict[Key, dict[int, Final]]]:
    """What every method found at every budget, and the final networks."""
    search: dict[Key, dict[int, Search]] = {}
    final: dict[Key, dict[int, Final]] = {}
    first: dict[int, Final] = {}
    for key in [(m, row, b) for m in said.models for row in said.methods for b in said.budgets]:
        model, row = key[0], said.rows[key[1]]
        search[key], final[key] = {}, {}
        for seed in said.seeds:
            files = StageFiles(path, said.study, row.stage, *key, seed=seed)
            found = files.search(key, base[model, seed])
            files.same_budget(key, found, search[key].get(said.seeds[0], found))
            search[key][seed] = found
            files = StageFiles(path, said.study, "finetune", *key, seed=seed)
            trained = files.final(key, found, row.initial)
            files.same_trainings(key, trained, first.setdefault(seed, trained))
            files.same_kinds(key, trained, first[said.seeds[0]])
            final[key][seed] = trained
    return search, _trained_again(path, said, search, final)


def _trained_again(
    path: Path,
    said: StudyFile,
    search: dict[Key, dict[int, Search]],
    final: dict[Key, dict[int, Final]],
) -> dict[Key, dict[int, Final]]:
    """The final networks with their further trainings.

    Not all that study.json lists need be there, for a study may be carried on. But within a
    replicate every method that has some, in any replicate, has the same numbers for all its
    networks.
    """
    there = {
        (key, seed): _further(said, key[1], path.joinpath("final/again", *key, str(seed)))
        for key, by_seed in final.items()
        for seed in by_seed
    }
    methods = {key[1] for (key, _), numbers in there.items() if numbers}
    numbers_of = {
        seed: sorted(set().union(*(found for (_, of), found in there.items() if of == seed)))
        for seed in said.seeds
    }
    result = {key: dict(by_seed) for key, by_seed in final.items()}
    for key, seed in there:
        one = final[key][seed]
        if key[1] in methods and numbers_of[seed]:
            again = [
                StageFiles(
                    path, said.study, "finetune_again", *key, seed=seed, training=number
                ).again(key, search[key][seed], one)
                for number in numbers_of[seed]
            ]
            result[key][seed] = one.with_further(again)
    return result


def _further(said: StudyFile, method: str, folder: Path) -> set[int]:
    """Numbers of the further trainings that have a folder here and that the study asks for."""
    names = (path.parent.name for path in folder.glob("*/metrics.json"))
    numbers = {int(name) for name in names if name.isdecimal()}
    if said.again is None:
        return numbers
    return numbers.intersection(said.again.trainings) if method in said.again.methods else set()


def read_published() -> pd.DataFrame:
    """Published numbers with their sources, as text: the digits stay as they were printed."""
    return _published("published.csv")


def read_published_counts() -> pd.DataFrame:
    """What our counter says of published channel lists: macs, params, by the architecture's name.

    `python -m experiments.published_networks` makes the file.
    """
    return _published("published_counts.csv").set_index("architecture")


def _published(name: str) -> pd.DataFrame:
    path = Path(__file__).parents[1] / name
    return pd.read_csv(path, dtype=str, keep_default_na=False)
