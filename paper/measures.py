"""The quantities of claims 2 to 5 that tables, figures and claims share, from the results.

Each is computed within every replicate; `paper.statistics` then makes one estimate of them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, takewhile

import numpy as np
import pandas as pd

from graphpruning.common import collapse
from paper.reader.contents import ANY, Row
from paper.reader.results import Results
from paper.statistics import (
    Clusters,
    Estimate,
    contrasts,
    difference_over_replicates,
    improvement,
    kendall,
    kendall_value,
    mean,
    mean_kendall,
    means,
    of_trainings,
    over_replicates,
    paired,
    replicated,
    stepped_up,
)

FAR = 2
"""C2: from this distance on, a layer neither is of a group nor reads it."""
DISTANCES: dict[str, tuple[int, int | None]] = {
    "0": (0, 0),
    "1": (1, 1),
    "2": (2, 2),
    "3": (3, 3),
    "4 or more": (4, None),
}
"""Edges from a layer to a width, nearest and farthest, in Table 4 and Figure 8."""
REASONABLE = 0.5
"""C3: accuracy with generated weights is reasonable above this share of the base's.

MetaPruning's authors expect their PruningNet to reach about half.
"""
QUARTERS = 4
"""Parts of the candidates by MACs, in Table 2 and Figure 4."""
NEVER_LEARNS = "frozen"
"""The searcher that acts at random in the agent's environment."""
CONSTANT, NO_EDGES = "constant", "none"
"""The conditionings that C2 compares with: features that never change, and no aggregation."""


# What aggregated features say


def probe(
    results: Results,
    model: str,
    conditioning: str,
    network: str,
    nearest: int,
    farthest: int | None = None,
) -> Estimate | None:
    """R² with which a layer's feature tells widths `nearest` to `farthest` edges away.

    The mean over layers and widths; `network` is trained or untrained. None where the graph has
    no widths so far from a layer.
    """
    found = _probes(results, model, conditioning, network, nearest, farthest)
    there = [one for one in found if one.groups]
    return over_replicates(there, means) if there else None


def probe_gain(
    results: Results, model: str, conditioning: str, nearest: int, farthest: int | None = None
) -> Estimate:
    """That of the trained aggregator minus that of the same one untrained, of the same layers."""
    trained, untrained = (
        _probes(results, model, conditioning, network, nearest, farthest)
        for network in ("trained", "untrained")
    )
    return difference_over_replicates(trained, untrained, means)


def _probes(
    results: Results,
    model: str,
    conditioning: str,
    network: str,
    nearest: int,
    farthest: int | None,
) -> list[Clusters]:
    """Scores of each replicate, one for each width; layers are the units of a resample."""
    found = []
    for seed in results.seeds:
        frame = results.generated[model, seed].probes
        far = frame["distance"].between(nearest, math.inf if farthest is None else farthest)
        frame = frame[(frame["conditioning"] == conditioning) & (frame["network"] == network) & far]
        each = frame.loc[frame.index.repeat(frame["widths"])]
        found.append(Clusters(each["r2"], each["layer"]))
    return found


def far_probe(results: Results, model: str, conditioning: str, network: str, seed: int) -> float:
    """A replicate's probe R² of widths `FAR` or more edges away; NaN where there are none."""
    frame = results.generated[model, seed].probes
    frame = frame[
        (frame["conditioning"] == conditioning)
        & (frame["network"] == network)
        & (frame["distance"] >= FAR)
    ]
    return float(np.average(frame["r2"], weights=frame["widths"])) if len(frame) else math.nan


def variation(results: Results, model: str, conditioning: str, seed: int, column: str) -> float:
    """How much of a replicate's trained features or weights changes with the widths, a share."""
    frame = results.generated[model, seed].diagnostics
    frame = frame[(frame["conditioning"] == conditioning) & (frame["network"] == "trained")]
    return float(frame[column].iloc[0])


def collapsed(results: Results, model: str, conditioning: str, seed: int) -> bool:
    """Whether an aggregator died in training: its features say nothing of the widths, or the
    weights that are generated from them do not follow.

    As `graphpruning.common.collapse` says, for widths `FAR` or more edges away. Features that are
    constant on purpose have nothing to lose.
    """
    if conditioning == CONSTANT:
        return False
    varied = variation(results, model, conditioning, seed, "feature_variation")
    before = far_probe(results, model, conditioning, "untrained", seed)
    after = far_probe(results, model, conditioning, "trained", seed)
    weights = variation(results, model, conditioning, seed, "weight_variation")
    return collapse.collapsed(varied, after, before, weights)


