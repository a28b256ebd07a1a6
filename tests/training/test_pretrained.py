"""Ready-made weights: which files and names are taken, and what is refused in one line."""

import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from graphpruning.common.errors import UserError
from graphpruning.common.files import sha256
from graphpruning.network.zoo import build
from graphpruning.training.pretrained import load_pretrained

FILE = "shufflenetv2_x0.5-f707e7126e.pth"  # torchvision's smallest
NAME = "shufflenet_v2_x0_5"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    torch.save(build("resnet8", 10, 1).state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def resnet8() -> nn.Module:
    torch.manual_seed(2)
    return build("resnet8", 10, 1)


def test_a_file_of_either_kind_is_loaded_and_named(weights: Path) -> None:
    tensors = torch.load(weights, weights_only=True)
    save_file(tensors, weights.with_suffix(".safetensors"))
    for path in (weights, weights.with_suffix(".safetensors")):
        model = resnet8()
        said = load_pretrained(model, "resnet8", str(path))
        assert said == {"source": path.name, "sha256": sha256(path)}
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, tensors[name])


def test_a_path_may_hold_environment_variables(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETS", str(weights.parent))
    assert load_pretrained(resnet8(), "resnet8", "$NETS/net.pth")["source"] == "net.pth"
    monkeypatch.delenv("NETS")
    refused("$NETS/net.pth", r"\$NETS/net.pth: an environment variable in it is not set")


def refused(source: str, says: str, name: str = "resnet8", model: nn.Module | None = None) -> None:
    with pytest.raises(UserError, match=says) as refusal:
        load_pretrained(model or resnet8(), name, source)
    assert "\n" not in str(refusal.value)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def of_another_width(path: Path) -> None:
    torch.save(build("resnet8", 10, 1, width=8).state_dict(), path)


def of_another_network(path: Path) -> None:
    torch.save(build("mobilenet_v1", 10, 1, width=0.25).state_dict(), path)


def a_whole_module(path: Path) -> None:
    torch.save(resnet8(), path)


def a_number(path: Path) -> None:
    torch.save({"epoch": 3}, path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (Path.unlink, "net.pth is missing"),
        (truncated, "not a whole file of weights"),
        (of_another_width, "does not fit resnet8: size mismatch for conv1.weight"),
        (of_another_network, "does not fit resnet8: Missing key.s. in state_dict"),
        (a_whole_module, "net.pth holds Python objects; save model.state_dict"),
        (a_number, "does not hold tensors by name"),
    ],
)
def test_a_file_that_cannot_be_used(
    weights: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(weights)
    refused(str(weights), says)


def test_torchvisions_weights_come_from_the_hub_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub/checkpoints" / FILE
    path.parent.mkdir(parents=True)
    made = build(NAME, 1000)
    torch.save(made.state_dict(), path)
    for source in ("torchvision", "torchvision:IMAGENET1K_V1"):
        model = build(NAME, 1000)
        said = load_pretrained(model, NAME, source)
        assert said == {"source": source, "sha256": sha256(path)}
        assert torch.equal(model.get_parameter("fc.weight"), made.get_parameter("fc.weight"))
    refused("torchvision", "size mismatch for fc.", NAME, build(NAME, 10))


def test_a_download_that_fails_says_where_the_file_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    refused("torchvision", f"no route.*put torchvision's file into {tmp_path}", NAME)


def test_names_that_torchvision_does_not_know() -> None:
    refused("torchvision", "torchvision has no weights for resnet8")
    refused("torchvision:V9", "no weights 'V9' for .*, but: IMAGENET1K_V1", NAME)
