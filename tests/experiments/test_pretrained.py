"""Networks that others trained: their small pipeline, and the tables made from its files."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from experiments import pretrained
from experiments.common.stage import Context
from experiments.common.study_file import read_study_file
from experiments.correlation import CHANNELS, SHOWN, _shown, _thinned
from graphpruning.common.errors import UserError
from graphpruning.correlation import Fit, Pair, Representation
from graphpruning.network.zoo import build
from paper import tables
from tests.experiments.stages import work

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "pretrained/params.yaml"
MODELS = {"resnet8": {"width": 8}, "mobilenet_v1": {"width": 0.25}}
RESULTS = Path("results/pretrained")


def study(weights: str, **changes: Any) -> dict[str, Any]:
    """The committed study with the smoke study's images, and networks from files."""
    smoke = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    raw: dict[str, Any] = yaml.safe_load(PARAMS.read_text())
    raw |= {key: smoke[key] for key in ("data", "precision", "threads", "correlation")}
    raw["models"] = list(MODELS)
    raw["networks"] = {
        model: {"options": options, "weights": weights.format(model)}
        for model, options in MODELS.items()
    }
    return raw | changes


def context(raw: dict[str, Any]) -> Context:
    return pretrained.STAGE._context(pretrained.parse(raw), {})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the pipeline has run."""
    folder = tmp_path_factory.mktemp("ready")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NETS", str(folder))
        for model, options in MODELS.items():
            torch.manual_seed(5)
            torch.save(build(model, 10, 1, **options).state_dict(), folder / f"{model}.pth")
        work(pretrained.STAGE, context(study("$NETS/{}.pth")))
    return folder


def test_tables_are_made_from_its_files(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main([str(made / RESULTS)]) == 0, capsys.readouterr().err
    text = (made / RESULTS / "tables/table1_correlation.md").read_text()
    assert "In mobilenet_v1 no block has a shortcut" in text
    assert "resnet8: weights resnet8.pth, top-1" in text


def test_what_other_studies_read_of_it_is_there(made: Path) -> None:
    """dvc.yaml's tables depend on these."""
    about = json.loads((made / RESULTS / "study.json").read_text())
    assert about["models"] == list(MODELS) and about["seeds"] == [0]
    assert about["methods"] == about["budgets"] == [] and about["rows"] == {}
    stages = {"splits": "prepare@pretrained"} | {
        f"{folder}/{model}/0": f"{stage}@pretrained-{model}-0"
        for folder, stage in (("base", "train_base"), ("correlation", "correlation"))
        for model in MODELS
    }
    for folder, stage in stages.items():
        sidecar = json.loads((made / RESULTS / folder / "run.json").read_text())
        assert sidecar["seconds"] > 0 and sidecar["stage"] == stage
        assert sidecar["command"] == "python -m experiments.pretrained"
    listed = yaml.safe_load((ROOT / "pretrained/dvc.yaml").read_text())["stages"]["pretrained"]
    outputs = [next(iter(output)) for output in listed["outs"]]
    assert all((made / output).exists() for output in outputs)
    assert {Path(output).parts[2] for output in outputs} == {
        path.name for path in (made / RESULTS).iterdir() if path.name != "tables"
    }


def metrics(folder: Path, stage: str, model: str) -> dict[str, Any]:
    path = folder / RESULTS / stage / model / "0/metrics.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_base_is_the_file_that_was_named(made: Path) -> None:
    found = metrics(made, "base", "resnet8")
    assert found["weights"]["source"] == "resnet8.pth"
    assert len(found["weights"]["sha256"]) == 64
    assert found["epochs"] == 0
    assert 0 <= found["test_top1"] <= found["test_top5"] <= 100
    assert found["search_top1"] is not None  # the smoke study holds images out
    kept = load_file(made / "models/pretrained/resnet8/0/base.safetensors")
    for name, tensor in torch.load(made / "resnet8.pth", weights_only=True).items():
        assert torch.equal(kept[name], tensor)
    curve = (made / RESULTS / "base/resnet8/0/curve.csv").read_text()
    assert curve == "epoch,lr,train_loss,train_top1,search_top1\n"


