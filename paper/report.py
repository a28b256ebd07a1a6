"""One self-contained page of a study: `python -m paper.report results/STUDY`.

Claims and verdicts come first, then the main results, tables, figures, and the run behind each
number. Every number is computed from the results; figures are those that `paper.figures` made.
"""

import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from urllib.parse import quote

from graphpruning.common.errors import UserError
from graphpruning.common.files import read_json, write_text
from paper import claims, command, rule
from paper.captions import Caption, budget_name, captions, origin
from paper.claims import representable
from paper.figure_style import DPI
from paper.figures import drawn
from paper.pages import template
from paper.reader.contents import Run
from paper.reader.results import Results
from paper.table_formats import Table, numeric
from paper.table_generated import collapses
from paper.table_main import differences
from paper.tables import tables
from paper.wording import counted, joined, number

_PIXELS_PER_INCH = 130
"""How large a figure stands on the page: its 7 pt text becomes about 13 pixels high."""


@dataclass(frozen=True)
class _Cell:
    text: str
    numeric: bool


@dataclass(frozen=True)
class _Row:
    """`exact` holds every number of the row as its CSV file does; `runs` link to the runs."""

    cells: list[_Cell]
    exact: str
    runs: list[tuple[str, str]]


@dataclass(frozen=True)
class _TableOnPage:
    name: str
    headings: list[_Cell]
    rows: list[_Row]
    notes: tuple[str, ...]
    has_runs: bool


@dataclass(frozen=True)
class _FigureOnPage:
    name: str
    png: str
    width: int
    height: int


@dataclass(frozen=True)
class _Surroundings:
    """Hardware, precision, versions and commit that several runs share."""

    name: str
    hardware: str
    precision: str
    versions: str
    commit: str


_SIGNS = {
    rule.HOLDS: "✓",
    rule.IN_PART: "✓=",
    rule.EQUIVALENT: "=",
    rule.FAILS: "✗",
    rule.UNDECIDED: "?",
    rule.UNTESTED: "–",
}
"""What stands before a verdict."""


def render(results: Results) -> str:
    """The page as HTML."""
    figures = {name: _figure(results, name) for name in drawn(results)}
    words = captions(results)
    judged = claims.claims(results)
    around = _surroundings(results.runs)
    return template("report.html.jinja", autoescape=True).render(
        title=results.title,
        summary=_summary(results, judged),
        claims=judged,
        signs=_SIGNS,
        labels={name: caption.label for name, caption in words.items()},
        captions=words,
        tables={table.name: _on_page(table) for table in tables(results)},
        differences=_on_page(differences(results)) if results.rows else None,
        differences_caption=_differences_caption(results) if results.rows else "",
        figures=figures,
        sources={name: _sources(results, caption) for name, caption in words.items()},
        runs=results.runs,
        architectures=_architectures(results),
        surroundings=list(around.values()),
        surroundings_of={run.stage: around[_key(run)].name for run in results.runs},
        records={run.stage: quote(run.record) for run in results.runs},
        parameters={run.stage: _parameters(results, run) for run in results.runs},
        number=number,
    )


def _summary(results: Results, judged: Sequence[claims.Claim]) -> list[str]:
    """What was run, on what, what came of it, and which aggregators died."""
    images = asdict(results.splits.images)
    splits = [f"{number(count, 0)} {split}" for split, count in images.items() if count]
    networks = "; ".join(
        f"{network.label}: {origin(network)}"
        for network in results.networks
        if network.study == results.name
    )
    of = (
        f"of GraphPruning (Zhang, Yu, Rong and Ou: Graph Pruning for Model Compression, arXiv "
        f"1911.09817) on {results.data} with {joined(results.models)}"
    )
    data = f"{results.splits.classes} classes, images: {joined(splits)}"
    if not results.rows:
        return [
            f"The first observation {of}, without pruning; {data}.",
            f"{networks}. {representable(results)}",
        ]
    budgets = joined([budget_name(results, budget) for budget in results.budgets])
    methods = f"{counted(len(results.rows), 'method')} at {budgets}"
    verdicts = claims.counted_verdicts(judged, str)
    return [
        f"A replication {of}: {methods}, {counted(len(results.seeds), 'replicate')}; {data}.",
        f"Of the paper's {len(judged)} claims, in these runs {verdicts}."
        + f" {_ONE_REPLICATE}" * (len(results.seeds) == 1),
        *collapses(results),
    ]


_ONE_REPLICATE = (
    "There is one replicate, so differences between final networks have no interval, and claims "
    "that rest on them are undecided; studies with several seeds: see docs/studies.md."
)


