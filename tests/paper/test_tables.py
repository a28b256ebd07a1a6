"""Tables: columns, values by hand, the same bytes again, and LaTeX that compiles."""

import io
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from paper.measures import all_collapsed, probe, reliability
from paper.reader.results import read
from paper.table_main import differences
from paper.table_published import imagenet
from paper.tables import main
from tests.paper.conftest import Study, copied_study

NAMES = (
    "table1_correlation",
    "table2_generated_weights",
    "table2_conditioning",
    "table3_main",
    "table4_ablations",
    "table5_imagenet",
    "table6_costs",
)


def frame(folder, name):
    return pd.read_csv(folder / f"tables/{name}.csv")


def test_every_table_in_every_form(tabled):
    files = {path.name for path in (tabled / "tables").iterdir()}
    assert files == {f"{name}{ending}" for name in NAMES for ending in (".csv", ".md", ".tex")}


def test_columns_of_the_main_table(tabled):
    header = (tabled / "tables/table3_main.csv").read_text().splitlines()[0]
    assert header == (
        "model,method,budget,macs,macs_ratio,params,search_top1_before,top1_mean,top1_low,"
        "top1_high,seeds,iqm,iqm_low,iqm_high,improvement,improvement_low,improvement_high,"
        "evaluations,distinct,search_seconds,images_seen"
    )


def replicates(folder, name, file="metrics.json"):
    """A JSON file of every replicate."""
    return [json.loads((folder / name / seed / file).read_text()) for seed in "012"]


def half_of_three(values):
    """Half of a t-interval over three replicates; t(0.975, 2) = 4.302653."""
    return 4.302653 * pd.Series(values).std() / 3**0.5


def test_a_row_of_the_main_table_by_hand(tabled):
    final = replicates(tabled, "final/resnet20/amc/0.5")
    runs = replicates(tabled, "search/resnet20/amc/0.5", "run.json")
    base = replicates(tabled, "base/resnet20")[0]
    top1 = pd.Series([one["test_top1"] for one in final])
    macs = sum(one["macs"] for one in final) / 3
    main_table = frame(tabled, "table3_main").set_index(["method", "budget"])
    row = main_table.loc[("amc", 0.5)]
    assert row["top1_mean"] == pytest.approx(top1.mean(), abs=5e-4)
    assert row["top1_low"] == pytest.approx(top1.mean() - half_of_three(top1), abs=1e-3)
    assert row["top1_high"] == pytest.approx(top1.mean() + half_of_three(top1), abs=1e-3)
    assert row["macs"] == round(macs)
    assert row["macs_ratio"] == pytest.approx(macs / base["macs"], abs=5e-5)
    assert row["seeds"] == 3
    seconds = sorted(run["search_seconds"] for run in runs)[1]
    assert row["search_seconds"] == pytest.approx(seconds, abs=0.051)
    assert (row["evaluations"], row["images_seen"]) == (60, 120_000)
    assert main_table.loc[("uniform", 0.5), "evaluations"] == 1


def test_accuracy_before_the_final_training_is_there_where_it_began_with_weights(tabled):
    table = frame(tabled, "table3_main").set_index(["method", "budget"])["search_top1_before"]
    found = replicates(tabled, "final/resnet20/generated/0.5")
    before = sum(one["search_top1_before"] for one in found) / 3
    assert table["generated", 0.5] == pytest.approx(before, abs=5e-4)
    assert set(table.dropna().index.get_level_values("method")) == {"generated"}


def test_the_base_networks_are_a_row_over_replicates(tabled):
    row = frame(tabled, "table3_main").iloc[0]
    assert (row["method"], row["budget"], row["macs_ratio"], row["seeds"]) == ("base", 1, 1, 3)
    half = half_of_three([91.37, 91.47, 91.57])
    assert row["top1_mean"] == 91.47
    assert row["top1_low"] == pytest.approx(91.47 - half, abs=1e-3)
    assert row["images_seen"] == 0


