"""Benchmarks compare what they say, and their references compute the same."""

import csv
import json
import operator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as bench
from benchmarks import harness, original, pruningnet_step, scaling
from benchmarks.apart import Apart
from benchmarks.candidate import rank_correlation
from benchmarks.costs import with_hooks
from benchmarks.harness import Row, alternate, show, write
from benchmarks.official import MODELS, WIDE, official_step
from benchmarks.original import RATIOS, OriginalPruningNet
from benchmarks.pruningnet_step import CASES, Case, space_of
from graphpruning import macs, narrow, params, trace
from graphpruning.common.errors import UserError
from graphpruning.network.subnet import Subnet
from tests.networks import network

THEIRS = """
import json, pathlib
from torch import nn

class MobileNetV1(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

    def forward(self, images, scales):
        line = json.dumps({"scales": scales, "weight": float(self.weight[0].detach().sum())})
        with open(pathlib.Path(__file__).parents[2] / "seen.txt", "a") as file:
            print(line, file=file)
        return super().forward(images)
"""
ROW = Row("a step", "before", "s", [1.0, 2.0, 9.0], [4.0, 4.0, 10.0], target=0.6, floor=0.5)


def test_what_counts_is_the_median_ratio_of_neighbours() -> None:
    assert ROW.ratio == 0.5 and ROW.is_met
    cells = dict(zip(harness.COLUMNS, ROW.cells(), strict=True))
    assert (cells["ours"], cells["reference"], cells["ratio"]) == ("2", "4", "0.5")
    assert (cells["lowest"], cells["highest"], cells["repeats"]) == ("0.25", "0.9", "3")
    assert (cells["target"], cells["met"], cells["times_floor"]) == ("at most 0.6", "yes", "4")
    faster = Row("rate", "before", "1/s", [3.0], [2.0], target=1.8, at_least=True)
    assert faster.is_met is False and faster.cells()[-5] == "no"