def all_collapsed(results: Results) -> list[tuple[str, str, int]]:
    """Model, conditioning and seed of every aggregator that died."""
    return [
        (model, conditioning, seed)
        for model in results.models
        for conditioning in results.analysed
        for seed in results.seeds
        if collapsed(results, model, conditioning, seed)
    ]


# What PruningNets generate


def candidates(
    results: Results, model: str, conditioning: str, seed: int, budget: str = ANY
) -> pd.DataFrame:
    """A replicate's candidates with weights generated under `conditioning`, smallest first."""
    frame = results.generated[model, seed].rated
    frame = frame[(frame["conditioning"] == conditioning) & (frame["budget"] == budget)]
    return frame.sort_values(["macs", "candidate"])


def right_minus_shuffled(results: Results, model: str, conditioning: str) -> Estimate:
    """Accuracy with weights generated for a candidate's widths minus for another's (points)."""
    return replicated(
        [right_minus_shuffled_of(results, model, conditioning, seed) for seed in results.seeds]
    )


def right_minus_shuffled_of(results: Results, model: str, conditioning: str, seed: int) -> Estimate:
    """The same of one replicate, its interval over candidates."""
    frame = candidates(results, model, conditioning, seed)
    return mean(frame["top1_generated"] - frame["top1_shuffled"])


def minus_constant(results: Results, model: str, conditioning: str, seed: int) -> float:
    """Candidates' mean accuracy minus that with constant features (points); NaN without these."""
    if CONSTANT not in results.analysed:
        return math.nan
    own, other = (
        candidates(results, model, name, seed)["top1_generated"].mean()
        for name in (conditioning, CONSTANT)
    )
    return float(own - other)


def quarters(results: Results, model: str, conditioning: str, column: str) -> list[Estimate]:
    """Mean of a column of the candidates in each quarter by MACs."""
    return [
        replicated([mean(part[column]) for part in parts])
        for parts in _quarters(results, model, conditioning)
    ]


def shares(results: Results, model: str, conditioning: str) -> list[Estimate]:
    """Accuracy with generated weights as a share of the base's, in each quarter by MACs."""
    found = []
    for parts in _quarters(results, model, conditioning):
        of_base = [
            mean(part["top1_generated"]).scaled(1 / base_search_top1(results, model, seed))
            for seed, part in zip(results.seeds, parts, strict=True)
        ]
        found.append(replicated(of_base))
    return found


def _quarters(results: Results, model: str, conditioning: str) -> Iterable[list[pd.DataFrame]]:
    """For each quarter the candidates of every replicate."""
    frames = [candidates(results, model, conditioning, seed) for seed in results.seeds]
    places = [np.array_split(np.arange(len(frame)), QUARTERS) for frame in frames]
    for quarter in range(QUARTERS):
        yield [frame.iloc[place[quarter]] for frame, place in zip(frames, places, strict=True)]


def base_search_top1(results: Results, model: str, seed: int) -> float:
    """The base network's accuracy on the search split (%); NaN without one."""
    top1 = results.base[model, seed].search_top1
    return math.nan if top1 is None else top1


def trained(
    results: Results, model: str, conditioning: str, seed: int, budget: str
) -> pd.DataFrame:
    """Candidates of a budget that were trained too; `top1_trained` is the mean of trainings."""
    frame = candidates(results, model, conditioning, seed, budget)
    top1 = results.generated[model, seed].scratch.groupby("candidate")["top1"].mean()
    return frame.assign(top1_trained=frame["candidate"].map(top1)).dropna(subset="top1_trained")


def tau_at(results: Results, model: str, conditioning: str, budget: str) -> Estimate:
    """Kendall's tau of accuracy with generated weights and after training, within a budget."""
    frames = [trained(results, model, conditioning, seed, budget) for seed in results.seeds]
    return replicated([kendall(f["top1_generated"], f["top1_trained"]) for f in frames])