def test_r2_is_summed_up_within_each_replicate_by_hand(tabled):
    table = frame(tabled, "table1_correlation")
    table = table.set_index(["study", "network", "pair", "output"]).loc["made"]
    channels = [pd.read_csv(tabled / f"correlation/resnet20/{s}/channels.csv") for s in range(3)]
    column = {
        ("in_block", "own"): "r2",
        ("other_block", "own"): "control_r2",
        ("in_block", "activated"): "r2_activated",
        ("other_block", "activated"): "control_r2_activated",
    }
    borders = [pd.read_csv(tabled / f"correlation/resnet20/{s}/borders.csv") for s in range(3)]
    column |= {("border", "own"): "r2", ("border", "activated"): "r2_activated"}
    assert len(table) == 12
    for (network, pair, output), row in table.iterrows():
        of_seeds = borders if pair == "border" else channels
        parts = [f[f["network"] == network][column[pair, output]].dropna() for f in of_seeds]
        for threshold in (0.5, 0.7, 0.9):
            shares = [(part > threshold).mean() for part in parts]
            assert row[f"share_over_{threshold}"] == pytest.approx(sum(shares) / 3, abs=5e-5)
        middle = [part.median() for part in parts]
        mean, half = sum(middle) / 3, half_of_three(middle)
        assert row["r2_median"] == pytest.approx(mean, abs=5e-5)
        assert row["r2_median_low"] == pytest.approx(mean - half, abs=1e-4)
        layers = 9 if pair == "in_block" else 6  # the first block at a resolution has no control
        assert (row["seeds"], row["layers"], row["channels"]) == (3, layers, len(parts[0]))


def test_one_replicate_has_intervals_of_its_own_networks_and_says_so(tmp_path):
    folder = Study(
        tmp_path / "one", methods=("graphpruning", "amc", "no-edges"), seeds=(4,), candidates=8
    ).write()
    assert main([str(folder)]) == 0
    r2 = frame(folder, "table1_correlation")
    assert (r2["r2_median_low"] < r2["r2_median_high"]).all()
    assert (frame(folder, "table2_generated_weights")["tau_low"].notna()).all()
    final = frame(folder, "table3_main")
    assert set(final["seeds"]) == {1} and final["top1_low"].isna().all()
    assert final[["iqm", "improvement"]].isna().all(axis=None)
    moved = frame(folder, "table4_ablations").set_index("part")
    assert moved.loc["probe", "mean_low"].notna().all()
    assert moved.loc["accuracy", ["mean_low", "difference_low"]].isna().all(axis=None)
    for name in ("table1_correlation", "table2_generated_weights", "table4_ablations"):
        assert "only" in (folder / f"tables/{name}.md").read_text().partition("\n")[0]
    note = "One replicate gives no interval; studies with several seeds: see docs/studies.md."
    for name in ("table3_main", "table4_ablations"):
        assert (folder / f"tables/{name}.md").read_text().count(note) == 1


def test_tau_is_that_within_budgets_and_its_number_of_candidates(tabled, found):
    from scipy import stats

    table = frame(tabled, "table2_generated_weights").set_index("conditioning")
    taus = {name: [] for name in table.index}
    for seed in range(3):
        folder = tabled / f"generated/resnet20/{seed}"
        top1 = pd.read_csv(folder / "trained.csv").groupby("candidate")["top1"].mean()
        rated = pd.read_csv(folder / "candidates.csv")
        rated = rated.assign(trained=rated["candidate"].map(top1)).dropna(subset="trained")
        for name in table.index:
            of_budgets = [
                stats.kendalltau(part["top1_generated"], part["trained"]).statistic
                for _, part in rated[rated["conditioning"] == name].groupby("budget")
            ]
            assert len(of_budgets) == 2
            taus[name].append(sum(of_budgets) / 2)
    for name, row in table.iterrows():
        mean, half = sum(taus[name]) / 3, half_of_three(taus[name])
        assert row["tau"] == pytest.approx(mean, abs=5e-5)
        assert row["tau_high"] == pytest.approx(mean + half, abs=1e-4)
        assert row["tau_candidates"] == 12
        assert row["reliability"] == pytest.approx(reliability(found, "resnet20"), abs=5e-5)
        assert row["tau_corrected"] > row["tau"] > 0


def test_without_repeated_trainings_tau_stands_alone(tmp_path):
    folder = Study(
        tmp_path / "once", methods=("graphpruning",), seeds=(0,), trainings=1, candidates=8
    ).write()
    assert main([str(folder)]) == 0
    table = frame(folder, "table2_generated_weights")
    assert table["tau"].notna().all() and table["tau_corrected"].isna().all()
    note = "resnet20 was trained once at any widths, so its tau is not corrected."
    assert note in (folder / "tables/table2_generated_weights.md").read_text()


