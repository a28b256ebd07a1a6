"""Figures: both forms, the same bytes in another process, legible in print, any study's shape."""

import itertools
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from paper import figures, measures
from paper.claims import claims
from paper.figure_effects import across, effects
from paper.figure_methods import search_curves
from paper.figure_style import PAGE, SMALL, STYLE, save
from paper.figures import FIGURES
from paper.reader.results import read
from paper.rule import marks
from tests.paper.conftest import Study, copied_study


@pytest.fixture(scope="module")
def made(results, tmp_path_factory):
    """A copy of `results` with its figures, and each of these as it was drawn, by its name."""
    folder = copied_study(results, tmp_path_factory.mktemp("figures"))
    drawn = {}

    def keep(figure, path):
        save(figure, path)
        drawn[path.name] = _laid_out(figure)  # in its own resolution again

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", keep)
        assert figures.main([str(folder)]) == 0
    return folder, drawn


@pytest.fixture(scope="module")
def folder(made):
    return made[0]


@pytest.fixture(scope="module")
def drawn(made):
    return made[1]


@pytest.fixture
def draw():
    """Draws as `paper.figures.write` does, and closes what it drew."""
    with rc_context(STYLE):
        yield lambda figure, results: _laid_out(figure(results))
    plt.close("all")


def _laid_out(figure):
    figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def found_wide(tmp_path_factory):
    """A study of other shape than the embedded one."""
    study = Study(
        tmp_path_factory.mktemp("wide") / "wide",
        models=("resnet20", "resnet32"),
        methods=("graphpruning", "uniform"),
        budgets=(0.5, "1M"),
        seeds=(0,),
        candidates=3,
    )
    return read(study.write())


@pytest.fixture(scope="module")
def found_one(tmp_path_factory):
    """A study of one replicate."""
    return read(Study(tmp_path_factory.mktemp("one") / "one", seeds=(0,), blocks=1).write())


def test_every_figure_is_vector_and_bitmap(folder):
    files = {path.name for path in (folder / "figures").iterdir()}
    assert files == {f"{name}{ending}" for name in FIGURES for ending in (".pdf", ".png")}
    assert len(FIGURES) == 9


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_names_its_script_and_fits_a_page(folder, name):
    assert b"paper/figures.py" in (folder / f"figures/{name}.pdf").read_bytes()
    with Image.open(folder / f"figures/{name}.png") as image:
        assert image.info["Source"] == "paper/figures.py"
        assert image.info["dpi"][0] == pytest.approx(200, abs=0.1)
        assert image.width in (660, 700, 1400)


def test_the_same_bytes_in_another_process(folder, tmp_path):
    before = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    again = copied_study(folder, tmp_path, without="figures")
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-m", "paper.figures", str(again)]
    subprocess.run(command, env=environment, check=True)
    assert before == {path.name: path.read_bytes() for path in (again / "figures").iterdir()}


@pytest.mark.parametrize("shape", ["embedded", "wide"])
@pytest.mark.parametrize("name", [name for name in FIGURES if name != "figure3_graph"])
def test_every_text_is_large_enough_and_stands_alone_on_the_page(
    drawn, found_wide, draw, name, shape
):
    """Figure 3 is the library's drawing, which has such a test of its own."""
    figure = drawn[name] if shape == "embedded" else draw(FIGURES[name], found_wide)
    page = figure.bbox
    assert figure.get_size_inches()[0] <= PAGE
    beyond = _labels_beyond_their_axis(figure)
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    texts = [text for text in texts if text not in beyond]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    assert len(boxes) > 10
    assert min(text.get_fontsize() for text in texts) >= SMALL
    for text, box in boxes:
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, text
    touching = [
        (one, other) for (one, a), (other, b) in itertools.combinations(boxes, 2) if a.overlaps(b)
    ]
    assert not touching


def _labels_beyond_their_axis(figure):
    """Matplotlib has, and does not draw, labels of ticks outside the range that an axis shows."""
    found = set()
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        found |= {label for tick in ticks for label in (tick.label1, tick.label2)}
    return found


