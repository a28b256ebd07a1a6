"""Table 5: published results on ImageNet with their sources, and our own of the same data."""

import string

import pandas as pd

from paper.reader.results import Results, read_published, read_published_counts
from paper.statistics import mean
from paper.table_formats import Cells, Table, made
from paper.table_main import main_results
from paper.wording import ABSENT, fixed, number


def imagenet(results: Results) -> Table:
    """Table 5: published rows with their source; our own where the study's data has such rows.

    Cost is what the source prints, and what our counter says of the channel list where it is
    public.
    """
    published, counts = read_published(), read_published_counts()
    marks = _marks(published["note"])
    sources = list(published["source"].unique())
    rows: list[tuple[Cells, Cells]] = []
    for row in published.to_dict("records"):
        listed = row["architecture"] in counts.index
        cost = counts.loc[row["architecture"]] if listed else {"macs": "", "params": ""}
        csv = {**row, "macs_counted": cost["macs"], "params_counted": cost["params"]}
        shown = {
            "Network": row["model"],
            "Data": row["dataset"],
            "Method": row["method"],
            "Setting": row["setting"] + marks.get(row["note"], ""),
            "Top-1 (%)": row["top1"] or ABSENT,
            "Top-5 (%)": row["top5"] or ABSENT,
            **_cost(row["macs_m"], cost["macs"], row["params_m"], cost["params"]),
            "Source": str(sources.index(row["source"]) + 1),
        }
        rows.append(({column: csv[column] for column in _COLUMNS}, shown))
    if results.data in set(published["dataset"]):
        rows += _own(results)
    numbered = [f"{position}: {source}" for position, source in enumerate(sources, 1)]
    notes = [f"{mark.strip()}: {note}" for note, mark in marks.items()]
    return made(
        "table5_imagenet",
        rows,
        f"{ABSENT}: the source gives no number, or its repository no channel list to count.",
        "Parameters are in millions. Ours: multiply-accumulates of convolution and linear layers "
        "(ImageNet: at 224 pixels), and all parameters, batch normalisation's among them. Printed "
        "numbers are rounded, may name the budget that was asked for, or count other layers too. "
        "The lists and their sources are in paper/published_widths.csv.",
        f"Sources. {'; '.join(numbered)}.",
        f"Notes. {'; '.join(notes)}.",
    )


_COLUMNS = (
    *("model", "dataset", "method", "setting", "top1", "top5", "macs_m", "macs_counted"),
    *("params_m", "params_counted", "architecture", "source", "note"),
)


def _cost(macs_m: str, macs: str, params_m: str, params: str) -> Cells:
    """The cells of cost for people: as printed, in millions, and as counted."""
    return {
        "MACs (M)": macs_m or ABSENT,
        "MACs, ours": number(int(macs) / 1e6, 1) if macs else ABSENT,
        "Params": params_m or ABSENT,
        "Params, ours": number(int(params) / 1e6, 2) if params else ABSENT,
    }


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
            "macs_m": "",
            "macs_counted": fixed(float(csv["macs"]), 0),
            "params_m": "",
            "params_counted": fixed(float(csv["params"]), 0),
            "architecture": "",
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
            **_cost("", machine["macs_counted"], "", machine["params_counted"]),
            "Source": "here",
        }
        rows.append((machine, people))
    return rows