def test_ablations_are_paired_with_ours(tabled, found):
    table = frame(tabled, "table4_ablations").set_index(["variant", "at", "quantity"])
    ours = found.test_top1("resnet20", "graphpruning", "0.5")
    other = found.test_top1("resnet20", "hand-crafted", "0.5")
    difference = sum(ours[seed] - other[seed] for seed in ours) / 3
    row = table.loc[("hand-crafted", "budget 0.5", "top1_test")]
    assert row["difference"] == pytest.approx(difference, abs=5e-5)
    # Another PruningNet's accuracies on the search split are not compared with ours.
    assert pd.isna(table.loc[("no-edges", "budget 0.5", "top1_search"), "difference"])
    area = [
        pd.read_csv(path)["best"].mean()
        for name in ("graphpruning", "hand-crafted")
        for path in sorted(tabled.glob(f"search/resnet20/{name}/0.5/*/history.csv"))
    ]
    row = table.loc[("hand-crafted", "budget 0.5", "area")]
    assert row["mean"] == pytest.approx(sum(area[3:]) / 3, abs=5e-5)
    assert row["difference"] == pytest.approx((sum(area[:3]) - sum(area[3:])) / 3, abs=5e-5)


def weighted(frame, conditioning, network, distance):
    """Mean R² over widths of a probe."""
    rows = frame[
        (frame["conditioning"] == conditioning)
        & (frame["network"] == network)
        & (frame["distance"] == distance)
    ]
    return (rows["r2"] * rows["widths"]).sum() / rows["widths"].sum()


def test_probes_of_the_ablations_are_means_over_widths(tabled, found):
    table = frame(tabled, "table4_ablations").set_index(["variant", "at", "quantity"])
    probes = [pd.read_csv(tabled / f"generated/resnet20/{seed}/probes.csv") for seed in range(3)]
    trained, untrained = (
        sum(weighted(one, "graph", network, 2) for one in probes) / 3
        for network in ("trained", "untrained")
    )
    row = table.loc[("graph", "distance 2", "probe_r2")]
    assert row["mean"] == pytest.approx(trained, abs=5e-5)
    assert row["difference"] == pytest.approx(trained - untrained, abs=5e-5)
    near = probe(found, "resnet20", "graph", "trained", 2, 2)
    assert near is not None and near.n == 3
    assert probe(found, "resnet20", "graph", "trained", 7) is None


def test_columns_and_values_of_the_table_of_conditionings(tabled):
    table = frame(tabled, "table2_conditioning")
    assert ",".join(table.columns) == (
        "model,conditioning,seed,probe_r2,probe_r2_untrained,feature_variation,weight_variation,"
        "right_minus_shuffled,low,high,top1_minus_constant"
    )
    assert len(table) == 4 * 3
    rated = pd.read_csv(tabled / "generated/resnet20/1/candidates.csv")
    rated = rated[rated["budget"] == "any"].set_index("conditioning")
    right, shuffled = (rated.loc["graph", f"top1_{name}"] for name in ("generated", "shuffled"))
    row = table.set_index(["conditioning", "seed"]).loc[("graph", 1)]
    assert row["right_minus_shuffled"] == pytest.approx((right - shuffled).mean(), abs=5e-5)
    assert row["low"] < row["right_minus_shuffled"] < row["high"]
    constant = rated.loc["constant", "top1_generated"].mean()
    assert row["top1_minus_constant"] == pytest.approx(right.mean() - constant, abs=5e-5)
    assert (row["feature_variation"], row["weight_variation"]) == (0.2, 0.05)


def test_an_aggregator_that_forgets_what_it_knew_untrained_has_collapsed(tabled, tmp_path):
    copied = copied_study(tabled, tmp_path)
    path = copied / "generated/resnet20/1/probes.csv"
    probes = pd.read_csv(path)
    far = (probes["conditioning"] == "graph") & (probes["distance"] >= 2)
    for network, told in (("untrained", 0.2), ("trained", 0.11)):
        probes.loc[far & (probes["network"] == network), "r2"] = told
    probes.to_csv(path, index=False)
    assert all_collapsed(read(copied)) == []
    probes.loc[far & (probes["network"] == "trained"), "r2"] = 0.09
    probes.to_csv(path, index=False)
    assert all_collapsed(read(copied)) == [("resnet20", "graph", 1)]


def test_a_pruningnet_whose_weights_do_not_follow_its_features_has_collapsed(tabled, tmp_path):
    copied = copied_study(tabled, tmp_path)
    path = copied / "generated/resnet20/1/diagnostics.csv"
    varied = pd.read_csv(path)
    of_net = (varied["conditioning"] == "graph") & (varied["network"] == "trained")
    for share, dead in ((0.011, []), (0.009, [("resnet20", "graph", 1)])):
        varied.loc[of_net, "weight_variation"] = share
        varied.to_csv(path, index=False)
        assert all_collapsed(read(copied)) == dead


