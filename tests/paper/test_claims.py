"""Verdicts and evidence that come from the numbers."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from paper.claims import STATEMENTS, claims
from paper.reader.results import read
from paper.rule import (
    EQUIVALENT,
    FAILS,
    HOLDS,
    UNDECIDED,
    of_replicates,
    replicates_to_decide,
    verdict,
)
from paper.verdicts import render
from tests.paper.conftest import Study


def test_verdicts_follow_the_accuracies(tmp_path):
    """Lowering one baseline's rival turns C5 from holding to not holding."""
    methods = ("graphpruning", "amc", "hand-crafted")
    study = Study(tmp_path / "made", methods=methods)
    study.levels |= {"graphpruning": 3.0, "amc": 0.0}
    assert {c.id: c.verdict for c in claims(read(study.write()))}["C5"] == HOLDS
    study = Study(tmp_path / "made", methods=methods)
    study.levels |= {"graphpruning": 0.0, "amc": 3.0}
    assert {c.id: c.verdict for c in claims(read(study.write()))}["C5"] == FAILS


def test_evidence_holds_the_number_and_its_interval(found):
    judged = {claim.id: claim for claim in claims(found)}
    assert judged["C1"].verdict == HOLDS
    assert "0.74 [0.69, 0.79]" in judged["C1"].evidence
    assert "interval over 3 replicates" in judged["C1"].evidence
    assert "paired over 3 replicates" in judged["C5"].evidence


def test_one_replicate_decides_about_its_own_networks_and_nothing_about_methods(tmp_path):
    methods = ("graphpruning", "amc", "hand-crafted")
    study = Study(tmp_path / "one", methods=methods, seeds=(0,), candidates=60)
    found = {claim.id: claim for claim in claims(read(study.write()))}
    assert found["C4"].verdict == found["C5"].verdict == UNDECIDED
    assert "one replicate, so no interval" in found["C5"].evidence
    assert found["C1"].verdict == found["C3"].verdict == HOLDS
    assert "interval over the layers of this one network" in found["C1"].evidence


def test_an_undecided_claim_says_how_many_replicates_would_decide_it(tmp_path):
    methods = ("graphpruning", "amc", "hand-crafted")
    study = Study(tmp_path / "made", methods=methods, seeds=(0, 1))
    study.levels |= {"graphpruning": 0.2, "amc": 0.0}
    judged = {claim.id: claim for claim in claims(read(study.write()))}
    assert judged["C5"].verdict == UNDECIDED
    needed = replicates_to_decide(judged["C5"].effects)
    assert needed and needed > 2
    would_be = verdict(of_replicates(judged["C5"].effects, needed))
    said = f"If further replicates are like these, {needed} in all would decide it: {would_be}."
    assert would_be != UNDECIDED and judged["C5"].evidence.endswith(said)
    decided = [claim.evidence for claim in judged.values() if claim.verdict != UNDECIDED]
    assert decided and "would decide it" not in " ".join(decided)


def test_means_that_agree_by_chance_decide_nothing_if_single_trainings_do_not(tmp_path):
    """Ours minus AMC's is 0.1 points in all replicates; single trainings are far from that."""
    folder = Study(
        tmp_path / "made", methods=("graphpruning", "amc"), seeds=(0, 1, 2), final_trainings=2
    ).write()

    def trained(noise):
        for path in (folder / "final").rglob("trainings.csv"):
            ours = "graphpruning" in str(path)
            noisy = [noise, -noise] if ours else [-noise, noise]
            frame = pd.read_csv(path).assign(test_top1=[90 + 0.1 * ours + one for one in noisy])
            frame.to_csv(path, index=False)
            metrics = path.with_name("metrics.json")
            whole = json.loads(metrics.read_text())
            metrics.write_text(json.dumps({**whole, "test_top1": 90 + 0.1 * ours}))
        (effect,) = next(c for c in claims(read(folder)) if c.id == "C5").effects
        return effect.estimate

    quiet = trained(0.0)
    assert (quiet.low, quiet.high) == pytest.approx((0.1, 0.1))
    assert verdicts(folder)["C5"] == EQUIVALENT
    noisy = trained(0.5)  # differences 1.1 and -0.9: a standard deviation of the square root of 2
    assert noisy.value == pytest.approx(0.1) and noisy.df == 3
    assert noisy.error == pytest.approx(math.sqrt(2 / 2 / 3))
    assert verdicts(folder)["C5"] == UNDECIDED


def verdicts(folder):
    return {claim.id: claim.verdict for claim in claims(read(folder))}