def rank_correlation(results: Results, model: str, conditioning: str) -> Estimate:
    """The same, averaged over budgets: sizes of different budgets are never compared."""
    found = []
    for seed in results.seeds:
        frames = [trained(results, model, conditioning, seed, b) for b in results.analysed_budgets]
        found.append(mean_kendall([(f["top1_generated"], f["top1_trained"]) for f in frames]))
    return replicated(found)


def agreement(results: Results, model: str) -> Estimate:
    """Kendall's tau between two trainings of the same candidates, within budgets.

    The mean over pairs of trainings and budgets; its interval is over replicates, or within one
    over its candidates. No unit with one training.
    """
    found = []
    for seed in results.seeds:
        generated = results.generated[model, seed]
        of_budget = generated.rated.drop_duplicates("candidate").set_index("candidate")["budget"]
        wide = generated.scratch.pivot(index="candidate", columns="training", values="top1")
        pairs = [
            (part[one], part[two])
            for _, part in wide.groupby(of_budget.reindex(wide.index))
            for one, two in combinations(part, 2)
            if not math.isnan(kendall_value(part[one], part[two]))
        ]
        if pairs:
            found.append(mean_kendall(pairs))
    return replicated(found) if found else mean([])


def reliability(results: Results, model: str) -> float:
    """How far the mean accuracy of a candidate's trainings would agree with that of new ones.

    The correlation that Greiner's relation r = sin(pi tau / 2) gives for the `agreement`, stepped
    up to the mean of so many trainings. NaN where this is not known: with one training, and where
    the agreement's interval reaches zero, or there is none.
    """
    found = agreement(results, model)
    if not found.low > 0:
        return math.nan
    one_training = math.sin(math.pi / 2 * found.value)
    return stepped_up(one_training, results.generated[model, results.seeds[0]].trainings)


# What methods find, and how accurate it becomes


def base_top1(results: Results, model: str) -> Estimate:
    """Test accuracy of the base network."""
    return mean([results.base[model, seed].test_top1 for seed in results.seeds])


def test_top1(results: Results, model: str, method: str, budget: str) -> Estimate:
    """Test accuracy of a method's final networks."""
    return mean(list(results.test_top1(model, method, budget).values()))


def test_difference(
    results: Results, model: str, other: str, budgets: list[str], of: str = ""
) -> Estimate:
    """Final test accuracy of ours (or `of` a method) minus the other method's, paired by seed, mean
    over budgets.

    Of the trainings that both have. Its interval is no narrower than the noise of single trainings
    alone makes it.
    """
    both = (of or results.ours.name, other)
    found = _difference(_of_common(results, both), *both, model, budgets)
    return found.no_narrower(_of_trainings(results, model, both, budgets))


def test_contrasts(results: Results, model: str, others: list[str]) -> dict[str, Estimate]:
    """The same for all `others` at once, over all budgets, with one pooled error (`contrasts`), of
    the trainings that all have.
    """
    methods = (results.ours.name, *others)
    top1 = _of_common(results, methods)
    ours, *rest = (over_budgets(top1, model, name, results.budgets) for name in methods)
    found = contrasts(ours, dict(zip(others, rest, strict=True)))
    noise = _of_trainings(results, model, methods, results.budgets)
    return {name: estimate.no_narrower(noise) for name, estimate in found.items()}


def _of_common(
    results: Results, methods: Sequence[str]
) -> Callable[[str, str, str], dict[int, float]]:
    """`Results.test_top1`, but the mean of those trainings alone whose number all `methods` have in
    a replicate: trainings of one number share the order of images and the augmentation, and so are
    better or worse together. Of all trainings where single ones are not known.
    """

    def top1(model: str, method: str, budget: str) -> dict[int, float]:
        found = {}
        for seed, one in results.final[model, method, budget].items():
            all_there = [results.final[model, name, budget].get(seed) for name in methods]
            common = set.intersection(*(set(each.each) if each else set() for each in all_there))
            single = [one.each[number] for number in sorted(common)]
            found[seed] = float(np.mean(single)) if single else one.test_top1
        return found

    return top1


