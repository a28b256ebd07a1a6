"""Verdicts on cases made by hand, and evidence that comes from the numbers."""

import math
from pathlib import Path

import pytest

from paper.claims import FAILS, HOLDS, STATEMENTS, UNDECIDED, claims, verdict
from paper.reader.results import read
from paper.statistics import Estimate
from paper.verdicts import render
from tests.paper.conftest import Study

ABOVE = Estimate(1.0, 0.5, 1.5, 3)
BELOW = Estimate(-1.0, -1.5, -0.5, 3)
ACROSS = Estimate(0.2, -0.3, 0.7, 3)
TOUCHING = Estimate(0.5, 0.0, 1.0, 3)
ONE_SEED = Estimate(4.0, math.nan, math.nan, 1)


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ([ABOVE], HOLDS),
        ([ABOVE, ABOVE], HOLDS),
        ([BELOW], FAILS),
        ([ABOVE, BELOW], FAILS),
        ([ACROSS, BELOW], FAILS),
        ([ACROSS], UNDECIDED),
        ([ABOVE, ACROSS], UNDECIDED),
        ([TOUCHING], UNDECIDED),
        ([ONE_SEED], UNDECIDED),
        ([ABOVE, ONE_SEED], UNDECIDED),
        ([], UNDECIDED),
    ],
)
def test_verdict(effects, expected):
    assert verdict(effects) == expected


def test_verdicts_follow_the_accuracies(tmp_path):
    """Lowering one baseline's rival turns C5 from holding to not holding."""
    methods = ("graphpruning", "amc", "hand-crafted")
    study = Study(tmp_path / "made", methods=methods)
    study.levels |= {"graphpruning": 3.0, "amc": 0.0}
    assert {c.id: c.verdict for c in claims(read(study.write()))}["C5"] == HOLDS
    study = Study(tmp_path / "made", methods=methods)
    study.levels |= {"graphpruning": 0.0, "amc": 3.0}
    assert {c.id: c.verdict for c in claims(read(study.write()))}["C5"] == FAILS


def test_evidence_holds_the_number_and_its_interval(results):
    found = {claim.id: claim for claim in claims(read(results))}
    assert found["C1"].verdict == HOLDS
    assert "0.72 [0.67, 0.78]" in found["C1"].evidence
    assert "interval over 3 replicates" in found["C1"].evidence
    assert "paired over 3 replicates" in found["C5"].evidence


def test_one_replicate_decides_about_its_own_networks_and_nothing_about_methods(tmp_path):
    study = Study(tmp_path / "one", methods=("graphpruning", "amc", "hand-crafted"), seeds=(0,))
    found = {claim.id: claim for claim in claims(read(study.write()))}
    assert found["C4"].verdict == found["C5"].verdict == UNDECIDED
    assert "one replicate, so no interval" in found["C5"].evidence
    assert found["C1"].verdict == found["C3"].verdict == HOLDS
    assert "interval over the layers of this one network" in found["C1"].evidence


def test_a_missing_comparison_is_said(tmp_path):
    study = Study(tmp_path / "few", methods=("graphpruning", "amc"))
    found = {claim.id: claim for claim in claims(read(study.write()))}
    assert found["C4"].verdict == UNDECIDED
    assert "does not test it" in found["C4"].evidence


def test_claims_md_is_what_the_committed_results_say():
    assert Path("paper/claims.md").read_text(encoding="utf-8") == render(Path("results"))


def test_claims_md_has_each_studys_evidence(made):
    text = render(made.parent, ["made", "pretrained"])
    judged = claims(read(made))
    verdicts = " | ".join(claim.verdict for claim in judged)
    assert f"| [made](../results/made/report.html) | {verdicts} |" in text
    for claim in judged:
        assert f"## {claim.id}\n{STATEMENTS[claim.id]}\n" in text
        assert f"- **made: {claim.verdict}.** {claim.evidence}\n" in text
