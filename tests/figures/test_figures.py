"""Plotting functions: number of panels, axis labels, escaping of text."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmlab import figures
from mmlab.figures.style import figure_labels, figure_text, save_figure

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


@pytest.mark.parametrize("ticks", [[10, 15], [5, 6], [10, 25, 50]])
def test_ticks_of_whole_numbers_are_whole(ticks: list[float | int | str]) -> None:
    table = pd.DataFrame({"method": "a", "x": ticks, "mean": 0.5, "std": np.nan})
    figure = figures.curves({"knn": table}, ticks, "genes", {"knn": "accuracy"}, "title")
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())


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


def search_trials() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "score": [0.5, 0.9, 0.7, 0.8],
            "stopped": [False, True, False, False],
            "hidden_size": pd.Categorical(["64", "128", "64", "64"], ["64", "128", "256"]),
            "learning_rate": [1e-4, 1e-3, 2e-3, 1e-2],
            "beta": [0.8, 0.9, 0.85, 0.95],
        }
    )


def test_search_history_has_the_best_complete_trial_so_far_and_the_baselines() -> None:
    (axes,) = figures.search_history(search_trials(), {"scanpy_t_test": 0.6}).axes
    best, baseline = axes.get_lines()
    assert best.get_xdata().tolist() == [1, 2, 3, 4]
    assert best.get_ydata().tolist() == [0.5, 0.5, 0.7, 0.8]
    assert list(baseline.get_ydata()) == [0.6, 0.6]
    complete, stopped = axes.collections
    assert complete.get_offsets().tolist() == [[1, 0.5], [3, 0.7], [4, 0.8]]
    assert stopped.get_offsets().tolist() == [[2, 0.9]]


def test_parameter_scores_have_one_plot_per_parameter() -> None:
    figure = figures.parameter_scores(search_trials(), {"learning_rate"})
    size, rate, beta = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["hidden_size", "learning_rate", "beta"]
    assert [label.get_text() for label in size.get_xticklabels()] == ["64", "128", "256"]
    assert size.collections[0].get_offsets().tolist() == [[0, 0.5], [0, 0.7], [0, 0.8]]
    assert (rate.get_xscale(), beta.get_xscale()) == ("log", "linear")
    figure.canvas.draw()
    assert "0.001" in [label.get_text() for label in rate.get_xticklabels()]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.4425, 0.6297, 0.8426, 0.6], ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]),
        ([1e-4, 3e-4, 2e-3, 1e-3], ["0.0001", "0.0002", "0.0005", "0.001", "0.002"]),
        ([1e-5, 1e-4, 1e-1, 1e-2], ["1e-05", "0.0001", "0.001", "0.01", "0.1"]),
        ([3.0, 3.0, 3.0, 3.0], ["2.75", "3", "3.25"]),
    ],
)
def test_a_logarithmic_axis_of_any_range_has_some_ticks(
    values: list[float], labels: list[str]
) -> None:
    trials = search_trials()[["score", "stopped"]].assign(rate=values)
    (axes,) = figures.parameter_scores(trials, {"rate"}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == labels
    low, high = axes.get_xlim()
    assert all(low <= tick <= high for tick in axes.get_xticks())


def test_parameter_importances_are_bars_with_the_largest_at_the_top() -> None:
    (axes,) = figures.parameter_importances({"beta": 0.2, "learning_rate": 0.8}).axes
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.8]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["beta", "learning_rate"]


@pytest.mark.parametrize(("n_types", "columns"), [(4, 3), (13, 2), (48, 1)])
def test_confusion_matrices_of_many_types_are_one_per_row(n_types: int, columns: int) -> None:
    counts = np.eye(n_types, dtype=np.int64)
    types = [f"type {i}" for i in range(n_types)]
    figure = figures.confusion_matrices(dict.fromkeys("abc", counts), types, "title")
    drawn = [axes for axes in figure.axes if axes.images]
    assert len({axes.get_subplotspec().colspan.start for axes in drawn}) == columns


def test_text_of_figures_is_short_and_shown_as_text() -> None:
    assert figure_text("CD4+ $T$ \x1b[2J\na\u202eb") == r"CD4+ \$T\$ \x1b[2J a\u202eb"
    assert figure_text("x" * 40) == "x" * 40
    assert figure_text("x" * 300) == "x" * 39 + "…"
    assert figure_labels(["x" * 50, "x" * 60, "b"]) == ["x" * 39 + "…", "x" * 39 + "… (2)", "b"]


@pytest.mark.parametrize("name", ["x" * 300, "T細胞🧬", "\x1b[2Ja\x07"])
def test_figures_of_any_names_are_saved_without_warnings(name: str, tmp_path: Path) -> None:
    """A warning would be an error of the test."""
    classes = [f"{name} 1", f"{name} 2", *"abcdefgh"]
    y = np.arange(len(classes))
    counts = np.diag(y)
    table = pd.DataFrame({"method": classes, "x": 0.5, "mean": 0.5, "std": 0.1})
    maps = {name: np.zeros((len(y), 2), dtype=np.float32)}
    for number, figure in enumerate(
        [
            figures.confusion_matrix(counts, classes, name),
            figures.confusion_matrices(
                {name: counts[:2, :2], "b": counts[:2, :2]}, classes[:2], ""
            ),
            figures.curves({name: table}, [0.5], name, {name: "accuracy"}, name),
            figures.cell_maps(maps, y, classes, name),
        ]
    ):
        for kind in ("png", "svg"):
            save_figure(figure, tmp_path / f"{number}.{kind}")
        # Control characters are no valid XML.
        svg = xml.etree.ElementTree.parse(tmp_path / f"{number}.svg")
        assert "\x1b" not in "".join(svg.getroot().itertext())
