"""Paired tests: corrected t-test and its interval, Holm's correction, pairing of methods."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmlab.comparison.paired_tests import (
    corrected_half_width,
    corrected_resampled_t_test,
    holm,
    paired_tests,
)

differences = st.lists(st.integers(-50, 50), min_size=2, max_size=15).map(
    lambda values: np.array(values) / 100
)


@given(differences)
def test_without_correction_the_t_test_equals_scipys(values: Any) -> None:
    if np.var(values) < 1e-12:
        return
    t, p = corrected_resampled_t_test(values, test_share=0.0)
    expected = stats.ttest_1samp(values, 0)
    assert t == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue)


def test_the_corrected_t_test_matches_a_hand_computed_example() -> None:
    # Four splits, mean 0.02, variance 2e-4 / 3: t = 0.02 / sqrt((1/4 + 1/4) * 2e-4 / 3).
    values = np.array([0.01, 0.02, 0.02, 0.03])
    t, p = corrected_resampled_t_test(values)
    variance = 2e-4 / 3
    assert t == pytest.approx(0.02 / math.sqrt(0.5 * variance))
    assert p == pytest.approx(2 * stats.t.sf(t, 3))


@given(differences)
def test_the_t_test_is_symmetric_and_gives_a_probability(values: Any) -> None:
    t, p = corrected_resampled_t_test(values)
    t_back, p_back = corrected_resampled_t_test(-values)
    assert t_back == pytest.approx(-t)
    assert p_back == pytest.approx(p, nan_ok=True)
    assert 0 <= p <= 1 or (math.isnan(p) and np.ptp(values) < 1e-12)


@given(differences)
def test_the_correction_never_lowers_the_p_value(values: Any) -> None:
    _, plain = corrected_resampled_t_test(values, test_share=0.0)
    _, corrected = corrected_resampled_t_test(values)
    assert not corrected < plain - 1e-12


def test_equal_differences_cannot_be_tested_unless_they_are_0() -> None:
    assert corrected_resampled_t_test(np.zeros(3)) == (0.0, 1.0)
    t, p = corrected_resampled_t_test(np.full(3, -0.1))
    assert (t, math.isnan(p)) == (-math.inf, True)
    rows = pd.DataFrame({"method": ["a"] * 3 + ["b"] * 3, "replicate": [0, 1, 2] * 2})
    rows["accuracy"] = [0.5, 0.6, 0.7, 0.6, 0.7, 0.8]
    (test,) = paired_tests(rows, "accuracy", "b").to_dict("records")
    assert test["mean_difference"] == pytest.approx(-0.1)
    assert all(math.isnan(test[name]) for name in ("low", "high", "p", "p_holm"))
    with pytest.raises(ValueError, match="at least two differences, got 1"):
        corrected_resampled_t_test(np.ones(1))


@given(differences)
def test_the_interval_contains_0_unless_the_difference_is_significant(values: Any) -> None:
    if np.ptp(values) == 0:
        return
    _, p = corrected_resampled_t_test(values)
    assert (abs(values.mean()) > corrected_half_width(values)) == (p < 0.05)


def test_without_correction_the_interval_equals_scipys() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, size=(7, 3))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    half = corrected_half_width(values, test_share=0.0)
    np.testing.assert_allclose(values.mean(axis=0) - half, expected.low)
    np.testing.assert_allclose(values.mean(axis=0) + half, expected.high)


def test_holm_matches_a_hand_computed_example() -> None:
    found = holm(np.array([0.01, 0.04, math.nan, 0.03]))
    np.testing.assert_allclose(found, [0.03, 0.06, math.nan, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    assert len(holm(np.array([]))) == 0


def test_methods_are_paired_over_the_replicates_that_both_have() -> None:
    rows = pd.DataFrame(
        [
            {"method": method, "replicate": r, "score": value}
            for method, values in (
                ("best", [0.9, 0.8, 0.7, 0.6]),
                ("other", [0.8, 0.7, 0.5]),
                ("once", [0.1]),
            )
            for r, value in enumerate(values)
        ]
    )
    table = paired_tests(rows, "score", "best").set_index("method")
    assert table["n"].to_dict() == {"other": 3, "once": 1}
    assert table.loc["other", "mean_difference"] == pytest.approx(-0.4 / 3)
    expected = corrected_resampled_t_test(np.array([-0.1, -0.1, -0.2]))[1]
    assert table.loc["other", "p"] == pytest.approx(expected)
    assert table.loc["other", "p_holm"] == pytest.approx(expected)
    assert table.loc["once", "mean_difference"] == pytest.approx(-0.8)
    assert table.loc["once", ["low", "high", "p", "p_holm"]].isna().all()
    assert set(table["reference"]) == {"best"}
    assert set(table["test"]) == {"corrected resampled t-test"}
    with pytest.raises(ValueError, match="duplicate"):
        paired_tests(pd.concat([rows, rows]), "score", "best")


def test_with_a_single_method_the_table_is_empty_but_has_all_columns() -> None:
    rows = pd.DataFrame({"method": ["a", "a", "b", "b"], "replicate": [0, 1, 0, 1], "x": 0.5})
    full = paired_tests(rows, "x", "a")
    none = paired_tests(rows[rows["method"] == "a"], "x", "a")
    assert none.empty
    assert none.dtypes.to_dict() == full.dtypes.to_dict()


@pytest.mark.parametrize("missing", ["a", "b"])
def test_a_method_without_the_metric_is_in_the_table_with_nan(missing: str) -> None:
    rows = pd.DataFrame({"method": ["a", "a", "b", "b"], "replicate": [0, 1, 0, 1], "x": 0.5})
    rows.loc[rows["method"] == missing, "x"] = np.nan
    (row,) = paired_tests(rows, "x", "a").to_dict(orient="records")
    assert (row["method"], row["n"]) == ("b", 0)
    assert all(math.isnan(row[name]) for name in ("mean_difference", "low", "high", "p"))


def test_differences_that_are_equal_but_for_rounding_are_equal() -> None:
    rows = pd.DataFrame(
        [
            {"method": method, "replicate": r, "x": (n + shift) / 602}
            for method, shift in (("a", 0), ("b", -7))
            for r, n in enumerate([558, 552, 551, 552, 554])
        ]
    )
    differences = rows.pivot(index="replicate", columns="method", values="x").eval("b - a")
    assert differences.nunique() > 1
    (row,) = paired_tests(rows, "x", "a").to_dict(orient="records")
    assert row["mean_difference"] == pytest.approx(-7 / 602)
    assert math.isnan(row["p"])