@pytest.mark.parametrize("methods", [("graphpruning", "amc", "no-edges", "constant")])
def test_c2_rests_on_the_probe_on_shuffling_and_on_both_ablations(tmp_path, methods):
    """Each of the four, turned against the claim alone, turns the verdict."""
    folder = Study(tmp_path / "made", methods=methods, seeds=(0, 1, 2)).write()
    assert verdicts(folder)["C2"] == HOLDS
    for name, column, worse in (("probes", "r2", "untrained"), ("candidates", "top1_shuffled", "")):
        changed = Study(tmp_path / "made", methods=methods, seeds=(0, 1, 2)).write()
        for path in changed.glob(f"generated/resnet20/*/{name}.csv"):
            frame = pd.read_csv(path)
            rows = frame["network"] == worse if worse else frame[column].notna()
            frame.loc[rows, column] = frame.loc[rows, column] + (0.2 if worse else 5)
            frame[column] = frame[column].clip(upper=1 if worse else 100)
            frame.to_csv(path, index=False)
        assert verdicts(changed)["C2"] == FAILS, name
    for ablation in ("no-edges", "constant"):
        study = Study(tmp_path / "made", methods=methods, seeds=(0, 1, 2))
        study.levels |= {ablation: 3.0}
        assert verdicts(study.write())["C2"] == FAILS, ablation


def test_c4_rests_on_the_area_under_the_search_curve(tmp_path):
    """The last candidate's accuracy, which decided before, does not count."""
    study = Study(tmp_path / "made", methods=("graphpruning", "hand-crafted"), seeds=range(4))
    study.levels |= {"graphpruning": 6.0, "hand-crafted": 0.0}
    folder = study.write()
    assert verdicts(folder)["C4"] == HOLDS
    for path in folder.glob("search/resnet20/graphpruning/*/*/history.csv"):
        frame = pd.read_csv(path)
        frame["best"] = [0.0] * (len(frame) - 1) + [frame["best"].iloc[-1]]
        frame.to_csv(path, index=False)
    assert verdicts(folder)["C4"] == FAILS


def test_c3_compares_candidates_of_one_budget_alone(tmp_path):
    """Ranks that follow size between budgets, and nothing within them, are no evidence."""
    made = Study(tmp_path / "made", methods=("graphpruning", "amc"), seeds=(0,), candidates=60)
    folder = made.write()
    (path,) = folder.glob("generated/resnet20/*/candidates.csv")
    assert verdicts(folder)["C3"] == HOLDS
    frame = pd.read_csv(path)
    within = frame["budget"] != "any"
    backwards = frame.loc[within].groupby(["conditioning", "budget"])["top1_generated"]
    frame.loc[within, "top1_generated"] = 2 * backwards.transform("mean") - frame["top1_generated"]
    frame.to_csv(path, index=False)
    assert verdicts(folder)["C3"] == FAILS


def test_c5_is_equivalent_where_nothing_differs(tmp_path):
    study = Study(tmp_path / "made", methods=("graphpruning", "amc", "random"), seeds=range(5))
    folder = study.write()
    for path in folder.glob("final/resnet20/*/*/*/metrics.json"):
        whole = json.loads(path.read_text())
        noise = 0.01 * (len(path.parts[-4]) % 3) * int(path.parts[-2])
        path.write_text(json.dumps(whole | {"test_top1": 90 + noise}))
        trainings = pd.read_csv(path.with_name("trainings.csv")).assign(test_top1=90 + noise)
        trainings.to_csv(path.with_name("trainings.csv"), index=False, lineterminator="\n")
    found = {claim.id: claim for claim in claims(read(folder))}["C5"]
    assert found.verdict == EQUIVALENT
    assert found.evidence.endswith("GraphPruning is equivalent to AMC and Random search.")


def test_a_missing_comparison_is_said(tmp_path):
    study = Study(tmp_path / "few", methods=("graphpruning", "amc"))
    found = {claim.id: claim for claim in claims(read(study.write()))}
    assert found["C4"].verdict == UNDECIDED
    assert "does not test it" in found["C4"].evidence


def test_claims_md_is_what_the_committed_results_say():
    assert Path("paper/claims.md").read_text(encoding="utf-8") == render(Path("results"))


def test_claims_md_has_each_studys_evidence(results, found):
    text = render(results.parent, ["made", "pretrained"])
    judged = claims(found)
    verdicts = " | ".join(claim.verdict for claim in judged)
    assert f"| [made](../results/made/report.html) | {verdicts} |" in text
    for claim in judged:
        assert f"## {claim.id}\n{STATEMENTS[claim.id]}\n" in text
        assert f"- **made: {claim.verdict}.** {claim.evidence}\n" in text
