"""Robustness to label noise: area under the curve, noise at 5 % loss, tables and figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmlab.comparison.curves import curve_figures, curve_tables, curves_markdown, write_curves
from mmlab.comparison.result_table import summarise_rows
from mmlab.comparison.robustness import (
    ROBUSTNESS_METRICS,
    area_under_curve,
    fill_clean_metrics,
    loss_level,
    robustness_metrics,
    robustness_table,
)
from mmlab.spec.comparison import ComparisonSpec

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


def row(method: str, replicate: int, level: float, accuracy: float, clean: float) -> dict[str, Any]:
    values = {"knn/accuracy": accuracy, "random_forest/accuracy": accuracy}
    if level > 0:
        values |= {"clean_knn/accuracy": clean, "clean_random_forest/accuracy": clean}
    return {
        "dataset": "zeisel",
        "method": method,
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
            noisy, clean = 0.9 - 0.6 * level + shift, 0.9 - 0.3 * level + shift
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


def test_tables_have_one_column_per_level_and_the_robustness(
    rows: pd.DataFrame, spec: ComparisonSpec
) -> None:
    summary, robust_table = summarise_rows(rows, 100), robustness_table(rows)
    tables = {
        title: (header, body)
        for title, header, body in curve_tables(spec, summary, robust_table, "<{}>".format)
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
    text = curves_markdown(spec, summary, robust_table)
    assert "### K-nearest neighbours: label noise in selection and classifier" in text
    not_reached = robust_table.assign(loss_level=np.inf, loss_level_low=0.4, loss_level_high=np.inf)
    (_, _, body), *_ = curve_tables(spec, summary, not_reached, "<{}>".format)
    assert body[0][-1] == "not reached (40 % to not reached)"


def test_written_tables_have_the_step_of_mlflow_charts(
    rows: pd.DataFrame, spec: ComparisonSpec, tmp_path: Any
) -> None:
    summary, robust_table = summarise_rows(rows, 100), robustness_table(rows)
    write_curves(spec, rows, summary, robust_table, tmp_path)
    table = pd.read_parquet(tmp_path / "curves.parquet")
    assert set(table["step"]) == {0, 20, 50, 100}
    assert len(pd.read_parquet(tmp_path / "replicates.parquet")) == len(rows)
    assert len(pd.read_parquet(tmp_path / "robustness.parquet")) == 8
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
