"""Tests over the cells of the held-out test set: bootstrap, McNemar's test, pairing of methods."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from mmlab.comparison import cell_tests as module
from mmlab.comparison.cell_tests import bootstrap_over_cells, cell_tests, mcnemar
from mmlab.comparison.paired_tests import corrected_resampled_t_test, holm
from mmlab.comparison.significance import bold_note
from mmlab.comparison.tables import compare_methods

ACCURACY = "knn/accuracy"

integer_differences = st.lists(st.integers(-3, 3), min_size=1, max_size=60)


def table(values: dict[str, list[Any]], metric: str = ACCURACY) -> pd.DataFrame:
    """Return rows of methods, given the values of the cells in each replicate."""
    return pd.DataFrame(
        [
            {
                "method": method,
                "replicate": replicate,
                metric: float(np.mean(cells)),
                f"per_cell/{metric}": [float(cell) for cell in cells],
            }
            for method, replicates in values.items()
            for replicate, cells in enumerate(replicates)
            if cells is not None
        ]
    )


# --- bootstrap


def test_the_bootstrap_agrees_with_an_independent_one() -> None:
    differences = np.random.default_rng(5).exponential(1.0, size=80) - 0.9
    p, half_width = bootstrap_over_cells(differences)
    assert 0.2 < p < 0.5
    counts = np.random.default_rng(99).multinomial(80, np.full(80, 1 / 80), size=20_000)
    deviations = np.abs(counts @ differences / 80 - differences.mean())
    assert p == pytest.approx((deviations >= abs(differences.mean())).mean(), abs=0.02)
    assert half_width == pytest.approx(np.quantile(deviations, 0.95), rel=0.03)


def test_for_many_cells_the_bootstrap_agrees_with_a_t_test() -> None:
    differences = np.random.default_rng(1).normal(0.08, 1.0, size=602)
    p, half_width = bootstrap_over_cells(differences)
    expected = stats.ttest_1samp(differences, 0)
    assert p == pytest.approx(expected.pvalue, abs=0.01)
    low, high = expected.confidence_interval()
    assert half_width == pytest.approx((high - low) / 2, rel=0.03)


def test_a_p_value_is_never_0_and_is_1_without_any_difference() -> None:
    assert bootstrap_over_cells(np.full(50, 0.2)) == (1 / 10_001, 0.0)
    assert bootstrap_over_cells(np.zeros(50)) == (1.0, 0.0)


@given(integer_differences)
@example([1, 1, 1, 1] + 46 * [0])
def test_the_interval_excludes_0_exactly_if_p_is_below_5_percent(values: list[int]) -> None:
    differences = np.array(values)
    p, half_width = bootstrap_over_cells(differences)
    assert 0 < p <= 1
    assert (abs(differences.mean()) > half_width + 1e-12) == (p < 0.05)
    assert bootstrap_over_cells(-differences) == (p, half_width)


def test_the_bootstrap_of_many_cells_needs_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 1000)
    differences = np.random.default_rng(0).normal(size=10_000)
    tracemalloc.start()
    bootstrap_over_cells(differences)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6  # all resamples at once would need 120 MB


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 0), (9, 4), (30, 31), (2, 17)])
def test_mcnemars_test_equals_that_of_statsmodels(first: int, second: int) -> None:
    differences = np.array([1] * first + [-1] * second + [0] * 20)
    contingency = [[12, first], [second, 8]]
    expected = statsmodels_mcnemar(contingency, exact=True).pvalue if first + second else 1.0
    assert mcnemar(differences) == pytest.approx(expected)


# --- tests between methods


def test_values_are_averaged_over_the_replicates_that_both_methods_have() -> None:
    rng = np.random.default_rng(3)
    cells = {name: list(rng.integers(0, 2, size=(3, 40))) for name in ("best", "other")}
    cells["late"] = [None, cells["other"][1], None]
    found = cell_tests(table(cells), ACCURACY, "best").set_index("method")
    assert found["n"].to_dict() == {"other": 3, "late": 1}
    assert set(found["reference"]) == {"best"}
    assert set(found["metric"]) == {ACCURACY}
    differences = np.mean(cells["other"], axis=0) - np.mean(cells["best"], axis=0)
    other = found.loc["other"]
    assert other["mean_difference"] == pytest.approx(differences.mean())
    resampled = rng.choice(differences, size=(20_000, 40)).mean(axis=1)
    deviations = np.abs(resampled - differences.mean())
    expected = (deviations >= abs(differences.mean()) - 1e-12).mean()
    assert other["p"] == pytest.approx(expected, abs=0.02)
    half_width = np.quantile(deviations, 0.95)
    assert other["low"] == pytest.approx(differences.mean() - half_width, abs=0.01)
    assert other["high"] == pytest.approx(differences.mean() + half_width, abs=0.01)
    # With one common replicate, the accuracies are compared with McNemar's test.
    assert found["test"].to_dict() == {"other": "bootstrap over cells", "late": "McNemar"}
    only = cells["other"][1] - cells["best"][1]
    assert found.loc["late", "p"] == mcnemar(only)
    assert found.loc["late", "mean_difference"] == pytest.approx(only.mean())
    np.testing.assert_array_equal(found["p_holm"], holm(found["p"].to_numpy()))
    assert found["p_holm"].max() > found["p"].min()


def test_errors_of_a_single_replicate_are_compared_by_the_bootstrap() -> None:
    rng = np.random.default_rng(4)
    best, other = rng.exponential(1.0, size=(2, 300))
    rows = table({"best": [best], "other": [other + 0.1]}, "linear/l2")
    (found,) = cell_tests(rows, "linear/l2", "best").to_dict(orient="records")
    assert found["test"] == "bootstrap over cells"
    expected = stats.ttest_1samp(other + 0.1 - best, 0)
    assert found["p"] == pytest.approx(expected.pvalue, abs=0.01)
    assert found["low"] < found["mean_difference"] < found["high"]


def test_without_common_replicates_the_numbers_are_nan() -> None:
    rows = table({"best": [[1, 0], None], "other": [None, [1, 1]], "third": [[1, 1], [1, 1]]})
    found = cell_tests(rows, ACCURACY, "best").set_index("method")
    assert found["n"].to_dict() == {"other": 0, "third": 1}
    names = ["mean_difference", "low", "high", "p", "p_holm"]
    assert found.loc["other", names].isna().all()
    assert found.loc["third", names].notna().all()


def test_a_single_method_gives_an_empty_table_with_all_columns() -> None:
    rows = table({"best": [[1, 0], [1, 1]], "other": [[1, 1], [0, 1]]})
    full = cell_tests(rows, ACCURACY, "best")
    none = cell_tests(rows[rows["method"] == "best"], ACCURACY, "best")
    assert none.empty
    assert none.dtypes.to_dict() == full.dtypes.to_dict()


def test_replicates_must_be_unique_and_have_the_same_cells() -> None:
    rows = table({"best": [[1, 0]], "other": [[1, 1]]})
    with pytest.raises(ValueError, match="duplicate"):
        cell_tests(pd.concat([rows, rows]), ACCURACY, "best")
    with pytest.raises(ValueError, match="broadcast"):
        cell_tests(table({"best": [[1, 0]], "other": [[1, 1, 0]]}), ACCURACY, "best")


def test_equal_methods_differ_significantly_in_5_percent_of_studies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 1000)
    rng, n_cells, n_studies = np.random.default_rng(11), 150, 100
    significant, over_replicates = 0, 0
    for _ in range(n_studies):
        # Probability of each cell to be classified correctly: most cells are almost always right
        # or almost always wrong, as the trainings differ little.
        chance = rng.beta(0.1, 0.02, size=(2, n_cells))
        cells = rng.random((10, 2, n_cells)) < chance  # in 10 replicates
        differences = cells[:, 1].astype(int) - cells[:, 0]
        significant += bootstrap_over_cells(differences.sum(axis=0))[0] < 0.05
        over_replicates += corrected_resampled_t_test(differences.mean(axis=1))[1] < 0.05
    assert significant <= 12  # of 100 at 5 %, more than 12 have a probability of 0.2 %
    assert over_replicates > 40


@pytest.mark.parametrize(
    ("protocol", "test"),
    [("locked", "bootstrap over cells"), ("paper", "corrected resampled t-test")],
)
def test_the_protocol_decides_the_test_of_a_comparison(protocol: str, test: str) -> None:
    rng = np.random.default_rng(0)
    metrics = (ACCURACY, "random_forest/accuracy", "linear/l2")
    cells = {m: list(rng.random((4, 30)) < share) for m, share in (("a", 0.9), ("b", 0.6))}
    parts = [table(cells, metric) for metric in metrics]
    rows = pd.concat(parts, axis=1).loc[:, lambda t: ~t.columns.duplicated()]
    rows = rows.assign(selector=rows["method"], n_markers=5, setting="k=5", dataset="x")
    summary = rows.melt(["dataset", "method", "n_markers", "setting"], list(metrics), "metric")
    summary = summary.groupby(["dataset", "method", "n_markers", "setting", "metric"])["value"]
    summary = summary.agg(mean="mean", std="std", n="size").reset_index()
    tests = compare_methods(rows, summary, set(), protocol).tests
    assert set(tests["metric"]) == set(metrics)
    assert set(tests["test"]) == {test}
    assert not math.isnan(tests["p"].min())
    # Few replicates make a test over replicates weak, not one over cells.
    note = bold_note(tests)
    assert test in note
    assert ("With fewer than" in note) == (protocol == "paper")
    # Only over cells are metrics left untested that are shown beside tested ones.
    assert ("Columns without bold were not tested." in note) == (protocol == "locked")
