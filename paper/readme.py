"""What README and docs/ show of the results: `python -m paper.readme` writes it.

README's first picture is docs/effects.png. A part stands between `<!-- NAME -->` and
`<!-- /NAME -->`. Numbers there are made, not typed: a test holds the pages to the committed
results.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context

from graphpruning.common.errors import UserError
from graphpruning.common.files import read_text, write_text
from paper import channel_bench, command, measures
from paper.captions import budget_amount, how_often, spread, ways
from paper.claims import SHORT, Claim, claims
from paper.figure_effects import across
from paper.figure_style import STYLE, save
from paper.reader.results import Results, read
from paper.rule import EQUIVALENT, IN_PART, MATTERS, UNDECIDED, UNTESTED
from paper.statistics import mean, paired
from paper.table_generated import collapses
from paper.verdicts import COMMITTED
from paper.wording import ABSENT, counted, interval, joined, number

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/effects.png"
PLUS = "graphpruning-plus"
DRAWING = ("random", "frozen")
"""Rows whose candidates are what their way to draw gives."""


def accuracies(results: Results) -> str:
    """Test accuracy of every method at every budget, of the study's first model."""
    model = results.models[0]
    base = measures.base_top1(results, model)
    macs = results.network(model).macs
    budgets = [budget_amount(results, budget, model) for budget in results.budgets]
    lines = [
        ["Method", *(f"Top-1 at {budget} of MACs" for budget in budgets)],
        [":--"] * (1 + len(budgets)),
        [f"base network, {macs / 1e6:.1f}M MACs", *([interval(base, 1)] * len(budgets))],
    ]
    for row in results.rows.values():
        found = [
            interval(measures.test_top1(results, model, row.name, budget), 1)
            for budget in results.budgets
        ]
        lines.append([row.label, *found])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"Test accuracy in percent: {spread(results)}.\n\n{table}"


def verdicts(results: Results) -> str:
    """The five claims and what this study says of each; how networks were trained."""
    said = [f"{one.id} ({SHORT[one.id]}) **{one.verdict}**" for one in claims(results)]
    return (
        "The five claims that we read in the paper's abstracts, in this study: "
        f"{'; '.join(said)}. A found network is trained for {ways(results)}, "
        f"{how_often(results)}. {results.rows[PLUS].label} begins with the base's "
        f"weights and has a teacher; where all begin with these weights, it has {_ahead(results)}. "
        f"In the table above the other methods lie within {number(_spread(results), 1)} points of "
        "each other at either budget."
    )


def _spread(results: Results) -> float:
    """Between the best and the worst method but plus, at the budget where that is most."""
    model, names = results.models[0], [name for name in results.rows if name != PLUS]
    tops = [
        [measures.test_top1(results, model, name, budget).value for name in names]
        for budget in results.budgets
    ]
    return max(max(of_budget) - min(of_budget) for of_budget in tops)


def lead(results: Results) -> str:
    """What GraphPruning plus wins by where all methods begin with the base's weights."""
    return (
        f"What {results.rows[PLUS].label} wins: where all methods train the found network from the "
        f"base's weights, as `prune` does with `--weights`, it has {_ahead(results)} "
        f"({spread(results)}; [Table 3b](results.md)). In README's table, where the others begin "
        "from scratch and all are trained for longer, it has more."
    )


def _ahead(results: Results) -> str:
    """Plus minus ours at each budget, where both begin with the base's weights."""
    second, model = results.second, results.models[0]
    if second is None:
        raise UserError(f"{results.path} has no second kind of final training")
    said = []
    for budget in results.budgets:
        plus, ours = (second.test_top1(model, each, budget) for each in (PLUS, results.ours.name))
        amount = budget_amount(results, budget, model)
        said.append(f"{interval(paired(plus, ours), 1, sign=True)} points at {amount} of MACs")
    return f"{joined(said)} over {results.ours.label}"


