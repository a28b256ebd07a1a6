import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graphpruning.common.errors import UserError
from graphpruning.training.checkpoint import Checkpoint, load_weights, save_weights


def test_weights_come_back_as_they_were(tmp_path: Path, net: nn.Module) -> None:
    path = tmp_path / "net.safetensors"
    net.to(memory_format=torch.channels_last)
    save_weights(path, net.state_dict())
    kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    loaded = load_weights(path, net)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, kept[name]) and torch.equal(loaded[name], kept[name])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_weights_of_another_network_name_the_first_mismatch(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, nn.Linear(3, 2).state_dict())
    others = {
        nn.Linear(4, 2): r"weight is \[2, 3\], expected \[2, 4\]",
        nn.Linear(3, 2, bias=False): "bias is unexpected",
        nn.Sequential(nn.Linear(3, 2)): "0.weight is missing",
    }
    for model, message in others.items():
        before = [parameter.clone() for parameter in model.parameters()]
        with pytest.raises(UserError, match=f"net.safetensors holds .* another network: {message}"):
            load_weights(path, model)
        assert all(map(torch.equal, before, model.parameters()))


def test_missing_and_truncated_weights(tmp_path: Path, net: nn.Module) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(UserError, match=r"net.safetensors is missing"):
        load_weights(path)
    save_weights(path, net.state_dict())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"net.safetensors is not a whole safetensors file"):
        load_weights(path)


def test_checkpoint_comes_back_for_its_own_fingerprint_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoint.pt"
    first = Checkpoint(path, {"seed": 0, "recipe": {"lr": 0.1}, "widths": (4, 8)})
    assert first.load() is None and not first.resumed
    first.save({"model": {"weight": torch.ones(2)}, "records": [{"epoch": 1, "lr": 0.1}]})
    assert capsys.readouterr().out == ""

    same = Checkpoint(path, {"recipe": {"lr": 0.1}, "widths": [4, 8], "seed": 0})
    state = same.load()
    assert state is not None and same.resumed
    assert state["records"] == [{"epoch": 1, "lr": 0.1}]
    assert torch.equal(state["model"]["weight"], torch.ones(2))

    other = Checkpoint(path, {"recipe": {"lr": 0.2}, "widths": [4, 8], "seed": 0})
    assert other.load() is None and not other.resumed
    assert capsys.readouterr().out == (
        f"{path}: of a run with other recipe, ignored: starting anew\n"
    )


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_truncated_checkpoint_is_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint = Checkpoint(path, {"seed": 0})
    checkpoint.save({"weight": torch.ones(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert checkpoint.load() is None and not checkpoint.resumed
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: not a whole checkpoint (") and said.count("\n") == 1
    assert said.endswith("), ignored: starting anew\n")


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_checkpoint_with_a_flipped_bit_is_ignored_or_the_same(
    tmp_path: Path, where: float
) -> None:
    """`torch.load` alone would take nearly all of them, with another number in a weight."""
    path = tmp_path / "checkpoint.pt"
    checkpoint = Checkpoint(path, {"seed": 0})
    state = {"weight": torch.arange(10_000.0), "records": [{"epoch": 1.0}]}
    checkpoint.save(state)
    whole = path.read_bytes()
    for bit in range(0, 8 * 40, 7):
        changed = bytearray(whole)
        changed[int(where * (len(whole) - 41)) + bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        held = checkpoint.load()
        assert held is None or (
            torch.equal(held["weight"], state["weight"]) and held["records"] == state["records"]
        )


def test_what_ends_the_process_while_a_checkpoint_is_written_is_not_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal's SystemExit arrives within `torch.save`, which makes a RuntimeError of it."""

    class Interrupted(io.FileIO):
        writes = 0

        def write(self, data: Any) -> int:
            Interrupted.writes += 1
            if Interrupted.writes == 2:
                raise SystemExit(143)
            return super().write(data)

    monkeypatch.setattr("graphpruning.training.checkpoint.open", Interrupted, raising=False)
    with pytest.raises(SystemExit):
        Checkpoint(tmp_path / "checkpoint.pt", {}).save({"weight": torch.ones(1000)})
    assert not list(tmp_path.iterdir())
