"""A complete, small synthetic results folder, written by a seeded generator."""

import csv
import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paper import report, tables
from paper.figures import FIGURES
from paper.reader.results import Results, read

METHODS = {
    "graphpruning": ("GraphPruning", "graph", "aggregated", "agent", "ours", 1.0),
    "metapruning": ("MetaPruning", "block", "nothing", "evolution", "baseline", 0.2),
    "amc": ("AMC", "base", "hand-crafted", "ddpg", "baseline", 0.5),
    "random": ("Random search", "graph", "nothing", "random", "baseline", 0.0),
    "uniform": ("Uniform width", "graph", "nothing", "uniform", "baseline", -0.6),
    "no-edges": ("without edges", "none", "aggregated", "agent", "ablation", 0.3),
    "constant": ("constant features", "constant", "hand-crafted", "agent", "ablation", 0.1),
    "hand-crafted": ("hand-crafted states", "graph", "hand-crafted", "agent", "ablation", 0.9),
    "generated": ("from generated weights", "graph", "aggregated", "agent", "ablation", 1.2),
    "plus": ("GraphPruning plus", "graph", "aggregated", "agent", "beyond", 1.4),
    "frozen": ("agent that never learns", "graph", "aggregated", "frozen", "ablation", 0.0),
}
"""Label, source, state, searcher, kind, and the accuracy (points) that the fixture gives it."""
USUAL = tuple(name for name in METHODS if name != "frozen")

CONDITIONINGS = {
    "graph": ("graph", "#0072B2", "o", "-"),
    "block": ("block", "#D55E00", "s", "--"),
    "none": ("no edges", "#009E73", "^", [0, [5, 1]]),
    "constant": ("constant", "#CC79A7", "D", [0, [1, 1]]),
}
"""Label, colour, marker and line."""
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#332288"),
)
MARKERS = "os^DvPX<>p"
EVALUATIONS = 60


