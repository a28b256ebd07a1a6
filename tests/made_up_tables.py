"""Tables in the form of Channel-Bench-Macro's, which are not committed."""

import hashlib
import itertools
import json
from pathlib import Path

import pytest

from graphpruning import channel_bench
from graphpruning.channel_bench import NETWORKS


def accuracies(key: str) -> list[float]:
    """Made up: 50 points and the digits' sum, 0 to 2 points more in the three trainings."""
    return [50.0 + sum(map(int, key)) + training for training in range(3)]


def write_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write tables with made-up accuracies to `folder`, whose hashes then count as the right ones.

    Their keys stand in another order than the reader's.
    """
    keys = ["".join(digits) for digits in itertools.product("1234", repeat=7)]
    text = json.dumps({key: {"acc": accuracies(key)} for key in reversed(keys)})
    hashes = {}
    for network in NETWORKS:
        path = folder / f"Results_{network}.json"
        path.write_text(text)
        hashes[path.name] = hashlib.sha256(text.encode()).hexdigest()
    monkeypatch.setattr(channel_bench, "FILES", hashes)
    return folder