def drawn(results: Results) -> str:
    """The mean candidates of the rows in `DRAWING`, which differ in how they draw."""
    model = results.models[0]
    said = []
    for budget in results.budgets:
        tops = [
            mean(
                [one.history["top1"].mean() for one in results.search[model, name, budget].values()]
            )
            for name in DRAWING
        ]
        at = budget_amount(results, budget, model)
        said.append(f"{joined([number(top.value, 1) for top in tops])} % at {at} of MACs")
    labels = joined([results.rows[name].label for name in DRAWING])
    return (
        "With weights generated by the same PruningNets, the mean candidates of "
        f"{counted(len(results.seeds), 'replicate')} of `{results.name}` have, by {labels}, "
        f"{joined(said)}."
    )


def unconditioned(results: Results) -> str:
    """Whether random networks have anything of weights generated for them, as an item of a list."""
    model, source = results.models[0], results.ours.source
    each = [measures.minus_constant(results, model, source, seed) for seed in results.seeds]
    below = sum(one < 0 for one in each)
    return (
        "- C2: the accuracy of random networks with weights generated from the graph, minus that "
        "with one set of weights for all widths (`constant`; [Table "
        f"2b](../results/{results.name}/tables/table2_conditioning.md), *minus constant*), is "
        f"{interval(mean(each), 2, sign=True)} points over {counted(len(each), 'replicate')}, and "
        f"below zero in {below} of them."
    )


def aggregators(results: Results) -> str:
    """What each aggregator's features tell of far widths, and what was found with it."""
    model, ours = results.models[0], results.ours
    amounts = [budget_amount(results, budget, model) for budget in results.budgets]
    head = ["Aggregator", "R² of far widths", "before training", "Features vary (%)"]
    head += ["Weights vary (%)", "Right − shuffled", *(f"Top-1 (%), {one}" for one in amounts)]
    head += [f"Minus {ours.label}"]
    lines = [head, [":--"] * len(head)]
    for row in results.rows.values():
        net, far = row.source, measures.FAR
        told = [measures.probe(results, model, net, one, far) for one in ("trained", "untrained")]
        vary = [
            mean([measures.variation(results, model, net, seed, kind) for seed in results.seeds])
            for kind in ("feature_variation", "weight_variation")
        ]
        tops = [measures.test_top1(results, model, row.name, one) for one in results.budgets]
        minus = ABSENT
        if row is not ours:
            differs = measures.test_difference(
                results, model, ours.name, results.budgets, of=row.name
            )
            minus = interval(differs, 2, sign=True)
        lines.append(
            [
                row.label,
                *(interval(one, 2) if one else ABSENT for one in told),
                *(number(100 * one.value, 1) for one in vary),
                interval(measures.right_minus_shuffled(results, model, net), 2, sign=True),
                *(interval(top, 2) for top in tops),
                minus,
            ]
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    died = " ".join(collapses(results)) or "No aggregator collapsed in training."
    return f"{died} In percent and points: {spread(results)}.\n\n{table}"


def table3(results: Results) -> str:
    """The main table, as the study's results have it."""
    return read_text(results.path / "tables/table3_main.md", "the stage tables").strip()


def table3b(results: Results) -> str:
    """The main table of the other final training."""
    return read_text(results.path / "tables/table3b_second.md", "the stage tables").strip()


def says(results: Results) -> str:
    """What the runs say, for someone who reads of all this for the first time."""
    model, budget = results.models[0], results.budgets[-1]
    ours = interval(measures.test_top1(results, model, results.ours.name, budget), 1)
    whole = interval(measures.base_top1(results, model), 1)
    longest = max(results.base[model, seed].epochs for seed in results.seeds)
    others = [
        measures.test_top1(results, model, row.name, budget).value
        for row in results.of_kind("baseline")
    ]
    judged = claims(results)
    verdicts = [claim.verdict for claim in judged]
    counts = [f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts)]
    return (
        f"**So far:** of {results.title}, {results.ours.label} finds a network with "
        f"{budget_amount(results, budget, model)} of the computation that, trained for "
        f"{ways(results)}, labels {ours} % of test images correctly (the baselines' networks, "
        f"trained alike: {number(min(others), 1)} to {number(max(others), 1)} %; the whole "
        f"network, after {counted(longest, 'epoch')}: {whole} %).\n\nOf the "
        f"{len(judged)} claims that we read in the paper's abstracts the verdicts after "
        f"{counted(len(results.seeds), 'replicate')} are: "
        f"{joined(counts)}.{_decided(judged)}{_of_learning(results)}"
    )


