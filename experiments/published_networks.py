"""Channel lists that the baselines published, as architecture files and counted by our counter.

`python -m experiments.published_networks` reads the lists, with their sources, in
`paper/published_widths.csv`. It writes `paper/published_networks/NAME.json` (widths, no weights)
and `paper/published_counts.csv`, from which Table 5 takes MACs and parameters. Each list is
written in its repository's own terms; a rule below says which group each number belongs to.
"""

import argparse
import csv
import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from graphpruning.architecture import full_network, read_architecture, save_weightless
from graphpruning.builder import Builder
from graphpruning.common.files import read_text, write_text
from graphpruning.network import zoo
from graphpruning.network.trace import trace

PAPER = Path(__file__).parents[1] / "paper"
IMAGE = (3, 224, 224)
PREPROCESSING = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "pad": 0,
    "flip": True,
    "size": 224,
    "resize": 256,
}
Channels = dict[str, int]
"""Channels by group: of a full network, or those that are kept of it."""


def width(numbers: Sequence[float], full: Channels) -> Channels:
    """One multiplier for every group."""
    (multiplier,) = numbers
    return {group: int(multiplier * channels) for group, channels in full.items()}


def channels(numbers: Sequence[float], full: Channels) -> Channels:
    """The channels themselves, in the order of the groups."""
    return dict(zip(full, map(int, numbers), strict=True))


def metapruning_v1(numbers: Sequence[float], full: Channels) -> Channels:
    """Scales of the 13 blocks but the last, which is not pruned, and at the end of the stem."""
    *others, last = full
    by_group = dict(zip(others, (numbers[-1], *numbers[:-1]), strict=True))
    return {**{group: _scaled(full[group], by_group[group]) for group in others}, last: full[last]}


def metapruning_v2(numbers: Sequence[float], full: Channels) -> Channels:
    """Scales of the outputs of stem and 17 blocks, then of what each block expands to."""
    scales = {"conv1": numbers[0]}
    for block in range(17):
        scales[f"blocks.{block}.project"] = numbers[1 + block]
        scales[f"blocks.{block}.expand"] = numbers[18 + block]
    return {
        **{group: _scaled(full[group], scales[group]) for group in full if group != "conv2"},
        "conv2": full["conv2"],
    }


def metapruning_resnet50(numbers: Sequence[float], full: Channels) -> Channels:
    """Scales of the stem, of three stages' outputs, and of the middle of each of 16 blocks."""
    kept = {**full, "conv1": _scaled(full["conv1"], numbers[0])}
    blocks = [(stage, block) for stage, n in enumerate((3, 4, 6, 3), 1) for block in range(n)]
    for (stage, block), middle in zip(blocks, numbers[4:], strict=True):
        for layer in ("conv1", "conv2"):
            group = f"layer{stage}.{block}.{layer}"
            kept[group] = _scaled(full[group], middle)
    for stage in (1, 2, 3):
        group = f"layer{stage}.0.conv3"
        kept[group] = _scaled(full[group], numbers[stage])
    return kept


def amc_v2(numbers: Sequence[float], full: Channels) -> Channels:
    """What each layer after the stem reads, depthwise layers apart; last what `fc` reads."""
    stem, first, *pairs, last = map(int, numbers)
    kept = {"features.0.0": stem, "features.1.conv.1": first, "features.18.0": last}
    for block, (hidden, output) in enumerate(zip(pairs[::2], pairs[1::2], strict=True), 2):
        kept[f"features.{block}.conv.0.0"] = hidden
        kept[f"features.{block}.conv.2"] = output
    return {group: kept[group] for group in full}


def _scaled(full: int, number: float) -> int:
    """MetaPruning numbers its 31 scales 0.10, 0.13, ... 1.00 from 0 on."""
    return int(full * ((10 + 3 * number) / 100))


def _described(name: str) -> dict[str, Any]:
    return {"name": name, "num_classes": 1000, "in_channels": 3}


@cache
def _full_widths(name: str) -> Channels:
    return dict(trace(full_network(Builder(zoo.build, _described(name))), IMAGE).full_widths)


RULES: dict[str, Callable[[Sequence[float], Channels], Channels]] = {
    rule.__name__: rule
    for rule in (width, channels, metapruning_v1, metapruning_v2, metapruning_resnet50, amc_v2)
}


def write(paper: Path = PAPER) -> None:
    """Write every architecture file, and the table of what each network costs."""
    lists = csv.DictReader(io.StringIO(read_text(PAPER / "published_widths.csv", "git checkout")))
    text = io.StringIO()
    counts = csv.writer(text, lineterminator="\n")
    counts.writerow(("architecture", "macs", "params"))
    for row in lists:
        full = _full_widths(row["network"])
        path = paper / "published_networks" / f"{row['architecture']}.json"
        save_weightless(
            path,
            network=_described(row["network"]),
            input_size=IMAGE,
            widths=RULES[row["rule"]]([float(number) for number in row["numbers"].split()], full),
            preprocessing=PREPROCESSING,
        )
        found = read_architecture(path)
        counts.writerow((row["architecture"], found["macs"], found["params"]))
    write_text(paper / "published_counts.csv", text.getvalue())


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    argparse.ArgumentParser(description="Write the published networks.").parse_args(argv)
    write()


if __name__ == "__main__":
    main()