def _of_trainings(
    results: Results, model: str, methods: Sequence[str], budgets: list[str]
) -> Estimate:
    """What the noise of single trainings does to a difference of two of the methods, over the
    trainings that all have.
    """
    replicates = []
    for seed in results.seeds:
        finals = [[results.final[model, name, b].get(seed) for b in budgets] for name in methods]
        each = [[one.each if one else {} for one in of_method] for of_method in finals]
        numbers = set.intersection(*(set(one) for of_method in each for one in of_method))
        if not numbers:
            return Estimate(0.0, math.nan, math.nan, 0)
        replicates.append(
            np.array([[np.mean([e[k] for e in m]) for m in each] for k in sorted(numbers)])
        )
    return of_trainings(replicates)


def test_improvement(results: Results, model: str, other: str, budgets: list[str]) -> Estimate:
    """Probability that a network of ours is better than one of the other's (`improvement`), of the
    trainings that both have.
    """
    top1 = _of_common(results, (results.ours.name, other))
    return improvement(
        [
            (
                list(top1(model, results.ours.name, budget).values()),
                list(top1(model, other, budget).values()),
            )
            for budget in budgets
        ]
    )


def search_difference(results: Results, model: str, other: str, budgets: list[str]) -> Estimate:
    """Our found candidate's accuracy on the search split minus the other's.

    It compares methods only where both rate candidates with the same weights.
    """
    return _difference(results.search_top1, results.ours.name, other, model, budgets)


def area_difference(results: Results, model: str, other: str, budgets: list[str]) -> Estimate:
    """The same for the area under the search curve, from where the two searches part.

    Agents of one seed draw the same candidates in their warm-up, before they have learned anything;
    there no curve can be above the other.
    """
    both = (results.ours.name, other)

    def areas(model: str, method: str, budget: str) -> dict[int, float]:
        one, two = (results.search[model, name, budget] for name in both)
        return {
            seed: area(search.history[shared(one[seed].history, two[seed].history) :])
            for seed, search in results.search[model, method, budget].items()
            if seed in one and seed in two
        }

    return _difference(areas, *both, model, budgets)


def shared(one: pd.DataFrame, two: pd.DataFrame) -> int:
    """How many candidates two searches have in common from the first on, but never their last."""
    pairs = zip(one["widths"][:-1], two["widths"][:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def warm_up(results: Results, model: str, other: str) -> int:
    """The most candidates that our searches have in common with another method's from the first
    on, over budgets and seeds.
    """
    ours = results.ours.name
    return max(
        (
            shared(search.history, results.search[model, other, budget][seed].history)
            for budget in results.budgets
            for seed, search in results.search[model, ours, budget].items()
            if seed in results.search[model, other, budget]
        ),
        default=0,
    )


def area(history: pd.DataFrame) -> float:
    """Area under a search curve (%): the best so far, mean over evaluations; NaN without any."""
    return float(history["best"].mean())


def _difference(
    top1: Callable[[str, str, str], dict[int, float]],
    one: str,
    other: str,
    model: str,
    budgets: list[str],
) -> Estimate:
    return paired(*(over_budgets(top1, model, method, budgets) for method in (one, other)))


def over_budgets(
    top1: Callable[[str, str, str], dict[int, float]],
    model: str,
    method: str,
    budgets: list[str],
) -> dict[int, float]:
    """A method's accuracy, mean over budgets, of each seed that has them all."""
    per_budget = [top1(model, method, budget) for budget in budgets]
    seeds = set.intersection(*(set(one) for one in per_budget))
    return {seed: float(np.mean([one[seed] for one in per_budget])) for seed in sorted(seeds)}


def same_weights(results: Results, row: Row) -> bool:
    """Whether a method rates candidates with the weights that ours does."""
    return row.source == results.ours.source


def never_learns(results: Results) -> Row | None:
    """The row that acts at random in our agent's environment, and differs in nothing else."""
    rows = [row for row in results.rows.values() if row.searcher == NEVER_LEARNS]
    return next((row for row in rows if same_weights(results, row)), None)


def state_ablations(results: Results) -> list[Row]:
    """Ablations that differ from ours in what the search sees, and in nothing else."""
    ours = results.ours
    return [
        row
        for row in results.of_kind("ablation")
        if same_weights(results, row) and row.searcher == ours.searcher and row.state != ours.state
    ]


def conditioning_ablations(results: Results) -> list[Row]:
    """Ablations whose PruningNet aggregates nothing, or whose features never change."""
    return [row for row in results.of_kind("ablation") if row.source in (NO_EDGES, CONSTANT)]
