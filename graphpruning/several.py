"""Several networks of one run side by side: a table, and a picture of what accuracy costs."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from graphpruning.common.files import atomic, write_json, write_text
from graphpruning.goals import Goal

PICTURE = "accuracy.png"
FOUND, WHOLE, INK = "#0072B2", "#D55E00", "#202020"


def summarise(
    out: Path, goals: Sequence[Goal], reports: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write `report.md`, `report.json` and the picture to `out`; return the report.

    `reports` are those of the goals. The latency of the whole network is the one measured beside
    the first found one.
    """
    networks = [
        {
            "budget": goal.budget.name,
            "folder": goal.out.name,
            **report["after"],
            "search_top1": report["search_top1"],
            "time_budget": report.get("time_budget"),
        }
        for goal, report in zip(goals, reports, strict=True)
    ]
    settings = {
        key: value
        for key, value in reports[0]["settings"].items()
        if key not in ("budget_macs", "budget_ms")
    }
    result = {
        "before": reports[0]["before"],
        "networks": networks,
        "latency": reports[0]["latency"],
        "settings": settings,
    }
    _draw(result, out / PICTURE)
    write_text(out / "report.md", _markdown(result))
    write_json(out / "report.json", result)
    return result


def _markdown(result: Mapping[str, Any]) -> str:
    settings, whole, where = result["settings"], result["before"], result["latency"]
    network = settings["network"]
    lines = [
        f"# {network.get('name') or network['function']}, pruned by {settings['method']}",
        "",
        "| budget | top-1 (%) | MACs | of the whole | parameters | latency (ms) | folder |",
        "| :-- | --: | --: | --: | --: | --: | :-- |",
        _row("whole network", whole, whole, ""),
        *(
            _row(each["budget"], each, whole, f"[{each['folder']}]({each['folder']}/report.md)")
            for each in result["networks"]
        ),
        "",
        f"![Accuracy against MACs and against latency]({PICTURE})",
        "",
        f"Accuracy is that on the test images, latency that of a batch of {where['batch']}, on "
        f"{where['device']}. The report in each folder says where its numbers come from; one "
        "training of each network decides little between neighbours.",
    ]
    for each in result["networks"]:
        if timed := each["time_budget"]:
            after = timed["after"]
            lines.append(
                f"Budget {each['budget']}: {after['estimate_ms']:.3f} ms by the table of layers, "
                f"{after['measured_ms']:.3f} ms measured; its error is {100 * after['error']:+.1f} "
                "%."
            )
    return "\n".join(lines) + "\n"


def _row(name: str, network: Mapping[str, Any], whole: Mapping[str, Any], folder: str) -> str:
    top1 = "—" if network["top1"] is None else f"{network['top1']:.2f}"
    share = network["macs"] / whole["macs"]
    return (
        f"| {name} | {top1} | {network['macs']:,} | {share:.3f} | {network['params']:,} | "
        f"{network['latency_ms']:,.2f} | {folder} |"
    )


def _draw(result: Mapping[str, Any], path: Path) -> None:
    """Two panels: test accuracy against MACs, and against latency."""
    import matplotlib as mpl  # nearly a second, which one budget does without
    from matplotlib.figure import Figure

    where = result["latency"]
    axes_of = {
        "macs": (1e6, "MACs (millions)"),
        "latency_ms": (1.0, f"latency of a batch of {where['batch']} (ms)"),
    }
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8}):
        figure = Figure(figsize=(7.0, 2.8), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (key, (scale, label)) in zip(panels, axes_of.items(), strict=True):
            rows = sorted(result["networks"], key=itemgetter(key))
            x = [each[key] / scale for each in rows]
            y = [each["top1"] for each in rows]
            axes.plot(x, y, "o-", color=FOUND, markersize=5, linewidth=1, label="found networks")
            for at, each in zip(zip(x, y, strict=True), rows, strict=True):
                axes.annotate(
                    each["budget"], at, (0, 6), textcoords="offset points", ha="center", color=INK
                )
            whole = result["before"]
            if whole["top1"] is not None:
                at = whole[key] / scale
                axes.plot([at], [whole["top1"]], "s", color=WHOLE, label="whole network")
            axes.set_xlabel(label)
            axes.margins(0.12, 0.2)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.3, linewidth=0.5)
        panels[0].set_ylabel("test top-1 (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
        with atomic(path) as beside:
            figure.savefig(beside, dpi=200, metadata={"Software": "graphpruning.several"})
