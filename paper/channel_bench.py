"""Tables 7 and 8 and Figure 10, of Channel-Bench-Macro: `python -m paper.channel_bench`.

They are made from results/channel-bench, where only derived numbers stand: the truth itself is the
authors', and is not committed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphpruning.common.files import write_text
from paper import command
from paper.captions import Caption
from paper.figure_style import BAND, EDGE, GREY, PAGE, STYLE, look, save
from paper.reader.channel_bench import (
    ANY,
    GENERATED,
    MACS,
    REWARDS,
    STUDY,
    TRAINED,
    ChannelBenchResults,
    Mark,
    Network,
    Searches,
    read,
)
from paper.statistics import Estimate, mean, paired
from paper.table_formats import Cells, Table, made, spread, to_csv, to_latex, to_markdown
from paper.wording import fixed, interval, joined, number, plus_minus

RESULTS = Path("results") / STUDY
SCRIPT = "paper/channel_bench.py"
RANDOM, UNIFORM = "random", "uniform"
AGGREGATED, HAND_CRAFTED = "agent (aggregated)", "agent (hand-crafted)"
REPEATS = 0.9
"""The share of different networks among a search's evaluations below which a table says so."""
TRUTH = "the mean of its three trainings in Channel-Bench-Macro's tables"
DATA = (
    "PruningNets saw a re-encoded CIFAR-10 (JPEG); the truth is of the original images, and an "
    "accuracy there is the best of a training's epochs on the test set."
)


def agreement(results: ChannelBenchResults) -> Table:
    """Table 7: how far accuracies with generated weights order networks as the truth does."""
    kinds = [ANY, *results.budgets]
    rows: list[tuple[Cells, Cells]] = []
    for network in results.networks:
        for rater, label in _raters(results, "PruningNet, ").items():
            csv: Cells = {"network": network.label, "rated_by": rater}
            shown: Cells = {"Network": network.label, "Rated by": label}
            for kind in kinds:
                tau = network.agreement[rater, kind]
                csv |= spread(f"tau_{kind}", tau, 4) | {f"networks_{kind}": str(tau.n)}
                shown[_among(kind)] = interval(tau, 2)
            rows.append((csv, shown))
    return made("table7_agreement", rows, *(_compared(results, one) for one in results.networks))


def _raters(results: ChannelBenchResults, of: str) -> dict[str, str]:
    """What rates networks, in words; `of` comes before a PruningNet's conditioning."""
    labels = {name: f"{of}{look.label}" for name, look in results.conditionings.items()}
    return labels | {MACS: "MACs alone", TRAINED: "one training of three"}


def _compared(results: ChannelBenchResults, network: Network) -> str:
    """How many networks were compared, and how accurate the PruningNets are."""
    counts = [
        f"{network.agreement[MACS, kind].n:,} of {_among(kind)}" for kind in (ANY, *results.budgets)
    ]
    epochs = joined(
        [f"{count:g}" for count in sorted({net.epochs for net in network.nets.values()})]
    )
    nets = [
        f"{results.conditionings[name].label} {number(net.search_top1_full, 1)} / "
        f"{number(net.search_top1_half, 1)} / {number(net.search_top1_quarter, 1)}"
        for name, net in network.nets.items()
    ]
    return (
        f"{network.label}: {joined(counts)}; the PruningNets' accuracy at full, half and quarter "
        f"width, after {epochs} epochs (%): {', '.join(nets)}."
    )


def _among(kind: str) -> str:
    return "any size" if kind == ANY else f"{_share(kind)} of MACs"


def _share(budget: str) -> str:
    return f"{100 * float(budget):.3g} %"


def searches(results: ChannelBenchResults) -> Table:
    """Table 8: the true accuracy and rank of what each searcher finds."""
    rows: list[tuple[Cells, Cells]] = []
    for label, found in results.searched.items():
        for reward in REWARDS:
            for name in found.searched.searchers:
                csv, shown = _of_searcher(results, found, reward, name)
                which: Cells = {"Network": label} if len(results.searched) > 1 else {}
                rows.append(({"network": label, **csv}, which | shown))
    marks = [
        f"{network.label}, {_among(budget)}: median {mark.median:.2f} %, best {mark.best:.2f} % of "
        f"{mark.networks:,} networks"
        for network in results.networks
        if network.searches
        for budget, mark in network.marks.items()
    ]
    return made(
        "table8_true_searches",
        rows,
        f"What there is to be found: {'; '.join(marks)}.",
        *_repeated(results),
    )


def _repeated(results: ChannelBenchResults) -> list[str]:
    """Who evaluates the same networks again, which costs evaluations; one network is no search."""
    said = []
    for label, found in results.searched.items():
        most = found.searched.evaluations
        for name, styled in found.searched.searchers.items():
            different = [
                find.distinct
                for (_, searcher, _), plays in found.finds.items()
                for find in plays.values()
                if searcher == name
            ]
            if max(different) > 1 and min(different) < REPEATS * most:
                said.append(
                    f"{label}: {styled.label} evaluates {min(different)} to {max(different)} "
                    f"different networks in {most} evaluations."
                )
    return said


