"""Linear reconstruction: equals least squares, and stays stable if panel genes are near copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression

from mmlab.metrics import METRICS
from mmlab.metrics.reconstruction import apply_coefficients, linear_reconstruction
from mmlab.preprocessing import expression

Matrix = NDArray[np.float32]

#: Largest z-score: a rare gene has it in every cell that expresses the gene.
CLIPPED = 10


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a few cells at a time, so that every regression is computed from several blocks."""
    monkeypatch.setattr(expression, "_MAX_BLOCK_VALUES", 200)


def cells_of(seed: int, n_fit: int = 300, n: int = 60) -> tuple[Matrix, Matrix]:
    """Return cells to fit on and others, of 9 genes with a common part, clipped z-scores.

    Genes 0 to 7 are correlated. Gene 8 is rare: expressed in 2 % of the cells.
    """
    rng = np.random.default_rng(seed)
    z = rng.normal(0.3, 1, size=(n_fit + n, 9)) + rng.normal(size=(n_fit + n, 1))
    rare = rng.permutation(n_fit + n) < (n_fit + n) // 50
    z[:, 8] = np.where(rare, CLIPPED, -0.05)
    z = np.clip(z, -CLIPPED, CLIPPED).astype(np.float32)
    return z[:n_fit], z[n_fit:]


def with_copy(x: Matrix, gene: int) -> Matrix:
    """Append a copy of a gene."""
    return np.column_stack([x, x[:, gene]])


def metrics_of(x: Matrix, reconstructed: Matrix) -> dict[str, float]:
    return {
        name: metric.function(x, reconstructed)
        for name, metric in METRICS.items()
        if metric.kind == "reconstruction"
    }


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(20, 300))
def test_it_equals_linear_regression_of_scikit_learn(seed: int, k: int, n_fit: int) -> None:
    x_fit, x = cells_of(seed, n_fit)
    panel = np.random.default_rng(seed).permutation(8)[:k]
    model = LinearRegression().fit(x_fit[:, panel].astype(np.float64), x_fit.astype(np.float64))
    found = linear_reconstruction(x_fit, x, panel)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model.predict(x[:, panel].astype(np.float64)), atol=2e-6)
    np.testing.assert_allclose(found[:, panel], x[:, panel], atol=2e-6)


@given(st.integers(0, 10_000))
def test_it_is_exact_for_strongly_correlated_genes(seed: int) -> None:
    """The condition number is about 500: float32 sums would have errors of several percent."""
    x_fit, x = cells_of(seed)
    for cells in (x_fit, x):
        cells[:, 1] = cells[:, 0] + 0.005 * cells[:, 1]
    panel = np.arange(3)
    model = LinearRegression().fit(x_fit[:, panel].astype(np.float64), x_fit.astype(np.float64))
    expected = model.predict(x[:, panel].astype(np.float64))
    np.testing.assert_allclose(linear_reconstruction(x_fit, x, panel), expected, atol=5e-6)


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_with_fewer_cells_than_genes_it_has_the_smallest_norm(seed: int, n_fit: int) -> None:
    x_fit, x = cells_of(seed, n_fit)
    panel = np.arange(8)
    centre = x_fit.mean(axis=0, dtype=np.float64)
    slopes = np.linalg.pinv(x_fit[:, panel] - centre[panel], rcond=1e-3) @ (x_fit - centre)
    expected = centre + (x[:, panel] - centre[panel]) @ slopes
    np.testing.assert_allclose(linear_reconstruction(x_fit, x, panel), expected, atol=1e-5)


@given(st.integers(0, 10_000), st.sampled_from([0, 5, 8]))
def test_a_copy_of_a_panel_gene_changes_no_metric(seed: int, gene: int) -> None:
    x_fit, x = (with_copy(cells, gene) for cells in cells_of(seed))
    panel = np.array([0, 5, 8])
    alone = linear_reconstruction(x_fit, x, panel)
    both = linear_reconstruction(x_fit, x, np.append(panel, 9))
    np.testing.assert_allclose(both, alone, atol=2e-6)
    assert metrics_of(x, both) == pytest.approx(metrics_of(x, alone), abs=1e-5)


@given(st.integers(0, 10_000), st.sampled_from([0, 5, 8]), st.floats(-CLIPPED, CLIPPED))
def test_genes_that_differ_only_in_new_cells_count_as_their_mean(
    seed: int, gene: int, value: float
) -> None:
    x_fit, x = (with_copy(cells, gene) for cells in cells_of(seed))
    x[7, 9] = value
    mean = x.copy()
    mean[:, gene] = (x[:, gene] + x[:, 9]) / 2
    panel = np.array([0, 5, 8])
    both = linear_reconstruction(x_fit, x, np.append(panel, 9))
    np.testing.assert_allclose(both, linear_reconstruction(x_fit, mean, panel), atol=1e-5)


@given(
    st.integers(0, 10_000),
    st.sampled_from([0, 5, 8]),
    st.one_of(st.floats(-0.01, 0.01), st.just(float(CLIPPED))),
)
def test_a_copy_that_differs_in_one_training_cell_changes_l2_little(
    seed: int, gene: int, difference: float
) -> None:
    """A read of the copy in one new cell is not multiplied by the inverse of the difference."""
    x_fit, x = (with_copy(cells, gene) for cells in cells_of(seed))
    x_fit[3, 9] += difference
    x[7, 9] = CLIPPED
    panel = np.array([0, 5, 8])
    alone = metrics_of(x, linear_reconstruction(x_fit, x, panel))
    both = metrics_of(x, linear_reconstruction(x_fit, x, np.append(panel, 9)))
    assert both["l2"] == pytest.approx(alone["l2"], rel=0.5)
    assert both["explained_variance"] == pytest.approx(alone["explained_variance"], abs=0.3)


@given(st.integers(0, 10_000))
def test_markers_clipped_in_the_same_rare_cells_change_l2_little(seed: int) -> None:
    """Such genes have two values: with the intercept, they are copies of each other."""
    x_fit, x = cells_of(seed)
    rng = np.random.default_rng(seed)
    low = -rng.uniform(0.01, 0.2, size=6).astype(np.float32)
    x_fit, x = (
        np.column_stack([cells, np.where(cells[:, [8]] == CLIPPED, CLIPPED, low)]).astype(
            np.float32
        )
        for cells in (x_fit, x)
    )
    x[7, 9:11] = CLIPPED  # a read of two of the markers in a cell of another type
    alone = metrics_of(x, linear_reconstruction(x_fit, x, np.array([0, 5, 8])))
    all_markers = np.array([0, 5, *range(8, 15)])
    together = metrics_of(x, linear_reconstruction(x_fit, x, all_markers))
    assert together["l2"] == pytest.approx(alone["l2"], rel=0.5)


def test_constant_panel_genes_predict_the_mean() -> None:
    x_fit, x = cells_of(0)
    x_fit[:, :2] = [0.1, -0.7]
    x[:, 0] = CLIPPED
    expected = np.broadcast_to(x_fit.mean(axis=0, dtype=np.float64), x.shape)
    found = linear_reconstruction(x_fit, x, np.arange(2))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_many_cells_are_predicted_in_parts() -> None:
    rng = np.random.default_rng(0)
    x, coefficients = rng.normal(size=(1000, 3)).astype(np.float32), rng.normal(size=(4, 5))
    expected = x.astype(np.float64) @ coefficients[:3] + coefficients[3]
    found = apply_coefficients(coefficients, x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
