"""The captions of every table and figure in one place, with the numbers they hold generated.

A caption also names the script that makes its artefact and the stages whose files it reads.
"""

from dataclasses import dataclass

import numpy as np

from paper import measures
from paper.claims import representable
from paper.results import GIVEN, PRETRAINED, Network, Results
from paper.statistics import LEVEL, RESAMPLES
from paper.wording import counted, interval, joined, number

CONDITIONINGS = {
    "graph": "graph",
    "block": "block",
    "none": "no edges",
    "no-shortcuts": "no shortcut edges",
    "sage": "GraphSAGE",
    "gat": "GAT",
}
SOURCES = {
    "base": "sliced from the base",
    **{name: f"generated, {label}" for name, label in CONDITIONINGS.items()},
    GIVEN: "its own rating",
}
"""Whose weights rate a candidate, by `Row.source`."""

_TABLES, _FIGURES = "paper/tables.py", "paper/figures.py"


@dataclass(frozen=True)
class Caption:
    """What an artefact shows; `stages` are the names of the pipeline stages it is made from."""

    label: str
    text: str
    script: str
    stages: tuple[str, ...]


def captions(results: Results) -> dict[str, Caption]:
    """Every caption, keyed by the artefact's file name without its ending.

    A study without methods has those of the networks alone.
    """
    return _of_networks(results) | (_of_methods(results) if results.rows else {})


_INTERVAL = f"{LEVEL * 100:.0f} %"


def _of_networks(results: Results) -> dict[str, Caption]:
    base = f"train_base@{results.name}"
    compared = ("correlation", f"train_base@{PRETRAINED}")
    networks = joined([network.label for network in results.networks])
    holds = representable(results)
    return {
        "table1_correlation": Caption(
            "Table 1",
            f"How much of a deeper channel the former layer explains in {networks}: "
            "share of deeper channels with R² above a threshold, median R², and median absolute "
            "Pearson correlation of the best match, for consecutive layers of one block with a "
            "shortcut and, as controls, for layers of different blocks and for the untrained "
            "network. R² is that of a ridge regression on all channels of the former layer, scored "
            f"on images it was not fitted on. Brackets: {_INTERVAL} bootstrap intervals over "
            f"deeper layers ({number(RESAMPLES, 0)} resamples). {holds}",
            _TABLES,
            compared,
        ),
        "figure1_correlation_heatmaps": Caption(
            "Figure 1",
            f"Absolute Pearson correlation between the channels of two layers of "
            f"{joined([network.label for network in shown(results)])}, a deeper one (rows, ordered "
            "by best match, best on top) and a former one (columns). Of a layer with more than 64 "
            "channels 64 are shown, evenly from the best to the worst match, and as many former "
            "ones, among them these channels' best matches. Where a block's deeper layer repeats "
            "its former one, the first row of panels has bright cells that the controls below it "
            f"lack. {holds}",
            _FIGURES,
            compared,
        ),
        "figure2_r2_distributions": Caption(
            "Figure 2",
            "Left: share of deeper channels whose R² exceeds the value on the horizontal axis "
            f"(values below 0 are worse than predicting the mean), with {_INTERVAL} bootstrap "
            "bands over deeper layers; dotted lines are the thresholds of Table 1. Right: median "
            f"R² of each deeper layer in forward order. {_medians(results)} {holds}",
            _FIGURES,
            compared,
        ),
        "figure3_graph": Caption(
            "Figure 3",
            f"The channel graph of {results.models[0]}: {_graph_size(results)}. Layers stand in "
            "forward order; a bar and its number say how many channels a layer writes. Layers with "
            "one letter are tied: their output channels are pruned together. Dashed lines are "
            "shortcut edges.",
            _FIGURES,
            (base,),
        ),
    }


