"""Checkpoints as training loops write them: what is taken, what is said, and what is refused."""

import argparse
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from graphpruning.common.errors import UserError
from graphpruning.training.pretrained import load_pretrained


class Net(nn.Module):
    """A network with every kind of tensor that matters here."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.block = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())
        self.fc = nn.Linear(2, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.block(self.conv(x)).mean((2, 3)))
        return logits


def net(seed: int, classes: int = 3) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(classes)


def wrapped(prefix: str, seed: int = 1) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in net(seed).state_dict().items()}


def optimizer() -> dict[str, Any]:
    model = net(1)
    adam = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 1, 4, 4)).sum().backward()
    adam.step()
    return adam.state_dict()


def load(file: Path, content: Any, part: str = "") -> dict[str, Tensor]:
    """The tensors that a network has after it was given the file."""
    torch.save(content, file)
    model = net(0)
    load_pretrained(model, "net", f"{file}:{part}" if part else str(file))
    return model.state_dict()


def refusal(file: Path, content: Any, part: str = "") -> str:
    with pytest.raises(UserError) as refused:
        load(file, content, part)
    text = str(refused.value)
    assert text.isprintable() and text.startswith(str(file))
    return text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "last.pth.tar"


OF_IMAGENET = {"epoch": 9, "best_acc1": torch.tensor(76.1), "arch": "net", "optimizer": optimizer()}
OF_LIGHTNING = {
    "epoch": 1,
    "pytorch-lightning_version": "2.5",
    "loops": {"fit_loop": {"state_dict": {}}},
    "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9), "mode": "max"}},
    "optimizer_states": [optimizer()],
    "hparams_name": "kwargs",
    "hyper_parameters": {"lr": 0.1},
}
OF_DEEPSPEED = {
    "optimizer": None,
    "buffer_names": ["block.0.running_mean"],
    "param_shapes": [OrderedDict((name, t.shape) for name, t in wrapped("").items())],
    "sparse_tensor_module_names": set(),
    "ds_config": {"train_batch_size": 1},
}
BY_NAME = {"state": {name: {"exp_avg": tensor} for name, tensor in wrapped("").items()}}
COMPILED = {name.replace("block.", "block._orig_mod."): t for name, t in wrapped("").items()}
PARALLEL = {name.replace("block.", "block.module."): t for name, t in wrapped("").items()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (wrapped(""), ""),
        ({**wrapped(""), "epoch": 3}, ""),
        ({"state_dict": wrapped(""), **OF_IMAGENET}, "the dictionary 'state_dict'"),
        ({"model": wrapped(""), "optim": BY_NAME}, "the dictionary 'model'"),
        ({"net": wrapped("module."), "acc": 93.2}, "the dictionary 'net', names without 'module.'"),
        ({"ema": {"shadow": wrapped(""), "decay": 0.9}}, "the dictionary 'ema.shadow'"),
        ({"module": wrapped(""), **OF_DEEPSPEED}, "the dictionary 'module'"),
        ({"G": wrapped(""), "D": {"conv.weight": torch.ones(3)}}, "the dictionary 'G'"),
        (AveragedModel(net(1)).state_dict(), "names without 'module.'"),
        (
            {"state_dict": wrapped("model."), **OF_LIGHTNING},
            "the dictionary 'state_dict', names without 'model.'",
        ),
        (
            {"state_dict": wrapped("model._orig_mod."), **OF_LIGHTNING},
            "the dictionary 'state_dict', names without 'model.' and '_orig_mod.'",
        ),
        (wrapped("_orig_mod."), "names without '_orig_mod.'"),
        (wrapped("module._orig_mod."), "names without 'module.' and '_orig_mod.'"),
        (COMPILED, "names without '_orig_mod.'"),
        (PARALLEL, "names without 'module.'"),
    ],
)
def test_the_only_network_in_a_checkpoint_is_taken_and_that_is_said(
    file: Path, content: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = load(file, content)
    assert all(torch.equal(found[name], tensor) for name, tensor in wrapped("").items())
    assert capsys.readouterr().out == (f"{file}: took {said}\n" if said else "")


def test_a_prefix_of_the_networks_own_names_stays(tmp_path: Path) -> None:
    """As of a user's module that holds the network as `model`, or a wrapper of his own."""
    for prefix in ("model", "module"):
        own = nn.ModuleDict({prefix: net(0)})
        torch.save({"state_dict": wrapped(f"{prefix}.")}, tmp_path / "net.pth")
        load_pretrained(own, "net", str(tmp_path / "net.pth"))
        found = own.state_dict()
        assert all(torch.equal(found[k], t) for k, t in wrapped(f"{prefix}.").items())