def test_its_layers_are_compared(made: Path) -> None:
    folder = made / RESULTS / "correlation/resnet8/0"
    assert metrics(made, "correlation", "resnet8")["pairs"] == 3
    with open(folder / "channels.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (8 + 16 + 32)
    assert {row["network"] for row in rows} == {"trained", "untrained"}
    assert len(json.loads((folder / "heatmaps.json").read_text())) == 2 * (3 + 1)


def test_a_network_without_shortcuts_has_no_pairs(made: Path) -> None:
    folder = made / RESULTS / "correlation/mobilenet_v1/0"
    found = metrics(made, "correlation", "mobilenet_v1")
    assert found["pairs"] == 0 and found["median_r2"] == {}
    assert (folder / "channels.csv").read_text() == (
        "network,former,deeper,channel,controls,best_match,control_match,r2,control_r2,"
        "r2_activated,control_r2_activated\n"
    )
    assert json.loads((folder / "heatmaps.json").read_text()) == []


def test_it_may_hold_no_images_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is searched: as the committed study, whose images all go to the correlation."""
    monkeypatch.chdir(tmp_path)
    torch.save(build("resnet8", 10, 1, width=8).state_dict(), tmp_path / "resnet8.pth")
    raw = study(str(tmp_path / "{}.pth"), models=["resnet8"])
    raw["data"] |= {"search_images": 0}
    work(pretrained.STAGE, context(raw))
    assert metrics(tmp_path, "base", "resnet8")["search_top1"] is None


def without(raw: dict[str, Any]) -> None:
    raw["networks"]["resnet8"]["weights"] = "elsewhere/net.pth"


def of_another(raw: dict[str, Any]) -> None:
    raw["networks"]["resnet8"]["weights"] = "$NETS/mobilenet_v1.pth"


@pytest.mark.parametrize(
    ("change", "says"),
    [(without, "elsewhere/net.pth is missing"), (of_another, "does not fit resnet8")],
)
def test_weights_that_cannot_be_used_are_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setenv("NETS", str(made))
    raw = study("$NETS/{}.pth")
    change(raw)
    before = metrics(made, "base", "resnet8")
    with pytest.raises(UserError, match=says):
        work(pretrained.STAGE, context(raw))
    assert metrics(made, "base", "resnet8") == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": ["resnet8"]}, "unknown key 'model'; did you mean 'models'?"),
        ({"budgets": [0.5]}, "unknown key 'budgets'"),
        ({"models": []}, "models: the list is empty"),
        ({"models": ["resnet20"]}, "networks: resnet20: weights: say whose, such as torchvision:"),
        ({"networks": {"resnet8": {}}}, "networks: resnet8: weights: say whose"),
        ({"study": "../x"}, "study: '../x' is no plain name"),
        ({"models": ["a b"]}, "models: 'a b' is no plain name"),
        ({"threads": 0}, "threads: 0 does not lie between 1 and"),
        ({"title": "a\nb"}, "title: 'a\\nb' is no line of text"),
        ({"correlation": {"images": 0, "positions": 4}}, "correlation: images: 0 are too few"),
        ({"correlation": {"images": 10}}, "correlation: key 'positions' is missing"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refusal:
        pretrained.parse(study("{}.pth") | changes)
    assert str(refusal.value).startswith(f"pretrained/params.yaml: {says}")
    assert len(str(refusal.value).splitlines()) == 1


def judged(deeper: int, former: int) -> Fit:
    matrix = torch.rand(deeper, former, generator=torch.Generator().manual_seed(deeper))
    return Fit(matrix, matrix.amax(dim=1), matrix[:, 0])


def test_heat_maps_of_wide_layers_are_thinned() -> None:
    small, wide = judged(16, 24), judged(300, 200)
    assert torch.equal(_thinned(small), small.matrix)
    thinned = _thinned(wide)
    assert thinned.shape == (CHANNELS, CHANNELS)
    # Every channel shown has its best match beside it; the best and the worst are among them.
    matches = thinned.amax(dim=1)
    assert torch.isin(matches, wide.best_match).all()
    assert matches.max() == wide.best_match.max() and matches.min() == wide.best_match.min()


def test_few_layers_are_shown() -> None:
    layers = [
        Representation(Pair("in_block", "former", f"layer{width}"), {"own": judged(width, 4)})
        for width in range(2, 12)
    ]
    shown = _shown(layers)
    assert len(shown) == SHOWN and {"layer2", "layer11"} <= shown
    assert _shown([]) == set()


def test_the_committed_study_is_valid() -> None:
    found = pretrained.parse(read_study_file(PARAMS), str(PARAMS))
    assert found.networks["mobilenet_v2"].weights == "torchvision:IMAGENET1K_V1"
    fits = found.correlation.images // 2 * found.correlation.positions
    assert fits >= 4 * 960  # of the widest layer's channels