def _of_methods(results: Results) -> dict[str, Caption]:
    ours = results.ours.label
    base = f"train_base@{results.name}"
    models = joined(results.models)
    seeds = counted(len(results.seeds), "seed")
    spread = f"mean over {seeds} and {_INTERVAL} t-interval"
    if len(results.seeds) == 1:
        spread = "one seed, so no interval"
    return {
        "table2_generated_weights": Caption(
            "Table 2",
            f"Accuracy (top-1, %, search split) of {models} with weights that a PruningNet "
            "generates, by its conditioning: at full width before and after the batch-norm "
            "statistics are recalibrated, at a quarter of every width, and for random candidates "
            f"in four quarters by MACs, smallest first (±: {_INTERVAL} t-interval over "
            "candidates). τ is Kendall's rank correlation between that accuracy and the accuracy "
            f"of the same widths trained from scratch, with its {_INTERVAL} bootstrap interval "
            "over candidates.",
            _TABLES,
            ("train_pruningnet", "analyse_pruningnet"),
        ),
        "table3_main": Caption(
            "Table 3",
            f"Final networks of {models} on {results.data}: test accuracy (top-1, %; {spread}), "
            "MACs of one image and parameters, and what the search cost. The base network, the "
            "PruningNets and the splits are shared; search and final training are repeated with "
            "each seed. Images are those that the search passed through networks to rate "
            f"candidates, and nothing else. Seconds were measured on {_hardware(results)}.",
            _TABLES,
            (base, "search", "finetune"),
        ),
        "table4_ablations": Caption(
            "Table 4",
            f"Ablations with {models}. Upper part: relative movement of a group's aggregated "
            "feature when the width of a group that many edges away changes, by what the "
            f"PruningNet is conditioned on, with {_INTERVAL} bootstrap intervals over the changed "
            "groups. Lower part: accuracy (top-1, %) of the best candidate on the search split "
            f"and of the final network on the test set, {spread}. Differences are {ours} minus "
            "the variant, paired by group or by seed; the search split compares methods only "
            "where both rate candidates with the same weights.",
            _TABLES,
            ("analyse_pruningnet", "search", "finetune"),
        ),
        "table5_imagenet": Caption(
            "Table 5",
            "Published results on ImageNet (and CIFAR-10, for scale), as printed by each "
            "method's official repository; MACs (M) as printed there, so they may count other "
            "layers than ours. Numbers of GraphPruning's authors are absent: the body of their "
            "paper could not be obtained, and none is attributed to them.",
            _TABLES,
            (),
        ),
        "figure4_generated_accuracy": Caption(
            "Figure 4",
            "Left: accuracy with generated weights against MACs for random candidates, after "
            "recalibration; lines join the means of four quarters by MACs, and the dashed line is "
            "half of the base network's accuracy. Right: the same accuracy against that of the "
            f"same widths trained from scratch. {_taus(results)}",
            _FIGURES,
            ("analyse_pruningnet",),
        ),
        "figure5_search_curves": Caption(
            "Figure 5",
            f"Best accuracy so far on the search split against candidates evaluated: mean over "
            f"{seeds}, and a band from the lowest to the highest. The line style says whose "
            "weights rate the candidates, and only lines of one style can be compared: methods "
            f"that share those of {ours} stand on the left, others on the right. Methods that "
            "differ in their final training alone have one search, drawn once."
            + " Of a method that was given, the end of its search is known alone."
            * bool(results.of_kind(GIVEN)),
            _FIGURES,
            ("search",),
        ),
        "figure6_accuracy_macs": Caption(
            "Figure 6",
            f"Test accuracy of the final networks on {results.data}. Left: against MACs, with the "
            "base network as a star and a dashed line. Right: per budget; large markers are the "
            f"{spread}, small dots are single seeds. {_highest(results)}",
            _FIGURES,
            (base, "finetune"),
        ),
        "figure7_kept_ratio": Caption(
            "Figure 7",
            f"Channels kept (%) in each group of {models}, in forward order, by method and "
            f"budget; mean over {seeds}.",
            _FIGURES,
            ("search",),
        ),
    }