def _of_searcher(
    results: ChannelBenchResults, found: Searches, reward: str, name: str
) -> tuple[Cells, Cells]:
    csv: Cells = {"reward": reward, "searcher": name}
    shown: Cells = {
        "Reward": _reward(results, reward),
        "Searcher": found.searched.searchers[name].label,
    }
    for budget in results.budgets:
        finds = found.finds[reward, name, budget].values()
        top1 = mean([find.true_top1 for find in finds])
        rank = mean([find.rank for find in finds])
        over = minus(found, reward, name, RANDOM, budget)
        csv |= spread(f"true_top1_{budget}", top1, 4)
        csv |= spread(f"minus_random_{budget}", over, 4)
        csv |= {f"rank_{budget}": fixed(rank.value, 1)}
        shown |= {
            f"Top-1, {_share(budget)}": plus_minus(top1, 2),
            f"− random, {_share(budget)}": "" if name == RANDOM else interval(over, 2, True),
            f"Rank, {_share(budget)}": number(rank.value, 0),
        }
    return csv, shown


def _reward(results: ChannelBenchResults, reward: str) -> str:
    return "one training" if reward == TRAINED else f"generated, {results.source}"


def minus(found: Searches, reward: str, name: str, other: str, budget: str) -> Estimate:
    """True top-1 of what a searcher finds minus what another finds, paired by play."""
    mine, theirs = (
        {play: find.true_top1 for play, find in found.finds[reward, searcher, budget].items()}
        for searcher in (name, other)
    )
    return paired(mine, theirs)


def agrees(results: ChannelBenchResults) -> str:
    """How far generated accuracies order networks as the truth does, budget by budget."""
    said = [
        f"for the {network.label} at {_among(budget)} by "
        + joined(
            [
                f"{label} {interval(network.agreement[rater, budget], 2)}"
                for rater, label in _raters(results, "the PruningNet ").items()
            ]
        )
        for network in results.networks
        for budget in (ANY, *results.budgets)
    ]
    return f"Kendall's τ with the true accuracy is {'; '.join(said)}."


def finds(results: ChannelBenchResults) -> str:
    """What the paper's agent finds by generated accuracies, and what others do."""
    said = []
    for network in results.networks:
        if (searched := network.searches) is None:
            continue
        for budget in results.budgets:
            found = {
                name: mean(
                    [one.true_top1 for one in searched.finds[GENERATED, name, budget].values()]
                )
                for name in (AGGREGATED, RANDOM, UNIFORM)
            }
            states = minus(searched, GENERATED, AGGREGATED, HAND_CRAFTED, budget)
            random = minus(searched, GENERATED, AGGREGATED, RANDOM, budget)
            said.append(
                f"of the {network.label} at {_among(budget)} the agent with aggregated states "
                f"finds networks of {interval(found[AGGREGATED], 2)} % (random search: "
                f"{number(found[RANDOM].value, 2)} %, difference {interval(random, 2, sign=True)} "
                f"points; minus hand-crafted states {interval(states, 2, sign=True)}; uniform "
                f"width, without a search: {number(found[UNIFORM].value, 2)} %; the best there "
                f"is: {number(network.marks[budget].best, 2)} %)"
            )
    return f"With {_evaluations(results)} evaluations by generated accuracy, {joined(said)}."


def _evaluations(results: ChannelBenchResults) -> int:
    return next(iter(results.searched.values())).searched.evaluations


