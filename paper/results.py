"""The one reader of results/STUDY: every file that study.json promises, typed, or a refusal.

A missing or truncated file raises `UserError`, which names the file and the DVC stage that makes
it. Accuracies are in percent, costs in MACs for one image, times in seconds.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from graphpruning.errors import UserError

CHANNELS = {
    "network": str,
    "pair": str,
    "former": str,
    "deeper": str,
    "channel": int,
    "best_match": float,
    "r2": float,
}
TRAINING = {
    "epoch": int,
    "lr": float,
    "train_loss": float,
    "search_top1_full": float,
    "search_top1_half": float,
    "search_top1_quarter": float,
}
BASE_TRAINING = {
    "epoch": int,
    "lr": float,
    "train_loss": float,
    "train_top1": float,
    "search_top1": float,
}
CANDIDATES = {
    "candidate": int,
    "macs": int,
    "conditioning": str,
    "top1_generated": float,
    "top1_trained": float,
}
INFLUENCE = {
    "conditioning": str,
    "changed": str,
    "observed": str,
    "distance": int,
    "movement": float,
}
HISTORY = {"seed": int, "evaluation": int, "macs": int, "top1": float, "best": float}
FINAL_TRAINING = {
    "seed": int,
    "epoch": int,
    "lr": float,
    "train_loss": float,
    "train_top1": float,
}
MAY_BE_EMPTY = {"top1_trained"}
"""Columns with an empty cell where there is no number: only some candidates are trained."""
GIVEN = "given"
"""The kind and the source of a method whose results are somebody's own file (`paper.compare`)."""
PRETRAINED = "pretrained"
"""The study beside every other one: a network trained on ImageNet, whose layers are compared."""
_NUMBER = (int, float)
_ACCEPTED: dict[Any, tuple[type, ...]] = {
    float: _NUMBER,
    float | None: (*_NUMBER, type(None)),
}
"""What JSON may hold where a value of the kind is wanted."""

_RUN = {
    "stage": str,
    "record": str,
    "command": str,
    "seconds": float,
    "started": str,
    "resumed": bool,
    "hardware": dict,
    "precision": str,
    "versions": dict,
    "images_seen": int,
}


@dataclass(frozen=True)
class Run:
    """A stage's sidecar: what ran, where, with which versions, at what cost."""

    stage: str
    record: str
    command: str
    seconds: float
    started: str
    resumed: bool
    hardware: dict[str, Any]
    precision: str
    versions: dict[str, str]
    images_seen: int
    seconds_by_seed: dict[int, float]


@dataclass(frozen=True)
class Row:
    """A method: where a candidate's weights come from, what its search sees, who searches.

    `source` is a PruningNet's conditioning (graph, block, ...) or base; `kind` is ours, baseline
    or ablation.
    """

    name: str
    label: str
    source: str
    state: str
    searcher: str
    kind: str

    @property
    def place(self) -> str:
        """Under which of the study's `searches` it stands, as in `graphpruning.methods`."""
        return "ablations" if self.source == self.name else self.source


@dataclass(frozen=True)
class Splits:
    """Images in each split, and the classes."""

    dataset: str
    images: dict[str, int]
    classes: int
    run: Run


@dataclass(frozen=True)
class Graph:
    """The channel graph: edges are (source, target, shortcut).

    `widths` are the full widths of layers, `groups` those of prunable groups, both in forward
    order; `description` is the whole file, from which the graph is drawn.
    """

    widths: dict[str, int]
    edges: tuple[tuple[str, str, bool], ...]
    groups: dict[str, int]
    description: dict[str, Any]


@dataclass(frozen=True)
class Base:
    """The unpruned network of a model.

    `search_top1` is None without a search split. `weights` (`source`, `sha256`) are somebody
    else's; None where the study trained its own, for `epochs`.
    """

    macs: int
    params: int
    test_top1: float
    test_top5: float
    search_top1: float | None
    epochs: int
    weights: dict[str, str] | None
    curve: pd.DataFrame
    graph: Graph
    run: Run


