"""A study of ready-made networks: its stages in turn, and the tables made from their files."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from experiments.common.stage import Context
from experiments.common.study import load, parse
from experiments.correlation import CHANNELS, SHOWN, _shown, _thinned, correlation
from experiments.prepare import prepare
from experiments.train_base import train_base
from graphpruning.common.errors import UserError
from graphpruning.correlation import Pair, Representation
from graphpruning.network.zoo import build
from paper import tables

ROOT = Path(__file__).parents[2]
EMPTY: dict[str, Any] = {"budgets": [], "seeds": [], "methods": []}
STAGES = ("base", "correlation")
MODELS = {"resnet8": {"width": 8}, "mobilenet_v1": {"width": 0.25}}


def study(weights: str) -> dict[str, Any]:
    """The smoke study's images, with networks from files and nothing after the correlation."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text()) | EMPTY
    raw["study"] = "pretrained"
    raw["models"] = list(MODELS)
    raw["networks"] = {
        model: {"options": options, "weights": weights.format(model)}
        for model, options in MODELS.items()
    }
    raw["searches"] = {source: [] for source in raw["searches"]}
    for section in ("pruningnet", "analysis"):
        raw[section] = raw[section] | {"conditionings": []}
    return raw


def context(raw: dict[str, Any], **items: str) -> Context:
    return Context("stage", tuple(raw), parse(raw), items)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stages have run."""
    folder = tmp_path_factory.mktemp("ready")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NETS", str(folder))
        for model, options in MODELS.items():
            torch.manual_seed(5)
            torch.save(build(model, 10, 1, **options).state_dict(), folder / f"{model}.pth")
        raw = study("$NETS/{}.pth")
        prepare(context(raw))
        for model in MODELS:
            train_base(context(raw, model=model))
            correlation(context(raw, model=model))
    return folder


def test_tables_are_made_from_its_files(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but the sidecars, which a stage's command line adds."""
    sidecar = json.loads((ROOT / "results/desk/splits/run.json").read_text())
    of_model = {
        f"{folder}/{model}": f"{stage}@pretrained-{model}"
        for folder, stage in zip(STAGES, ("train_base", "correlation"), strict=True)
        for model in MODELS
    }
    for folder, stage in {"splits": "prepare@pretrained", **of_model}.items():
        its = sidecar | {"stage": stage, "record": f"records/{stage}"}
        (made / f"results/pretrained/{folder}/run.json").write_text(json.dumps(its))
    assert tables.main([str(made / "results/pretrained")]) == 0, capsys.readouterr().err
    text = (made / "results/pretrained/tables/table1_correlation.md").read_text()
    assert "In mobilenet_v1 no block has a shortcut" in text
    assert "resnet8: weights resnet8.pth, top-1" in text


def metrics(folder: Path, stage: str, model: str) -> dict[str, Any]:
    path = folder / f"results/pretrained/{stage}/{model}/metrics.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_base_is_the_file_that_was_named(made: Path) -> None:
    found = metrics(made, "base", "resnet8")
    assert found["weights"]["source"] == "resnet8.pth"
    assert len(found["weights"]["sha256"]) == 64
    assert found["epochs"] == 0
    assert 0 <= found["test_top1"] <= found["test_top5"] <= 100
    assert found["search_top1"] is not None  # the smoke study holds images out
    kept = load_file(made / "models/pretrained/resnet8/base.safetensors")
    for name, tensor in torch.load(made / "resnet8.pth", weights_only=True).items():
        assert torch.equal(kept[name], tensor)
    curve = (made / "results/pretrained/base/resnet8/curve.csv").read_text()
    assert curve == "epoch,lr,train_loss,train_top1,search_top1\n"


def test_its_layers_are_compared(made: Path) -> None:
    folder = made / "results/pretrained/correlation/resnet8"
    assert metrics(made, "correlation", "resnet8")["pairs"] == 6
    with open(folder / "channels.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * (8 + 16 + 32)
    assert {row["network"] for row in rows} == {"trained", "untrained"}
    assert len(json.loads((folder / "heatmaps.json").read_text())) == 2 * 6


def test_a_network_without_shortcuts_has_no_pairs(made: Path) -> None:
    folder = made / "results/pretrained/correlation/mobilenet_v1"
    found = metrics(made, "correlation", "mobilenet_v1")
    assert found["pairs"] == 0 and found["median_r2"] == {}
    assert (folder / "channels.csv").read_text() == (
        "network,pair,former,deeper,channel,best_match,r2\n"
    )
    assert json.loads((folder / "heatmaps.json").read_text()) == []


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
        train_base(context(raw, model="resnet8"))
    assert metrics(made, "base", "resnet8") == before


def test_a_base_that_is_trained_needs_images_to_judge_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = study("net.pth")
    raw["networks"]["resnet8"]["weights"] = None
    raw["data"] = raw["data"] | {"search_images": 0}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="search_images: 0, but"):
        prepare(context(raw))


def judged(deeper: int, former: int, name: str = "deeper") -> Representation:
    matrix = torch.rand(deeper, former, generator=torch.Generator().manual_seed(deeper))
    pair = Pair("in_block", "former", name)
    return Representation(pair, matrix, matrix.amax(dim=1), matrix[:, 0])


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
    layers = [judged(width, 4, f"layer{width}") for width in range(2, 12)]
    shown = _shown(layers)
    assert len(shown) == SHOWN and {"layer2", "layer11"} <= shown
    assert _shown([]) == set()


def test_the_committed_study_is_valid() -> None:
    raw = load(ROOT / "studies/pretrained.yaml")
    assert raw["networks"]["mobilenet_v2"]["weights"] == "torchvision:IMAGENET1K_V1"
    fits = raw["correlation"]["images"] // 2 * raw["correlation"]["positions"]
    assert fits >= 4 * 960  # of the widest layer's channels