class Study:
    """Writes results/STUDY for ResNet-like networks; every number comes from one generator.

    Replicates differ in every number but the size of the network. Beside it goes
    results/pretrained, of a ready-made network and without methods.
    """

    def __init__(
        self,
        path: Path,
        models: Sequence[str] = ("resnet20",),
        methods: Sequence[str] = USUAL,
        budgets: Sequence[float | str] = (0.5, 0.25),
        seeds: Sequence[int] = (0, 1, 2),
        blocks: int = 3,
        candidates: int = 24,
        shortcuts: bool = True,
        trainings: int = 2,
        final_trainings: int = 1,
        second: bool = False,
        again: Sequence[str] = (),
        analysed_budgets: Sequence[float | str] | None = None,
    ) -> None:
        self.path = path
        self.name = path.name
        self.ready_made = self.name == "pretrained"
        self.rng = np.random.default_rng(7)
        self.blocks = blocks
        self.candidates = candidates
        self.shortcuts = shortcuts
        self.trainings = trainings
        self.final_trainings = final_trainings
        self.second = second
        self.again = again
        self.alive = 1.0
        self.labels: dict[str, dict[str, int]] = {}
        self.levels = {name: row[5] for name, row in METHODS.items()}
        conditionings = {
            name: dict(zip(("label", "colour", "marker", "line"), look, strict=True))
            for name, look in CONDITIONINGS.items()
        }
        self.study: dict[str, Any] = {
            "study": self.name,
            "title": "A made-up study with invented numbers",
            "models": list(models),
            "data": {"name": "fashion_mnist"},
            "budgets": [str(budget) for budget in budgets] if methods else [],
            "methods": list(methods),
            "seeds": list(seeds) if methods else [0],
            "reward": "top1",
            "analysed": list(CONDITIONINGS) if methods else [],
            "analysed_budgets": [str(b) for b in analysed_budgets or budgets] if methods else [],
            "conditionings": conditionings if methods else {},
            "rows": {name: self.row(name) for name in methods},
        }

    @staticmethod
    def row(method: str) -> dict[str, Any]:
        label, source, state, searcher, kind, _ = METHODS[method]
        place = list(METHODS).index(method)
        line = CONDITIONINGS[source][3] if source in CONDITIONINGS else "-."
        return {
            "label": label,
            "source": source,
            "state": state,
            "searcher": searcher,
            "kind": kind,
            "initial": "generated" if method == "generated" else None,
            "distilled": kind == "beyond",
            "stage": f"search_{source}",
            "colour": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "line": line,
        }

    def write(self) -> Path:
        if not self.ready_made:
            beside = self.path.with_name("pretrained")
            Study(beside, models=("mobilenet_v2",), methods=(), blocks=self.blocks).write()
        self.json("study.json", self.study)
        self.splits()
        for model in self.study["models"]:
            for seed in self.study["seeds"]:
                self.base(model, seed)
                self.correlation(model, seed)
                for conditioning in self.study["conditionings"]:
                    self.pruningnet(model, conditioning, seed)
                if self.study["analysed"]:
                    self.generated(model, seed)
                for method in self.study["methods"]:
                    for budget in self.study["budgets"]:
                        self.search(model, method, budget, seed)
        return self.path

    def json(self, name: str, value: Any) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1) + "\n")

    def csv(self, name: str, header: str, rows: Iterable[Iterable[Any]]) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header.split(","))
            writer.writerows(rows)

    def run(self, folder: str, stage: str, images: int, seconds: float, **more: Any) -> None:
        self.json(
            f"{folder}/run.json",
            {
                "stage": stage,
                "record": f"records/{stage}",
                "command": f"python -m experiments.{stage.split('@')[0]}",
                "seconds": seconds,
                "started": "2026-01-02T03:04:05Z",
                "resumed": False,
                "hardware": {
                    "cpu": "An Example CPU @ 2.0 GHz",
                    "cores": 2,
                    "accelerator": "none",
                    "memory_gb": 4,
                    "processes": 1,
                },
                "precision": "bf16-mixed",
                "versions": {"python": "3.11.9", "torch": "2.14.1", "graphpruning": "0.1.0"},
                "images_seen": images,
                **more,
            },
        )
        self.json(f"records/{stage}/config.json", {"study": self.name, "base": {"seed": 5}})

    def splits(self) -> None:
        images = {"train": 3000, "search": 500, "calibration": 200, "test": 1000}
        if self.ready_made:
            images = {"train": 250, "search": 0, "calibration": 250, "test": 250}
        for split in ("train", "search", "calibration"):
            path = self.path / f"splits/{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{index}\n" for index in range(images[split])))
        self.json(
            "splits/metrics.json", {"dataset": "fashion_mnist", "images": images, "classes": 10}
        )
        self.run("splits", f"prepare@{self.name}", 0, 1.0)

    def layers(self) -> list[dict[str, Any]]:
        layers = [self.layer("conv1", "convolution", 8, "conv1", 5e4)]
        width, stream = 8, "conv1"
        for stage in (1, 2, 3):
            for block in range(self.blocks):
                name = f"layer{stage}.{block}"
                down = stage > 1 and block == 0
                width, stream = (2 * width, f"{name}.conv2") if down else (width, stream)
                first = f"{name}.conv1"
                layers.append(self.layer(first, "convolution", width, first, 3e5))
                layers.append(self.layer(f"{name}.conv2", "convolution", width, stream, 3e5))
                if down:
                    layers.append(self.layer(f"{name}.shortcut.0", "pointwise", width, stream, 2e4))
        return [*layers, self.layer("fc", "linear", 10, "fc", 300)]

    @staticmethod
    def layer(name: str, kind: str, width: int, group: str, macs: float) -> dict[str, Any]:
        return {"name": name, "kind": kind, "out": width, "macs": int(macs), "group": group}

    def edges(self) -> list[tuple[str, str, bool]]:
        """Every layer that reads the residual stream reads all that was added to it."""
        edges = []
        stream = ["conv1"]
        for stage in (1, 2, 3):
            for block in range(self.blocks):
                name = f"layer{stage}.{block}"
                down = stage > 1 and block == 0
                for target in [f"{name}.conv1"] + [f"{name}.shortcut.0"] * down:
                    edges += [(source, target, source != stream[0]) for source in stream]
                edges.append((f"{name}.conv1", f"{name}.conv2", False))
                stream = [f"{name}.conv2", *([f"{name}.shortcut.0"] if down else stream)]
        return edges + [(source, "fc", source != stream[0]) for source in stream]

    def groups(self) -> list[dict[str, Any]]:
        tied: dict[str, list[dict[str, Any]]] = {}
        for layer in self.layers():
            tied.setdefault(layer["group"], []).append(layer)
        return [
            {
                "id": group,
                "width": layers[0]["out"],
                "layers": [layer["name"] for layer in layers],
                "prunable": group != "fc",
                "reason": "added" if len(layers) > 1 else "its own channels",
            }
            for group, layers in tied.items()
        ]

    def base(self, model: str, seed: int) -> None:
        folder = f"base/{model}/{seed}"
        layers = self.layers()
        self.macs = sum(layer["macs"] for layer in layers)
        self.params = 68_000
        epochs = 0 if self.ready_made else 5
        metrics = {"model": model, "macs": self.macs, "params": self.params, "epochs": epochs}
        shift = 0.1 * seed
        metrics |= {"test_top1": 91.37 + shift, "test_top5": 99.25, "search_top1": 91.8 + shift}
        if self.ready_made:
            metrics |= {"test_top1": 81.6, "test_top5": 97.2, "search_top1": None}
            metrics["weights"] = {"source": "torchvision:SOME", "sha256": 64 * "0"}
        self.json(f"{folder}/metrics.json", metrics)
        self.csv(
            f"{folder}/curve.csv",
            "epoch,lr,train_loss,train_top1,search_top1",
            [(epoch, 0.1, 1 / epoch, 80 + epoch, 85 + epoch) for epoch in range(1, 1 + epochs)],
        )
        groups, edges = self.groups(), self.edges()
        graph = {"model": model, "layers": layers, "edges": edges, "groups": groups}
        self.json(f"{folder}/graph.json", {"input_size": [1, 28, 28], **graph})
        self.run(folder, f"train_base@{self.name}-{model}-{seed}", 275_000, 62.5)

    def correlation(self, model: str, seed: int) -> None:
        folder = f"correlation/{model}/{seed}"
        layers = [layer for layer in self.layers() if ".conv" in layer["name"]]
        pairs = list(zip(layers[::2], layers[1::2], strict=True)) if self.shortcuts else []
        channels, heatmaps = [], []
        stages = [deeper["name"].split(".")[0] for _, deeper in pairs]
        counts = [stages[:index].count(stage) for index, stage in enumerate(stages)]
        for network, level in (("trained", 0.75), ("untrained", 0.6)):
            for index, ((former, deeper), controls) in enumerate(zip(pairs, counts, strict=True)):
                names = {"network": network, "deeper": deeper["name"]}
                read = {"in_block": former["name"]}
                if controls:  # the first of a stage has none
                    read["other_block"] = pairs[index - 1][0]["name"]
                matrices = {pair: self.matrix(deeper["out"], level) for pair in read}
                heatmaps += [
                    names | {"pair": pair, "former": read[pair], "matrix": matrix.tolist()}
                    for pair, matrix in matrices.items()
                ]
                about = level + self.rng.normal(0, 0.05)
                for channel in range(deeper["out"]):
                    match, control_match = [
                        matrices[pair][channel].max() if pair in matrices else ""
                        for pair in ("in_block", "other_block")
                    ]
                    r2, control, after, control_after = [
                        round(min(0.99, about - less + self.rng.normal(0, 0.15)), 5)
                        for less in (0, 0.3, 0.1, 0.4)
                    ]
                    row = [network, former["name"], deeper["name"], channel, controls]
                    row += [match, control_match, r2, control if controls else ""]
                    channels.append([*row, after, control_after if controls else ""])
        header = (
            "network,former,deeper,channel,controls,best_match,control_match,r2,control_r2,"
            "r2_activated,control_r2_activated"
        )
        self.csv(f"{folder}/channels.csv", header, channels)
        rng = np.random.default_rng(seed)  # so that the rest stays as it is

        def near(level: float) -> list[float]:
            """R² of a channel's own and activated output."""
            return [round(level - less + rng.normal(0, 0.1), 5) for less in (0, 0.1)]

        borders = [
            (before, after)
            for (_, before), (after, _) in pairwise(pairs)
            if before["name"].split(".")[0] == after["name"].split(".")[0]
        ]
        across = [
            (network, before["name"], after["name"], channel, 0.5, *near(level))
            for network, level in (("trained", 0.7), ("untrained", 0.6))
            for before, after in borders
            for channel in range(after["out"])
        ]
        header = "network,former,deeper,channel,best_match,r2,r2_activated"
        self.csv(f"{folder}/borders.csv", header, across)
        self.json(f"{folder}/heatmaps.json", heatmaps)
        about_it = {"pairs": len(pairs), "controls": sum(counts), "ridge": [0.001, 0.1]}
        about_it["borders"] = len(borders)
        self.json(f"{folder}/metrics.json", {**about_it, "images": 512})
        self.run(folder, f"correlation@{self.name}-{model}-{seed}", 1024, 4.2)

    def accuracies(self, about: float) -> list[tuple[float, float]]:
        """Top-1 and top-5 of each final training of one network."""
        more = range(1, self.final_trainings)
        return [(about, 99.0), *[(round(about + 0.2 * number, 2), 99.0) for number in more]]

    def matrix(self, channels: int, level: float) -> Any:
        """Absolute correlations of as many channels, in which every deeper one has a match."""
        found = np.abs(self.rng.normal(0, 0.15, (channels, channels)))
        best = self.rng.integers(channels, size=channels)
        found[np.arange(channels), best] += level * self.rng.random(channels)
        return found.clip(0, 1).round(4)

    def pruningnet(self, model: str, conditioning: str, seed: int) -> None:
        folder = f"pruningnet/{model}/{conditioning}/{seed}"
        level = {"graph": 70.0, "block": 66.0, "none": 68.0, "constant": 65.0}[conditioning]
        level += seed
        self.json(
            f"{folder}/metrics.json",
            {
                "conditioning": conditioning,
                "params": 2_200_000,
                "epochs": 3,
                "search_top1_full": level,
                "search_top1_quarter": level - 21.5,
                "search_top1_full_before_recalibration": 11.2,
            },
        )
        self.csv(
            f"{folder}/curve.csv",
            "epoch,lr,train_loss,search_top1_full,search_top1_half,search_top1_quarter",
            [(e, 0.1, 2 / e, level - 3 + e, level - 9 + e, level - 24 + e) for e in (1, 2, 3)],
        )
        stage = f"train_pruningnet@{self.name}-{model}-{conditioning}-{seed}"
        self.run(folder, stage, 165_000, 90.0)

    def generated(self, model: str, seed: int) -> None:
        """Candidates of any size, and half as many within each budget, half of these trained."""
        folder = f"generated/{model}/{seed}"
        within = max(2, self.candidates // 2)
        trained = max(2, within // 2)
        budgets = self.study["analysed_budgets"]
        asked = [("any", place) for place in range(self.candidates)]
        asked += [(budget, place) for budget in budgets for place in range(within)]
        rows, scratch = [], []
        for candidate, (budget, place) in enumerate(asked):
            ratio = self.rng.uniform(0.12, 0.85)
            if budget != "any":
                ratio = self.limit(model, budget) / self.macs * self.rng.uniform(0.98, 1)
            macs, worth = max(1, int(self.macs * ratio)), self.rng.normal(0, 2)
            ratio = min(1.0, ratio)
            for conditioning, level in zip(CONDITIONINGS, (48, 43, 46, 42), strict=True):
                top1 = round(level + 25 * ratio + worth + self.rng.normal(0, 0.4), 2)
                worse = {"graph": 1.5, "block": 0.6}.get(conditioning, 0.0)
                shuffled = round(top1 - worse * self.rng.uniform(0, 2), 2)
                cell = shuffled if budget == "any" else ""
                rows.append((candidate, budget, macs, conditioning, top1, cell))
            if budget != "any" and place < trained:
                for training in range(self.trainings):
                    top1 = 84 + 8 * ratio + worth / 2 + self.rng.normal(0, 0.3)
                    scratch.append((candidate, training, round(top1, 2)))
        header = "candidate,budget,macs,conditioning,top1_generated,top1_shuffled"
        self.csv(f"{folder}/candidates.csv", header, rows)
        self.csv(f"{folder}/trained.csv", "candidate,training,top1", scratch)
        probes = [
            (conditioning, network, layer["name"], distance, 1 + distance, round(told, 5))
            for conditioning, reach in zip(CONDITIONINGS, (3, 1, 0, -1), strict=True)
            for network, less in (("trained", 0.1), ("untrained", 0.3))
            for layer in self.layers()
            for distance in range(6)
            for level in [1 - less - distance / 5 if distance <= reach else 0]
            for told in [min(1.0, level + self.rng.normal(0, 0.03))]
        ]
        header = "conditioning,network,layer,distance,widths,r2"
        self.csv(f"{folder}/probes.csv", header, probes)
        diagnostics = [
            (conditioning, network, self.alive * variation, self.alive * variation / 4)
            for conditioning, variation in zip(CONDITIONINGS, (0.2, 0.3, 0.15, 0), strict=True)
            for network in ("trained", "untrained")
        ]
        header = "conditioning,network,feature_variation,weight_variation"
        self.csv(f"{folder}/diagnostics.csv", header, diagnostics)
        counts = {"candidates": self.candidates, "within": within, "trained": trained}
        self.json(f"{folder}/metrics.json", {**counts, "trainings": self.trainings})
        self.run(folder, f"analyse_pruningnet@{self.name}-{model}-{seed}", 600_000, 120.0)

    def limit(self, model: str, budget: str) -> int:
        if budget in self.labels.get(model, {}):
            return self.labels[model][budget]
        absolute = budget[-1] == "M"
        return int(float(budget[:-1]) * 1e6) if absolute else int(self.macs * float(budget))

    def search(self, model: str, method: str, budget: str, seed: int) -> None:
        row = self.study["rows"][method]
        level = self.levels[method]
        key = f"{model}/{method}/{budget}/{seed}"
        item = f"{self.name}-{model}-{method}-{budget}-{seed}"
        limit = self.limit(model, budget)
        share = min(1.0, limit / self.macs)
        evaluations = 1 if row["searcher"] == "uniform" else EVALUATIONS
        noise = self.rng.normal(0, 1.5, evaluations)
        reach = np.linspace(0, 4 + level, evaluations) if evaluations > 1 else np.zeros(1)
        top1 = (50 + 15 * share + reach + noise).round(2)
        best = np.maximum.accumulate(top1)
        macs = int(limit * self.rng.uniform(0.98, 1))
        widths = {
            group["id"]: max(1, int(group["width"] * min(1, self.rng.normal(share**0.5, 0.12))))
            for group in self.groups()
            if group["prunable"]
        }
        head = {"method": method, "budget": budget}
        size = {"macs": macs, "params": int(self.params * share)}
        full = [group["width"] for group in self.groups() if group["prunable"]]
        judged = ["-".join(str(self.rng.integers(1, 1 + w)) for w in full) for _ in top1]
        cost = {
            "evaluations": evaluations,
            "distinct": len(set(judged)),
            "images_seen": 2000 * evaluations,
        }
        self.json(
            f"search/{key}/metrics.json",
            {
                **head,
                "budget_macs": limit,
                "top1_search": best[-1],
                **size,
                **cost,
                "widths": widths,
            },
        )
        history = [(i + 1, macs, top1[i], best[i], judged[i]) for i in range(evaluations)]
        self.csv(f"search/{key}/history.csv", "evaluation,macs,top1,best,widths", history)
        seconds = round(self.rng.uniform(20, 30), 2)
        self.run(f"search/{key}", f"{row['stage']}@{item}", 120_000, 31.0, search_seconds=seconds)
        accuracy = round(85 + 4 * share**0.5 + level + self.rng.normal(0, 0.15), 2)
        before = best[-1] if row["initial"] else None
        main = {"initial": row["initial"] or "scratch", "search_top1_before": before}
        second = {"initial": row["initial"] or "inherited", "search_top1_before": best[-1]}
        measured = {"main": self.accuracies(accuracy)}
        if self.second:
            measured["second"] = self.accuracies(accuracy + 1)
        means = {
            kind: dict(zip(("test_top1", "test_top5"), np.mean(each, axis=0).tolist(), strict=True))
            for kind, each in measured.items()
        }
        self.json(
            f"final/{key}/metrics.json",
            {
                **head,
                **main,
                **means["main"],
                **size,
                "epochs": 4,
                "trainings": self.final_trainings,
                "second": {**second, **means["second"], "epochs": 2} if self.second else None,
            },
        )
        begins = {"main": main["initial"], "second": second["initial"]}
        self.csv(
            f"final/{key}/trainings.csv",
            "kind,training,initial,test_top1,test_top5",
            [
                (kind, number, begins[kind], *one)
                for kind, each in measured.items()
                for number, one in enumerate(each)
            ],
        )
        curve = [(epoch, 0.1, 1 / epoch, 80 + epoch) for epoch in range(1, 5)]
        self.csv(f"final/{key}/curve.csv", "epoch,lr,train_loss,train_top1", curve)
        self.json(
            f"final/{key}/architecture.json",
            {
                "format": 2,
                "network": {"name": model},
                "input_size": [1, 28, 28],
                "widths": widths,
                **size,
                "preprocessing": {},
                "weights": {"file": "network.safetensors", "sha256": 64 * "0"},
            },
        )
        self.run(f"final/{key}", f"finetune@{item}", 220_000, 24.0)
        if method in self.again:
            known = {**head, **main, **means["main"], "epochs": 4, "widths": widths}
            self.trained_again(key, item, known)

    def trained_again(self, key: str, item: str, known: dict[str, Any]) -> None:
        """Three further trainings of a network: one, two and three points above the first ones."""
        for more in (1, 2, 3):
            number = self.final_trainings + more - 1
            folder = f"final/again/{key}/{number}"
            before = known["search_top1_before"]
            measured = {
                "search_top1_before": None if before is None else before + more,
                "test_top1": known["test_top1"] + more,
                "test_top5": 99.0 + more / 10,
            }
            self.json(f"{folder}/metrics.json", {**known, **measured, "training": number})
            self.run(folder, f"finetune_again@{item}-{number}", 110_000, 12.0)


def copied_study(results: Path, into: Path, without: str = "") -> Path:
    """A copy of results/STUDY, and of results/pretrained beside it."""
    # Without the files' times, which is faster.
    how: dict[str, Any] = {"copy_function": shutil.copyfile, "dirs_exist_ok": True}
    shutil.copytree(results.with_name("pretrained"), into / "pretrained", **how)
    ignored = shutil.ignore_patterns(without) if without else None
    return shutil.copytree(results, into / results.name, ignore=ignored, **how)


def stand_in_figures(folder: Path) -> None:
    """Files of one pixel in the places of a study's figures, for a report: to draw takes long."""
    (folder / "figures").mkdir()
    for name in FIGURES:
        for ending in (".pdf", ".png"):
            Image.new("RGB", (1, 1)).save((folder / "figures" / name).with_suffix(ending))


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/made: all methods, two budgets, three replicates; a test that changes it copies it.

    results/pretrained stands beside it.
    """
    return Study(tmp_path_factory.mktemp("results") / "made").write()


@pytest.fixture(scope="session")
def found(results: Path) -> Results:
    """What the reader finds in `results`; a test that changes a file reads its copy itself."""
    return read(results)


@pytest.fixture(scope="session")
def tabled(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `results` with its tables."""
    folder = copied_study(results, tmp_path_factory.mktemp("tabled"))
    assert tables.main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def made(tabled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `results` with its tables, and its report of stand-ins for its figures."""
    folder = copied_study(tabled, tmp_path_factory.mktemp("made"))
    stand_in_figures(folder)
    assert report.main([str(folder)]) == 0
    return folder
