"""Tables 1 to 5 as CSV, Markdown and LaTeX: `python -m paper.tables results/STUDY`.

The CSV holds plain numbers with fixed decimals, an empty cell where there is none; the other two
hold the same numbers for people. Every file is byte-identical on every run.
"""

import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from graphpruning.common.files import write_text
from paper import command, measures
from paper.captions import CONDITIONINGS, Caption, budget_amount, budget_name, captions, origin
from paper.results import GIVEN, Results, Row, read_published
from paper.statistics import Estimate, mean, means, medians
from paper.wording import ABSENT, fixed, interval, joined, number, plus_minus

DISTANCES: dict[str, tuple[int, int | None]] = {
    "1": (1, 1),
    "2": (2, 2),
    "3": (3, 3),
    "4": (4, 4),
    "5 or more": (5, None),
}
NOWHERE = Estimate(float("nan"), float("nan"), float("nan"), 0)

Cells = dict[str, str]


@dataclass(frozen=True)
class Table:
    """`csv` for machines and `shown` for people have the same rows, all cells as text.

    `stages` names the runs behind each row, where each row has its own.
    """

    name: str
    csv: pd.DataFrame
    shown: pd.DataFrame
    notes: tuple[str, ...] = ()
    stages: tuple[tuple[str, ...], ...] = ()


def tables(results: Results) -> list[Table]:
    """All five, in their order; of a study without methods the first, if that can be made."""
    made = [correlation(results)] if results.compared else []
    if results.rows:
        made += [
            generated_weights(results),
            main_results(results),
            ablations(results),
            imagenet(results),
        ]
    return made


def _table(name: str, rows: list[tuple[Cells, Cells]], *notes: str) -> Table:
    csv, shown = pd.DataFrame([row[0] for row in rows]), pd.DataFrame([row[1] for row in rows])
    if "Model" in shown and shown["Model"].nunique() == 1:  # the caption names it
        shown = shown.drop(columns="Model")
    return Table(name, csv, shown, notes)


def _spread(name: str, estimate: Estimate, digits: int) -> Cells:
    """The three cells of an estimate: NAME, NAME_low, NAME_high."""
    return {
        name: fixed(estimate.value, digits),
        f"{name}_low": fixed(estimate.low, digits),
        f"{name}_high": fixed(estimate.high, digits),
    }


def correlation(results: Results) -> Table:
    """Table 1: how much of a deeper channel the former layer explains."""
    rows = []
    names = [network.model for network in results.compared]
    for judged in results.compared:
        kinds = judged.correlation.channels[["network", "pair"]].drop_duplicates()
        for network, pair in kinds.itertuples(index=False):
            frame = measures.channels(judged.correlation, network, pair)
            r2 = measures.clusters(frame)
            shares = {t: measures.share_over(frame, t) for t in measures.THRESHOLDS}
            middle = r2.estimate(medians)
            match = measures.clusters(frame, "best_match").estimate(medians)
            csv = {
                "study": judged.study,
                "model": judged.model,
                "network": network,
                "pair": pair,
                "layers": str(middle.n),
                "channels": str(len(frame)),
            }
            shown = {
                "Model": judged.model if names.count(judged.model) == 1 else judged.label,
                "Network": network,
                "Layers of": measures.PAIRS[pair],
                "Channels": f"{len(frame):,}",
            }
            for threshold, share in shares.items():
                csv |= _spread(f"share_over_{threshold}", share, 4)
                shown[f"R² > {threshold} (%)"] = interval(share.scaled(100), 0)
            csv |= _spread("r2_median", middle, 4) | _spread("best_match_median", match, 4)
            shown |= {"Median R²": interval(middle, 2), "Best match": interval(match, 2)}
            rows.append((csv, shown))
    notes = [f"{network.label}: {origin(network)}." for network in results.networks]
    return _table("table1_correlation", rows, *notes)


