"""What `prune` found, before and after, and where each number comes from."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from graphpruning.common.machine import processor
from graphpruning.export import TOLERANCE
from graphpruning.latency import REPEATS
from graphpruning.network.cost import params
from graphpruning.network.graph import OUTPUT, ChannelGraph
from graphpruning.network.latency_cost import NANOSECONDS
from graphpruning.search.history import Candidate
from graphpruning.training.loop import Accuracy

REASON = 120  # characters of why a layer is not pruned; `inspect` says all
LISTED = 100  # classes that the report for people names


def report(
    graph: ChannelGraph,
    settings: Mapping[str, Any],
    found: Candidate,
    accuracies: tuple[Accuracy | None, Accuracy],
    milliseconds: list[float],
    device: torch.device,
    onnx: Mapping[str, Any],
    classes: Sequence[str],
    batch: int = 1,
) -> dict[str, Any]:
    """Return the report as plain data for JSON; pairs are the full network, then the found one."""
    full = graph.full_widths
    networks = {}
    rows = zip(("before", "after"), (full, found.widths), accuracies, milliseconds, strict=True)
    for name, widths, accuracy, latency in rows:
        networks[name] = {
            "top1": accuracy and accuracy.top1,
            "top5": accuracy and accuracy.top5,
            "macs": found.macs if name == "after" else graph.macs,
            "params": params(graph, widths),
            "latency_ms": round(latency, 3),
        }
    name = processor() if device.type == "cpu" else torch.cuda.get_device_name(device)
    return {
        **networks,
        "search_top1": found.accuracy,
        "widths": {group: [width, found.widths[group]] for group, width in full.items()},
        "fixed": fixed(graph),
        "latency": {
            "device": name,
            "threads": torch.get_num_threads(),
            "repeats": REPEATS,
            "batch": batch,
        },
        "onnx": dict(onnx),
        "classes": list(classes),
        "settings": dict(settings),
    }


def fixed(graph: ChannelGraph) -> list[str]:
    """Say in a line each which layers keep their channels because of how the network is written."""
    return [
        f"{group.id} is not pruned, all {group.width} channels stay: "
        f"{textwrap.shorten(group.reason, REASON)}"
        for group in graph.groups
        if not group.prunable and group.reason != OUTPUT
    ]


def time_budget(
    budget: float, estimates: tuple[int, int], milliseconds: list[float]
) -> dict[str, Any]:
    """What a budget of milliseconds asked for, expected (nanoseconds) and measured: whole network,
    found one.

    An error is the estimate's distance to the measurement, as a share of the measurement.
    """
    rows = {}
    for name, estimate, measured in zip(("before", "after"), estimates, milliseconds, strict=True):
        said = estimate / NANOSECONDS
        rows[name] = {
            "estimate_ms": round(said, 4),
            "measured_ms": round(measured, 4),
            "error": round(said / measured - 1, 4),
        }
    return {"budget_ms": budget, **rows}


def markdown(report: Mapping[str, Any]) -> str:
    """Write the report for people."""
    settings, before, after = report["settings"], report["before"], report["after"]
    images, where, network = settings["images"], report["latency"], settings["network"]
    lines = [
        f"# {network.get('name') or network['function']}, pruned by {settings['method']}",
        "",
        "| | before | after | ratio |",
        "| :-- | --: | --: | --: |",
        *_accuracy(before, after, images["classes"]),
        _row("MACs", before["macs"], after["macs"]),
        _row("parameters", before["params"], after["params"]),
        _row("latency (ms)", before["latency_ms"], after["latency_ms"]),
        "",
        _budget(report),
        "",
        "## Where the numbers come from",
        "",
        f"- Accuracy: all {images['test']:,} test images of `{settings['data']}`, which nothing "
        "else has read." + _before(settings),
        "- MACs and parameters: multiply-accumulates of convolution and linear layers for one "
        f"image of {' x '.join(str(side) for side in settings['input_size'])}, counted from the "
        "widths; all weights, biases and norms.",
        f"- Latency: {_images(where['batch'])}, fp32, lower quartile of {where['repeats']} repeats "
        f"that alternate between both networks, {where['threads']} threads, on "
        f"{where['device']}.",
        f"- Search: {settings['evaluations']} candidates judged on {images['search']:,} images "
        f"held out of training; the best had {report['search_top1']:.2f} % there, with the "
        "weights of the search.",
        f"- Final training: {settings['recipes']['final']['epochs']:g} epochs of "
        f"{images['train']:,} images, from {_INITIAL[settings['initial']]}; seed "
        f"{settings['seed']}." + _distilled(settings),
        f"- ONNX: {_onnx(report['onnx'])}",
        "",
        "## Classes",
        "",
        _classes(report["classes"]),
        "",
        "## Widths",
        "",
        "| group | before | after | kept |",
        "| :-- | --: | --: | --: |",
        *(_row(group, *widths) for group, widths in report["widths"].items()),
        "",
        *(f"- {line}" for line in report["fixed"]),
        *([""] if report["fixed"] else []),
        "`report.json` has the same numbers and every setting. `architecture.json` and "
        "`weights.safetensors` are the network: `graphpruning.load_architecture` reads them.",
    ]
    return "\n".join(lines) + "\n"


def _budget(report: Mapping[str, Any]) -> str:
    if (timed := report.get("time_budget")) is None:
        return f"The budget was {report['settings']['budget_macs']:,} MACs."
    after, before = timed["after"], timed["before"]
    return (
        f"The budget was {timed['budget_ms']:g} ms. By the table the found network takes "
        f"{after['estimate_ms']:.3f} ms, measured are {after['measured_ms']:.3f} ms: an error of "
        f"{100 * after['error']:+.1f} %. (The whole network: {before['estimate_ms']:.3f} ms by "
        f"the table, {before['measured_ms']:.3f} ms measured beside it, "
        f"{100 * before['error']:+.1f} %. Where the machine is as busy as when its layers were "
        "measured, both errors are small.)"
    )


def _images(batch: int) -> str:
    return "one image" if batch == 1 else f"a batch of {batch} images"


_INITIAL = {
    "inherited": "the trained network's weights, cut and fitted again",
    "generated": "the weights that the search used",
    "scratch": "fresh weights",
}


def _classes(names: Sequence[str]) -> str:
    """In the order of the outputs, as Markdown that shows the names as they are."""
    shown = [f"`{name}`" if "`" not in name else f"`` {name} ``" for name in names[:LISTED]]
    more = f", and {len(names) - LISTED:,} more in `report.json`" if len(names) > LISTED else ""
    return f"The outputs, in order: {', '.join(shown)}{more}."


def _distilled(settings: Mapping[str, Any]) -> str:
    if (shares := settings["distillation"]) is None:
        return ""
    return (
        f" It learnt from the trained network too: weight {shares['weight']:g} of its scores at "
        f"temperature {shares['temperature']:g}."
    )


def _accuracy(before: Mapping[str, Any], after: Mapping[str, Any], classes: int) -> list[str]:
    rows = []
    for key in ("top1", "top5") if classes > 5 else ("top1",):
        was = "—" if before[key] is None else f"{before[key]:.2f}"
        change = "" if before[key] is None else f"{after[key] - before[key]:+.2f}"
        rows.append(f"| {key[:3]}-{key[3]} (%) | {was} | {after[key]:.2f} | {change} |")
    return rows


def _row(name: str, before: float, after: float) -> str:
    shown = (
        f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" for value in (before, after)
    )
    return f"| {name} | {' | '.join(shown)} | {after / before:.3f} |"


def _before(settings: Mapping[str, Any]) -> str:
    if settings["weights"] is None:
        return " No trained weights were given, so there is none before."
    return f" Before: {settings['weights']['source']}."


def _onnx(onnx: Mapping[str, Any]) -> str:
    if onnx["file"] is None:
        return f"not written. {onnx['reason']}"
    return (
        f"`{onnx['file']}`; under onnxruntime its outputs differ from PyTorch's by "
        f"{onnx['difference']:.1e} of the largest (allowed: {TOLERANCE:.0e})."
    )