TWO = {"model": wrapped(""), "model_ema": AveragedModel(net(2)).state_dict()}
MOCO = {
    "epoch": 200,
    "state_dict": {
        **wrapped("module.encoder_q."),
        **wrapped("module.encoder_k.", seed=2),
        "module.queue": torch.ones(2, 4),
    },
}
LOSS = {"state_dict": {**wrapped("model.", seed=2), "criterion.weight": torch.ones(3)}}
BESIDE = {**wrapped(""), "ema": wrapped("", seed=2)}
ONLINE = {"step": torch.tensor(3), **wrapped("online_model."), **wrapped("ema_model.", seed=2)}


@pytest.mark.parametrize(
    ("content", "says", "part"),
    [
        (TWO, "several networks fit: model, model_ema; name one, as in FILE:", "model_ema"),
        (MOCO, "several networks fit: state_dict.encoder_q, state_d", "state_dict.encoder_k"),
        (ONLINE, "several networks fit: online_model, ema_model;", "ema_model"),
        (BESIDE, "several networks fit: ., ema; name one, as in FILE:ema", "ema"),
        (LOSS, "besides the network at state_dict.model there is criterion.w", "state_dict.model"),
    ],
)
def test_where_another_network_could_be_meant_the_user_names_it(
    file: Path, content: Any, says: str, part: str
) -> None:
    assert says in refusal(file, content)
    found = load(file, content, part)
    assert all(torch.equal(found[k], t) for k, t in wrapped("", seed=2).items())


def test_the_place_is_kept_with_the_files_name(file: Path) -> None:
    torch.save(TWO, file)
    assert load_pretrained(net(0), "net", f"{file}:model_ema")["source"] == f"{file.name}:model_ema"
    found = load(file, BESIDE, ".")
    assert torch.equal(found["fc.bias"], wrapped("")["fc.bias"])
    assert "no tensors are in 'emma', but in model, model_ema" in refusal(file, TWO, "emma")


def test_a_prefix_in_safetensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    save_file(wrapped("model."), path)
    model = net(0)
    load_pretrained(model, "net", str(path))
    assert torch.equal(model.fc.bias, wrapped("")["fc.bias"])
    assert capsys.readouterr().out == f"{path}: took names without 'model.'\n"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_counters_of_thop_are_named_with_what_to_save(file: Path, prefix: str) -> None:
    names = ("total_ops", "total_params", "conv.total_ops", "conv.total_params")
    counters = dict.fromkeys(names, torch.ones(1))
    state_dict = {prefix + k: v for k, v in {**wrapped(""), **counters}.items()}
    text = refusal(file, {"model": state_dict})
    assert "the network has no total_ops, total_params, conv.total_ops and 1 more" in text
    rest = eval(text[text.index("{") :], {"state_dict": state_dict})
    assert torch.equal(load(file, rest)["fc.bias"], wrapped("")["fc.bias"])


def test_others_that_end_like_the_networks_own_are_not_told_by_their_endings(file: Path) -> None:
    text = refusal(file, {**wrapped(""), "aux.weight": torch.ones(1)})
    assert "the network has no aux.weight" in text
    kept = eval(text[text.index("{") :], {"state_dict": {"aux.weight": 0}, "model": net(0)})
    assert kept == {}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"state_dict": wrapped(""), "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
        ({"model": net(0), "ema": None}, "tests.training.test_state_dicts.Net"),
        (nn.DataParallel(net(0)), "torch.nn.parallel.data_parallel.DataParallel"),
        ({"net": wrapped(""), "best": np.float64(0.9)}, "numpy._core.multiarray.scalar"),
    ],
)
def test_python_objects_are_named_without_the_advice_of_pytorch(
    file: Path, content: Any, named: str
) -> None:
    text = refusal(file, content)
    assert "holds Python objects; save model.state_dict()" in text and f"(here is {named})" in text
    assert "weights_only" not in text and "safe_globals" not in text