def generated_weights(results: Results) -> Table:
    """Table 2: accuracy with generated weights, and whether it ranks candidates."""
    rows = []
    for model in results.models:
        for conditioning in results.analysed:
            net = results.pruningnet[model, conditioning]
            tau = measures.rank_correlation(results, model, conditioning)
            csv = {
                "model": model,
                "conditioning": conditioning,
                "generator_params": str(net.params),
                "top1_full_before_recalibration": fixed(net.before_recalibration, 3),
                "top1_full": fixed(net.full, 3),
                "top1_quarter_width": fixed(net.quarter, 3),
            }
            shown = {
                "Model": model,
                "Conditioning": CONDITIONINGS[conditioning],
                "Before": number(net.before_recalibration, 1),
                "Full": number(net.full, 1),
                "¼ width": number(net.quarter, 1),
            }
            for position, size in enumerate(measures.by_size(results, model, conditioning), 1):
                csv |= _spread(f"top1_macs_quarter{position}", size, 3)
                shown[f"MACs {position}/4"] = plus_minus(size, 1)
            csv |= _spread("tau", tau, 4) | {"tau_candidates": str(tau.n)}
            shown |= {"τ": interval(tau, 2), "n": str(tau.n)}
            rows.append((csv, shown))
    return _table(
        "table2_generated_weights", rows, "n: candidates that were also trained from scratch."
    )


def main_results(results: Results) -> Table:
    """Table 3: final accuracy, cost of the network and cost of the search."""
    rows = []
    stages = []
    for model in results.models:
        base = results.base[model]
        keys = [(row.name, budget) for budget in results.budgets for row in results.rows.values()]
        for method, budget in [("base", "1.0"), *keys]:
            if method == "base":
                label, top1, searched = "base network", mean([base.test_top1]), (0.0, 0.0, 0.0)
                macs, params = float(base.macs), float(base.params)
                runs = [base.run]
            else:
                search = results.search[model, method, budget]
                final = results.final[model, method, budget]
                label = results.rows[method].label
                top1 = mean(list(results.test_top1(model, method, budget).values()))
                macs = _mean([trained.macs for trained in final.seeds.values()])
                params = _mean([trained.params for trained in final.seeds.values()])
                found = search.seeds.values()
                searched = (
                    _mean([one.evaluations for one in found]),
                    _mean([one.seconds for one in found]),
                    _mean([one.images_seen for one in found]),
                )
                runs = [*search.runs.values(), *final.runs.values()]
            evaluations, seconds, images = searched
            csv = {
                "model": model,
                "method": method,
                "budget": budget,
                "macs": fixed(macs, 0),
                "macs_ratio": fixed(macs / base.macs, 4),
                "params": fixed(params, 0),
                **_spread("top1_mean", top1, 3),
                "seeds": str(top1.n),
                "evaluations": fixed(evaluations, 0),
                "search_seconds": fixed(seconds, 1),
                "images_seen": fixed(images, 0),
            }
            csv = {_MAIN_NAMES.get(column, column): cell for column, cell in csv.items()}
            shown = {
                "Model": model,
                "Method": label,
                "Budget": (ABSENT if method == "base" else budget_amount(results, budget, model)),
                "Top-1 (%)": interval(top1, 2),
                "Seeds": str(top1.n),
                "MACs (M)": number(macs / 1e6, 2),
                "MACs (%)": number(100 * macs / base.macs, 1),
                "Params (k)": number(params / 1e3, 1),
                "Evaluations": number(evaluations, 0),
                "Search (s)": number(seconds, 1),
                "Images": number(images, 0),
            }
            rows.append((csv, shown))
            stages.append(tuple(dict.fromkeys(run.stage for run in runs)))
    table = _table("table3_main", rows, _not_counted(results), *_given(results))
    return Table(table.name, table.csv, table.shown, table.notes, tuple(stages))