def _of_learning(results: Results) -> str:
    """What the agent's learning adds to the accuracy, so how much this tells of its states."""
    frozen = measures.never_learns(results)
    if frozen is None:
        return ""
    model = results.models[0]
    adds = measures.test_difference(results, model, frozen.name, results.budgets)
    said = f"{interval(adds, 2, sign=True)} points over an {frozen.label}"
    if adds.low <= 0 <= adds.high:
        return (
            " Final accuracy cannot tell good states from bad ones here, though: with all of its "
            f"learning the agent has {said}."
        )
    return f" All that the agent's learning adds to the accuracy is {said}."


def _decided(judged: Sequence[Claim]) -> str:
    """The claims that are decided, in their own words."""
    within = f"the 90 % interval of each difference in accuracy lies within ± {MATTERS} points"
    words = {
        EQUIVALENT: f"{EQUIVALENT}, neither better nor worse ({within}; the picture has 95 % ones)",
        IN_PART: f"{IN_PART}, better than some and equivalent to the others",
    }
    said = [
        f"*{claim.statement.rstrip('.')}*: {words.get(claim.verdict, claim.verdict)}"
        for claim in judged
        if claim.verdict not in (UNDECIDED, UNTESTED)
    ]
    return f" Decided: {'; '.join(said)}." if said else ""


def truth_tables(root: Path) -> str:
    """Tables 7 and 8, as channel-bench's results have them."""
    folder = root / "results" / channel_bench.STUDY / "tables"
    return "\n\n".join(
        read_text(folder / f"{name}.md", "make channel-bench").strip()
        for name in ("table7_agreement", "table8_true_searches")
    )


PARTS: dict[str, dict[str, tuple[str, Callable[[Results], str]]]] = {
    "README.md": {
        "says": ("fashion", says),
        "accuracies": ("fashion", accuracies),
        "verdicts": ("fashion", verdicts),
    },
    "docs/prune.md": {"lead": ("fashion", lead)},
    "paper/differences.md": {"drawn": ("fashion", drawn)},
    "docs/results.md": {
        "unconditioned": ("fashion", unconditioned),
        "fashion": ("fashion", table3),
        "second": ("fashion", table3b),
        "aggregators": ("aggregators", aggregators),
        "desk": ("desk", table3),
    },
}
"""By page and mark: whose results are quoted, and how."""
OF_TRUTH: dict[str, dict[str, Callable[[Path], str]]] = {
    "docs/results.md": {"truth": truth_tables},
}
"""The same for what channel-bench says."""


def filled(page: Path, parts: dict[str, str]) -> str:
    """The page's text with each part between its marks; `UserError` for a mark that is missing."""
    text = read_text(page, "git")
    for name, part in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise UserError(f"{page} lacks the marks <!-- {name} --> and <!-- /{name} -->")
        text = f"{before}{start}{part}\n{end}{after}"
    return text


def render(root: Path = ROOT) -> dict[Path, str]:
    """Every page as the results make it."""
    studies = {study for parts in PARTS.values() for study, _ in parts.values()}
    results = {study: read(root / "results" / study) for study in studies}
    return {
        root / page: filled(
            root / page,
            {name: make(results[study]) for name, (study, make) in parts.items()}
            | {name: make(root) for name, make in OF_TRUTH.get(page, {}).items()},
        )
        for page, parts in PARTS.items()
    }


def picture(path: Path, root: Path = ROOT) -> None:
    """Draw what README opens with: the committed studies that compare us with baselines, those of
    several replicates if there are any.
    """
    committed = [read(root / "results" / name) for name in COMMITTED]
    studies = [one for one in committed if one.of_kind("baseline")]
    repeated = [one for one in studies if len(one.seeds) > 1]
    with rc_context(STYLE):
        save(across(repeated or studies), path, (path.suffix,))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""

    def write() -> None:
        picture(PICTURE)
        for page, text in render().items():
            write_text(page, text)

    return command.alone("Fill in the measured parts of README and docs.", write, argv)


if __name__ == "__main__":
    sys.exit(main())