def test_rows_are_written_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    write("steps", [ROW])
    with open(tmp_path / "steps.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["what"] == "a step" and "torch" in row["versions"] and row["machine"]
    header, line = show([ROW]).splitlines()
    assert header.split()[0] == "what" and line.startswith("a step")


def test_works_alternate_and_the_first_round_does_not_count() -> None:
    calls: list[tuple[str, int]] = []
    works = {name: lambda repeat, name=name: calls.append((name, repeat)) for name in "ab"}
    found = alternate(works, repeats=2)
    assert calls == [(name, repeat) for repeat in (-1, 0, 1) for name in "ab"]
    assert all(len(seconds) == 2 for seconds in found.values())


def test_the_original_design_runs_the_network_at_its_widths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its cropped weights through `Subnet` give the same, with batch statistics."""
    graph = trace(network("resnet8"), (3, 16, 16))
    space = space_of(graph, ours=False)
    assert {len(levels) for levels in space.levels.values()} <= set(range(1, len(RATIOS) + 1))
    torch.manual_seed(0)
    net = OriginalPruningNet(graph).train()
    images = torch.randn(5, 3, 16, 16)
    caught: dict[str, torch.Tensor] = {}

    class Spy(original._Run):
        def __init__(self, net: OriginalPruningNet, weights: dict[str, torch.Tensor]) -> None:
            caught.update(weights)
            super().__init__(net, weights)

    monkeypatch.setattr(original, "_Run", Spy)
    biases = {name.replace("/", "."): bias for name, bias in net.biases.items()}
    for widths in (space.full, space.smallest, space.sample(torch.Generator().manual_seed(0))):
        logits = net(images, widths)
        weights = {name: (weight, biases.get(name)) for name, weight in caught.items()}
        torch.testing.assert_close(logits, Subnet(graph).logits(images, weights))
        assert sum(weight.numel() for weight in caught.values()) <= params(graph, widths)


def test_hooks_count_what_the_table_counts() -> None:
    model = network("mobilenet_v1").eval()
    graph = trace(model, (3, 32, 32))
    space = space_of(graph, ours=True)
    widths = space.sample(torch.Generator().manual_seed(0))
    assert with_hooks(narrow(model, graph, widths).eval(), (3, 32, 32)) == macs(graph, widths)


def test_rank_correlation() -> None:
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([5.0, 6, 9])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # ties share their mean rank: ranks 1, 2.5, 2.5 and 1, 2, 3
    tied = rank_correlation(np.array([1.0, 2, 2]), np.array([1.0, 2, 3]))
    assert tied == pytest.approx(np.sqrt(3) / 2)


def test_a_small_case_of_the_step_runs_both_ways() -> None:
    case = Case("resnet20", 4, 32)
    for make in pruningnet_step.STEPPERS.values():
        make(case)(0)
    assert pruningnet_step.floor(case) > 0
    assert {case.network for case in CASES} == {"resnet50", "mobilenet_v1"}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_parts_of_a_step_are_timed_in_every_precision(precision, monkeypatch):
    monkeypatch.setattr(harness, "PRECISION", precision)
    monkeypatch.setattr(pruningnet_step, "STEPS", 1)
    rows = pruningnet_step.parts(Case("resnet8", 2, 32))
    assert [row.what.partition(",")[0] for row in rows][1:] == ["conditioning alone"]
    assert min(rows[1].ours) > 0


def test_what_is_compared_with_their_code_is_what_their_code_has() -> None:
    assert {case.network for case in pruningnet_step.OFFICIAL} == {*MODELS}
    graph = Case(WIDE, 2, 32).graph()
    convolutions = [layer for layer in graph.layers if layer.kind != "linear"]
    assert len(convolutions) == 1 + 2 + 16 * 3 + 1
    # Liu et al. 2019 give 585 million MACs for 1.4 times the usual channels
    assert 500e6 < macs(Case(WIDE, 2, 224).graph(), graph.full_widths) < 600e6


def test_work_in_a_process_of_its_own_has_its_own_peak() -> None:
    with Apart(partial(partial, operator.mul, b"x"), keep_memory=True) as process:
        assert process(1) > 0
        little = process.peak()
        process(2**28)
        assert 0.2 < process.peak() - little < 0.4


def test_a_folder_without_their_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no resnet/training/resnet.py; give a checkout of"):
        official_step("resnet50", tmp_path, torch.zeros(1), torch.zeros(1))


def test_their_code_is_stepped_as_it_is(tmp_path: Path) -> None:
    """A made-up model in the place of theirs: it gets scales as theirs does, and learns."""
    file = tmp_path / "mobilenetv1/training/mobilenet_v1.py"
    file.parent.mkdir(parents=True)
    file.write_text(THEIRS)
    step = official_step("mobilenet_v1", tmp_path, torch.ones(2, 3), torch.tensor([0, 1]))
    for seed in (0, 0, 1):
        step(torch.Generator().manual_seed(seed))
    seen = [json.loads(line) for line in (tmp_path / "seen.txt").read_text().splitlines()]
    scales = [line["scales"] for line in seen]
    assert [len(one) for one in scales] == [13] * 3
    assert scales[0] == scales[1] != scales[2] and {*chain(*scales)} <= {*range(31)}
    assert len({line["weight"] for line in seen}) == 3


def test_scaling_is_drawn(tmp_path: Path) -> None:
    points = [
        ("layers", who, at, [0.1 * at, 0.2 * at])
        for who in ("ours", "reference")
        for at in (20, 56)
    ]
    scaling.draw([*points, ("candidates", "ours", 5, [1.0, 2.0])], tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_parts_and_missing_images_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        bench.main(["cost"])
    assert refused.value.code == 2 and "unknown part 'cost'" in capsys.readouterr().err
    assert bench.main(["loading"]) == 2
    assert capsys.readouterr().err.startswith("error: loading needs --images")
