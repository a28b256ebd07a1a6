"""Architectures from somebody else: whatever is wrong with one is refused in one line, and soon."""

import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from graphpruning import (
    SearchSpace,
    UserError,
    describe,
    load_architecture,
    narrow,
    save_architecture,
    trace,
)
from graphpruning.__main__ import main
from graphpruning.builder import builder
from graphpruning.export import export_onnx
from graphpruning.inspection import read_widths
from graphpruning.network import zoo
from graphpruning.training import checkpoint
from tests.networks import SIZE, network

SECONDS = 5
NESTED = "[" * 100_000
WHOLE = {"mean": [0.5] * 3, "std": [0.2] * 3, "pad": 4, "flip": True, "size": 32}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    save(folder, "resnet8", network("resnet8"), SIZE)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """`network.json` and `network.safetensors`, to be altered."""
    return Path(shutil.copytree(kept, tmp_path / "found"))


def save(folder: Path, name: str, model: nn.Module, size: tuple[int, ...]) -> nn.Module:
    graph = trace(model, size)
    widths = SearchSpace(graph).sample(torch.Generator().manual_seed(0))
    narrowed = narrow(model, graph, widths).eval()
    save_architecture(
        folder / "network.json",
        folder / "network.safetensors",
        narrowed,
        network={"name": name, "num_classes": 10, "in_channels": 3},
        input_size=size,
        widths=widths,
        preprocessing=WHOLE,
    )
    return narrowed


@contextmanager
def refused(words: str = "") -> Iterator[None]:
    """The block raises a `UserError` of one line with these words, in `SECONDS` of a processor."""
    start = time.process_time()
    with pytest.raises(UserError) as refusal:
        yield
    assert time.process_time() - start < SECONDS
    message = str(refusal.value)
    message.encode()  # it can be printed
    assert len(message.splitlines()) == 1 and words in message


def alter(folder: Path, key: str, value: Any) -> Path:
    """Put `value` into the description where `key` ("network.width") says."""
    path = folder / "network.json"
    description = json.loads(path.read_text())
    *above, last = key.split(".")
    place = description
    for name in above:
        place = place[name]
    place[last] = value
    path.write_text(json.dumps(description))
    return path


