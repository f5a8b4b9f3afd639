"""Plotting functions: number of panels, axis labels, escaping of text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmlab import figures

CLASSES = ["T cell", "cost $5 to $6"]


def test_confusion_matrices_have_one_heat_map_each_with_the_counts() -> None:
    counts = np.array([[3, 1], [0, 4]])
    figure = figures.confusion_matrices({"one": counts, "two": counts}, CLASSES, "title")
    first, second, bar = figure.axes
    assert [first.get_title(), second.get_title()] == ["one", "two"]
    assert (first.get_xlabel(), first.get_ylabel()) == ("predicted cell type", "true cell type")
    assert [text.get_text() for text in first.texts] == ["3", "1", "4"]
    assert bar.get_ylabel() == "fraction of the cells of the true type"
    single = figures.confusion_matrix(counts, CLASSES, "title")
    assert single.axes[0].images[0].get_array().tolist() == [[0.75, 0.25], [0, 1]]


@pytest.mark.parametrize(
    ("ticks", "scale"), [([10, 50], "linear"), ([10, 100], "log"), (["auto", "half"], "linear")]
)
def test_curves_have_one_line_per_method_and_a_log_axis_for_large_ratios(
    ticks: list[int | str], scale: str
) -> None:
    table = pd.DataFrame(
        {"method": ["a", "a", "b", "b"], "x": ticks * 2, "mean": 0.5, "std": np.nan}
    )
    figure = figures.curves({"knn": table}, ticks, "x", {"knn": "accuracy"}, "title")
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.get_lines()] == ["a", "b"]
    assert axes.get_xscale() == scale
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "accuracy")


def test_text_between_dollar_signs_is_not_read_as_mathematics() -> None:
    xy = np.zeros((2, 2), dtype=np.float32)
    figure = figures.cell_maps({"panel": xy}, np.array([0, 1]), CLASSES, "title")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["T cell", r"cost \$5 to \$6"]


def test_decoder_plots_compare_original_and_reconstructed_cells() -> None:
    variances = pd.DataFrame({"original": [1.0, 2.0], "reconstructed": [0.5, 1.0]})
    (axes,) = figures.variances(variances, "title").axes
    assert axes.get_xlabel() == "variance of a gene over cells (z-scores)"
    columns = ["pc1", "pc2", "reconstructed_pc1", "reconstructed_pc2"]
    components = pd.DataFrame(np.eye(4), columns=columns).assign(cell_type=CLASSES * 2)
    figure = figures.principal_components(components, CLASSES, "title")
    assert [axes.get_title() for axes in figure.axes] == ["original", "reconstructed"]