def test_figure_6_draws_the_intervals_of_the_tables(found, drawn):
    figure = drawn["figure6_accuracy_macs"]
    for axis, budget in zip(figure.axes[1:], found.budgets, strict=True):
        lines = [tuple(line.get_xdata()) for line in axis.get_lines() if len(line.get_xdata()) == 2]
        lines = [ends for ends in lines if not np.isnan(ends).any()]
        expected = [measures.test_top1(found, "resnet20", name, budget) for name in found.rows]
        assert lines == [pytest.approx((top1.low, top1.high)) for top1 in expected]


def test_the_band_of_a_search_reaches_from_the_lowest_to_the_highest_replicate(found, drawn):
    axis = drawn["figure5_search_curves"].axes[0]
    searches = found.search["resnet20", found.ours.name, found.budgets[0]].values()
    last = [search.history["best"].iloc[-1] for search in searches]
    outline = axis.collections[0].get_paths()[0].vertices
    at_the_end = outline[outline[:, 0] == outline[:, 0].max(), 1]
    assert (min(at_the_end), max(at_the_end)) == pytest.approx((min(last), max(last)))


def test_methods_look_as_study_json_says(found, drawn):
    lines = drawn["figure5_search_curves"].axes[0].get_lines()
    rows = {row.label: row for row in found.rows.values()}
    assert len(lines) == 4
    for line in lines:
        row = rows[line.get_label().partition(" (")[0]]
        assert (to_hex(line.get_color()).upper(), line.get_marker()) == (row.colour, row.marker)
        assert line.get_linestyle() == row.line


def test_one_replicate_has_curves_without_bands(found_one, draw):
    axis = draw(search_curves, found_one).axes[0]
    areas = [path for area in axis.collections for path in area.get_paths()]
    assert len(axis.get_lines()) == 4 and not any(len(path.vertices) for path in areas)


def test_only_the_paper_waits_for_seaborn():
    """Its import takes seconds, which the library and the stages do without."""
    code = """
import importlib, pkgutil, sys, experiments, graphpruning
for package in graphpruning, experiments:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name not in ("graphpruning.__main__", "graphpruning.drawing"):
            importlib.import_module(module.name)
print(sorted({"seaborn", "matplotlib"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"


def test_every_effect_of_the_claims_is_a_line_of_figure_9(found, drawn):
    """At its value, with its interval and its status in a word; below its claim's verdict."""
    judged = claims(found)
    expected = [
        (one.label, one.estimate, status)
        for claim in judged
        for one, status in zip(claim.effects, marks(claim.effects), strict=True)
    ]
    lines = []
    for axis in drawn["figure9_effects"].axes:
        names = [text.get_text() for text in axis.get_yticklabels()]
        labels = dict(zip(axis.get_yticks(), names, strict=True))
        words = {text.xy[1]: text.get_text() for text in axis.texts}
        values = {line.get_ydata()[0]: line.get_xdata()[0] for line in axis.get_lines()}
        for y, value in values.items():
            lines.append((labels[y], value, words[y].split()[-1]))
        headings = [words[y] for y in labels if y not in values]
        verdicts = {claim.id: claim.verdict for claim in judged}
        assert headings == [verdicts[labels[y][:2]] for y in labels if y not in values]
    assert sorted(lines) == sorted((label, one.value, status) for label, one, status in expected)


def test_an_effect_without_interval_is_hollow(found_one, draw):
    figure = draw(effects, found_one)
    lines = [line for axis in figure.axes for line in axis.get_lines()]
    hollow = [line for line in lines if line.get_markerfacecolor() == "white"]
    final = figure.axes[0].get_lines()
    assert len(final) > 5 and set(final) < set(hollow) and len(hollow) < len(lines)


def test_studies_side_by_side_have_the_same_line_at_the_same_height(found, tmp_path, draw):
    few = Study(tmp_path / "few", methods=("graphpruning", "amc", "random"), blocks=1, candidates=4)
    few = read(few.write())
    figure = draw(across, [few, found])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    for axis, study in zip(figure.axes, (few, found), strict=True):
        (amc,) = [line for line in axis.get_lines() if labels[int(line.get_ydata()[0])] == "AMC"]
        expected = measures.test_difference(study, "resnet20", "amc", study.budgets)
        assert amc.get_xdata()[0] == pytest.approx(expected.value)
