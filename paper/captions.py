"""The captions of every table and figure in one place, with the numbers they hold generated.

A caption also names the script that makes its artefact and the stages whose files it reads.
"""

import math
from dataclasses import dataclass

from paper import clock, measures, representation
from paper.claims import claims, representable
from paper.reader.contents import Row
from paper.reader.reading import PRETRAINED
from paper.reader.results import GIVEN, Network, Results
from paper.rule import MATTERS
from paper.statistics import LEVEL, RESAMPLES, mean
from paper.wording import ABSENT, counted, counting, interval, joined, number

_TABLES, _FIGURES = "paper/tables.py", "paper/figures.py"
_INTERVAL = f"{LEVEL * 100:.0f} %"
ONE_REPLICATE = "One replicate gives no interval; studies with several seeds: see docs/studies.md."
"""What stands wherever networks that were trained with one seed are compared."""
_NO_NARROWER = " (of final networks no narrower than the noise of single trainings makes it)"


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
    found = _of_networks(results)
    if results.rows:
        found |= _of_tables(results) | _of_figures(results)
    return found


def _of_networks(results: Results) -> dict[str, Caption]:
    compared = ("correlation", f"train_base@{PRETRAINED}")
    networks = joined([network.label for network in results.networks])
    holds = representable(results)
    return {
        "table1_correlation": Caption(
            "Table 1",
            f"How much of a deeper channel the former layer explains in {networks}: "
            "share of deeper channels with R² above a threshold, median R², and median absolute "
            "Pearson correlation of the best match. The layers are consecutive layers of one block "
            "with a shortcut; controls are the mean over all earlier layers of equal resolution in "
            f"other blocks, where there are any, and the untrained network. {_near(results)}R² is "
            "that of a ridge regression on all channels of the former layer, its strength chosen "
            "by validation, scored on images it was not fitted on. Output: a layer's own, by which "
            f"C1 is judged, or activated, which is that after normalisation and activation. "
            f"{_old(results)}Brackets: {_intervals_of_networks(results)} {holds}",
            _TABLES,
            compared,
        ),
        "figure1_correlation_heatmaps": Caption(
            "Figure 1",
            f"Absolute Pearson correlation between the channels of two layers of "
            f"{joined([network.label for network in shown(results)])}"
            f"{_first_replicate(results)}. Rows are the channels of the deeper layer, ordered by "
            "best match, best on top; columns are those of the former layer. Large layers are "
            "shown in part: 64 deeper channels, evenly from the best to the worst match, and 64 "
            "former channels, which include the best matches of these. Of other blocks the "
            "nearest earlier layer of equal resolution is shown, if there is one. Where a block's "
            "deeper layer repeats its former one, the first row of panels has bright cells, and "
            f"the controls below it have none. {holds}",
            _FIGURES,
            compared,
        ),
        "figure2_r2_distributions": Caption(
            "Figure 2",
            "Left: share of deeper channels whose R² exceeds the value on the horizontal axis "
            "(values below 0 are worse than predicting the mean), by the layers' own outputs; of "
            "other blocks the mean over a layer's controls. Bands: "
            f"{_intervals_of_networks(results)} Dotted lines are the thresholds of Table 1. "
            f"Right: median R² of each deeper layer in forward order. {_medians(results)} {holds}",
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
            (f"train_base@{results.name}",),
        ),
    }