def shown(results: Results) -> list[Network]:
    """The networks of Figure 1: the first of the study and the first of the one beside it."""
    own = [network for network in results.compared if network.study == results.name]
    beside = [network for network in results.compared if network.study != results.name]
    return own[:1] + beside[:1]


def budget_amount(results: Results, budget: str, model: str | None = None) -> str:
    """`50 %` for a share of the base network's MACs, `316M`, and `large (316M)` for a label.

    A label stands alone where its MACs differ between the study's models and none is named.
    """
    if budget.replace(".", "", 1).isdigit():
        return f"{100 * float(budget):.3g} %"
    if budget[:-1].replace(".", "", 1).isdigit() and budget[-1] in "MG":
        return budget
    limits = {
        search.budget_macs
        for (of_model, _, of_budget), search in results.search.items()
        if of_budget == budget and model in (None, of_model)
    }
    return f"{budget} ({_short(limits.pop())})" if len(limits) == 1 else budget


def budget_name(results: Results, budget: str, model: str | None = None) -> str:
    """`50 % of MACs`, `316M MACs`, `large (316M) budget`."""
    amount = budget_amount(results, budget, model)
    if amount.endswith("%"):
        return f"{amount} of MACs"
    return f"{amount} MACs" if amount == budget and amount[0].isdigit() else f"{amount} budget"


def _short(macs: int) -> str:
    """`41M`, `303M`, `2G`."""
    return f"{macs / 1e9:.3g}G" if macs >= 1e9 else f"{macs / 1e6:.3g}M"


def origin(network: Network) -> str:
    """How a network came to its weights, and how accurate it is."""
    base = network.base
    top5 = f", top-5 {number(base.test_top5, 1)} %" * (base.test_top5 < 100)
    accuracy = (
        f"top-1 {number(base.test_top1, 1)} %{top5} on {counted(network.images, 'test image')} of "
        f"{network.data}"
    )
    if base.weights is None:
        return f"trained here, {accuracy}"
    return f"weights {base.weights['source']}, {accuracy}"


def _hardware(results: Results) -> str:
    """The machines that the searches ran on."""
    machines = {
        f"{run.hardware['cpu']} ({counted(run.hardware['cores'], 'core')}, accelerator "
        f"{run.hardware['accelerator']})"
        for search in results.search.values()
        for run in search.runs.values()
    }
    return joined(sorted(machines))


def _medians(results: Results) -> str:
    sentences = []
    for network in results.compared:
        inside, between = (
            float(measures.channels(network.correlation, "trained", pair)["r2"].median())
            for pair in measures.PAIRS
        )
        sentences.append(
            f"In trained {network.label} the median R² is {number(inside, 2)} within blocks and "
            f"{number(between, 2)} between blocks."
        )
    return " ".join(sentences)


def _graph_size(results: Results) -> str:
    graph = results.base[results.models[0]].graph
    shortcuts = sum(shortcut for *_, shortcut in graph.edges)
    return (
        f"{counted(len(graph.widths), 'layer')}, {counted(len(graph.edges), 'edge')} "
        f"({shortcuts} by shortcuts) and {counted(len(graph.groups), 'prunable group')}"
    )


def _taus(results: Results) -> str:
    found = []
    for model in results.models:
        of_model = f" in {model}" if len(results.models) > 1 else ""
        for conditioning in results.analysed:
            tau = interval(measures.rank_correlation(results, model, conditioning), 2)
            found.append(f"{tau} for {CONDITIONINGS[conditioning]}{of_model}")
    return f"Kendall's τ is {joined(found)}."


def _highest(results: Results) -> str:
    found = []
    for model in results.models:
        of_model = f" for {model}" if len(results.models) > 1 else ""
        for budget in results.budgets:
            top1 = {
                row.label: float(np.mean(list(results.test_top1(model, name, budget).values())))
                for name, row in results.rows.items()
            }
            best = max(top1, key=lambda label: top1[label])
            at = budget_name(results, budget, model)
            found.append(f"{number(top1[best], 2)} % at {at}{of_model} ({best})")
    return f"The highest means are {joined(found)}."
