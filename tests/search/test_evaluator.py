from functools import partial
from math import prod

import pytest
import torch

from graphpruning.network import subnet
from graphpruning.network.surgery import install, narrow
from graphpruning.network.trace import trace
from graphpruning.network.zoo import build
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.search.evaluator import Evaluator
from graphpruning.search.sliced import SlicedWeights


def test_it_agrees_with_the_network_it_stands_for(judged):
    model, graph, sliced, calibration, search = judged
    evaluator = Evaluator(graph, sliced, calibration, search)
    assert evaluator(graph.full_widths) == 100.0
    widths = {group: width // 2 for group, width in graph.full_widths.items()}
    narrowed = narrow(model, graph, widths)
    install(narrowed, graph, sliced(widths), evaluator.statistics(widths, sliced(widths)))
    with torch.no_grad():
        hits = [narrowed.eval()(images).argmax(dim=1) == labels for images, labels in search]
    assert evaluator(widths) == pytest.approx(100 * torch.cat(hits).double().mean().item())
    assert 0 < evaluator(widths) < 100


def test_images_are_counted(judged):
    _, graph, sliced, calibration, search = judged
    evaluator = Evaluator(graph, sliced, calibration, search)
    evaluator(graph.full_widths)
    evaluator(graph.full_widths)
    assert evaluator.images_per_candidate == 32 + 32 + 40 + 25
    assert evaluator.images_seen == 2 * evaluator.images_per_candidate


def test_calibration_decides(judged):
    _, graph, sliced, calibration, search = judged
    shifted = [(4 * images + 3, labels) for images, labels in calibration]
    assert Evaluator(graph, sliced, shifted, search)(graph.full_widths) < 100
    assert Evaluator(graph, sliced, calibration, search)(graph.full_widths, False) < 100


def test_it_runs_in_the_precision_asked_for(judged, monkeypatch):
    _, graph, sliced, calibration, search = judged
    autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    evaluator = Evaluator(graph, sliced, calibration, search, autocast)
    seen, judging = [], evaluator.subnet.judging

    def noted(*given):
        scores = judging(*given)
        return lambda images: seen.append(scores(images)) or seen[-1]

    monkeypatch.setattr(evaluator.subnet, "judging", noted)
    accuracy = evaluator(graph.full_widths)
    assert [scores.dtype for scores in seen] == [torch.bfloat16] * len(search)
    labels = torch.cat([labels for _, labels in search])
    constant = 100 * labels.bincount().max().item() / len(labels)
    assert constant < 100 / 3
    # The labels are those of 32 bits: rounding changes a few of them, and no more.
    assert 85 < accuracy <= 100


def test_kept_statistics_are_those_of_the_base(judged):
    """AMC's: at full width the network is the base itself, to the bit."""
    model, graph, _, calibration, search = judged
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        kept = SlicedWeights(model, graph, [], 10, torch.Generator(), reconstruct=False)
        labels = [(images, model(images).argmax(dim=1)) for images, _ in search]
    evaluator = Evaluator(graph, kept, calibration, labels, statistics_of=kept.statistics)
    assert evaluator(graph.full_widths) == 100.0
    assert evaluator.images_per_candidate == 40 + 25  # nothing is recalibrated
    assert Evaluator(graph, kept, calibration, labels)(graph.full_widths) < 100
    widths = {group: width // 2 for group, width in graph.full_widths.items()}
    mask = graph.these_units(kept.kept(widths))
    for name, (mean, variance) in kept.statistics(widths).items():
        norm = model.get_submodule(name)
        index = mask[graph.norms[name]]
        assert torch.equal(mean, norm.running_mean[index])
        assert torch.equal(variance, norm.running_var[index])


def test_one_of_the_five_best_is_enough_for_top5(judged):
    model, graph, sliced, calibration, search = judged
    second = []
    statistics = Evaluator(graph, sliced, calibration, []).statistics(
        graph.full_widths, sliced(graph.full_widths)
    )
    full = narrow(model, graph, graph.full_widths)
    install(full, graph, sliced(graph.full_widths), statistics)
    with torch.no_grad():
        for images, _ in search:
            second.append((images, full.eval()(images).topk(2).indices[:, 1]))
    assert Evaluator(graph, sliced, calibration, second)(graph.full_widths) == 0
    assert Evaluator(graph, sliced, calibration, second, top=5)(graph.full_widths) == 100


def test_a_large_batch_is_computed_in_parts_and_judged_as_one(monkeypatch):
    model = build("resnet8", 10, in_channels=1, width=8)
    graph = trace(model, (1, 16, 16))
    torch.manual_seed(0)
    weights = PruningNet(graph, "graph").eval().weights
    batch = torch.randn(30, 1, 16, 16), torch.randint(10, (30,))
    accuracies, parts = [], []
    mean = sum(layer.out_channels * prod(layer.output_size) for layer in graph.layers) / len(
        graph.layers
    )
    for values in (2**24, int(7.5 * mean)):
        monkeypatch.setattr(subnet, "AT_ONCE", values)
        judge = Evaluator(graph, weights, [batch], [batch])
        seen, run = [], judge.subnet.program.run
        counted = lambda x, *rest: seen.append(len(x)) or run(x, *rest)  # noqa: E731, B023
        monkeypatch.setattr(judge.subnet.program, "run", counted)
        accuracies.append(judge(graph.full_widths))
        parts.append(seen)
    assert accuracies[0] == accuracies[1]
    assert parts == [[30, 30], [30, *[6] * 5]]  # recalibrated as a whole; judged in equal parts
