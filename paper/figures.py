"""Figures 1 to 9 as PDF and PNG: `python -m paper.figures results/STUDY`.

seaborn draws. Every value and interval is one of `paper.measures` and `paper.statistics`, so that
figures and tables agree; seaborn computes none of its own.
"""

import sys
from collections.abc import Callable, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from paper import command, figure_effects, figure_generated, figure_methods, figure_networks
from paper.figure_style import STYLE, save
from paper.reader.results import Results

FIGURES: dict[str, Callable[[Results], Figure]] = {
    "figure1_correlation_heatmaps": figure_networks.correlation_heatmaps,
    "figure2_r2_distributions": figure_networks.r2_distributions,
    "figure3_graph": figure_networks.channel_graph,
    "figure4_generated_accuracy": figure_generated.generated_accuracy,
    "figure5_search_curves": figure_methods.search_curves,
    "figure6_accuracy_macs": figure_methods.accuracy_macs,
    "figure7_kept_ratio": figure_methods.kept_ratio,
    "figure8_conditioning": figure_generated.conditioning,
    "figure9_effects": figure_effects.effects,
}


def drawn(results: Results) -> list[str]:
    """Names of the figures that a study has: the first three are of its networks."""
    names = list(FIGURES) if results.rows else list(FIGURES)[:3]
    return names if results.compared else names[2:]


def write(results: Results) -> None:
    """Write the study's figures into results/STUDY/figures."""
    for name in drawn(results):
        with rc_context(STYLE):
            save(FIGURES[name](results), results.path / "figures" / name)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return command.run("Make figures 1 to 9 from a study's results.", write, argv)


if __name__ == "__main__":
    sys.exit(main())