def _of_tables(results: Results) -> dict[str, Caption]:
    ours = results.ours.label
    models = joined(results.models)
    of_candidates = within(results, "candidates")
    median = ", median over replicates" if len(results.seeds) > 1 else ""
    return {
        "table2_generated_weights": Caption(
            "Table 2",
            f"Accuracy (top-1, %, search split) of {models} with weights that a PruningNet "
            "generates, by its conditioning: at full width before and after the batch-norm "
            "statistics are recalibrated, at a quarter of every width, and for random candidates "
            "in four quarters by MACs, smallest first. τ is Kendall's rank correlation between "
            "that accuracy and the accuracy of the same widths trained from scratch, among "
            "candidates of one budget, mean over budgets. τ corrected is what it would be if "
            "trainings had no noise (how: paper/claims.md, C3). Brackets and ±: "
            f"{of_candidates}",
            _TABLES,
            ("train_pruningnet", "analyse_pruningnet"),
        ),
        "table2_conditioning": Caption(
            "Table 2b",
            f"What a PruningNet of {models} is conditioned on, and whether that matters. Probe R²: "
            f"how well a ridge regression tells widths {measures.FAR} or more edges away from a "
            "layer's aggregated feature, with the trained and with the untrained aggregator. "
            "Features and weights vary: over random widths, as a share of their size, median over "
            "layers. Right − shuffled: accuracy (points, search split) with weights generated for "
            "the candidate's own widths minus for another's, with its 95 % interval over "
            "candidates. Minus constant: candidates' mean accuracy minus that with features that "
            "never change.",
            _TABLES,
            ("analyse_pruningnet",),
        ),
        "table3_main": Caption(
            "Table 3",
            f"Final networks of {models} on {results.data}: test accuracy (top-1, %; "
            f"{spread(results)}), MACs of one image and parameters, and what the search cost. "
            f"{_replicate(results)} IQM: interquartile mean over replicates. P(better): "
            f"probability that a network of {ours} is better than one of the row's (Agarwal et "
            f"al., 2021). Before: accuracy before the final training, on the search "
            f"split; {ABSENT} for networks that are trained from scratch. Judged: candidates that "
            "the search judged (in brackets how many of them are different networks, in the mean "
            f"over replicates, if some are not). Search (s): the search alone{median}, of those "
            f"that ran without a break on {clock.machine(results)}. "
            "Images: how many the search passed through networks to rate candidates.",
            _TABLES,
            (f"train_base@{results.name}", "search", "finetune"),
        ),
        **_second(results),
        "table4_ablations": Caption(
            "Table 4",
            f"Ablations with {models}. Upper part: R² of a ridge regression that tells the width "
            "of a group from a layer's aggregated feature, by the number of edges between the two "
            "and by what the PruningNet is conditioned on; there the difference is trained minus "
            f"untrained. Brackets: {within(results, 'layers')} "
            "Lower part: accuracy (top-1, %) of the found candidate on the search split, area "
            "under the search curve (best so far, mean over evaluations), and accuracy of the "
            f"final network on the test set, {spread(results)}. There differences are {ours} minus "
            f"the variant, within each replicate{_NO_NARROWER * (len(results.seeds) > 1)}; that of "
            "the area leaves out the candidates that both draw alike, before any agent learns. The "
            "search split compares methods only where both "
            "rate candidates with the same weights.",
            _TABLES,
            ("analyse_pruningnet", "search", "finetune"),
        ),
        "table5_imagenet": Caption(
            "Table 5",
            "Published results on ImageNet (and CIFAR-10, for scale), as printed by each "
            "method's official repository; MACs and parameters as printed there, and by our "
            "counter where the channel list is public. Numbers of GraphPruning's authors are "
            "absent: the body of their paper could not be obtained, and none is attributed to "
            "them.",
            _TABLES,
            (),
        ),
        "table6_costs": Caption(
            "Table 6",
            f"What methods cost with {models}, mean over replicates (of seconds: median), and what "
            "they share: the base network and the PruningNets. Judged and trained: thousands of "
            "images that went through networks in the search and in training (a method's own are "
            "all first final trainings of one found network, of Table 3b too if there is one). "
            "Seconds are those of the whole stage, of stages that ran without a break on "
            f"{clock.machine(results)}, some with other work beside them. GMACs: of a search, its "
            "images times the MACs of the candidates; of a training, three times the network's "
            "MACs for each image (forward and two gradients), and once the teacher's "
            f"where there is one; generating weights is left out, and {ABSENT} stands where no "
            "file tells the widths that a PruningNet was trained with. All: base network, the "
            "PruningNet that the method's search uses, search and final training. Equal after: "
            "candidates until the best so far is what random search ends with on the search split, "
            "mean over the replicates that reach it (in brackets, how many of all do), of "
            "methods that rate candidates by the same weights.",
            _TABLES,
            (f"train_base@{results.name}", "train_pruningnet", "search", "finetune"),
        ),
    }


