"""Verdicts and evidence that come from the numbers."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from paper import measures
from paper.claims import STATEMENTS, claims
from paper.reader.results import read
from paper.rule import (
    EQUIVALENT,
    FAILS,
    HOLDS,
    UNDECIDED,
    UNTESTED,
    of_replicates,
    replicates_to_decide,
    verdict,
)
from paper.verdicts import render
from paper.wording import interval, number
from tests.paper.conftest import Study


def small(path, **changes):
    """A study of few layers and candidates, which is soon written, read and judged."""
    return Study(path, **{"blocks": 1, "candidates": 12, **changes})


def test_verdicts_follow_the_accuracies(tmp_path):
    """Lowering one baseline's rival turns C5 from holding to not holding."""
    methods = ("graphpruning", "amc", "hand-crafted")
    study = small(tmp_path / "made", methods=methods)
    study.levels |= {"graphpruning": 3.0, "amc": 0.0}
    assert {c.id: c.verdict for c in claims(read(study.write()))}["C5"] == HOLDS
    study = small(tmp_path / "made", methods=methods)
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
    study = small(tmp_path / "made", methods=methods, seeds=(0, 1))
    study.levels |= {"graphpruning": 0.2, "amc": 0.0}
    judged = {claim.id: claim for claim in claims(read(study.write()))}
    assert judged["C5"].verdict == UNDECIDED
    needed = replicates_to_decide(judged["C5"].effects)
    assert needed and needed > 2
    would_be = verdict(of_replicates(judged["C5"].effects, needed))
    said = f"{needed} replicates in all would decide it: {would_be}. As they will move, that is"
    assert would_be != UNDECIDED and said in judged["C5"].evidence
    decided = [claim.evidence for claim in judged.values() if claim.verdict != UNDECIDED]
    assert decided and "would decide it" not in " ".join(decided)