_MAIN_NAMES = {"top1_mean_low": "top1_low", "top1_mean_high": "top1_high"}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _not_counted(results: Results) -> str:
    """What the search leaves out: the networks that its candidates' weights come from."""
    nets = [(CONDITIONINGS[name], net.run) for (_, name), net in results.pruningnet.items()]
    bases = [
        (f"the base {model}, which AMC cuts", base.run) for model, base in results.base.items()
    ]
    trained = [
        f"{name}: {number(run.images_seen, 0)} images and {number(run.seconds, 0)} s"
        for name, run in nets + bases
    ]
    return (
        "Not counted in the search: training the PruningNets and the base network "
        f"({'; '.join(trained)})."
    )


def _given(results: Results) -> list[str]:
    """Which rows were not measured here."""
    files: dict[str, list[str]] = {}
    for row in results.of_kind(GIVEN):
        files.setdefault(row.searcher, []).append(row.label)
    return [f"{joined(labels)}: as given in {file}." for file, labels in files.items()]


def differences(results: Results) -> Table:
    """Ours minus each other method in final test accuracy, paired by seed, per budget."""
    rows = []
    ours = results.ours
    for model in results.models:
        for row in results.rows.values():
            if row.name == ours.name:
                continue
            csv = {"model": model, "method": row.name}
            shown = {"Model": model, f"{ours.label} minus": row.label}
            for budget in results.budgets:
                found = measures.test_difference(results, model, row.name, [budget])
                csv |= _spread(f"difference_{budget}", found, 3)
                shown[budget_name(results, budget)] = interval(found, 2, sign=True)
            overall = measures.test_difference(results, model, row.name, results.budgets)
            csv |= _spread("difference", overall, 3) | {"seeds": str(overall.n)}
            shown |= {"All budgets": interval(overall, 2, sign=True), "Seeds": str(overall.n)}
            rows.append((csv, shown))
    return _table("paired_differences", rows)


def ablations(results: Results) -> Table:
    """Table 4: what aggregation sees (C2), and what an ablation costs in accuracy (C2, C4).

    A method that was given beside the study's stands below its ablations.
    """
    rows = []
    for model in results.models:
        rows += _influence(results, model)
        for row in [results.ours, *results.of_kind("ablation"), *results.of_kind(GIVEN)]:
            for budget in results.budgets:
                rows += _accuracies(results, model, row, budget)
    return _table("table4_ablations", rows, *_given(results))


def _influence(results: Results, model: str) -> list[tuple[Cells, Cells]]:
    """Movement by distance; the difference is our conditioning's minus the row's."""
    ours = results.ours.source
    conditionings = list(results.generated[model].influence["conditioning"].unique())
    rows = []
    for distance, (nearest, farthest) in DISTANCES.items():
        for conditioning in conditionings:
            moved = measures.movement(results, model, conditioning, nearest, farthest)
            if not moved.groups:
                continue
            difference = NOWHERE
            if ours in conditionings and conditioning != ours:
                with_edges = measures.movement(results, model, ours, nearest, farthest)
                difference = with_edges.difference(moved, means)
            rows.append(
                _ablation(
                    model,
                    ("influence", conditioning, CONDITIONINGS[conditioning]),
                    (f"distance {distance}", f"{distance} edge{'s' * (distance != '1')} away"),
                    ("movement", "movement (%)"),
                    moved.estimate(means),
                    difference,
                )
            )
    return rows


def _accuracies(results: Results, model: str, row: Row, budget: str) -> list[tuple[Cells, Cells]]:
    """Search and final accuracy of a method; the difference is ours minus its own."""
    own = row.name == results.ours.name
    where = (f"budget {budget}", budget_name(results, budget, model))
    variant = ("accuracy", row.name, row.label)
    found = mean(list(results.search_top1(model, row.name, budget).values()))
    final = mean(list(results.test_top1(model, row.name, budget).values()))
    search_difference = final_difference = NOWHERE
    if not own:
        final_difference = measures.test_difference(results, model, row.name, [budget])
        if measures.same_weights(results, row):
            search_difference = measures.search_difference(results, model, row.name, [budget])
    return [
        _ablation(
            model,
            variant,
            where,
            ("top1_search", f"search {results.reward}"),
            found,
            search_difference,
        ),
        _ablation(model, variant, where, ("top1_test", "test top-1"), final, final_difference),
    ]