def true_accuracy(results: ChannelBenchResults) -> Figure:
    """Figure 10: true accuracy of the best candidate so far against evaluations."""
    lines = [
        (network, reward) for network in results.networks if network.searches for reward in REWARDS
    ]
    figure, axes = plt.subplots(
        len(lines),
        len(results.budgets),
        figsize=(PAGE, 0.6 + 2.4 * len(lines)),
        squeeze=False,
        sharex=True,
    )
    for row, (network, reward) in zip(axes, lines, strict=True):
        for axis, budget in zip(row, results.budgets, strict=True):
            _curves(axis, network, reward, budget)
            axis.set_title(f"{network.label}, {_among(budget)}, reward: {_reward(results, reward)}")
            axis.set(ylabel="", xlabel="")
        row[0].set_ylabel("true top-1 of the best so far (%)")
    for axis in axes[-1]:
        axis.set_xlabel("candidates evaluated")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _curves(axis: Axes, network: Network, reward: str, budget: str) -> None:
    assert network.searches is not None
    found = network.searches
    frame = found.curves
    chosen = frame[(frame["reward"] == reward) & (frame["budget"] == budget)]
    end = found.searched.evaluations
    for place, (name, styled) in enumerate(found.searched.searchers.items()):
        curve = chosen[chosen["searcher"] == name]
        style = look(styled)
        every = max(1, end // 5)
        if len(curve) == 1:  # judges one candidate
            top1 = curve["true_top1"].item()
            axis.axhline(top1, color=style["color"], linestyle=":", linewidth=1.2, zorder=1)
            axis.plot(1, top1, label=styled.label, clip_on=False, **style, **EDGE)
            continue
        axis.fill_between(
            curve["evaluation"], curve["low"], curve["high"], color=style["color"], **BAND
        )
        offset = (place * every) // len(found.searched.searchers)
        axis.plot(
            curve["evaluation"],
            curve["true_top1"],
            label=styled.label,
            markevery=(offset, every),
            **style,
            **EDGE,
        )
        last = mean([find.true_top1 for find in found.finds[reward, name, budget].values()])
        axis.plot(end * 1.04, last.value, clip_on=False, **{**style, "linestyle": "none"}, **EDGE)
    mark = network.marks[budget]
    for height, word in ((mark.median, "median"), (mark.best, "best there is")):
        axis.axhline(height, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
        axis.annotate(
            word,
            (1, height),
            (-3, 2),
            xycoords=axis.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            color=GREY,
        )
    axis.set_ylim(_lowest(found, mark, budget) - 0.05, mark.best + 0.08)
    axis.grid(axis="y", color="#dddddd", linewidth=0.5)


def _lowest(found: Searches, mark: Mark, budget: str) -> float:
    """The lowest mean that a budget's panels show; the first few candidates may lie below."""
    frame = found.curves
    late = frame["evaluation"] >= max(1, found.searched.evaluations // 20)
    shown = frame[(frame["budget"] == budget) & late]["true_top1"].min()
    means = [
        mean([find.true_top1 for find in plays.values()]).value
        for (_, _, of), plays in found.finds.items()
        if of == budget
    ]
    return min(float(shown), *means, mark.median)


def captions(results: ChannelBenchResults) -> dict[str, Caption]:
    """By the artefact's file name."""
    plays = next(iter(results.searched.values())).searched.plays
    stages = tuple(run.stage for run in results.runs)
    searched = f"{results.title}, {joined(list(results.searched))}"
    found = f"mean over {plays} searches of {_evaluations(results)} evaluations"
    return {
        "table7_agreement": Caption(
            "Table 7",
            f"{results.title}: Kendall's τ between what rates a network and its true accuracy, "
            f"{TRUTH}, among random networks of any size and among those that fill a budget; 95 % "
            "bootstrap intervals over networks. Rated by: the accuracy with weights of a "
            "PruningNet; MACs alone, a control that knows nothing but size; and one training "
            f"against the mean of the other two, which is how far the truth agrees with itself. "
            f"{DATA}",
            SCRIPT,
            stages,
        ),
        "table8_true_searches": Caption(
            "Table 8",
            f"{searched}: true accuracy (%) of what each searcher finds, {found}, with its "
            "95 % t-interval over searches; minus what random search finds with the same seed; and "
            "the rank among all networks within the budget, a share of MACs. Reward: accuracy with "
            "weights that the PruningNet generates, or one of a network's three trainings. "
            f"Truth: {TRUTH}; where one of them was the reward, the mean of the other two. {DATA}",
            SCRIPT,
            stages,
        ),
        "figure10_true_accuracy": Caption(
            "Figure 10",
            f"{searched}: true accuracy ({TRUTH}; where one of them was the reward, the mean of "
            f"the other two) of the candidate with the best reward so far, {found}; bands are 95 % "
            "t-intervals. The markers beyond the end are what is found: the best reward, or for "
            "searchers that estimate, the best estimate. Above, a candidate's reward is its "
            "accuracy with generated weights, below that of one training. Dashed: the median and "
            "the best network within the budget; dotted: the uniform width. A curve that does not "
            f"rise means that the reward does not tell which network is better. {DATA}",
            SCRIPT,
            stages,
        ),
    }


def write(results: ChannelBenchResults) -> None:
    """Write tables and the figure below results/channel-bench."""
    words = captions(results)
    for table in (agreement(results), searches(results)):
        path = results.path / "tables" / table.name
        write_text(path.with_suffix(".csv"), to_csv(table))
        write_text(path.with_suffix(".md"), to_markdown(table, words[table.name]))
        write_text(path.with_suffix(".tex"), to_latex(table, words[table.name]))
    with rc_context(STYLE):
        save(true_accuracy(results), results.path / "figures/figure10_true_accuracy")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make Tables 7 and 8 and Figure 10.")
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS)
    chosen = parser.parse_args(argv)
    return command.status(lambda: write(read(chosen.results)))


if __name__ == "__main__":
    sys.exit(main())
