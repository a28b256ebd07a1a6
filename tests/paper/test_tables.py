"""Tables: columns, values by hand, the same bytes again, and LaTeX that compiles."""

import io
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from paper.measures import movement
from paper.results import read
from paper.tables import imagenet, main
from tests.paper.conftest import Study, copied_study

NAMES = (
    "table1_correlation",
    "table2_generated_weights",
    "table3_main",
    "table4_ablations",
    "table5_imagenet",
)


def frame(folder, name):
    return pd.read_csv(folder / f"tables/{name}.csv")


def test_every_table_in_every_form(made):
    files = {path.name for path in (made / "tables").iterdir()}
    assert files == {f"{name}{ending}" for name in NAMES for ending in (".csv", ".md", ".tex")}


def test_columns_of_the_main_table(made):
    header = (made / "tables/table3_main.csv").read_text().splitlines()[0]
    assert header == (
        "model,method,budget,macs,macs_ratio,params,top1_mean,top1_low,top1_high,seeds,"
        "evaluations,search_seconds,images_seen"
    )


def test_a_row_of_the_main_table_by_hand(made):
    final = json.loads((made / "final/resnet20/amc/0.5/0+1+2/metrics.json").read_text())["seeds"]
    run = json.loads((made / "search/resnet20/amc/0.5/0+1+2/run.json").read_text())
    base = json.loads((made / "base/resnet20/metrics.json").read_text())
    top1 = pd.Series([seed["test_top1"] for seed in final.values()])
    half = 4.302653 * top1.std() / 3**0.5
    macs = sum(seed["macs"] for seed in final.values()) / 3
    main_table = frame(made, "table3_main").set_index(["method", "budget"])
    row = main_table.loc[("amc", 0.5)]
    assert row["top1_mean"] == pytest.approx(top1.mean(), abs=5e-4)
    assert row["top1_low"] == pytest.approx(top1.mean() - half, abs=1e-3)
    assert row["top1_high"] == pytest.approx(top1.mean() + half, abs=1e-3)
    assert row["macs"] == round(macs)
    assert row["macs_ratio"] == pytest.approx(macs / base["macs"], abs=5e-5)
    assert row["seeds"] == 3
    seconds = sum(run["seconds_by_seed"].values()) / 3
    assert row["search_seconds"] == pytest.approx(seconds, abs=0.051)
    assert (row["evaluations"], row["images_seen"]) == (60, 120_000)
    assert main_table.loc[("uniform", 0.5), "evaluations"] == 1


def test_the_base_network_is_a_row_without_interval(made):
    row = frame(made, "table3_main").iloc[0]
    assert (row["method"], row["budget"], row["macs_ratio"], row["seeds"]) == ("base", 1, 1, 1)
    assert row["top1_mean"] == 91.37
    assert pd.isna(row["top1_low"])
    assert pd.isna(row["top1_high"])
    assert row["images_seen"] == 0


def test_shares_over_thresholds_by_hand(made):
    channels = pd.read_csv(made / "correlation/resnet20/channels.csv")
    table = frame(made, "table1_correlation").set_index(["study", "network", "pair"]).loc["made"]
    for (network, pair), part in channels.groupby(["network", "pair"]):
        row = table.loc[(network, pair)]
        for threshold in (0.5, 0.7, 0.9):
            share = (part["r2"] > threshold).sum() / len(part)
            assert row[f"share_over_{threshold}"] == pytest.approx(share, abs=5e-5)
        assert row["r2_median"] == pytest.approx(part["r2"].median(), abs=5e-5)
        assert row["r2_median_low"] <= row["r2_median"] <= row["r2_median_high"]
        assert row["layers"] == 9


def test_tau_and_its_number_of_candidates(made):
    from scipy import stats

    candidates = pd.read_csv(made / "generated/resnet20/candidates.csv").dropna()
    table = frame(made, "table2_generated_weights").set_index("conditioning")
    for conditioning, part in candidates.groupby("conditioning"):
        tau = stats.kendalltau(part["top1_generated"], part["top1_trained"]).statistic
        assert table.loc[conditioning, "tau"] == pytest.approx(tau, abs=5e-5)
        assert table.loc[conditioning, "tau_candidates"] == len(part) == 12


def test_ablations_are_paired_with_ours(made):
    table = frame(made, "table4_ablations").set_index(["variant", "at", "quantity"])
    found = read(made)
    ours = found.test_top1("resnet20", "graphpruning", "0.5")
    other = found.test_top1("resnet20", "hand-crafted", "0.5")
    difference = sum(ours[seed] - other[seed] for seed in ours) / 3
    row = table.loc[("hand-crafted", "budget 0.5", "top1_test")]
    assert row["difference"] == pytest.approx(difference, abs=5e-5)
    # Another PruningNet's accuracies on the search split are not compared with ours.
    assert pd.isna(table.loc[("no-edges", "budget 0.5", "top1_search"), "difference"])
    assert table.loc[("none", "distance 2", "movement"), "mean"] == 0
    assert len(movement(found, "resnet20", "graph", 2, 2).groups) == 12


def test_published_numbers_stay_as_printed_and_none_is_the_authors(made):
    published = pd.read_csv("paper/published.csv", dtype=str, keep_default_na=False)
    text = (made / "tables/table5_imagenet.csv").read_text()
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    columns = ["model", "dataset", "method", "setting", "top1", "top5", "macs_m", "source", "note"]
    assert table[columns].equals(published[columns])
    assert "graphpruning" not in set(table["method"])
    markdown = (made / "tables/table5_imagenet.md").read_text()
    assert "| — |" in markdown
    assert "—: the source gives no number." in markdown


def test_our_rows_join_the_published_ones_of_the_same_data(tmp_path):
    study = Study(tmp_path / "imagenet", methods=("graphpruning",))
    study.study["data"] = {"name": "imagenet"}
    rows = imagenet(read(study.write())).csv
    ours = rows[rows["source"] == "measured here, results/imagenet"]
    assert list(ours["method"]) == ["base", "graphpruning", "graphpruning"]
    assert list(ours["top5"]) == ["99.250", "99.000", "99.000"]


def test_the_same_bytes_again(made, tmp_path):
    before = {path.name: path.read_bytes() for path in (made / "tables").iterdir()}
    again = copied_study(made, tmp_path, without="tables")
    assert main([str(again)]) == 0
    assert before == {path.name: path.read_bytes() for path in (again / "tables").iterdir()}


def test_latex_compiles(made, tmp_path):
    inputs = "\n".join(f"\\input{{{made}/tables/{name}}}" for name in NAMES)
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
        text = (made / f"tables/{name}.tex").read_text()
        begun, ended = (re.findall(rf"\\{word}{{(.*?)}}", text) for word in ("begin", "end"))
        assert begun == ended[::-1] == ["table*", "tabular"]
        rows = re.findall(r"^(.*) \\\\$", text, re.MULTILINE)
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