def test_robust_columns_of_the_main_table_by_hand(tabled):
    from scipy import stats

    table = frame(tabled, "table3_main").set_index(["method", "budget"])
    ours, amc = (
        [one["test_top1"] for one in replicates(tabled, f"final/resnet20/{name}/0.5")]
        for name in ("graphpruning", "amc")
    )
    row = table.loc[("amc", 0.5)]
    assert row["iqm"] == pytest.approx(stats.trim_mean(amc, 0.25), abs=5e-4)
    wins = [(a > b) + (a == b) / 2 for a in ours for b in amc]
    assert row["improvement"] == pytest.approx(sum(wins) / 9, abs=5e-4)
    assert pd.isna(table.loc[("graphpruning", 0.5), "improvement"])  # against itself


def test_differences_of_baselines_are_pooled_and_corrected(tabled, found):
    pooled = differences(found)
    rows = {row["method"]: row for row in pooled.csv.to_dict("records")}
    shown = pooled.shown.set_index("GraphPruning minus")["Says"]
    assert shown["AMC"] == "better" and shown["without edges"] == "—"
    assert 0 < float(rows["amc"]["p_holm"]) < 0.05 and rows["no-edges"]["p_holm"] == ""
    halves = {
        name: float(row["difference_high"]) - float(row["difference_low"])
        for name, row in rows.items()
    }
    baselines = ("metapruning", "amc", "random", "uniform")
    assert max(halves[name] for name in baselines) == pytest.approx(
        min(halves[name] for name in baselines), abs=0.002
    )


def test_published_numbers_stay_as_printed_and_none_is_the_authors(tabled):
    published = pd.read_csv("paper/published.csv", dtype=str, keep_default_na=False)
    text = (tabled / "tables/table5_imagenet.csv").read_text()
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    columns = ["model", "dataset", "method", "setting", "top1", "top5", "macs_m", "params_m"]
    columns += ["architecture", "source", "note"]
    assert table[columns].equals(published[columns])
    assert "graphpruning" not in set(table["method"])
    markdown = (tabled / "tables/table5_imagenet.md").read_text()
    assert "| — |" in markdown
    assert "—: the source gives no number, or its repository no channel list to count." in markdown


def test_published_cost_stands_beside_our_count_where_there_is_a_list(tabled):
    text = (tabled / "tables/table5_imagenet.csv").read_text()
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    rows = table.set_index(["model", "method", "setting"])
    resnet = rows.loc[("resnet50", "metapruning", "1.0G")]
    assert (resnet["macs_m"], resnet["macs_counted"]) == ("1000", "1027554986")
    assert (table["macs_counted"] == "").equals(table["architecture"] == "")
    assert (table["params_counted"] == "").equals(table["architecture"] == "")
    abcpruner = rows.loc[("resnet50", "abcpruner", "1295M")]
    assert (abcpruner["params_m"], abcpruner["params_counted"]) == ("9.1", "")
    markdown = (tabled / "tables/table5_imagenet.md").read_text()
    assert "| 75.4 | — | 2000 | 1,989.9 | — | 15.71 | 1 |" in markdown


def test_our_rows_join_the_published_ones_of_the_same_data(tmp_path):
    study = Study(tmp_path / "imagenet", methods=("graphpruning",))
    study.study["data"] = {"name": "imagenet"}
    rows = imagenet(read(study.write())).csv
    ours = rows[rows["source"] == "measured here, results/imagenet"]
    assert list(ours["method"]) == ["base", "graphpruning", "graphpruning"]
    assert list(ours["top5"]) == ["99.250", "99.000", "99.000"]
    assert (ours["macs_m"] == "").all() and (ours["macs_counted"].astype(int) > 0).all()


def test_the_same_bytes_again(tabled, tmp_path):
    before = {path.name: path.read_bytes() for path in (tabled / "tables").iterdir()}
    again = copied_study(tabled, tmp_path, without="tables")
    assert main([str(again)]) == 0
    assert before == {path.name: path.read_bytes() for path in (again / "tables").iterdir()}


def test_latex_compiles(tabled, tmp_path):
    inputs = "\n".join(f"\\input{{{tabled}/tables/{name}}}" for name in NAMES)
    document = "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs}\n"
    document += "\\usepackage[margin=0.75in]{geometry}\n"
    document += f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    (tmp_path / "all.tex").write_text(document)
    if shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
        log = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert log.returncode == 0, log.stdout[-2000:]
        assert "Overfull" not in log.stdout
        return
    for name in NAMES:
        text = (tabled / f"tables/{name}.tex").read_text()
        begun, ended = (re.findall(rf"\\{word}{{(.*?)}}", text) for word in ("begin", "end"))
        assert begun == ended[::-1] == ["table*", "tabular"]
        rows = re.findall(r"^(.*) \\\\$", text, re.MULTILINE)
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
