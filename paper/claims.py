"""The five claims, each with its evidence in one sentence and a verdict, from the numbers alone.

A claim rests on one or more effects, each stated so that the claim says it is above zero. It
holds if every interval lies above zero, does not hold if one lies below, and is undecided
otherwise: an interval includes zero, or there is none, as between methods with one replicate.
"""

from collections.abc import Callable
from dataclasses import dataclass

from paper import measures
from paper.reader.contents import Row
from paper.reader.results import Network, Results
from paper.statistics import Estimate
from paper.wording import counted, interval, joined

HOLDS = "holds"
FAILS = "does not hold"
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, what our runs say of it, and where to look."""

    id: str
    statement: str
    evidence: str
    verdict: str
    artefacts: tuple[str, ...]


STATEMENTS = {
    "C1": "In a block with a shortcut the deeper layer is largely representable by the former one.",
    "C2": "Aggregation over the graph carries information about the other layers.",
    "C3": "PruningNet gives reasonable weights for any size.",
    "C4": "Aggregated features are better search states than hand-crafted ones.",
    "C5": "The final networks are better than those of AMC, MetaPruning and simple baselines "
    "under the same conditions.",
}
ARTEFACTS = {
    "C1": ("figure1_correlation_heatmaps", "figure2_r2_distributions", "table1_correlation"),
    "C2": ("figure3_graph", "table4_ablations"),
    "C3": ("figure4_generated_accuracy", "table2_generated_weights"),
    "C4": ("figure5_search_curves", "table4_ablations"),
    "C5": ("table3_main", "figure6_accuracy_macs", "figure7_kept_ratio"),
}


def verdict(effects: list[Estimate]) -> str:
    """Holds, does not hold or undecided, from effects that the claim says are above zero."""
    if any(effect.high < 0 for effect in effects):
        return FAILS
    if effects and all(effect.low > 0 for effect in effects):
        return HOLDS
    return UNDECIDED


def claims(results: Results) -> list[Claim]:
    """Evidence and verdict for C1 to C5; only C1 in a study without methods."""
    judges: dict[str, Callable[[Results], tuple[list[str], list[Estimate]]]] = {
        "C1": _representable,
        "C2": _informed,
        "C3": _reasonable,
        "C4": _better_states,
        "C5": _better_networks,
    }
    found = []
    for name, judge in judges.items() if results.rows else [("C1", _representable)]:
        sentences, effects = judge(results)
        evidence = " ".join(sentences) or "This study does not test it: it lacks the comparison."
        found.append(Claim(name, STATEMENTS[name], evidence, verdict(effects), ARTEFACTS[name]))
    return found


def representable(results: Results) -> str:
    """For each network whether C1 holds in it, in a sentence or two."""
    found: dict[str, list[str]] = {}
    for network in results.compared:
        found.setdefault(verdict(_compared(network)[1]), []).append(network.label)
    untested = [network.label for network in results.networks if not network.has_shortcuts]
    words = {UNDECIDED: f"is {UNDECIDED}"}
    says = [f"{words.get(how, how)} in {joined(labels)}" for how, labels in found.items()]
    sentences = [f"C1 {joined(says)}."] if says else []
    if untested:
        sentences.append(f"In {joined(untested)} no block has a shortcut, so it is not tested.")
    return " ".join(sentences)


def _representable(results: Results) -> tuple[list[str], list[Estimate]]:
    compared = [_compared(network) for network in results.compared]
    sentences = [sentence for sentence, _ in compared]
    return [*sentences, representable(results)], [one for _, found in compared for one in found]


def _compared(network: Network) -> tuple[str, list[Estimate]]:
    """What the channels of a network say of C1."""
    inside, elsewhere, untrained = (
        ("trained", "in_block"),
        ("trained", "other_block"),
        ("untrained", "in_block"),
    )
    middle = measures.median(network, inside)
    over_elsewhere = measures.median_difference(network, inside, elsewhere)
    over_untrained = measures.median_difference(network, inside, untrained)
    frame = measures.channels(network, inside)[0]
    sentence = (
        f"In {network.label} the median R² of a channel, given the former layer of its block, is "
        f"{interval(middle, 2)}; largely means above {measures.LARGELY}. Minus the median for "
        f"layers of different blocks it is {interval(over_elsewhere, 2, sign=True)}, and minus "
        f"that of the same layers untrained {interval(over_untrained, 2, sign=True)} "
        f"({counted(len(frame), 'channel')} of {counted(frame['deeper'].nunique(), 'layer')}; "
        f"{over(len(network.base), 'layers')})."
    )
    return sentence, [middle.above(measures.LARGELY), over_elsewhere, over_untrained]


def over(replicates: int, units: str) -> str:
    """What an interval is over: replicates, or units of one network alone."""
    if replicates > 1:
        return f"interval over {replicates} replicates"
    return f"interval over the {units} of this one network"


def _informed(results: Results) -> tuple[list[str], list[Estimate]]:
    sentences, effects = [], []
    source = results.ours.source
    for model in results.models if {source, "none"} <= set(results.analysed) else []:
        moved = measures.movement(results, model, source, measures.FAR)
        if moved is None or source == "none":
            continue
        more = measures.movement_difference(results, model, "none", measures.FAR)
        effects.append(more)
        sentences.append(
            f"In {model} an aggregated feature moves by {_percent(moved)} when the width of a "
            f"group {measures.FAR} or more edges away changes. Minus the movement without edges "
            f"that is {_percent(more, sign=True)} "
            f"({over(len(results.seeds), 'changed groups')})."
        )
    for row in measures.edge_ablations(results):
        found, effect = _final_differences(results, [row])
        sentences += found
        effects += effect
    return sentences, effects


def _reasonable(results: Results) -> tuple[list[str], list[Estimate]]:
    sentences, effects = [], []
    source = results.ours.source
    if source not in results.analysed:
        return [], []
    for model in results.models:
        quarters = measures.quarters(results, model, source, "top1_generated")
        margins = measures.margins(results, model, source)
        worst = min(
            (place for place, quarter in enumerate(quarters) if quarter.n),
            key=lambda place: quarters[place].value,
        )
        tau = measures.rank_correlation(results, model, source)
        effects += [margins[worst], tau]
        sentences.append(
            f"In {model} the accuracy with generated weights is {interval(quarters[worst], 1)} % "
            "in the quarter of candidate sizes where it is lowest. Minus half of the base "
            f"network's accuracy that is {interval(margins[worst], 1, sign=True)} points. "
            f"Kendall's tau with the accuracy after training from scratch is {interval(tau, 2)} "
            f"({_candidates(results, model)})."
        )
    return sentences, effects


def _candidates(results: Results, model: str) -> str:
    """How many candidates there are, and what the intervals are over."""
    source, seed = results.ours.source, results.seeds[0]
    judged = measures.candidates(results, model, source, seed)
    trained = measures.trained(results, model, source, seed)
    return (
        f"{counted(len(judged), 'candidate')}, {len(trained)} of them trained; "
        f"{over(len(results.seeds), 'candidates')}"
    )


def _better_states(results: Results) -> tuple[list[str], list[Estimate]]:
    sentences, effects = [], []
    for row in measures.state_ablations(results):
        for model in results.models:
            found = measures.search_difference(results, model, row.name, results.budgets)
            effects.append(found)
            sentences.append(
                f"In {model}, accuracy of the best candidate of {results.ours.label} on the search "
                f"split minus that of {_name(row)}: {_points(found)} "
                f"({_units(results, found)})."
            )
        final, effect = _final_differences(results, [row])
        sentences += final
        effects += effect
    return sentences, effects


def _better_networks(results: Results) -> tuple[list[str], list[Estimate]]:
    return _final_differences(results, results.of_kind("baseline"))


def _final_differences(results: Results, rows: list[Row]) -> tuple[list[str], list[Estimate]]:
    """Our final test accuracy minus that of each of `rows`, one sentence a model."""
    sentences: list[str] = []
    effects: list[Estimate] = []
    for model in results.models if rows else []:
        found = {
            _name(row): measures.test_difference(results, model, row.name, results.budgets)
            for row in rows
        }
        effects += found.values()
        of_each = [f"of {label}: {_points(effect)}" for label, effect in found.items()]
        sentences.append(
            f"In {model}, final test accuracy of {results.ours.label} minus that {joined(of_each)} "
            f"({_units(results, effects[-1])})."
        )
    return sentences, effects


def _name(row: Row) -> str:
    return f"the ablation {row.label}" if row.kind == "ablation" else row.label


def _points(effect: Estimate) -> str:
    return f"{interval(effect, 2, sign=True)} points"


def _percent(estimate: Estimate, sign: bool = False) -> str:
    return f"{interval(estimate.scaled(100), 1, sign)} %"


def _units(results: Results, effect: Estimate) -> str:
    of_budgets = "" if len(results.budgets) == 1 else f"mean over {len(results.budgets)} budgets, "
    if effect.n > 1:
        return f"{of_budgets}paired over {effect.n} replicates"
    return f"{of_budgets}one replicate, so no interval"
