"""The five claims, each with its evidence in a few sentences and a verdict, from the numbers alone.

Which effects a claim rests on is said here; `paper.rule` makes a verdict of them.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from paper import measures, representation
from paper.reader.contents import Row
from paper.reader.results import Network, Results
from paper.rule import (
    ABOVE,
    EQUIVALENT,
    FAILS,
    HOLDS,
    IN_PART,
    MATTERS,
    MOST_REPLICATES,
    OPEN,
    SAME,
    UNDECIDED,
    UNTESTED,
    Effect,
    of_replicates,
    replicates_to_decide,
    said,
    statuses,
    verdict,
)
from paper.statistics import Estimate, disattenuated
from paper.wording import counted, interval, joined, number

Judged = tuple[list[str], list[Effect]]
"""Sentences, and the effects that they tell of."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, what our runs say of it, and where to look."""

    id: str
    statement: str
    evidence: str
    verdict: str
    artefacts: tuple[str, ...]
    effects: tuple[Effect, ...] = ()


FINAL = "final test accuracy (points)"
RATED = "accuracy on the search split, before final training (points)"
R2, SHARE, TAU = "R²", "share of the base network's accuracy", "Kendall's τ"
UNITS = (FINAL, RATED, R2, SHARE, TAU)
"""What effects are measured in; no two can stand on one axis."""

STATEMENTS = {
    "C1": "In a block with a shortcut the deeper layer is largely representable by the former one.",
    "C2": "Aggregation over the graph carries information about the other layers, and that helps.",
    "C3": "PruningNet gives reasonable weights for any size.",
    "C4": "Aggregated features are better search states than hand-crafted ones.",
    "C5": "The final networks are better than those of AMC, MetaPruning and simple baselines "
    "under the same conditions.",
}
SHORT = {
    "C1": "deeper layers representable",
    "C2": "aggregation helps",
    "C3": "reasonable weights for any size",
    "C4": "aggregated states better",
    "C5": "found networks better",
}
ARTEFACTS = {
    "C1": ("figure1_correlation_heatmaps", "figure2_r2_distributions", "table1_correlation"),
    "C2": ("figure3_graph", "figure8_conditioning", "table2_conditioning", "table4_ablations"),
    "C3": ("figure4_generated_accuracy", "table2_generated_weights"),
    "C4": ("figure5_search_curves", "table4_ablations"),
    "C5": ("table3_main", "figure6_accuracy_macs", "figure7_kept_ratio"),
}