def _ablation(
    model: str,
    variant: tuple[str, str, str],
    where: tuple[str, str],
    quantity: tuple[str, str],
    estimate: Estimate,
    difference: Estimate,
) -> tuple[Cells, Cells]:
    """A row of Table 4; pairs are the name for machines and the name for people."""
    part, name, label = variant
    csv = {
        "model": model,
        "part": part,
        "variant": name,
        "at": where[0],
        "quantity": quantity[0],
        **_spread("mean", estimate, 4),
        **_spread("difference", difference, 4),
        "n": str(estimate.n),
    }
    scale, digits = (100, 1) if part == "influence" else (1, 2)
    shown = {
        "Model": model,
        "Variant": label,
        "At": where[1],
        "Quantity": quantity[1],
        "Mean": interval(estimate.scaled(scale), digits),
        "Difference": interval(difference.scaled(scale), digits, sign=True),
        "n": str(estimate.n),
    }
    return csv, shown


def imagenet(results: Results) -> Table:
    """Table 5: published rows with their source; our own where the study's data has such rows."""
    published = read_published()
    marks = _marks(published["note"])
    sources = list(published["source"].unique())
    rows: list[tuple[Cells, Cells]] = []
    for row in published.to_dict("records"):
        csv = {column: row[column] for column in _PUBLISHED}
        shown = {
            "Network": row["model"],
            "Data": row["dataset"],
            "Method": row["method"],
            "Setting": row["setting"] + marks.get(row["note"], ""),
            "Top-1 (%)": row["top1"] or ABSENT,
            "Top-5 (%)": row["top5"] or ABSENT,
            "MACs (M)": row["macs_m"] or ABSENT,
            "Source": str(sources.index(row["source"]) + 1),
        }
        rows.append((csv, shown))
    if results.data in set(published["dataset"]):
        rows += _own(results)
    listed = [f"{position}: {source}" for position, source in enumerate(sources, 1)]
    notes = [f"{mark.strip()}: {note}" for note, mark in marks.items()]
    return _table(
        "table5_imagenet",
        rows,
        f"{ABSENT}: the source gives no number.",
        f"Sources. {'; '.join(listed)}.",
        f"Notes. {'; '.join(notes)}.",
    )


_PUBLISHED = ("model", "dataset", "method", "setting", "top1", "top5", "macs_m", "source", "note")


def _marks(notes: "pd.Series[str]") -> dict[str, str]:
    """A footnote letter in brackets for each different note."""
    different = [note for note in notes.unique() if note]
    return {
        note: f" [{letter}]"
        for note, letter in zip(different, string.ascii_lowercase, strict=False)
    }


def _own(results: Results) -> list[tuple[Cells, Cells]]:
    """The rows of Table 3 in the columns of Table 5."""
    main = main_results(results)
    rows = []
    for csv, shown in zip(main.csv.to_dict("records"), main.shown.to_dict("records"), strict=True):
        if csv["method"] == "base":
            top5 = results.base[csv["model"]].test_top5
        else:
            final = results.final[csv["model"], csv["method"], csv["budget"]]
            top5 = _mean([trained.test_top5 for trained in final.seeds.values()])
        machine = {
            "model": csv["model"],
            "dataset": results.data,
            "method": csv["method"],
            "setting": csv["budget"],
            "top1": csv["top1_mean"],
            "top5": fixed(top5, 3),
            "macs_m": fixed(float(csv["macs"]) / 1e6, 1),
            "source": f"measured here, results/{results.name}",
            "note": "",
        }
        people = {
            "Network": csv["model"],
            "Data": results.data,
            "Method": shown["Method"],
            "Setting": shown["Budget"],
            "Top-1 (%)": number(float(csv["top1_mean"]), 2),
            "Top-5 (%)": number(top5, 2),
            "MACs (M)": machine["macs_m"],
            "Source": "here",
        }
        rows.append((machine, people))
    return rows