def _second(results: Results) -> dict[str, Caption]:
    """Table 3b's caption, where the study trains found networks in a second way."""
    if results.second is None:
        return {}
    text = (
        f"The networks of Table 3, trained in another way: {ways(results.second)}, where Table 3 "
        f"has {ways(results)}. Widths and searches are the same, and so are the columns; test "
        f"accuracy: {spread(results)}."
    )
    if own := [row.label for row in results.rows.values() if row.initial]:
        text += f" {joined(own)} begins in both tables with the weights that its method says."
    stages = (f"train_base@{results.name}", "search", f"finetune@{results.name}")
    return {"table3b_second": Caption("Table 3b", text, _TABLES, stages)}


_BEGINS = {
    "scratch": "from scratch",
    "inherited": "from the base's weights, cut and fitted again",
    "generated": "from the PruningNet's weights",
}


def ways(results: Results) -> str:
    """How found networks are trained: what most of them begin with, for how many epochs."""
    names = [row.name for row in results.rows.values() if not row.initial] or list(results.rows)
    ways = {
        (one.initial, one.epochs)
        for (_, name, _), by_seed in results.final.items()
        if name in names
        for one in by_seed.values()
        if one.run
    }
    return joined([f"{counted(epochs, 'epoch')} {_BEGINS[how]}" for how, epochs in sorted(ways)])


def how_often(results: Results) -> str:
    """How often found networks are trained, and which of them otherwise."""
    times: dict[str, list[str]] = {}
    for name, row in results.rows.items():
        if counts := results.trainings_of(name):
            times.setdefault(" or ".join(map(_often, counts)), []).append(row.label)
    usual, *others = sorted(times, key=lambda said: -len(times[said]))
    rest = "; ".join(f"{said}: {joined(times[said])}" for said in others)
    return f"{usual} ({rest})" if rest else usual


def _often(n: int) -> str:
    """`once`, `twice`, `three times`."""
    return {1: "once", 2: "twice"}.get(n, f"{counting(n)} times")


def _of_figures(results: Results) -> dict[str, Caption]:
    several = len(results.seeds) > 1
    replicates = counted(len(results.seeds), "replicate")
    given = " For user-supplied results only the last search point is known."
    markers = f"large markers are the {spread(results)}, small dots are single replicates"
    return {
        "figure4_generated_accuracy": Caption(
            "Figure 4",
            "Left: accuracy with generated weights against MACs for random candidates"
            f"{' of all replicates' * several}, after recalibration. Lines join the means of four "
            "quarters by MACs; a dashed line, or an arrow towards it, is half of the base "
            "network's accuracy. Right, for each budget: the same accuracy against that of the "
            f"same widths trained from scratch{_trainings(results)}; τ is within the budget. "
            f"{_taus(results)}",
            _FIGURES,
            ("analyse_pruningnet",),
        ),
        "figure5_search_curves": Caption(
            "Figure 5",
            "Best accuracy so far on the search split against candidates evaluated"
            f"{f': mean over {replicates}, and a band from the lowest to the highest' * several}. "
            "The line style shows whose weights rate the candidates. Only lines of one style can "
            f"be compared: on the left are methods that use the weights of {results.ours.label}, "
            "on the right all others. Methods that differ only in their final training have the "
            f"same search, which is drawn once.{given * bool(results.of_kind(GIVEN))}",
            _FIGURES,
            ("search",),
        ),
        "figure6_accuracy_macs": Caption(
            "Figure 6",
            f"Test accuracy of the final networks on {results.data}. Left: against MACs, in the "
            "colours and markers of the right, with the base network as a star and a dashed line. "
            "Right: per budget; "
            f"{markers if several else spread(results)}. {_highest(results)}",
            _FIGURES,
            (f"train_base@{results.name}", "finetune"),
        ),
        "figure7_kept_ratio": Caption(
            "Figure 7",
            f"Channels kept (%) in each group of {joined(results.models)}, in forward order, by "
            f"method and budget{f'; mean over {replicates}' * several}.{_filled(results)}",
            _FIGURES,
            ("search",),
        ),
        "figure8_conditioning": Caption(
            "Figure 8",
            "What aggregated features tell of the widths. Above: R² of a ridge regression from a "
            "layer's aggregated feature to the kept ratio of a group, by the number of edges "
            "between them (0: the layer is of the group, 1: it reads it or writes for it), with "
            f"the trained and the untrained aggregator. Bars: {within(results, 'layers')} Below: "
            "accuracy (search split) with weights generated for a candidate's own widths minus for "
            f"another's. Bars: {within(results, 'candidates')} Grey: too small to matter "
            f"(± {MATTERS} points).",
            _FIGURES,
            ("analyse_pruningnet",),
        ),
        "figure9_effects": Caption(
            "Figure 9",
            "Every effect that a verdict rests on, by its unit and below its claim; the claim says "
            "that each is above zero. Word and marker say what an effect is by the rule of "
            f"paper/claims.md. Bars: {_INTERVAL} intervals, over "
            f"{'replicates' if several else 'layers or candidates of this one replicate'}"
            f"{_over_layers(results)}. "
            f"{_without_interval(results)}Grey: a difference in accuracy too small to matter "
            f"(± {MATTERS} points).",
            _FIGURES,
            ("correlation", "analyse_pruningnet", "search", "finetune"),
        ),
    }