@dataclass(frozen=True)
class Heatmap:
    """Absolute Pearson correlation [deeper channels, former channels] of one pair of layers."""

    network: str
    pair: str
    former: str
    deeper: str
    matrix: list[list[float]]


@dataclass(frozen=True)
class Correlation:
    """Per deeper channel the best match and R² of one pair of layers (columns `CHANNELS`).

    `pairs` is 0, and all else empty, for a network without blocks with shortcuts.
    """

    pairs: int
    channels: pd.DataFrame
    heatmaps: list[Heatmap]
    run: Run


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
class PruningNet:
    """A trained PruningNet under one conditioning; `before_recalibration` is at full width."""

    params: int
    epochs: int
    full: float
    quarter: float
    before_recalibration: float
    curve: pd.DataFrame
    run: Run


@dataclass(frozen=True)
class Generated:
    """Candidates with generated weights (`CANDIDATES`), and movements (`INFLUENCE`)."""

    candidates: pd.DataFrame
    influence: pd.DataFrame
    run: Run


@dataclass(frozen=True)
class Found:
    """The widths that one seed's search found, and what finding them took.

    Of a method that was given, NaN and no widths stand for what its file does not have.
    """

    top1_search: float
    macs: int
    params: int
    evaluations: float
    images_seen: float
    seconds: float
    widths: dict[str, int]


@dataclass(frozen=True)
class Search:
    """A method's search at one budget, by seed; `history` has the columns `HISTORY`."""

    budget_macs: int
    seeds: dict[int, Found]
    history: pd.DataFrame
    runs: dict[int, Run]


@dataclass(frozen=True)
class Trained:
    """A found network after final training."""

    test_top1: float
    test_top5: float
    macs: int
    params: int
    epochs: int
    architecture: str


@dataclass(frozen=True)
class Final:
    """A method's final networks at one budget, by seed."""

    initial: str
    seeds: dict[int, Trained]
    runs: dict[int, Run]


Key = tuple[str, str, str]
"""Model, method, budget."""


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
    return replace(results, pretrained=_read(results.path.parent / PRETRAINED))


def _read(path: Path) -> Results:
    prepare = _Files(path, f"prepare@{path.resolve().name}")
    study = prepare.json(
        "study.json",
        study=str,
        title=str,
        models=list,
        data=dict,
        budgets=list,
        methods=list,
        seeds=list,
        pruningnet=dict,
        analysis=dict,
        rows=dict,
    )
    name = study["study"]
    models = [str(model) for model in study["models"]]
    budgets = [str(budget) for budget in study["budgets"]]
    seeds = [str(seed) for seed in study["seeds"]]
    conditionings = [str(conditioning) for conditioning in study["pruningnet"]["conditionings"]]
    judged = [str(joined) for joined in study["analysis"]["conditionings"]]
    analysed = [conditioning for joined in judged for conditioning in joined.split("+")]
    rows = {method: prepare.row(study, method) for method in study["methods"]}
    if rows and all(row.kind != "ours" for row in rows.values()):
        raise UserError(
            f"{path / 'study.json'}: no method is of kind 'ours', so there is nothing to compare; "
            "add one to the study's methods"
        )
    splits = prepare.splits()
    base = {m: _Files(path, f"train_base@{name}-{m}").base(m) for m in models}
    correlation = {
        m: _Files(path, f"correlation@{name}-{m}").correlation(m, base[m]) for m in models
    }
    pruningnet = {
        (m, c): _Files(path, f"train_pruningnet@{name}-{m}-{c}").pruningnet(m, c)
        for m in models
        for c in conditionings
    }
    generated = {
        m: _Files(path, f"analyse_pruningnet@{name}-{m}-{joined}").generated(m, base[m], analysed)
        for m in models
        for joined in judged
    }
    keys = [(m, row.name, b) for m in models for row in rows.values() for b in budgets]
    search = {}
    final = {}
    for key in keys:
        item = f"{name}-{'-'.join(key)}"
        searches = [
            _Files(path, f"search_{rows[key[1]].place}@{item}-{s}").search(key, s) for s in seeds
        ]
        finals = [_Files(path, f"finetune@{item}-{s}").final(key, s) for s in seeds]
        search[key] = _one_search(searches)
        final[key] = _one_final(finals)
    return Results(
        path=path,
        name=name,
        title=study["title"],
        data=_data(study),
        models=models,
        budgets=budgets,
        rows=rows,
        reward=f"top-{study.get('reward', 'top1')[3:]}",
        analysed=analysed,
        splits=splits,
        base=base,
        correlation=correlation,
        pruningnet=pruningnet,
        generated=generated,
        search=search,
        final=final,
    )


