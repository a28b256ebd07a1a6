"""The report: one file, every number of the main table, a run behind each."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import pandas as pd

from paper import figures, report, rule, tables
from paper.claims import claims
from paper.reader.results import read
from paper.report import main
from tests.paper.conftest import Study, copied_study, stand_in_figures


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.ids, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        if tag in ("img", "script", "link", "iframe", "source", "object", "embed"):
            self.loads += [values[key] for key in ("src", "href") if key in values]


def test_nothing_is_loaded_from_elsewhere(made):
    text = (made / "report.html").read_text()
    page = Page(text)
    assert len(page.loads) == 9
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert not re.search(r"url\(|@import|https?://", text)


def test_every_link_leads_somewhere(made):
    """Anchors are there once each; files are those that the study's folder has."""
    page = Page((made / "report.html").read_text())
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif "records/" in link:  # the fixture keeps each run's parameters only
            assert (made / unquote(link)).parent.is_dir()
        else:
            assert (made / unquote(link)).is_file(), link


def test_every_number_of_the_main_table(made):
    text = (made / "report.html").read_text()
    table = pd.read_csv(made / "tables/table3_main.csv", dtype=str, keep_default_na=False)
    for row in table.to_dict("records"):
        exact = ", ".join(f"{column} {cell}" for column, cell in row.items() if cell)
        assert f'<tr title="{exact}">' in text
        assert f">{float(row['top1_mean']):.2f}" in text


def test_claims_come_first_with_their_verdicts(made, found):
    text = (made / "report.html").read_text()
    for claim in claims(found):
        assert f"{claim.id}. {claim.statement}" in text
        assert claim.verdict in text
    order = [text.index(f'<section id="{part}"') for part in ("claims", "main", "provenance")]
    assert order == sorted(order)


SIGNS = {
    rule.HOLDS: "✓",
    rule.IN_PART: "✓=",
    rule.EQUIVALENT: "=",
    rule.FAILS: "✗",
    rule.UNDECIDED: "?",
    rule.UNTESTED: "–",
}


def test_every_verdict_has_its_sign(made, found, monkeypatch):
    """In two reports, since there are more verdicts than claims."""
    results, left = read(made), list(SIGNS)
    while left:
        shown = [left.pop(0) for claim in claims(found) if left]
        given = [*shown, *[shown[-1]] * (len(claims(found)) - len(shown))]
        judged = [
            replace(claim, verdict=verdict)
            for claim, verdict in zip(claims(found), given, strict=True)
        ]
        monkeypatch.setattr(report.claims, "claims", lambda results, judged=judged: tuple(judged))
        text = report.render(results)
        for verdict in shown:
            sign = f'<span class="verdict">{SIGNS[verdict]} {verdict}</span>'
            assert text.count(sign) == given.count(verdict)


def test_every_run_is_there_with_its_parameters(made, found):
    page = Page((made / "report.html").read_text())
    for run in found.runs:
        assert f"run-{run.stage}" in page.ids
        assert f"parameters-{run.stage}" in page.ids


def test_runs_of_the_pretrained_network_stand_in_the_report(made):
    text = (made / "report.html").read_text()
    stage = "correlation@pretrained-mobilenet_v2-0"
    assert f'href="../pretrained/records/{stage.replace("@", "%40")}/metrics.json"' in text
    table3 = text[text.index('id="table3_main"') : text.index('id="paired_differences"')]
    assert "train_base@made-resnet20-1" in table3
    assert "@pretrained" not in table3


def test_a_run_without_record_is_said(made, tmp_path):
    copied = copied_study(made, tmp_path)
    shutil.rmtree(copied / "records/train_base@made-resnet20-1")
    assert main([str(copied)]) == 0
    assert (copied / "report.html").read_text().count("no record kept") == 2


def test_the_commits_that_made_the_numbers_stand_beside_machine_and_versions(made, tmp_path):
    copied = copied_study(made, tmp_path)
    commits = {"base": ("a" * 40, True), "correlation": ("b" * 40, False)}
    for stage, (commit, clean) in commits.items():
        for path in (copied / stage).rglob("run.json"):
            run = json.loads(path.read_text())
            path.write_text(json.dumps({**run, "commit": commit, "clean": clean}))
    assert main([str(copied)]) == 0
    places = re.findall(r'<p id="(E\d)">.*?, graphpruning 0.1.0(.*?)\.</p>', page_of(copied))
    assert dict(places) == {
        "E1": "",  # older results name no commit
        "E2": f"; commit {'a' * 10}",
        "E3": f"; commit {'b' * 10} with uncommitted changes",
    }


def page_of(folder):
    return (folder / "report.html").read_text()


def test_a_collapsed_aggregator_is_one_plain_line(made, tmp_path):
    line = "Collapsed in training, so that features or weights hardly follow the widths any more: "
    text = (made / "tables/table2_conditioning.md").read_text()
    assert "Collapsed" not in text and "Collapsed" not in (made / "report.html").read_text()
    study = Study(tmp_path / "dead", methods=("graphpruning", "amc"), seeds=(0,), candidates=8)
    study.alive = 0.04
    folder = study.write()
    stand_in_figures(folder)
    for program in (tables, report):
        assert program.main([str(folder)]) == 0
    text = (folder / "tables/table2_conditioning.md").read_text()
    assert (
        text.count(line) == 1
        and "seed 0 (features vary by 0.8 %, weights by 0.2 %; probe R² " in text
    )
    assert "constant of" not in text  # it is constant on purpose
    assert (folder / "report.html").read_text().count(line) == 2  # in the head, below the table


def test_a_missing_figure_is_named(made, tmp_path, capsys):
    copied = copied_study(made, tmp_path)
    path = copied / "figures/figure3_graph.png"
    path.unlink()
    assert main([str(copied)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path} is missing: the stage figures makes it")


def test_one_method_alone(tmp_path):
    """The least that a study may hold: nothing to compare, hardly a candidate."""
    folder = Study(
        tmp_path / "tiny",
        methods=("graphpruning",),
        budgets=(0.5,),
        seeds=(0,),
        blocks=1,
        candidates=2,
    ).write()
    for program in (tables, figures, report):
        assert program.main([str(folder)]) == 0
    assert "Paired differences" not in (folder / "report.html").read_text()


def test_the_same_bytes_again(made, tmp_path):
    copied = copied_study(made, tmp_path)
    assert main([str(copied)]) == 0
    assert (copied / "report.html").read_bytes() == (made / "report.html").read_bytes()
