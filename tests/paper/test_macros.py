"""The write-up says what the results say: its numbers are macros, and the macros are up to date."""

import hashlib
import math
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from paper import macros
from paper.captions import captions
from paper.claims import Claim, claims, counted_verdicts
from paper.reader.results import read
from paper.statistics import Estimate
from paper.wording import counting
from tests.paper.conftest import Study

ROOT = Path(__file__).parents[2]
NUMBERS = (ROOT / "paper/numbers.tex").read_text()
TEXT = re.sub(r"(?m)(?<!\\)%.*", "", (ROOT / "paper/report.tex").read_text())
STUDY = re.findall(r"\\newcommand\{\\study\}\{(\w+)\}", TEXT)[0]
BODY = TEXT.partition(r"\maketitle")[2].partition(r"\begin{thebibliography}")[0]


def test_the_numbers_are_those_of_the_results():
    assert macros.render() == NUMBERS, "make paper"


def test_every_macro_is_defined_once_by_letters_and_in_plain_characters():
    lines = NUMBERS.splitlines()[1:]
    names = [re.fullmatch(r"\\newcommand\{\\([a-zA-Z]+)\}\{.+\}", line)[1] for line in lines]
    assert len(set(names)) == len(names)
    assert NUMBERS.isascii()


def test_every_number_that_the_text_asks_for_is_there():
    """Those of results that come later are asked for where their files exist, by LaTeX itself."""
    asked = [f"{STUDY}{name}" for name in re.findall(r"\\result\{(\w+)\}", BODY)]
    asked += [f"bench{name}" for name in re.findall(r"\\bench\{(\w+)\}", BODY)]
    asked += re.findall(r"\\((?:rule|verdict)[A-Z]\w+)", BODY)
    later = {"benchPredictorAbove", "benchPredictorBelow"}
    missing = {name for name in asked if f"\\newcommand{{\\{name}}}" not in NUMBERS}
    assert len(asked) > 50 and missing <= later


def test_no_result_is_typed_into_the_text():
    """Lengths of LaTeX apart, the text itself has no decimal number and no long one."""
    without_lengths = re.sub(r"\[[^\]]*(?:width|leftmargin)[^\]]*\]|\\hspace\{[^}]*\}", "", BODY)
    assert (
        re.findall(r"\d+\.\d+|\d{3,}", re.sub(r"\((2019) and (2021)\)", "", without_lengths)) == []
    )


def test_the_pdf_was_made_of_this_text_and_these_numbers():
    files = (ROOT / "paper" / name for name in ("report.tex", "numbers.tex"))
    sums = " ".join(hashlib.md5(file.read_bytes()).hexdigest().upper() for file in files)
    assert f"/Sources ({sums})".encode() in (ROOT / "paper/report.pdf").read_bytes(), "make paper"


@pytest.mark.skipif(not shutil.which("latexmk"), reason="needs LaTeX")
def test_latex_sets_it_in_four_to_eight_pages_without_overflow(tmp_path):
    command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-silent"]
    command += [f"-outdir={tmp_path}", "paper/report.tex"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    log = (tmp_path / "report.log").read_text(errors="replace").replace("\n", "")
    assert 4 <= int(re.findall(r"Output written on .*? \((\d+) pages", log)[0]) <= 8
    assert "Overfull" not in log and "undefined" not in log


def test_a_study_of_several_replicates_has_its_intervals_and_verdicts(found):
    said = macros.of_study(found)
    assert (said["Replicates"], said["SmallBudget"]) == ("three replicates", "25 %")
    for name in ("BaseTopOne", "MinusAmc", "RightMinusShuffledGraph", "MinusConstantGraph"):
        assert re.fullmatch(r"[+−]?[\d.]+ \[−?[\d.]+, −?[\d.]+\]", said[name]), name
    by_claim = {claim.id: claim for claim in claims(found)}
    assert said["VerdictCone"] == by_claim["C1"].verdict
    assert said["EvidenceCfive"] == by_claim["C5"].evidence
    assert said["CaptionFiguresix"] == captions(found)["figure6_accuracy_macs"].text
    assert not any(re.search(r"\bnan\b|—", text) for text in said.values())


def test_a_study_without_methods_has_its_verdict_alone(results):
    found = macros.of_study(read(results.with_name("pretrained")))
    assert "VerdictCone" in found and "VerdictCtwo" not in found and "BaseTopOne" not in found


def test_one_replicate_is_said_in_words_and_the_smallest_budget_is_told_by_macs(tmp_path):
    study = Study(
        tmp_path / "one", methods=("graphpruning", "amc"), seeds=(0,), budgets=(0.25, 0.5)
    )
    found = macros.of_study(read(study.write()))
    assert found["Replicates"] == "one replicate"
    assert re.fullmatch(r"[+−]?[\d.]+", found["MinusAmc"])
    assert found["SmallBudget"] == "25 %"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("no-edges", "NoEdges"), ("agent (aggregated)", "AgentAggregated"), ("top1", "TopOne")],
)
def test_names_are_letters(name, expected):
    assert macros.letters(name) == expected


def test_verdicts_are_counted_in_words():
    said = ("holds", "undecided", "undecided", "does not hold", "undecided")
    judged = [Claim(f"C{i}", "", "", verdict, ()) for i, verdict in enumerate(said, 1)]
    assert (
        counted_verdicts(judged, counting) == "one holds, one does not hold and three are undecided"
    )


def searchers(**intervals: tuple[float, float]) -> pd.DataFrame:
    """A searcher against random search, in one place with one number of evaluations each."""
    rows = []
    for evaluations, (name, (low, high)) in zip((25, 300), intervals.items(), strict=True):
        for searcher, bounds in (("random", (0.0, 0.0)), ("agent", (low, high))):
            rows.append(
                {
                    **{"network": "ResNet", "budget": 0.5, "evaluations": evaluations},
                    **{"searcher": searcher, "seeds": 24, "true_top1": 93.123, "name": name},
                    **{"minus_random": sum(bounds) / 2, "low": bounds[0], "high": bounds[1]},
                }
            )
    return pd.DataFrame(rows)


def test_a_searcher_is_above_or_below_only_where_its_interval_is():
    found = macros.of_searchers(searchers(few=(0.1, 0.3), many=(-0.1, 0.3)))
    assert (found["AgentAbove"], found["AgentBelow"]) == ("one", "none")
    assert (found["AgentLastAbove"], found["AgentLastBelow"]) == ("none", "none")
    found = macros.of_searchers(searchers(few=(-0.1, 0.1), many=(-0.3, -0.1)))
    assert (found["AgentAbove"], found["AgentLastBelow"]) == ("none", "one")


def test_the_table_of_searchers_has_random_search_and_differences_of_the_most_evaluations():
    table = macros.of_searchers(searchers(few=(0.1, 0.3), many=(-0.1, 0.3)))["Table"]
    assert r"random & 93.12 \% \\" in table
    assert r"agent & +0.100 {[}$-$0.100, 0.300] \\" in table
    assert "0.200" not in table


def test_how_far_trainings_agree_with_themselves_is_said_where_they_do_not():
    found = Estimate(0.1, -0.1, 0.3, 5)
    assert "reliability of 0.40" in macros._repeat(found, 0.4)
    assert "a tau of 0.10 [−0.10, 0.30] when" in macros._repeat(found, math.nan)