def _filled(results: Results) -> str:
    """How a uniform width fills its budget, where there is one."""
    uniform = any(row.searcher == "uniform" for row in results.rows.values())
    more = " A uniform width fills the budget by making its narrowest groups a level wider."
    return more * uniform


def _without_interval(results: Results) -> str:
    """How many effects of the verdicts stand without an interval, and why, as a sentence."""
    effects = [effect for claim in claims(results) for effect in claim.effects]
    alone = sum(math.isnan(effect.estimate.low) for effect in effects)
    if not alone:
        return ""
    because = ", because one replicate gives none" * (len(results.seeds) == 1)
    are = "is hollow and has" if alone == 1 else "are hollow and have"
    return f"{alone} of {len(effects)} {are} no interval{because}: open, whatever the value. "


def spread(results: Results) -> str:
    """What stands for the accuracy of final networks."""
    if len(results.seeds) == 1:
        return "one replicate, so no interval"
    return f"mean over {len(results.seeds)} replicates and {_INTERVAL} t-interval"


def within(results: Results, units: str) -> str:
    """Whose interval a quantity has that one replicate can estimate, as a sentence's end."""
    if len(results.seeds) > 1:
        return f"{_INTERVAL} t-intervals over {len(results.seeds)} replicates."
    return f"{_INTERVAL} intervals over {units}, which hold for this one replicate only."


def _intervals_of_networks(results: Results) -> str:
    """The same for Table 1 and Figure 2, where some networks may have one replicate."""
    layers = (
        f"{_INTERVAL} bootstrap intervals over deeper layers ({number(RESAMPLES, 0)} resamples)"
    )
    one = _of_one_replicate(results)
    if len(one) == len(results.compared):
        return f"{layers}, which hold for these networks only."
    over = f"{_INTERVAL} t-intervals over {len(results.seeds)} replicates"
    if not one:
        return f"{over}."
    return f"{over}; of {joined(one)}, which is one network, {layers}."


def _of_one_replicate(results: Results) -> list[str]:
    return [network.label for network in results.compared if len(network.base) == 1]


def _over_layers(results: Results) -> str:
    """Whose effects are not over replicates, where the others' are."""
    one = _of_one_replicate(results)
    return (
        f" (of {joined(one)}, one network, over layers)" if one and len(results.seeds) > 1 else ""
    )


def _replicate(results: Results) -> str:
    """What is repeated with each seed."""
    if len(results.seeds) == 1:
        return "Everything was run once, with one seed."
    return (
        "With each seed everything is repeated but the splits, the crops of images that "
        "recalibrate and the positions at which AMC fits weights: the base network, the "
        "PruningNets, the searches and the final trainings."
    )


