"""The numbers in the write-up's text, as LaTeX macros: `python -m paper.macros`.

Writes `paper/numbers.tex` from the committed results of the studies, and from what the benchmark of
searchers measured (`benchmarks/results/searchers.csv`), the one file outside of `results/`.
A macro begins with the name of its study, or with `bench`, and is made of letters alone:
`\\deskVerdictCtwo`, `\\benchDdpgBelow`. A test holds the file to the results.
"""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from graphpruning.common.files import read_text, write_text
from paper import channel_bench, clock, command, measures, representation, rule
from paper.captions import Caption, budget_amount, captions, how_often, spread
from paper.claims import STATEMENTS, Claim, claims, counted_verdicts
from paper.reader.contents import Run
from paper.reader.results import Results, read
from paper.statistics import Estimate, mean
from paper.table_formats import escaped
from paper.verdicts import COMMITTED
from paper.wording import WORDS, counted, counting, interval, joined, number

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("numbers.tex")
SEARCHERS = "benchmarks/results/searchers.csv"
Macros = dict[str, str]


def letters(name: str) -> str:
    """A name for LaTeX: `no-edges` is NoEdges, `top1` TopOne."""
    words = "".join(c if c.isalpha() else f" {WORDS[int(c)] if c.isdigit() else ''}" for c in name)
    return "".join(word[0].upper() + word[1:] for word in words.split())


# A study


def of_study(results: Results) -> Macros:
    """Everything that the text says of a study; of one without methods its verdicts alone."""
    judged = claims(results)
    found = {
        "Title": results.title,
        "Models": joined(results.models),
        "Replicates": f"{counting(len(results.seeds))} replicate{'s' * (len(results.seeds) > 1)}",
        "Hours": number(sum(run.seconds for run in _own_runs(results)) / 3600, 1),
        "Verdicts": counted_verdicts(judged, counting),
    }
    for claim in judged:
        name = f"C{WORDS[int(claim.id[1:])]}"
        found |= {f"Verdict{name}": claim.verdict, f"Evidence{name}": claim.evidence}
    if results.rows:
        found |= {**_networks(results), **_conditioning(results), **_generated(results)}
        found |= {**_finals(results), **_costs(results)}
    return found | of_figures(captions(results))


def of_figures(words: dict[str, Caption]) -> Macros:
    """The captions of figures; those of tables stand in their own files."""
    numbers = {caption.label.partition("Figure ")[2]: caption.text for caption in words.values()}
    return {f"CaptionFigure{WORDS[int(no)]}": text for no, text in numbers.items() if no}


def _networks(results: Results) -> Macros:
    """The base network, the data and the settings that all methods share."""
    model = results.models[0]
    base, images = results.network(model), results.splits.images
    searches = [one for by_seed in results.search.values() for one in by_seed.values()]
    finals = [one for by_seed in results.final.values() for one in by_seed.values()]
    usual = Counter(one.initial for one in finals).most_common(1)[0][0]
    begins = {
        "scratch": "from scratch",
        "inherited": "from the base's weights, cut and fitted again",
        "generated": "from the PruningNet's weights",
    }
    return {
        "Spread": spread(results),
        "Budgets": joined([budget_amount(results, budget, model) for budget in results.budgets]),
        "BaseTopOne": interval(measures.base_top1(results, model), 2),
        "BaseMacs": number(base.macs / 1e6, 1),
        "BaseParams": number(base.params / 1e3, 0),
        "Groups": str(len(base.graph.prunable)),
        "TrainImages": number(images.train, 0),
        "SearchImages": number(images.search, 0),
        "TestImages": number(images.test, 0),
        "Evaluations": number(max(one.evaluations for one in searches), 0),
        "Methods": counting(len(results.rows)),
        "Begins": begins[usual],
        "Trainings": how_often(results),
    }


def _conditioning(results: Results) -> Macros:
    """Whether a PruningNet's features tell of widths, and whether its weights follow them."""
    model, found = results.models[0], {}
    for name in results.analysed:
        label = letters(name)
        told = [measures.probe(results, model, name, net, measures.FAR) for net in NETS]
        for net, one in zip(NETS, told, strict=True):
            found[f"Probe{net.capitalize()}{label}"] = "none" if one is None else interval(one, 2)
        constant = mean([measures.minus_constant(results, model, name, s) for s in results.seeds])
        shuffled = measures.right_minus_shuffled(results, model, name)
        for what in ("feature", "weight"):
            column = f"{what}_variation"
            varied = [measures.variation(results, model, name, s, column) for s in results.seeds]
            found[f"{what.capitalize()}sVary{label}"] = interval(mean(varied).scaled(100), 1)
        found |= {
            f"ProbeGain{label}": _signed(measures.probe_gain(results, model, name, measures.FAR)),
            f"RightMinusShuffled{label}": _signed(shuffled),
            f"MinusConstant{label}": _signed(constant),
        }
    found["Collapsed"] = counting(len(measures.all_collapsed(results)))
    alive = [name for name in results.analysed if name != measures.CONSTANT]
    found["Analysed"] = counting(len(alive) * len(results.models) * len(results.seeds))
    return found