def _data(study: Mapping[str, Any]) -> str:
    """What the images are called: a folder's have no name but in the title, after "on"."""
    name = str(study["data"]["name"])
    named = str(study["title"]).rpartition(" on ")[2]
    return named if name == "folder" else name


def read_published() -> pd.DataFrame:
    """Published numbers with their sources, as text: the digits stay as they were printed."""
    path = Path(__file__).with_name("published.csv")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


class _Files:
    """The files that one stage makes under one results folder."""

    def __init__(self, root: Path, stage: str) -> None:
        self.root = root
        self.stage = stage

    def text(self, name: str) -> str:
        path = self.root / name
        if not path.is_file():
            maker = self.stage.split("@")[0]
            raise UserError(
                f"{path} is missing: the stage {maker} makes it (dvc repro {self.stage})"
            )
        return path.read_text(encoding="utf-8")

    def damaged(self, name: str, why: str) -> UserError:
        maker = self.stage.split("@")[0]
        return UserError(
            f"{self.root / name} is truncated or damaged ({why}): "
            f"the stage {maker} makes it anew (dvc repro {self.stage})"
        )

    def json(self, name: str, **kinds: Any) -> dict[str, Any]:
        """Read an object and check that each key of `kinds` is there with its type."""
        text = self.text(name)
        try:
            value = json.loads(text)
        except ValueError as error:
            raise self.damaged(name, f"not whole JSON: {error}") from None
        return self.checked(name, value, kinds)

    def checked(self, name: str, value: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.damaged(name, "not an object")
        for key, kind in kinds.items():
            if key not in value:
                raise self.damaged(name, f"no {key!r}")
            if not isinstance(value[key], _ACCEPTED.get(kind, (kind,))):
                wanted = getattr(kind, "__name__", kind)
                raise self.damaged(name, f"{key!r} is not of the kind {wanted}")
        return value

    def row(self, study: dict[str, Any], method: str) -> Row:
        names = ("label", "source", "state", "searcher", "kind")
        rows = self.checked("study.json", study["rows"], {method: dict})
        row = self.checked("study.json", rows[method], dict.fromkeys(names, str))
        return Row(method, **{name: row[name] for name in names})

    def by_seed(self, name: str, value: dict[str, Any], **kinds: type) -> dict[int, Any]:
        """The checked entries of `seeds`, keyed by the seed as an integer."""
        return {
            int(seed): self.checked(name, entry, kinds) for seed, entry in value["seeds"].items()
        }

    def csv(self, name: str, columns: Mapping[str, type], empty: bool = False) -> pd.DataFrame:
        """Read a table with exactly `columns`, every cell there and of its type.

        It has no rows only where it may be `empty`.
        """
        text = self.text(name)
        if not text.endswith("\n"):
            raise self.damaged(name, "the last line has no end")
        try:
            frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        except ValueError as error:
            raise self.damaged(name, str(error).strip().splitlines()[-1]) from None
        if list(frame.columns) != list(columns):
            raise self.damaged(name, f"columns {list(frame.columns)}, not {list(columns)}")
        if frame.empty and not empty:
            raise self.damaged(name, "no rows")
        for column, kind in columns.items():
            if kind is not str:
                frame[column] = self.numbers(name, frame[column], kind)
        return frame

    def numbers(self, name: str, cells: "pd.Series[str]", kind: type) -> "pd.Series[Any]":
        empty = cells == ""
        if empty.any() and cells.name not in MAY_BE_EMPTY:
            raise self.damaged(name, f"row {int(empty.argmax()) + 1} has no {cells.name}")
        try:
            numbers = pd.to_numeric(cells.mask(empty))
            return numbers.astype(float if kind is float else "int64")
        except (ValueError, TypeError) as error:
            raise self.damaged(name, f"{cells.name}: {error}") from None

    def curve(self, name: str, columns: Mapping[str, type], epochs: int) -> pd.DataFrame:
        """A table with one row an epoch, all of them."""
        frame = self.csv(name, columns, empty=epochs == 0)
        if len(frame) != epochs:
            raise self.damaged(name, f"{len(frame)} epochs, not {epochs}")
        return frame

    def run(self, folder: str) -> Run:
        name = f"{folder}/run.json"
        value = self.json(name, **_RUN)
        by_seed = {int(seed): float(s) for seed, s in value.get("seconds_by_seed", {}).items()}
        return Run(**{key: value[key] for key in _RUN}, seconds_by_seed=by_seed)

    def splits(self) -> Splits:
        value = self.json("splits/metrics.json", dataset=str, images=dict, classes=int)
        for split in ("train", "search", "calibration"):
            name = f"splits/{split}.txt"
            if self.text(name).count("\n") != value["images"][split]:
                raise self.damaged(name, f"not {value['images'][split]} images")
        return Splits(value["dataset"], value["images"], value["classes"], self.run("splits"))

    def base(self, model: str) -> Base:
        folder = f"base/{model}"
        name = f"{folder}/metrics.json"
        kinds = dict(macs=int, params=int, test_top1=float, test_top5=float, epochs=int)
        value = self.json(name, **kinds, search_top1=float | None)
        weights = value.get("weights")
        if weights is not None:
            weights = self.checked(name, weights, {"source": str, "sha256": str})
        return Base(
            **{key: value[key] for key in kinds},
            search_top1=value["search_top1"],
            weights=weights,
            curve=self.curve(f"{folder}/curve.csv", BASE_TRAINING, value["epochs"]),
            graph=self.graph(f"{folder}/graph.json"),
            run=self.run(folder),
        )

    def graph(self, name: str) -> Graph:
        value = self.json(name, layers=list, edges=list, groups=list)
        layers = [self.checked(name, layer, {"name": str, "out": int}) for layer in value["layers"]]
        return Graph(
            widths={layer["name"]: layer["out"] for layer in layers},
            edges=tuple((source, target, shortcut) for source, target, shortcut in value["edges"]),
            groups={group["id"]: group["width"] for group in value["groups"] if group["prunable"]},
            description=value,
        )

    def correlation(self, model: str, base: Base) -> Correlation:
        folder = f"correlation/{model}"
        name = f"{folder}/heatmaps.json"
        try:
            heatmaps = [Heatmap(**entry) for entry in json.loads(self.text(name))]
        except (ValueError, TypeError) as error:
            raise self.damaged(name, str(error)) from None
        pairs = self.json(f"{folder}/metrics.json", pairs=int)["pairs"]
        name = f"{folder}/channels.csv"
        channels = self.csv(name, CHANNELS, empty=pairs == 0)
        width = base.graph.widths
        found = channels.groupby(["network", "pair", "former", "deeper"], as_index=False).size()
        if len(found) != 2 * pairs or any(found["size"] != found["deeper"].map(width)):
            raise self.damaged(name, f"not every channel of {pairs} pairs in two networks")
        return Correlation(pairs, channels, heatmaps, self.run(folder))

    def pruningnet(self, model: str, conditioning: str) -> PruningNet:
        folder = f"pruningnet/{model}/{conditioning}"
        value = self.json(
            f"{folder}/metrics.json",
            params=int,
            epochs=int,
            search_top1_full=float,
            search_top1_quarter=float,
            search_top1_full_before_recalibration=float,
        )
        return PruningNet(
            params=value["params"],
            epochs=value["epochs"],
            full=value["search_top1_full"],
            quarter=value["search_top1_quarter"],
            before_recalibration=value["search_top1_full_before_recalibration"],
            curve=self.curve(f"{folder}/curve.csv", TRAINING, value["epochs"]),
            run=self.run(folder),
        )

    def generated(self, model: str, base: Base, conditionings: list[str]) -> Generated:
        folder = f"generated/{model}"
        count = self.json(f"{folder}/metrics.json", candidates=int)["candidates"]
        groups = len(base.graph.groups)
        candidates = self.csv(f"{folder}/candidates.csv", CANDIDATES)
        influence = self.csv(f"{folder}/influence.csv", INFLUENCE)
        for name, frame, expected in (
            ("candidates", candidates, count),
            ("influence", influence, groups * (groups - 1)),
        ):
            found = frame["conditioning"].value_counts().to_dict()
            if found != dict.fromkeys(conditionings, expected):
                raise self.damaged(f"{folder}/{name}.csv", f"rows {found}, not {expected} of each")
        return Generated(candidates, influence, self.run(folder))

    def search(self, key: Key, seeds: str) -> Search:
        folder = f"search/{'/'.join(key)}/{seeds}"
        name = f"{folder}/metrics.json"
        value = self.json(name, budget_macs=int, seeds=dict)
        kinds = dict(
            top1_search=float, macs=int, params=int, evaluations=int, images_seen=int, widths=dict
        )
        entries = self.by_seed(name, value, **kinds)
        self.expect_seeds(name, seeds, entries)
        history = self.csv(f"{folder}/history.csv", HISTORY)
        evaluations = {seed: entry["evaluations"] for seed, entry in entries.items()}
        if history["seed"].value_counts().to_dict() != evaluations:
            raise self.damaged(f"{folder}/history.csv", f"not {evaluations} evaluations by seed")
        run = self.run(folder)
        self.expect_seeds(f"{folder}/run.json", seeds, run.seconds_by_seed)
        found = {
            seed: Found(**{k: entry[k] for k in kinds}, seconds=run.seconds_by_seed[seed])
            for seed, entry in entries.items()
        }
        return Search(value["budget_macs"], found, history, dict.fromkeys(found, run))

    def final(self, key: Key, seeds: str) -> Final:
        folder = f"final/{'/'.join(key)}/{seeds}"
        name = f"{folder}/metrics.json"
        value = self.json(name, initial=str, seeds=dict)
        kinds = dict(test_top1=float, test_top5=float, macs=int, params=int, epochs=int)
        entries = self.by_seed(name, value, **kinds)
        self.expect_seeds(name, seeds, entries)
        curve = self.csv(f"{folder}/curve.csv", FINAL_TRAINING)
        epochs = {seed: entry["epochs"] for seed, entry in entries.items()}
        if curve["seed"].value_counts().to_dict() != epochs:
            raise self.damaged(f"{folder}/curve.csv", f"not {epochs} epochs by seed")
        trained = {}
        for seed, entry in entries.items():
            architecture = f"{folder}/architectures/seed-{seed}.json"
            self.text(architecture)
            trained[seed] = Trained(**{k: entry[k] for k in kinds}, architecture=architecture)
        return Final(value["initial"], trained, dict.fromkeys(trained, self.run(folder)))

    def expect_seeds(self, name: str, seeds: str, there: Sequence[int] | Mapping[int, Any]) -> None:
        expected = [int(seed) for seed in seeds.split("+")]
        if sorted(there) != sorted(expected):
            raise self.damaged(name, f"seeds {sorted(map(int, there))}, not {sorted(expected)}")


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