def _first_replicate(results: Results) -> str:
    """Which networks a figure of single networks shows."""
    return f" (seed {results.seeds[0]})" if len(results.seeds) > 1 else ""


def rating(results: Results, row: Row) -> str:
    """Whose weights rate a method's candidates."""
    if row.source == GIVEN:
        return "its own rating"
    if row.source == "base":
        return "sliced from the base"
    return f"generated, {results.conditionings[row.source].label}"


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
    if budget not in results.budgets:  # the analysis's own, within which nothing was searched
        return budget
    models = results.models if model is None else [model]
    limits = {results.budget_macs(each, budget) for each in models}
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
    bases = list(network.base.values())
    top1, top5 = (mean([one.test_top1 for one in bases]), mean([one.test_top5 for one in bases]))
    accuracy = (
        f"top-1 {interval(top1, 1)} %{f', top-5 {interval(top5, 1)} %' * (top5.value < 100)} on "
        f"{counted(network.images, 'test image')} of {network.data}"
    )
    if bases[0].weights is None:
        return f"trained here, {accuracy}"
    return f"weights {bases[0].weights.source}, {accuracy}"


def _old(results: Results) -> str:
    """Which networks were judged without all controls and without validation, as a sentence."""
    old = [n.label for n in results.compared if representation.fixed_strength(n) is not None]
    if not old:
        return ""
    return (
        f"{joined(old)}: at most one control a layer, drawn at random, a fixed ridge strength, and "
        "own outputs alone. "
    )


def _near(results: Results) -> str:
    """What the rows of neighbouring blocks are, where there are any."""
    of_network = {
        network.label: (len(representation.channels(network, kind)), len(network.base))
        for network in results.compared
        for kind in representation.borders(network)[:1]
    }
    if not of_network:
        return ""
    fewer = [
        f"; in {label} judged in {some} of the {every} replicates"
        for label, (some, every) in of_network.items()
        if some < every
    ]
    return (
        "Next block: the last layer of a block and the first of the next one, which are as near as "
        f"two layers of one block{''.join(fewer)}. "
    )


def _medians(results: Results) -> str:
    sentences = []
    for network in results.compared:
        inside, between = (
            representation.median(network, kind).value for kind in representation.KINDS[:2]
        )
        sentences.append(
            f"In trained {network.label} the median R² is {number(inside, 2)} within blocks and "
            f"{number(between, 2)} between blocks."
        )
    return " ".join(sentences)


def _graph_size(results: Results) -> str:
    graph = results.network(results.models[0]).graph
    shortcuts = sum(shortcut for *_, shortcut in graph.edges)
    return (
        f"{counted(len(graph.layers), 'layer')}, {counted(len(graph.edges), 'edge')} "
        f"({shortcuts} by shortcuts) and {counted(len(graph.prunable), 'prunable group')}"
    )


def _trainings(results: Results) -> str:
    """How many trainings an accuracy is the mean of."""
    several = {one.trainings for one in results.generated.values()}
    most = max(several, default=1)
    return f" (mean of {counted(most, 'training')})" if most > 1 else ""


def _taus(results: Results) -> str:
    found = []
    for model in results.models:
        of_model = f" in {model}" if len(results.models) > 1 else ""
        for conditioning in results.analysed:
            tau = interval(measures.rank_correlation(results, model, conditioning), 2)
            found.append(f"{tau} for {results.conditionings[conditioning].label}{of_model}")
    return f"Over budgets Kendall's τ is {joined(found)}."


def _highest(results: Results) -> str:
    found = []
    for model in results.models:
        of_model = f" for {model}" if len(results.models) > 1 else ""
        for budget in results.budgets:
            top1 = {
                row.label: measures.test_top1(results, model, name, budget).value
                for name, row in results.rows.items()
            }
            best = max(top1, key=lambda label: top1[label])
            at = budget_name(results, budget, model)
            found.append(f"{number(top1[best], 2)} % at {at}{of_model} ({best})")
    return f"The highest {'means' if len(results.seeds) > 1 else 'accuracies'} are {joined(found)}."
