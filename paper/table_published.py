"""Table 5: published results on ImageNet with their sources, and our own of the same data."""

import string

import pandas as pd

from paper.reader.results import Results, read_published
from paper.statistics import mean
from paper.table_formats import Cells, Table, made
from paper.table_main import main_results
from paper.wording import ABSENT, fixed, number


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
    return made(
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
            networks = [results.base[csv["model"], seed].test_top5 for seed in results.seeds]
        else:
            final = results.final[csv["model"], csv["method"], csv["budget"]]
            networks = [trained.test_top5 for trained in final.values()]
        top5 = mean(networks).value
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
