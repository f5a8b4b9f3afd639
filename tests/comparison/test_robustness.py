"""Robustness to label noise: area under the curve, noise at 5 % loss, tables and figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from scipy import stats

from mmlab.comparison.curves import (
    curve_figures,
    curve_tables,
    curve_views,
    robustness_note,
    write_curves,
)
from mmlab.comparison.result_table import summarise_rows
from mmlab.comparison.robustness import (
    ROBUSTNESS_METRICS,
    area_under_curve,
    fill_clean_metrics,
    loss_interval,
    loss_level,
    robustness_metrics,
    robustness_table,
)
from mmlab.comparison.shown_table import markdown
from mmlab.comparison.significance import add_significance, reference_tests
from mmlab.spec.comparison import ComparisonSpec, MethodSpec

LEVELS = (0.0, 0.2, 0.5, 1.0)


def test_the_area_under_a_straight_line_is_its_mean() -> None:
    levels = np.array(LEVELS)
    assert area_under_curve(levels, np.stack([1 - levels, np.full(4, 0.7)])) == pytest.approx(
        [0.5, 0.7]
    )


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_the_area_is_between_minimum_and_maximum(values: list[float]) -> None:
    (found,) = area_under_curve(np.array(LEVELS), np.array([values]))
    assert min(values) - 1e-12 <= found <= max(values) + 1e-12


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 0.9, 0.5, 0.0], 0.1),
        ([0.8, 0.78, 0.74, 0.1], 0.35),
        ([0.8, 0.8, 0.8, 0.8], np.inf),
        ([0.8, 0.9, 0.9, 0.77], np.inf),
        ([1.0, 1.0, 1.0, 0.95], 1.0),
        ([0.0, 0.0, 0.0, 0.0], np.inf),
    ],
)
def test_loss_level_is_where_5_percent_are_lost(values: list[float], expected: float) -> None:
    assert loss_level(np.array(LEVELS), np.array(values)) == pytest.approx(expected)


def test_the_loss_interval_of_straight_lines_is_fiellers() -> None:
    rng = np.random.default_rng(4)
    first = 0.9 + 0.02 * rng.standard_normal(5)
    last = first - 0.2 + 0.02 * rng.standard_normal(5)
    # Difference to 95 % of the first value: a + b x. The ends solve mean^2 = q^2 variance.
    a, b = 0.05 * first, last - first
    covariance = np.cov(a, b)
    q2 = stats.t.ppf(0.975, 4) ** 2 * (1 / 5 + 0.25)
    ends = np.roots(
        [
            b.mean() ** 2 - q2 * covariance[1, 1],
            2 * (a.mean() * b.mean() - q2 * covariance[0, 1]),
            a.mean() ** 2 - q2 * covariance[0, 0],
        ]
    )
    expected_low, expected_high = sorted(ends)
    assert 0 < expected_low < expected_high < 1
    low, high = loss_interval(np.array([0.0, 1.0]), np.column_stack([first, last]))
    # The ends are rounded outwards to a grid of 2000 steps.
    assert expected_low - 1 / 2000 <= low <= expected_low
    assert expected_high <= high <= expected_high + 1 / 2000


def test_a_loss_that_is_not_reached_has_an_infinite_interval() -> None:
    levels, shifts = np.array(LEVELS), np.array([[-0.004], [0.0], [0.004]])
    flat = np.full(4, 0.9) + shifts
    assert loss_interval(levels, flat) == (np.inf, np.inf)
    # The mean curve loses 4 %, and the curves differ by more than the remaining 1 %.
    uncertain = np.array([0.9, 0.9, 0.9, 0.864]) + shifts * [0, 0, 0, 3]
    low, high = loss_interval(levels, uncertain)
    assert 0.5 < low < 1
    assert high == np.inf
    # The curves recover: after the loss, a level without loss is compatible with them.
    recovering = np.array([0.9, 0.7, 0.9, 0.9]) + shifts
    low, high = loss_interval(levels, recovering)
    assert 0 < low < 0.2
    assert high == np.inf


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize(
    "expected_curve",
    [[0.945, 0.94, 0.925, 0.75, 0.42, 0.10], [0.95, 0.949, 0.946, 0.93, 0.88, 0.75]],
)
def test_the_loss_interval_covers_the_expected_level_in_95_percent_of_studies(
    n: int, expected_curve: list[float]
) -> None:
    levels, expected = np.array([0, 0.1, 0.2, 0.5, 0.75, 1]), np.array(expected_curve)
    rng, n_studies = np.random.default_rng(7), 1000
    # With correlation TEST_SHARE / (1 + TEST_SHARE) = 0.2 between splits, the corrected variance
    # is the variance of the mean. The values of a curve are correlated as well.
    over_levels = np.linalg.cholesky(0.6 + 0.4 * np.eye(6))
    common = rng.standard_normal((n_studies, 1, 6)) @ over_levels.T
    own = rng.standard_normal((n_studies, n, 6)) @ over_levels.T
    studies = expected + 0.012 * (np.sqrt(0.2) * common + np.sqrt(0.8) * own)
    ends = np.array([loss_interval(levels, values) for values in studies])
    true_level = loss_level(levels, expected)
    assert 0.1 < true_level < 0.9
    covered = (ends[:, 0] <= true_level) & (true_level <= ends[:, 1])
    # Three standard errors of a share of 0.95 are 0.02.
    assert abs(covered.mean() - 0.95) < 0.02


def row(method: str, replicate: int, level: float, accuracy: float, clean: float) -> dict[str, Any]:
    values = {"knn/accuracy": accuracy, "random_forest/accuracy": accuracy}
    if level > 0:
        values |= {"clean_knn/accuracy": clean, "clean_random_forest/accuracy": clean}
    return {
        "dataset": "zeisel",
        "method": method,
        "selector": method,
        "replicate": replicate,
        "noise_level": level,
        "setting": f"noise {100 * level:g} %",
        "n_markers": 50,
        "panel": [1, 2, 3],
        "fit_seconds": 1.0,
        "confusion/knn": [[1, 0], [0, 1]],
        **values,
    }


@pytest.fixture
def rows() -> pd.DataFrame:
    """Three splits of two methods: label noise changes the panels of the fragile one only."""
    found = []
    for replicate, shift in enumerate((0.0, 0.01, 0.02)):
        for level in LEVELS:
            jitter = 0.001 * (-1) ** replicate
            noisy, clean = 0.9 - 0.6 * level + shift, 0.9 - 0.3 * level + shift + jitter
            found.append(fill_clean_metrics(row("fragile", replicate, level, noisy, clean)))
            found.append(fill_clean_metrics(row("robust", replicate, level, noisy, 0.8 + shift)))
    return pd.DataFrame(found)


@pytest.fixture
def spec() -> ComparisonSpec:
    return ComparisonSpec.model_validate(
        {
            "study": "robustness",
            "data": {"name": "zeisel"},
            "levels": LEVELS,
            "replicates": 3,
            "methods": [
                {"selector": "smash", "label": "fragile"},
                {"selector": "scanpy_hvg", "label": "robust"},
            ],
        }
    )


def test_without_noise_the_clean_classifiers_have_the_same_metrics() -> None:
    clean = fill_clean_metrics(row("fragile", 0, 0.0, 0.9, 0.9))
    assert clean["clean_knn/accuracy"] == clean["knn/accuracy"] == 0.9
    assert clean["confusion/clean_knn"] == clean["confusion/knn"]
    noisy = row("fragile", 0, 0.5, 0.6, 0.75)
    assert fill_clean_metrics(noisy) == noisy


def test_robustness_of_every_method_and_metric(rows: pd.DataFrame) -> None:
    found = robustness_table(rows).set_index(["method", "metric"])
    assert set(found.index) == {
        (m, metric) for m in ("fragile", "robust") for metric in ROBUSTNESS_METRICS
    }
    assert set(found["n"]) == {3}
    fragile = found.loc[("fragile", "knn/accuracy")]
    assert fragile["clean"] == pytest.approx(0.91)
    assert fragile["auc"] == pytest.approx(0.61)
    assert fragile["loss_level"] == pytest.approx(0.05 * 0.91 / 0.6)
    assert fragile["loss_level_low"] <= fragile["loss_level"] <= fragile["loss_level_high"]
    # Hand-computed interval: three areas, 0.01 apart, with the variance correction.
    half = stats.t.ppf(0.975, 2) * np.sqrt((1 / 3 + 0.25) * 0.01**2)
    assert fragile["auc_high"] - fragile["auc"] == pytest.approx(half)
    assert fragile["auc"] - fragile["auc_low"] == pytest.approx(half)
    robust = found.loc[("robust", "clean_knn/accuracy")]
    # 0.9 without noise and 0.8 at every other level: reached before the first of them.
    assert 0 < robust["loss_level"] < 0.2


def test_a_replicate_without_all_levels_is_left_out(rows: pd.DataFrame) -> None:
    part = rows[(rows["replicate"] != 1) | (rows["noise_level"] < 1)]
    assert set(robustness_table(part)["n"]) == {2}
    single = robustness_table(rows[rows["replicate"] == 0])
    assert single[["auc_low", "loss_level_low", "loss_level_high"]].isna().all(axis=None)
    assert single["auc"].notna().all()


def test_robustness_metrics_have_the_metric_in_their_names(rows: pd.DataFrame) -> None:
    own = robustness_table(rows).query("method == 'fragile'")
    metrics = robustness_metrics(own)
    assert metrics["auc/knn/accuracy"] == pytest.approx(0.61)
    assert set(metrics) == {
        f"{kind}/{name}" for kind in ("auc", "loss_level") for name in ROBUSTNESS_METRICS
    }


@pytest.fixture
def marked(rows: pd.DataFrame) -> pd.DataFrame:
    return add_significance(summarise_rows(rows, 100), reference_tests(rows, set()))


def test_tables_have_one_column_per_level_and_the_robustness(
    rows: pd.DataFrame, spec: ComparisonSpec, marked: pd.DataFrame
) -> None:
    robust_table = robustness_table(rows)
    tables = {
        title: (header, body)
        for title, header, body, _ in curve_tables(spec, marked, robust_table, "<{}>".format)
    }
    assert len(tables) == 4
    header, body = tables["k-nearest neighbours: label noise in selection only"]
    assert header == [
        "method",
        "n",
        *(f"noise {p} %" for p in (0, 20, 50, 100)),
        "area under curve",
        "noise at 5 % loss",
    ]
    assert [line[0] for line in body] == ["fragile", "robust"]
    assert body[0][2:6] == ["<0.910>", "<0.850>", "0.760", "0.610"]
    assert body[1][2:6] == ["<0.910>", "0.810", "<0.810>", "<0.810>"]
    text = markdown(curve_tables(spec, marked, robust_table, "**{}**".format))
    assert "### K-nearest neighbours: label noise in selection and classifier" in text
    assert "Higher is better: accuracy (share of the cells with the right type)." in text
    not_reached = robust_table.assign(loss_level=np.inf, loss_level_low=0.4, loss_level_high=np.inf)
    (_, _, body, _), *_ = curve_tables(spec, marked, not_reached, "<{}>".format)
    assert body[0][-1] == "not reached (40 % to not reached)"


def test_the_level_of_a_loss_is_not_shown_for_fewer_than_four_levels(
    rows: pd.DataFrame, spec: ComparisonSpec
) -> None:
    few = spec.model_copy(update={"levels": spec.levels[:3]})
    rows = rows[rows["noise_level"].isin(LEVELS[:3])]
    marked = add_significance(summarise_rows(rows, 100), reference_tests(rows, set()))
    _, header, body, _ = curve_tables(few, marked, robustness_table(rows), str)[0]
    assert header[-1] == "area under curve"
    assert {len(line) for line in body} == {len(header)}
    assert "5 %" not in robustness_note(few).replace("95 %", "")
    assert "interpolated between those of the table" in robustness_note(spec)
    for note in (robustness_note(few), robustness_note(spec)):
        assert note.count("divided by the range of the noise levels") == 1


def test_ties_at_a_setting_are_bold_and_controls_are_not(
    rows: pd.DataFrame, spec: ComparisonSpec
) -> None:
    """At full noise the control has the best value, and the methods differ by chance alone."""
    rng = np.random.default_rng(0)
    chance = 0.01 * rng.standard_normal(len(rows))
    last = rows["noise_level"] == 1
    rows = rows.assign(**{"knn/accuracy": rows["knn/accuracy"] + np.where(last, chance, 0)})
    values = {"knn/accuracy": 0.5, "random_forest/accuracy": 0.5}
    control = rows[rows["method"] == "robust"].assign(method="chance", selector="random", **values)
    rows = pd.concat([rows, control], ignore_index=True)
    methods = [*spec.methods, MethodSpec(selector="random", label="chance")]
    tests = reference_tests(rows, {"random"})
    assert not {"chance"} & ({*tests["method"]} | {*tests["reference"]})
    marked = add_significance(summarise_rows(rows, 100), tests)
    tables = curve_tables(
        spec.model_copy(update={"methods": methods}), marked, pd.DataFrame(), "<{}>".format
    )
    body = tables[0].rows
    assert [line[-1][0] for line in body] == ["<", "<", "0"]
    assert float(body[2][-1]) > float(body[0][-1].strip("<>"))


def test_written_tables_have_the_step_of_mlflow_charts(
    rows: pd.DataFrame, spec: ComparisonSpec, marked: pd.DataFrame, tmp_path: Any
) -> None:
    tests = reference_tests(rows, set())
    write_curves(spec, rows, marked, robustness_table(rows), tests, tmp_path)
    table = pd.read_parquet(tmp_path / "curves.parquet")
    assert set(table["step"]) == {0, 20, 50, 100}
    assert len(pd.read_parquet(tmp_path / "replicates.parquet")) == len(rows)
    assert len(pd.read_parquet(tmp_path / "robustness.parquet")) == 8
    written = pd.read_parquet(tmp_path / "paired_tests.parquet")
    # One test at every level, of four metrics.
    assert set(written.groupby(["setting", "metric"]).size()) == {1}
    assert len(written) == 4 * 4
    for name in ("curves_knn.png", "curves_random_forest.png"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.parametrize(
    ("content", "steps"),
    [
        ({"n_markers": [10, 50]}, [10, 50]),
        ({"over": {"hidden_size": [64, 128]}}, [64, 128]),
        ({"over": {"learning_rate": [1e-4, 1e-3]}}, [0, 1]),
        ({"over": {"hidden_size": ["auto", 64]}}, [0, 1]),
    ],
)
def test_curves_are_drawn_over_every_kind_of_axis(
    content: dict[str, Any], steps: list[int]
) -> None:
    methods = [{"selector": "markermap_supervised"}]
    spec = ComparisonSpec.model_validate(
        {"study": "sweep", "data": {"name": "zeisel"}, "methods": methods} | content
    )
    assert [setting.step for setting in spec.settings] == steps
    summary = pd.DataFrame(
        [
            {
                "method": "markermap_supervised",
                "setting": setting.name,
                "metric": "knn/accuracy",
                "mean": 0.9,
                "std": 0.01,
                "n": 2,
            }
            for setting in spec.settings
        ]
    )
    (figure,) = curve_figures(spec, summary).values()
    (axes,) = figure.axes
    (line,) = axes.get_lines()
    assert len(line.get_xdata()) == 2


@pytest.mark.parametrize("noise", ["uniform", "uniform_other"])
def test_titles_and_labels_of_noise_curves_are_whole(spec: ComparisonSpec, noise: str) -> None:
    spec = spec.model_copy(update={"noise": noise})
    columns = {"method": "smash", "mean": 0.9, "std": 0.01, "n": 2}
    summary = pd.DataFrame(
        [
            columns | {"setting": setting.name, "metric": view.metric}
            for setting in spec.settings
            for view in curve_views(spec)
        ]
    )
    for figure in curve_figures(spec, summary).values():
        assert len(figure.axes) == 2
        for text in figure.findobj(Text):
            assert "…" not in text.get_text()
