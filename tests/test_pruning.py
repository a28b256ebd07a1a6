"""`prune`, end to end on a small folder of images: results, resumption, refusals, ONNX."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from graphpruning import UserError, load_architecture, prune, pruning
from graphpruning.__main__ import main
from graphpruning.arguments import patterns
from graphpruning.common.files import alone
from graphpruning.folder_task import recipes_for
from graphpruning.goals import WORK
from graphpruning.methods import METHODS
from graphpruning.network.zoo import build, seeded
from graphpruning.training.datasets import load
from graphpruning.training.images import prepared
from graphpruning.training.preprocessing import Preprocessing
from tests.coloured_images import coloured_images

SIZE = (3, 32, 32)
ROOT = Path(__file__).parents[1]
ARGUMENTS: dict[str, Any] = {
    "budget": 0.5,
    "input_size": SIZE,
    "epochs": 2,
    "pruningnet_epochs": 1,
    "evaluations": 12,
    "batch_size": 16,
    "precision": "32-true",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a base, as a user would have saved them."""
    file = tmp_path_factory.mktemp("weights") / "base.pth"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.save(build("resnet8", 3).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def pruned(images: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pruned") / "out"
    prune("resnet8", images, out=out, weights=weights, **ARGUMENTS)
    return out


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed; which also saves seconds."""
    monkeypatch.setattr("graphpruning.export.find_spec", lambda name: None)


def report_of(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "report.json").read_text())
    return result


def test_the_folder_holds_what_is_promised(pruned: Path) -> None:
    names = {"architecture.json", "weights.safetensors", "network.onnx", "report.md", "report.json"}
    assert {path.name for path in pruned.iterdir()} == names


def test_the_network_has_the_accuracy_and_costs_of_the_report(pruned: Path, images: Path) -> None:
    report = report_of(pruned)
    model = load_architecture(pruned / "architecture.json")
    described = json.loads((pruned / "architecture.json").read_text())
    preprocessing = Preprocessing.from_dict(described["preprocessing"])
    test = prepared(load("folder", images, False, preprocessing), preprocessing, 12)
    hits = sum(int((model(batch).argmax(1) == labels).sum()) for batch, labels in test)
    assert report["after"]["top1"] == pytest.approx(100 * hits / 36)
    assert report["after"]["params"] == sum(p.numel() for p in model.parameters())
    assert 0.49 * report["before"]["macs"] <= report["after"]["macs"]
    assert report["after"]["macs"] <= report["settings"]["budget_macs"]
    assert described["macs"] == report["after"]["macs"]
    kept = {group: widths[1] for group, widths in report["widths"].items()}
    assert kept == described["widths"]


def test_before_is_the_base_with_its_weights(pruned: Path, images: Path, weights: Path) -> None:
    report = report_of(pruned)
    base = build("resnet8", 3)
    base.load_state_dict(torch.load(weights, weights_only=True))
    preprocessing = Preprocessing.from_dict(report["settings"]["preprocessing"])
    test = prepared(load("folder", images, False, preprocessing), preprocessing, 12)
    base.eval()
    hits = sum(int((base(batch).argmax(1) == labels).sum()) for batch, labels in test)
    assert report["before"]["top1"] == pytest.approx(100 * hits / 36)
    assert report["settings"]["weights"]["source"] == "base.pth"


def test_onnx_gives_the_outputs_of_pytorch(pruned: Path) -> None:
    model = load_architecture(pruned / "architecture.json")
    images = torch.randn(5, *SIZE)
    session = onnxruntime.InferenceSession(pruned / "network.onnx")
    (found,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(images), rtol=1e-4, atol=1e-4)
    assert report_of(pruned)["onnx"]["difference"] <= 1e-4


def test_class_names_travel_along_in_the_order_of_the_outputs(
    pruned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page for users shows how to read them; its code compares architecture and ONNX."""
    names = ["blue", "green", "red"]
    assert report_of(pruned)["classes"] == names
    assert "in order: `blue`, `green`, `red`." in (pruned / "report.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/images.md").read_text(), re.DOTALL)
    (pruned.parent / "pruned").symlink_to(pruned)
    monkeypatch.chdir(pruned.parent)
    read: dict[str, Any] = {}
    exec(code, read)
    assert read["classes"] == names


def test_the_report_for_people_has_the_same_numbers(pruned: Path) -> None:
    report, text = report_of(pruned), (pruned / "report.md").read_text()
    for part in ("before", "after"):
        assert f"{report[part]['top1']:.2f}" in text
        assert f"{report[part]['macs']:,}" in text
    assert "12 candidates judged on 7 images" in text
    assert "the trained network's weights, cut and fitted again" in text
    assert "1e-04" in text


@pytest.mark.usefixtures("no_onnx")
def test_a_killed_run_continues_to_the_same_result(
    pruned: Path, images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = [
        "prune",
        "--model",
        "resnet8",
        "--weights",
        str(weights),
        "--data",
        str(images),
        "--out",
        str(out),
        "--budget",
        "0.5",
        "--input-size",
        "3",
        "32",
        "32",
        "--epochs",
        "2",
        "--pruningnet-epochs",
        "1",
        "--evaluations",
        "12",
        "--batch-size",
        "16",
        "--precision",
        "32-true",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "graphpruning", *options],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    journal = out / WORK / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "report.json").exists()

    assert main(options) == 0
    assert "PruningNet: epoch" not in capsys.readouterr().out
    assert not (out / WORK).exists()
    same = ("architecture.json", "weights.safetensors")
    assert [(out / f).read_bytes() for f in same] == [(pruned / f).read_bytes() for f in same]
    found, expected = report_of(out), report_of(pruned)
    for key in ("widths", "search_top1", "settings"):
        assert found[key] == expected[key]
    assert found["after"]["top1"] == expected["after"]["top1"]


def killed_after_the_search(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Leave what such a run leaves in `out`; return its arguments."""
    arguments = {**ARGUMENTS, "epochs": 1, "evaluations": 4}
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "found_network", lambda *_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            prune("resnet8", images, out=out, **arguments)
    return arguments


@pytest.mark.usefixtures("no_onnx")
@pytest.mark.parametrize("changed", [False, True])
def test_what_other_code_left_is_not_gone_on_from(
    changed: bool,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = killed_after_the_search(images, tmp_path, monkeypatch)
    if changed:
        monkeypatch.setattr(pruning, "code_digest", lambda: "of other code")
    capsys.readouterr()
    prune("resnet8", images, out=tmp_path, **arguments)
    printed = capsys.readouterr().out
    assert ("pruningnet.pt: of a run with other code, ignored" in printed) == changed
    assert ("PruningNet: epoch" in printed) == changed


@pytest.mark.usefixtures("no_onnx")
def test_images_replaced_by_others_of_as_many_bytes_are_other_images(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BMP files of one size always have as many."""
    data = tmp_path / "data"
    for path in images.rglob("*.png"):
        copy = (data / path.relative_to(images)).with_suffix(".bmp")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copy)
    arguments = {**ARGUMENTS, "epochs": 1, "method": "uniform"}
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "save_architecture", lambda *_, **__: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            prune("resnet8", data, out=tmp_path / "out", **arguments)
    for path in data.rglob("*.bmp"):
        was = path.stat()
        inverted = ImageOps.invert(Image.open(path))
        inverted.save(path)
        assert path.stat().st_size == was.st_size
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    prune("resnet8", data, out=tmp_path / "out", **arguments)
    prune("resnet8", data, out=tmp_path / "anew", **arguments)
    files = [tmp_path / part / "weights.safetensors" for part in ("out", "anew")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.usefixtures("no_onnx")
def test_another_spelling_of_the_folder_or_more_candidates_keep_the_pruningnet(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its training takes longest, and depends on neither."""
    arguments = killed_after_the_search(images, tmp_path, monkeypatch)
    monkeypatch.chdir(images.parent)
    capsys.readouterr()
    prune("resnet8", f"{images.name}/", out=tmp_path, **{**arguments, "evaluations": 5})
    printed = capsys.readouterr().out
    assert "PruningNet: epoch" not in printed and "search" in printed


def left_or_right(folder: Path) -> Path:
    """Images whose left (or right) half is bright."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 12)):
        for name in ("left", "right"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 100, (32, 32, 3))
                pixels[:, slice(16) if name == "left" else slice(16, None)] += 100
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / part / name / f"{number}.png")
    return folder


def where_it_is() -> nn.Module:
    """A network that knows on which side something is."""
    first = [nn.Conv2d(3, 16, 8, 8), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(16 * 4 * 4, 2))


@pytest.mark.usefixtures("no_onnx")
def test_classes_of_left_and_right_are_learned_without_mirrored_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With them half of the images look as the other class does, and nothing can be learned."""
    data = left_or_right(tmp_path / "data")
    arguments = {**ARGUMENTS, "epochs": 8, "method": "uniform"}
    learned = {}
    for flip in (True, False):
        report = prune(where_it_is, data, out=tmp_path / str(flip), flip=flip, **arguments)
        assert report["settings"]["preprocessing"]["flip"] is flip
        *_, last = re.findall(
            r"final training: epoch.*train_top1 ([\d.]+)", capsys.readouterr().out
        )
        learned[flip] = float(last)
    assert report["after"]["top1"] >= 95 and learned[False] >= 95 and learned[True] <= 75


class OldCode(nn.Module):
    """It flattens by `view`, and a size that stands in it keeps the second layer's channels."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.conv, self.conv2 = nn.Conv2d(3, 16, 5), nn.Conv2d(16, 16, 5)
        self.fc, self.fc2 = nn.Linear(16 * 25, 24), nn.Linear(24, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(self.conv(x).relu(), 2)
        x = nn.functional.max_pool2d(self.conv2(x).relu(), 2).view(-1, 16 * 5 * 5)
        scores: torch.Tensor = self.fc2(self.fc(x).relu())
        return scores


def test_old_code_is_exported(images: Path, tmp_path: Path) -> None:
    """`view` does not do with images in channels_last, as networks are trained on."""
    with seeded(0):
        model = OldCode().eval()
    report = prune(model, images, out=tmp_path, **{**ARGUMENTS, "method": "uniform"})
    assert report["onnx"]["difference"] <= 1e-4 and (tmp_path / "network.onnx").exists()


@pytest.mark.usefixtures("no_onnx")
@pytest.mark.parametrize("method", ["graphpruning", "amc"])
def test_old_code_is_pruned_and_told_what_cannot_be(
    method: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with seeded(0):
        model = OldCode().eval()
    arguments = {**ARGUMENTS, "epochs": 1, "evaluations": 4, "method": method}
    report = prune(model, images, out=tmp_path, **arguments)
    said = "conv2 is not pruned, all 16 channels stay: view has a constant size"
    assert said in capsys.readouterr().out and report["fixed"] == [said]
    assert f"- {said}\n" in (tmp_path / "report.md").read_text()
    found = load_architecture(tmp_path / "architecture.json", build=OldCode)
    assert found(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("method", ["metapruning", "amc"])
@pytest.mark.usefixtures("no_onnx")
def test_weights_from_elsewhere(method: str, images: Path, weights: Path, tmp_path: Path) -> None:
    arguments = {**ARGUMENTS, "evaluations": 4, "epochs": 1}
    report = prune("resnet8", images, out=tmp_path, method=method, weights=weights, **arguments)
    assert report["settings"]["evaluations"] == 4
    assert report["after"]["macs"] <= report["settings"]["budget_macs"]


@pytest.mark.usefixtures("no_onnx")
def test_without_weights_and_without_the_extra(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = prune("resnet8", images, out=tmp_path, method="uniform", **ARGUMENTS)
    printed = capsys.readouterr().out
    assert "no weights were given" in printed
    assert "pip install 'graphpruning[onnx]'" in printed
    assert report["settings"]["evaluations"] == 1
    assert report["before"]["top1"] is None and report["settings"]["initial"] == "scratch"
    text = (tmp_path / "report.md").read_text()
    assert "No trained weights were given" in text and "| top-1 (%) | — |" in text
    assert "ONNX: not written. " in text and "pip install" in text
    assert not (tmp_path / "network.onnx").exists()
    load_architecture(tmp_path / "architecture.json")


@pytest.mark.usefixtures("no_onnx")
def test_a_users_own_trained_network(images: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 3),
        )
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    arguments = {**ARGUMENTS, "initial": "generated"}
    report = prune(own, images, out=tmp_path, **arguments)
    assert report["before"]["top1"] is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    load_architecture(tmp_path / "architecture.json", build=lambda: own)


def own_network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = (nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU())
        return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))


@pytest.mark.usefixtures("no_onnx")
def test_a_frozen_network_of_16_bits_is_pruned_as_any_other(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = own_network().half()
    given[0].requires_grad_(False)
    arguments = {**ARGUMENTS, "method": "uniform", "epochs": 1}
    prune(given, images, out=tmp_path / "given", **arguments)
    printed = capsys.readouterr().out
    prune(own_network().half().float(), images, out=tmp_path / "plain", **arguments)
    files = [tmp_path / part / "weights.safetensors" for part in ("given", "plain")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert given[0].weight.dtype == torch.float16 and not given[0].weight.requires_grad
    assert "weights of type float16 are converted to float32\n" in printed
    assert "frozen (requires_grad=False): 0.weight, 0.bias; here the whole" in printed
    assert "requires_grad" not in capsys.readouterr().out
    found = load_architecture(tmp_path / "given/architecture.json", build=lambda: given)
    assert {tensor.dtype for tensor in found.parameters()} == {torch.float32}


def test_a_network_with_useless_weights_is_refused_at_once(images: Path, tmp_path: Path) -> None:
    for name, value in (("0.bias", float("nan")), ("1.running_var", -1.0)):
        own = own_network()
        own.state_dict()[name][1] = value
        with pytest.raises(UserError, match=f":Sequential: {name} holds "):
            prune(own, images, out=tmp_path / "out", **ARGUMENTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_onnx")
def test_grey_images_of_16_bits_and_a_network_of_one_channel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dark and bright scans, which were all white once, are told apart."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 8)):
        for name, darkest in (("bright", 40_000), ("dark", 2_000)):
            (tmp_path / "scans" / part / name).mkdir(parents=True)
            for number in range(count):
                levels = draw.integers(darkest, darkest + 20_000, (32, 32)).astype(np.uint16)
                Image.fromarray(levels).save(tmp_path / "scans" / part / name / f"{number}.png")
    (tmp_path / "scans/train/dark/notes.txt").write_text("no image")
    arguments = {**ARGUMENTS, "input_size": (1, 32, 32), "epochs": 6, "method": "uniform"}
    report = prune("resnet8", tmp_path / "scans", out=tmp_path / "out", **arguments)
    assert report["after"]["top1"] == 100
    assert report["settings"]["preprocessing"]["mean"] == [0.449]
    assert "scans/train: left out, because" in (said := capsys.readouterr().out)
    assert "can be read: .txt 1" in said
    model = load_architecture(tmp_path / "out/architecture.json")
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 2)


@pytest.mark.usefixtures("no_onnx")
def test_what_goes_beyond_the_paper(images: Path, weights: Path, tmp_path: Path) -> None:
    """From the trained network's weights, and with its help, to a network within the budget."""
    arguments = {**ARGUMENTS, "evaluations": 4, "epochs": 1, "method": "graphpruning-plus"}
    report = prune("resnet8", images, out=tmp_path, weights=weights, **arguments)
    settings = report["settings"]
    assert settings["initial"] == "inherited"
    assert settings["distillation"] == {"weight": 0.5, "temperature": 4.0}
    assert report["after"]["macs"] <= settings["budget_macs"]
    assert "It learnt from the trained network too" in (tmp_path / "report.md").read_text()
    load_architecture(tmp_path / "architecture.json")


def test_help_names_the_methods(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prune", "--help"])
    text = re.sub(r"-\s+", "-", capsys.readouterr().out)  # a line may end in a hyphen
    said = re.findall(r"[\w-]+", text)
    named = [name for name, row in METHODS.items() if row.kind != "ablation"]
    assert "graphpruning-plus" in named and set(named) <= set(said)


def refusal(images: Path, out: Path, model: str = "resnet8", **changes: Any) -> str:
    with pytest.raises(UserError) as refused:
        prune(model, images, out=out, **{**ARGUMENTS, **changes})
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_does_not_fit_is_refused_before_anything_is_written(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "did you mean 'amc'" in refusal(images, out, method="acm")
    assert "give --weights" in refusal(images, out, method="amc")
    assert "give --weights" in refusal(images, out, initial="inherited")
    for initial in ("inherited", "scratch", "generated"):
        plus = {"method": "graphpruning-plus", "initial": initial}
        assert "give --weights" in refusal(images, out, **plus)
    assert "cannot be reached" in refusal(images, out, budget=0.001)
    assert "neither a share" in refusal(images, out, budget="half")
    assert "more than the" in refusal(images, out, budget="5G")
    assert "at least 2" in refusal(images, out, evaluations=1)
    assert "seed is -1" in refusal(images, out, seed=-1)
    assert f"seed is {2**63}" in refusal(images, out, seed=2**63)
    assert "workers is -1" in refusal(images, out, workers=-1)
    said = refusal(images, out, initial="pretrained")
    assert "initial is 'pretrained'; it is scratch, inherited or generated" in said
    assert "cut square" in refusal(images, out, input_size=(3, 32, 24))
    assert "mean is 0.5, but" in refusal(images, out, mean=(0.5,))
    assert "needs 3 values, one a channel" in refusal(images, out, std=(0.5, 0.2))
    assert "needs one value, one a channel" in refusal(
        images, out, input_size=(1, 32, 32), mean=(0.5, 0.4, 0.3)
    )
    assert "1 channel (grey) or 3" in refusal(images, out, input_size=(4, 32, 32))
    assert "does not fit" in refusal(images, out, model="resnet14", weights=weights)
    assert "missing" in refusal(images / "train", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"budget": None}, "budget is None: give a share, MACs or a time"),
        ({"budget": [0.5, None]}, "budget is None: give"),
        ({"input_size": 32}, "input size is 32, expected a list of 3 entries: give channels"),
        ({"input_size": (32, 32)}, "expected a list of 3 entries"),
        ({"input_size": (3, 32.0, 32.0)}, "expected a whole number from 1"),
        ({"input_size": (3, 2400, 2400)}, "is an image of more than 16,777,216 numbers"),
        ({"mean": 0.5}, "mean is 0.5, but"),
        ({"mean": "0.5"}, "mean is '0.5': give a number for each channel"),
        ({"std": (0.5, None, 0.5)}, "give a number for each channel"),
        ({"keep": 4}, "keep is 4: give names or patterns of layers"),
        ({"keep": ["conv1", 4]}, "keep is ['conv1', 4]: give names or patterns of layers"),
        ({"limit": {"conv1": 0.5}}, "limit of 'conv1' is 0.5: give the least and the largest"),
        ({"evaluations": 3.0}, "evaluations is 3.0; it is a whole number"),
        ({"workers": "2"}, "workers is '2'; it is a whole number"),
        ({"divisor": "8"}, "divisor is '8'; it is a whole number"),
        ({"divisor": 8.0}, "divisor is 8.0; it is a whole number"),
        ({"divisor": 0}, "divisor is 0; widths are its multiples"),
        ({"smallest": "x"}, "smallest is 'x'; it is a number above 0"),
        ({"smallest": float("nan")}, "smallest is nan; it is above 0 and up to 1"),
        ({"weights": {"conv1.weight": torch.zeros(1)}}, "weights is a dict; give a file, or load"),
    ],
    ids=repr,
)
def test_arguments_of_another_type_are_refused_in_a_line(
    changes: dict[str, Any], says: str, images: Path, tmp_path: Path
) -> None:
    said = refusal(images, tmp_path / "out", **changes)
    assert says in said and len(said) < 250
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", ["layer4.*", ["layer4.*"], iter(["layer4.*"])])
def test_one_pattern_of_layers_to_keep_is_one_pattern(keep: object) -> None:
    assert patterns("keep", keep) == ("layer4.*",)


@pytest.mark.usefixtures("no_onnx")
def test_numbers_of_numpy_a_tilde_and_a_block_without_gradients_do(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in notebooks."""
    monkeypatch.setenv("HOME", str(tmp_path))
    budget, half = np.int64(60_000), np.float32(0.5)
    counts = {"seed": np.int64(3), "evaluations": np.int32(4), "workers": np.int64(0)}
    arguments = {**ARGUMENTS, **counts, "epochs": 1, "mean": (half,) * 3}
    with torch.inference_mode():
        model = own_network()
        report = prune(model, images, out="~/out", **{**arguments, "budget": budget})
    assert report["after"]["macs"] <= budget and (tmp_path / "out/report.md").exists()


@pytest.mark.usefixtures("no_onnx")
def test_defaults_of_pytorch_that_a_notebook_has_set_change_nothing(
    images: Path, tmp_path: Path
) -> None:
    arguments = {**ARGUMENTS, "method": "uniform", "epochs": 1}
    model = own_network()
    prune(model, images, out=tmp_path / "usual", **arguments)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        prune(model, images, out=tmp_path / "set", **arguments)
        found = load_architecture(tmp_path / "set/architecture.json", build=own_network)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    files = [tmp_path / part / "weights.safetensors" for part in ("usual", "set")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert {(p.dtype, p.device.type) for p in found.parameters()} == {(torch.float32, "cpu")}


@pytest.mark.usefixtures("no_onnx")
def test_a_network_that_a_function_keeps_stays_as_it_was(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    with seeded(7):
        mine = build("resnet8", 3).train()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    arguments = {**ARGUMENTS, "method": "uniform", "epochs": 1}
    prune(lambda: mine, images, out=tmp_path, weights=weights, **arguments)
    assert mine.training
    for name, value in mine.state_dict().items():
        assert torch.equal(value, before[name]), name


class Elsewhere(nn.Module):
    """A network on another device, as far as a machine without one can tell."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.fc, self.here = nn.Linear(16, outputs), False

    def _apply(self, *arguments: Any, **options: Any) -> "Elsewhere":
        self.here = True
        return super()._apply(*arguments, **options)  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.here:
            raise RuntimeError("expected all tensors to be on one device")
        scores: torch.Tensor = self.fc(self.body(x).flatten(1))
        return scores


def test_a_network_on_a_gpu_is_checked_as_any_other(images: Path, tmp_path: Path) -> None:
    for outputs in (10, 2):
        with pytest.raises(UserError, match=f"has {outputs} outputs, but the data 3 classes"):
            prune(Elsewhere(outputs), images, out=tmp_path / "out", **ARGUMENTS)


def test_a_batch_of_one_image_is_refused_where_a_layer_needs_two(
    images: Path, tmp_path: Path
) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(16),
        nn.Linear(16, 3),
    )
    with pytest.raises(UserError, match=r"does not train on one image at a time.* of 2 or more"):
        prune(model, images, out=tmp_path, **{**ARGUMENTS, "batch_size": 1})


def test_a_finished_run_is_not_overwritten(pruned: Path, images: Path) -> None:
    """Nor does anything stay that a run killed at its very end could not remove."""
    before = {path: path.read_bytes() for path in pruned.iterdir() if path.is_file()}
    (pruned / WORK).mkdir()
    (pruned / WORK / "final.pt").write_text("no longer needed")
    (pruned / "checkpoints").mkdir()
    (pruned / "checkpoints" / "best.pth").write_text("somebody's own")
    assert "has a report.json, as a finished run has" in refusal(images, pruned)
    assert (pruned / "checkpoints" / "best.pth").exists() and not (pruned / WORK).exists()
    shutil.rmtree(pruned / "checkpoints")
    assert {path: path.read_bytes() for path in pruned.iterdir()} == before


@pytest.mark.parametrize("name", ["weights.safetensors", "network.onnx"])
def test_what_a_folder_holds_is_not_written_over(name: str, images: Path, tmp_path: Path) -> None:
    """Unless a killed run goes on: see the tests of those."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("somebody's own")
    said = refusal(images, tmp_path, budget=["50%", "25%"])
    assert f"{tmp_path / name} would be written over: choose another folder" == said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_two_runs_do_not_write_into_one_folder(images: Path, tmp_path: Path) -> None:
    with alone(tmp_path / f"out/{WORK}/lock", "the first run"):
        said = refusal(images, tmp_path / "out")
    assert f"pruning into {tmp_path / 'out'} is being done by another process" in said
    assert not list((tmp_path / f"out/{WORK}").iterdir())


def test_a_network_with_other_classes_than_the_folder(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="10 outputs, but the data 3 classes"):
        prune(lambda: build("resnet8", 10), images, out=tmp_path, **ARGUMENTS)


def test_export_writes_what_the_architecture_describes(pruned: Path, tmp_path: Path) -> None:
    file = tmp_path / "again.onnx"
    assert main(["export", str(pruned / "architecture.json"), "--onnx", str(file)]) == 0
    images = np.zeros((1, *SIZE), np.float32)
    outputs = [
        onnxruntime.InferenceSession(path).run(None, {"images": images})[0]
        for path in (file, pruned / "network.onnx")
    ]
    np.testing.assert_array_equal(*outputs)
    named = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map["classes"]
    assert json.loads(named) == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("images", "batch", "epochs"), [(500, 16, 100), (5_000, 64, 100), (1_281_167, 256, 30)]
)
def test_recipes_follow_the_number_of_images(images: int, batch: int, epochs: int) -> None:
    recipes = recipes_for(images, None, None, None, None, "scratch")
    assert recipes["final"].batch_size == recipes["pruningnet"].batch_size == batch
    assert recipes["final"].epochs == 2 * recipes["pruningnet"].epochs == epochs
    tuned = recipes_for(images, None, None, None, None, "inherited")["final"]
    assert tuned.lr == pytest.approx(recipes["final"].lr / 5)


def test_a_handful_of_images_has_the_smallest_batch() -> None:
    assert recipes_for(12, None, None, None, None, "scratch")["final"].batch_size == 16


def test_zero_is_no_wish_for_the_default(images: Path, tmp_path: Path) -> None:
    for name in ("epochs", "pruningnet_epochs", "batch_size", "lr"):
        rule = name.removeprefix("pruningnet_")
        assert f"{rule} is 0" in refusal(images, tmp_path, **{name: 0})


class Scaled(nn.Sequential):
    """A network with a parameter that its forward uses directly."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.scale = nn.Parameter(torch.full((16,), 0.1))
        self.fc = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self[3](self[2](self[1](self[0](x)))) * self.scale)


def test_a_trained_parameter_is_not_taken_for_a_fresh_one(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the fresh value of the parameter 'scale' is not known"):
        prune(Scaled(), images, out=tmp_path, initial="scratch", **ARGUMENTS)