WRONG: list[tuple[str, Any]] = [
    ("format", True),
    ("format", "2"),
    ("format", 2.0),
    ("format", None),
    ("network", None),
    ("network", []),
    ("network", "resnet8"),
    ("network", {}),
    ("network.name", 8),
    ("network.name", []),
    ("network.name", "x" * 10**5),
    ("network.name", "\ud800"),
    ("network.name", "resnet9"),
    ("network.function", "a:b"),
    ("network.num_classes", -1),
    ("network.num_classes", 10**12),
    ("network.num_classes", 1e12),
    ("network.num_classes", "ten"),
    ("network.num_classes", True),
    ("network.num_classes", 11),
    ("network.in_channels", 0),
    ("network.in_channels", 4),
    ("network.in_channels", [3]),
    ("network.width", 10**9),
    ("network.width", 10**6),
    ("network.width", 2),
    ("network.width", 0),
    ("network.width", -1),
    ("network.width", 1.5),
    ("network.width", []),
    ("network.width", {}),
    ("network.width", [[[[[1]]]]]),
    ("network.width", list(range(1000))),
    ("network.stem_stride", 0),
    ("network.stem_stride", 10**6),
    ("network.stem_stride", 2),
    ("network.depth", 20),
    ("network.no such", 1),
    ("network.widht", 16),
    ("classes", "cat"),
    ("classes", []),
    ("classes", [1] * 10),
    ("classes", [""] * 10),
    ("classes", ["a\nb"] * 10),
    ("classes", ["x" * 256] * 10),
    ("classes", None),
    ("classes", ["a"] * 9),
    ("input_size", 32),
    ("input_size", "3x32"),
    ("input_size", None),
    ("input_size", [3, 32]),
    ("input_size", [3, 32, 32, 1]),
    ("input_size", [3, -32, 32]),
    ("input_size", [3, 32, "32"]),
    ("input_size", [3, 0, 32]),
    ("input_size", [3, 32.0, 32]),
    ("input_size", [3, 10**5, 10**5]),
    ("input_size", [3, 8000, 8000]),
    ("input_size", [1, 32, 32]),
    ("input_size", [3, 64, 64]),
    ("input_size", [3, 2000, 2000]),
    ("input_size", [3, [32], 32]),
    ("widths", None),
    ("widths", []),
    ("widths", {}),
    ("widths.conv1", True),
    ("widths.conv1", "8"),
    ("widths.conv1", -8),
    ("widths.conv1", 10**30),
    ("widths.conv1", [8]),
    ("widths.conv1", None),
    ("widths.other", 8),
    ("widths.a\nb", 8),
    ("widths.\udcff", 8),
    ("macs", "many"),
    ("macs", -1),
    ("macs", 1),
    ("macs", True),
    ("macs", 1e6),
    ("params", None),
    ("params", 7),
    ("params", 10**30),
    ("params", []),
    ("preprocessing", []),
    ("preprocessing", None),
    ("preprocessing.mean", 0.5),
    ("preprocessing.mean", []),
    ("preprocessing.mean", [0.5]),
    ("preprocessing.mean", ["a"] * 3),
    ("preprocessing.std", [0, 0, 0]),
    ("preprocessing.std", [1e300] * 3),
    ("preprocessing.pad", -1),
    ("preprocessing.pad", 0.5),
    ("preprocessing.pad", 10**9),
    ("preprocessing.flip", 1),
    ("preprocessing.size", "32"),
    ("preprocessing.resize", 8),
    ("preprocessing.smallest_area", 7),
    ("preprocessing.other", 1),
    ("weights", "network.safetensors"),
    ("weights", {}),
    ("weights.size", 1),
    ("weights.file", 1),
    ("weights.file", ""),
    ("weights.file", "."),
    ("weights.file", ".."),
    ("weights.file", "/dev/zero"),
    ("weights.file", "no\0thing"),
    ("weights.file", "a\nb"),
    ("weights.file", "\ud800"),
    ("weights.file", "a" * 300),
    ("weights.file", "network.json"),
    ("weights.sha256", 1),
    ("weights.sha256", "0" * 63),
    ("weights.sha256", "x" * 64),
    ("weights.sha256", "0" * 64),
    ("weights.sha256", None),
    ("license", "MIT"),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=lambda part: ascii(part)[:30])
