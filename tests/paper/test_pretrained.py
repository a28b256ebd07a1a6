"""The network beside a study's own, a study without methods, and networks without shortcuts."""

import json
import re
import shutil

import pandas as pd
import pytest

from graphpruning.common.errors import UserError
from paper import figures, report, tables
from paper.captions import budget_amount, budget_name, captions
from paper.claims import claims, representable
from paper.reader.results import read
from paper.rule import HOLDS, UNDECIDED, UNTESTED
from paper.table_formats import to_markdown
from paper.table_main import main_results
from paper.table_networks import correlation
from tests.paper.conftest import Study, copied_study

OF_NETWORKS = ["figure1_correlation_heatmaps", "figure2_r2_distributions", "figure3_graph"]


def make(folder):
    for program in (tables, figures, report):
        assert program.main([str(folder)]) == 0
    return {path.stem for path in folder.glob("[tf]*s/*")}, (folder / "report.html").read_text()


def test_table1_has_both_networks_with_both_controls(tabled):
    table = pd.read_csv(tabled / "tables/table1_correlation.csv")
    assert [*table.groupby(["study", "model"], sort=False).size().items()] == [
        (("made", "resnet20"), 12),
        (("pretrained", "mobilenet_v2"), 12),
    ]
    text = (tabled / "tables/table1_correlation.md").read_text()
    assert (
        "resnet20: trained here, top-1 91.5 [91.2, 91.7] %, top-5 99.2 [99.2, 99.2] % on 1,000 test"
        in text
    )
    assert "weights torchvision:SOME, top-1 81.6 %, top-5 97.2 % on 250 test images" in text


def test_a_sentence_says_for_each_network_whether_c1_holds(results, found, tmp_path):
    says = "C1 holds in resnet20 and mobilenet_v2 (pretrained)."
    assert representable(found) == says
    for name in ("table1_correlation", "figure1_correlation_heatmaps", "figure2_r2_distributions"):
        assert captions(found)[name].text.endswith(says)
    # A pretrained network whose untrained twin explains as much decides nothing.
    other = copied_study(results, tmp_path).with_name("pretrained")
    path = other / "correlation/mobilenet_v2/0/channels.csv"
    frame = pd.read_csv(path)
    trained = frame["network"] == "trained"
    frame.loc[~trained, "r2"] = frame.loc[trained, "r2"].to_numpy()
    frame.to_csv(path, index=False)
    changed = read(tmp_path / "made")
    assert representable(changed) == (
        "C1 holds in resnet20 and is undecided in mobilenet_v2 (pretrained)."
    )
    first = claims(changed)[0]
    assert (first.id, first.verdict) == ("C1", UNDECIDED)
    assert "In mobilenet_v2 (pretrained) the median R²" in first.evidence


def judged_before(pretrained):
    """The files of a network that was judged when there was one control, without validation."""
    folder = pretrained / "correlation/mobilenet_v2/0"
    frame = pd.read_csv(folder / "channels.csv")
    frame["controls"] = frame["controls"].clip(upper=1)
    frame[["r2_activated", "control_r2_activated"]] = ""
    frame.to_csv(folder / "channels.csv", index=False)
    about = json.loads((folder / "metrics.json").read_text())
    about |= {"controls": 6, "ridge": [0.001]}
    del about["borders"]
    (folder / "borders.csv").unlink()
    (folder / "metrics.json").write_text(json.dumps(about))


def test_what_is_old_about_a_network_is_said(results, found, tmp_path):
    assert "judged before" not in captions(found)["table1_correlation"].text
    folder = copied_study(results, tmp_path)
    judged_before(folder.with_name("pretrained"))
    old_found = read(folder)
    says = captions(old_found)["table1_correlation"].text
    assert (
        "mobilenet_v2 (pretrained): at most one control a layer, drawn at random, a fixed" in says
    )
    evidence = claims(old_found)[0].evidence
    assert "drawn at random, a fixed ridge strength (0.001)" in evidence
    assert "6 of the 9 layers have a control that is an earlier layer" in evidence
    assert evidence.count("After normalisation and activation") == 1
    table = correlation(old_found).csv
    old = table[table["study"] == "pretrained"]
    assert len(old) == 4 and set(old["output"]) == {"own"}