def to_csv(table: Table) -> str:
    """Plain numbers, a header line, line feeds."""
    return table.csv.to_csv(index=False, lineterminator="\n")


def to_markdown(table: Table, caption: Caption) -> str:
    """A pipe table under its caption, notes below."""
    rows = [table.shown.columns, [":--"] * len(table.shown.columns), *table.shown.to_numpy()]
    grid = "\n".join(f"| {' | '.join(map(_markdown_cell, cells))} |" for cells in rows)
    notes = "".join(f"\n{_markdown(note)}\n" for note in table.notes)
    return f"**{caption.label}.** {_markdown(caption.text)}\n\n{grid}\n{notes}"


def _markdown(text: str) -> str:
    """`text` for Markdown, where `<` would begin a tag of HTML."""
    return text.replace("<", "&lt;")


def _markdown_cell(text: str) -> str:
    """The same for a cell of a table, which ends at a bare `|`."""
    if "|" in text:  # a backslash before it would take the escaping away
        text = text.replace("\\", "\\\\").replace("|", "\\|")
    return _markdown(text)


def to_latex(table: Table, caption: Caption) -> str:
    """A `table*` environment for any document that loads booktabs."""
    body = (
        table.shown.style.hide(axis="index")
        .format(escaped)
        .format_index(escaped, axis="columns")
        .to_latex(
            hrules=True,
            environment="table*",
            position="tb",
            position_float="centering",
            column_format="".join("r" if numeric(table.shown[c]) else "l" for c in table.shown),
            caption=escaped(caption.text),
            label=f"tab:{table.name}",
        )
    )
    characters = sum(max(map(len, [str(c), *table.shown[c]])) for c in table.shown)
    size = "footnotesize" if characters <= _FOOTNOTESIZE else "scriptsize"
    setting = f"\\centering\n\\{size}\n\\setlength{{\\tabcolsep}}{{3.5pt}}\n"
    notes = "".join(f"\\par {escaped(note)}\n" for note in table.notes)
    end = "\\end{table*}"
    return body.replace("\\centering\n", setting).replace(end, notes + end)


_FOOTNOTESIZE = 112
"""Characters in a row that fit on a 7 in wide page at that size."""


def numeric(cells: "pd.Series[str]") -> bool:
    """Whether a shown column holds numbers and em dashes, so that it aligns right."""
    return bool(cells.str.fullmatch(r"[+−]?[\d.,]+( \[[^\]]*\]| ± [\d.,]+)?|—").all())


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "[": "{[}",  # after a line end LaTeX would take it for the optional argument
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "²": "$^2$",
    "¼": r"$\frac{1}{4}$",
    "τ": r"$\tau$",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
}


def escaped(text: object) -> str:
    """`text` for LaTeX: special characters and the symbols that we use."""
    return "".join(_LATEX.get(character, character) for character in str(text))


def write(results: Results) -> None:
    """Write every table into results/STUDY/tables."""
    words = captions(results)
    for table in tables(results):
        path = results.path / "tables" / table.name
        write_text(path.with_suffix(".csv"), to_csv(table))
        write_text(path.with_suffix(".md"), to_markdown(table, words[table.name]))
        write_text(path.with_suffix(".tex"), to_latex(table, words[table.name]))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return command.run("Make tables 1 to 5 from a study's results.", write, argv)


if __name__ == "__main__":
    sys.exit(main())
