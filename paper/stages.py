"""The files of each stage of a study, read into what `paper.contents` says they hold.

Numbers that several files repeat must agree: a file that another run made is refused.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from paper.contents import (
    BASE_TRAINING,
    CANDIDATES,
    CHANNELS,
    CONDITIONINGS,
    FINAL_TRAINING,
    HISTORY,
    INFLUENCE,
    LAYER_KINDS,
    NETWORKS,
    PAIRS,
    TRAINING,
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
from paper.reading import (
    CORRELATION,
    COUNT,
    LABEL,
    LINE,
    PERCENT,
    POSITIVE,
    SECONDS,
    Columns,
    Files,
    Kind,
    Number,
    OneOf,
    clipped,
)

Key = tuple[str, str, str]
"""Model, method, budget."""

_RUN: dict[str, Kind] = {
    "stage": LINE,
    "record": LINE,
    "command": LINE,
    "seconds": SECONDS,
    "started": LINE,
    "resumed": bool,
    "hardware": dict,
    "precision": LINE,
    "versions": dict,
    "images_seen": COUNT,
}
_ROW: dict[str, Kind] = {
    "label": LABEL,
    "source": OneOf(("base", *CONDITIONINGS)),
    "state": LABEL,
    "searcher": LABEL,
    "kind": OneOf(("ours", "baseline", "ablation")),
}


class StageFiles(Files):
    """The files that one stage makes; every method raises `UserError` for what is not right."""

    def row(self, study: Mapping[str, Any], method: str) -> Row:
        """A method's row in study.json."""
        rows = self.checked("study.json", study["rows"], {method: dict}, "rows")
        row = self.checked("study.json", rows[method], _ROW, f"rows, {method}")
        return Row(method, **{name: row[name] for name in _ROW})

    def run(self, folder: str) -> Run:
        """The sidecar of the stage, which must be this stage's own."""
        name = f"{folder}/run.json"
        value = self.json(name, **_RUN)
        # The report links to the record, so the name may not lead anywhere else.
        for key, expected in (("stage", self.stage), ("record", f"records/{self.stage}")):
            if value[key] != expected:
                raise self.damaged(name, f"{key!r} is {clipped(value[key])}, not {expected!r}")
        kinds: dict[str, Kind] = {"cpu": LINE, "cores": POSITIVE, "accelerator": LINE}
        self.checked(name, value["hardware"], kinds, "hardware")
        for key, one in value["hardware"].items():
            kind = LINE if isinstance(one, str) else Number(0, 10**15)
            self.every(name, {key: one}, bool if isinstance(one, bool) else kind, "hardware")
        self.every(name, value["versions"], LINE, "versions")
        seconds = value.get("seconds_by_seed", {})
        self.checked(name, {"seconds_by_seed": seconds}, {"seconds_by_seed": dict})
        self.every(name, seconds, SECONDS, "seconds_by_seed")
        if not all(re.fullmatch("[0-9]{1,18}", seed) for seed in seconds):
            raise self.damaged(name, f"seconds_by_seed: seeds {clipped(list(seconds))}")
        by_seed = {int(seed): float(taken) for seed, taken in seconds.items()}
        return Run(**{key: value[key] for key in _RUN}, seconds_by_seed=by_seed)

    def splits(self) -> Splits:
        """How many images are in each split."""
        name = "splits/metrics.json"
        value = self.json(name, dataset=LINE, images=dict, classes=POSITIVE)
        self.checked(name, value["images"], {"test": COUNT}, "images")
        self.every(name, value["images"], COUNT, "images")
        for split in ("train", "search", "calibration"):
            self.checked(name, value["images"], {split: COUNT}, "images")
            listed = f"splits/{split}.txt"
            if self.text(listed).count("\n") != value["images"][split]:
                raise self.damaged(listed, f"not {value['images'][split]} images")
        return Splits(value["dataset"], value["images"], value["classes"], self.run("splits"))

    def base(self, model: str) -> Base:
        """The unpruned network."""
        folder = f"base/{model}"
        name = f"{folder}/metrics.json"
        kinds: dict[str, Kind] = {
            "macs": POSITIVE,
            "params": POSITIVE,
            "test_top1": PERCENT,
            "test_top5": PERCENT,
            "search_top1": Number(0, 100, optional=True),
            "epochs": COUNT,
        }
        value = self.json(name, **kinds)
        weights = value.get("weights")
        if weights is not None:
            self.checked(name, weights, {"source": LINE, "sha256": LINE}, "weights")
            self.every(name, weights, LINE, "weights")
        return Base(
            **{key: value[key] for key in kinds},
            weights=weights,
            curve=self.curve(f"{folder}/curve.csv", BASE_TRAINING, value["epochs"]),
            graph=self.graph(f"{folder}/graph.json"),
            run=self.run(folder),
        )

    def curve(self, name: str, columns: Columns, epochs: int) -> pd.DataFrame:
        """A table with one row an epoch, all of them."""
        frame = self.csv(name, columns, empty=epochs == 0)
        if len(frame) != epochs:
            raise self.damaged(name, f"{len(frame)} epochs, not {epochs}")
        self.numbered(name, "epoch", frame["epoch"])
        return frame

    def numbered(self, name: str, column: str, numbers: "pd.Series[int]") -> None:
        """Check that a column counts 1, 2, 3 and so on."""
        if list(numbers) != list(range(1, len(numbers) + 1)):
            raise self.damaged(name, f"the column {column} does not count from 1 in order")

    def numbered_by_seed(self, name: str, column: str, frame: pd.DataFrame) -> None:
        """The same for each seed of a table."""
        for _, part in frame.groupby("seed"):
            self.numbered(name, column, part[column])

    def graph(self, name: str) -> Graph:
        """The channel graph: layers, edges and groups that name each other."""
        value = self.json(name, layers=list, edges=list, groups=list)
        if not value["layers"] or "narrowed" in value:
            raise self.damaged(name, "it is not the graph of a full network")
        layer_kinds: dict[str, Kind] = {
            "name": LABEL,
            "kind": OneOf(LAYER_KINDS),
            "out": POSITIVE,
            "group": LABEL,
        }
        layers = self.entries(name, value["layers"], layer_kinds, "layers")
        self.different(name, "layers", [layer["name"] for layer in layers])
        number = {layer["name"]: position for position, layer in enumerate(layers)}
        edges = [self._edge(name, edge, number) for edge in value["edges"]]
        group_kinds: dict[str, Kind] = {
            "id": LABEL,
            "width": POSITIVE,
            "layers": list,
            "prunable": bool,
        }
        groups = self.entries(name, value["groups"], group_kinds, "groups")
        self.different(name, "groups", [group["id"] for group in groups])
        for group in groups:
            of_group = [layer for layer in layers if layer["group"] == group["id"]]
            if group["layers"] != [layer["name"] for layer in of_group]:
                raise self.damaged(name, f"groups, {group['id']}: its layers name another group")
            if any(layer["out"] != group["width"] for layer in of_group):
                raise self.damaged(name, f"groups, {group['id']}: its layers have another width")
        if lost := {layer["group"] for layer in layers} - {group["id"] for group in groups}:
            raise self.damaged(name, f"groups: there is no {clipped(min(lost))}")
        return Graph(
            widths={layer["name"]: layer["out"] for layer in layers},
            edges=tuple(edges),
            groups={group["id"]: group["width"] for group in groups if group["prunable"]},
            description=value,
        )

    def _edge(self, name: str, edge: Any, number: Mapping[str, int]) -> tuple[str, str, bool]:
        whole = isinstance(edge, list) and len(edge) == 3 and isinstance(edge[2], bool)
        if not whole or not all(isinstance(end, str) and end in number for end in edge[:2]):
            raise self.damaged(name, f"edges: {clipped(edge)} is not two layers and a shortcut")
        source, target, shortcut = edge
        if number[source] >= number[target]:
            raise self.damaged(name, f"edges: {clipped(edge)} leads back")
        return source, target, shortcut

    def correlation(self, model: str, base: Base) -> Correlation:
        """How much of a deeper layer the former one explains."""
        folder = f"correlation/{model}"
        width = base.graph.widths
        heatmaps = self._heatmaps(f"{folder}/heatmaps.json", width)
        pairs = self.json(f"{folder}/metrics.json", pairs=COUNT)["pairs"]
        name = f"{folder}/channels.csv"
        channels = self.csv(name, CHANNELS, empty=pairs == 0)
        found = channels.groupby(["network", "pair", "former", "deeper"], as_index=False).size()
        if len(found) != 2 * pairs or any(found["size"] != found["deeper"].map(width)):
            raise self.damaged(name, f"not every channel of {pairs} pairs in two networks")
        if any(channels.duplicated(["network", "pair", "former", "deeper", "channel"])) or any(
            channels["channel"] >= channels["deeper"].map(width)
        ):
            raise self.damaged(name, "a channel stands there twice, or is none of its layer")
        of_network = [
            set(
                found.loc[found["network"] == network, ["pair", "former", "deeper"]].itertuples(
                    index=False, name=None
                )
            )
            for network in NETWORKS
        ]
        if of_network[0] != of_network[1] or not set(found["former"]) <= set(width):
            raise self.damaged(name, "not the same pairs of layers in both networks")
        if pairs and not any((h.network, h.pair) == (NETWORKS[0], PAIRS[0]) for h in heatmaps):
            raise self.damaged(f"{folder}/heatmaps.json", "no pair of a block in the trained one")
        return Correlation(pairs, channels, heatmaps, self.run(folder))

    def _heatmaps(self, name: str, width: Mapping[str, int]) -> list[Heatmap]:
        values = self.parsed(name)
        if not isinstance(values, list):
            raise self.damaged(name, "not a list")
        kinds: dict[str, Kind] = {
            "network": OneOf(NETWORKS),
            "pair": OneOf(PAIRS),
            "former": LABEL,
            "deeper": LABEL,
            "matrix": list,
        }
        heatmaps = self.entries(name, values, kinds, "the list")
        for position, heatmap in enumerate(heatmaps, 1):
            at = f"entry {position}"
            if set(heatmap) != set(kinds):
                raise self.damaged(name, f"{at}: {clipped(list(heatmap))}, not {list(kinds)}")
            if not {heatmap["former"], heatmap["deeper"]} <= set(width):
                raise self.damaged(name, f"{at}: it is of no layers of the graph")
            self._matrix(name, heatmap["matrix"], at)
        return [Heatmap(**heatmap) for heatmap in heatmaps]

    def _matrix(self, name: str, matrix: list[Any], at: str) -> None:
        rows_fit = matrix and all(isinstance(row, list) and row for row in matrix)
        if not rows_fit or len({len(row) for row in matrix}) != 1:
            raise self.damaged(name, f"{at}: the matrix is not rectangular")
        for row in matrix:
            for value in row:
                if not CORRELATION.accepts(value):
                    raise self.damaged(
                        name, f"{at}: the matrix has {clipped(value)}, not {CORRELATION}"
                    )

    def pruningnet(self, model: str, conditioning: str) -> PruningNet:
        """A trained PruningNet."""
        folder = f"pruningnet/{model}/{conditioning}"
        value = self.json(
            f"{folder}/metrics.json",
            params=POSITIVE,
            epochs=COUNT,
            search_top1_full=PERCENT,
            search_top1_quarter=PERCENT,
            search_top1_full_before_recalibration=PERCENT,
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
        """Candidates with generated weights, and how far features move."""
        folder = f"generated/{model}"
        count = self.json(f"{folder}/metrics.json", candidates=POSITIVE)["candidates"]
        groups = len(base.graph.groups)
        candidates = self.csv(f"{folder}/candidates.csv", CANDIDATES)
        influence = self.csv(f"{folder}/influence.csv", INFLUENCE)
        for name, frame, expected, unit in (
            ("candidates", candidates, count, ["candidate"]),
            ("influence", influence, groups * (groups - 1), ["changed", "observed"]),
        ):
            found = frame["conditioning"].value_counts().to_dict()
            if found != dict.fromkeys(conditionings, expected):
                raise self.damaged(f"{folder}/{name}.csv", f"rows {found}, not {expected} of each")
            if any(frame.duplicated(["conditioning", *unit])):
                raise self.damaged(f"{folder}/{name}.csv", f"the same {' and '.join(unit)} twice")
        if not set(influence["changed"]) | set(influence["observed"]) <= set(base.graph.groups):
            raise self.damaged(f"{folder}/influence.csv", "a group that the graph does not have")
        return Generated(candidates, influence, self.run(folder))

    def search(self, key: Key, seeds: str, base: Base) -> Search:
        """What a method's search found with some seeds."""
        folder = f"search/{'/'.join(key)}/{seeds}"
        name = f"{folder}/metrics.json"
        value = self.json(name, budget_macs=POSITIVE, seeds=dict)
        kinds: dict[str, Kind] = {
            "top1_search": PERCENT,
            "macs": Number(1, value["budget_macs"], whole=True),
            "params": POSITIVE,
            "evaluations": POSITIVE,
            "images_seen": COUNT,
            "widths": dict,
        }
        entries = self.by_seed(name, seeds, value["seeds"], kinds)
        for seed, entry in entries.items():
            self.widths(name, entry["widths"], base, f"seed {seed}")
        history = self.csv(f"{folder}/history.csv", HISTORY)
        evaluations = {seed: entry["evaluations"] for seed, entry in entries.items()}
        if history["seed"].value_counts().to_dict() != evaluations:
            raise self.damaged(f"{folder}/history.csv", f"not {evaluations} evaluations by seed")
        self.numbered_by_seed(f"{folder}/history.csv", "evaluation", history)
        run = self.run(folder)
        self.expect_seeds(f"{folder}/run.json", seeds, map(str, run.seconds_by_seed))
        found = {
            seed: Found(**{k: entry[k] for k in kinds}, seconds=run.seconds_by_seed[seed])
            for seed, entry in entries.items()
        }
        return Search(value["budget_macs"], found, history, dict.fromkeys(found, run))

    def widths(self, name: str, widths: Mapping[str, Any], base: Base, where: str) -> None:
        """Check that there is a width for every prunable group, and no wider one than it has."""
        full = base.graph.groups
        if set(widths) != set(full):
            raise self.damaged(name, f"{where}: widths of other groups than the graph has")
        kinds = {group: Number(1, width, whole=True) for group, width in full.items()}
        self.checked(name, widths, kinds, f"{where}, widths")

    def final(self, key: Key, seeds: str, search: Search) -> Final:
        """The final networks of the widths that a search found."""
        folder = f"final/{'/'.join(key)}/{seeds}"
        name = f"{folder}/metrics.json"
        value = self.json(name, initial=LINE, seeds=dict)
        kinds: dict[str, Kind] = {
            "test_top1": PERCENT,
            "test_top5": PERCENT,
            "macs": POSITIVE,
            "params": POSITIVE,
            "epochs": POSITIVE,
        }
        entries = self.by_seed(name, seeds, value["seeds"], kinds)
        curve = self.csv(f"{folder}/curve.csv", FINAL_TRAINING)
        epochs = {seed: entry["epochs"] for seed, entry in entries.items()}
        if curve["seed"].value_counts().to_dict() != epochs:
            raise self.damaged(f"{folder}/curve.csv", f"not {epochs} epochs by seed")
        self.numbered_by_seed(f"{folder}/curve.csv", "epoch", curve)
        trained = {}
        for seed, entry in entries.items():
            found = search.seeds[seed]
            if (entry["macs"], entry["params"]) != (found.macs, found.params):
                raise self.damaged(name, f"seed {seed}: other MACs or params than the search found")
            architecture = f"{folder}/architectures/seed-{seed}.json"
            self.architecture(architecture, found)
            trained[seed] = Trained(**{k: entry[k] for k in kinds}, architecture=architecture)
        return Final(value["initial"], trained, dict.fromkeys(trained, self.run(folder)))

    def architecture(self, name: str, found: Found) -> None:
        """Check that a file is an architecture, and that of the network that was found."""
        value = self.json(
            name,
            format=POSITIVE,
            network=dict,
            input_size=list,
            widths=dict,
            macs=POSITIVE,
            params=POSITIVE,
            weights=dict,
        )
        for key in ("widths", "macs", "params"):
            if value[key] != getattr(found, key):
                raise self.damaged(name, f"other {key} than the search found")

    def by_seed(
        self, name: str, seeds: str, value: Mapping[str, Any], kinds: Mapping[str, Kind]
    ) -> dict[int, dict[str, Any]]:
        """The checked entries of `seeds`, keyed by the seed as an integer."""
        self.expect_seeds(name, seeds, value)
        return {
            int(seed): self.checked(name, entry, kinds, f"seed {seed}")
            for seed, entry in value.items()
        }

    def expect_seeds(self, name: str, seeds: str, there: Iterable[str]) -> None:
        """Check that a file has the seeds of its stage (`0+1+2`), and no other."""
        expected = sorted(int(seed) for seed in seeds.split("+"))
        found = sorted(there)
        if found != sorted(map(str, expected)):
            raise self.damaged(name, f"seeds [{', '.join(found)[:60]}], not {expected}")
