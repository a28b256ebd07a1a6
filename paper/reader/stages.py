"""The files of each stage of a study, read into what `paper.reader.contents` says they hold.

Numbers that several files repeat must agree: a file that another run made is refused.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pandas as pd

from paper.reader import columns, contents
from paper.reader.contents import (
    Base,
    Correlation,
    Final,
    Generated,
    Graph,
    PruningNet,
    Run,
    Search,
)
from paper.reader.reading import Columns, Files, clipped, is_written_number

Key = tuple[str, str, str]
"""Model, method, budget."""


ROUNDED = 1e-3
"""How far a mean of percentages may differ that a CSV file has with six digits."""


class StageFiles(Files):
    """The files of one stage in one replicate; `UserError` for whatever is not right."""

    def __init__(
        self,
        path: Path,
        study: str,
        stage: str,
        *items: str,
        seed: int | None = None,
        training: int | None = None,
    ) -> None:
        self.numbers = [number for number in (seed, training) if number is not None]
        super().__init__(path, study, stage, *items, *self.numbers)
        self.seed = seed
        self.training = training

    def folder(self, *parts: str) -> str:
        """The stage's folder; the last part of its name is the seed, or that of a training."""
        return "/".join((*parts, *map(str, self.numbers)))

    def run(self, folder: str) -> Run:
        """The sidecar of the stage, which must be this stage's own."""
        name = f"{folder}/run.json"
        run = self.json(name, contents.RunFile)
        # The report links to the record, so the name may not lead anywhere else.
        for key, found, expected in (
            ("stage", run.stage, self.stage),
            ("record", run.record, f"records/{self.stage}"),
        ):
            if found != expected:
                raise self.damaged(name, f"{key!r} is {clipped(found)}, not {expected!r}")
        return Run(**vars(run), seed=self.seed)

    def splits(self) -> contents.Splits:
        """How many images are in each split."""
        splits = self.json("splits/metrics.json", contents.SplitsFile)
        for split in ("train", "search", "calibration"):
            listed = f"splits/{split}.txt"
            expected = getattr(splits.images, split)
            if self.text(listed).count("\n") != expected:
                raise self.damaged(listed, f"not {expected} images")
        return contents.Splits(**vars(splits), run=self.run("splits"))

    def base(self, model: str) -> Base:
        """The unpruned network."""
        folder = self.folder("base", model)
        base = self.json(f"{folder}/metrics.json", contents.BaseFile)
        return Base(
            **vars(base),
            curve=self.curve(f"{folder}/curve.csv", columns.BASE_TRAINING, base.epochs),
            graph=self.graph(f"{folder}/graph.json"),
            run=self.run(folder),
        )

    def same_network(self, model: str, base: Base, first: Base) -> None:
        """Check that a replicate's network is the one that the first replicate has."""
        folder = self.folder("base", model)
        if base.graph != first.graph:
            raise self.damaged(f"{folder}/graph.json", "another graph than with the other seeds")
        if (base.macs, base.params) != (first.macs, first.params):
            raise self.damaged(
                f"{folder}/metrics.json", "other MACs or params than with the other seeds"
            )

    def curve(self, name: str, kinds: Columns, epochs: int) -> pd.DataFrame:
        """A table with one row an epoch, all of them."""
        frame = self.csv(name, kinds, empty=epochs == 0)
        if len(frame) != epochs:
            raise self.damaged(name, f"{len(frame)} epochs, not {epochs}")
        self.numbered(name, "epoch", frame["epoch"])
        return frame

    def numbered(self, name: str, column: str, numbers: "pd.Series[int]") -> None:
        """Check that a column counts 1, 2, 3 and so on."""
        if list(numbers) != list(range(1, len(numbers) + 1)):
            raise self.damaged(name, f"the column {column} does not count from 1 in order")

    def graph(self, name: str) -> Graph:
        """The channel graph: layers, edges and groups that name each other."""
        graph = self.json(name, Graph)
        number = {layer.name: position for position, layer in enumerate(graph.layers)}
        if len(number) < len(graph.layers):
            raise self.damaged(name, "layers: a name is listed twice")
        if len({group.id for group in graph.groups}) < len(graph.groups):
            raise self.damaged(name, "groups: an id is listed twice")
        for edge in graph.edges:
            if not set(edge[:2]) <= set(number):
                raise self.damaged(name, f"edges: {clipped(edge)} is not between two layers")
            if number[edge[0]] >= number[edge[1]]:
                raise self.damaged(name, f"edges: {clipped(edge)} leads back")
        for group in graph.groups:
            of_group = [layer for layer in graph.layers if layer.group == group.id]
            if group.layers != [layer.name for layer in of_group]:
                raise self.damaged(name, f"groups, {group.id}: its layers name another group")
            if any(layer.out != group.width for layer in of_group):
                raise self.damaged(name, f"groups, {group.id}: its layers have another width")
        if lost := {layer.group for layer in graph.layers} - {group.id for group in graph.groups}:
            raise self.damaged(name, f"groups: there is no {clipped(min(lost))}")
        return graph

    def correlation(self, model: str, base: Base) -> Correlation:
        """How much of a deeper layer the former one explains."""
        folder = self.folder("correlation", model)
        width = base.graph.widths
        heatmaps = self._heatmaps(f"{folder}/heatmaps.json", width)
        found = self.json(f"{folder}/metrics.json", contents.CorrelationFile)
        name = f"{folder}/channels.csv"
        channels = self.csv(name, columns.CHANNELS, empty=found.pairs == 0)
        pairs = channels.groupby(["network", "former", "deeper"], as_index=False)
        sizes = pairs["controls"].agg(["size", "first", "nunique"])
        if len(sizes) != 2 * found.pairs or any(sizes["size"] != sizes["deeper"].map(width)):
            raise self.damaged(name, f"not every channel of {found.pairs} pairs in two networks")
        if any(channels.duplicated(["network", "former", "deeper", "channel"])) or any(
            channels["channel"] >= channels["deeper"].map(width)
        ):
            raise self.damaged(name, "a channel stands there twice, or is none of its layer")
        trained, untrained = (
            set(sizes.loc[sizes["network"] == network, kept].itertuples(index=False, name=None))
            for network in columns.NETWORKS
            for kept in [["former", "deeper", "first"]]
        )
        if trained != untrained or not set(sizes["former"]) <= set(width):
            raise self.damaged(name, "not the same pairs of layers in both networks")
        if sum(controls for *_, controls in trained) != found.controls or any(
            sizes["nunique"] != 1
        ):
            raise self.damaged(name, f"not {found.controls} controls in each network")
        for column in ("control_match", "control_r2"):
            if any(channels[column].isna() != (channels["controls"] == 0)):
                raise self.damaged(name, f"{column} is not there where there are controls alone")
        first = (columns.NETWORKS[0], columns.PAIRS[0])
        if found.pairs and not any((h.network, h.pair) == first for h in heatmaps):
            raise self.damaged(f"{folder}/heatmaps.json", "no pair of a block in the trained one")
        return Correlation(
            **vars(found),
            channels=channels,
            across=self._across(f"{folder}/borders.csv", found.borders, width),
            heatmaps=heatmaps,
            run=self.run(folder),
        )

    def _across(self, name: str, pairs: int, width: Mapping[str, int]) -> pd.DataFrame:
        """Channels of consecutive layers of neighbouring blocks; none of them in older results."""
        if not pairs:
            return pd.DataFrame(columns=list(columns.BORDERS))
        found = self.csv(name, columns.BORDERS)
        sizes = found.groupby(["network", "former", "deeper"], as_index=False)["channel"].agg(
            ["size", "nunique", "max"]
        )
        whole = sizes["deeper"].map(width)
        trained, untrained = (
            set(zip(found["former"], found["deeper"], strict=True))
            for found in (sizes[sizes["network"] == network] for network in columns.NETWORKS)
        )
        if (
            len(sizes) != 2 * pairs
            or trained != untrained
            or not set(sizes["former"]) <= set(width)
            or any((sizes["size"] != whole) | (sizes["nunique"] != whole) | (sizes["max"] >= whole))
        ):
            raise self.damaged(name, f"not every channel of {pairs} pairs in two networks")
        return found

    def _heatmaps(self, name: str, width: Mapping[str, int]) -> list[contents.Heatmap]:
        heatmaps = self.json(name, list[contents.Heatmap])
        for position, heatmap in enumerate(heatmaps):
            if not {heatmap.former, heatmap.deeper} <= set(width):
                raise self.damaged(name, f"{position}: it is of no layers of the graph")
            if 0 in {len(row) for row in heatmap.matrix} or len({*map(len, heatmap.matrix)}) > 1:
                raise self.damaged(name, f"{position}: the matrix is not rectangular")
        return heatmaps

    def pruningnet(self, model: str, conditioning: str) -> PruningNet:
        """A trained PruningNet."""
        folder = self.folder("pruningnet", model, conditioning)
        net = self.json(f"{folder}/metrics.json", contents.PruningNetFile)
        curve = self.curve(f"{folder}/curve.csv", columns.TRAINING, net.epochs)
        return PruningNet(**vars(net), curve=curve, run=self.run(folder))

    def generated(
        self, model: str, base: Base, conditionings: list[str], budgets: list[str]
    ) -> Generated:
        """Candidates with generated weights, and what features say of widths."""
        folder = self.folder("generated", model)
        found = self.json(f"{folder}/metrics.json", contents.GeneratedFile)
        rated = self.csv(f"{folder}/candidates.csv", columns.CANDIDATES)
        self._check_rated(f"{folder}/candidates.csv", found, rated, conditionings, budgets)
        scratch = self.csv(f"{folder}/trained.csv", columns.TRAINED, empty=found.trained == 0)
        self._check_scratch(f"{folder}/trained.csv", found, scratch, rated, budgets)
        probes = self.csv(f"{folder}/probes.csv", columns.PROBES)
        places = ["layer", "distance"]
        self._check_both(f"{folder}/probes.csv", probes, conditionings, places)
        if not set(probes["layer"]) <= set(base.graph.widths):
            raise self.damaged(f"{folder}/probes.csv", "a layer that the graph does not have")
        diagnostics = self.csv(f"{folder}/diagnostics.csv", columns.DIAGNOSTICS)
        self._check_both(f"{folder}/diagnostics.csv", diagnostics, conditionings, [])
        return Generated(
            **vars(found),
            rated=rated,
            scratch=scratch,
            probes=probes,
            diagnostics=diagnostics,
            run=self.run(folder),
        )

    def same_analysis(self, model: str, found: Generated, first: Generated) -> None:
        """Check that a replicate judged and trained as many candidates as the first one did."""
        for each in fields(contents.GeneratedFile):
            if getattr(found, each.name) != getattr(first, each.name):
                name = f"{self.folder('generated', model)}/metrics.json"
                raise self.damaged(name, f"another {each.name!r} than with the other seeds")

    def _check_rated(
        self,
        name: str,
        found: contents.GeneratedFile,
        rated: pd.DataFrame,
        conditionings: list[str],
        budgets: list[str],
    ) -> None:
        """Check that every conditioning rates the same candidates, as many as were asked for."""
        expected = {contents.ANY: found.candidates} | dict.fromkeys(budgets, found.within)
        expected = {budget: count for budget, count in expected.items() if count}
        asked = {(c, budget): count for c in conditionings for budget, count in expected.items()}
        there = rated.groupby(["conditioning", "budget"]).size().to_dict()
        if there != asked:
            raise self.damaged(name, f"rows {clipped(there)}, not {clipped(asked)}")
        if any(rated.duplicated(["conditioning", "candidate"])):
            raise self.damaged(name, "the same candidate twice")
        different = rated[["candidate", "budget", "macs"]].drop_duplicates()
        if set(different["candidate"]) != set(range(sum(expected.values()))) or any(
            different["candidate"].duplicated()
        ):
            raise self.damaged(name, "not the same candidates under every conditioning")
        if any(rated["top1_shuffled"].isna() == (rated["budget"] == contents.ANY)):
            raise self.damaged(name, "top1_shuffled is not there where the budget is any alone")

    def _check_scratch(
        self,
        name: str,
        found: contents.GeneratedFile,
        scratch: pd.DataFrame,
        rated: pd.DataFrame,
        budgets: list[str],
    ) -> None:
        """Check that so many candidates of each budget were trained, so many times each."""
        of_budget = rated.drop_duplicates("candidate").set_index("candidate")["budget"]
        if any(scratch.duplicated(["candidate", "training"])):
            raise self.damaged(name, "the same training twice")
        if any(scratch["training"] >= found.trainings) or not set(scratch["candidate"]) <= set(
            of_budget.index
        ):
            raise self.damaged(name, "a training or a candidate that there is not")
        there = scratch["candidate"].map(of_budget).value_counts().to_dict()
        each = found.trained * found.trainings
        if there != (dict.fromkeys(budgets, each) if each else {}):
            raise self.damaged(name, f"rows {clipped(there)}, not {each} of each budget")

    def _check_both(
        self, name: str, frame: pd.DataFrame, conditionings: list[str], unit: list[str]
    ) -> None:
        """Check that trained and untrained have the same units under every conditioning, once."""
        if set(frame["conditioning"]) != set(conditionings):
            raise self.damaged(name, f"conditionings are not {', '.join(conditionings)}")
        if any(frame.duplicated(["conditioning", "network", *unit])):
            raise self.damaged(name, f"the same {' and '.join(unit or ['conditioning'])} twice")
        both = frame.groupby(["conditioning", *unit]).size()
        if any(both != len(columns.NETWORKS)):
            raise self.damaged(name, "not the same rows of the trained and the untrained network")

    def search(self, key: Key, base: Base) -> Search:
        """What a method's search found."""
        folder = self.folder("search", *key)
        name = f"{folder}/metrics.json"
        found = self.json(name, contents.SearchFile)
        self._same_key(name, key, found)
        if found.macs > found.budget_macs:
            raise self.damaged(name, f"macs is {found.macs}: more than budget_macs")
        self._check_widths(name, found.widths, base)
        history = self.csv(f"{folder}/history.csv", columns.HISTORY)
        if len(history) != found.evaluations:
            raise self.damaged(f"{folder}/history.csv", f"not {found.evaluations:.0f} evaluations")
        self.numbered(f"{folder}/history.csv", "evaluation", history["evaluation"])
        self._check_history(f"{folder}/history.csv", history, found, base)
        run = self.run(folder)
        if run.search_seconds is None:
            raise self.damaged(f"{folder}/run.json", "no 'search_seconds'")
        return Search(**vars(found), seconds=run.search_seconds, history=history, run=run)

    def _check_history(
        self, name: str, history: pd.DataFrame, found: contents.SearchFile, base: Base
    ) -> None:
        """Check the candidates' widths, such as `8-16-24`, and how many of them differ."""
        full = base.graph.prunable.values()
        for widths in history["widths"].unique():
            kept = widths.split("-")
            if len(kept) != len(full) or not all(
                is_written_number(width, whole=True) and 0 < int(width) <= most
                for width, most in zip(kept, full, strict=True)
            ):
                raise self.damaged(name, f"widths {clipped(widths)} are none of the graph's")
        if history["widths"].nunique() != found.distinct:
            raise self.damaged(name, f"not {found.distinct:.0f} different candidates")

    def same_budget(self, key: Key, search: Search, first: Search) -> None:
        """Check that a replicate searched within the budget that the first replicate had."""
        if search.budget_macs != first.budget_macs:
            name = f"{self.folder('search', *key)}/metrics.json"
            raise self.damaged(name, "another 'budget_macs' than with the other seeds")

    def _same_key(
        self,
        name: str,
        key: Key,
        found: contents.SearchFile | contents.FinalFile | contents.AgainFile,
    ) -> None:
        if (found.method, found.budget) != key[1:]:
            is_of = f"it is of method {clipped(found.method)}, budget {clipped(found.budget)}"
            raise self.damaged(name, is_of)

    def _check_widths(self, name: str, widths: Mapping[str, int], base: Base) -> None:
        """Check that there is a width for every prunable group, and no wider one than it has."""
        full = base.graph.prunable
        if set(widths) != set(full):
            raise self.damaged(name, "widths of other groups than the graph has")
        for group, width in widths.items():
            if width > full[group]:
                raise self.damaged(name, f"widths, {group} is {width}: more than {full[group]}")

    def final(self, key: Key, search: Search, initial: str | None) -> Final:
        """The final network of the widths that a search found.

        `initial` is what the method's final training begins with, None if the study says that.
        """
        folder = self.folder("final", *key)
        name = f"{folder}/metrics.json"
        found = self.json(name, contents.FinalFile)
        self._same_key(name, key, found)
        if initial not in (None, found.initial):
            raise self.damaged(name, f"'initial' is {found.initial!r}, not {initial!r}")
        kinds: dict[str, contents.FinalFile | contents.SecondFile] = {"main": found}
        if found.second:
            kinds["second"] = found.second
        for one in kinds.values():
            self._check_before(name, one)
        each: dict[int, float] = {}
        if found.trainings is not None:
            each = self._trainings(f"{folder}/trainings.csv", found.trainings, kinds)
        if (found.macs, found.params) != (search.macs, search.params):
            raise self.damaged(name, "other MACs or params than the search found")
        self.curve(f"{folder}/curve.csv", columns.FINAL_TRAINING, found.epochs)
        architecture = f"{folder}/architecture.json"
        self._check_architecture(architecture, search)
        return Final(**vars(found), architecture=architecture, run=self.run(folder), each=each)

    def again(self, key: Key, search: Search, final: Final) -> contents.Again:
        """One further training of the final network."""
        folder = self.folder("final", "again", *key)
        name = f"{folder}/metrics.json"
        found = self.json(name, contents.AgainFile)
        self._same_key(name, key, found)
        if found.training != self.training:
            raise self.damaged(name, f"'training' is {found.training}, not {self.training}")
        if found.training < (first := final.trainings or 1):
            raise self.damaged(name, f"the stage finetune has the trainings below {first} itself")
        for what in ("initial", "epochs"):
            if getattr(found, what) != getattr(final, what):
                raise self.damaged(name, f"another {what!r} than the stage finetune's")
        self._check_before(name, found)
        if found.widths != search.widths:
            raise self.damaged(name, "other 'widths' than the search found")
        return contents.Again(**vars(found), run=self.run(folder))

    def _check_before(
        self, name: str, found: contents.FinalFile | contents.SecondFile | contents.AgainFile
    ) -> None:
        if (found.initial == "scratch") != (found.search_top1_before is None):
            why = "number, but it began" if found.initial == "scratch" else "null, not"
            raise self.damaged(name, f"'search_top1_before' is a {why} from scratch")

    def _trainings(
        self,
        name: str,
        trainings: int,
        kinds: Mapping[str, contents.FinalFile | contents.SecondFile],
    ) -> dict[int, float]:
        """Top-1 accuracy of each main training. Each kind must have been trained so often, and
        metrics.json have the means.
        """
        frame = self.csv(name, columns.FINAL_TRAININGS)
        expected = [(kind, number) for kind in kinds for number in range(trainings)]
        if list(zip(frame["kind"], frame["training"], strict=True)) != expected:
            raise self.damaged(name, f"not {trainings} of {' and of '.join(kinds)} in order")
        for kind, stated in kinds.items():
            of_kind = frame[frame["kind"] == kind]
            if set(of_kind["initial"]) != {stated.initial}:
                raise self.damaged(name, f"'initial' is not always {stated.initial!r} of {kind}")
            for column in ("test_top1", "test_top5"):
                if abs(of_kind[column].mean() - getattr(stated, column)) > ROUNDED:
                    raise self.damaged(name, f"another mean {column} of {kind} than metrics.json")
        main = frame[frame["kind"] == "main"]
        return dict(zip(main["training"].tolist(), main["test_top1"].tolist(), strict=True))

    def same_trainings(self, key: Key, final: Final, first: Final) -> None:
        """Check that a network was trained as often as the replicate's first."""
        if final.trainings != first.trainings:
            name = f"{self.folder('final', *key)}/metrics.json"
            raise self.damaged(name, "other 'trainings' than the replicate's other networks")

    def same_kinds(self, key: Key, final: Final, first: Final) -> None:
        """Check that a network was trained in as many ways as the study's first."""
        if (final.second is None) != (first.second is None):
            name = f"{self.folder('final', *key)}/metrics.json"
            raise self.damaged(name, "other kinds of training than the study's other networks")

    def _check_architecture(self, name: str, search: Search) -> None:
        """Check that a file is an architecture, and that of the network that was found."""
        value = self.json(name, contents.ArchitectureFile)
        for key in ("widths", "macs", "params"):
            if getattr(value, key) != getattr(search, key):
                raise self.damaged(name, f"other {key} than the search found")