def test_values_that_no_architecture_has(folder: Path, key: str, value: Any) -> None:
    path = alter(folder, key, value)
    before = path.read_bytes()
    with refused("network.json"):
        load_architecture(path)
    assert path.read_bytes() == before
    assert {file.name for file in folder.iterdir()} == {"network.json", "network.safetensors"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "null",
        "{",
        NESTED,
        '{"a": ' * 900 + "1" + "}" * 900,
        "[" * 900 + "]" * 900,
        '{"format": NaN}',
        '{"format": 1e999}',
        '{"format": ' + "1" * 5000 + "}",
        b"\xff\xfe",
        '{"' + "x" * 5_000_000 + '": 1}',
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_texts_that_are_no_architecture(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "network.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused("network.json"):
        load_architecture(path)
    with refused("network.json"):
        read_widths(path)


@pytest.mark.parametrize(
    "key",
    ["network", "widths", "macs", "weights", "network.name", "weights.sha256", "widths.conv1"],
)
def test_keys_that_are_missing(folder: Path, key: str) -> None:
    path = folder / "network.json"
    description = json.loads(path.read_text())
    *above, last = key.split(".")
    del (description[above[0]] if above else description)[last]
    path.write_text(json.dumps(description))
    with refused(last if key != "network.name" else "a name or a function"):
        load_architecture(path)


def test_a_refusal_says_what_where_and_what_to_do(folder: Path) -> None:
    path = alter(folder, "input_size", [3, 32, -32])
    with pytest.raises(UserError) as refusal:
        load_architecture(path)
    assert str(refusal.value) == (
        f"{path}: input_size[2] is -32, expected a whole number from 1 to 8,192: get the file as "
        "`save_architecture` wrote it"
    )
    alter(folder, "input_size", list(SIZE))
    alter(folder, "weigths", {})
    with refused("""has an unknown key "weigths"; did you mean 'weights'?"""):
        load_architecture(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v2", {"inverted_residual_setting": [[1, 16, 10**6, 1]]}),
        ("mobilenet_v2", {"inverted_residual_setting": [[1, 10**6, 1, 1], [6, 10**6, 1, 1]]}),
        ("mobilenet_v2", {"inverted_residual_setting": [[10**6, 16, 1, 1]]}),
        ("mobilenet_v2", {"inverted_residual_setting": [1]}),
        ("mobilenet_v2", {"width_mult": 10**6}),
        ("mobilenet_v2", {"norm_layer": "BatchNorm2d"}),
        ("resnet50", {"width_per_group": 10**6}),
        ("resnet18", {"groups": 0}),
        ("resnet18", {"weights": "DEFAULT"}),
        ("resnet18", {"pretrained": True}),
        ("vit_b_16", {"image_size": 16 * 10**4}),
        ("regnet_y_400mf", {"stem_width": 10**6}),
        ("mobilenet_v1", {"strides": [1] * 3}),
        ("mobilenet_v1", {"strides": [0] * 14}),
        ("mobilenet_v1", {"width": 10**6}),
        ("mobilenet_v1", {"width": 0}),
    ],
    ids=str,
)
def test_options_that_would_take_all_memory_or_time(
    folder: Path, name: str, options: dict[str, Any]
) -> None:
    path = alter(folder, "network", {"name": name, "num_classes": 10, "in_channels": 3, **options})
    with refused("network.json"):
        load_architecture(path)


def flat(network: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows it."""
    content = network.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def packed(header: Any, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _changed(**changes: Any) -> Callable[[dict[str, Any], bytes], bytes]:
    return lambda header, data: packed(
        {**header, "conv1.weight": {**header["conv1.weight"], **changes}}, data
    )


def _with_value(
    value: float, name: str = "conv1.weight"
) -> Callable[[dict[str, Any], bytes], bytes]:
    def change(header: dict[str, Any], data: bytes) -> bytes:
        start, _ = header[name]["data_offsets"]
        return packed(header, data[:start] + struct.pack("<f", value) + data[start + 4 :])

    return change


@pytest.mark.parametrize("given", [False, True], ids=["named", "given"])
@pytest.mark.parametrize(
    "change",
    [
        lambda header, data: b"",
        lambda header, data: b"\0\0",
        lambda header, data: packed(header, data[:-4]),
        lambda header, data: packed(header, data + b"more"),
        lambda header, data: packed(header, data, 2**63),
        lambda header, data: packed(header, data, 2**22),
        lambda header, data: packed(NESTED.encode(), data),
        lambda header, data: packed(b"\xff", data),
        lambda header, data: packed({**header, "a\nb": header["conv1.weight"]}, data),
        lambda header, data: packed(
            {"a\nb" if k == "fc.bias" else k: v for k, v in header.items()}, data
        ),
        _changed(dtype="I32"),
        _changed(dtype="F16"),
        _changed(dtype="other"),
        _changed(shape=[]),
        _changed(shape=[2**40, 2**40]),
        _changed(shape=[3, 3, 3, 4]),
        _changed(data_offsets=[0, 2**60]),
        _with_value(float("nan")),
        _with_value(float("-inf")),
        _with_value(-1.0, "bn1.running_var"),
    ],
)
def test_weights_of_another_kind(
    folder: Path, given: bool, change: Callable[[dict[str, Any], bytes], bytes]
) -> None:
    """The hash is right: it is whoever wrote both files that is not to be trusted."""
    weights = folder / "network.safetensors"
    content = change(*flat(weights))
    weights.write_bytes(content)
    path = alter(folder, "weights.sha256", hashlib.sha256(content).hexdigest())
    with refused(f"{weights} does not hold the weights of {path}: "):
        load_architecture(path, weights if given else None)


@pytest.mark.parametrize("given", [False, True], ids=["named", "given"])
@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
        os.mkfifo,
        lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 10**13),
    ],
    ids=["nothing", "folder", "device", "loop", "pipe", "ten terabytes"],
)
def test_weights_that_are_no_file_of_theirs(
    folder: Path, given: bool, make: Callable[[Path], None]
) -> None:
    weights = folder / "network.safetensors"
    weights.unlink()
    make(weights)
    with refused("network.safetensors"):
        load_architecture(folder / "network.json", weights if given else None)


def test_names_are_compared_before_a_graph_is_made_or_a_hash(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*arguments: Any) -> Any:
        raise AssertionError("too early")

    for name in ("trace", "sha256", "load_file"):
        monkeypatch.setattr(f"graphpruning.architecture.{name}", late)
    path = alter(folder, "network.name", "resnet56")
    with refused("has no tensor 'layer1.1."):
        load_architecture(path)
    alter(folder, "network.name", "resnet8")
    alter(folder, "input_size", [3, 2000, 2000])
    with refused("macs is "):
        load_architecture(path)


def test_the_command_line_exits_with_2_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, onnx = alter(folder, "network.width", 10**6), folder / "network.onnx"
    assert main(["export", str(path), "--onnx", str(onnx)]) == 2
    alter(folder, "widths.conv1", "8")
    assert main(["inspect", "resnet8", "--widths", str(path)]) == 2
    assert main(["inspect", "resnet8", "--input-size", "3", "100000", "100000"]) == 2
    assert main(["inspect", "resnet8", "--num-classes", "-1"]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and len(lines) == 4
    assert all(line.startswith("error: ") for line in lines) and not onnx.exists()


@pytest.mark.parametrize(
    "widths",
    [
        {"a": True},
        {"a": "8"},
        {"a": 0},
        {"a": 10**30},
        {"a": [1]},
        {"widths": 8},
        {"widths": {"\ud800": None}},
    ],
)
def test_widths_that_are_none(tmp_path: Path, widths: dict[str, Any]) -> None:
    path = tmp_path / "widths.json"
    path.write_text(json.dumps(widths))
    with refused(f"{path} does not map groups to whole numbers of channels"):
        read_widths(path)


def own(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, num_classes, 8))


def test_a_users_function_gets_the_arguments_that_it_takes(tmp_path: Path) -> None:
    make = builder(own, num_classes=5)
    model = make()
    narrowed = narrow(model, trace(model, (3, 10, 10)), {"0": 7})
    save_architecture(
        tmp_path / "network.json",
        tmp_path / "network.safetensors",
        narrowed,
        network=make,
        input_size=(3, 10, 10),
        widths={"0": 7},
        preprocessing={},
    )
    path = tmp_path / "network.json"
    load_architecture(path, build=own)
    with refused("cannot be called with num_classes"):
        load_architecture(path, build=lambda: model)
    for key, value in (("num_classes", -5), ("function", "a:\nb"), ("a b", 1), ("depth", 1)):
        with refused("network.json"):
            load_architecture(alter(tmp_path, f"network.{key}", value), build=own)
        alter(tmp_path, "network", make.description)


@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet8", 32), ("regnet_y_400mf", 64), ("mnasnet0_5", 64), ("convnext_tiny", 64)],
)
def test_valid_files_of_any_network_load_as_ever(tmp_path: Path, name: str, side: int) -> None:
    narrowed = save(tmp_path, name, network(name), (3, side, side))
    for weights in (None, tmp_path / "network.safetensors"):
        loaded = load_architecture(tmp_path / "network.json", weights)
        expected, found = narrowed.state_dict(), loaded.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[key]) for key, value in expected.items())
        images = torch.randn(1, 3, side, side)
        torch.testing.assert_close(loaded(images), narrowed(images), rtol=0, atol=0)


def test_half_precision_weights_are_read(folder: Path) -> None:
    weights = folder / "network.safetensors"
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in checkpoint.load_weights(weights).items()
    }
    checkpoint.save_weights(weights, state)
    loaded = load_architecture(folder / "network.json", weights)
    assert loaded.state_dict()["conv1.weight"].dtype == torch.float32
    assert torch.equal(loaded.state_dict()["conv1.weight"], state["conv1.weight"].float())


class Scaled(nn.Module):
    """A network with a buffer that no file of weights holds."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3)
        self.head = nn.Conv2d(8, num_classes, 30)
        self.register_buffer("scale", torch.full((1,), 3.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x))) * self.scale


def test_a_buffer_that_no_file_holds_is_as_the_constructor_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(zoo.ZOO, "scaled", Scaled)
    narrowed = save(tmp_path, "scaled", Scaled(10, 3), SIZE)
    images = torch.randn(1, *SIZE)
    torch.testing.assert_close(
        load_architecture(tmp_path / "network.json")(images), narrowed(images)
    )


def test_what_would_not_be_read_is_not_written(tmp_path: Path) -> None:
    model = network("resnet8")
    for wrong in ({"mean": [float("nan")]}, {"means": [0.5]}):
        with refused("network.json"):
            save_architecture(
                tmp_path / "network.json",
                tmp_path / "network.safetensors",
                model,
                network={"name": "resnet8", "num_classes": 10, "in_channels": 3},
                input_size=SIZE,
                widths=trace(model, SIZE).full_widths,
                preprocessing=wrong,
            )
    assert not list(tmp_path.iterdir())


def nan_in_fc(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.fc.weight[0, 0] = float("nan")  # type: ignore[union-attr, index]
    return model


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": lambda _: network("resnet8")}, "the model has conv1.weight as [16, 3, 3, 3]"),
        ({"model": lambda _: nn.Linear(2, 2)}, "the model has no tensor 'conv1.weight'"),
        ({"model": nan_in_fc}, "fc.weight holds NaN"),
        ({"network": {"num_classes": 10}}, "network: give what builds the full network"),
        ({"network": "resnet8"}, "network: give what builds the full network"),
        ({"preprocessing": {"mean": torch.zeros(3)}}, "is no JSON"),
        ({"weights_path": "network.json"}, "need a file each"),
        ({"kind": float}, "no whole number"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved_over_what_can(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    narrowed = save(tmp_path, "resnet8", network("resnet8"), SIZE)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    described = json.loads((tmp_path / "network.json").read_text())
    kind = change.get("kind", int)
    with refused(says):
        save_architecture(
            tmp_path / "network.json",
            tmp_path / change.get("weights_path", "network.safetensors"),
            change.get("model", lambda model: model)(narrowed),
            network=change.get("network", described["network"]),
            input_size=SIZE,
            widths={group: kind(width) for group, width in described["widths"].items()},
            preprocessing=change.get("preprocessing", {}),
        )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_network_in_data_parallel_is_saved_without_it(tmp_path: Path) -> None:
    model = nn.DataParallel(network("resnet8"))
    graph = trace(model, SIZE)
    save_architecture(
        tmp_path / "network.json",
        tmp_path / "network.safetensors",
        model,
        network={"name": "resnet8", "num_classes": 10, "in_channels": 3},
        input_size=SIZE,
        widths=graph.full_widths,
        preprocessing={},
    )
    loaded = load_architecture(tmp_path / "network.json")
    assert loaded.state_dict().keys() == model.module.state_dict().keys()


def test_a_full_disk_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with refused("network.safetensors cannot be written (No space left on device)"):
        save(tmp_path, "resnet8", network("resnet8"), SIZE)
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_no_numbers_are_not_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = network("resnet8")
    with torch.no_grad():
        model.get_submodule("fc").weight.fill_(3e38)  # type: ignore[operator, union-attr]
    with pytest.raises(UserError, match="infinite or no numbers"):  # after a whole export
        export_onnx(model, SIZE, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_what_onnxruntime_raises_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `prune` ends with its report, which says why there is no ONNX."""
    onnxruntime = pytest.importorskip("onnxruntime")

    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("NOT_IMPLEMENTED :\nCould not find an implementation for Resize")

    monkeypatch.setattr(onnxruntime, "InferenceSession", breaks)
    with pytest.raises(UserError, match=r"onnxruntime does not run the network.*: NOT_IMPLEMENTED"):
        export_onnx(network("resnet8"), SIZE, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_inspect_needs_no_memory_for_weights() -> None:
    assert describe("regnet_y_400mf", (3, 64, 64))["params"] == 4_344_144
    with zoo.weightless():
        model = zoo.build("resnet8", width=64)
    assert {value.device.type for value in model.parameters()} == {"meta"}
    with refused("more than 2,000,000,000 weights"), zoo.weightless():
        zoo.build("resnet8", width=20_000)
