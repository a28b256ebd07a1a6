"""What `python -m graphpruning inspect` says of a network: its graph, groups and budget range."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from graphpruning.architecture import full_network
from graphpruning.architecture_file import Entry, check_image, check_widths, read_entry
from graphpruning.builder import builder
from graphpruning.common.text import aligned
from graphpruning.network.cost import macs, params
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace

DIVISOR, SMALLEST = 8, 0.1
"""The search space of a user who chooses none: multiples of 8 from a tenth of the full width on."""


def describe(
    model: str | nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    num_classes: int = 1000,
    widths: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return layers, edges, groups, MACs, parameters and budget range as plain data for JSON.

    `model` is a name (torchvision's, ours, `package.module:function`) or a network. With `widths`
    the entry `narrowed` has MACs and parameters at these widths. Raises `UserError` for a network
    or widths that do not exist or do not fit.
    """
    sides = [int(side) for side in input_size]
    check_image(Entry("inspect", sides, "input size", "choose another"))
    make = builder(model, num_classes, input_size[0])
    graph = trace(full_network(make), input_size)
    return {"model": make.name, **describe_graph(graph, widths)}


def describe_graph(graph: ChannelGraph, widths: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The same of a graph, without its model's name."""
    space = SearchSpace(graph, divisor=DIVISOR, smallest=SMALLEST)
    plain = graph.describe()
    found = {
        "input_size": plain["input_size"],
        "macs": plain["macs"],
        "params": params(graph, graph.full_widths),
        "smallest_macs": space.macs(space.smallest),
        **{key: plain[key] for key in ("layers", "edges", "groups")},
    }
    if widths is not None:
        found["narrowed"] = {
            "widths": {group: widths[group] for group in graph.full_widths if group in widths},
            "macs": macs(graph, widths),
            "params": params(graph, widths),
        }
    return found


def read_widths(path: str | Path) -> dict[str, int]:
    """Return the widths in a JSON file: group ids and channels, or one of our architectures.

    Raises `UserError` for a file with anything else.
    """
    found = read_entry(path, "you, or `python -m graphpruning prune`,", "give channels by group")
    nested = isinstance(found.value, dict) and "widths" in found.value
    return check_widths(found.members()["widths"] if nested else found)


def text(description: Mapping[str, Any]) -> str:
    """Write `describe`'s data for people, one line a layer, an edge and a group."""
    layers, groups = description["layers"], description["groups"]
    size = " x ".join(str(side) for side in description["input_size"])
    full, least = description["macs"], description["smallest_macs"]
    prunable = sum(group["prunable"] for group in groups)
    lines = [
        f"{description['model']} on an image of {size}",
        f"{len(layers)} layers in {len(groups)} groups, {prunable} of them prunable",
        f"{full:,} MACs, {description['params']:,} parameters",
        f"budgets: {least:,} to {full:,} MACs ({least / full:.3f} to 1), "
        f"widths being multiples of {DIVISOR} from {SMALLEST:g} of the full width on",
    ]
    if narrowed := description.get("narrowed"):
        share = narrowed["macs"] / full
        lines.append(
            f"at the given widths: {narrowed['macs']:,} MACs ({share:.3f}), "
            f"{narrowed['params']:,} parameters"
        )
    return "\n".join(
        [*lines, "", *_layers(description), "", *_edges(description), "", *_groups(description)]
    )


def _layers(description: Mapping[str, Any]) -> list[str]:
    rows = [["layer", "kind", "in", "out", "kernel", "stride", "output", "MACs", "group"]]
    for layer in description["layers"]:
        pairs = ["x".join(str(n) for n in layer[key]) for key in ("kernel", "stride", "output")]
        rows.append(
            [
                layer["name"],
                layer["kind"],
                str(layer["in"]),
                str(layer["out"]),
                *pairs,
                f"{layer['macs']:,}",
                layer["group"],
            ]
        )
    return aligned(rows, right=(2, 3, 7))


def _edges(description: Mapping[str, Any]) -> list[str]:
    edges = description["edges"]
    shortcuts = sum(shortcut for _, _, shortcut in edges)
    lines = [f"{len(edges)} edges, {shortcuts} of them shortcuts"]
    rows = [[source, "->", target, "shortcut" * shortcut] for source, target, shortcut in edges]
    return lines + aligned(rows)


def _groups(description: Mapping[str, Any]) -> list[str]:
    lines = ["groups: layers whose output channels stay equal in number, and why"]
    narrowed = description.get("narrowed", {}).get("widths", {})
    for group in description["groups"]:
        width = f"{narrowed[group['id']]} of " if group["id"] in narrowed else ""
        what = "" if group["prunable"] else ", fixed"
        lines.append(f"{group['id']}: {width}{group['width']} channels{what}")
        if len(group["layers"]) > 1:
            lines.append(f"    layers: {', '.join(group['layers'])}")
        lines += [f"    {reason}" for reason in group["reason"].split("; ")]
    return lines


def to_json(description: Mapping[str, Any]) -> str:
    """Write `describe`'s data as JSON, one line an entry of a list."""
    parts = []
    for key, value in description.items():
        if isinstance(value, list) and value and isinstance(value[0], dict | list):
            entries = ",\n  ".join(json.dumps(entry) for entry in value)
            parts.append(f'"{key}": [\n  {entries}\n ]')
        else:
            parts.append(f'"{key}": {json.dumps(value)}')
    return "{\n " + ",\n ".join(parts) + "\n}"