def _differences_caption(results: Results) -> str:
    ours = results.ours.label
    shared = (
        "mean over the replicates and trainings that both have, with the 95 % interval of the "
        "paired t-test, no narrower than the noise of single trainings makes it"
    )
    if len(results.seeds) == 1:
        shared = "one replicate, so no interval"
    return (
        f"Final test accuracy of {ours} minus that of each other method, in percentage points "
        f"({shared}). Above zero is better for {ours}. Over all budgets, methods that a claim "
        "compares at once (the baselines; without edges and with constant features) share one "
        "pooled error; p is two-sided and corrected by Holm over the baselines; what it says "
        "follows the rule of paper/claims.md, but better needs that correction as well as worse. "
        "P(better): probability that a network of "
        f"{ours} is better than one of the other method, mean over budgets (Agarwal et al., 2021)."
    )


_LINKS = {"train": "training", "search": "search", "finetune": "final"}
_AGAIN = "finetune_again"


def _on_page(table: Table) -> _TableOnPage:
    aligned = [numeric(table.shown[column]) for column in table.shown]
    exact = [
        ", ".join(f"{column} {cell}" for column, cell in row.items() if cell)
        for row in table.csv.to_dict("records")
    ]
    stages = table.stages or ((),) * len(exact)
    rows = [
        _Row(
            [_Cell(text, right) for text, right in zip(cells, aligned, strict=True)],
            whole,
            [(stage, _link(stage, runs)) for stage in runs],
        )
        for cells, whole, runs in zip(table.shown.to_numpy(), exact, stages, strict=True)
    ]
    headings = [
        _Cell(text, right) for text, right in zip(map(str, table.shown), aligned, strict=True)
    ]
    return _TableOnPage(table.name, headings, rows, table.notes, bool(table.stages))


def _link(stage: str, runs: tuple[str, ...]) -> str:
    """`search`, or `search 2` where several replicates have one; `again 2, 5` with its number."""
    word, _, items = stage.partition("@")
    if word == _AGAIN:
        return "again " + ", ".join(items.split("-")[-2:])
    several = sum(run.startswith(f"{word}@") for run in runs) > 1
    seed = items.rpartition("-")[2]
    return _LINKS[word.split("_")[0]] + f" {seed}" * several


def _figure(results: Results, name: str) -> _FigureOnPage:
    path = results.path / "figures" / f"{name}.png"
    if not path.is_file():
        raise UserError(
            f"{path} is missing: the stage figures makes it (python -m paper.figures "
            f"{results.path})"
        )
    png = path.read_bytes()
    # PNG's header holds width and height as big-endian integers at bytes 16 and 20.
    width, height = (
        int.from_bytes(png[at : at + 4], "big") * _PIXELS_PER_INCH // DPI for at in (16, 20)
    )
    return _FigureOnPage(name, base64.b64encode(png).decode("ascii"), width, height)


def _sources(results: Results, caption: Caption) -> list[str]:
    """Stages of the runs that an artefact is made from."""
    return [run.stage for run in results.runs if run.stage.startswith(caption.stages)]


def _parameters(results: Results, run: Run) -> str:
    """The configuration in the run's record, empty where no record was kept."""
    path = results.path / run.record / "config.json"
    if not path.is_file():
        return ""
    return json.dumps(read_json(path, f"the stage {run.stage}"), indent=1, ensure_ascii=False)


def _architectures(results: Results) -> dict[str, str]:
    """The architecture file of each final training."""
    return {
        final.run.stage: quote(f"{results.up}{final.architecture}")
        for by_seed in results.final.values()
        for final in by_seed.values()
        if final.run
    }


def _key(run: Run) -> str:
    shared = [asdict(run.hardware), run.precision, run.versions, run.commit, run.clean]
    return json.dumps(shared, sort_keys=True)


_DIGITS = 10
"""How much of a commit's hash is shown."""


def _commit(run: Run) -> str:
    """The commit that made a run's numbers; empty for older results, which do not name it."""
    if run.commit is None:
        return ""
    return f"commit {run.commit[:_DIGITS]}" + " with uncommitted changes" * (run.clean is False)


def _surroundings(runs: list[Run]) -> dict[str, _Surroundings]:
    found: dict[str, _Surroundings] = {}
    for run in runs:
        key = _key(run)
        if key not in found:
            parts = asdict(run.hardware).items()
            hardware = ", ".join(f"{what} {value}" for what, value in parts if value is not None)
            versions = ", ".join(f"{what} {value}" for what, value in run.versions.items())
            name = f"E{len(found) + 1}"
            found[key] = _Surroundings(name, hardware, run.precision, versions, _commit(run))
    return found


def write(results: Results) -> None:
    """Write results/STUDY/report.html."""
    write_text(results.path / "report.html", render(results))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return command.run("Make the report from a study's results.", write, argv)


if __name__ == "__main__":
    sys.exit(main())