@pytest.mark.parametrize(
    ("column", "value"),
    [("channel", 1), ("channel", 16), ("former", "nowhere"), ("r2", 1.5), ("network", "strained")],
)
def test_a_damaged_table_of_borders_is_refused(results, tmp_path, capsys, column, value):
    path = copied_study(results, tmp_path) / "correlation/resnet20/0/borders.csv"
    frame = pd.read_csv(path)
    frame[column] = frame[column].astype(object)
    frame.loc[0, column] = value
    frame.to_csv(path, index=False)
    assert tables.main([str(path.parents[3])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and "(dvc repro " in line


def test_borders_are_those_of_both_networks(results, tmp_path, capsys):
    path = copied_study(results, tmp_path) / "correlation/resnet20/0/borders.csv"
    frame = pd.read_csv(path)
    first = (frame["network"] == "untrained") & (frame["deeper"] == frame["deeper"][0])
    frame.loc[first, "former"] = frame["former"].iloc[-1]
    frame.to_csv(path, index=False)
    assert tables.main([str(path.parents[3])]) == 2
    assert "not every channel of 6 pairs in two networks" in capsys.readouterr().err


def test_layers_without_an_earlier_one_of_their_size_have_no_control(found):
    evidence = claims(found)[0].evidence
    says = "6 of the 9 layers have earlier layers of equal resolution in other blocks as controls"
    assert evidence.count(says) == 2
    table = correlation(found).csv.set_index(["study", "network", "pair", "output"])["layers"]
    assert table["made", "trained", "in_block", "own"] == "9"
    assert table["made", "trained", "other_block", "own"] == "6"


def test_without_the_pretrained_results_one_line_names_them(results, tmp_path, capsys):
    copied = copied_study(results, tmp_path)
    shutil.rmtree(tmp_path / "pretrained")
    assert tables.main([str(copied)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/pretrained/study.json is missing: the stage pretrained")


def test_a_study_without_methods_has_its_networks_alone(results, tmp_path):
    folder = copied_study(results, tmp_path).with_name("pretrained")
    names, text = make(folder)
    assert names == {"table1_correlation", *OF_NETWORKS}
    assert re.findall(r'<article class="claim \S+" id="(C\d)">', text) == ["C1"]
    assert "Main results" not in text
    assert "mobilenet_v2: weights torchvision:SOME, top-1 81.6 %" in text
    assert "0 search" not in text


def test_a_network_without_shortcuts_is_said_and_not_drawn(tmp_path):
    folder = Study(
        tmp_path / "plain",
        methods=("graphpruning",),
        budgets=(0.5,),
        seeds=(0,),
        candidates=2,
        shortcuts=False,
    ).write()
    found = read(folder)
    assert representable(found) == (
        "C1 holds in mobilenet_v2 (pretrained). "
        "In resnet20 no block has a shortcut, so it is not tested."
    )
    assert claims(found)[0].verdict == HOLDS
    names, text = make(folder)
    assert {"table1_correlation", *OF_NETWORKS} < names
    assert "In resnet20 no block has a shortcut" in text


def test_without_any_shortcut_c1_is_not_tested(tmp_path):
    plain = Study(tmp_path / "pretrained", models=("vgg",), methods=(), shortcuts=False).write()
    assert claims(read(plain))[0].verdict == UNTESTED
    assert make(plain)[0] == {"figure3_graph"}


def test_a_network_of_both_studies_is_told_apart(tmp_path):
    folder = Study(tmp_path / "own", models=("mobilenet_v2",), methods=("graphpruning",)).write()
    found = read(folder)
    text = to_markdown(correlation(found), captions(found)["table1_correlation"])
    assert "| mobilenet_v2 | trained | same block |" in text
    assert "| mobilenet_v2 (pretrained) | trained | same block |" in text


def test_budgets_may_be_labels(tmp_path):
    study = Study(
        tmp_path / "labels",
        models=("one", "other"),
        methods=("graphpruning", "uniform"),
        budgets=("large", 0.5, "2M"),
        seeds=(0,),
        candidates=3,
    )
    study.labels = {"one": {"large": 2_000_000_000}, "other": {"large": 316_000_000}}
    found = read(study.write())
    assert budget_amount(found, "large", "one") == "large (2G)"
    assert budget_name(found, "large", "other") == "large (316M) budget"
    assert budget_amount(found, "large") == "large"
    assert budget_amount(found, "0.5") == "50 %"
    assert budget_name(found, "2M") == "2M MACs"
    shown = main_results(found).shown
    assert list(shown["Budget"].unique()) == ["—", "large (2G)", "50 %", "2M", "large (316M)"]


def test_weights_without_a_hash_are_damage(results, tmp_path):
    folder = copied_study(results, tmp_path).with_name("pretrained")
    path = folder / "base/mobilenet_v2/0/metrics.json"
    value = json.loads(path.read_text())
    del value["weights"]["sha256"]
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match="no 'sha256'"):
        read(folder)