def test_the_page_says_how_tensors_get_out_of_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/weights.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": wrapped("module."), "args": argparse.Namespace(lr=0.1)}
    torch.save(content, "checkpoint.pth.tar")
    exec(code, {})
    assert load_pretrained(net(0), "net", "weights.pth")["source"] == "weights.pth"


def with_kind(kind: torch.dtype) -> dict[str, Tensor]:
    return {k: v.to(kind) if v.is_floating_point() else v for k, v in wrapped("").items()}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_32_bits(
    file: Path, kind: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    found = load(file, {"model": with_kind(kind)})
    assert all(torch.equal(found[name], t.float()) for name, t in with_kind(kind).items())
    assert found["conv.weight"].dtype == torch.float32
    name = str(kind).removeprefix("torch.")
    assert f"took the dictionary 'model', {name} as 32-bit numbers\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("conv.weight", torch.full((2, 1, 3, 3), float("nan")), "conv.weight holds NaN"),
        ("fc.bias", torch.full((3,), float("inf")).half(), "fc.bias holds infinite values"),
        ("block.0.running_var", -torch.ones(2), "block.0.running_var holds negative variances"),
        ("conv.weight", torch.ones(2, 1, 3, 3, dtype=torch.int8), "conv.weight has the type int8"),
    ],
)
def test_tensors_that_no_network_can_use_are_named_as_the_network_names_them(
    file: Path, name: str, value: Tensor, says: str
) -> None:
    wrong = {"state_dict": {**wrapped("module."), f"module.{name}": value}}
    assert says in refusal(file, wrong)
    # In a part that is not taken they do no harm.
    load(file, {**wrong, "other": wrapped("")}, "other")


def test_what_does_not_fit_is_said_of_the_nearest_network(file: Path) -> None:
    held = {"state_dict": {f"module.{k}": v for k, v in net(1, 1000).state_dict().items()}}
    text = refusal(file, {**held, "optimizer": BY_NAME})
    assert "does not fit net: size mismatch for fc.weight" in text
    assert "give weights of this very network, trained for these classes" in text
    headless = {k: v for k, v in wrapped("backbone.").items() if "fc" not in k}
    assert 'Missing key(s) in state_dict: "fc.weight", "fc.bias"' in refusal(file, headless)


def test_what_pytorch_did_not_save_before_0_4_1_is_the_networks_own(file: Path) -> None:
    older = {k: v for k, v in wrapped("").items() if "num_batches_tracked" not in k}
    assert torch.equal(load(file, older)["fc.bias"], wrapped("")["fc.bias"])


def test_modules_know_from_a_files_versions_how_to_read_it(file: Path) -> None:
    """A module may upgrade what an older one saved; `torch.save` keeps its version."""

    class Newer(Net):
        _version = 2

        def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *args: Any) -> None:
            if local.get("version") == 1:
                state[f"{prefix}fc.bias"] = state[f"{prefix}fc.bias"] + 1
            super()._load_from_state_dict(state, prefix, local, *args)

    for wrap in (lambda older: older, nn.DataParallel):
        torch.save({"model": wrap(net(1)).state_dict()}, file)
        model = Newer()
        load_pretrained(model, "net", str(file))
        assert torch.equal(model.fc.bias, wrapped("")["fc.bias"] + 1)


def in_itself() -> dict[str, Any]:
    held: dict[str, Any] = {"a": torch.ones(1)}
    held["self"] = held
    return held


class Overwritten:
    """Read as a state dict, some of whose methods are text."""

    def __reduce__(self) -> Any:
        methods = {"items": "none", "keys": "none", "_metadata": {"": 3, 1: None}}
        return OrderedDict, (), methods, None, iter(wrapped("").items())


def test_dictionaries_that_a_hostile_file_may_hold(file: Path) -> None:
    assert "does not fit net: Missing key(s)" in refusal(file, in_itself())
    assert torch.equal(load(file, Overwritten())["fc.bias"], wrapped("")["fc.bias"])
    endless = torch.ones(1).expand(2**50)  # would fill any memory if it were looked at
    assert "size mismatch for fc.bias" in refusal(file, {**wrapped(""), "fc.bias": endless})
    named = {**wrapped(""), "\x1b[31mred\n": torch.ones(1)}
    assert r"the network has no \x1b[31mred\n" in refusal(file, named)
