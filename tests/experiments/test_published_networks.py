"""Channel lists that others published: what is committed is what they say, and costs that."""

import csv
import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments import published_networks
from graphpruning import load_architecture, macs, trace
from graphpruning.inspection import read_widths
from graphpruning.network.zoo import build

PAPER = Path(__file__).parents[2] / "paper"
FILES = sorted((PAPER / "published_networks").glob("*.json"))


def rows(name: str) -> list[dict[str, str]]:
    with open(PAPER / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def described(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((PAPER / f"published_networks/{name}.json").read_text())
    return result


@cache
def loaded(path: Path) -> nn.Module:
    """The network of a file, built once, and then without numbers: only its shapes matter here."""
    return load_architecture(path).to("meta")


def test_the_committed_files_are_made_of_the_lists(tmp_path: Path) -> None:
    published_networks.write(tmp_path)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.*")}
    names = [*(f.relative_to(PAPER) for f in FILES), Path("published_counts.csv")]
    assert made == {name: (PAPER / name).read_bytes() for name in names}


def test_every_list_stands_in_a_row_of_the_table_and_has_a_source() -> None:
    lists = rows("published_widths.csv")
    assert all(row["source"] for row in lists)
    named = {row["architecture"] for row in rows("published.csv")} - {""}
    assert named == {row["architecture"] for row in lists} == {file.stem for file in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_counts_are_those_of_pytorchs_own_counter_on_the_loaded_network(path: Path) -> None:
    description = json.loads(path.read_text())
    model = loaded(path)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = model(torch.zeros(1, 3, 224, 224, device="meta"))
    assert logits.shape == (1, 1000)
    assert counter.get_total_flops() == 2 * description["macs"]
    assert sum(p.numel() for p in model.parameters()) == description["params"]
    assert read_widths(path) == description["widths"]  # as `inspect --widths` does


@pytest.mark.parametrize(
    ("name", "layer", "channels"),
    [
        (
            "metapruning-mobilenet_v1-316M",
            "conv1",
            31,
        ),  # as PyTorch prints it, MetaPruning's issue 30
        ("metapruning-mobilenet_v1-316M", "blocks.11.pointwise", 870),
        ("metapruning-mobilenet_v1-316M", "blocks.12.pointwise", 1024),
        ("metapruning-mobilenet_v2-105M", "blocks.0.expand", 12),  # 44 x 0.28
        ("metapruning-mobilenet_v2-105M", "blocks.5.project", 14),  # 44 x 0.34, as its stage
        ("metapruning-mobilenet_v2-105M", "blocks.16.expand", 698),  # 1344 x 0.52
        ("metapruning-resnet50-1.0G", "layer1.2.conv3", 94),  # 256 x 0.37, as its stage
        ("metapruning-resnet50-1.0G", "layer4.2.conv2", 327),  # 512 x 0.64
        ("metapruning-resnet50-1.0G", "layer4.2.conv3", 2048),
        ("amc-mobilenet_v2-70-macs", "features.12.conv.0.0", 408),
        ("amc-mobilenet_v2-70-macs", "features.17.conv.2", 248),
    ],
)
def test_layers_are_as_wide_as_the_list_says(name: str, layer: str, channels: int) -> None:
    model = loaded(PAPER / f"published_networks/{name}.json")
    assert model.get_submodule(layer).out_channels == channels


def test_what_the_notes_of_table_5_say() -> None:
    """Numbers in the notes of published.csv that the table does not have in a column."""
    counted = {"batch": 0}

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        counted["batch"] += output.numel()

    model = deepcopy(loaded(PAPER / "published_networks/metapruning-mobilenet_v1-316M.json"))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 224, 224, device="meta"))
    biases = 1000  # of the classifier, which that counter adds too
    theirs = described("metapruning-mobilenet_v1-316M")["macs"] + counted["batch"] + biases
    full = described("uniform-mobilenet_v1-1.0")["macs"]
    graphs = [
        trace(build("mobilenet_v2", 1000, width_mult=1.4), (3, 224, 224)),
        trace(build("metapruning_mobilenet_v2", 1000), (3, 224, 224)),
    ]
    found = [theirs, full / 2, *(macs(graph, graph.full_widths) for graph in graphs)]
    notes = " ".join(row["note"] for row in rows("published.csv"))
    for number in found:
        assert f"{number / 1e6:.1f}M" in notes
