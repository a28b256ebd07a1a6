"""The drawn graph shows every layer and edge, legibly, and is the same on every run."""

import itertools
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from graphpruning import UserError, describe, draw
from graphpruning.__main__ import main
from graphpruning.drawing import SHORTCUT, draw_graph

NETWORKS = ("resnet20", "resnet50", "mobilenet_v2", "densenet121")
every = pytest.mark.parametrize("name", NETWORKS)


@cache
def description(name: str) -> dict[str, Any]:
    return describe(name)


@cache
def figure(name: str) -> Figure:
    return draw_graph(description(name))


@every
def test_every_layer_is_named(name: str) -> None:
    words = [text.get_text() for text in figure(name).axes[0].texts]
    for layer in description(name)["layers"]:
        assert any(word and layer["name"].endswith(word.lstrip("…")) for word in words)


@every
def test_every_edge_ends_in_an_arrow_and_shortcuts_have_their_colour(name: str) -> None:
    arrows = [patch for patch in figure(name).axes[0].patches if type(patch) is FancyArrowPatch]
    edges = description(name)["edges"]
    assert len(arrows) == len(edges)
    shortcuts = [arrow for arrow in arrows if to_hex(arrow.get_edgecolor()) == SHORTCUT.lower()]
    assert len(shortcuts) == sum(shortcut for *_, shortcut in edges)


@every
def test_it_is_legible_on_a_page(name: str) -> None:
    drawn = figure(name)
    assert drawn.get_figwidth() <= 7 and drawn.get_figheight() <= 9.8
    renderer = FigureCanvasAgg(drawn).get_renderer()
    texts = [text for text in drawn.axes[0].texts if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 5
    boxes = [text.get_window_extent(renderer) for text in texts]
    page = drawn.bbox
    assert all(box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 for box in boxes)
    lines = itertools.groupby(
        sorted(boxes, key=lambda box: (round(box.y0), box.x0)), key=lambda box: round(box.y0)
    )
    for _, line in lines:
        for left, right in itertools.pairwise(line):
            assert left.x1 <= right.x0 + 1


def test_narrowed_widths_are_the_numbers(tmp_path: Path) -> None:
    full = describe("resnet8", (3, 32, 32), 10)
    widths = {group["id"]: 5 for group in full["groups"] if group["prunable"]}
    drawn = draw_graph(describe("resnet8", (3, 32, 32), 10, widths))
    words = [text.get_text() for text in drawn.axes[0].texts]
    assert words.count("5") == len(full["layers"]) - 1 and "16" not in words


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg"])
def test_the_same_bytes_every_time(tmp_path: Path, ending: str) -> None:
    found = describe("resnet8", (3, 32, 32), 10)
    first, second = tmp_path / f"first{ending}", tmp_path / f"second{ending}"
    draw(found, first)
    draw(found, second)
    assert first.read_bytes() == second.read_bytes()
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[ending]
    assert first.read_bytes().startswith(start)


def test_the_command_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "graph.svg"
    small = ["inspect", "resnet8", "--input-size", "3", "32", "32"]
    assert main([*small, "--draw", str(file)]) == 0
    assert "graphpruning.drawing" in file.read_text()
    assert main([*small, "--draw", str(tmp_path / "graph.gif")]) == 2
    assert "not '.gif'" in capsys.readouterr().err


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.pdf"):
        draw(description("resnet20"), tmp_path / "graph")
    assert not list(tmp_path.iterdir())


def test_drawing_needs_no_torch() -> None:
    code = "import graphpruning.drawing, sys; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