def test_means_that_agree_by_chance_decide_nothing_if_single_trainings_do_not(tmp_path):
    """Ours minus AMC's is 0.1 points in all replicates; single trainings are far from that."""
    folder = small(
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
    folder = small(tmp_path / "made", methods=methods, seeds=(0, 1, 2)).write()
    assert verdicts(folder)["C2"] == HOLDS
    for name, column, worse in (("probes", "r2", "untrained"), ("candidates", "top1_shuffled", "")):
        changed = small(tmp_path / "made", methods=methods, seeds=(0, 1, 2)).write()
        for path in changed.glob(f"generated/resnet20/*/{name}.csv"):
            frame = pd.read_csv(path)
            rows = frame["network"] == worse if worse else frame[column].notna()
            frame.loc[rows, column] = frame.loc[rows, column] + (0.2 if worse else 5)
            frame[column] = frame[column].clip(upper=1 if worse else 100)
            frame.to_csv(path, index=False)
        assert verdicts(changed)["C2"] == FAILS, name
    for ablation in ("no-edges", "constant"):
        study = small(tmp_path / "made", methods=methods, seeds=(0, 1, 2))
        study.levels |= {ablation: 3.0}
        assert verdicts(study.write())["C2"] == FAILS, ablation


def test_c4_rests_on_the_area_under_the_search_curve(tmp_path):
    """The last candidate's accuracy, which decided before, does not count."""
    study = small(tmp_path / "made", methods=("graphpruning", "hand-crafted"), seeds=range(4))
    study.levels |= {"graphpruning": 6.0, "hand-crafted": 0.0}
    folder = study.write()
    assert verdicts(folder)["C4"] == HOLDS
    for path in folder.glob("search/resnet20/graphpruning/*/*/history.csv"):
        frame = pd.read_csv(path)
        frame["best"] = [0.0] * (len(frame) - 1) + [frame["best"].iloc[-1]]
        frame.to_csv(path, index=False)
    assert verdicts(folder)["C4"] == FAILS


@pytest.fixture
def learners(tmp_path):
    """A study of two kinds of states and of an agent that never learns, alike in all accuracies.

    Of the 60 candidates, the first 20 are the same for all three in a replicate.
    """
    methods = ("graphpruning", "hand-crafted", "frozen")
    folder = small(tmp_path / "made", methods=methods, budgets=(0.5,), seeds=range(4)).write()
    for seed in range(4):
        ours = pd.read_csv(folder / f"search/resnet20/graphpruning/0.5/{seed}/history.csv")
        for method in methods:
            path = folder / f"search/resnet20/{method}/0.5/{seed}/history.csv"
            frame = ours.copy()
            frame.loc[20:, "widths"] = pd.read_csv(path)["widths"][20:]
            frame.loc[20:, "best"] += 0.01 * seed * methods.index(method)
            frame.to_csv(path, index=False)
            changes = {"distinct": frame["widths"].nunique(), "top1_search": frame["best"].iloc[-1]}
            replace(path.with_name("metrics.json"), changes)
            same = {"test_top1": 90 + 0.01 * seed * methods.index(method)}
            final = folder / f"final/resnet20/{method}/0.5/{seed}"
            replace(final / "metrics.json", same)
            trainings = pd.read_csv(final / "trainings.csv").assign(**same)
            trainings.to_csv(final / "trainings.csv", index=False, lineterminator="\n")
    return folder


def replace(path, changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def lower(folder, method, points):
    """Lower a method's search curve, from where it parts from the others'."""
    for path in folder.glob(f"search/resnet20/{method}/*/*/history.csv"):
        frame = pd.read_csv(path)
        frame.loc[20:, "best"] -= points
        frame.to_csv(path, index=False)
        replace(path.with_name("metrics.json"), {"top1_search": frame["best"].iloc[-1]})


def test_the_area_begins_where_two_searches_part(learners):
    """What agents draw alike before they learn would only make every difference smaller."""
    lower(learners, "hand-crafted", 1.0)
    found = read(learners)
    judged = {claim.id: claim for claim in claims(found)}["C4"]
    assert measures.warm_up(found, "resnet20", "hand-crafted") == 20
    difference = measures.area_difference(found, "resnet20", "hand-crafted", ["0.5"]).value
    assert difference == pytest.approx(1 - 0.01 * (0 + 1 + 2 + 3) / 4)
    assert "(without the first 20 candidates, which both draw alike)" in judged.evidence


def test_searches_that_never_part_are_compared_at_their_last_candidate(learners):
    found = read(learners)
    whole = found.search["resnet20", "graphpruning", "0.5"][0].history
    assert measures.shared(whole, whole) == len(whole) - 1


@pytest.mark.parametrize(("worse", "expected"), [(1.0, EQUIVALENT), (0.0, UNDECIDED)])
def test_c4_is_undecided_if_an_agent_that_never_learns_searches_as_well(learners, worse, expected):
    """Then the curves could not tell good states from bad ones."""
    lower(learners, "frozen", worse)
    judged = {claim.id: claim for claim in claims(read(learners))}["C4"]
    assert judged.verdict == expected
    assert "final test accuracy, which so cannot tell good states from bad ones." in judged.evidence


def test_c5_says_what_an_agent_that_never_learns_has_over_the_baselines_that_ours_beats(tmp_path):
    study = small(tmp_path / "made", methods=("graphpruning", "amc", "random", "frozen"))
    study.levels |= {"graphpruning": 5.0, "amc": 4.9, "random": 0.0, "frozen": 5.0}
    found = read(study.write())
    evidence = {claim.id: claim.evidence for claim in claims(found)}["C5"]
    other = measures.test_difference(found, "resnet20", "random", found.budgets, of="frozen")
    assert other.value == pytest.approx(5, abs=0.3)
    says = f"the agent that never learns has {interval(other, 2, sign=True)} points over Random"
    assert says in evidence and "points over AMC" not in evidence


def test_c2_says_how_far_replicates_differ_and_c3_what_constant_features_score(found):
    evidence = {claim.id: claim.evidence for claim in claims(found)}
    each = [
        measures.right_minus_shuffled_of(found, "resnet20", "graph", seed).value
        for seed in range(3)
    ]
    least, median, most = (number(one, 2) for one in sorted(each))
    said = f"the least of them has {least}, the median {median}, the greatest {most}"
    assert said in evidence["C2"]
    shares = measures.shares(found, "resnet20", "constant")
    lowest = min(shares, key=lambda share: share.value).scaled(100)
    tau = measures.rank_correlation(found, "resnet20", "constant")
    flat = f"all sizes, they are {interval(lowest, 0)} % and {interval(tau, 2)}."
    assert flat in evidence["C3"]


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
    study = small(tmp_path / "made", methods=("graphpruning", "amc", "random"), seeds=range(5))
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
    study = small(tmp_path / "few", methods=("graphpruning", "amc"))
    found = {claim.id: claim for claim in claims(read(study.write()))}
    assert found["C4"].verdict == UNTESTED
    assert "does not test it" in found["C4"].evidence


def test_claims_md_is_what_the_committed_results_say():
    assert Path("paper/claims.md").read_text(encoding="utf-8") == render(Path("results"))


def test_claims_md_has_each_studys_evidence(tmp_path):
    folder = small(tmp_path / "made", methods=("graphpruning", "amc", "hand-crafted")).write()
    text = render(tmp_path, ["made", "pretrained"])
    judged = claims(read(folder))
    verdicts = " | ".join(claim.verdict for claim in judged)
    assert f"| [made](../results/made/report.html) | {verdicts} |" in text
    for claim in judged:
        assert f"## {claim.id}\n{STATEMENTS[claim.id]}\n" in text
        assert f"- **made: {claim.verdict}.** {claim.evidence}\n" in text
