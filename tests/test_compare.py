from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmlab.compare import (
    corrected_resampled_t_test,
    holm,
    paired_tests,
    wilcoxon_signed_rank,
)

differences = st.lists(st.integers(-50, 50), min_size=2, max_size=15).map(
    lambda values: np.array(values) / 100
)


@given(differences)
def test_without_shared_cells_the_t_test_is_scipys(values: Any) -> None:
    if np.var(values) < 1e-12:
        return
    t, p = corrected_resampled_t_test(values, test_share=0.0)
    expected = stats.ttest_1samp(values, 0)
    assert t == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue)


def test_the_correction_by_hand() -> None:
    # Mean 0.02, variance 1e-4 over four splits: t = 0.02 / sqrt((1/4 + 1/4) * 1e-4 * 4/3 * ...).
    values = np.array([0.01, 0.02, 0.02, 0.03])
    t, p = corrected_resampled_t_test(values)
    variance = 2e-4 / 3
    assert t == pytest.approx(0.02 / math.sqrt(0.5 * variance))
    assert p == pytest.approx(2 * stats.t.sf(t, 3))


@given(differences)
def test_the_tests_are_symmetric_and_give_probabilities(values: Any) -> None:
    t, p = corrected_resampled_t_test(values)
    t_back, p_back = corrected_resampled_t_test(-values)
    assert t_back == pytest.approx(-t)
    assert p_back == pytest.approx(p)
    _, w = wilcoxon_signed_rank(values)
    assert wilcoxon_signed_rank(-values)[1] == pytest.approx(w)
    assert 0 <= p <= 1
    assert 0 <= w <= 1


@given(differences)
def test_shared_cells_make_the_test_more_careful(values: Any) -> None:
    _, plain = corrected_resampled_t_test(values, test_share=0.0)
    _, corrected = corrected_resampled_t_test(values)
    assert corrected >= plain - 1e-12


def test_equal_differences_have_no_variance() -> None:
    assert corrected_resampled_t_test(np.zeros(3)) == (0.0, 1.0)
    assert corrected_resampled_t_test(np.full(3, -0.5)) == (-math.inf, 0.0)
    assert wilcoxon_signed_rank(np.zeros(3)) == (0.0, 1.0)


def test_wilcoxon_is_scipys() -> None:
    values = np.array([0.1, -0.2, 0.3, 0.4, 0.5, 0.6])
    expected = stats.wilcoxon(values)
    assert wilcoxon_signed_rank(values) == (expected.statistic, pytest.approx(expected.pvalue))


def test_holm_by_hand() -> None:
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
    assert table.loc["other", "t_p"] == pytest.approx(expected)
    assert table.loc["other", "t_p_holm"] == pytest.approx(expected)
    assert np.isnan(table.loc["once", "t_p"])
    assert np.isnan(table.loc["once", "wilcoxon_p"])
    assert set(table["reference"]) == {"best"}
    assert paired_tests(rows[rows["method"] == "best"], "score", "best").empty