@lru_cache(maxsize=4)  # captions, tables, figures and the report ask for the same
def claims(results: Results) -> tuple[Claim, ...]:
    """Evidence and verdict for C1 to C5; only C1 in a study without methods."""
    judges: dict[str, Callable[[Results], Judged]] = {
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
        said, where = verdict(effects), ARTEFACTS[name]
        if said == UNDECIDED:
            evidence += _to_decide(effects, len(results.seeds))
        found.append(Claim(name, STATEMENTS[name], evidence, said, where, tuple(effects)))
    return tuple(found)


def counted_verdicts(judged: Sequence[Claim], counting: Callable[[int], str]) -> str:
    """How many claims have which verdict: `2 are undecided and 3 hold`."""
    forms = {
        HOLDS: ("holds", "hold"),
        IN_PART: ("holds in part", "hold in part"),
        EQUIVALENT: ("is equivalent", "are equivalent"),
        FAILS: ("does not hold", "do not hold"),
        UNDECIDED: ("is undecided", "are undecided"),
        UNTESTED: ("is not tested", "are not tested"),
    }
    counts = Counter(claim.verdict for claim in judged)
    there = [verdict for verdict in forms if counts[verdict]]
    return joined([f"{counting(counts[one])} {forms[one][counts[one] > 1]}" for one in there])


def _to_decide(effects: list[Effect], replicates: int) -> str:
    """How many replicates would decide an undecided claim, and what none of them would."""
    if replicates < 2 or not effects:
        return ""
    if needed := replicates_to_decide(effects):
        would_be = verdict(of_replicates(effects, needed))
        return (
            f" If differences and spread stayed as they are, {needed} replicates in all would "
            f"decide it: {would_be}. As they will move, that is about an even chance."
        )
    found = statuses(of_replicates(effects, MOST_REPLICATES))
    left = [effect.label for effect, status in zip(effects, found, strict=True) if status == OPEN]
    return f" More replicates like these would not decide it: {joined(left)} would stay open."


# C1


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


def _representable(results: Results) -> Judged:
    compared = [_compared(network) for network in results.compared]
    sentences = [sentence for found, _ in compared for sentence in found]
    return [*sentences, representable(results)], [one for _, found in compared for one in found]


@lru_cache(maxsize=8)
def _compared(network: Network) -> Judged:
    """What the channels of a network say of C1."""
    inside = representation.KINDS[0]
    middle = representation.median(network, inside)
    over_controls = representation.over_controls(network)
    over_untrained = representation.over_untrained(network)
    frame = representation.channels(network, inside)[0]
    sentences = [
        f"In {network.label} the median R² of a channel, given the former layer of its block, is "
        f"{interval(middle, 2)}; largely means above {representation.LARGELY}. Minus the mean over "
        f"its controls it is {interval(over_controls, 2, sign=True)}, and minus that of the same "
        f"layers untrained {interval(over_untrained, 2, sign=True)} "
        f"({counted(len(frame), 'channel')} of {counted(frame['deeper'].nunique(), 'layer')}; "
        f"{over(len(network.base), 'layers')}).",
        *_controls(network),
    ]
    if representation.borders(network):
        near = representation.median(network, representation.BORDERS[0])
        judged = len(representation.channels(network, representation.BORDERS[0]))
        some = f" ({judged} of {len(network.base)} replicates)" * (judged < len(network.base))
        sentences.append(
            "Controls lie further back than the former layer does. Consecutive layers of "
            f"neighbouring blocks, which are as near, have a median of {interval(near, 2)}{some}; "
            "the median of the first two layers of the same blocks minus theirs is "
            f"{interval(representation.over_borders(network), 2, sign=True)}, and after "
            "normalisation and activation "
            f"{interval(representation.over_borders(network, 'activated'), 2, sign=True)}."
        )
    if "activated" in representation.outputs(network):
        after, over_after = (
            representation.median(network, inside, "activated"),
            representation.over_controls(network, "activated"),
        )
        sentences.append(
            f"After normalisation and activation the median is {interval(after, 2)}, and minus "
            f"the controls {interval(over_after, 2, sign=True)}."
        )
    effects = {
        f"median over {representation.LARGELY}": middle.above(representation.LARGELY),
        "over controls": over_controls,
        "over untrained": over_untrained,
    }
    return sentences, [
        Effect(one, label=f"{network.label}: {label}", unit=R2) for label, one in effects.items()
    ]


def _controls(network: Network) -> list[str]:
    """How many controls there are, and what is old about how they were judged."""
    of_layer = representation.controls(network)
    having = [count for count in of_layer.values() if count]
    some = f"{len(having)} of the {counted(len(of_layer), 'layer')}"
    if (strength := representation.fixed_strength(network)) is not None:
        return [
            "This network has fewer controls, at most one a layer, drawn at random, a fixed ridge "
            f"strength ({strength:g}), and the convolutions' own outputs alone. {some} have a "
            "control that is an earlier layer of equal resolution in another block; the others' "
            "control was none, and is left out."
        ]
    if len(having) < len(of_layer):
        return [
            f"{some} have earlier layers of equal resolution in other blocks as controls; the "
            "others have none."
        ]
    return []


def over(replicates: int, units: str) -> str:
    """What an interval is over: replicates, or units of one network alone."""
    if replicates > 1:
        return f"interval over {replicates} replicates"
    return f"interval over the {units} of this one network"


# C2


def _informed(results: Results) -> Judged:
    sentences: list[str] = []
    effects: list[Effect] = []
    source = results.ours.source
    for model in results.models if source in results.analysed else []:
        told = measures.probe(results, model, source, "trained", measures.FAR)
        if told is not None:
            gain = measures.probe_gain(results, model, source, measures.FAR)
            label = _of(results, model, "far widths told over untrained")
            effects.append(Effect(gain, label=label, unit=R2))
            sentences.append(
                f"In {model} a linear probe tells the width of a group {measures.FAR} or more "
                f"edges away from a layer's aggregated feature with R² {interval(told, 2)}. Minus "
                f"that of the untrained aggregator it is {interval(gain, 2, sign=True)} "
                f"({over(len(results.seeds), 'layers')})."
            )
        helps = measures.right_minus_shuffled(results, model, source)
        label = _of(results, model, "own generated weights over another's")
        effects.append(Effect(helps, MATTERS, label, RATED))
        sentences.append(
            f"In {model} accuracy with weights generated for a candidate's own widths minus that "
            f"with weights generated for another's, cropped alike: {_points(helps)} "
            f"({over(len(results.seeds), 'candidates')}{_of_each(results, model, source)})."
        )
    found = _final_contrasts(results, measures.conditioning_ablations(results))
    return sentences + found[0], effects + found[1]


def _of_each(results: Results, model: str, source: str) -> str:
    """How far replicates differ in it; one alone may have made the mean."""
    each = sorted(
        measures.right_minus_shuffled_of(results, model, source, seed).value
        for seed in results.seeds
    )
    if len(each) < 3:
        return ""
    least, median, most = (number(one, 2) for one in (each[0], np.median(each), each[-1]))
    return f"; the least of them has {least}, the median {median}, the greatest {most}"


# C3


def _reasonable(results: Results) -> Judged:
    sentences: list[str] = []
    effects: list[Effect] = []
    source = results.ours.source
    if source not in results.analysed:
        return [], []
    for model in results.models:
        shares = measures.shares(results, model, source)
        worst = min((share for share in shares if share.n), key=lambda share: share.value)
        tau = measures.rank_correlation(results, model, source)
        lowest = _of(results, model, f"lowest quarter of sizes, over {measures.REASONABLE}")
        effects += [
            Effect(worst.above(measures.REASONABLE), label=lowest, unit=SHARE),
            Effect(tau, label=_of(results, model, "generated and trained weights"), unit=TAU),
        ]
        sentences.append(
            f"In {model} the accuracy with generated weights is "
            f"{interval(worst.scaled(100), 0)} % of the base network's in the quarter of candidate "
            f"sizes where it is lowest; reasonable means above {100 * measures.REASONABLE:.0f} %. "
            "Within budgets Kendall's tau with the accuracy after training from scratch is "
            f"{interval(tau, 2)}{_corrected(results, model, tau)} ({_candidates(results, model)})."
        )
        if source != measures.CONSTANT in results.analysed:
            flat = min(measures.shares(results, model, measures.CONSTANT), key=lambda s: s.value)
            same = measures.rank_correlation(results, model, measures.CONSTANT)
            sentences.append(
                "With features that are constant, one set of weights for all sizes, they are "
                f"{interval(flat.scaled(100), 0)} % and {interval(same, 2)}."
            )
    return sentences, effects


def _corrected(results: Results, model: str, tau: Estimate) -> str:
    """What tau would be without the noise of trainings, or why nobody knows."""
    reliability = measures.reliability(results, model)
    if not math.isnan(reliability):
        return (
            f"; corrected for the noise of trainings (reliability {number(reliability, 2)}, which "
            f"counts as known) it is {interval(disattenuated(tau, reliability), 2)}"
        )
    between = measures.agreement(results, model)
    if not between.n:
        return "; how reliable a training is, is not known"
    return (
        f"; it is not corrected for the noise of trainings, two of which agree with a tau of "
        f"{interval(between, 2)}, so that no order of these networks is known to compare with"
    )


def _candidates(results: Results, model: str) -> str:
    """How many candidates there are, and what the intervals are over."""
    generated = results.generated[model, results.seeds[0]]
    trained = generated.trained * len(results.analysed_budgets)
    return (
        f"{counted(generated.candidates, 'candidate')} of any size; {trained} within budgets, "
        f"trained {counted(generated.trainings, 'time')} each; "
        f"{over(len(results.seeds), 'candidates')}"
    )


# C4


def _better_states(results: Results) -> Judged:
    sentences: list[str] = []
    effects: list[Effect] = []
    for row in measures.state_ablations(results):
        for model in results.models:
            found = measures.area_difference(results, model, row.name, results.budgets)
            label = _of(results, model, f"search curve over {row.label}")
            effects.append(Effect(found, MATTERS, label, RATED))
            alike = measures.warm_up(results, model, row.name)
            sentences.append(
                f"In {model}, area under the search curve of {results.ours.label} minus that of "
                f"{_name(row)}{_after(alike)}: {_points(found)} ({_units(results, found)})."
            )
        final, effect = _final_contrasts(results, [row])
        sentences += final
        effects += effect
    frozen = measures.never_learns(results)
    if effects and frozen:
        said_of_it, controls = _learning(results, frozen)
        return sentences + said_of_it, effects + controls
    return sentences, effects


def _learning(results: Results, frozen: Row) -> Judged:
    """Whether it shows that an agent learns at all: if not, no states can be better than others."""
    sentences: list[str] = []
    effects: list[Effect] = []
    for model in results.models:
        found = measures.area_difference(results, model, frozen.name, results.budgets)
        label = _of(results, model, f"search curve over {frozen.label}")
        effects.append(Effect(found, None, label, RATED))
        final = measures.test_difference(results, model, frozen.name, results.budgets)
        alike = measures.warm_up(results, model, frozen.name)
        blind = statuses([Effect(final, MATTERS)]) == [SAME]
        sentences.append(
            f"All that learning adds in {model}, the same minus the {frozen.label}: "
            f"{_points(found)} of area{_after(alike)}, and {_points(final)} of final test accuracy"
            f"{', which so cannot tell good states from bad ones' * blind}."
        )
    return sentences, effects


def _after(alike: int) -> str:
    """What an area leaves out."""
    return f" (without the first {alike} candidates, which both draw alike)" * (alike > 0)


# C5


def _better_networks(results: Results) -> Judged:
    sentences, effects = _final_contrasts(results, results.of_kind("baseline"))
    labels = [row.label for _ in results.models for row in results.of_kind("baseline")]
    if any(not math.isnan(effect.estimate.low) for effect in effects):
        told = zip(labels, said(effects), strict=True)
        by_status: dict[str, list[str]] = {}
        for label, status in told:
            by_status.setdefault(status, []).append(label)
        words = {ABOVE: "better than", SAME: "equivalent to"}
        sentence = [
            f"{words.get(status, 'worse than' if status == 'below' else 'open against')} "
            f"{joined(list(dict.fromkeys(names)))}"
            for status, names in by_status.items()
        ]
        sentences.append(f"{results.ours.label} is {joined(sentence)}.")
        sentences += _without_learning(results, by_status.get(ABOVE, []))
    sentences += [
        f"In {model}, the difference to the {row.label}, which draws candidates and picks one in "
        "the same way, is all that learning adds: "
        f"{_points(measures.test_difference(results, model, row.name, results.budgets))}."
        for model in results.models
        for row in [measures.never_learns(results)]
        if row
    ]
    return sentences, effects


def _without_learning(results: Results, beaten: list[str]) -> list[str]:
    """What the agent that never learns has over the baselines that ours is better than."""
    frozen = measures.never_learns(results)
    if frozen is None:
        return []
    return [
        f"In {model}, the {frozen.label} has {_points(found)} over {row.label}."
        for model in results.models
        for row in results.of_kind("baseline")
        if row.label in beaten
        for found in [
            measures.test_difference(results, model, row.name, results.budgets, of=frozen.name)
        ]
    ]


def _final_contrasts(results: Results, rows: list[Row]) -> Judged:
    """Our final test accuracy minus that of each of `rows`, one sentence a model."""
    sentences: list[str] = []
    effects: list[Effect] = []
    for model in results.models if rows else []:
        found = measures.test_contrasts(results, model, [row.name for row in rows])
        effects += [
            Effect(found[row.name], MATTERS, _of(results, model, row.label), FINAL) for row in rows
        ]
        of_each = [f"of {_name(row)}: {_points(found[row.name])}" for row in rows]
        sentences.append(
            f"In {model}, final test accuracy of {results.ours.label} minus that {joined(of_each)} "
            f"({_units(results, effects[-1].estimate)})."
        )
    return sentences, effects


def _of(results: Results, model: str, what: str) -> str:
    """The label of an effect; it names the model where there are several."""
    return f"{model}: {what}" if len(results.models) > 1 else what


def _name(row: Row) -> str:
    return f"the ablation {row.label}" if row.kind == "ablation" else row.label


def _points(effect: Estimate) -> str:
    return f"{interval(effect, 2, sign=True)} points"


def _units(results: Results, effect: Estimate) -> str:
    of_budgets = "" if len(results.budgets) == 1 else f"mean over {len(results.budgets)} budgets, "
    if effect.n > 1:
        return f"{of_budgets}paired over {effect.n} replicates"
    return f"{of_budgets}one replicate, so no interval"