NETS = ("trained", "untrained")


def _generated(results: Results) -> Macros:
    """Accuracies with generated weights, and how they order networks."""
    model, source = results.models[0], results.ours.source
    worst = min(measures.shares(results, model, source), key=lambda share: share.value)
    return {
        "WorstShare": interval(worst.scaled(100), 0),
        "Tau": interval(measures.rank_correlation(results, model, source), 2),
        "Repeat": _repeat(measures.agreement(results, model), measures.reliability(results, model)),
    }


def _repeat(agreement: Estimate, reliability: float) -> str:
    """How far the trainings that generated accuracies are compared with agree with themselves."""
    if math.isnan(reliability):
        return (
            f"agree with a tau of {interval(agreement, 2)} when they are repeated, so that hardly "
            "any other order can agree with theirs"
        )
    return (
        f"repeat themselves with a reliability of {number(reliability, 2)}, and that bounds what "
        "can be seen"
    )


def _finals(results: Results) -> Macros:
    """Test accuracies of found networks: ours minus every other's, and their range."""
    model, ours = results.models[0], results.ours.name
    baselines = [row.name for row in results.of_kind("baseline")]
    together = measures.test_contrasts(results, model, baselines)
    found = {}
    for name in results.rows:
        if name != ours:
            alone = measures.test_difference(results, model, name, results.budgets)
            found[f"Minus{letters(name)}"] = _signed(together.get(name, alone))
    for row in measures.state_ablations(results):
        area = measures.area_difference(results, model, row.name, results.budgets)
        found[f"AreaMinus{letters(row.name)}"] = _signed(area)
    smallest = min(results.budgets, key=lambda budget: results.budget_macs(model, budget))
    means = [measures.test_top1(results, model, name, smallest).value for name in results.rows]
    return found | {
        "SmallBudget": budget_amount(results, smallest, model),
        "SmallOurs": number(measures.test_top1(results, model, ours, smallest).value, 2),
        "SmallLowest": number(min(means), 2),
        "SmallHighest": number(max(means), 2),
    }


def _costs(results: Results) -> Macros:
    """Seconds and images of one run of each kind, in the mean, and the machines."""
    ours = results.ours
    nets = [net.run for (_, source, _), net in results.pruningnet.items() if source == ours.source]
    of_ours = [key for key in results.search if key[1] == ours.name]
    searches = [s for key in of_ours for s in results.search[key].values()]
    finals = [f.run for key in of_ours for f in results.final[key].values() if f.run]
    machines = {clock.hardware(run) for run in _own_runs(results)}
    return {
        **_cost(results, "Base", [base.run for base in results.base.values()]),
        **_cost(results, "PruningNet", nets),
        **_cost(results, "Final", finals),
        "SearchSeconds": number(clock.typical(results, [(s.run, s.seconds) for s in searches]), 0),
        "SearchedImages": number(float(np.mean([s.images_seen for s in searches])), 0),
        "Runs": number(len(_own_runs(results)), 0),
        "Machines": joined(sorted(machines)),
        "Machine": clock.machine(results),
    }


def _cost(results: Results, name: str, runs: list[Run]) -> Macros:
    seconds = clock.typical(results, [(run, run.seconds) for run in runs])
    return {
        f"{name}Seconds": number(seconds, 0),
        f"{name}Images": number(float(np.mean([run.images_seen for run in runs])), 0),
    }


def _own_runs(results: Results) -> list[Run]:
    """Without those of the study beside this one."""
    return replace(results, pretrained=None).runs


def _signed(estimate: Estimate) -> str:
    return interval(estimate, 2, sign=True)


# All studies


def verdict_table(judged: Mapping[str, Sequence[Claim]]) -> str:
    """A line for each claim, a column for each study."""
    found = {study: {claim.id: claim.verdict for claim in every} for study, every in judged.items()}
    body = [
        _line(claim, [one.get(claim, rule.UNTESTED) for one in found.values()])
        for claim in STATEMENTS
    ]
    return _tabular("l" * (1 + len(found)), _line("Claim", list(found)), body)


