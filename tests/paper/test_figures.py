"""Figures: both forms, the same bytes in another process, the script's name, any study's shape."""

import os
import subprocess
import sys

import matplotlib
import pytest
from PIL import Image

from paper.figures import FIGURES, PAGE, STYLE
from paper.results import read
from tests.paper.conftest import Study, copied_study


def test_every_figure_is_vector_and_bitmap(made):
    files = {path.name for path in (made / "figures").iterdir()}
    assert files == {f"{name}{ending}" for name in FIGURES for ending in (".pdf", ".png")}
    assert len(FIGURES) == 7


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_names_its_script_and_fits_a_page(made, name):
    assert b"paper/figures.py" in (made / f"figures/{name}.pdf").read_bytes()
    with Image.open(made / f"figures/{name}.png") as image:
        assert image.info["Source"] == "paper/figures.py"
        assert image.info["dpi"][0] == pytest.approx(200, abs=0.1)
        assert image.width in (660, 700, 1400)


def test_the_same_bytes_in_another_process(made, tmp_path):
    before = {path.name: path.read_bytes() for path in (made / "figures").iterdir()}
    again = copied_study(made, tmp_path, without="figures")
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-m", "paper.figures", str(again)]
    subprocess.run(command, env=environment, check=True)
    assert before == {path.name: path.read_bytes() for path in (again / "figures").iterdir()}


def test_two_models_one_seed_and_an_absolute_budget(tmp_path):
    """The shapes that a study may take beyond the embedded one."""
    study = Study(
        tmp_path / "wide",
        models=("resnet20", "resnet32"),
        methods=("graphpruning", "uniform"),
        budgets=(0.5, "1M"),
        seeds=("0",),
        candidates=3,
    )
    results = read(study.write())
    with matplotlib.rc_context(STYLE):
        for draw in FIGURES.values():
            figure = draw(results)
            assert figure.get_size_inches()[0] <= PAGE
            figure.canvas.draw()
            matplotlib.pyplot.close(figure)