def _tabular(columns: str, head: str, body: list[str]) -> str:
    lines = ("\\toprule", head, "\\midrule", *body, "\\bottomrule")
    return f"\\begin{{tabular}}{{{columns}}}{' '.join(lines)}\\end{{tabular}}"


def _line(first: str, cells: list[str]) -> str:
    """A line of a table's body."""
    return f"{' & '.join(escaped(cell) for cell in (first, *cells))} \\\\"


# Searchers against known truth


def of_searchers(frame: pd.DataFrame) -> Macros:
    """How often each searcher is above or below random search, and a table of the differences.

    Above and below: the 95 % interval of the paired difference lies there. The table has the most
    evaluations alone.
    """
    most = frame["evaluations"].max()
    last = frame[frame["evaluations"] == most]
    places = _places(frame)
    found = {
        "Evaluations": joined([str(n) for n in sorted(set(frame["evaluations"]))]),
        "Most": str(most),
        "Places": counting(len(places)),
        "Cells": counting(len(places) * frame["evaluations"].nunique()),
        "Seeds": counted(int(frame["seeds"].max()), "seed"),
    }
    body = []
    for searcher in dict.fromkeys(frame["searcher"]):
        name, mine = letters(searcher), frame[frame["searcher"] == searcher]
        mine_last = mine[mine["evaluations"] == most]
        for label, part in (("", mine), ("Last", mine_last)):
            found[f"{name}{label}Above"] = counting(int((part["low"] > 0).sum()))
            found[f"{name}{label}Below"] = counting(int((part["high"] < 0).sum()))
        found[f"{name}Seeds"] = str(int(mine["seeds"].max()))
        cells = [_difference(last, searcher, network, budget) for network, budget in places]
        body.append(_line(searcher, cells))
    head = _line("Found by", [f"{name}, {100 * share:.3g} %" for name, share in places])
    return found | {TABLE: _tabular(f"l{'r' * len(places)}", head, body)}


TABLE = "Table"
"""The one macro of the searchers that is LaTeX already."""


def _places(frame: pd.DataFrame) -> list[tuple[str, float]]:
    pairs = zip(frame["network"], frame["budget"], strict=True)
    return list(dict.fromkeys((str(network), float(budget)) for network, budget in pairs))


def _difference(last: pd.DataFrame, searcher: str, network: str, budget: float) -> str:
    """Minus random search, with its interval; random search's own true accuracy instead of 0."""
    here = (last["network"] == network) & (last["budget"] == budget)
    row = last[here & (last["searcher"] == searcher)].iloc[0]
    if searcher == "random":
        return f"{row['true_top1']:.2f} %"
    return interval(Estimate(row["minus_random"], row["low"], row["high"], 2), 3, sign=True)


# The file


def render(root: Path = ROOT) -> str:
    """All macros, one a line."""
    studies = {name: read(root / "results" / name) for name in COMMITTED}
    judged = {name: claims(results) for name, results in studies.items()}
    macros: Macros = {
        "ruleMatters": number(rule.MATTERS, 1),
        "ruleLargely": number(representation.LARGELY, 1),
        "ruleReasonable": number(100 * measures.REASONABLE, 0),
    }
    macros = {name: escaped(text) for name, text in macros.items()}
    macros["verdictTable"] = verdict_table(judged)
    found = {name: of_study(results) for name, results in studies.items()}
    truth = root / "results" / channel_bench.STUDY
    if (truth / "figures").is_dir():  # as the text asks before it takes its figure
        words = channel_bench.captions(channel_bench.read(truth))
        found[channel_bench.STUDY] = of_figures(words)
    for name, texts in found.items():
        prefix = letters(name)[0].lower() + letters(name)[1:]
        macros |= {f"{prefix}{key}": escaped(text) for key, text in texts.items()}
    read_text(root / SEARCHERS, "python -m benchmarks searchers")
    bench = of_searchers(pd.read_csv(root / SEARCHERS))
    macros |= {
        f"bench{key}": text if key == TABLE else escaped(text) for key, text in bench.items()
    }
    head = "% Made by `python -m paper.macros` from the committed results: not to be edited.\n"
    return head + "".join(f"\\newcommand{{\\{name}}}{{{text}}}\n" for name, text in macros.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return command.alone(
        "Make the numbers that the write-up takes from the committed results.",
        lambda: write_text(PAGE, render()),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
